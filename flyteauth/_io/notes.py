"""Small things worth remembering across processes, without secrets: discovery, ignored prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from .._sansio.errors import StoreError
from .folder import Folder
from .names import constant_length
from .threads import Breaker

DEADLINE: Final = 2.0
SIZE_MAX: Final = 1024 * 1024


class Notes:
    """JSON objects by name, as files of *directory*.

    A note is a convenience: what cannot be read is None, and what cannot be written is not.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._breaker = Breaker()

    def __repr__(self) -> str:
        return f"Notes({str(self._directory)!r})"

    async def read(self, name: str) -> Mapping[str, Any] | None:
        """What was written under *name*; None if there is nothing that can be read."""
        with suppress(OSError, StoreError):  # TimeoutError is an OSError
            return await self._breaker.call(self._read, name, deadline=DEADLINE)
        return None

    async def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Replace what is under *name* by *value*, if that is possible."""
        data = json.dumps(dict(value)).encode()
        with suppress(OSError, StoreError):
            await self._breaker.call(self._write, name, data, deadline=DEADLINE)

    async def remove(self, name: str) -> None:
        """Forget what is under *name*, if that is possible."""
        with suppress(OSError, StoreError):
            await self._breaker.call(self._remove, name, deadline=DEADLINE)

    def read_sync(self, name: str) -> Mapping[str, Any] | None:
        """The same as ``read`` for code that may block."""
        with suppress(OSError, StoreError):
            return self._read(name)
        return None

    def _read(self, name: str) -> Mapping[str, Any] | None:
        with Folder.opened(self._directory) as folder:
            data = folder.read(constant_length(name), SIZE_MAX)
        if len(data) > SIZE_MAX:
            return None
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def _write(self, name: str, data: bytes) -> None:
        if len(data) <= SIZE_MAX:
            with Folder.made(self._directory) as folder:
                folder.sweep()
                folder.write(constant_length(name), data)

    def _remove(self, name: str) -> None:
        with Folder.opened(self._directory) as folder:
            folder.remove(constant_length(name))
