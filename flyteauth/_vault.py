"""What a session keeps: one record, under the key of its identity, in the store for its kind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from typing import Final

from ._io.store import Store
from ._io.store.file import FileStore
from ._io.store.memory import MemoryStore
from ._sansio.record import Record
from .config import Settings
from .errors import StoreError
from .events import AuthEvent, Warned

# How often a login was replaced or ended, by slot: whoever refreshes what is no longer there
# must not bring it back.
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
        self._store = store or _choose(settings)
        self._silent = False
        self._kept = False
        self.erased = False
        self.failure: StoreError | None = None

    @property
    def slot(self) -> Hashable:
        """What two sessions share if they share the record."""
        store = self._store
        return (id(store) if isinstance(store, MemoryStore) else store.place, self.key)

    @property
    def place(self) -> str:
        """Where the record is, in words; ``failure`` says why it is not where it should be."""
        return self._store.place if self.failure is None else MemoryStore.place

    @property
    def epoch(self) -> int:
        return _EPOCHS[self.slot]

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

    async def load(self) -> Record | None:
        """The record. One that cannot be read counts as none, and stays where it is.

        ``erased`` says whether there was one, and somebody has removed it: a logout elsewhere.
        """
        self.erased = False
        try:
            record = await self._store.load(self.key)
        except StoreError as error:
            if self._pinned and error.reason != "corrupt":
                raise
            await self._warn_once(error)
            return None
        self.erased = self._kept and record is None
        self._kept = record is not None
        return record

    async def replace(self, record: Record, epoch: int) -> int | None:
        """Keep the record of a login that was begun in *epoch*; the epoch that it opens, or None
        if another login, or a logout, came first.
        """
        if self.epoch != epoch:
            return None
        _EPOCHS[self.slot] += 1
        opened = self.epoch
        await self._save(record)
        return opened

    async def renew(self, record: Record, epoch: int) -> bool:
        """Keep a refreshed record, unless the login of that *epoch* was replaced or ended."""
        if self.epoch != epoch:
            return False
        await self._save(record)
        return True

    async def delete(self) -> None:
        _EPOCHS[self.slot] += 1
        await self._store.delete(self.key)
        self._kept = False

    async def _save(self, record: Record) -> None:
        """A token that cannot be kept is still good for this process (REF-15)."""
        try:
            await self._store.save(self.key, record)
        except StoreError as error:
            self._kept, self.failure = False, error
            await self._warn_once(error)
        else:
            self._kept, self.failure = True, None

    async def _warn_once(self, error: StoreError) -> None:
        if not self._silent:
            self._silent = True
            await self._notify(Warned(str(error)))


def identity(settings: Settings) -> str:
    """The key of a record: who is logged in where, as far as the configuration says."""
    endpoint, scheme = settings.endpoint, "http://" if settings.plain_host else ""
    where = None if endpoint is None else scheme + endpoint.key
    kind = "service" if settings.is_service else "person"
    scopes = None if settings.scopes is None else sorted(settings.scopes)
    asked = [where, settings.issuer, kind, settings.client_id, scopes, settings.audience]
    return json.dumps([*asked, settings.account])


def _choose(settings: Settings) -> Store:
    """A person's login outlives the program; a service's token need not (SEC-08)."""
    match settings.token_store:
        case "file":
            return FileStore()
        case "memory":
            return MemoryStore()
        case None:
            return MemoryStore() if settings.is_service else FileStore()
