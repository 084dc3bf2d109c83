"""
The operating system's keyring: macOS keychain, Windows Credential Manager, Secret Service, KWallet.

A keyring may hang, prompt, strip, cut, refuse long items, and raise anything. So everything,
even its import, happens on a daemon thread with a deadline, one call at a time; what hangs, which
keyring there is, and that there is none, is remembered for the process.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from contextlib import ExitStack, suppress
from typing import Any, Final, TypeVar

from attrs import define, field

from ..._sansio.errors import StoreError
from ..._sansio.record import Record, is_same
from ..folder import home
from ..lock import Locks
from ..threads import Breaker
from .envelope import seal, unseal
from .file import FileStore
from .items import Found, Items
from .ring import INSTEAD, Damaged, Ring, choose, explained, unreadable

T = TypeVar("T")

DEADLINE: Final = 5.0  # for what nobody sees
PATIENCE: Final = 30.0  # where a person may have to unlock the keyring, or a login would be lost
WRITE_WAIT: Final = 25.0  # for another process, whose keyring may be waiting for a person


class KeyringStore:
    """Records in the keyring. ``named``: somebody has asked for the keyring by its name.

    An identity has one turn on the machine, whatever store it is in: that of *files*. Writers of
    whatever identity take turns by *locks*, because some keyrings rewrite all items for one.
    """

    name = "keyring"

    def __init__(
        self,
        *,
        named: bool = False,
        files: FileStore | None = None,
        locks: Locks | None = None,
        backend: Any | None = None,
    ) -> None:
        self._named = named
        self._files = files or FileStore()
        self._locks = locks or Locks(home() / "locks")
        self._given = None if backend is None else Ring(backend)

    def __repr__(self) -> str:
        return f"KeyringStore(named={self._named})"

    @property
    def place(self) -> str:
        ring = self._known
        return "the keyring" if ring is None else f"the keyring ({ring.label})"

    @property
    def safety(self) -> str:
        """Whether the keyring encrypts, in words."""
        ring = self._known
        return "not known before the first use" if ring is None else ring.safety

    @property
    def slot(self) -> Hashable:
        return ("keyring",) if self._given is None else ("keyring", id(self._given.backend))

    async def probe(self) -> None:
        await self.ask(lambda ring: self.alone(ring.probe), PATIENCE)

    async def load(self, key: str) -> Record | None:
        return await self.ask(lambda ring: _load(ring, key), DEADLINE)

    def load_sync(self, key: str) -> Record | None:
        """See Store.load; for programs without an event loop."""
        return self.ask_sync(lambda ring: _load(ring, key), DEADLINE)

    async def save(self, key: str, record: Record) -> None:
        text = seal(key, record, self.place)

        def save(ring: Ring) -> None:
            items = Items(ring, key)
            try:
                before = items.read()
            except Damaged:
                before = Found()
            items.write(text, before)

        await self.ask(lambda ring: self.alone(lambda: save(ring)), PATIENCE, text)

    async def swap(self, key: str, old: Record | None, new: Record) -> bool:
        """See Store.swap. What cannot be read, whatever it is, is not *old*."""
        text = seal(key, new, self.place)

        def swap(ring: Ring) -> bool:
            items = Items(ring, key)
            try:
                before = items.read()
                found = _record(key, before)
            except Damaged:
                return False
            if not is_same(found, old):
                return False
            items.write(text, before)
            return True

        return await self.ask(lambda ring: self.alone(lambda: swap(ring)), PATIENCE, text)

    async def delete(self, key: str) -> None:
        await self.ask(lambda ring: self.alone(Items(ring, key).delete), PATIENCE)

    async def exclusively(
        self, key: str, function: Callable[[], Awaitable[T]], *, deadline: float
    ) -> T:
        return await self._files.exclusively(key, function, deadline=deadline)

    async def aclose(self) -> None:
        """Nothing stays open."""

    @property
    def _known(self) -> Ring | None:
        found = self._given or _process.found.get(self._named)
        return found if isinstance(found, Ring) else None

    async def ask(self, act: Callable[[Ring], T], deadline: float, secret: str = "") -> T:
        """What *act* does with the keyring, on a daemon thread; *secret* is never quoted."""
        process = _process
        run = self._asking(process, act, deadline, secret)
        try:
            return await process.breaker.call(run, deadline=deadline)
        except TimeoutError:
            pass
        raise self._no_answer()

    def ask_sync(self, act: Callable[[Ring], T], deadline: float) -> T:
        """The same for programs without an event loop."""
        process = _process
        run = self._asking(process, act, deadline)
        try:
            return process.breaker.call_sync(run, deadline=deadline)
        except TimeoutError:
            pass
        raise self._no_answer()

    def _asking(
        self, process: _Process, act: Callable[[Ring], T], deadline: float, secret: str = ""
    ) -> Callable[[], T]:
        """What has to happen on that thread, if it begins in time."""
        due = time.monotonic() + deadline

        def run() -> T:
            if not process.turn.acquire(timeout=deadline):
                raise TimeoutError
            try:
                if time.monotonic() >= due:  # nobody waits any more
                    raise TimeoutError
                return self._explaining(lambda: act(self._ring(process)), secret)
            finally:
                process.turn.release()

        return run

    def _no_answer(self) -> StoreError:
        return StoreError(f"{self.place} does not answer; unlock it, {INSTEAD}", reason="timeout")

    def _explaining(self, act: Callable[[], T], secret: str) -> T:
        """What *act* returns; a StoreError for whatever else it raises."""
        try:
            return act()
        except StoreError:
            raise
        except BaseException as error:  # noqa: BLE001  # keyrings raise anything
            ring = self._known
            quotable = ring is None or ring.is_own
            failure = explained(error, self.place, secret=secret, quotable=quotable)
        raise failure  # not above: the foreign error, and what its frames hold, would hang on it

    def _ring(self, process: _Process) -> Ring:
        if self._given is not None:
            return self._given
        found = process.found.get(self._named)
        if found is None:
            try:
                found = choose(named=self._named)
            except StoreError as error:
                found = error
            process.found[self._named] = found
        if isinstance(found, StoreError):
            raise StoreError(str(found), reason=found.reason)
        return found

    def alone(self, act: Callable[[], T]) -> T:
        """What *act* does while no other process writes; or not, where nothing can be locked."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._locks.held("keyring.write", WRITE_WAIT))
            except StoreError as error:
                if error.reason == "busy":
                    raise
            return act()


@define
class _Process:
    """What this process knows about keyrings."""

    found: dict[bool, Ring | StoreError] = field(factory=dict)
    breaker: Breaker = field(factory=Breaker)
    turn: threading.Lock = field(factory=threading.Lock)


_process = _Process()


def _forget() -> None:
    global _process  # noqa: PLW0603  # a forked child has none of the threads
    _process = _Process(found=_process.found)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _load(ring: Ring, key: str) -> Record | None:
    return _record(key, Items(ring, key).read())


def _record(key: str, found: Found) -> Record | None:
    if found.first is None:
        return None
    with suppress(StoreError):
        return unseal(key, found.text, "the keyring")
    raise unreadable()
