"""
Running a command that prints a token, without a shell and off the event loop (BRR-14).

Everything happens on one daemon thread: starting a program may take long, and a thread, unlike an
event loop's own subprocess support, behaves the same on every backend and in every thread.

The command is a process group of its own, so that it and what it has started end together: at the
deadline, when nobody waits for it any more, or when it has said too much. It is not a session of
its own, so it keeps its terminal: its standard input is empty and its output is ours, but what it
writes to /dev/tty (a URL, a code) is seen. To *read* from the terminal would take the terminal
away from this program; the system stops a command that tries, and we notice and say so.

What a command leaves in the background after it has ended well (an agent, a cache) is its own
affair: it is neither waited for nor ended.
"""

from __future__ import annotations

import errno
import hashlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import PurePath
from typing import IO, Any, Final

import anyio
import anyio.lowlevel

from .._sansio.command import OUTPUT_MAX, complaint, parse_output
from .._sansio.errors import ConfigError, Error, Unreachable, quote
from .._sansio.tokens import Token
from .clock import Clock
from .tasks import Abandoned
from .threads import DaemonCall

DEADLINE: Final = 60.0
TERM_GRACE: Final = 1.0  # seconds between asking a command to end and making it
KILL_GRACE: Final = 1.0  # seconds that the end may take for what is made to end
PIPE_GRACE: Final = 0.25  # seconds to wait for output that outlives the command
TICK: Final = 0.05  # seconds between two looks at what no pipe tells
STDERR_MAX: Final = 2048
CHUNK: Final = 65536

ASKING: Final = "FLYTEAUTH_ASKING"
"""In a command's environment: which commands wait for it to end, by a digest of each."""

_NOT_RUNNABLE: Final = frozenset(
    {
        *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENOEXEC),
        *(errno.E2BIG, errno.ELOOP, errno.ENAMETOOLONG),
    }
)


async def run_command(
    argv: tuple[str, ...],
    *,
    clock: Clock,
    deadline: float = DEADLINE,
    hidden: Collection[str] = (),
    any_alphabet: bool = False,
    setting: str = "admin.command",
) -> Token:
    """The token that the command *argv* prints; see ``Command``."""
    command = Command(
        argv,
        clock=clock,
        deadline=deadline,
        hidden=hidden,
        any_alphabet=any_alphabet,
        setting=setting,
    )
    return await command.token()


