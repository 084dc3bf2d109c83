"""A device login that was begun, and is to be finished by another process."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple

from attrs import field, frozen

from ._io.folder import Folder, explaining, no_answer
from ._io.names import constant_length
from ._io.threads import Breaker
from ._sansio.device_authorization import Waiting
from ._sansio.flow import dump, load
from .errors import InvalidResponse, StoreError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

DEADLINE: Final = 5.0  # seconds for a file system that hangs
SIZE_MAX: Final = 256 * 1024


@frozen
class Pending:
    """Where a device code may be sent, and for whom; and the code itself, which is a secret."""

    token_endpoint: str
    client_id: str
    issuer: str | None
    state: Waiting = field(repr=False)


class PendingLogins:
    """At most one for each identity, as a file 0600 of *directory*, which is made when needed.

    Without a *directory* there is none, and none can be kept.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._breaker = Breaker()

    async def keep(self, key: str, pending: Pending) -> None:
        """Keep *pending* in the place of one before it. Raises StoreError; and InvalidResponse if
        it is too large, see ``text_of``.
        """
        if self._directory is None:
            raise _no_place()
        await self._call(self._write, key, text_of(pending))

    async def probe(self) -> None:
        """Raise StoreError if nothing could be kept."""
        if self._directory is None:
            raise _no_place()
        await self._call(self._probe)

    async def load(self, key: str) -> Pending | None:
        """Raises StoreError if there is something that cannot be read."""
        data = await self._call(self._read, key)
        return None if data is None else _parse(data)

    def load_sync(self, key: str) -> Pending | None:
        """The same for code that may block."""
        data = None if self._directory is None else self._read(self._directory, key)
        return None if data is None else _parse(data)

    async def remove(self, key: str) -> None:
        """Remove what there is, if anything. Raises StoreError if it stays."""
        await self._call(self._remove, key)

    async def _call(self, function: Callable[[Path, *Ts], T], *args: *Ts) -> T | None:
        if self._directory is None:
            return None
        try:
            return await self._breaker.call(function, self._directory, *args, deadline=DEADLINE)
        except TimeoutError:
            raise no_answer(self._directory) from None

    @staticmethod
    def _probe(directory: Path) -> None:
        with explaining(directory), Folder.made(directory) as folder:
            folder.remove(folder.write_temporary("probe", b""))

    @staticmethod
    def _write(directory: Path, key: str, data: bytes) -> None:
        with explaining(directory), Folder.made(directory) as folder:
            folder.sweep()
            folder.write(constant_length(key), data)

    @staticmethod
    def _read(directory: Path, key: str) -> bytes | None:
        with explaining(directory), suppress(FileNotFoundError), Folder.opened(directory) as folder:
            return folder.read(constant_length(key), SIZE_MAX)
        return None

    @staticmethod
    def _remove(directory: Path, key: str) -> None:
        with explaining(directory), suppress(FileNotFoundError), Folder.opened(directory) as folder:
            folder.remove(constant_length(key))
            folder.sync()


def text_of(pending: Pending) -> bytes:
    """How *pending* is kept. Raises InvalidResponse if it is larger than what would be read."""
    text = json.dumps(dump(pending)).encode()
    if len(text) > SIZE_MAX:
        raise InvalidResponse(
            "the device authorization response is too large to be kept; log in without --no-wait, "
            "or report this to whoever runs the server",
            reason="too_large",
        )
    return text


def _no_place() -> StoreError:
    return StoreError(
        "there is no place to keep a login that was begun; log in without --no-wait",
        reason="denied",
    )


def _parse(data: bytes) -> Pending:
    try:
        saved = json.loads(data)
    except (ValueError, RecursionError):
        saved = None
    return load((Pending,), saved)
