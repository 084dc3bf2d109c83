"""A session's credentials on the calls of connectrpc: what is Connect's own about them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import anyio
import anyio.to_thread
import pyqwest
import pytest
import trustme
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from google.protobuf.wrappers_pb2 import StringValue

from flyteauth import SyncSession
from flyteauth.errors import ConfigError
from flyteauth.integrations import connect
from flyteauth.integrations.connect import (
    client,
    client_sync,
    clients,
    clients_sync,
    interceptors,
    interceptors_sync,
)
from flyteauth.session import Session
from tests.concurrency import all_at_once

from .plane import Plane
from .rpc import CREDENTIALS, EchoClient, EchoClientSync, Gate, application, asgi, connect_server
from .test_cancellation import Counted, Places, cancelling
from .test_httpx import Proxied

pytestmark = pytest.mark.anyio

LIMIT = 20.0
CALLS = 1000


@pytest.fixture
def anyio_backend() -> str:
    """All that connectrpc's asynchronous clients know."""
    return "asyncio"


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def endpoint(gate: Gate) -> Iterator[str]:
    with connect_server(gate) as port:
        yield f"http://localhost:{port}"


@pytest.fixture
def plane(gate: Gate, endpoint: str) -> Plane:
    gate.plane = Plane(base_url=endpoint)
    return gate.plane


@pytest.fixture
async def session(plane: Plane, endpoint: str) -> AsyncIterator[Session]:
    async with plane.session(endpoint=endpoint) as session:
        await session.login()
        yield session


def text(value: str = "a") -> StringValue:
    return StringValue(value=value)


async def texts(*values: str) -> AsyncIterator[StringValue]:
    for value in values:
        yield text(value)


async def count(echo: EchoClient, number: str = "2") -> list[str]:
    return [reply.value async for reply in echo.count(text(number))]


# When a token expires.


async def test_a_thousand_calls_when_the_token_expires_share_a_renewal_and_none_fails(
    gate: Gate, plane: Plane, session: Session
) -> None:
    async with client(EchoClient, session) as echo:
        await echo.say(text())
        gate.seen.clear()
        plane.clock.now += 3600.0
        turns = anyio.Semaphore(64)
        numbers = iter(range(CALLS))

        async def call() -> object:
            async with turns:
                if next(numbers) % 2:
                    return (await echo.say(text())).value
                return await count(echo)

        with anyio.fail_after(6 * LIMIT):
            outcomes = await all_at_once(CALLS, call)
    assert [outcomes.count("a"), outcomes.count(["0", "1"])] == [CALLS / 2, CALLS / 2]
    assert gate.count() == {"ok": CALLS}
    assert plane.asked["refresh_token"] == 1
    assert len(set(gate.tokens)) == 1


# Where credentials go.


