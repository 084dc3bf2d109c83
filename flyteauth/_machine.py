"""
What the programs of one user on one machine tell each other, besides what is in the store: who is
asking a person to log in, that nobody answered, why a refresh failed, and where a control plane's
authorization server is.

All of it is a convenience. Where it cannot be kept, each program is on its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from ._io.clock import Clock
from ._sansio.flow import dump, load
from .errors import StoreError, Unreachable

if TYPE_CHECKING:
    from ._target import Target

T = TypeVar("T")

MUTE: Final = 300.0  # seconds without a prompt after one that nobody answered, or somebody denied
MUTE_BROKEN_OFF: Final = 60.0  # the same after one whose program was ended over it
TARGET_AGE_MAX: Final = 24 * 3600.0  # seconds that discovery is good for


class Machine:
    """Notes and locks in *directory*; None: there is no such place."""

    def __init__(self, directory: Path | None, clock: Clock) -> None:
        from ._io.lock import Locks
        from ._io.notes import Notes

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
        called = False

        async def in_turn() -> T:
            nonlocal called
            called = True
            return await function()

        try:
            return await self._locks.exclusively(
                _file_name(key), in_turn, deadline=deadline, waiting=waiting
            )
        except StoreError as error:
            if called or error.reason == "busy":
                raise
            return await function()

    async def muted(self, key: str, *, answered_only: bool = False) -> tuple[float, float] | None:
        """Seconds since a prompt for *key* that led to nothing, and until the next may be shown;
        None if there was none lately. *answered_only*: not one that was only broken off.
        """
        note = None if self._notes is None else await self._notes.read(_name("ignored", key))
        age = None if note is None else self._age(note.get("at"))
        if note is None or age is None:
            return None
        ended = note.get("ended") is True
        mute = MUTE if ended else MUTE_BROKEN_OFF
        return None if age >= mute or (answered_only and not ended) else (age, mute - age)

    async def mute(self, key: str, *, ended: bool) -> None:
        """A prompt for *key* begins, or has *ended* without a login."""
        if self._notes is not None:
            note = {"at": self._clock.time(), "ended": ended}
            await self._notes.write(_name("ignored", key), note)

    async def unmute(self, key: str) -> None:
        """Somebody has logged in."""
        if self._notes is not None:
            await self._notes.remove(_name("ignored", key))

    # A refresh that fails is shared, too.

    async def tell_failure(self, key: str, error: Unreachable) -> None:
        """A refresh for *key* had to be given up for now."""
        if self._notes is not None:
            note = {
                "at": self._clock.time(),
                "message": str(error),
                "reason": error.reason,
                "retry_after": error.retry_after,
            }
            await self._notes.write(_name("failure", key), note)

    async def failure_since(self, key: str, begun: float) -> Unreachable | None:
        """What came of a refresh for *key* that somebody gave up after *begun*."""
        note = None if self._notes is None else await self._notes.read(_name("failure", key))
        match note:
            case {
                "at": int() | float() as at,
                "message": str(message),
                "reason": str(reason),
                "retry_after": int() | float() | None as retry_after,
            } if begun <= at <= self._clock.time():
                return Unreachable(message, reason=reason, retry_after=retry_after)
        return None

    # Discovery.

    async def target(self, key: str) -> Target | None:
        """What discovery said for *key*, if it is not too long ago."""
        from ._target import Target

        note = None if self._notes is None else await self._notes.read(_name("target", key))
        age = None if note is None else self._age(note.get("at"))
        if note is None or age is None:
            return None
        try:
            target = load((Target,), note.get("target"))
        except StoreError:
            return None
        return target if age < TARGET_AGE_MAX else None

    async def keep_target(self, key: str, target: Target) -> None:
        """Nothing is kept where nobody need log in, so that a change shows at once."""
        if self._notes is not None and target.server is not None:
            note = {"at": self._clock.time(), "target": dump(target)}
            await self._notes.write(_name("target", key), note)

    def _age(self, at: object) -> float | None:
        """Seconds since *at*; a time in the future was written by a clock that ran ahead."""
        if not isinstance(at, int | float) or isinstance(at, bool):
            return None
        age = self._clock.time() - at
        return age if age >= 0 else None


def _name(subject: str, key: str) -> str:
    return f"{subject} {key}"


def _file_name(key: str) -> str:
    return hashlib.sha256(_name("prompt", key).encode("utf-8", "surrogatepass")).hexdigest()
