"""
The server of the benchmarks: the embedded control plane in a process of its own, with latencies,
counters and faults around it.

    /oauth2/token         the plane's own, after ``token_latency`` seconds, or with a fault
    /fault/NAME/token     the same with the fault NAME, as long as it is not mended
    /resource, /open      200 after ``resource_latency`` seconds; /resource wants a good token
    /flyteidl2.workflow.RunService, /open/flyteidl2.workflow.RunService
                          the same over Connect: a run, and a stream of two replies
    /_bench               its counters; what is posted there as JSON is set

Each answer is ``latency`` seconds late. The next ``replies`` to grants are ``reply``, of the table
in ``replies.py``, or what is no reply; polls for a device get ``polls``, one after the other.

``Server`` is a running one, as whoever measures sees it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from attrs import define, field
from flyteidl2.workflow.run_service_connect import RunService, RunServiceASGIApplication
from flyteidl2.workflow.run_service_pb2 import GetRunDetailsResponse, WatchRunsResponse

from flyteauth.devserver.app import Application
from flyteauth.devserver.model import ControlPlane, Settings
from flyteauth.devserver.serve import bind

from .replies import ALTERED, FIXED, HTML, JSON, LATE, POLLS, PROXY, TEXT, Reply, bomb

ROOT: Final = Path(__file__).resolve().parent.parent
DEADLINE: Final = 30.0

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PORTAL: Final = (
    b"<!DOCTYPE html><title>Welcome</title><h1>Please accept the terms of this network</h1>"
)

# Status, headers, body.
FAULTS: Final[dict[str, Reply]] = {
    "500": (500, TEXT, b"Internal Server Error"),
    "502 HTML": (502, HTML, PROXY),
    "503": (503, TEXT, b"upstream connect error"),
    "429 for 5 min": (429, {**TEXT, "retry-after": "300"}, b"slow down"),
    "429 for 2 min": (429, {**TEXT, "retry-after": "120"}, b"slow down"),
    "429 for 2 s": (429, {**TEXT, "retry-after": "2"}, b"slow down"),
    "captive portal": (200, HTML, PORTAL),
    "400 HTML": (400, HTML, PROXY),
    "invalid_grant": (400, JSON, b'{"error": "invalid_grant"}'),
}


@define
class State:
    """What can be set, and what is counted."""

    token_latency: float = 0.0
    resource_latency: float = 0.0
    fault: str = ""
    mended: bool = False
    ahead: float = 0.0
    """Seconds that this server's clock is ahead."""
    latency: float = 0.0
    reply: str = ""
    replies: int = 0
    polls: list[str] = field(factory=list)
    device: dict[str, Any] = field(factory=dict)
    """What a device authorization says instead; None leaves a member out."""
    counts: Counter[str] = field(factory=Counter)
    connections: set[Any] = field(factory=set)
    polled: list[float] = field(factory=list)

    @property
    def scripted(self) -> bool:
        return bool(self.replies or self.polls)


