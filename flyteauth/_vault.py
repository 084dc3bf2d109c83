"""What a session keeps: one record, under the key of its identity, in the store for its kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from typing import Final, TypeVar

from ._identity import identity, store_kind
from ._io.lock import Once
from ._io.store import Store
from ._io.store.fallback import Elsewhere, Fallback
from ._io.store.file import FileStore
from ._io.store.keyring import KeyringStore
from ._io.store.memory import MemoryStore
from ._sansio.record import Record
from .config import Settings
from .errors import StoreError, Unreachable
from .events import AuthEvent, Warned

T = TypeVar("T")

# How often a login was replaced or ended in this process, by slot: whoever refreshes what is no
# longer there must not bring it back.
_EPOCHS: Final = Counter[Hashable]()


class Vault:
    """Where one identity's record is. ``key`` comes from the configuration alone, so that a
    record is found without asking anybody, whatever flow made it.
    """

    def __init__(
        self,
        settings: Settings,
        notify: Callable[[AuthEvent], Awaitable[None]],
        store: Store | None = None,
    ) -> None:
        self.key = identity(settings)
        self._notify = notify
        self._pinned = store is not None or settings.token_store is not None
        self._for_service = settings.is_service
        self._store = store or _choose(settings, self._warn)
        self._silent = False
        self._kept = False
        self.erased = False
        self.damaged = False
        self.failure: StoreError | None = None

    def under(self, settings: Settings) -> Vault:
        """The same store, by what *settings* have become."""
        vault = Vault(settings, self._notify, self._store)
        vault._pinned = self._pinned
        return vault

    @property
    def slot(self) -> Hashable:
        """What two sessions share if they share the record."""
        return (self._store.slot, self.key)

    @property
    def place(self) -> str:
        """Where the record is, in words; ``failure`` says why it is not where it should be."""
        return self._store.place if self.failure is None else MemoryStore.place

    @property
    def epoch(self) -> int:
        return _EPOCHS[self.slot]

    @property
    def shared(self) -> bool:
        """Whether other processes may have the same record."""
        return not isinstance(self._store, MemoryStore)

    async def in_turn(self, function: Callable[[], Awaitable[T]], *, deadline: float) -> T:
        """What *function* returns or raises, while no other process is in here for this record.

        Where there is no way to take turns, it goes without; except for a login that several hosts
        share, which two refreshes at once could end.
        """
        once = Once(function)
        try:
            return await self._store.exclusively(self.key, once, deadline=deadline)
        except StoreError as error:
            if once.called:
                raise
            if error.reason == "busy":
                raise Unreachable(str(error), reason="busy") from None
            if self._store.name == "redis" and not self._for_service:
                raise
            await self._warn_once(error)
        return await function()

    async def probe(self, *, must_keep: bool) -> None:
        """Find out before a login, not after, whether it can be kept; fall back to memory, unless
        it *must_keep*.
        """
        try:
            await self._store.probe()
        except StoreError as error:
            if self._pinned or must_keep:
                raise
            self._store = MemoryStore()
            await self._notify(Warned(f"{error}; this login lasts only as long as the program"))

    async def require_room(self) -> None:
        """Raise StoreError if a record could be saved, but not this one."""
        try:
            await self._store.load(self.key)
        except StoreError as error:
            if error.reason == "denied" and not isinstance(error, Elsewhere):
                raise

    async def load(self, *, first: bool = False) -> Record | None:
        """The record. One that cannot be read counts as none, and stays where it is; except at the
        *first* look, where there is a login out of reach, or a store that was named keeps us out.

        ``erased`` says whether there was one, and somebody has removed it: a logout elsewhere.
        ``damaged`` says that there is something, which nobody can read.
        """
        self.erased = self.damaged = False
        try:
            record = await self._store.load(self.key)
        except StoreError as error:
            self.damaged = error.reason == "corrupt"
            if self._pinned and not self._for_service and error.reason != "corrupt":
                raise
            if first and error.reason != "corrupt" and self._is_final(error):
                raise
            await self._warn_once(error)
            return None
        self.erased = self._kept and record is None
        self._kept = self._kept or record is not None
        return record

    def _is_final(self, error: StoreError) -> bool:
        """Whether to go on as if nothing were stored would be wrong: there is a login, or a service
        has a wrong password to the store that it should share.
        """
        return isinstance(error, Elsewhere) or (self._pinned and error.reason == "denied")

    async def peek(self) -> Record | None:
        """The same, without a word about what cannot be read."""
        with suppress(StoreError):
            return await self._store.load(self.key)
        return None

    async def replace(self, record: Record, epoch: int) -> int | None:
        """Keep the record of a login that was begun in *epoch*; the epoch that it opens, or None
        if another login, or a logout, came first.
        """
        if self.epoch != epoch:
            return None
        _EPOCHS[self.slot] += 1
        opened = self.epoch
        try:
            await self._store.save(self.key, record)
        except StoreError as error:
            await self._not_kept(error)
        else:
            self._kept, self.failure = True, None
        return opened

    async def renew(self, old: Record | None, new: Record, epoch: int) -> Record | None:
        """Keep *new* in the place of *old*, which a refresh made it of.

        What is to be used from now on: *new*, or what another process has put there in the same
        login if that is younger. None if the login was replaced or ended meanwhile: here, in the
        *epoch* since, or by another process.
        """
        if self.epoch != epoch:
            return None
        try:
            while not await self._store.swap(self.key, old, new):
                there = await self._store.load(self.key)
                if there is None or there.login != new.login:
                    return None
                if not older(there, new):
                    return there
                old = there
        except StoreError as error:
            await self._not_kept(error)
        else:
            self._kept, self.failure = True, None
        return new

    def is_behind(self, there: Record, ours: Record) -> bool:
        """Whether *ours* is younger than what is in the store: one that could not be written to
        falls behind.
        """
        return older(there, ours) or (self.failure is not None and there.login != ours.login)

    async def delete(self) -> None:
        _EPOCHS[self.slot] += 1
        await self._store.delete(self.key)

    async def aclose(self) -> None:
        await self._store.aclose()

    async def _not_kept(self, error: StoreError) -> None:
        """A token that cannot be kept is still good for this process (REF-15)."""
        self._kept, self.failure = False, error
        await self._warn_once(error)

    async def _warn_once(self, error: StoreError) -> None:
        if not self._silent:
            self._silent = True
            alone = "; this process goes on alone" if self._store.name == "redis" else ""
            await self._warn(f"{error}{alone}")

    async def _warn(self, text: str) -> None:
        await self._notify(Warned(text))


def older(one: Record, other: Record) -> bool:
    """Whether *other* came of refreshing *one*. No clock is asked: hosts may differ on the time."""
    return one.login == other.login and one.generation < other.generation


def _choose(settings: Settings, warn: Callable[[str], Awaitable[object]]) -> Store:
    match store_kind(settings):
        case "memory":
            return MemoryStore()
        case "file":
            return FileStore()
        case "auto":
            return Fallback(KeyringStore(), FileStore(), warn)
        case "keyring":
            return KeyringStore(named=True)
        case "shared":
            from ._io.store.redis import RedisStore

            assert settings.token_store is not None
            return RedisStore(settings.token_store, ca_file=settings.ca_file)
