from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from typing import Any

import anyio
import anyio.to_thread
import pytest

from flyteauth._io.flights import Flights, Round
from tests.concurrency import all_at_once

pytestmark = pytest.mark.anyio


class Job:
    """Runs until it is let go; counts how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.started = anyio.Event()
        self.go = anyio.Event()
        self.error: Exception | None = None
        self.now = 0.0
        self.elapsed: list[float] = []  # how long ago each of them was asked for first

    async def __call__(self, shared: Round | None = None) -> int:
        self.begun += 1
        if shared is not None:
            self.elapsed.append(shared.elapsed(self.now))
        mine = self.begun
        self.started.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return mine


@pytest.mark.req("REF-05")
async def test_a_flight_is_made_once_for_all_who_join() -> None:
    flights, job = Flights(), Job()
    works = [flights.join("key", job) for _ in range(5)]
    assert len(set(map(id, works))) == 1
    await job.started.wait()
    job.go.set()
    assert [await work.wait() for work in works] == [1] * 5
    assert await flights.join("key", job).wait() == 2
    assert await flights.join("other", job).wait() == 3


async def test_a_flight_outlives_the_one_who_asked_for_it() -> None:
    flights, job = Flights(), Job()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(flights.join("key", job).wait)
            await job.started.wait()
            scope.cancel()
    job.go.set()
    assert await flights.join("key", job).wait() == 1


async def test_whoever_waits_for_a_round_shares_its_value() -> None:
    flights, job = Flights(), Job()
    job.go.set()
    assert await all_at_once(10, lambda: flights.share("key", job)) == [1] * 10


async def test_whoever_waits_for_a_round_shares_its_failure() -> None:
    flights, job = Flights(), Job()
    job.error = ValueError("no")
    job.go.set()
    outcomes = await all_at_once(10, lambda: flights.share("key", job))
    assert job.begun == 1
    assert [type(outcome) for outcome in outcomes] == [ValueError] * 10


async def test_when_the_first_is_cancelled_one_of_the_waiting_goes_on() -> None:
    flights, job = Flights(), Job()
    outcomes: list[int] = []

    async def wait() -> None:
        outcomes.append(await flights.share("key", job))

    async with anyio.create_task_group() as outer:
        async with anyio.create_task_group() as first:
            first.start_soon(wait)
            await job.started.wait()
            for _ in range(3):
                outer.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            job.now = 15.0
            first.cancel_scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert job.begun == 2
        job.go.set()
    assert outcomes == [2, 2, 2]
    assert job.elapsed == [0.0, 15.0]


async def test_whoever_goes_on_knows_how_long_it_is_that_the_first_has_asked() -> None:
    flights, elapsed, now = Flights(), list[float](), 0.0
    begins, at_it = anyio.create_memory_object_stream[anyio.CancelScope](1)

    async def wait() -> None:
        with anyio.CancelScope() as mine:

            async def work(shared: Round) -> None:
                elapsed.append(shared.elapsed(now))
                begins.send_nowait(mine)
                await anyio.sleep_forever()

            await flights.share("key", work)

    async with begins, at_it, anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(wait)
        for passed in (15.0, 3.0, 12.5, 0.0):
            scope = await at_it.receive()
            await anyio.wait_all_tasks_blocked()
            now += passed
            scope.cancel()
    assert elapsed == [0.0, 15.0, 18.0, 30.5]


async def test_what_nobody_waited_for_any_more_is_begun_with_all_of_its_time() -> None:
    flights, job = Flights(), Job()
    async with anyio.create_task_group() as group:
        group.start_soon(flights.share, "key", job)
        await job.started.wait()
        group.cancel_scope.cancel()
    job.now = 15.0
    job.go.set()
    assert await flights.share("key", job) == 2
    job.now = 30.0
    assert await flights.share("key", job) == 3
    assert job.elapsed == [0.0] * 3
    assert not flights._rounds


class Outcome(Exception):
    """What a flight came to, which may be a secret."""


@pytest.mark.req("COD-06")
@pytest.mark.parametrize("how", ["join", "share"])
@pytest.mark.parametrize("fails", [False, True])
async def test_what_a_flight_came_to_is_kept_only_by_those_who_joined_it(
    how: str, fails: bool
) -> None:
    flights = Flights()
    left = list[weakref.ref[Outcome]]()

    async def fly(_: Round | None = None) -> Outcome:
        await anyio.lowlevel.checkpoint()
        outcome = Outcome()
        left.append(weakref.ref(outcome))
        if fails:
            raise outcome
        return outcome

    async def take() -> None:
        work = flights.join("key", fly).wait() if how == "join" else flights.share("key", fly)
        try:
            assert isinstance(await work, Outcome)
        except Outcome:
            assert fails

    for _ in range(2):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(take)
    gc.collect()
    assert [ref() for ref in left] == [None, None]
    assert not flights._works
    assert not flights._rounds


async def test_whoever_comes_when_a_flight_is_over_begins_another_one() -> None:
    """Also before those who waited for it have been told."""
    flights, job = Flights(), Job()
    first = flights.join("key", job)
    successors = list[int]()

    def join(_: object) -> None:
        job.go = anyio.Event()
        successors.append(id(flights.join("key", job)))

    first.when_done(join)
    await job.started.wait()
    job.go.set()
    assert await first.wait() == 1
    second = flights.join("key", job)
    assert successors == [id(second)]
    job.go.set()
    assert await second.wait() == 2
    assert not flights._works


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks are never eager")
async def test_a_task_may_be_eager(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        return
    flights = Flights()

    async def inner() -> int:
        return 1

    async def outer() -> int:
        return await flights.join("inner", inner).wait() + 1

    eager: Any = asyncio
    asyncio.get_running_loop().set_task_factory(eager.eager_task_factory)
    with anyio.fail_after(10.0):
        assert await flights.join("outer", outer).wait() == 2
    assert not flights._works


async def test_flights_are_shared_across_threads_and_event_loops(anyio_backend: str) -> None:
    flights, job = Flights(), Job()

    async def there() -> int:
        return await flights.share("key", job)

    outcomes: list[int] = []

    async def elsewhere(backend: str) -> None:
        outcomes.append(await anyio.to_thread.run_sync(lambda: anyio.run(there, backend=backend)))

    async with anyio.create_task_group() as group:

        async def here() -> None:
            outcomes.append(await there())

        group.start_soon(here)
        await job.started.wait()
        for backend in ("asyncio", "trio"):
            group.start_soon(elsewhere, backend)
        while flights._works["key"].waiting < 2:  # noqa: ASYNC110  # they are elsewhere
            await anyio.sleep(0.001)
        job.go.set()
    assert outcomes == [1, 1, 1]
