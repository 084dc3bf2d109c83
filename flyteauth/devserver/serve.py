"""
The control plane on a loopback port: ``flyteauth devserver``, and the same inside a process.

The server always runs on a thread of its own with its own event loop, so it serves programs on
any backend and leaves signals to whoever owns the process::

    async with serving(Settings(approve="auto")) as running:  # asyncio and trio
        ...                                                   # running.base_url, .plane, .api_key

    with serving() as running:
        ...

uvicorn is imported only when a server starts.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, TextIO

from anyio import CancelScope, to_thread
from attrs import evolve, field, frozen

from .app import Application
from .model import FAULTS, ControlPlane, Settings

if TYPE_CHECKING:
    import uvicorn

_BIND_TRIES: Final = 20
_BACKLOG: Final = 512
_GRACEFUL: Final = 1  # seconds that open requests get when the server stops
_TICK: Final = 1.0
_NO_UVICORN: Final = (
    "the embedded control plane needs uvicorn; run: pip install 'flyteauth[devserver]'"
)


class ServeError(Exception):
    """The control plane cannot be served; the message is one line that says what to do."""


@frozen
class Running:
    """A control plane that answers at ``base_url``."""

    base_url: str
    plane: ControlPlane

    @property
    def api_key(self) -> str:
        """An API key that works alone."""
        return self.plane.api_key


class serving:  # noqa: N801 - used like a function, as contextlib's managers are
    """A context, sync or async, in which a control plane is served on loopback.

    ``base_url`` of the settings is replaced by the address that was bound, and so is ``issuer``
    unless it was set to another.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        port: int = 0,
        seed: bytes | None = None,
        log: TextIO | None = None,
    ) -> None:
        self._settings = settings or Settings()
        self._port = port
        self._seed = seed
        self._log = log
        self._server: _Server | None = None

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._server is not None and self._server.alive

    def __enter__(self) -> Running:
        running, server = self._begin()
        try:
            server.wait()
        except BaseException:
            server.stop()
            raise
        return running

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.stop()
            self._server.join()

    async def __aenter__(self) -> Running:
        running, server = self._begin()
        try:
            await to_thread.run_sync(server.wait)
        except BaseException:
            server.stop()  # whoever was cancelled waits no longer; the thread ends by itself
            raise
        return running

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.stop()
            with CancelScope(shield=True):
                await to_thread.run_sync(self._server.join)

    def _begin(self) -> tuple[Running, _Server]:
        if find_spec("uvicorn") is None:
            raise ServeError(_NO_UVICORN)
        sockets = bind(self._port)
        base_url = f"http://localhost:{sockets[0].getsockname()[1]}"
        own = self._settings.issuer == self._settings.base_url
        settings = evolve(
            self._settings, base_url=base_url, issuer=base_url if own else self._settings.issuer
        )
        plane = ControlPlane(settings, self._seed or secrets.token_bytes(32))
        self._server = _Server(Application(plane, log=self._log), sockets)
        self._server.start()
        return Running(base_url, plane), self._server


class _Server:
    """uvicorn on a thread with its own event loop."""

    def __init__(self, application: Application, sockets: list[socket.socket]) -> None:
        self._application = application
        self._sockets = sockets
        self._settled = threading.Event()
        self._stopped = False
        self._uvicorn: uvicorn.Server | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="flyteauth-devserver", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> None:
        """Returns when requests are answered."""
        self._settled.wait()
        if self._error is not None:
            raise ServeError(f"the server did not start: {self._error}") from self._error

    def stop(self) -> None:
        """Asks the server to end; join waits until it has."""
        # The order matters: the thread looks at the flag after it has set the server.
        self._stopped = True
        if self._uvicorn is not None:
            self._uvicorn.should_exit = True

    def join(self) -> None:
        """Returns when the thread has ended and every socket is closed."""
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - handed over to whoever waits
            self._error = error
        finally:
            for listener in self._sockets:
                listener.close()
            self._settled.set()

    async def _serve(self) -> None:
        import uvicorn

        settled = self._settled

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets=sockets)
                settled.set()

        config = uvicorn.Config(
            self._application,
            access_log=False,
            http="h11",
            lifespan="off",
            log_config=None,
            log_level="critical",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACEFUL,
            ws="none",
        )
        self._uvicorn = Server(config)
        if not self._stopped:
            await self._uvicorn.serve(sockets=self._sockets)


def bind(port: int = 0) -> list[socket.socket]:
    """Listening sockets for ``localhost``: 127.0.0.1 and, where there is IPv6, ::1 as well.

    Both are bound by address and at the same port: which of the two a client tries first is not
    ours to know, and a stranger must not own the other one.
    """
    for _ in range(1 if port else _BIND_TRIES):
        try:
            four = _listener(socket.AF_INET, "127.0.0.1", port)
        except OSError as error:
            raise ServeError(_cannot_bind(port, error)) from error
        try:
            return [four, _listener(socket.AF_INET6, "::1", four.getsockname()[1])]
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return [four]  # no IPv6 on this machine
            four.close()
    raise ServeError(_cannot_bind(port, OSError(errno.EADDRINUSE, "Address already in use")))