class Command:
    """One run of a command that prints a token.

    It gets our environment without the variables in ``hidden``, which hold secrets (SEC-04), and
    with one that says that it was asked: a command that asks us for the token that it should print
    would start processes without end. ``setting`` is what messages name.
    """

    def __init__(
        self,
        argv: tuple[str, ...],
        *,
        clock: Clock,
        deadline: float = DEADLINE,
        hidden: Collection[str] = (),
        any_alphabet: bool = False,
        setting: str = "admin.command",
    ) -> None:
        self._argv = argv
        self._clock = clock
        self._deadline = deadline
        self._hidden = frozenset(hidden)
        self._any_alphabet = any_alphabet
        self._setting = setting
        self._name = quote(PurePath(argv[0]).name if argv else "", 80)
        self._over = False

    async def token(self) -> Token:
        """Run the command, and read what it prints. To cancel this ends the command.

        Raises ConfigError if it cannot be run, Unreachable if it fails or takes too long,
        InvalidResponse if it prints no token, and Abandoned if it was ended.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        at = self._clock.time()
        call = DaemonCall(self._run, "command")
        try:
            # The thread keeps the deadline itself, unless starting the program hangs.
            printed = await call.result(self._deadline + TERM_GRACE + 2 * KILL_GRACE)
        except TimeoutError:
            self.end()
            raise self._too_slow() from None
        except (Error, Abandoned):  # it is over
            raise
        except BaseException:
            self.end()
            with anyio.CancelScope(shield=True), suppress(Exception):
                await call.result(TERM_GRACE + 2 * KILL_GRACE)
            raise
        return parse_output(printed, at, any_alphabet=self._any_alphabet, setting=self._setting)

    def end(self) -> None:
        """End the command and what it has started. From any thread; never blocks."""
        self._over = True

    # On the thread.

    def _run(self) -> bytes:
        end_at = time.monotonic() + self._deadline
        process = self._start()
        said = _PIPES(process)
        try:
            while True:
                if process.poll() is not None:
                    said.drain()
                    break
                if self._over:
                    raise Abandoned("nobody waits for the command any more")
                if len(said.stdout) > OUTPUT_MAX:
                    return bytes(said.stdout)
                if time.monotonic() >= end_at:
                    raise self._too_slow()
                if _wants_terminal(process):
                    raise self._failed("wants to ask something at the terminal")
                said.wait(TICK)
        finally:
            _end(process, said)
            said.close()
        if process.returncode != 0:
            why = complaint(said.complaint(), self._argv[1:])
            raise self._failed(f"{_how(process.returncode)}{why and ': '}{why}")
        return bytes(said.stdout)

    def _start(self) -> subprocess.Popen[bytes]:
        if self._over:
            raise Abandoned("nobody waits for the command any more")
        waiting, ours = os.environ.get(ASKING, "").split(), _digest(self._argv)
        if ours in waiting:
            raise ConfigError(
                f"{self._setting}: the command {self._name!r} asks itself for the token; name a "
                "command that does not come back to flyteauth, or another authType",
                reason="command",
            )
        environ = {k: v for k, v in os.environ.items() if k not in self._hidden}
        environ[ASKING] = " ".join([*waiting, ours])
        group: dict[str, Any] = {"process_group": 0}
        argv = list(self._argv)
        if sys.platform == "win32":
            group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
            argv[:1] = [shutil.which(name) or name for name in argv[:1]]  # az is az.cmd
        try:
            return subprocess.Popen(  # noqa: S603  # no shell, and what runs is the user's choice
                argv,
                bufsize=0,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                **group,
            )
        except (ValueError, IndexError):  # a null byte; nothing at all
            raise self._not_runnable("it is not a command") from None
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else "unknown error"
            if error.errno in _NOT_RUNNABLE:
                raise self._not_runnable(why) from None
            raise self._failed(f"could not be started: {why}") from None

    # What goes wrong.

    def _not_runnable(self, why: str) -> ConfigError:
        return ConfigError(
            f"{self._setting}: {self._name!r} cannot be run ({why}); install it, or name another "
            "command",
            reason="command",
        )

    def _failed(self, how: str) -> Unreachable:
        return Unreachable(
            f"the command {self._name!r} {how}; run the command of {self._setting} by hand",
            reason="command",
        )

    def _too_slow(self) -> Unreachable:
        return self._failed(f"did not end within {self._deadline:g} s")


def _digest(argv: tuple[str, ...]) -> str:
    """A command as others may see it: its words may hold a secret."""
    return hashlib.sha256("\0".join(argv).encode("utf-8", "replace")).hexdigest()[:32]


def _how(status: int) -> str:
    return f"failed with status {status}" if status > 0 else f"was ended by signal {-status}"


# Processes.


def _has_exited(process: subprocess.Popen[bytes]) -> bool:
    """Whether the command has exited; it is not reaped yet, so that its group keeps its number."""
    if not hasattr(os, "waitid"):  # macOS, before Python 3.13
        return process.poll() is not None
    try:
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, process.pid, options) is not None
    except ChildProcessError:  # SIGCHLD is ignored
        return True


def _wants_terminal(process: subprocess.Popen[bytes]) -> bool:
    """Whether the system has stopped the command because it wanted the terminal."""
    if not hasattr(os, "waitid"):
        return False
    try:
        options = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
        stopped = os.waitid(os.P_PID, process.pid, options)
    except ChildProcessError:
        return False
    return stopped is not None and stopped.si_status in {signal.SIGTTIN, signal.SIGTTOU}


def _end(process: subprocess.Popen[bytes], said: _Pipes) -> None:
    """End a command that still runs, and what it has started: TERM, a short grace, KILL."""
    if process.returncode is not None:
        return
    if sys.platform == "win32":
        root = os.environ.get("SYSTEMROOT", r"C:\Windows")
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(  # noqa: S603  # ends the children as well
                [rf"{root}\System32\taskkill.exe", "/T", "/F", "/PID", str(process.pid)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=TERM_GRACE,
                check=False,
            )
        process.kill()
        process.wait()
        return
    _signal(process, signal.SIGTERM)
    _signal(process, signal.SIGCONT)  # who is stopped hears nothing
    until = time.monotonic() + TERM_GRACE
    # Who holds a pipe is still there; who holds none is waited for no longer than the command.
    while time.monotonic() < until and (said.open or not _has_exited(process)):
        said.wait(TICK)
    _signal(process, signal.SIGKILL)
    process.wait()
    until = time.monotonic() + KILL_GRACE
    while time.monotonic() < until and said.open:  # what was killed takes a moment to be gone
        said.wait(TICK)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Signal the command and what it has started."""
    with suppress(OSError):
        os.killpg(process.pid, number)


