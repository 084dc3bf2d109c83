"""Blocking calls on daemon threads: results, deadlines, cancellation, and a process that exits."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial

import anyio
import pytest

from flyteauth._io.threads import Breaker, DaemonCall, run_in_daemon

pytestmark = pytest.mark.anyio

BOUND = 20.0


@pytest.fixture
def stuck() -> Iterator[Callable[[], bool]]:
    """A call that hangs until the test is over."""
    released = threading.Event()
    yield released.wait
    released.set()
    for thread in threading.enumerate():
        if thread.name.startswith("flyteauth") and thread.name != "flyteauth portal":
            thread.join(BOUND)


async def test_the_value_comes_back_from_a_daemon_thread() -> None:
    def where(prefix: str) -> tuple[str, bool]:
        return prefix + threading.current_thread().name, threading.current_thread().daemon

    assert await run_in_daemon(where, "> ", deadline=BOUND) == ("> flyteauth where", True)
    assert await run_in_daemon(dict, deadline=BOUND) == {}


@pytest.mark.parametrize(
    "error", [OSError("locked"), KeyError("x"), SystemExit(3), TimeoutError("own")]
)
async def test_whatever_the_call_raises_the_caller_gets(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await run_in_daemon(fail, deadline=BOUND)
    assert caught.value is error


async def test_a_call_that_hangs_has_a_deadline(stuck: Callable[[], bool]) -> None:
    with pytest.raises(TimeoutError, match="no answer within 0.01 s"):
        await run_in_daemon(stuck, deadline=0.01)


async def test_a_deadline_of_zero_takes_what_is_there(stuck: Callable[[], bool]) -> None:
    with pytest.raises(TimeoutError):
        await run_in_daemon(stuck, deadline=0)


@pytest.mark.req("CBK-16")
async def test_a_cancelled_caller_does_not_wait_for_the_call(stuck: Callable[[], bool]) -> None:
    with anyio.fail_after(BOUND), anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(run_in_daemon, stuck, deadline=BOUND))
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught


async def test_who_is_cancelled_before_calls_nothing() -> None:
    called: list[int] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        await run_in_daemon(called.append, 1, deadline=BOUND)
    assert scope.cancelled_caught
    assert not called


async def test_the_loop_goes_on_meanwhile(stuck: Callable[[], bool]) -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        with pytest.raises(TimeoutError):
            await run_in_daemon(stuck, deadline=0.05)
        tasks.cancel_scope.cancel()
    assert beats > 10


async def test_several_tasks_wait_for_one_call() -> None:
    release = threading.Event()
    call = DaemonCall(lambda: release.wait(BOUND))
    answers: list[bool] = []

    async def wait() -> None:
        answers.append(await call.result(BOUND))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        release.set()
    assert answers == [True, True, True]


EXITS = """
import sys, threading, anyio
from flyteauth._io.threads import run_in_daemon

async def main() -> None:
    if sys.argv[2] == "deadline":
        try:
            await run_in_daemon(threading.Event().wait, deadline=0.01)
        except TimeoutError:
            print("timed out")
    else:
        with anyio.move_on_after(0.01):
            await run_in_daemon(threading.Event().wait, deadline=60)
        print("cancelled")

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(("how", "said"), [("deadline", "timed out"), ("cancel", "cancelled")])
def test_a_stuck_thread_does_not_keep_the_process(backend: str, how: str, said: str) -> None:
    command = [sys.executable, "-W", "error", "-c", EXITS, backend, how]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=BOUND)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, said, "")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_outcome_after_the_end_of_the_loop_is_dropped_quietly(backend: str) -> None:
    release = threading.Event()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await run_in_daemon(release.wait, deadline=0.01)

    anyio.run(main, backend=backend)
    (thread,) = (one for one in threading.enumerate() if one.name == "flyteauth wait")
    release.set()
    thread.join(BOUND)
    assert not thread.is_alive()


# One place that may hang.


