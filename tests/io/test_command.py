"""Commands that print a token: read within bounds, and ended with everything they have started."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psutil
import pytest

from flyteauth._io import command as module
from flyteauth._io.clock import SystemClock
from flyteauth._io.command import Command, run_command
from flyteauth._io.tasks import Abandoned
from flyteauth._sansio.errors import ConfigError, InvalidResponse, Unreachable

from .test_browser import BOUND, Line, ours

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="the commands here are POSIX scripts"),
]

CLOCK = SystemClock()


def sh(script: str) -> tuple[str, ...]:
    return "/bin/sh", "-c", script


async def said(script: str, **options: Any) -> str:
    return (await run_command(sh(script), clock=CLOCK, **options)).access_token


def open_files() -> list[str]:
    found = []
    for entry in Path("/dev/fd").iterdir():
        with suppress(OSError):  # the listing itself
            found.append(f"{entry.name} {entry.readlink()}")
    return sorted(found)


def children() -> set[int]:
    """The children of this process, alive or zombies."""
    return {child.pid for child in psutil.Process().children()}


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """No child, no zombie, no open file and no thread outlives the body."""
    await anyio.to_thread.run_sync(int)  # a worker thread that is there before and after
    before, had = open_files(), children()  # of other tests: a server, say
    yield
    assert open_files() == before
    assert children() == had
    for thread in ours():
        await anyio.to_thread.run_sync(thread.join, BOUND)
        assert not thread.is_alive()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path / "line")
    yield line
    line.close()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TERM_GRACE", 0.2)
    monkeypatch.setattr(module, "KILL_GRACE", BOUND)


# Commands that stay, each in its own way. {line} is held by all of their processes.
STAYS = {
    "waits": "exec 3>{line}; echo $$ >&3; sleep 1000 & wait",
    "has printed": "exec 3>{line}; echo token; echo $$ >&3; exec sleep 1000",
    "ignores the signal": "trap '' TERM; exec 3>{line}; echo $$ >&3; sleep 1000 & wait; wait",
    "its child ignores the signal": (
        "exec 3>{line}; (trap '' TERM; sleep 1000; sleep 1000) & "
        "trap 'exit 0' TERM; echo $$ >&3; wait; wait"
    ),
    "has closed its output": "exec 3>{line} >&- 2>&-; echo $$ >&3; sleep 1000 & wait",
    "closed its output, ignores": (
        "trap '' TERM; exec 3>{line} >&- 2>&-; echo $$ >&3; while :; do sleep 1000; done"
    ),
    "is stopped": "exec 3>{line}; echo $$ >&3; kill -STOP $$; sleep 1000",
}


@pytest.fixture(params=list(STAYS.values()), ids=list(STAYS))
def stays(request: pytest.FixtureRequest, line: Line) -> tuple[str, ...]:
    script: str = request.param
    return sh(script.format(line=line.path))


# What it prints.


@pytest.mark.req("BRR-14")
async def test_the_token_is_what_the_command_prints() -> None:
    async with nothing_left():
        assert await said("echo abc") == "abc"
        assert await said("printf '\\r\\nBearer abc\\r\\n'; echo noise >&2") == "abc"


async def test_lifetimes_count_from_before_the_command_was_started() -> None:
    class Clock(SystemClock):
        at = 1000.0

        def time(self) -> float:
            self.at += 10
            return self.at

    token = await run_command(sh("""echo '{"token": "t", "expires_in": 60}'"""), clock=Clock())
    assert (token.obtained_at, token.expires_at) == (1010.0, 1070.0)


@pytest.mark.req("SEC-04")
async def test_the_environment_is_inherited_but_for_what_is_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_SECRET", "canary")
    monkeypatch.setenv("HARMLESS", "yes")
    script = 'echo "${MY_SECRET-none}/$HARMLESS"'
    assert await said(script) == "canary/yes"
    assert await said(script, hidden=frozenset({"MY_SECRET", "NOT_SET"})) == "none/yes"


async def test_arguments_reach_the_command_without_a_shell(tmp_path: Path) -> None:
    pwned = tmp_path / "pwned"
    argument = f"$(>{pwned});*'\"`"
    token = await run_command(("printf", "%s", argument), clock=CLOCK, any_alphabet=True)
    assert token.access_token == argument
    assert not pwned.exists()


async def test_nothing_is_to_be_read_from_standard_input() -> None:
    assert await said("read answer || echo nobody") == "nobody"


async def test_the_command_is_a_group_of_its_own_in_our_session() -> None:
    script = "import os; print(os.getpid() == os.getpgrp(), os.getsid(0), sep='/')"
    token = await run_command((sys.executable, "-c", script), clock=CLOCK)
    assert token.access_token == f"True/{os.getsid(0)}"


# What goes wrong.


@pytest.mark.req("BRR-14", "ERR-01")
async def test_a_command_that_fails_says_why() -> None:
    script = "echo canary; echo first >&2; printf '\\033[31mrun az login\\n' >&2; exit 3"
    async with nothing_left():
        with pytest.raises(Unreachable) as raised:
            await said(script)
    assert raised.value.reason == "command"
    assert str(raised.value) == (
        "the command 'sh' failed with status 3: first / \\x1b[31mrun az login; "
        "run the command of admin.command by hand"
    )
    with pytest.raises(Unreachable, match=r"'sh' was ended by signal 9; run .* admin.proxyCommand"):
        await said("kill -9 $$", setting="admin.proxyCommand")


@pytest.mark.req("BRR-14", "SEC-04")
async def test_arguments_and_secrets_are_not_echoed() -> None:
    script = 'echo "$0 $1: no user $2" >&2; echo "Bearer canary" >&2; exit 1'
    with pytest.raises(Unreachable) as raised:
        await run_command((*sh(script), "/opt/x/tool", "p4ssw0rd", "me"), clock=CLOCK)
    assert "failed with status 1: … …: no user me / …; run" in str(raised.value)


@pytest.mark.req("BRR-14")
async def test_only_the_last_whole_lines_of_a_long_complaint_are_kept() -> None:
    script = "i=0; while [ $i -lt 5000 ]; do i=$((i+1)); echo line $i >&2; done; exit 1"
    with pytest.raises(Unreachable, match=r"status 1: line 4998 / line 4999 / line 5000; run"):
        await said(script)
    with pytest.raises(Unreachable, match=r"failed with status 1; run"):
        await said("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1")


async def test_a_command_may_complain_at_length_and_succeed() -> None:
    assert await said("head -c 1000000 /dev/zero >&2; echo abc") == "abc"


@pytest.mark.req("BRR-14")
@pytest.mark.parametrize("script", ["yes", "head -c 65537 /dev/zero", "trap '' TERM PIPE; yes"])
async def test_a_command_that_does_not_stop_printing_is_ended(script: str) -> None:
    async with nothing_left():
        with pytest.raises(InvalidResponse, match="printed more than 65536 bytes"):
            await said(script)


@pytest.mark.req("BRR-14")
@pytest.mark.parametrize("script", ["", "echo a; echo b", "printf 'a\\000b'"])
async def test_what_is_no_token_is_refused(script: str) -> None:
    with pytest.raises(InvalidResponse) as raised:
        await said(script)
    assert raised.value.reason == "command"


@pytest.mark.parametrize(
    "argv",
    [
        ("/nonexistent/canary/helper", "canary"),
        ("no-such-helper", "canary"),
        ("/", "canary"),
        ("/dev/null", "canary"),
        ("/dev/null/helper", "canary"),
        ("sh", "canary\0"),
        (),
    ],
)
async def test_a_command_that_cannot_be_run_is_a_wrong_setting(argv: tuple[str, ...]) -> None:
    async with nothing_left():
        with pytest.raises(ConfigError, match=r"^admin\.command: '[\w-]*' cannot be run") as raised:
            await run_command(argv, clock=CLOCK)
    assert "canary" not in str(raised.value)
    assert raised.value.__cause__ is None


async def test_a_file_that_is_no_program_is_a_wrong_setting(tmp_path: Path) -> None:
    path = tmp_path / "helper"
    path.write_text("token")
    path.chmod(0o755)
    with pytest.raises(ConfigError, match=r"'helper' cannot be run \(Exec format error\)"):
        await run_command((str(path),), clock=CLOCK)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EAGAIN, errno.ENOMEM])
async def test_a_machine_without_resources_is_a_passing_thing(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, "canary")

    monkeypatch.setattr(subprocess, "Popen", fail)
    with pytest.raises(Unreachable, match="could not be started") as raised:
        await said("echo abc")
    assert "canary" not in str(raised.value)


# How it ends.


@pytest.mark.req("BRR-14", "CBK-16")
async def test_at_the_deadline_the_command_and_its_children_are_ended(
    stays: tuple[str, ...], line: Line
) -> None:
    async with nothing_left():
        with pytest.raises(Unreachable, match=r"'sh' did not end within 0.3 s; run") as raised:
            await run_command(stays, clock=CLOCK, deadline=0.3)
        await line.gone()
    assert raised.value.reason == "command"


@pytest.mark.parametrize("stop", [":", "kill -STOP $$"])
async def test_a_command_may_tidy_up_before_it_ends(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    monkeypatch.setattr(module, "TERM_GRACE", BOUND)
    tidied = tmp_path / "tidied"
    script = (
        f"trap '>{tidied}; exit' TERM; exec 3>{line.path}; echo $$ >&3; {stop}; sleep 1000 & wait"
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(said, script)
        await line.up()
        tasks.cancel_scope.cancel()
    await line.gone()
    assert tidied.exists()  # noqa: ASYNC240


@pytest.mark.req("BRR-14", "CBK-16")
async def test_who_is_cancelled_takes_the_command_and_its_children_along(
    stays: tuple[str, ...], line: Line
) -> None:
    async with nothing_left():
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: run_command(stays, clock=CLOCK))
                await line.up()
                scope.cancel()
        assert scope.cancelled_caught
        await line.gone()


@pytest.mark.req("CBK-16")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncio_cancels_in_its_own_way(stays: tuple[str, ...], line: Line) -> None:
    import asyncio

    task = asyncio.create_task(run_command(stays, clock=CLOCK))
    await line.up()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await line.gone()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_who_cancels_twice_does_not_wait_but_the_command_ends(line: Line) -> None:
    import asyncio

    script = STAYS["ignores the signal"].format(line=line.path)
    async with nothing_left_later():
        task = asyncio.create_task(run_command(sh(script), clock=CLOCK))
        await line.up()
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await line.gone()


@asynccontextmanager
async def nothing_left_later() -> AsyncIterator[None]:
    async with nothing_left():
        yield
        for thread in ours():
            await anyio.to_thread.run_sync(thread.join, BOUND)


@pytest.mark.req("CBK-16")
async def test_a_command_that_is_ended_from_a_thread_is_abandoned(line: Line) -> None:
    command = Command(sh(STAYS["waits"].format(line=line.path)), clock=CLOCK)

    async def end() -> None:
        await line.up()
        await anyio.to_thread.run_sync(command.end)

    async with nothing_left():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end)
            with pytest.raises(Abandoned):
                await command.token()
        await line.gone()


async def test_a_command_that_is_ended_before_it_starts_does_not() -> None:
    command = Command(("/nonexistent",), clock=CLOCK)
    command.end()
    with pytest.raises(Abandoned):
        await command.token()


async def test_who_is_cancelled_before_runs_nothing(tmp_path: Path) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await said(f"touch {tmp_path}/run")
    assert scope.cancelled_caught
    assert not ours()
    assert not (tmp_path / "run").exists()


@pytest.mark.req("CBK-16")
async def test_a_command_that_starts_after_the_end_is_ended(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting, released, real = anyio.Event(), threading.Event(), subprocess.Popen
    token = anyio.lowlevel.current_token()

    def slow(*args: Any, **kwargs: Any) -> Any:
        anyio.from_thread.run_sync(starting.set, token=token)
        released.wait(BOUND)
        return real(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", slow)
    monkeypatch.setattr(module, "KILL_GRACE", 0.01)
    async with nothing_left_later():
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(said, STAYS["waits"].format(line=line.path))
                await starting.wait()
                scope.cancel()
        assert scope.cancelled_caught
        released.set()
    await line.gone()


async def test_starting_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(*args: Any, **kwargs: Any) -> None:
        released.wait(BOUND)
        raise OSError(errno.EIO, "")

    monkeypatch.setattr(subprocess, "Popen", hang)
    monkeypatch.setattr(module, "KILL_GRACE", 0.01)
    async with nothing_left_later():
        with pytest.raises(Unreachable, match="did not end within 0.01 s"):
            await said("echo abc", deadline=0.01)
        released.set()


# What it leaves behind.


@pytest.mark.req("BRR-14")
async def test_what_stays_in_the_background_is_neither_waited_for_nor_ended(line: Line) -> None:
    script = f"exec 3>{line.path}; sleep 1000 & echo $! >&3; echo abc"
    with anyio.fail_after(BOUND):
        token = await said(script)
    assert token == "abc"
    process = await line.up()
    assert line.alive()
    os.kill(process, signal.SIGKILL)
    await line.gone()


async def test_what_is_said_shortly_after_the_end_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PIPE_GRACE", BOUND)
    async with nothing_left():
        assert await said("printf a; (sleep 0.1; echo bc) &") == "abc"


async def test_who_talks_on_in_the_background_is_not_listened_to() -> None:
    with anyio.fail_after(BOUND):
        assert (
            await said("echo abc; (while sleep 0.01; do echo noise >&2 || exit; done) &") == "abc"
        )


async def test_a_command_that_closes_its_output_is_waited_for() -> None:
    async with nothing_left():
        with pytest.raises(Unreachable, match="status 7"):
            await said("echo abc; exec >&- 2>&-; sleep 0.1; exit 7")


# The event loop.


async def test_the_loop_goes_on_meanwhile(tmp_path: Path) -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while beats < 100:
            await anyio.sleep(0.001)
            beats += 1
        await anyio.Path(tmp_path / "go").touch()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        assert await said(f"while ! [ -e {tmp_path}/go ]; do sleep 0.01; done; echo abc") == "abc"
    assert beats == 100


async def test_starting_does_not_hold_the_loop_up(monkeypatch: pytest.MonkeyPatch) -> None:
    beaten, real = threading.Event(), subprocess.Popen

    def slow(*args: Any, **kwargs: Any) -> Any:
        assert beaten.wait(BOUND)
        return real(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", slow)

    async def beat() -> None:
        beaten.set()

    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            assert await said("echo abc") == "abc"

        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(beat)


# The terminal.

AT_A_TERMINAL = """
import fcntl, sys, termios, anyio
from flyteauth._io.clock import SystemClock
from flyteauth._io.command import run_command
from flyteauth._sansio.errors import Error