# Pipes.


class _Pipes(ABC):
    """What a command has said so far: the beginning of its output, the end of its complaints."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self.stdout = bytearray()
        self._stderr = bytearray()
        self._cut = False
        self._sinks: dict[IO[bytes], Callable[[bytes], None]] = {
            process.stdout: self._print,
            process.stderr: self._complain,
        }

    @property
    @abstractmethod
    def open(self) -> bool:
        """Whether anybody holds the other end of a pipe."""

    @abstractmethod
    def wait(self, seconds: float) -> None:
        """Wait until something is said, or, where nothing can be, for the end of the command."""

    @abstractmethod
    def close(self) -> None: ...

    def drain(self) -> None:
        """Take what was said by now, and wait a moment for the rest."""
        until = time.monotonic() + PIPE_GRACE
        self.wait(0)
        while self.open and len(self.stdout) <= OUTPUT_MAX and time.monotonic() < until:
            self.wait(TICK)

    def complaint(self) -> bytes:
        """The last whole lines on standard error."""
        return bytes(self._stderr.partition(b"\n")[2] if self._cut else self._stderr)

    def _print(self, data: bytes) -> None:
        self.stdout += data[: OUTPUT_MAX + 1 - len(self.stdout)]

    def _complain(self, data: bytes) -> None:
        self._stderr += data
        self._cut = self._cut or len(self._stderr) > STDERR_MAX
        del self._stderr[:-STDERR_MAX]


class _PolledPipes(_Pipes):
    """Pipes that are read when they have something (POSIX)."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(process)
        self._selector = selectors.DefaultSelector()
        for pipe in self._sinks:
            self._selector.register(pipe, selectors.EVENT_READ)

    @property
    def open(self) -> bool:
        return bool(self._selector.get_map())

    def wait(self, seconds: float) -> None:
        if not self.open:
            if not _has_exited(self._process):
                time.sleep(min(seconds, TICK / 10))
            return
        for key, _ in self._selector.select(seconds):
            pipe: Any = key.fileobj
            data = os.read(key.fd, CHUNK)
            if data:
                self._sinks[pipe](data)
            else:
                self._selector.unregister(pipe)

    def close(self) -> None:
        self._selector.close()
        for pipe in self._sinks:
            pipe.close()


class _ReadPipes(_Pipes):
    """Pipes that can only be read by waiting for them (Windows): a daemon thread for each.

    One that is held open by what the command has left behind keeps its thread and its pipe.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(process)
        self._news = threading.Condition()
        self._reading = len(self._sinks)
        self._closed = False
        for pipe, sink in self._sinks.items():
            name = "flyteauth command pipe"
            threading.Thread(target=self._read, args=(pipe, sink), name=name, daemon=True).start()

    @property
    def open(self) -> bool:
        return self._reading > 0

    def wait(self, seconds: float) -> None:
        with self._news:
            if self.open:
                self._news.wait(seconds)
                return
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(min(seconds, TICK / 10))

    def close(self) -> None:
        self._closed = True

    def _read(self, pipe: IO[bytes], sink: Callable[[bytes], None]) -> None:
        with pipe:
            while data := os.read(pipe.fileno(), CHUNK):
                with self._news:
                    if not self._closed:
                        sink(data)
                    self._news.notify()
        with self._news:
            self._reading -= 1
            self._news.notify()


_PIPES: Final[type[_Pipes]] = _PolledPipes if os.name == "posix" else _ReadPipes
