"""The command as a user has it: a process of its own, in an empty home, against a devserver."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytest
from attrs import define, field, frozen

from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings

from ..io.screens import Seen, seen

FLYTEAUTH = str(Path(sys.executable).with_name("flyteauth"))
DEADLINE = 30.0

# What completes a login in a browser when nobody has to be asked.
BROWSER = (
    "curl -sL -o /dev/null %s"
    if shutil.which("curl")
    else f"{sys.executable} -m flyteauth.devserver.visitor %s"
)
# Any port: two test runs on one machine must not want the same.
ANY_PORT = {"FLYTE_ADMIN_REDIRECTURI": "http://localhost/callback"}

TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{20,}=*\n")


@frozen
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    def failed_with(self, status: int, *words: str) -> None:
        """One line that says what happened and nothing else: no token, no traceback."""
        assert self.status == status, self
        assert self.out == ""
        assert self.err.startswith("flyteauth"), self.err
        assert self.err.endswith("\n"), self.err
        assert self.err.count("\n") == 1, self.err
        for word in words:
            assert word in self.err


@frozen
class Home:
    """An empty home, and commands that run in it with nothing else in their environment."""

    path: Path

    def environ(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
        return {**kept, "HOME": str(self.path), "PYTHONWARNINGS": "error", **ANY_PORT, **more}

    def run(self, *words: str, deadline: float = DEADLINE, **environ: str) -> Ended:
        """``flyteauth`` with *words*, and with *environ* on top."""
        return self.program([FLYTEAUTH, *words], environ, deadline)

    def program(
        self, argv: Sequence[str], environ: Mapping[str, str], deadline: float = DEADLINE
    ) -> Ended:
        process = subprocess.run(
            argv,
            cwd=self.path,
            env=self.environ(**environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=deadline,
            check=False,
        )
        return Ended(process.returncode, process.stdout, process.stderr)

    @contextmanager
    def started(self, *words: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
        """``flyteauth`` with *words* while the body runs; killed if it still runs then."""
        with self.executed([FLYTEAUTH, *words], **environ) as process:
            yield process

    @contextmanager
    def executed(self, argv: Sequence[str], **environ: str) -> Iterator[subprocess.Popen[str]]:
        """The same for any program."""
        with subprocess.Popen(
            argv,
            cwd=self.path,
            env=self.environ(**environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def at_terminal(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        columns: int = 80,
        *,
        typed: str = "",
    ) -> Ended:
        """*argv* with a terminal for standard input and error; ``err`` is what it shows. *typed*
        is what is typed there before anything is asked.
        """
        ours, theirs = pty.openpty()
        with ExitStack() as stack:
            stack.callback(os.close, ours)
            process = subprocess.Popen(
                argv,
                cwd=self.path,
                env=self.environ(COLUMNS=str(columns), TERM="xterm-256color", **environ),
                stdin=theirs,
                stdout=subprocess.PIPE,
                stderr=theirs,
            )
            os.close(theirs)
            os.write(ours, typed.encode())
            stack.enter_context(process)
            stack.callback(process.kill)  # harmless if it has ended
            shown = _everything_from(ours, process)
            out = process.stdout.read().decode() if process.stdout else ""
            return Ended(process.wait(DEADLINE), out, shown.decode().replace("\r\n", "\n"))

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def stored(self) -> dict[str, bytes]:
        """Every login that is kept in this home, byte for byte."""
        return {
            path.name: path.read_bytes()
            for folder in self.path.rglob("logins")
            for path in folder.rglob("*")
            if path.is_file()
        }


def _everything_from(terminal: int, process: subprocess.Popen[bytes]) -> bytes:
    shown = b""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        ready, _, _ = select.select([terminal], [], [], 0.1)
        if ready:
            try:
                read = os.read(terminal, 65536)
            except OSError as error:
                if error.errno == errno.EIO:  # nobody holds the other end any more
                    return shown
                raise
            if not read:
                return shown
            shown += read
        elif process.poll() is not None:
            return shown
    raise TimeoutError(shown)


def read_until(stream: IO[str] | None, wanted: str) -> str:
    """What comes out of *stream*, line by line, as far as a line with *wanted* in it."""
    assert stream is not None
    lines: list[str] = []
    while not lines or wanted not in lines[-1]:
        line = stream.readline()
        assert line, "".join(lines)
        lines.append(line)
    return "".join(lines)


@frozen
class Devserver:
    """``flyteauth devserver`` as a process, and what its ready line says."""

    process: subprocess.Popen[str] = field(repr=False)
    ready: Mapping[str, Any]

    @property
    def endpoint(self) -> str:
        """Where all of it is served without TLS; ``ready["endpoint"]`` is that with TLS."""
        return str(self.ready["issuer"])

    @property
    def port(self) -> int:
        return port_of(self.endpoint)

    def stop(self) -> Ended:
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=DEADLINE)
        return Ended(self.process.returncode, out, err)


def port_of(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])


def refused(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), DEADLINE).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.fixture
def home(tmp_path: Path) -> Home:
    path = tmp_path / "home"
    path.mkdir()
    return Home(path)


@pytest.fixture
def devserver(home: Home) -> Iterator[Callable[..., Devserver]]:
    """Starts ``flyteauth devserver`` with the options that it is called with."""
    with ExitStack() as stack:

        def start(*options: str) -> Devserver:
            process = stack.enter_context(home.started("devserver", *options))
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            assert line, process.stderr.read()
            return Devserver(process, json.loads(line))

        yield start


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    """Starts a control plane in this process, where its journal can be read."""
    with ExitStack() as stack:

        def start(*faults: str, port: int = 0, **settings: Any) -> Running:
            settings = {"approve": "auto", "faults": frozenset(faults), **settings}
            return stack.enter_context(serving(Settings(**settings), port=port))

        yield start


@pytest.fixture(scope="module")
def calm() -> Iterator[Running]:
    """A control plane without faults, for tests that do each other no harm."""
    with serving(Settings(approve="auto")) as running:
        yield running


@pytest.fixture(scope="module")
def somebody(calm: Running, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home where somebody is logged in, and nothing is configured."""
    home = Home(tmp_path_factory.mktemp("somebody"))
    login(home, calm.base_url)
    return home


