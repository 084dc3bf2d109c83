"""
The keyring, and where that cannot be used, files: announced, never silently (SEC-08).

The file store knows where a record is: it has the record itself, or a mark that names the keyring.
Where both have a record the file's counts: it was written when the keyring could not be.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from ..._sansio.errors import StoreError, quote
from ..._sansio.record import Record, is_same
from .file import FileStore

if TYPE_CHECKING:
    from . import Store

T = TypeVar("T")

REMIND_AFTER: Final = 2.0  # before a person is told what they are waiting for
NOWHERE: Final = "nowhere"  # the mark that hides what is left in a keyring out of reach

_announced: Final = set[Hashable]()  # the files that this process has said it falls back to


class Elsewhere(StoreError):
    """There is a login, and it cannot be read now."""


class Fallback:
    """Records in *first*, and in *second* once *first* has failed a probe or a save.

    *warn* is given a line that says so, once per process.
    """

    name = "auto"

    def __init__(
        self, first: Store, second: FileStore, warn: Callable[[str], Awaitable[object]]
    ) -> None:
        self._first = first
        self._second = second
        self._warn = warn
        self._chosen: Store | FileStore | None = None  # for the next login
        self._there: Store | FileStore | None = None  # where the last record was
        self._reminded = False

    def __repr__(self) -> str:
        return f"Fallback({self._first!r}, {self._second!r})"

    @property
    def place(self) -> str:
        store = self._there or self._chosen
        return f"{self._first.place} or {self._second.place}" if store is None else store.place

    @property
    def slot(self) -> Hashable:
        return ("chosen", self._second.slot)

    async def probe(self) -> None:
        """See Store.probe. What cannot be used once is not tried again."""
        if self._chosen is not self._second:
            failure = await self._probe_first()
            if failure is None:
                self._chosen = self._there = self._first
                return
            await self._second.probe()
            await self._fall_back(failure)
        else:
            await self._second.probe()
        self._there = self._second

    async def load(self, key: str) -> Record | None:
        try:
            found = await self._second.look(key)
        except StoreError as error:
            if error.reason == "corrupt":  # it would count, so what the keyring has is older
                raise
            record = await self._load_unmarked(key)
            if record is None:
                raise
            return record
        if isinstance(found, Record):
            self._there = self._second
            return found
        if found is None:
            return await self._load_unmarked(key)
        return None if found == NOWHERE else await self._load_marked(key, found)

    async def _load_unmarked(self, key: str) -> Record | None:
        """The files may be new, or not ours to write."""
        try:
            record = await self._first.load(key)
        except StoreError as error:
            if error.reason == "corrupt":
                raise
            return None
        if record is not None:
            self._there = self._first
        return record

    async def _load_marked(self, key: str, mark: str) -> Record | None:
        self._check(mark)
        self._there = self._first
        try:
            return await self._first.load(key)
        except StoreError as error:
            raise Elsewhere(f"your login cannot be read: {error}", reason=error.reason) from None

    async def save(self, key: str, record: Record) -> None:
        if self._chosen is None:
            await self.probe()
        if self._chosen is self._first:
            failure = await _failure(self._first.save(key, record))
            if failure is None:
                await self._mark(key)
                return
            await self._save_in_second(key, record)
            await self._fall_back(failure)
        else:
            await self._save_in_second(key, record)
        self._there = self._second

    async def _save_in_second(self, key: str, record: Record) -> None:
        await self._remember_leaving(key)
        await self._second.save(key, record)

    async def _remember_leaving(self, key: str) -> None:
        """A record that is left in the keyring must not come back when the file's has gone."""
        with suppress(StoreError):
            if await self._second.look(key) == self._first.name:
                await self._second.mark(_left(key), self._first.name)

    async def swap(self, key: str, old: Record | None, new: Record) -> bool:
        found = await self._look_to_change(key)
        if isinstance(found, Record) or found == NOWHERE:
            return await self._swap_in_second(key, old, new)
        known = found is not None or (old is not None and self._there is self._first)
        if not known and self._chosen is self._second:
            return await self._swap_in_second(key, old, new)
        if found is not None:
            self._check(found)
        try:
            swapped = await self._first.swap(key, old, new)
        except StoreError as error:
            failure = error
        else:
            if swapped:
                await self._stay(key, found)
            return swapped
        # The old tokens may be spent. The file may keep the new ones if it is certain that those
        # are still what is there; or that nothing is, as far as load would say.
        there = await self._load_after(failure, key, known=known)
        if is_same(there, new):
            await self._stay(key, found)
            return True
        if not is_same(there, old):
            return False
        await self._remember_leaving(key)
        swapped = await self._swap_in_second(key, None, new)
        if swapped:
            await self._fall_back(failure)
        return swapped

    async def _stay(self, key: str, found: Record | str | None) -> None:
        """A login that somebody has meanwhile put into the file is newer, so no mark over it."""
        self._there = self._first
        if found is None:
            await _failure(self._second.mark(key, self._first.name))

    async def _load_after(self, failure: StoreError, key: str, *, known: bool) -> Record | None:
        if failure.reason not in {"locked", "missing"}:  # no second prompt
            try:
                return await self._first.load(key)
            except StoreError:
                pass
        if known:
            raise failure
        return None

    async def _swap_in_second(self, key: str, old: Record | None, new: Record) -> bool:
        swapped = await self._second.swap(key, old, new)
        if swapped:
            self._there = self._second
        return swapped

    async def delete(self, key: str) -> None:
        """See Store.delete. The keyring first: until the file goes, the file's record counts."""
        try:
            found = await self._second.look(key)
        except StoreError:
            unreadable, found = True, None
        else:
            unreadable = False
        failure = await _failure(self._first.delete(key))
        if failure is not None and isinstance(found, str) and found != NOWHERE:
            raise failure
        if failure is not None and (found is not None or unreadable):
            if failure.reason != "missing" or await self._is_left(key):
                await self._second.mark(key, NOWHERE)
                self._there = None
                return
        else:
            await self._second.delete(_left(key))
        await self._second.delete(key)
        self._there = None

    async def _is_left(self, key: str) -> bool:
        """Whether an old record may be in the keyring, which is not there now."""
        with suppress(StoreError):
            return await self._second.look(_left(key)) is not None
        return True

    async def exclusively(
        self, key: str, function: Callable[[], Awaitable[T]], *, deadline: float
    ) -> T:
        return await self._second.exclusively(key, function, deadline=deadline)

    async def aclose(self) -> None:
        await self._first.aclose()
        await self._second.aclose()

    async def _look_to_change(self, key: str) -> Record | str | None:
        """What the file has; None if it cannot be read, so that the keyring is tried."""
        try:
            return await self._second.look(key)
        except StoreError as error:
            if error.reason == "corrupt":
                raise
            return None

    async def _mark(self, key: str) -> None:
        """Say in the file that the record is in the keyring. No mark is fine, an old record
        that would count is not.
        """
        left: Record | str | None = None
        try:
            left = await self._second.look(key)
        except StoreError as error:
            left = NOWHERE if error.reason == "corrupt" else None
        if left != self._first.name:
            failure = await _failure(self._second.mark(key, self._first.name))
            if failure is not None and left is not None:
                raise failure
        self._there = self._first

    def _check(self, mark: str) -> None:
        if mark != self._first.name:
            raise StoreError(
                f"your login is kept in {quote(mark)}, which is not known here; log in again",
                reason="corrupt",
            )

    async def _probe_first(self) -> StoreError | None:
        import anyio

        async with anyio.create_task_group() as group:
            group.start_soon(self._remind)
            failure = await _failure(self._first.probe())
            group.cancel_scope.cancel()
        return failure

    async def _remind(self) -> None:
        import anyio

        await anyio.sleep(REMIND_AFTER)
        if not self._reminded:
            self._reminded = True
            await self._warn(f"waiting for {self._first.place}; unlock it if it asks you to")

    async def _fall_back(self, failure: StoreError) -> None:
        self._chosen = self._second
        if self._second.slot not in _announced:
            from .ring import FILES

            _announced.add(self._second.slot)
            why = str(failure).partition(";")[0]
            await self._warn(
                f"{why}; logins are kept in {self._second.place}, readable by you alone; "
                f"if that is how you want it, say so ({FILES})"
            )


def _left(key: str) -> str:
    return f"left behind by {key}"


async def _failure(doing: Awaitable[object]) -> StoreError | None:
    try:
        await doing
    except StoreError as error:
        return error
    return None
