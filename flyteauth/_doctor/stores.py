"""Which stores are looked at for a login, in which order, and what each of them has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from .._identity import identity
from .._io.folder import home
from .._io.store.fallback import NOWHERE
from .._io.store.file import FileStore
from .._machine import Machine
from .._pending import PendingLogins
from .._sansio.errors import duration
from .._sansio.record import Record
from ..errors import StoreError
from .standing import ABSENT, LOST, USED

if TYPE_CHECKING:
    from .._stored import Kept
    from ..config import Settings

KEYRING_DEADLINE: Final = 1.0  # seconds to look which keyring there is


def stores(settings: Settings, kept: Kept, source: Callable[[str], str]) -> list[tuple[str, ...]]:
    """Rows of a mark and a line, one for each store, in the order in which they count."""
    found = _found(kept)
    match settings.token_store:
        case None if settings.is_service:
            return [(USED, "memory: a service gets its token anew in each program")]
        case None if settings.disable_keyring:
            off = f"the keyring: switched off by disableKeyring ({source('disable_keyring')})"
            return [(USED, f"{kept.place}: {found}"), (LOST, off)]
        case None:
            return _chain(settings, kept, found)
    named = source("token_store")
    return [
        (
            USED if kept.error is None else LOST,
            f"{kept.place}: {found}",
            f"the only one, because tokenStore names it ({named})",
        )
    ]


def _chain(settings: Settings, kept: Kept, found: str) -> list[tuple[str, ...]]:
    files = FileStore()
    try:
        here = files.look_sync(identity(settings))
    except StoreError as error:
        return [(LOST, f"{files.place}: {error}"), (USED, f"{kept.place}: {found}")]
    match here:
        case Record():
            out = _no_keyring() or "not asked, because what is in the files is newer"
            return [(USED, f"{files.place}: has the login"), (LOST, f"the keyring: {out}")]
        case None if kept.record is not None:
            return [(ABSENT, f"{files.place}: nothing"), (USED, f"the keyring: {found}")]
        case None:
            out = _no_keyring() or found
            return [(ABSENT, f"{files.place}: nothing"), (ABSENT, f"the keyring: {out}")]
        case str() if here == NOWHERE:
            out = "the keyring: not asked, what is in it is no login any more"
            return [(LOST, f"{files.place}: a note of a logout"), (LOST, out)]
    note = f"{files.place}: a note that the login is in the keyring"
    return [(LOST, note), (USED, f"{kept.place}: {found}")]


def _no_keyring() -> str:
    """Why there is no keyring that can be used; empty if there is one, or if that takes long."""
    from .._io.store.ring import choose
    from .._io.threads import Breaker

    try:
        Breaker().call_sync(partial(choose, named=False), deadline=KEYRING_DEADLINE)
    except TimeoutError:
        return ""
    except StoreError as error:
        return str(error).partition("; ")[0]
    return ""


def _found(kept: Kept) -> str:
    if kept.record is not None:
        return "has the login"
    return "nothing" if kept.error is None else str(kept.error)


def notes(settings: Settings, at: float, resume: str) -> Iterator[str]:
    """What the programs of this machine have left for each other about this login. *resume* is the
    command that goes on with one that was begun.
    """
    from .._io.clock import SystemClock

    machine = Machine(home(), SystemClock())
    muted = machine.muted_sync(identity(settings))
    if muted is not None:
        ago, left = muted
        yield (
            f"nobody answered when a login was asked for {duration(ago)} ago: what ran then "
            f"asks for none for another {duration(left)}, unless you run flyteauth login"
        )
    open_for = pending_for(settings, at)
    if open_for is not None:
        yield f"one was begun, and its code lasts {duration(open_for)} more: {resume}"


def pending_for(settings: Settings, at: float) -> float | None:
    """Seconds that are left of a login that was begun and not finished; None if there is none."""
    with suppress(StoreError):
        begun = PendingLogins(home() / "pending").load_sync(identity(settings))
        if begun is not None and begun.state.code.expires_at > at:
            return begun.state.code.expires_at - at
    return None
