"""The time, as a login needs it: it never runs backwards into a token's past."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

import anyio
import anyio.lowlevel

# How long to sleep before looking at the clock again. A monotonic clock may stand still while a
# laptop sleeps, so one long sleep would end long after its deadline.
CHUNK: Final = 5.0


class Clock(Protocol):
    """POSIX seconds, and waiting for them."""

    def time(self) -> float: ...

    def monotonic(self) -> float:
        """Seconds since some moment: what passes while nobody sleeps or sets the clock."""
        ...

    async def sleep_until(self, deadline: float) -> None:
        """Return once ``time()`` has reached *deadline*; at once if it has already."""
        ...


class SystemClock:
    """The wall clock, except that setting it back does not make anything younger.

    A wall clock that is set back cannot revive a token, because the monotonic clock goes on; and
    a laptop that slept cannot keep one, because the wall clock went on.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        chunk: float = CHUNK,
    ) -> None:
        self._wall = wall
        self.monotonic = monotonic  # not a method, which would cost a call
        self._chunk = chunk
        self._offset = wall() - monotonic()

    def time(self) -> float:
        return max(self._wall(), self._offset + self.monotonic())

    async def sleep_until(self, deadline: float) -> None:
        await anyio.lowlevel.checkpoint()  # a loop over past deadlines stays cancellable
        while (left := deadline - self.time()) > 0:  # noqa: ASYNC110  # nobody signals time
            await anyio.sleep(min(left, self._chunk))
