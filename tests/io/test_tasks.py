from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from flyteauth._io.tasks import Abandoned, Work, _Crowd, start
from flyteauth._sansio.errors import OAuth2Error, Unreachable

pytestmark = pytest.mark.anyio

LIMIT = 10.0


class Gate:
    """Lets work be observed and let go, from any thread."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.event = anyio.Event()

    async def work(self, value: object = "value") -> object:
        self.begun.set()
        await self.event.wait()
        if isinstance(value, BaseException):
            raise value
        return value


async def wait_for_waiters(work: Work[Any], count: int) -> None:
    with anyio.fail_after(LIMIT):
        while work.waiting < count:
            await anyio.lowlevel.checkpoint()


async def test_everyone_who_waits_gets_the_value() -> None:
    gate = Gate()
    work = start(gate.work)
    assert not work.done
    values: list[object] = []

    async def wait() -> None:
        values.append(await work.wait())

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(wait)
        await wait_for_waiters(work, 5)
        gate.event.set()
    assert values == ["value"] * 5
    assert work.done
    assert await work.wait() == "value"


async def test_who_asks_is_called_once_when_the_work_is_done_and_before_its_waiters() -> None:
    gate, seen = Gate(), list[str]()
    work = start(gate.work)

    def note(done: Work[object]) -> None:
        assert done is work
        assert done.done
        seen.append("called")

    async def wait() -> None:
        await work.wait()
        seen.append("told")

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await wait_for_waiters(work, 1)
        work.when_done(note)
        assert not seen
        gate.event.set()
    work.settle("again")
    assert seen == ["called", "told"]
    work.when_done(note)
    assert seen == ["called", "told", "called"]
    assert not work._callbacks


async def test_none_is_a_value_too() -> None:
    async def nothing() -> None:
        await anyio.lowlevel.checkpoint()

    work = start(nothing)
    await work.wait()
    assert work.done


async def test_a_cancelled_waiter_does_not_touch_the_work() -> None:
    gate = Gate()
    work = start(gate.work)
    async with anyio.create_task_group() as group:
        group.start_soon(work.wait)
        await wait_for_waiters(work, 1)
        group.cancel_scope.cancel()
    assert not work.done
    assert not work.waiting
    gate.event.set()
    assert await work.wait() == "value"


async def test_asyncio_cancellation_does_not_touch_the_work(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        return
    gate = Gate()
    work = start(gate.work)
    task = asyncio.create_task(work.wait())
    await wait_for_waiters(work, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await work.wait()
    gate.event.set()
    assert await work.wait() == "value"


async def test_the_work_goes_on_when_whoever_started_it_is_gone() -> None:
    gate = Gate()
    works: list[Work[object]] = []
    async with anyio.create_task_group() as group:

        async def starter() -> None:
            works.append(start(gate.work))
            await anyio.sleep_forever()

        group.start_soon(starter)
        with anyio.fail_after(LIMIT):
            while not gate.begun.is_set():
                await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    gate.event.set()
    assert await works[0].wait() == "value"


async def test_nobody_needs_to_hold_the_work() -> None:
    gate, ended = Gate(), anyio.Event()

    async def work() -> None:
        await gate.work()
        ended.set()

    start(work)
    gc.collect()
    gate.event.set()
    with anyio.fail_after(LIMIT):
        await ended.wait()


@pytest.mark.parametrize(
    "error",
    [
        Unreachable("a", reason="timeout", retry_after=3.0, sent=True),
        OAuth2Error("invalid_grant", "gone", "https://x/"),
        KeyError("k"),
        OSError(2, "no"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "why"),
        ExceptionGroup("several", [ValueError("v")]),
    ],
)
async def test_each_waiter_gets_a_failure_of_its_own(error: Exception) -> None:
    gate = Gate()
    work = start(gate.work, error)
    caught: list[Exception] = []

    async def wait() -> None:
        try:
            await work.wait()
        except Exception as seen:  # noqa: BLE001  # whatever it is
            caught.append(seen)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(wait)
        await wait_for_waiters(work, 3)
        gate.event.set()
    for _ in range(3):
        await wait()
    assert len(caught) == 6
    assert len({id(seen) for seen in caught}) == 6
    for seen in caught:
        assert type(seen) is type(error)
        assert str(seen) == str(error)
        assert {**vars(seen), "hint": ""} == {**vars(error), "hint": ""}
    assert len({depth(seen) for seen in caught}) == 1  # nobody's traceback grows


def depth(error: BaseException) -> int:
    traceback, count = error.__traceback__, 0
    while traceback is not None:
        traceback, count = traceback.tb_next, count + 1
    return count


class Odd(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")


async def test_an_error_that_cannot_be_copied_is_raised_as_it_is() -> None:
    gate = Gate()
    work = start(gate.work, Odd(1, 2))
    gate.event.set()
    for _ in range(3):
        with pytest.raises(Odd) as caught:
            await work.wait()
    assert depth(caught.value) < 10


async def test_a_failure_that_nobody_waits_for_is_silent() -> None:
    gate = Gate()
    work = start(gate.work, ValueError("unseen"))
    gate.event.set()
    with anyio.fail_after(LIMIT):
        while not work.done:
            await anyio.lowlevel.checkpoint()
    del work
    gc.collect()


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


async def test_the_work_does_not_see_the_variables_of_the_starter() -> None:
    async def look() -> str:
        await anyio.lowlevel.checkpoint()
        return variable.get()

    variable.set("the caller's")
    assert await start(look).wait() == "none"


async def test_the_work_may_use_scopes_and_threads() -> None:
    async def use() -> int:
        with anyio.move_on_after(0.001):
            await anyio.sleep_forever()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.lowlevel.checkpoint)
        return await anyio.to_thread.run_sync(lambda: 7)

    assert await start(use).wait() == 7


# Several event loops.


class Loop:
    """An event loop on a thread of its own."""

    def __init__(self, backend: str, main: Callable[[], Awaitable[object]]) -> None:
        self.result: object = None
        self.thread = threading.Thread(target=self._run, args=(backend, main))
        self.thread.start()

    def _run(self, backend: str, main: Callable[[], Awaitable[object]]) -> None:
        try:
            self.result = anyio.run(main, backend=backend)
        except BaseException as error:  # noqa: BLE001  # whatever it is
            self.result = error

    def join(self) -> object:
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()
        return self.result


BACKENDS = ["asyncio", "trio"]


@pytest.mark.parametrize("here", BACKENDS)
@pytest.mark.parametrize("there", BACKENDS)
@pytest.mark.parametrize("fails", [False, True])
def test_a_waiter_may_be_on_another_loop(here: str, there: str, fails: bool) -> None:
    gate, handed = Gate(), threading.Event()
    works: list[Work[object]] = []

    async def owner() -> None:
        value = ValueError("v") if fails else "value"
        works.append(start(gate.work, value))
        handed.set()
        await wait_for_waiters(works[0], 3)
        gate.event.set()
        with suppress(ValueError):
            await works[0].wait()

    async def waiter() -> object:
        return await works[0].wait()

    owning = Loop(here, owner)
    assert handed.wait(LIMIT)
    results = [loop.join() for loop in [Loop(there, waiter) for _ in range(3)]]
    assert owning.join() is None
    if fails:
        assert all(isinstance(result, ValueError) for result in results)
    else:
        assert results == ["value"] * 3


@pytest.mark.parametrize("here", BACKENDS)
@pytest.mark.parametrize("there", BACKENDS)
def test_waiters_are_told_when_the_loop_of_the_work_ends(here: str, there: str) -> None:
    gate, handed = Gate(), threading.Event()
    works: list[Work[object]] = []

    async def owner() -> None:
        works.append(start(gate.work))
        handed.set()
        await wait_for_waiters(works[0], 1)

    async def waiter() -> object:
        return await works[0].wait()

    owning = Loop(here, owner)
    assert handed.wait(LIMIT)
    waiting = Loop(there, waiter)
    assert owning.join() is None
    assert isinstance(waiting.join(), Abandoned)
    assert isinstance(Loop(there, waiter).join(), Abandoned)  # also who comes later


@pytest.mark.parametrize("backend", BACKENDS)
def test_work_that_never_took_its_first_step_is_abandoned_too(backend: str) -> None:
    works: list[Work[object]] = []

    async def owner() -> None:
        works.append(start(Gate().work))

    anyio.run(owner, backend=backend)
    assert works[0].done
    with pytest.raises(Abandoned):
        anyio.run(works[0].wait, backend=backend)


@pytest.mark.filterwarnings("ignore")  # what asyncio says of a loop closed over its tasks
def test_a_loop_that_is_closed_over_its_work_does_not_hang_anybody() -> None:
    loop = asyncio.new_event_loop()
    gate = Gate()

    async def begin() -> Work[object]:
        work = start(gate.work)
        await anyio.lowlevel.checkpoint()
        return work

    work = loop.run_until_complete(begin())
    loop.close()
    with pytest.raises(Abandoned):
        trio.run(work.wait)
    from flyteauth._io import tasks

    for task in list(tasks._tasks):
        if task.get_loop() is loop:
            tasks._tasks.discard(task)
            task._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_waiter_whose_loop_has_ended_does_not_disturb_the_work(backend: str) -> None:
    gate, handed, leave = Gate(), threading.Event(), threading.Event()
    works: list[Work[object]] = []

    async def owner() -> object:
        works.append(start(gate.work))
        handed.set()
        await anyio.to_thread.run_sync(leave.wait)
        # A loop that ended without a word, as a waiter's loop may when its thread dies.
        dead = asyncio.new_event_loop()
        dead.close()
        works[0]._waiters[dead] = _Crowd()
        gate.event.set()
        return await works[0].wait()

    async def waiter() -> None:
        with anyio.move_on_after(0.01):
            await works[0].wait()

    owning = Loop(backend, owner)
    assert handed.wait(LIMIT)
    for other in BACKENDS:
        assert Loop(other, waiter).join() is None
    leave.set()
    assert owning.join() == "value"


def test_work_needs_an_event_loop() -> None:
    with pytest.raises(Exception, match="event loop|async library|async context"):
        start(Gate().work)


# Work that is done only for those who wait.


async def test_optional_work_ends_when_the_last_of_its_waiters_leaves() -> None:
    ended = anyio.Event()

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    optional = start(work, optional=True)
    async with anyio.create_task_group() as stayer:
        stayer.start_soon(optional.wait)
        with anyio.move_on_after(0.01):
            await optional.wait()
        assert not ended.is_set()
        stayer.cancel_scope.cancel()
    with anyio.fail_after(LIMIT):
        await ended.wait()
        with pytest.raises(Abandoned):
            await optional.wait()


async def test_optional_work_that_nobody_has_waited_for_goes_on() -> None:
    released = anyio.Event()

    async def work() -> str:
        await released.wait()
        return "done"

    optional = start(work, optional=True)
    await anyio.wait_all_tasks_blocked()
    released.set()
    assert await optional.wait() == "done"


async def test_optional_work_may_be_cancelled_before_it_begins() -> None:
    begun = False

    async def work() -> None:
        nonlocal begun
        await anyio.lowlevel.checkpoint()
        begun = True

    optional = start(work, optional=True)
    optional.cancel()
    with anyio.fail_after(LIMIT), pytest.raises(Abandoned):
        await optional.wait()
    assert not begun


async def test_work_that_must_be_done_is_not_cancelled() -> None:
    released = anyio.Event()

    async def work() -> str:
        await released.wait()
        return "done"

    needed = start(work)
    with anyio.move_on_after(0.01):
        await needed.wait()
    needed.cancel()
    await anyio.wait_all_tasks_blocked()
    released.set()
    assert await needed.wait() == "done"
