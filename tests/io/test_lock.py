"""The lock that all processes of a machine respect."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import filelock
import pytest
import trio

from flyteauth._io import lock as lock_module
from flyteauth._io.lock import Locks
from flyteauth._sansio.errors import StoreError

pytestmark = pytest.mark.anyio

BOUND = 20.0
posix = pytest.mark.skipif(sys.platform == "win32", reason="there are no such things on Windows")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "locks"


@pytest.fixture
def locks(directory: Path) -> Locks:
    return Locks(directory)


async def nothing() -> str:
    return "done"


async def take(locks: Locks, name: str = "a", deadline: float = BOUND) -> str:
    return await locks.exclusively(name, nothing, deadline=deadline)


async def is_busy(locks: Locks, name: str = "a") -> bool:
    try:
        await take(locks, name, deadline=0)
    except StoreError as error:
        if error.reason != "busy":
            raise
        return True
    return False


def is_there(path: Path) -> bool:
    return path.exists()


def make(directory: Path) -> None:
    directory.mkdir(parents=True, mode=0o700)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def the_files(directory: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (mode(path), path.stat().st_size) for path in directory.iterdir()}


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(BOUND):
        while not condition():  # noqa: ASYNC110  # threads do not set events of loops
            await anyio.sleep(0.001)


# Taking turns.


async def test_the_value_and_the_error_of_the_function_come_back(locks: Locks) -> None:
    async def fail() -> None:
        raise KeyError("x")

    assert await take(locks) == "done"
    with pytest.raises(KeyError):
        await locks.exclusively("a", fail, deadline=BOUND)
    assert not await is_busy(locks)


@pytest.mark.req("REF-06")
async def test_nobody_else_is_in_here_for_the_same_name(locks: Locks, directory: Path) -> None:
    async def inside() -> tuple[bool, bool, bool]:
        other = Locks(directory)
        return await is_busy(locks), await is_busy(other), await is_busy(other, "b")

    assert await locks.exclusively("a", inside, deadline=BOUND) == (True, True, False)
    assert not await is_busy(locks)


async def test_waiting_is_called_once_and_only_if_somebody_is_in_there(locks: Locks) -> None:
    said: list[str] = []

    async def waiting() -> None:
        said.append("waiting")

    async def inside() -> None:
        assert said == []
        with pytest.raises(StoreError):
            await locks.exclusively("a", nothing, deadline=0.05, waiting=waiting)

    await locks.exclusively("a", inside, deadline=BOUND, waiting=waiting)
    assert said == ["waiting"]


async def test_a_busy_lock_ends_the_wait_at_the_deadline(locks: Locks, directory: Path) -> None:
    called: list[int] = []

    async def never() -> None:
        called.append(1)

    async def inside() -> float:
        started = time.monotonic()
        with pytest.raises(StoreError, match="another process holds .*; end it, or") as caught:
            await locks.exclusively("a", never, deadline=0.1)
        assert caught.value.reason == "busy"
        return time.monotonic() - started

    assert 0.1 <= await locks.exclusively("a", inside, deadline=BOUND) < BOUND / 2
    assert not called


async def test_tasks_take_turns(locks: Locks, directory: Path) -> None:
    inside = most = 0

    async def work() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await anyio.sleep(0.001)
        inside -= 1

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(partial(Locks(directory).exclusively, "a", work, deadline=BOUND))
            tasks.start_soon(partial(locks.exclusively, "a", work, deadline=BOUND))
    assert (inside, most) == (0, 1)


def test_event_loops_and_threads_take_turns(locks: Locks) -> None:
    inside, most, turns, mutex = [0], [0], list[str](), threading.Lock()

    def enter(how: str) -> None:
        with mutex:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            turns.append(how)

    def leave() -> None:
        with mutex:
            inside[0] -= 1

    def blocking() -> None:
        for _ in range(5):
            with locks.held("a", BOUND):
                enter("thread")
                time.sleep(0.002)
                leave()

    def looping(backend: str) -> None:
        async def work() -> None:
            enter(backend)
            await anyio.sleep(0.002)
            leave()

        async def main() -> None:
            for _ in range(5):
                await locks.exclusively("a", work, deadline=BOUND)

        anyio.run(main, backend=backend)

    threads = [threading.Thread(target=blocking) for _ in range(3)]
    threads += [threading.Thread(target=looping, args=["asyncio"]) for _ in range(2)]
    threads += [threading.Thread(target=looping, args=["trio"]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    assert most == [1]
    assert {how: turns.count(how) for how in turns} == {"thread": 15, "asyncio": 10, "trio": 10}


def test_a_thread_that_waits_has_a_deadline(locks: Locks, directory: Path) -> None:
    with locks.held("a", BOUND):
        with pytest.raises(StoreError) as caught, Locks(directory).held("a", 0.05):
            pytest.fail("two are in here")
        assert caught.value.reason == "busy"
    with pytest.raises(KeyError), locks.held("a", BOUND):
        raise KeyError("x")
    with locks.held("a", 0):
        pass


# Cancellation.


@pytest.mark.req("CBK-16")
async def test_a_cancelled_function_releases(locks: Locks) -> None:
    inside = anyio.Event()

    async def work() -> None:
        inside.set()
        await anyio.sleep_forever()

    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(locks.exclusively, "a", work, deadline=BOUND))
            await inside.wait()
            assert await is_busy(locks)
            tasks.cancel_scope.cancel()
        assert not await is_busy(locks)


async def test_who_is_cancelled_while_waiting_leaves_nothing(locks: Locks) -> None:
    waits = anyio.Event()

    async def waiting() -> None:
        waits.set()

    async def inside() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                partial(locks.exclusively, "a", nothing, deadline=BOUND, waiting=waiting)
            )
            await waits.wait()
            tasks.cancel_scope.cancel()

    await locks.exclusively("a", inside, deadline=BOUND)
    assert not await is_busy(locks)
    await until(lambda: not lock_module._open_files._descriptors)


@pytest.mark.parametrize("how", ["scope", "task"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_who_is_cancelled_while_a_thread_takes_the_lock_does_not_keep_it(
    locks: Locks,
    anyio_backend: str,
    how: str,
    moment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread stops before or after the system locks; meanwhile its caller is cancelled."""
    if how == "task" and anyio_backend == "trio":
        pytest.skip("trio has scopes only")
    entered, go = threading.Event(), threading.Event()
    real = filelock.lock_descriptor

    def slow(descriptor: int, *, blocking: bool) -> bool:
        locked = moment == "after" and real(descriptor, blocking=blocking)
        entered.set()
        go.wait(BOUND)
        return locked or real(descriptor, blocking=blocking)

    called: list[int] = []

    async def never() -> None:
        called.append(1)

    monkeypatch.setattr(filelock, "lock_descriptor", slow)
    with anyio.fail_after(BOUND):
        if how == "task":
            task = asyncio.ensure_future(locks.exclusively("a", never, deadline=BOUND))
            await until(entered.is_set)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(locks.exclusively, "a", never, deadline=BOUND))
                await until(entered.is_set)
                tasks.cancel_scope.cancel()
        monkeypatch.undo()
        go.set()
        await until(lambda: not lock_module._open_files._descriptors)
    assert not await is_busy(locks)
    assert not called