def _listener(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # asyncio would do that for each connection, if it saw from the socket that it is TCP.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _cannot_bind(port: int, error: OSError) -> str:
    where = f"port {port}" if port else "a loopback port"
    reason = (error.strerror or "unknown error").lower()
    return f"cannot listen on {where} ({reason}); choose another --port, or leave it out"


# The command.


@frozen
class Options:
    """What ``flyteauth devserver`` was asked for."""

    settings: Settings = field(factory=Settings)
    port: int = 0
    log: Path | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``flyteauth devserver``."""
    default = Settings()
    add = parser.add_argument
    add("--port", type=_port, default=0, metavar="N", help="listen there; by default a free port")
    add(
        "--approve",
        choices=("auto", "page"),
        default=default.approve,
        help="who lets logins through: a person on a page (default), or nobody",
    )
    add("--access-ttl", type=float, default=default.access_ttl, metavar="S")
    add("--refresh-ttl", type=float, default=default.refresh_ttl, metavar="S")
    add(
        "--rotate",
        action=argparse.BooleanOptionalAction,
        default=default.rotate,
        help="a refresh returns a new refresh token",
    )
    add(
        "--reuse-detection",
        action=argparse.BooleanOptionalAction,
        default=default.reuse_detection,
        help="a refresh token that comes twice ends the login",
    )
    add(
        "--grace",
        type=float,
        default=default.grace,
        metavar="S",
        help="how long a refresh token works after its rotation",
    )
    add("--device-interval", type=int, default=default.device_interval, metavar="S")
    add(
        "--fault",
        action="append",
        default=[],
        metavar="NAME",
        help="get something wrong, may be repeated; 'list' prints the names",
    )
    add("--log", type=Path, metavar="FILE", help="append one JSON object per request")


def main(arguments: argparse.Namespace) -> int:
    """``flyteauth devserver`` with parsed *arguments*; returns the exit status."""
    if "list" in arguments.fault:
        width = max(map(len, FAULTS))
        sys.stdout.writelines(f"{name:{width}}  {text}\n" for name, text in FAULTS.items())
        return 0
    try:
        settings = Settings(
            approve=arguments.approve,
            access_ttl=arguments.access_ttl,
            refresh_ttl=arguments.refresh_ttl,
            rotate=arguments.rotate,
            reuse_detection=arguments.reuse_detection,
            grace=arguments.grace,
            device_interval=arguments.device_interval,
            faults=frozenset(arguments.fault),
        )
    except ValueError as error:
        return _fail(str(error), status=2)
    return run(Options(settings, arguments.port, arguments.log))


def run(options: Options) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status."""
    try:
        with (
            _told_to_stop() as stop,
            _log_file(options.log) as log,
            tempfile.TemporaryDirectory(prefix="flyteauth-devserver-") as directory,
        ):
            server = serving(options.settings, port=options.port, log=log)
            with server as running:
                config_file = Path(directory) / "config.yaml"
                _write_private(config_file, _config(running.base_url))
                sys.stdout.write(json.dumps(_ready(running, config_file)) + "\n")
                sys.stdout.flush()
                # In steps, for not every platform lets a signal interrupt a wait.
                while not stop.wait(_TICK) and server.alive:
                    pass
            return 0 if stop.is_set() else _fail("the server ended by itself")
    except ServeError as error:
        return _fail(str(error))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return _fail(f"{error.filename or 'standard output'}: {reason.lower()}; check the path")


def _ready(running: Running, config_file: Path) -> dict[str, str | int | None]:
    """The line that says where everything is. Its shape is a contract."""
    return {
        "endpoint": running.base_url,
        "issuer": running.plane.settings.issuer,
        "ca_file": None,
        "config_file": str(config_file),
        "api_key": running.api_key,
        "pid": os.getpid(),
    }


def _config(endpoint: str) -> str:
    return (
        "admin:\n"
        f"  endpoint: {endpoint}\n"
        "  authType: DeviceFlow\n"
        "task:\n"
        "  project: flytesnacks\n"
        "  domain: development\n"
    )


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(text, encoding="utf-8")


@contextmanager
def _log_file(path: Path | None) -> Iterator[TextIO | None]:
    with nullcontext() if path is None else path.open("a", encoding="utf-8") as file:
        yield file


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, where this thread may listen to signals."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def told(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a port; use 0 to 65535")


def _fail(message: str, status: int = 1) -> int:
    sys.stderr.write(f"flyteauth devserver: {message}\n")
    return status
