"""
What the adapters for Connect and gRPC have in common, over real sockets: which credentials a call
of any kind carries, and what a refusal leads to.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.to_thread
import pytest
from attrs import frozen

import flyteauth
from flyteauth.errors import ConfigError, ReauthRequired, Unreachable
from flyteauth.session import Session
from tests.concurrency import all_at_once
from tests.io.server import Connection, Server

from .plane import Plane
from .rpc import KINDS, RPC_ERRORS, Echo, Gate, Kind, Library, code_of

pytestmark = pytest.mark.anyio

LIMIT = 20.0
TEXT: dict[str, tuple[str, ...]] = {
    "say": ("a",),
    "count": ("2",),
    "collect": ("a", "b"),
    "chat": ("a", "b"),
}
REPLIES: dict[str, list[str]] = {
    "say": ["a"],
    "count": ["0", "1"],
    "collect": ["a b"],
    "chat": ["a", "b"],
}


@pytest.fixture(
    params=[
        pytest.param((backend, Library(name, is_async)), id=f"{name}-{how}-{backend}")
        for name in ("connect", "grpc")
        for how, is_async, backends in (
            ("async", True, ("asyncio",)),  # all that these libraries know
            ("sync", False, ("asyncio", "trio")),
        )
        for backend in backends
    ]
)
def setting(request: pytest.FixtureRequest) -> tuple[str, Library]:
    setting: tuple[str, Library] = request.param
    return setting


@pytest.fixture
def anyio_backend(setting: tuple[str, Library]) -> str:
    return setting[0]


@pytest.fixture
def library(setting: tuple[str, Library]) -> Library:
    return setting[1]


@frozen
class World:
    """A server that asks *plane* about tokens, and a session that is logged in there."""

    gate: Gate
    plane: Plane
    session: Session
    client: Echo

    async def call(self, kind: Kind, *texts: str) -> list[str]:
        with anyio.fail_after(LIMIT):
            return await self.client.call(kind, *(texts or TEXT[kind]))

    async def failing(self, kind: Kind, *texts: str) -> BaseException:
        with pytest.raises((*RPC_ERRORS, ConfigError, Unreachable, ReauthRequired)) as caught:
            await self.call(kind, *texts)
        return caught.value

    @property
    def refreshes(self) -> int:
        return self.plane.asked["refresh_token"]


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def port(library: Library, gate: Gate) -> Iterator[int]:
    with library.server(gate) as port:
        yield port


@pytest.fixture
async def world(library: Library, gate: Gate, port: int) -> AsyncIterator[World]:
    endpoint = f"http://localhost:{port}"
    plane = Plane(base_url=endpoint)
    gate.plane = plane
    async with plane.session(endpoint=endpoint) as session:
        await session.login()
        async with library.client(session) as client:
            yield World(gate, plane, session, client)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_of_any_kind_carries_the_token(world: World, kind: Kind) -> None:
    headers = await world.session.headers()
    assert await world.call(kind) == REPLIES[kind]
    assert world.gate.codes == ["ok"]
    assert [seen.credentials for seen in world.gate.seen] == [dict(headers)]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_expired_token_is_renewed_before_the_call(world: World, kind: Kind) -> None:
    world.plane.clock.now += 3600.0
    assert await world.call(kind) == REPLIES[kind]
    assert (world.gate.codes, world.refreshes) == (["ok"], 1)


@pytest.mark.req("BRR-08", "BRR-10")
@pytest.mark.parametrize("kind", ["say", "count"])
async def test_a_refused_call_is_made_again_with_a_new_token(world: World, kind: Kind) -> None:
    await world.call("say")
    world.gate.refuse_last()
    assert await world.call(kind) == REPLIES[kind]
    assert (world.gate.codes, world.refreshes) == (["ok", "unauthenticated", "ok"], 1)
    first, refused, again = world.gate.tokens
    assert first == refused != again


@pytest.mark.req("BRR-10")
@pytest.mark.parametrize("kind", ["collect", "chat"])
async def test_requests_that_were_asked_for_are_not_sent_again(world: World, kind: Kind) -> None:
    await world.call("say")
    world.gate.refuse_last()
    assert code_of(await world.failing(kind)) == "unauthenticated"
    assert world.gate.codes == ["ok", "unauthenticated"]
    assert await world.call(kind) == REPLIES[kind]
    assert (world.gate.codes[2:], world.refreshes) == (["ok"], 1)


@pytest.mark.req("BRR-10")
async def test_there_is_no_second_try_after_a_reply(world: World) -> None:
    world.gate.code, world.gate.after = "unauthenticated", 2
    replies: list[str] = []
    with pytest.raises(RPC_ERRORS) as caught, anyio.fail_after(LIMIT):
        await world.client.call("count", "5", on_reply=replies.append)
    assert code_of(caught.value) == "unauthenticated"
    assert (replies, world.gate.codes) == (["0", "1"], ["unauthenticated"])
    world.gate.code = None
    assert await world.call("count") == REPLIES["count"]
    assert world.refreshes == 1
    assert world.gate.tokens[0] != world.gate.tokens[1]


async def test_a_stream_that_is_refused_before_its_first_reply_begins_anew(world: World) -> None:
    await world.call("say")
    world.gate.refuse_last()
    replies: list[str] = []
    with anyio.fail_after(LIMIT):
        await world.client.call("count", "3", on_reply=replies.append)
    assert replies == ["0", "1", "2"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_refuses_everything_gets_two_calls_and_one_refresh(
    world: World, kind: Kind
) -> None:
    world.gate.code = "unauthenticated"
    for _ in range(4):
        assert code_of(await world.failing(kind)) == "unauthenticated"
    assert world.refreshes == 1
    again = 1 if kind in {"say", "count"} else 0
    assert world.gate.count() == {"unauthenticated": 4 + again}
    world.plane.clock.now += 61.0
    await world.failing(kind)
    assert world.refreshes == (1 if kind in {"collect", "chat"} else 2)


@pytest.mark.req("BRR-09")
@pytest.mark.parametrize("code", ["permission_denied", "unavailable", "unknown"])
async def test_no_other_code_is_about_credentials(world: World, code: str) -> None:
    world.gate.code = code
    for kind in ("say", "count"):
        assert code_of(await world.failing(kind)) == code
    assert (world.gate.codes, world.refreshes) == ([code, code], 0)


async def test_a_renewal_that_fails_is_raised_from_the_refusal_and_keeps_the_login(
    world: World,
) -> None:
    await world.call("say")
    world.gate.refuse_last()

    async def away(name: str) -> object:
        return world.plane.down()

    world.plane.before = away  # type: ignore[assignment]
    error = await world.failing("say")
    assert isinstance(error, Unreachable)
    assert code_of(error.__cause__ or error) == "unauthenticated"
    world.plane.before = None
    world.plane.clock.now += 60.0
    assert await world.call("say") == ["a"]


async def test_a_login_that_is_over_says_so(world: World) -> None:
    await world.session.logout()
    for kind in KINDS:
        with pytest.raises(ReauthRequired):
            await world.call(kind)
    assert world.gate.seen == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_header_of_the_callers_own_is_an_error(world: World, kind: Kind) -> None:
    with pytest.raises(ConfigError, match="of its own") as caught, anyio.fail_after(LIMIT):
        await world.client.call(kind, *TEXT[kind], headers={"authorization": "Bearer mine"})
    assert caught.value.reason == "header"
    assert world.gate.seen == []


async def test_other_headers_of_the_caller_are_left_alone(world: World) -> None:
    with anyio.fail_after(LIMIT):
        assert await world.client.call("say", "a", headers={"x-mine": "1"}) == ["a"]


async def test_an_anonymous_control_plane_gets_no_header(
    library: Library, gate: Gate, port: int
) -> None:
    endpoint = f"http://localhost:{port}"
    plane = Plane(base_url=endpoint, faults={"no-auth"})
    async with plane.session(endpoint=endpoint) as session, library.client(session) as client:
        with anyio.fail_after(LIMIT):
            assert await client.call("say", "a") == ["a"]
            assert await client.call("count", "1") == ["0"]
    assert [seen.credentials for seen in gate.seen] == [{}, {}]


@pytest.mark.parametrize("kind", KINDS)
async def test_credentials_of_the_callers_own_are_handed_on_and_not_renewed(
    library: Library, gate: Gate, port: int, kind: Kind
) -> None:
    endpoint = f"http://localhost:{port}"
    plane = Plane(base_url=endpoint)
    async with (
        plane.session("Passthrough", endpoint=endpoint) as session,
        library.client(session) as client,
    ):
        with flyteauth.auth_metadata(("authorization", "Bearer mine")):
            with anyio.fail_after(LIMIT):
                assert await client.call(kind, *TEXT[kind]) == REPLIES[kind]
            gate.code = "unauthenticated"
            with pytest.raises(RPC_ERRORS) as caught, anyio.fail_after(LIMIT):
                await client.call(kind, *TEXT[kind])
        assert code_of(caught.value) == "unauthenticated"
        with pytest.raises(ConfigError, match="auth_metadata"), anyio.fail_after(LIMIT):
            await client.call(kind, *TEXT[kind])
    assert gate.tokens == ["Bearer mine"] * 2


class Proxy(Server):
    """Notes where it is asked to connect to, and refuses."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        super().__init__(self._refuse)

    def _refuse(self, connection: Connection) -> None:
        self.asked.append(connection.read_request().partition(b"\r\n")[0])
        connection.send(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")


async def test_a_configured_proxy_is_used(library: Library) -> None:
    proxy = Proxy()
    arguments = {
        "endpoint": "https://flyte.example.com:8443",
        "http_proxy_url": f"http://localhost:{proxy.port}",
    }
    try:
        async with (
            Plane(base_url="https://flyte.example.com:8443").session(**arguments) as session,
            library.client(session) as client,
        ):
            await session.login()
            with pytest.raises(RPC_ERRORS) as caught, anyio.fail_after(LIMIT):
                await client.call("say", "a", timeout=LIMIT)
    finally:
        proxy.stop()
    assert code_of(caught.value) == "unavailable"
    assert set(proxy.asked) == {b"CONNECT flyte.example.com:8443 HTTP/1.1"}


async def test_the_header_is_the_one_that_the_server_wants(
    library: Library, gate: Gate, port: int
) -> None:
    endpoint = f"http://localhost:{port}"
    gate.plane = plane = Plane(base_url=endpoint, faults={"custom-header-key"})
    gate.header = "flyte-authorization"
    async with plane.session(endpoint=endpoint) as session:
        await session.login()
        async with library.client(session) as client:
            with anyio.fail_after(LIMIT):
                assert await client.call("say", "a") == ["a"]
                gate.refuse_last()
                assert await client.call("say", "b") == ["b"]
    assert gate.codes == ["ok", "unauthenticated", "ok"]
    assert {tuple(seen.credentials) for seen in gate.seen} == {("flyte-authorization",)}


async def test_another_address_is_an_error_and_gets_nothing(
    library: Library, gate: Gate, port: int
) -> None:
    endpoint = "http://localhost:1"
    plane = Plane(base_url=endpoint)
    address = f"http://localhost:{port}"
    async with plane.session(endpoint=endpoint) as session:
        await session.login()
        with pytest.raises(ConfigError) as caught:
            async with library.client(session, address=address):
                raise AssertionError("there is no such client")
        assert caught.value.reason == "origins"
        assert gate.seen == []
        async with library.client(session, address=address, origins=[address]) as client:
            with anyio.fail_after(LIMIT):
                assert await client.call("say", "a") == ["a"]
    assert gate.tokens != [""]


async def test_many_calls_that_are_refused_at_once_share_a_renewal(world: World) -> None:
    await world.call("say")
    world.gate.refuse_last()
    kinds: list[Kind] = ["say", "count"]
    outcomes = await all_at_once(20, lambda: world.call(kinds[len(world.gate.seen) % 2]))
    assert all(outcome in (["a"], ["0", "1"]) for outcome in outcomes)
    assert world.refreshes == 1


@pytest.mark.parametrize("refused", ["say", "count"])
async def test_the_timeout_is_for_both_tries_and_what_is_between(
    world: World, refused: Kind
) -> None:
    """The renewal takes as long as it takes; the call does not."""
    await world.call("say")
    world.gate.refuse_last()
    release = threading.Event()

    async def stuck(name: str) -> None:
        await anyio.to_thread.run_sync(release.wait, LIMIT)

    world.plane.before = stuck
    # The first is refused, and needs time for that; the others wait for a token to begin with.
    for kind, timeout in ((refused, 1.0), *((kind, 0.05) for kind in KINDS)):
        with pytest.raises(RPC_ERRORS) as caught, anyio.fail_after(LIMIT):
            await world.client.call(kind, *TEXT[kind], timeout=timeout)
        assert code_of(caught.value) == "deadline_exceeded"
    release.set()
    assert world.gate.codes == ["ok", "unauthenticated"]