async def test_a_breaker_returns_and_raises_what_the_call_does() -> None:
    breaker = Breaker()
    assert await breaker.call(int, "7", deadline=BOUND) == 7
    with pytest.raises(ValueError, match="invalid literal"):
        await breaker.call(int, "x", deadline=BOUND)
    with pytest.raises(TimeoutError, match="own"):
        await breaker.call(raises, TimeoutError("own"), deadline=BOUND)
    assert await breaker.call(int, "8", deadline=BOUND) == 8


def raises(error: Exception) -> None:
    raise error


async def test_while_one_call_hangs_no_other_is_begun(stuck: Callable[[], bool]) -> None:
    breaker, called = Breaker(), list[int]()
    with pytest.raises(TimeoutError):
        await breaker.call(stuck, deadline=0.01)
    for _ in range(3):
        with anyio.fail_after(BOUND), pytest.raises(TimeoutError):
            await breaker.call(called.append, 1, deadline=2 * BOUND)
    assert not called
    await Breaker().call(called.append, 2, deadline=BOUND)  # another place is not concerned
    assert called == [2]


async def test_when_the_call_that_hung_has_returned_others_are_begun() -> None:
    breaker, go = Breaker(), threading.Event()
    with pytest.raises(TimeoutError):
        await breaker.call(go.wait, deadline=0.01)
    go.set()
    with anyio.fail_after(BOUND):
        while True:
            with contextlib.suppress(TimeoutError):
                assert await breaker.call(int, "7", deadline=BOUND) == 7
                return
            await anyio.lowlevel.checkpoint()


async def test_after_a_cancellation_the_next_caller_waits_for_the_call() -> None:
    breaker, go, entered = Breaker(), threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        go.wait(BOUND)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(breaker.call, slow, deadline=BOUND))
        while not entered.is_set():
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    with pytest.raises(TimeoutError):
        await breaker.call(int, "7", deadline=0.03)
    go.set()
    assert await breaker.call(int, "7", deadline=BOUND) == 7


async def test_callers_that_are_cancelled_again_and_again_leave_one_thread() -> None:
    breaker, go, entered = Breaker(), threading.Event(), list[int]()

    def slow() -> None:
        entered.append(1)
        go.wait(BOUND)

    for _ in range(5):
        with anyio.move_on_after(0.02):
            await breaker.call(slow, deadline=BOUND)
    go.set()
    assert await breaker.call(int, "7", deadline=BOUND) == 7
    assert entered == [1]


async def test_who_is_cancelled_before_a_call_breaks_nothing() -> None:
    breaker = Breaker()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await breaker.call(int, "7", deadline=BOUND)
    assert scope.cancelled_caught
    assert await breaker.call(int, "8", deadline=BOUND) == 8


def test_reading_this_module_imports_no_event_loop() -> None:
    code = (
        "import sys, flyteauth._io.threads as t; t.Breaker(); "
        "print([m for m in ('anyio', 'asyncio', 'trio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_where_python_starts_no_thread_any_more_the_call_is_made_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = threading.get_ident()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refusing("at interpreter shutdown"))
        assert await run_in_daemon(threading.get_ident, deadline=BOUND) == here
        patched.setattr(threading.Thread, "start", refusing("for there are too many"))
        with pytest.raises(RuntimeError, match="too many"):
            await run_in_daemon(threading.get_ident, deadline=BOUND)
    assert await run_in_daemon(threading.get_ident, deadline=BOUND) != here


def refusing(why: str) -> Callable[[threading.Thread], None]:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError(f"can't create new thread {why}")

    return start


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_wait_for_threads_of_its_parent() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=BOUND, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "7\n", "")


FORKS = """
import os, threading, warnings, anyio
warnings.simplefilter("ignore")  # newer Pythons warn of a fork beside threads, which this is about
from flyteauth._io.threads import Breaker
breaker = Breaker()

async def hang() -> None:
    try:
        await breaker.call(threading.Event().wait, deadline=0.01)
    except TimeoutError:
        pass

async def call() -> None:
    print(await breaker.call(int, "7", deadline=10), flush=True)

anyio.run(hang)
if (child := os.fork()) == 0:
    anyio.run(call)
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
