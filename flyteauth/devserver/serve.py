"""
The control plane on loopback ports: ``flyteauth devserver``, and the same inside a process.

Calls are served over TLS, as Flyte's tools want them, and, with all the rest (OAuth, pages,
uploads), over plain HTTP on a second port; without ``tls`` there is only that one.

The server always runs on a thread of its own with its own event loop, so it serves programs on
any backend and leaves signals to whoever owns the process::

    async with serving(Settings(approve="auto")) as running:  # asyncio and trio
        ...                                                   # running.base_url, .plane, .api_key

    with serving() as running:
        ...

uvicorn and the certificate library are imported only when a server starts.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, TextIO

from anyio import CancelScope, to_thread
from attrs import evolve, field, frozen

from .app import Application, Keep, NotKept
from .certificate import Authority, certificate, new_authority
from .data import Data, DataError
from .folders import temporary_folder
from .model import FAULTS, ControlPlane, Settings
from .shelves import Shelves, Thing

if TYPE_CHECKING:
    import uvicorn

_logger: Final = logging.getLogger(__name__)

_BIND_TRIES: Final = 20
_BACKLOG: Final = 512
_GRACEFUL: Final = 1  # seconds that open requests get when the server stops
_TICK: Final = 1.0
_NEEDED: Final = ("uvicorn", "connectrpc", "flyteidl2", "trustme")


class ServeError(Exception):
    """The control plane cannot be served; the message is one line that says what to do."""


@frozen
class Running:
    """A control plane that answers at ``base_url`` and, for calls over TLS, at ``endpoint``.

    ``ca_file`` holds the certificate authority to trust for that; without TLS there is none, and
    the endpoint is the base URL.
    """

    base_url: str
    plane: ControlPlane
    endpoint: str
    ca_file: Path | None = None

    @property
    def api_key(self) -> str:
        """An API key that works alone."""
        return self.plane.api_key


class serving:  # noqa: N801 - used like a function, as contextlib's managers are
    """A context, sync or async, in which a control plane is served on loopback.

    ``base_url`` of the settings is replaced by the address that was bound, and so are ``issuer``
    and ``endpoint`` unless they were set to another. *port* and *oauth_port* are those of the
    endpoint and, with *tls*, of all the rest; 0 is a free one. What is deployed, created and
    uploaded, and who is logged in, is in the folder *data*, or gone when the context ends.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        port: int = 0,
        oauth_port: int = 0,
        tls: bool = False,
        data: Path | None = None,
        seed: bytes | None = None,
        log: TextIO | None = None,
    ) -> None:
        self._settings = settings or Settings()
        self._ports = (port, oauth_port)
        self._tls = tls
        self._data = data
        self._seed = seed
        self._log = log
        self._server: _Server | None = None
        self._stack = ExitStack()

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._server is not None and self._server.alive

    def __enter__(self) -> Running:
        try:
            running, server = self._begin()
            server.wait()
        except BaseException:
            self._stop()
            raise
        return running

    def __exit__(self, *_: object) -> None:
        self._end()

    async def __aenter__(self) -> Running:
        try:
            running, server = await to_thread.run_sync(self._begin)
            await to_thread.run_sync(server.wait)
        except BaseException:
            self._stop()  # whoever was cancelled waits no longer; the thread ends by itself
            raise
        return running

    async def __aexit__(self, *_: object) -> None:
        with CancelScope(shield=True):
            await to_thread.run_sync(self._end)

    def _stop(self) -> None:
        if self._server is None:
            self._stack.close()
        else:
            self._server.stop(self._stack.close)

    def _end(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server.join()
        self._stack.close()

    def _begin(self) -> tuple[Running, _Server]:
        missing = [name for name in _NEEDED if find_spec(name) is None]
        if missing:
            raise ServeError(
                f"the embedded control plane needs {missing[0]}; run: "
                "pip install 'flyteauth[devserver]'"
            )
        try:
            return self._made()
        except DataError as error:
            raise ServeError(str(error)) from None

    def _made(self) -> tuple[Running, _Server]:
        kept = self._opened()
        authority = None
        folder = self._data
        if self._tls:
            authority = _authority(kept)
            if folder is None:
                folder = self._stack.enter_context(temporary_folder())
        sockets = self._bind(kept)
        plain, port = sockets[-1], sockets[0][0].getsockname()[1]
        base_url = f"http://localhost:{plain[0].getsockname()[1]}"
        endpoint = f"dns:///localhost:{port}" if authority is not None else base_url
        own = self._settings.issuer == self._settings.base_url
        settings = evolve(
            self._settings,
            base_url=base_url,
            issuer=base_url if own else self._settings.issuer,
            endpoint=endpoint,
        )
        plane, keep = _plane(settings, self._seed, kept)
        pair, ca_file = None, None
        if authority is not None and folder is not None:
            ca_file = folder / "ca.pem"
            ca_file.write_bytes(authority.certificate)
            pair = certificate(authority)
        self._server = _Server(Application(plane, log=self._log, keep=keep), sockets, pair)
        self._server.start()
        return Running(base_url, plane, endpoint, ca_file), self._server

    def _opened(self) -> Data | None:
        if self._data is None:
            return None
        return self._stack.enter_context(closing(Data(self._data)))

    def _bind(self, kept: Data | None) -> list[list[socket.socket]]:
        """The endpoint's sockets and, with TLS, those of all the rest: where they were the last
        time, if nobody says otherwise and that is still free.
        """
        wanted = list(self._ports[: 1 + self._tls])
        before = json.loads((kept and kept.note("ports")) or "[]")
        for index, port in enumerate(before[: len(wanted)]):
            wanted[index] = wanted[index] or -port
        bound: list[list[socket.socket]] = []
        try:
            bound.extend(_bind_again(-port) if port < 0 else bind(port) for port in wanted)
        except BaseException:
            for listener in (each for sockets in bound for each in sockets):
                listener.close()
            raise
        if kept is not None:
            ports = [sockets[0].getsockname()[1] for sockets in bound]
            kept.keep_note("ports", json.dumps(ports).encode())
        return bound


def _bind_again(port: int) -> list[socket.socket]:
    try:
        return bind(port)
    except ServeError:
        bound = bind()
        _logger.warning(
            "port %d, where this control plane was before, is taken; it is at %d now, and who is "
            "configured for the other one does not find it",
            port,
            bound[0].getsockname()[1],
        )
        return bound


def _authority(kept: Data | None) -> Authority:
    """The certificate authority: the one that clients of the same folder trust already."""
    if kept is None:
        return new_authority()
    certificate, private_key = kept.note("ca_certificate"), kept.note("ca_private_key")
    if certificate is None or private_key is None:
        authority = new_authority()
        kept.keep_note("ca_certificate", authority.certificate)
        kept.keep_note("ca_private_key", authority.private_key)
        return authority
    return Authority(certificate, private_key)


def _plane(
    settings: Settings, seed: bytes | None, kept: Data | None
) -> tuple[ControlPlane, Keep | None]:
    """The control plane as it was left, and what writes down its changes."""
    if kept is None:
        return ControlPlane(settings, seed or secrets.token_bytes(32)), None
    seed = seed or kept.note("seed") or secrets.token_bytes(32)
    start = int(kept.note("starts") or b"0") + 1
    kept.keep_note("seed", seed)
    kept.keep_note("starts", str(start).encode())
    shelves = Shelves(kept.things(), recording=True)
    plane = ControlPlane(settings, seed, shelves=shelves, start=start)

    async def keep(things: Sequence[Thing]) -> None:
        try:
            await to_thread.run_sync(kept.keep, things)
        except DataError as error:
            raise NotKept(str(error)) from None

    return plane, keep


class _Server:
    """uvicorn on a thread with its own event loop: for each of *sockets* once, and the first one
    with TLS if there is a *pair* of certificate and key.
    """

    def __init__(
        self,
        application: Application,
        sockets: list[list[socket.socket]],
        pair: tuple[bytes, bytes] | None,
    ) -> None:
        self._application = application
        self._sockets = sockets
        self._pair = pair
        self._settled = threading.Event()
        self._stopped = False
        self._afterwards: Callable[[], object] = _nothing
        self._servers: list[uvicorn.Server] = []
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

    def stop(self, afterwards: Callable[[], object] | None = None) -> None:
        """Asks the server to end, and to call *afterwards* then; join waits until it has."""
        # The order matters: the thread looks at the flag after it has set the servers.
        self._afterwards = afterwards or self._afterwards
        self._stopped = True
        for server in self._servers:
            server.should_exit = True

    def join(self) -> None:
        """Returns when the thread has ended and every socket is closed."""
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - handed over to whoever waits
            self._error = error
        finally:
            for listener in (each for sockets in self._sockets for each in sockets):
                listener.close()
            self._settled.set()
            self._afterwards()

    async def _serve(self) -> None:
        import uvicorn

        waiting = [*self._sockets]
        settled = self._settled

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets=sockets)
                waiting.pop()
                if not waiting:
                    settled.set()

        configs = [self._config() for _ in self._sockets]
        if self._pair is not None:
            _load_certificate(configs[0], *self._pair)
        self._servers = [Server(config) for config in configs]
        if not self._stopped:
            pairs = zip(self._servers, self._sockets, strict=True)
            await asyncio.gather(*(server.serve(sockets=sockets) for server, sockets in pairs))

    def _config(self) -> uvicorn.Config:
        import uvicorn

        return uvicorn.Config(
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


def _nothing() -> None:
    pass


def _load_certificate(config: uvicorn.Config, chain: bytes, private_key: bytes) -> None:
    """The key is on disk only as long as it takes to read it, which only goes by file."""
    with temporary_folder() as folder:
        for name, content in (("chain.pem", chain), ("key.pem", private_key)):
            path = folder / name
            path.touch(mode=0o600)
            path.write_bytes(content)
        config.ssl_certfile = folder / "chain.pem"
        config.ssl_keyfile = folder / "key.pem"
        config.load()


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
    oauth_port: int = 0
    data: Path | None = None
    log: Path | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``flyteauth devserver``."""
    default = Settings()
    add = parser.add_argument
    add(
        "--port",
        type=_port,
        default=0,
        metavar="N",
        help="the endpoint's port, with TLS; by default a free one",
    )
    add(
        "--oauth-port",
        type=_port,
        default=0,
        metavar="N",
        help="the port of pages, OAuth and uploads, without TLS",
    )
    add(
        "--data",
        type=Path,
        metavar="DIR",
        help="keep there what is deployed, created and uploaded, and who is logged in",
    )
    add(
        "--approve",
        choices=("auto", "page"),
        default=default.approve,
        help="who lets logins through: a person on a page (default), or nobody",
    )
    add(
        "--access-ttl",
        type=float,
        default=default.access_ttl,
        metavar="S",
        help="how long an access token works, in seconds (default: %(default)g)",
    )
    add(
        "--refresh-ttl",
        type=float,
        default=default.refresh_ttl,
        metavar="S",
        help="how long a refresh token works, in seconds (default: %(default)g)",
    )
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
        help="how long a refresh token works after its rotation, in seconds (default: %(default)g)",
    )
    add(
        "--device-interval",
        type=int,
        default=default.device_interval,
        metavar="S",
        help="how long a device has to wait between two polls, in seconds (default: %(default)g)",
    )
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
    return run(
        Options(settings, arguments.port, arguments.oauth_port, arguments.data, arguments.log)
    )


def run(options: Options) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status."""
    try:
        with _told_to_stop() as stop, _log_file(options.log) as log:
            server = serving(
                options.settings,
                port=options.port,
                oauth_port=options.oauth_port,
                tls=True,
                data=None if options.data is None else options.data.absolute(),
                log=log,
            )
            with server as running:
                assert running.ca_file is not None
                config_file = running.ca_file.with_name("config.yaml")
                _write_private(config_file, _config(running))
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
        "endpoint": running.endpoint,
        "issuer": running.plane.settings.issuer,
        "ca_file": str(running.ca_file),
        "config_file": str(config_file),
        "api_key": running.api_key,
        "pid": os.getpid(),
    }


def _config(running: Running) -> str:
    # JSON's strings are YAML's, whatever is in a path.
    return (
        "# Written anew at each start.\n"
        "admin:\n"
        f"  endpoint: {running.endpoint}\n"
        "  authType: DeviceFlow\n"
        f"  caCertFilePath: {json.dumps(str(running.ca_file))}\n"
        "image:\n"
        "  builder: local\n"
        "task:\n"
        "  project: flytesnacks\n"
        "  domain: development\n"
    )


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
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