@pytest.mark.parametrize("twice", [False, True])
def test_a_task_cancelled_by_asyncio_itself_releases(locks: Locks, twice: bool) -> None:
    async def main() -> None:
        inside = asyncio.Event()

        async def work() -> None:
            inside.set()
            await asyncio.sleep(BOUND)

        task = asyncio.ensure_future(locks.exclusively("a", work, deadline=BOUND))
        await inside.wait()
        task.cancel()
        if twice:
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not lock_module._open_files._descriptors)
        assert not await is_busy(locks)

    asyncio.run(main())


def test_many_cancellations_at_any_moment_leave_the_lock_free(locks: Locks) -> None:
    async def main() -> None:
        for steps in range(60):
            task = asyncio.ensure_future(take(locks))
            for _ in range(steps % 12):
                await asyncio.sleep(0)
            if steps % 3:
                await asyncio.sleep(0.0002 * (steps % 7))
            task.cancel()
            await asyncio.wait([task])
        await until(lambda: not lock_module._open_files._descriptors)
        assert not await is_busy(locks)

    asyncio.run(main())


@pytest.mark.parametrize("meanwhile", ["nothing", "another event loop"])
def test_an_event_loop_that_is_closed_over_the_holder_frees_the_lock(
    locks: Locks, meanwhile: str
) -> None:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it complains about the task that it destroys
    inside = asyncio.Event()

    async def work() -> None:
        inside.set()
        await asyncio.Event().wait()

    task = loop.create_task(locks.exclusively("a", work, deadline=BOUND))
    loop.run_until_complete(inside.wait())
    loop.close()
    del task, loop

    async def collect() -> None:
        gc.collect()

    if meanwhile == "nothing":
        gc.collect()
    else:
        anyio.run(collect)
    anyio.run(until, lambda: not lock_module._open_files._descriptors)
    assert not anyio.run(is_busy, locks)


