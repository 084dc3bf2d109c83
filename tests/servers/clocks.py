"""Time that passes when a test says so."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from flyteauth._io.clock import SystemClock


class PassingClock(SystemClock):
    """The system's clock, some seconds ahead. Whoever waits for a moment comes to it at once, as
    soon as *before* is over; ``waited`` says how many seconds that each time was.
    """

    def __init__(
        self, passed: float = 0.0, before: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        self.passed = passed
        self.before = before
        self.waited: list[float] = []
        super().__init__(
            wall=lambda: time.time() + self.passed,
            monotonic=lambda: time.monotonic() + self.passed,
        )

    async def sleep_until(self, deadline: float) -> None:
        if self.before is not None:
            await self.before()
        self.waited.append(max(deadline - self.time(), 0.0))
        self.passed += self.waited[-1]
        await super().sleep_until(deadline)