class _Elsewhere(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        self.rfile.read(int(self.headers.get("content-length") or 0))
        names = {name.lower(): value for name, value in self.headers.items()}
        server.seen.append({name: names[name] for name in CREDENTIALS if name in names})
        if server.target is None:
            self.send_response(200)
            self.send_header("content-type", "application/proto")
        else:
            self.send_response(307)
            self.send_header("location", f"{server.target}{self.path}")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def elsewhere(target: str | None = None) -> Iterator[Any]:
    """A server that redirects to *target*, or takes everything; ``seen`` has the credentials."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere)
    server.seen, server.target = [], target
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def url_of(server: Any) -> str:
    return f"http://localhost:{server.server_address[1]}"


@pytest.mark.req("BRR-04")
@pytest.mark.parametrize("faults", [set(), {"custom-header-key"}])
async def test_a_client_of_ours_follows_no_redirect(faults: set[str]) -> None:
    with elsewhere() as other, elsewhere(url_of(other)) as server:
        plane = Plane(base_url=url_of(server), faults=faults)
        async with plane.session(endpoint=url_of(server)) as session:
            await session.login()
            async with client(EchoClient, session) as echo:
                with pytest.raises(ConnectError):
                    await echo.say(text())
            with (
                client_sync(EchoClientSync, session) as sync,
                pytest.raises(ConnectError),
            ):
                await anyio.to_thread.run_sync(sync.say, text())
            headers = dict(await session.headers())
        assert (server.seen, other.seen) == ([headers, headers], [])


@pytest.mark.req("BRR-04")
async def test_with_a_client_that_follows_redirects_nothing_goes_along() -> None:
    with elsewhere() as other, elsewhere(url_of(other)) as server:
        plane = Plane(base_url=url_of(server))
        async with plane.session(endpoint=url_of(server)) as session:
            await session.login()
            echo = EchoClient(url_of(server), interceptors=interceptors(session))
            assert (await echo.say(text())).value == ""
            assert (server.seen, other.seen) == ([dict(await session.headers())], [{}])


@pytest.mark.req("BRR-04")
async def test_a_header_that_would_go_along_with_a_redirect_is_not_sent(
    gate: Gate, endpoint: str
) -> None:
    gate.plane = plane = Plane(base_url=endpoint, faults={"custom-header-key"})
    gate.header = "flyte-authorization"
    async with plane.session(endpoint=endpoint) as session:
        await session.login()
        echo = EchoClient(endpoint, interceptors=interceptors(session))
        sync = EchoClientSync(endpoint, interceptors=interceptors_sync(session))
        with pytest.raises(ConfigError, match="redirect") as caught:
            await echo.say(text())
        assert caught.value.reason == "redirect"
        with pytest.raises(ConfigError, match="redirect"):
            await anyio.to_thread.run_sync(sync.say, text())
        assert gate.seen == []
        async with pyqwest.HTTPTransport(follow_redirects=False) as transport:
            echo = EchoClient(
                endpoint,
                interceptors=interceptors(session, follows_redirects=False),
                http_client=pyqwest.Client(transport),
            )
            assert (await echo.say(text())).value == "a"
    assert gate.codes == ["ok"]


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("https://flyte.example.com", True),
        ("https://flyte.example.com:443", True),
        ("https://Flyte.Example.com/", True),
        ("https://flyte.example.com/path", True),
        ("https://flyte.example.com:443/path", True),
        ("http://flyte.example.com", False),
        ("http://flyte.example.com/path", False),
        ("https://flyte.example.com:8443", False),
        ("https://flyte.example.com.evil.example", False),
        ("https://flyte.example.com:443@evil.example", False),
        ("https://evil.example/flyte.example.com:443", False),
        ("https://evil.example/:443", False),
        ("https://[::1]", False),
        ("", False),
        ("https://also.example", True),
        ("http://also.example", False),
    ],
)
async def test_only_the_endpoint_and_named_origins_get_credentials(
    address: str, good: bool
) -> None:
    plane = Plane(base_url="https://flyte.example.com")
    seen: list[str] = []

    class Inner:
        """In place of the network."""

        async def intercept_unary(self, call_next: Any, request: Any, ctx: Any) -> Any:
            seen.append(ctx.request_headers().get("authorization"))
            return request

    async with plane.session(endpoint="flyte.example.com") as session:
        await session.login()
        mine = interceptors(session, origins=["https://also.example"])
        echo = EchoClient(address, interceptors=(*mine, Inner()))
        if good:
            await echo.say(text())
            assert seen == list((await session.headers()).values())
            return
        for _ in range(2):
            with pytest.raises(ConfigError, match="not for the session's endpoint") as caught:
                await echo.say(text())
            assert caught.value.reason == "origins"
        assert seen == []


async def test_the_environments_proxy_is_not_for_this_machine(
    gate: Gate, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://localhost:9")
    async with client(EchoClient, session) as echo:
        assert (await echo.say(text())).value == "a"
    assert gate.codes == ["ok"]


# Clients.


async def test_clients_share_their_connections_and_take_arguments(
    gate: Gate, session: Session
) -> None:
    async with clients(session) as make:
        one, other = make(EchoClient), make(partial(EchoClient, timeout_ms=5000))
        assert [(await one.say(text())).value, *await count(other)] == ["a", "0", "1"]

    def sync() -> list[str]:
        with clients_sync(SyncSession(of=session)) as make:
            one, other = make(EchoClientSync), make(partial(EchoClientSync, send_compression=None))
            return [one.say(text()).value, *(reply.value for reply in other.count(text("1")))]

    assert await anyio.to_thread.run_sync(sync) == ["a", "0"]
    assert gate.codes == ["ok"] * 4


async def test_a_synchronous_client_works_where_a_loop_runs(gate: Gate, plane: Plane) -> None:
    """As in a notebook; its loop waits meanwhile."""
    async with plane.session("ClientSecret") as session:
        endpoint = plane.plane.settings.base_url
        echo = EchoClientSync(endpoint, interceptors=interceptors_sync(session))
        assert echo.say(text()).value == "a"
        gate.refuse_last()
        assert [reply.value for reply in echo.count(text("1"))] == ["0"]
    assert gate.codes == ["ok", "unauthenticated", "ok"]


async def test_a_client_over_tls_trusts_what_the_session_trusts(tmp_path: Path) -> None:
    authority = trustme.CA()
    ca_file, identity = tmp_path / "ca.pem", tmp_path / "server.pem"
    authority.cert_pem.write_to_path(ca_file)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(identity)
    gate = Gate()
    with connect_server(gate, identity) as port:
        endpoint = f"https://localhost:{port}"
        gate.plane = plane = Plane(base_url=endpoint)
        async with plane.session(endpoint=endpoint, ca_file=ca_file) as session:
            await session.login()
            async with client(EchoClient, session) as echo:
                assert (await echo.say(text())).value == "a"
                gate.refuse_last()
                assert await count(echo) == ["0", "1"]
            with client_sync(EchoClientSync, session) as sync:
                reply = await anyio.to_thread.run_sync(sync.say, text())
                assert reply.value == "a"
        assert gate.codes == ["ok", "unauthenticated", "ok", "ok"]
        async with plane.session(endpoint=endpoint) as session:
            await session.login()
            async with client(EchoClient, session) as echo:
                with pytest.raises(ConnectError) as caught:
                    await echo.say(text())
        assert caught.value.code is Code.UNAVAILABLE
    assert len(gate.seen) == 4


async def test_a_ca_file_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\nMTIz\n-----END CERTIFICATE-----\n")
    async with Plane().session(endpoint="https://localhost:1", ca_file=file) as session:
        with pytest.raises(ConfigError) as caught:
            async with client(EchoClient, session):
                raise AssertionError("there is no such client")
        assert caught.value.reason == "ca_file"


async def test_certificates_are_never_left_unchecked() -> None:
    plane = Plane()
    async with plane.session(endpoint="https://localhost:1", insecure_skip_verify=True) as session:
        with pytest.raises(ConfigError, match="caCertFilePath") as caught:
            async with client(EchoClient, session):
                raise AssertionError("there is no such client")
        assert caught.value.reason == "insecure_skip_verify"


# Refusals.


class Refusing:
    """Refuses the first call before any of its requests is asked for."""

    def __init__(self) -> None:
        self.calls = 0

    def _count(self) -> None:
        self.calls += 1
        if self.calls == 1:
            raise ConnectError(Code.UNAUTHENTICATED, "no")

    async def intercept_client_stream(self, call_next: Any, request: Any, ctx: Any) -> Any:
        self._count()
        return await call_next(request, ctx)

    async def intercept_bidi_stream(
        self, call_next: Any, request: Any, ctx: Any
    ) -> AsyncIterator[Any]:
        self._count()
        async for reply in call_next(request, ctx):
            yield reply

    def intercept_client_stream_sync(self, call_next: Any, request: Any, ctx: Any) -> Any:
        self._count()
        return call_next(request, ctx)

    def intercept_bidi_stream_sync(self, call_next: Any, request: Any, ctx: Any) -> Iterator[Any]:
        self._count()
        yield from call_next(request, ctx)


async def test_requests_that_nobody_has_asked_for_are_sent_with_the_second_try(
    gate: Gate, plane: Plane, session: Session, endpoint: str
) -> None:
    refusing = [Refusing() for _ in range(2)]
    echoes = [
        EchoClient(endpoint, interceptors=(*interceptors(session), inner)) for inner in refusing
    ]
    assert (await echoes[0].collect(texts("a", "b"))).value == "a b"
    plane.clock.now += 61.0
    assert [reply.value async for reply in echoes[1].chat(texts("a", "b"))] == ["a", "b"]
    assert [inner.calls for inner in refusing] == [2, 2]
    assert (gate.codes, plane.asked["refresh_token"]) == (["ok", "ok"], 2)


async def test_the_same_with_synchronous_clients(
    gate: Gate, plane: Plane, session: Session, endpoint: str
) -> None:
    refusing = [Refusing() for _ in range(2)]
    one, other = (
        EchoClientSync(endpoint, interceptors=(*interceptors_sync(session), inner))
        for inner in refusing
    )

    def collect() -> str:
        return one.collect(iter([text("a"), text("b")])).value

    def chat() -> list[str]:
        return [reply.value for reply in other.chat(iter([text("a"), text("b")]))]

    assert await anyio.to_thread.run_sync(collect) == "a b"
    plane.clock.now += 61.0
    assert await anyio.to_thread.run_sync(chat) == ["a", "b"]
    assert [inner.calls for inner in refusing] == [2, 2]
    assert (gate.codes, plane.asked["refresh_token"]) == (["ok", "ok"], 2)


def refusing_first(gate: Gate, status: int) -> Callable[..., Any]:
    """The service behind something that answers the first call itself, not in Connect."""
    app, calls = application(gate), iter(range(1_000_000))

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if next(calls):
            await app(scope, receive, send)
            return
        headers = [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"<h1>no</h1>"})

    return answer


@pytest.mark.parametrize("stream", [False, True])
async def test_a_plain_401_is_a_refusal_too(stream: bool) -> None:
    gate = Gate()
    with asgi(refusing_first(gate, 401)) as port:
        endpoint = f"http://localhost:{port}"
        gate.plane = plane = Plane(base_url=endpoint)
        async with plane.session(endpoint=endpoint) as session:
            await session.login()
            async with client(EchoClient, session) as echo:
                assert await (count(echo, "1") if stream else echo.say(text("0"))) in (
                    ["0"],
                    text("0"),
                )
    assert (gate.codes, plane.asked["refresh_token"]) == (["ok"], 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_407_renews_the_proxy_credential_and_no_token(stream: bool) -> None:
    gate = Gate()
    with asgi(refusing_first(gate, 407)) as port:
        endpoint = f"http://localhost:{port}"
        gate.plane = plane = Plane(base_url=endpoint)
        of = plane.session(endpoint=endpoint)
        session = Proxied(endpoint=endpoint)
        session.__dict__.update(of.__dict__)
        async with session:
            await session.login()
            async with client(EchoClient, session) as echo:
                await (count(echo) if stream else echo.say(text()))
    assert session.proxy == 2
    assert [seen.credentials["proxy-authorization"] for seen in gate.seen] == ["Bearer proxy-2"]
    assert plane.asked["refresh_token"] == 0


async def test_whoever_calls_again_with_the_same_context_starts_anew(
    gate: Gate, session: Session, endpoint: str
) -> None:
    class Again:
        async def intercept_unary(self, call_next: Any, request: Any, ctx: Any) -> Any:
            await call_next(request, ctx)
            assert "authorization" not in ctx.request_headers()
            return await call_next(request, ctx)

    async with client(EchoClient, session, interceptors=[Again()]) as echo:
        assert (await echo.say(text())).value == "a"
    assert gate.codes == ["ok", "ok"]


# Ends of calls.


async def test_a_stream_that_is_closed_early_closes_what_it_reads_from(
    session: Session, endpoint: str
) -> None:
    closed: list[object] = []

    class Inner:
        async def intercept_server_stream(
            self, call_next: Any, request: Any, ctx: Any
        ) -> AsyncIterator[Any]:
            try:
                async with aclosing(call_next(request, ctx)) as replies:
                    async for reply in replies:
                        yield reply
            finally:
                closed.append(anyio.get_current_task().id)

        def intercept_server_stream_sync(
            self, call_next: Any, request: Any, ctx: Any
        ) -> Iterator[Any]:
            try:
                yield from call_next(request, ctx)
            finally:
                closed.append("sync")

    echo = EchoClient(endpoint, interceptors=(*interceptors(session), Inner()))
    replies: Any = echo.count(text("5"))
    assert (await anext(replies)).value == "0"
    await replies.aclose()
    assert closed == [anyio.get_current_task().id]

    sync = EchoClientSync(endpoint, interceptors=(*interceptors_sync(session), Inner()))

    def first() -> str:
        replies: Any = sync.count(text("5"))
        value: str = next(replies).value
        replies.close()
        return value

    assert await anyio.to_thread.run_sync(first) == "0"
    assert closed[1:] == ["sync"]


@pytest.mark.req("REF-13", "CLK-07")
@pytest.mark.parametrize("how", ["scope", "task"])
@pytest.mark.parametrize("kind", ["say", "count"])
@pytest.mark.parametrize("state", ["first", "expired", "refused"])
async def test_a_call_can_be_cancelled_wherever_it_waits_and_the_next_one_works(
    gate: Gate, endpoint: str, how: str, kind: str, state: str
) -> None:
    at, more = 0, True
    while more:
        gate.plane = plane = Plane(base_url=endpoint)
        gate.refused.clear()
        places = Places()
        async with plane.session("ClientSecret") as session:
            echo = EchoClient(endpoint, interceptors=interceptors(session))

            async def call(echo: EchoClient = echo) -> object:
                return await (echo.say(text()) if kind == "say" else count(echo))

            if state != "first":
                await call()
            if state == "expired":
                plane.clock.now += 3600.0
            elif state == "refused":
                gate.refuse_last()
            places.at = at
            # connectrpc makes an error of its own of a cancellation that reaches it.
            with suppress(ConnectError):
                await cancelling(how, Counted(call(), places), places)
            more = places.count > at
            await call()
        assert plane.asked["client_credentials"] <= 2
        at += 1
    assert at >= 3


# What is said, and what is not.


async def test_no_secret_is_in_what_is_shown(session: Session, endpoint: str, gate: Gate) -> None:
    gate.code = "unauthenticated"
    mine = interceptors(session)
    echo = EchoClient(endpoint, interceptors=mine)
    with pytest.raises(ConnectError) as caught:
        await echo.say(text())
    token = await session.token()
    assert token is not None
    shown = "".join([repr(mine), repr(vars(mine[0])), str(caught.getrepr()), repr(caught.value)])
    assert token.access_token not in shown
    assert f"Bearer {token.access_token}" in gate.tokens


def test_without_the_library_the_import_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['connectrpc'] = None\n"
        "try:\n    import flyteauth.integrations.connect\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install 'flyteauth[connect]'" in done.stdout


def test_the_names_are_there_and_no_others() -> None:
    assert connect.__all__ == sorted(connect.__all__)
    for name in connect.__all__:
        assert getattr(connect, name).__doc__
