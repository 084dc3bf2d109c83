"""The command as a user has it: a process of its own, in an empty home, against a devserver."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from attrs import field, frozen

from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings

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
        with subprocess.Popen(
            [FLYTEAUTH, *words],
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
        self, argv: Sequence[str], environ: Mapping[str, str], columns: int = 80
    ) -> Ended:
        """*argv* with a terminal for standard input and error; ``err`` is what it shows."""
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
        return str(self.ready["endpoint"])

    @property
    def port(self) -> int:
        return int(self.endpoint.rpartition(":")[2])

    def stop(self) -> Ended:
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=DEADLINE)
        return Ended(self.process.returncode, out, err)


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
