from __future__ import annotations

import math

import anyio
import pytest

from flyteauth._io.clock import SystemClock

pytestmark = pytest.mark.anyio


class Times:
    """A wall clock and a monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.wall = 1_000_000.0
        self.monotonic = 50.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def clock(self, chunk: float = 5.0) -> SystemClock:
        return SystemClock(wall=lambda: self.wall, monotonic=lambda: self.monotonic, chunk=chunk)


def test_it_is_the_wall_clock() -> None:
    times = Times()
    clock = times.clock()
    times.pass_(7.0)
    assert clock.time() == 1_000_007.0


@pytest.mark.req("CLK-02")
def test_setting_the_wall_clock_back_does_not_revive_anything() -> None:
    times = Times()
    clock = times.clock()
    times.pass_(100.0)
    times.wall -= 3600.0
    assert clock.time() == 1_000_100.0
    times.pass_(1.0)
    assert clock.time() == 1_000_101.0


@pytest.mark.req("CLK-02")
def test_a_laptop_that_slept_does_not_keep_anything() -> None:
    times = Times()
    clock = times.clock()
    times.wall += 7200.0  # the monotonic clock stood still
    assert clock.time() == 1_007_200.0


@pytest.mark.req("CLK-02")
def test_a_wall_clock_that_jumps_ahead_and_back_is_followed() -> None:
    times = Times()
    clock = times.clock()
    times.wall += 10 * 365 * 86400.0
    assert clock.time() == times.wall
    times.wall -= 10 * 365 * 86400.0
    times.pass_(1.0)
    assert clock.time() == 1_000_001.0


async def test_a_deadline_in_the_past_is_over_at_once() -> None:
    clock = Times().clock()
    for deadline in (0.0, -math.inf, clock.time()):
        await clock.sleep_until(deadline)


@pytest.mark.req("CLK-07")
async def test_sleeping_ends_at_the_deadline_and_not_before() -> None:
    clock = SystemClock()
    deadline = clock.time() + 0.02
    await clock.sleep_until(deadline)
    assert deadline <= clock.time() < deadline + 5.0


@pytest.mark.req("CLK-07")
async def test_a_suspend_while_sleeping_does_not_overshoot() -> None:
    times = Times()
    clock = times.clock(chunk=0.001)
    woken, deadline = anyio.Event(), times.wall + 3600.0

    async def sleep() -> None:
        await clock.sleep_until(deadline)
        woken.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(sleep)
            await anyio.lowlevel.checkpoint()
            times.pass_(10.0)
            assert not woken.is_set()
            times.wall += 7200.0  # the lid was closed


@pytest.mark.req("CLK-07")
@pytest.mark.parametrize("deadline", [math.inf, 0.0])
async def test_sleeping_can_be_cancelled(deadline: float) -> None:
    clock = SystemClock()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await clock.sleep_until(deadline)
    assert scope.cancelled_caught


async def test_sleeping_in_a_loop_lets_others_run() -> None:
    clock, turns = SystemClock(), 0

    async def other() -> None:
        nonlocal turns
        turns += 1

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        for _ in range(3):
            await clock.sleep_until(0.0)
        assert turns == 1