fcntl.ioctl(0, termios.TIOCSCTTY, 0)

async def main() -> None:
    try:
        print((await run_command(("/bin/sh", "-c", sys.argv[2]), clock=SystemClock())).access_token)
    except Error as error:
        print(error)

anyio.run(main, backend=sys.argv[1])
"""


async def at_a_terminal(backend: str, script: str) -> tuple[str, str]:
    """What a program at a terminal of its own prints, and what is seen on that terminal."""
    ours_, theirs = os.openpty()
    try:
        done = await anyio.to_thread.run_sync(
            lambda: subprocess.run(
                [sys.executable, "-c", AT_A_TERMINAL, backend, script],
                stdin=theirs,
                capture_output=True,
                text=True,
                timeout=BOUND,
                start_new_session=True,
                check=True,
            )
        )
        os.set_blocking(ours_, False)
        try:
            seen = os.read(ours_, 1000).decode()
        except BlockingIOError:
            seen = ""
    finally:
        os.close(ours_)
        os.close(theirs)
    return done.stdout.strip(), seen.strip()


async def test_a_command_may_show_something_at_the_terminal(anyio_backend: str) -> None:
    script = "echo code 1234 >/dev/tty; echo abc"
    assert await at_a_terminal(anyio_backend, script) == ("abc", "code 1234")


async def test_standard_input_is_not_the_terminal(anyio_backend: str) -> None:
    script = "[ -t 0 ] && echo terminal || echo nothing"
    assert await at_a_terminal(anyio_backend, script) == ("nothing", "")


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="a stopped child cannot be seen")
@pytest.mark.parametrize("script", ["read pin </dev/tty; echo $pin", "stty -echo </dev/tty"])
async def test_a_command_that_asks_at_the_terminal_is_told_off_at_once(
    anyio_backend: str, script: str
) -> None:
    said, _ = await at_a_terminal(anyio_backend, script)
    assert said.startswith("the command 'sh' wants to ask something at the terminal; ")


# Other systems.


@pytest.mark.parametrize("kind", ["ignores the signal", "its child ignores the signal"])
async def test_the_same_without_waitid(
    monkeypatch: pytest.MonkeyPatch, line: Line, kind: str
) -> None:
    async with nothing_left():
        with monkeypatch.context() as patch:
            patch.delattr(os, "waitid", raising=False)
            assert await said("echo abc; exec >&- 2>&-; sleep 0.1") == "abc"
            with pytest.raises(Unreachable, match="did not end"):
                await said(STAYS[kind].format(line=line.path), deadline=0.3)
        await line.gone()


async def test_the_same_with_pipes_that_can_only_be_read_by_waiting(
    monkeypatch: pytest.MonkeyPatch, line: Line
) -> None:
    monkeypatch.setattr(module, "_PIPES", module._ReadPipes)
    async with nothing_left_later():
        assert await said("echo abc; echo noise >&2") == "abc"
        assert await said("echo abc; exec >&- 2>&-; sleep 0.1") == "abc"
        with pytest.raises(InvalidResponse, match="printed more"):
            await said("yes")
        with pytest.raises(Unreachable, match="status 3: oops"):
            await said("echo oops >&2; exit 3")
        with pytest.raises(Unreachable, match="did not end"):
            await said(STAYS["ignores the signal"].format(line=line.path), deadline=0.3)
        await line.gone()
        assert await said("sleep 0.5 & echo abc") == "abc"