@pytest.fixture(scope="module")
def template(calm: Running, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with a configuration and a login."""
    home = Home(tmp_path_factory.mktemp("template"))
    home.write(".flyte/config.yaml", f"admin:\n  endpoint: {calm.base_url}\n")
    login(home, calm.base_url)
    return home


@pytest.fixture
def logged_in(home: Home, template: Home) -> Home:
    """A copy of that home. The login is that of all of these tests: none may log out."""
    shutil.copytree(template.path, home.path, dirs_exist_ok=True)
    return home


Start = Callable[..., Devserver]
Serve = Callable[..., Running]


def login(home: Home, endpoint: str, *words: str) -> Ended:
    """A login in the browser, which must work."""
    ended = home.run("login", "--endpoint", endpoint, *words, BROWSER=BROWSER)
    assert ended.status == 0, ended
    assert ended.out == ""
    return ended


def lines(path: Path) -> Sequence[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# A terminal that can be typed at, and a shell of sorts: it runs one command in the foreground (or
# in the background), as the job of a session of its own, and tells whether the terminal is
# afterwards as it was. It must outlive the command, for a terminal without its session is reset.
_SHELL = """
import json, os, signal, subprocess, sys, termios, time
place, *argv = sys.argv[1:]
os.close(os.open(os.ttyname(0), os.O_RDWR))
before = termios.tcgetattr(0)
signal.signal(signal.SIGINT, lambda *_: None)
group = {"process_group": 0} if place == "background" else {}
with subprocess.Popen(argv, stdout=subprocess.PIPE, **group) as child:
    print(child.pid, flush=True)
    out = child.stdout.read().decode()
    status = child.wait()
restored = termios.tcgetattr(0) == before
print(json.dumps({"status": status, "out": out, "restored": restored}), flush=True)
"""


@define
class AtTerminal:
    """A command at a terminal. ``data`` is all that it has written there."""

    shell: subprocess.Popen[str] = field(repr=False)
    pid: int
    terminal: int
    columns: int
    rows: int
    data: bytes = field(default=b"", repr=False)

    @property
    def view(self) -> Seen:
        return seen(self.data, self.columns, self.rows)

    def sees(self, text: str) -> str:
        """Everything that the person sees, as soon as *text* is there."""
        deadline = time.monotonic() + DEADLINE
        while True:
            more, over = self._look(), self.shell.poll() is not None
            if text in self.view.prose:
                return self.view.text
            assert time.monotonic() < deadline, self.view.text
            assert more or not over, self.view.text

    def types(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def ends(self) -> Closed:
        """How it ended, and how many seconds after this was called."""
        assert self.shell.stdout is not None
        began = time.monotonic()
        while not select.select([self.shell.stdout], [], [], 0.05)[0]:
            assert time.monotonic() < began + DEADLINE, self.view.text
            self._look()
        seconds = time.monotonic() - began
        result = json.loads(self.shell.stdout.readline())
        self._look()
        return Closed(seconds=seconds, **result)

    def _look(self) -> bool:
        before = len(self.data)
        while select.select([self.terminal], [], [], 0.05)[0]:
            try:
                self.data += os.read(self.terminal, 65536)
            except OSError as error:
                if error.errno == errno.EIO:  # nobody holds the other end any more
                    break
                raise
        return len(self.data) > before


@frozen
class Closed:
    """How a command at a terminal ended, and whether the terminal's mode was restored."""

    status: int
    out: str
    restored: bool
    seconds: float


@pytest.fixture
def at_terminal(home: Home) -> Iterator[Callable[..., AtTerminal]]:
    """Starts ``flyteauth`` with words at a terminal of its own."""
    with ExitStack() as stack:

        def start(
            *words: str,
            columns: int = 80,
            rows: int = 24,
            place: str = "foreground",
            **environ: str,
        ) -> AtTerminal:
            ours, theirs = pty.openpty()
            stack.callback(os.close, ours)
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            shell = subprocess.Popen(
                [sys.executable, "-c", _SHELL, place, FLYTEAUTH, *words],
                cwd=home.path,
                env=home.environ(**{"TERM": "xterm-256color", "LANG": "C.UTF-8", **environ}),
                stdin=theirs,
                stdout=subprocess.PIPE,
                stderr=theirs,
                text=True,
                start_new_session=True,
            )
            os.close(theirs)
            stack.enter_context(shell)
            assert shell.stdout is not None
            pid = int(shell.stdout.readline())
            stack.callback(_kill, pid)
            return AtTerminal(shell, pid, ours, columns, rows)

        yield start


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


Terminals = Callable[..., AtTerminal]
