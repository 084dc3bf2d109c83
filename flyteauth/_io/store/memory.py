"""A store that ends with the process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, TypeVar
from weakref import WeakSet

from ..._sansio.errors import StoreError
from ..._sansio.record import Record, is_same
from ..forks import in_forked_children

T = TypeVar("T")

PAUSE: Final = 0.01


class MemoryStore:
    """Records in memory, for whoever holds this object."""

    name = "memory"
    place = "the memory of this process"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}
        self._turns: dict[str, tuple[int, object]] = {}  # the process, and whoever has the turn
        _LIVE.add(self)

    @property
    def slot(self) -> Hashable:
        return ("memory", id(self))

    async def probe(self) -> None:
        """Memory is always there."""

    async def load(self, key: str) -> Record | None:
        with self._lock:
            return self._records.get(key)

    async def save(self, key: str, record: Record) -> None:
        with self._lock:
            self._records[key] = record

    async def swap(self, key: str, old: Record | None, new: Record) -> bool:
        with self._lock:
            if not is_same(self._records.get(key), old):
                return False
            self._records[key] = new
            return True

    async def delete(self, key: str) -> None:
        with self._lock:
            self._records.pop(key, None)

    async def exclusively(
        self, key: str, function: Callable[[], Awaitable[T]], *, deadline: float
    ) -> T:
        import anyio

        due = time.monotonic() + deadline
        turn = (os.getpid(), object())
        while not self._take(key, turn):
            if time.monotonic() >= due:
                raise StoreError(
                    f"another task keeps {self.place} busy; try again later", reason="busy"
                )
            await anyio.sleep(PAUSE)
        try:
            return await function()
        finally:
            if self._turns.get(key) is turn:
                del self._turns[key]

    def _take(self, key: str, turn: tuple[int, object]) -> bool:
        with self._lock:
            if self._turns.get(key, (0,))[0] == turn[0]:
                return False
            self._turns[key] = turn  # over what a fork left behind
            return True

    def _unlock(self) -> None:
        """In a forked child: whoever held the lock has stayed with the parent."""
        self._lock = threading.Lock()

    async def aclose(self) -> None:
        """Nothing is open."""


_LIVE: Final = WeakSet[MemoryStore]()
in_forked_children(_LIVE, MemoryStore._unlock)  # noqa: SLF001
