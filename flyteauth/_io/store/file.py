"""
A store of files: one file per record, 0600 in a directory 0700, replaced whole or not at all.

The blocking methods (``load_sync`` and so on) do the work, for programs without an event loop;
the others call them on a daemon thread, because a file system may hang. Whoever reads needs no
lock; writers take turns, so that nobody comes between a comparison and its swap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple

from ..._sansio.errors import StoreError
from ..._sansio.record import Record, is_same
from ..folder import Folder, explaining, home, no_answer
from ..names import constant_length
from .envelope import SIZE_MAX, key_in, opened, seal, unreadable, unseal

if TYPE_CHECKING:
    from ..lock import Locks
    from ..threads import Breaker

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

DEADLINE: Final = 5.0
WRITE_WAIT: Final = 4.0  # for other writers, of which each is quick

_NAME: Final = re.compile("[0-9a-f]{64}")  # as constant_length makes them


class FileStore:
    """Records as files of *directory*, by default ``logins`` in ``home()``, with locks beside it.

    In place of a record there may be a mark, which says in which other store the record is.
    """

    name = "file"

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or home() / "logins"
        self._lock_directory = directory or home() / "locks"

    def __repr__(self) -> str:
        return f"FileStore({str(self._directory)!r})"

    # Whoever only reads, without an event loop, needs neither, nor has to import them.

    @cached_property
    def _breaker(self) -> Breaker:
        from ..threads import Breaker

        return Breaker()

    @cached_property
    def _locks(self) -> Locks:
        from ..lock import Locks

        return Locks(self._lock_directory)

    @property
    def place(self) -> str:
        return str(self._directory)

    @property
    def slot(self) -> Hashable:
        return ("file", str(self._directory))

    async def probe(self) -> None:
        await self._in_thread(self.probe_sync)

    async def load(self, key: str) -> Record | None:
        return await self._in_thread(self.load_sync, key)

    async def look(self, key: str) -> Record | str | None:
        """The record, or the name of the store that a mark names, or None."""
        return await self._in_thread(self.look_sync, key)

    async def save(self, key: str, record: Record) -> None:
        await self._in_thread(self.save_sync, key, record)

    async def swap(self, key: str, old: Record | None, new: Record) -> bool:
        return await self._in_thread(self.swap_sync, key, old, new)

    async def mark(self, key: str, name: str) -> None:
        """Replace whatever is there by a mark: the record is in the store called *name*."""
        await self._in_thread(self.mark_sync, key, name)

    async def delete(self, key: str) -> None:
        await self._in_thread(self.delete_sync, key)

    async def exclusively(
        self, key: str, function: Callable[[], Awaitable[T]], *, deadline: float
    ) -> T:
        return await self._locks.exclusively(
            f"{constant_length(key)}.turn", function, deadline=deadline
        )

    async def aclose(self) -> None:
        """Nothing stays open."""

    async def _in_thread(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        try:
            return await self._breaker.call(function, *args, deadline=DEADLINE)
        except TimeoutError:
            raise no_answer(self._directory) from None

    # The same without an event loop.

    def load_sync(self, key: str) -> Record | None:
        """See Store.load."""
        found = self.look_sync(key)
        return None if isinstance(found, str) else found

    def look_sync(self, key: str) -> Record | str | None:
        """See look."""
        path = self._path(key)
        with explaining(path):
            try:
                with Folder.opened(self._directory) as folder:
                    data = folder.read(path.name, SIZE_MAX)
            except FileNotFoundError:
                return None
        return _parse(key, data, path)

    def keys_sync(self) -> tuple[list[str], list[StoreError]]:
        """The keys of all records and marks, and why there are files that say of none."""
        keys: list[str] = []
        failures: list[StoreError] = []
        with explaining(self._directory):
            try:
                with Folder.opened(self._directory) as folder:
                    for name in sorted(filter(_NAME.fullmatch, folder.names())):
                        try:
                            keys.append(self._key_in(folder, name))
                        except StoreError as error:
                            failures.append(error)
            except FileNotFoundError:
                pass
        return keys, failures

    def _key_in(self, folder: Folder, name: str) -> str:
        path = self._directory / name
        with explaining(path):
            key = key_in(folder.read(name, SIZE_MAX), str(path))
        if constant_length(key) != name:  # it would not be found by its key
            raise unreadable(str(path))
        return key

    def save_sync(self, key: str, record: Record) -> None:
        """See Store.save."""
        data = self._seal(key, record)
        with self._alone(key) as alone:
            self._write(key, data, alone=alone)

    def swap_sync(self, key: str, old: Record | None, new: Record) -> bool:
        """See Store.swap. What cannot be read, whatever it is, is not *old*."""
        data = self._seal(key, new)
        with self._alone(key) as alone:
            try:
                found = self.load_sync(key)
            except StoreError as error:
                if error.reason != "corrupt":
                    raise
                return False
            if not is_same(found, old):
                return False
            self._write(key, data, alone=alone)
            return True

    def mark_sync(self, key: str, name: str) -> None:
        """See mark."""
        data = json.dumps({"key": key, "kept_in": name}).encode()
        with self._alone(key) as alone:
            self._write(key, data, alone=alone)

    def delete_sync(self, key: str) -> None:
        """See Store.delete."""
        path = self._path(key)
        with explaining(path):
            try:
                with Folder.opened(self._directory):
                    pass
            except FileNotFoundError:
                return  # and no directory is made for a lock
        gone = suppress(FileNotFoundError)
        with self._alone(key), explaining(path), gone, Folder.opened(self._directory) as folder:
            folder.remove(path.name)
            folder.sync()

    def probe_sync(self) -> None:
        """See Store.probe. Leaves nothing behind, not even the directory."""
        missing = []
        try:
            with explaining(self._directory):
                parents = (self._directory, *self._directory.parents)
                missing = [path for path in parents if not path.exists()]
                with Folder.made(self._directory) as folder:
                    folder.remove(folder.write_temporary("probe", b" " * 4096))
        finally:
            with suppress(OSError):  # somebody else may have begun to use it
                for path in missing:
                    path.rmdir()

    def _path(self, key: str) -> Path:
        return self._directory / constant_length(key)

    def _seal(self, key: str, record: Record) -> bytes:
        return seal(key, record, str(self._path(key))).encode()

    @contextmanager
    def _alone(self, key: str) -> Iterator[bool]:
        """While no other writer of *key* is in here; or not, where files cannot be locked."""
        with ExitStack() as stack:
            alone = True
            try:
                stack.enter_context(self._locks.held(f"{constant_length(key)}.write", WRITE_WAIT))
            except StoreError as error:
                if error.reason == "busy":
                    raise
                alone = False  # a login that is kept without a lock is better than none (REF-15)
            yield alone

    def _write(self, key: str, data: bytes, *, alone: bool) -> None:
        path = self._path(key)
        with explaining(path):
            for last in (False, False, True):
                try:
                    with Folder.made(self._directory) as folder:
                        folder.sweep(only_writer_of=path.name if alone else None)
                        folder.write(path.name, data)
                    return
                except FileNotFoundError:  # a probe that made the directory has removed it
                    if last:
                        raise


def _parse(key: str, data: bytes, path: Path) -> Record | str:
    mark = opened(key, data, str(path)).get("kept_in")
    return mark if isinstance(mark, str) else unseal(key, data, str(path))
