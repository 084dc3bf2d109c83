"""
What the programs of one user on one machine tell each other, besides what is in the store: who is
asking a person to log in, that nobody answered, why a refresh failed, which token is good, and
where a control plane's authorization server is.

All of it is a convenience. Where it cannot be kept, each program is on its own.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from . import _verified
from ._io.clock import Clock
from ._io.names import constant_length
from ._sansio.flow import dump, load
from .errors import StoreError, Unreachable

if TYPE_CHECKING:
    from ._target import Target

T = TypeVar("T")
D = TypeVar("D")

MUTE: Final = 300.0  # seconds without a prompt after one that nobody answered, or somebody denied
MUTE_BROKEN_OFF: Final = 60.0  # the same after one whose program was ended over it
TARGET_AGE_MAX: Final = 24 * 3600.0  # seconds that discovery is good for


class Machine:
    """Notes and locks in *directory*; None: there is no such place."""

    def __init__(self, directory: Path | None, clock: Clock) -> None:
        from ._io.lock import Locks
        from ._io.notes import Notes

        self.directory = directory
        self._clock = clock
        self._notes = None if directory is None else Notes(directory / "notes")
        self._locks = None if directory is None else Locks(directory / "locks")

    # One prompt at a time, and none for a while after one was ignored.

    async def prompt(
        self,
        key: str,
        function: Callable[[], Awaitable[T]],
        *,
        waiting: Callable[[], Awaitable[object]],
        deadline: float,
    ) -> T:
        """What *function* returns or raises, while no other program asks the person for *key*.

        ``waiting`` is called first if one does just now. Raises StoreError ("busy") after
        *deadline* seconds.
        """
        if self._locks is None:
            return await function()
        from ._io.lock import Once

        once, name = Once(function), constant_length(_name("prompt", key))
        try:
            return await self._locks.exclusively(name, once, deadline=deadline, waiting=waiting)
        except StoreError as error:
            if once.called or error.reason == "busy":
                raise
            return await function()

    async def muted(self, key: str, *, answered_only: bool = False) -> tuple[float, float] | None:
        """Seconds since a prompt for *key* that led to nothing, and until the next may be shown;
        None if there was none lately. *answered_only*: not one that was only broken off.
        """
        return self._muting(await self._note("ignored", key), answered_only=answered_only)

    def muted_sync(self, key: str) -> tuple[float, float] | None:
        """The same for code that may block."""
        note = None if self._notes is None else self._notes.read_sync(_name("ignored", key))
        return self._muting(note or {}, answered_only=False)

    def _muting(
        self, note: Mapping[str, Any], *, answered_only: bool
    ) -> tuple[float, float] | None:
        age = self._age(note)
        if age is None:
            return None
        ended = note.get("ended") is True
        mute = MUTE if ended else MUTE_BROKEN_OFF
        return None if age >= mute or (answered_only and not ended) else (age, mute - age)

    async def mute(self, key: str, *, ended: bool) -> None:
        """A prompt for *key* begins, or has *ended* without a login."""
        await self._leave("ignored", key, ended=ended)

    async def unmute(self, key: str) -> None:
        """Somebody has logged in."""
        if self._notes is not None:
            await self._notes.remove(_name("ignored", key))

    # A refresh that fails is shared, too.

    async def tell_failure(self, key: str, error: Unreachable) -> None:
        """A refresh for *key* had to be given up for now."""
        said = {"message": str(error), "reason": error.reason, "retry_after": error.retry_after}
        await self._leave("failure", key, **said)

    async def failure_since(self, key: str, begun: float) -> Unreachable | None:
        """What came of a refresh for *key* that somebody gave up after *begun*."""
        match await self._note("failure", key):
            case {
                "at": at,
                "message": str(message),
                "reason": str(reason),
                "retry_after": retry_after,
            } if begun <= _seconds(at, -1.0) <= self._clock.time():
                return Unreachable(message, reason=reason, retry_after=_seconds(retry_after, None))
        return None

    # Whether a token is good.

    async def tell_verified(self, key: str, access_token: str) -> None:
        """The control plane takes that token of the login *key*."""
        if self._notes is not None:
            noted = {"at": self._clock.time(), **_verified.note(access_token)}
            await self._notes.write(_verified.name(key), noted)

    # Discovery.

    async def target(self, key: str) -> Target | None:
        """What discovery said for *key*, if it is not too long ago."""
        from ._target import Target

        note = await self._note("target", key)
        age = self._age(note)
        if age is None or age >= TARGET_AGE_MAX:
            return None
        with suppress(StoreError):
            return load((Target,), note.get("target"))
        return None

    async def keep_target(self, key: str, target: Target) -> None:
        """Nothing is kept where nobody need log in, so that a change shows at once."""
        if target.server is not None:
            await self._leave("target", key, target=dump(target))

    # Notes; where there is no place for them there are none.

    async def _note(self, subject: str, key: str) -> Mapping[str, Any]:
        note = None if self._notes is None else await self._notes.read(_name(subject, key))
        return note or {}

    async def _leave(self, subject: str, key: str, **note: object) -> None:
        if self._notes is not None:
            await self._notes.write(_name(subject, key), {"at": self._clock.time(), **note})

    def _age(self, note: Mapping[str, Any]) -> float | None:
        """Seconds since *note* was left; one of the future is of a clock that ran ahead."""
        age = self._clock.time() - _seconds(note.get("at"), math.inf)
        return age if age >= 0 else None


def _seconds(value: object, otherwise: D) -> float | D:
    """*value*, if it is a finite number: JSON has larger ones than a float can be."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return otherwise
    return float(value) if abs(value) < 1e15 else otherwise


def _name(subject: str, key: str) -> str:
    return f"{subject} {key}"
