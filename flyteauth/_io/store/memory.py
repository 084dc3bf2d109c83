"""A store that ends with the process."""

from __future__ import annotations

import threading

from ..._sansio.record import Record


class MemoryStore:
    """Records in memory, for whoever holds this object."""

    name = "memory"
    place = "the memory of this process"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}

    async def probe(self) -> None:
        """Memory is always there."""

    async def load(self, key: str) -> Record | None:
        with self._lock:
            return self._records.get(key)

    async def save(self, key: str, record: Record) -> None:
        with self._lock:
            self._records[key] = record

    async def delete(self, key: str) -> None:
        with self._lock:
            self._records.pop(key, None)