class Bench:
    """The ASGI application."""

    def __init__(self, plane: ControlPlane) -> None:
        self.state = State()
        self._plane = plane
        self._app = Application(plane, clock=self._time)
        self._runs = RunServiceASGIApplication(Runs(self.state))

    def _time(self) -> float:
        return time.time() + self.state.ahead

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        if path != "/_bench":
            self.state.connections.add(tuple(scope.get("client") or ()))
            await asyncio.sleep(self.state.latency)
        match path.split("/")[1:]:
            case ["_bench"]:
                await self._control(scope, receive, send)
            case ["resource" | "open" as name]:
                await asyncio.sleep(self.state.resource_latency)
                status = self._status(name, scope)
                await _answer(send, status, TEXT, b"x" * 200)
            case ["flyteidl2.workflow.RunService", _]:
                if self._status("call", scope) == 200:
                    await self._runs(scope, receive, send)
                else:
                    await _answer(send, 401, JSON, b'{"code": "unauthenticated"}')
            case ["open", "flyteidl2.workflow.RunService", _]:
                called = path.removeprefix("/open")
                await self._runs({**scope, "path": called}, receive, send)
            case ["oauth2", "token"]:
                self.state.counts["token"] += 1
                await asyncio.sleep(self.state.token_latency)
                if self.state.scripted:
                    await self._scripted(scope, receive, send)
                else:
                    await self._token(self.state.fault, scope, receive, send)
            case ["oauth2", "device_authorization"] if self.state.device:
                self.state.counts[path] += 1
                good = json.loads(await self._answered(scope, receive))
                members = {**good, **self.state.device}
                kept = {name: value for name, value in members.items() if value is not None}
                await _answer(send, 200, JSON, json.dumps(kept).encode())
            case ["fault", name, "token"]:
                self.state.counts[f"token {name}"] += 1
                await self._token("" if self.state.mended else name, scope, receive, send)
            case _:
                self.state.counts[path] += 1
                await self._app(scope, receive, send)

    async def _control(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        for name, value in json.loads(message.get("body") or b"{}").items():
            if name == "counts":
                self.state.counts.clear()
                self.state.connections.clear()
                self.state.polled.clear()
            else:
                setattr(self.state, name, value)
        reply = {
            "counts": dict(self.state.counts),
            "connections": len(self.state.connections),
            "polled": self.state.polled,
        }
        await _answer(send, 200, JSON, json.dumps(reply).encode())

    def _status(self, name: str, scope: Scope) -> int:
        headers = dict(scope["headers"])
        token = headers.get(b"authorization", b"").decode().removeprefix("Bearer ")
        access = self._plane.access(token, self._time())
        status = 200 if name == "open" or access is not None else 401
        self.state.counts[f"{name} {status}"] += 1
        return status

    async def _token(self, fault: str, scope: Scope, receive: Receive, send: Send) -> None:
        if fault in FAULTS:
            await _answer(send, *FAULTS[fault])
        elif fault:
            await _misbehave(fault, receive, send)
        else:
            scope = {**scope, "path": "/oauth2/token", "raw_path": b"/oauth2/token"}
            await self._app(scope, receive, send)

    async def _scripted(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        if body is None:
            return
        form = parse_qs(body.decode())
        if form["grant_type"][0].endswith("device_code"):
            self.state.polled.append(time.monotonic())
            # The last one stands for all that follow.
            polls = self.state.polls
            name = (polls.pop(0) if len(polls) > 1 else polls[0]) if polls else "good"
        elif self.state.replies:
            self.state.replies -= 1
            name = self.state.reply
        else:
            name = "good"
        if reply := POLLS.get(name) or FIXED.get(name):
            await _answer(send, *reply)
        elif name in {"endless", "hang"}:
            await _misbehave(name, receive, send)
        elif name == "dropped":
            await _begin(send, 200, {**JSON, "content-length": "1000"})
        elif name == "good":
            await self._app(scope, _again(body), send)
        else:
            good = json.loads(await self._answered(scope, _again(body)))
            await asyncio.sleep(LATE if name == "late" else 0.0)
            if "access_token" in good:
                await _answer(send, *ALTERED[name](good))
            else:  # a refresh token that was spent before
                await _answer(send, 400, JSON, json.dumps(good).encode())

    async def _answered(self, scope: Scope, receive: Receive) -> bytes:
        """The body of what the plane answers."""
        parts: list[bytes] = []

        async def collect(message: Message) -> None:
            parts.append(message.get("body", b""))

        await self._app(scope, receive, collect)
        return b"".join(parts)


class Runs(RunService):
    """Answers to calls, after the latency."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def get_run_details(self, request: Any, ctx: Any) -> GetRunDetailsResponse:
        await asyncio.sleep(self._state.resource_latency)
        return GetRunDetailsResponse()

    async def watch_runs(self, request: Any, ctx: Any) -> AsyncIterator[WatchRunsResponse]:
        await asyncio.sleep(self._state.resource_latency)
        for _ in range(2):
            yield WatchRunsResponse()


async def _body(receive: Receive) -> bytes | None:
    """None if the client has gone before the end of it."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _again(body: bytes) -> Receive:
    """What has been read, to be read once more."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _answer(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    await _begin(send, status, {**headers, "content-length": str(len(body))})
    await send({"type": "http.response.body", "body": body})


async def _begin(send: Send, status: int, headers: Mapping[str, str]) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def _misbehave(fault: str, receive: Receive, send: Send) -> None:
    """What does not end by itself, until the client has gone; and the bomb."""
    if fault == "bomb":
        await _answer(send, 200, {**JSON, "content-encoding": "gzip"}, bomb())
        return
    gone = asyncio.create_task(_disconnected(receive))
    try:
        if fault == "hang":
            await gone
            return
        chunk, pause = {"endless": (b" " * 65536, 0.01), "drip": (b" ", 0.1)}[fault]
        await _begin(send, 200, JSON)
        while not gone.done():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await asyncio.sleep(pause)
    finally:
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# The process.


async def _serve(settings: dict[str, Any]) -> None:
    import uvicorn

    plain, encrypted = bind(), bind()
    for listener in plain + encrypted:
        # Inherited by what is accepted. Without it the second packet of an answer waits 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    base_url, tls_url = (
        f"{scheme}://localhost:{sockets[0].getsockname()[1]}"
        for scheme, sockets in (("http", plain), ("https", encrypted))
    )
    plane = ControlPlane(
        Settings(**{"approve": "auto", **settings}, base_url=base_url), os.urandom(32)
    )
    common: dict[str, Any] = {
        "access_log": False,
        "http": "h11",
        "lifespan": "off",
        "log_config": None,
        "timeout_graceful_shutdown": 1,
        "timeout_keep_alive": 60,
        "ws": "none",
    }
    # What is dropped half-way is dropped on purpose.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: "without completing response" not in record.getMessage()
    )
    app = Bench(plane)
    server = uvicorn.Server(uvicorn.Config(app, **common))
    with tempfile.TemporaryDirectory(prefix="flyteauth-bench-") as directory:
        certificate = _certificate(Path(directory))
        tls = uvicorn.Server(uvicorn.Config(app, ssl_certfile=certificate, **common))
        threading.Thread(target=_end_with_parent, args=[server, tls], daemon=True).start()
        ready = {
            "base_url": base_url,
            "tls_url": tls_url,
            "api_key": plane.api_key,
            "service": plane.service_client,
            "ca_file": str(Path(directory) / "ca.pem"),
        }
        print(json.dumps(ready), flush=True)
        await asyncio.gather(server.serve(sockets=plain), tls.serve(sockets=encrypted))


def _certificate(directory: Path) -> str:
    """A certificate that nobody trusts, with its key; who has issued it is in ca.pem."""
    import trustme

    file, issuer = directory / "server.pem", trustme.CA()
    issuer.cert_pem.write_to_path(directory / "ca.pem")
    issuer.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(file)
    return str(file)


def _end_with_parent(*servers: Any) -> None:
    sys.stdin.buffer.read()
    for server in servers:
        server.should_exit = True


class Server:
    """A running server."""

    def __init__(self, ready: dict[str, Any]) -> None:
        self.base_url: str = ready["base_url"]
        self.tls_url: str = ready["tls_url"]
        self.api_key: str = ready["api_key"]
        self.service: tuple[str, str] = tuple(ready["service"])
        self.ca_file: str = ready["ca_file"]
        self.ahead = 0.0

    @property
    def port(self) -> int:
        return int(self.base_url.rpartition(":")[2])

    def set(self, **values: Any) -> dict[str, Any]:
        """Set *values*; counts, connections and times of polls as they were after that."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request("POST", "/_bench", json.dumps(values).encode())
            seen: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return seen

    def reset(self) -> None:
        self.set(counts=True)

    def counts(self) -> Counter[str]:
        return Counter(self.set()["counts"])

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass for the server."""
        self.ahead += seconds
        self.set(ahead=self.ahead)

    def logins(self, counts: Counter[str] | None = None) -> int:
        """How often somebody began to log in."""
        counts = self.counts() if counts is None else counts
        return counts["/oauth2/device_authorization"] + counts["/oauth2/authorize"]


@contextmanager
def serving(**settings: Any) -> Iterator[Server]:
    """A server in a process of its own, until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server", json.dumps(settings)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield Server(json.loads(process.stdout.readline()))
    finally:
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
