from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from flyteauth._io import portal
from flyteauth._io.portal import call
from flyteauth._sansio.errors import Unreachable

LIMIT = 20.0


async def answer(value: object = 42) -> object:
    await anyio.lowlevel.checkpoint()
    if isinstance(value, BaseException):
        raise value
    return value


async def where() -> threading.Thread:
    return threading.current_thread()


def test_it_returns_what_the_function_returns() -> None:
    assert call(answer) == 42
    assert call(answer, "x") == "x"


def test_it_raises_what_the_function_raises() -> None:
    with pytest.raises(Unreachable, match="gone"):
        call(answer, Unreachable("gone"))


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_an_exit_is_for_the_caller_and_the_portal_goes_on(error: BaseException) -> None:
    thread = call(where)
    with pytest.raises(type(error)):
        call(answer, error)
    assert call(where) is thread


def test_work_that_was_cancelled_from_within_is_an_error() -> None:
    async def cancel_itself() -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="cancelled from within"):
        call(cancel_itself)
    assert call(answer) == 42


def test_there_is_one_thread_and_it_is_a_daemon() -> None:
    thread = call(where)
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert call(where) is thread


def test_it_is_asyncio_there() -> None:
    async def look() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert call(look).is_running()


@pytest.mark.anyio
async def test_it_works_inside_a_running_loop() -> None:
    assert call(answer) == 42


def test_many_threads_may_call_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portal, "_portal", None)  # also the first use may come from many
    threads_seen: list[threading.Thread] = []
    barrier = threading.Barrier(16)

    def work() -> None:
        barrier.wait(LIMIT)
        threads_seen.append(call(where))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert len(threads_seen) == 16
    assert len(set(threads_seen)) == 1
    assert portal._portal is not None
    portal._portal.stop()


def test_a_portal_that_ended_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portal, "_portal", None)
    first = call(where)
    assert portal._portal is not None
    portal._portal.stop()
    assert not first.is_alive()
    second = call(where)
    assert second is not first
    assert portal._portal is not None
    portal._portal.stop()


def test_calling_from_its_own_thread_is_an_error_and_not_a_deadlock() -> None:
    async def nested() -> object:
        return call(answer)

    with pytest.raises(RuntimeError, match="wait for itself"):
        call(nested)
    assert call(answer) == 42


def test_calling_from_a_worker_thread_of_the_portal_works() -> None:
    async def through_a_thread() -> Any:
        return await anyio.to_thread.run_sync(lambda: call(answer))

    assert call(through_a_thread) == 42


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_cancels_the_work_and_comes_through() -> None:
    begun, tidied = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            tidied.set()

    def interrupt() -> None:
        begun.wait(LIMIT)
        os.kill(os.getpid(), signal.SIGINT)

    for _ in range(50):  # it comes a little earlier or later each time
        begun.clear()
        tidied.clear()
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            call(work)
        assert tidied.is_set()
        thread.join(LIMIT)
    assert call(answer) == 42


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork in a process with threads
def test_a_forked_child_starts_its_own() -> None:
    assert call(answer) == 42
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:  # pragma: no cover
        try:
            os.write(writing, b"42" if call(answer) == 42 else b"no")
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"42"
    assert os.waitpid(child, 0)[1] == 0
    assert call(answer) == 42  # the parent's is undisturbed


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    # In this mode asyncio tells of each step that takes a tenth of a second, as on a busy machine.
    told = ended.stderr.splitlines(keepends=True)
    ended.stderr = "".join(line for line in told if not line.startswith("Executing <"))
    return ended


EXITS = {
    "idle": "call(answer)",
    "with a thread of it": "call(lambda: anyio.to_thread.run_sync(int))",
    "with a call of a daemon": (
        "threading.Thread(target=call, args=(anyio.sleep_forever,), daemon=True).start()"
    ),
    "with an exception": "call(answer); raise SystemExit(7)",
}


@pytest.mark.parametrize("how", EXITS)
def test_it_never_keeps_the_process_from_exiting(how: str) -> None:
    code = (
        "import anyio, threading\nfrom flyteauth._io.portal import call\n"
        "async def answer(): return 42\n" + EXITS[how]
    )
    ended = run(code)
    assert ended.stderr == ""
    assert ended.returncode == (7 if "raise" in EXITS[how] else 0)


def test_what_is_on_its_way_arrives_before_the_process_exits() -> None:
    ended = run(
        "import anyio\nfrom flyteauth._io import portal, tasks\n"
        "from flyteauth._io.threads import run_in_daemon\n"
        "async def refresh():\n"
        "    await anyio.sleep(0.05)\n"
        "    await run_in_daemon(print, 'stored', deadline=5)\n"
        "async def begin():\n"
        "    tasks.start(refresh)\n"
        "portal.call(begin)\n"
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("stored\n", "", 0)


def test_what_hangs_is_left_behind_when_the_process_exits() -> None:
    ended = run(
        "import anyio\nfrom flyteauth._io import portal, tasks\n"
        "portal.FINISH = 0.05\n"
        "async def begin():\n"
        "    tasks.start(anyio.sleep_forever)\n"
        "portal.call(begin)\n"
    )
    assert (ended.stderr, ended.returncode) == ("", 0)


def test_a_forked_child_exits_too() -> None:
    if not hasattr(os, "fork"):
        return
    ended = run(
        "import os, warnings\nwarnings.simplefilter('ignore')\n"
        "from flyteauth._io.portal import call\n"
        "async def answer(): return 42\n"
        "call(answer)\n"
        "child = os.fork()\n"
        "call(answer)\n"
        "if child: raise SystemExit(os.waitpid(child, 0)[1])\n"
    )
    assert (ended.stderr, ended.returncode) == ("", 0)