def test_a_run_that_ends_over_the_holder_frees_the_lock(locks: Locks) -> None:
    async def main() -> None:
        inside = asyncio.Event()

        async def work() -> None:
            inside.set()
            await asyncio.Event().wait()

        task = asyncio.ensure_future(locks.exclusively("a", work, deadline=BOUND))
        await inside.wait()
        assert not task.done()

    asyncio.run(main())
    assert not trio.run(is_busy, locks)


# What cannot be locked.


@pytest.mark.parametrize("name", ["", "a/b", "../a", "/a", "a\\b", "a\0b", "a b", "é", "a\n"])
async def test_a_name_is_one_plain_word(locks: Locks, directory: Path, name: str) -> None:
    with pytest.raises(ValueError):
        await take(locks, name)
    with pytest.raises(ValueError), locks.held(name, 0):
        pass
    assert not is_there(directory)


@posix
@pytest.mark.req("SEC-05")
async def test_directory_and_file_are_ours_alone_and_empty(locks: Locks, directory: Path) -> None:
    before = os.umask(0)
    try:
        await take(locks)
    finally:
        os.umask(before)
    assert the_files(directory) == {"a.lock": (0o600, 0)}
    assert mode(directory) == 0o700


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.EROFS, "denied"), (errno.ENOLCK, "denied"), (errno.ENOSPC, "full")],
)
@pytest.mark.parametrize("call", ["open", "lock"])
async def test_what_the_file_system_refuses_is_said(
    locks: Locks, number: int, reason: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> int:
        raise OSError(number, os.strerror(number))

    real = os.open

    def refuse_lock_files(path: object, *args: int, **options: int | None) -> int:
        if str(path).endswith(".lock"):
            refuse()
        return real(path, *args, **options)  # type: ignore[arg-type]

    if call == "open":
        monkeypatch.setattr(os, "open", refuse_lock_files)
    else:
        monkeypatch.setattr(filelock, "lock_descriptor", refuse)
    called: list[int] = []

    async def never() -> None:
        called.append(1)

    with pytest.raises(StoreError) as caught:
        await locks.exclusively("a", never, deadline=BOUND)
    assert caught.value.reason == reason
    assert os.strerror(number).lower() in str(caught.value)
    assert not called
    assert not lock_module._open_files._descriptors


@posix
@pytest.mark.parametrize("what", ["symlink", "pipe", "directory"])
async def test_what_is_no_lock_file_is_refused(locks: Locks, directory: Path, what: str) -> None:
    make(directory)
    path = directory / "a.lock"
    elsewhere = directory / "elsewhere"
    if what == "symlink":
        path.symlink_to(elsewhere)
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with anyio.fail_after(BOUND), pytest.raises(StoreError) as caught:
        await take(locks)
    assert caught.value.reason == "denied"
    assert not elsewhere.exists()


async def test_a_directory_that_cannot_be_is_denied(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError) as caught:
        await take(Locks(tmp_path / "file" / "locks"))
    assert caught.value.reason == "denied"


@posix
async def test_a_lock_file_that_somebody_removes_is_made_anew(
    locks: Locks, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever locks a file that has no name any more would be alone with it."""
    real, removed = filelock.lock_descriptor, list[int]()

    def remove_first(descriptor: int, *, blocking: bool) -> bool:
        if not removed:
            removed.append(1)
            (directory / "a.lock").unlink()
        return real(descriptor, blocking=blocking)

    async def inside() -> bool:
        return await is_busy(Locks(directory))

    monkeypatch.setattr(filelock, "lock_descriptor", remove_first)
    assert await locks.exclusively("a", inside, deadline=BOUND)


async def test_a_file_system_that_hangs_ends_at_a_deadline(
    locks: Locks, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, entered = threading.Event(), list[int]()

    def hang(descriptor: int, *, blocking: bool) -> bool:
        entered.append(1)
        go.wait(BOUND)
        return True

    monkeypatch.setattr(filelock, "lock_descriptor", hang)
    monkeypatch.setattr(lock_module, "DEADLINE", 0.02)
    for _ in range(3):
        with pytest.raises(StoreError) as caught:
            await take(locks)
        assert caught.value.reason == "timeout"
    assert entered == [1]
    monkeypatch.undo()
    go.set()
    await until(lambda: not lock_module._open_files._descriptors)
    await until(lambda: locks._breaker._late() is None)  # the thread itself ends a little later
    assert await take(locks) == "done"


async def test_the_event_loop_goes_on_while_somebody_waits(locks: Locks) -> None:
    waited = False

    async def wait() -> None:
        nonlocal waited
        with suppress(StoreError):
            await take(locks, deadline=BOUND)
        waited = True

    async def inside() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            until = anyio.current_time() + 0.1
            while anyio.current_time() < until:
                await anyio.lowlevel.checkpoint()
            assert not waited  # the loop would have had its turn only then
            tasks.cancel_scope.cancel()

    await locks.exclusively("a", inside, deadline=BOUND)


# Several processes.

HOLDER = """
import sys, anyio
from pathlib import Path
from flyteauth._io.lock import Locks

async def main() -> None:
    async def inside() -> None:
        print("inside", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
    await Locks(Path(sys.argv[1])).exclusively("a", inside, deadline=20)
    print("released", flush=True)
    sys.stdin.readline()

anyio.run(main)
"""


@contextmanager
def running(
    directory: Path, code: str = HOLDER, *arguments: str
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-W", "error", "-c", code, str(directory), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def says(process: subprocess.Popen[bytes], line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().decode().strip() == line


def tell(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


@pytest.mark.req("REF-06")
async def test_another_process_keeps_us_out_until_it_is_done(locks: Locks, directory: Path) -> None:
    with running(directory) as holder:
        says(holder, "inside")
        assert await is_busy(locks)
        tell(holder)
        says(holder, "released")
        assert not await is_busy(locks)


@posix
async def test_a_killed_holder_blocks_nobody(locks: Locks, directory: Path) -> None:
    with running(directory) as holder:
        says(holder, "inside")
        assert await is_busy(locks)
        holder.send_signal(signal.SIGKILL)
        holder.wait(BOUND)
        assert not await is_busy(locks)


@posix
async def test_a_stopped_holder_blocks_until_the_deadline(locks: Locks, directory: Path) -> None:
    with running(directory) as holder:
        says(holder, "inside")
        holder.send_signal(signal.SIGSTOP)
        with pytest.raises(StoreError) as caught:
            await take(locks, deadline=0.2)
        assert caught.value.reason == "busy"
        holder.send_signal(signal.SIGCONT)
        tell(holder)
        assert await take(locks) == "done"


@posix
async def test_what_a_holder_starts_does_not_inherit_the_lock(locks: Locks) -> None:
    code = "import sys; print('up', flush=True); sys.stdin.readline()"

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", code]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, close_fds=False)

    async def inside() -> subprocess.Popen[bytes]:
        return start()

    with await locks.exclusively("a", inside, deadline=BOUND) as child:
        says(child, "up")
        assert not await is_busy(locks)
        child.kill()


FORKER = """
import gc, multiprocessing, os, sys, threading, time, anyio
from pathlib import Path
from flyteauth._io.lock import Locks
from flyteauth._sansio.errors import StoreError

how = sys.argv[2]
locks = Locks(Path(sys.argv[1]))
told, ready = os.pipe()

async def busy() -> None:
    async def nothing() -> None: ...
    try:
        await locks.exclusively("a", nothing, deadline=0)
    except StoreError as error:
        print("child:", error.reason, flush=True)
    else:
        print("child: free", flush=True)

def in_child() -> None:
    gc.collect()
    thread = threading.Thread(target=anyio.run, args=[busy])  # here is the parent's event loop
    thread.start()
    thread.join()
    os.write(ready, b"x")
    if how.endswith("lives"):
        time.sleep(60)

def wait_for(child: int) -> None:
    os.read(told, 1)
    if how.endswith("ends"):
        os.waitpid(child, 0)
    print("inside", flush=True)
    sys.stdin.readline()

def fork() -> None:
    with locks.held("a", 20):
        if (child := os.fork()) != 0:
            wait_for(child)
        else:
            files = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
    # The child has left the block as the parent does later: the lock is not the child's to free,
    # and the number that its file had here is now that of another.
    if child == 0:
        for file in files:
            os.fstat(file)
        in_child()
        os._exit(0)

async def process() -> None:
    async def inside() -> None:
        child = multiprocessing.get_context("fork").Process(target=in_child)
        child.start()
        wait_for(child.pid)
    await locks.exclusively("a", inside, deadline=20)

if how.startswith("fork"):
    fork()
else:
    anyio.run(process)
print("released", flush=True)
sys.stdin.readline()
os._exit(0)
"""


@posix
@pytest.mark.parametrize("end", ["release", "kill"])
@pytest.mark.parametrize("how", ["fork-ends", "fork-lives", "process-ends", "process-lives"])
async def test_a_forked_child_neither_keeps_nor_releases_the_lock(
    locks: Locks, directory: Path, how: str, end: str
) -> None:
    with running(directory, FORKER, how) as holder:
        says(holder, "child: busy")
        says(holder, "inside")
        assert await is_busy(locks)  # although a child of the holder has come and gone
        if end == "release":
            tell(holder)
            says(holder, "released")
        else:
            holder.send_signal(signal.SIGKILL)
            holder.wait(BOUND)
        assert not await is_busy(locks)  # although a child may live on


@posix
def test_a_fork_waits_for_a_file_that_is_being_opened_but_not_for_ever(
    locks: Locks, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go = threading.Event(), threading.Event()
    monkeypatch.setattr(lock_module._open_files, "PATIENCE", 0.05, raising=False)

    def hang() -> int:
        entered.set()
        go.wait(BOUND)
        return os.open(os.devnull, os.O_RDONLY)

    descriptors: list[int] = []
    thread = threading.Thread(target=lambda: descriptors.append(lock_module._open_files.add(hang)))
    thread.start()
    assert entered.wait(BOUND)
    done = subprocess.run(
        [sys.executable, "-c", ""], preexec_fn=os.getpid, check=True, timeout=BOUND
    )  # with a function to call in the child, this forks as os.fork does
    assert done.returncode == 0
    go.set()
    thread.join(BOUND)
    lock_module._open_files.close(*descriptors)
    with locks.held("a", BOUND):
        pass


CONTENDER = """
import os, sys, anyio
from pathlib import Path
from flyteauth._io.lock import Locks

async def main() -> None:
    directory = Path(sys.argv[1])
    async def inside() -> None:
        here = os.open(directory / "inside", os.O_CREAT | os.O_EXCL)  # fails if anybody is here
        await anyio.sleep(0.001)
        os.close(here)
        os.unlink(directory / "inside")
    await Locks(directory).exclusively(f"of.{os.getpid()}", inside_own, deadline=60)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(sys.argv[2])):
        await Locks(directory).exclusively("a", inside, deadline=60)

async def inside_own() -> None:
    pass  # all that is needed has been imported now

anyio.run(main, backend=sys.argv[3])
print("done", flush=True)
"""


@pytest.mark.req("REF-06")
def test_processes_take_turns(directory: Path) -> None:
    with ExitStack() as stack:
        processes = [
            stack.enter_context(running(directory, CONTENDER, "5", backend))
            for backend in ["asyncio", "trio"] * 4
        ]
        for process in processes:
            says(process, "ready")
        for process in processes:
            tell(process)
        for process in processes:
            says(process, "done")


def is_function(function: Callable[[], Awaitable[str]]) -> None:
    """What is called is any function that can be awaited, says the type checker."""


is_function(nothing)
