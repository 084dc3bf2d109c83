"""The credentials on requests of aiohttp: where they go, and what a refusal leads to."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

import aiohttp
import aiohttp.abc
import anyio
import pytest

from flyteauth import auth_metadata
from flyteauth._sansio.flow import RequestFailed
from flyteauth.errors import ConfigError, InteractionRequired, ReauthRequired, Unreachable
from flyteauth.integrations.aiohttp import client as client_of
from flyteauth.session import Session
from tests.concurrency import all_at_once

from .plane import Plane
from .sites import STATUSES, Log, Sites, elsewhere, log, sites
from .test_cancellation import Counted, Places, cancelling
from .test_httpx import CUSTOM, PROXY, Proxied, logged_in, proxied

__all__ = ["log", "sites"]  # the fixtures

pytestmark = pytest.mark.anyio

KINDS = {"plain": ["authorization"], "custom": [CUSTOM], "proxied": ["authorization", PROXY]}
LIMIT = aiohttp.ClientTimeout(total=10.0)
DOMAIN = "dp.example.com"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # aiohttp knows no other


class Local(aiohttp.abc.AbstractResolver):
    """Every name is this machine, and every port *port*."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
        return [
            {
                "hostname": host,
                "host": "127.0.0.1",
                "port": self._port,
                "family": socket.AF_INET,
                "proto": 0,
                "flags": 0,
            }
        ]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def client_at(
    base: str, sites: Sites, kind: str = "plain", **arguments: Any
) -> AsyncIterator[tuple[aiohttp.ClientSession, Session, Plane]]:
    faults = {"flyte1-only", "custom-header-key"} if kind == "custom" else set()
    plane = Plane(base_url=base, faults=faults)
    make = proxied if kind == "proxied" else Plane.session
    connector = aiohttp.TCPConnector(ssl=sites.trust)
    async with make(plane, endpoint=base) as session:
        await session.login()
        async with client_of(session, connector=connector, timeout=LIMIT, **arguments) as client:
            yield client, session, plane


async def get(client: aiohttp.ClientSession, url: str, **arguments: Any) -> int:
    async with client.get(url, **arguments) as response:
        await response.read()
        return response.status


async def post(client: aiohttp.ClientSession, url: str, **arguments: Any) -> int:
    async with client.post(url, **arguments) as response:
        await response.read()
        return response.status


@pytest.fixture
def base(sites: Sites) -> str:
    return sites.url("plain")


# Where the credentials go.


@pytest.mark.req("BRR-04")
@pytest.mark.parametrize("kind", KINDS)
@elsewhere
async def test_no_status_takes_a_credential_to_another_origin(
    sites: Sites, log: Log, endpoint: str, target: str, kind: str
) -> None:
    base = sites.url(endpoint)
    log.moved["/tasks"] = f"{sites.url(target)}/there"
    async with client_at(base, sites, kind) as (client, _, _):
        for log.status in STATUSES:
            assert await post(client, f"{base}/tasks", data=b"body") == 200
    assert log.seen == [("/tasks", KINDS[kind]), ("/there", [])] * len(STATUSES)


@pytest.mark.req("BRR-04")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("endpoint", ["plain", "tls"])
async def test_at_the_same_origin_every_status_keeps_it(
    sites: Sites, log: Log, endpoint: str, kind: str
) -> None:
    base = sites.url(endpoint)
    log.moved.update({"/tasks": "/relative", "/relative": f"{base}/absolute"})
    async with client_at(base, sites, kind) as (client, _, _):
        for log.status in STATUSES:
            assert await post(client, f"{base}/tasks", data=b"body") == 200
    expected = [(path, KINDS[kind]) for path in ("/tasks", "/relative", "/absolute")]
    assert log.seen == expected * len(STATUSES)


@pytest.mark.req("BRR-04")
@pytest.mark.parametrize("kind", KINDS)
async def test_there_and_back_again_it_is_not_what_it_was(
    sites: Sites, log: Log, base: str, kind: str
) -> None:
    other = sites.url("other")
    log.moved.update({"/tasks": f"{other}/there", "/there": f"{base}/back"})
    async with client_at(base, sites, kind) as (client, _, _):
        await get(client, f"{base}/tasks")
        await get(client, f"{other}/there")
        await get(client, f"{base}/next")
    assert log.seen == [
        ("/tasks", KINDS[kind]),
        *[("/there", []), ("/back", [])] * 2,
        ("/next", KINDS[kind]),
    ]


@pytest.mark.req("BRR-04")
async def test_requests_side_by_side_are_told_apart(sites: Sites, log: Log, base: str) -> None:
    log.moved["/tasks"] = f"{sites.url('other')}/there"
    async with client_at(base, sites) as (client, _, _):
        paths = [f"{base}/{'tasks' if number % 2 else 'stay'}" for number in range(20)]
        async with anyio.create_task_group() as group:
            for path in paths:
                group.start_soon(get, client, path)
    assert sorted(log.seen) == sorted(
        [("/tasks", ["authorization"]), ("/there", []), ("/stay", ["authorization"])] * 10
    )


@pytest.mark.req("BRR-03")
async def test_the_data_plane_and_what_is_named_get_it_and_nobody_else(
    sites: Sites, log: Log, base: str
) -> None:
    plane = Plane(base_url=base, dataplane_domain=DOMAIN)
    connector = aiohttp.TCPConnector(ssl=False, resolver=Local(sites.tls.port))
    async with (
        logged_in(plane, endpoint=base) as session,
        client_of(
            session, origins=["https://files.example.com"], connector=connector, timeout=LIMIT
        ) as client,
    ):
        for number, host in enumerate(
            [
                DOMAIN,
                f"CLUSTER.{DOMAIN}",
                "files.example.com",
                f"{DOMAIN}:8443",
                f"evil-{DOMAIN}",
                f"{DOMAIN}.evil.example",
                "bucket.example.com",
            ]
        ):
            assert await get(client, f"https://{host}/{number}") == 200
    given = [("authorization" in names) for _, names in log.seen]
    assert given == [True] * 3 + [False] * 4


async def test_a_request_to_elsewhere_waits_for_no_login(sites: Sites, log: Log, base: str) -> None:
    own = {"authorization": "Bearer its-own"}
    async with (
        Plane(base_url=base).session(endpoint=base) as session,
        client_of(session, timeout=LIMIT) as client,
    ):
        await get(client, f"{sites.url('other')}/x", headers=own)
        with pytest.raises(InteractionRequired):
            await get(client, f"{base}/x")
    assert log.values == [own]


@pytest.mark.req("BRR-01")
async def test_a_header_of_the_callers_own_is_an_error_before_anything_is_sent(
    sites: Sites, log: Log, base: str
) -> None:
    async with client_at(base, sites) as (client, _, _):
        with pytest.raises(ConfigError, match="'authorization' of its own") as wrong:
            await get(client, f"{base}/x", headers={"AUTHORIZATION": "Bearer b3du"})
        assert "b3du" not in str(wrong.value)
    assert log.seen == []


@pytest.mark.req("BRR-04")
async def test_a_client_that_lost_its_trace_sends_no_credential_and_says_so(
    sites: Sites, log: Log, base: str
) -> None:
    async with client_at(base, sites) as (client, _, _):
        client.trace_configs.clear()
        with pytest.raises(ConfigError, match="trace"):
            await get(client, f"{base}/x")
    assert log.seen == []


async def test_the_clients_own_middlewares_and_traces_stay(
    sites: Sites, log: Log, base: str
) -> None:
    called: list[str] = []

    async def middleware(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
        called.append("middleware")
        assert "authorization" not in request.headers
        response: aiohttp.ClientResponse = await handler(request)
        return response

    async def ended(*arguments: object) -> None:
        called.append("trace")

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(ended)
    made = client_at(base, sites, middlewares=[middleware], trace_configs=[trace])
    async with made as (client, _, _):
        await get(client, f"{base}/x")
    assert called == ["middleware", "trace"]
    assert log.seen == [("/x", ["authorization"])]


async def test_a_web_socket_gets_it_too(sites: Sites, log: Log, base: str) -> None:
    async with client_at(base, sites) as (client, _, _):
        with pytest.raises(aiohttp.WSServerHandshakeError):  # these servers know of none
            await client.ws_connect(f"{base.replace('http', 'ws')}/socket")
    assert log.seen == [("/socket", ["authorization"])]


# What a refusal leads to.


async def chunks() -> AsyncIterator[bytes]:
    yield b"once"


# Without its length it would be chunked, which these servers do not read.
FOUR = {"content-length": "4"}


@pytest.mark.req("BRR-07", "BRR-10")
@pytest.mark.parametrize("body", ["none", "bytes", "json", "file", "form", "pipe"])
async def test_a_401_costs_one_renewal_and_one_more_try_where_the_body_can_be_sent_again(
    sites: Sites, log: Log, base: str, body: str
) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "none": {},
        "bytes": {"data": b"bytes"},
        "json": {"json": {"a": 1}},
        "file": {"data": BytesIO(b"open")},
        "form": {"data": {"a": "b"}},
        "pipe": {"data": chunks(), "headers": FOUR},
    }
    replayed = body != "pipe"
    async with client_at(base, sites) as (client, session, plane):
        old = (await session.headers())["authorization"]
        log.refused.add(old)
        assert await post(client, f"{base}/tasks", **bodies[body]) == (200 if replayed else 401)
        assert await get(client, f"{base}/tasks") == 200
        new = (await session.headers())["authorization"]
    assert new != old
    sent = [old, new, new] if replayed else [old, new]
    assert [values["authorization"] for values in log.values] == sent
    if replayed:
        assert log.bodies[0] == log.bodies[1]
    assert plane.asked["refresh_token"] == 1


@pytest.mark.req("BRR-07")
async def test_a_server_that_refuses_everything_is_asked_at_most_twice(
    sites: Sites, log: Log, base: str
) -> None:
    async with client_at(base, sites) as (client, _, plane):
        log.refuses_all = "/tasks"
        for number in range(1, 6):
            async with client.get(f"{base}/tasks") as response:
                assert (response.status, await response.read()) == (401, b"refused")
            assert len(log.seen) == number + 1  # for it does not help
    assert plane.asked["refresh_token"] == 1


@pytest.mark.req("BRR-07")
async def test_a_401_from_elsewhere_is_not_about_the_token(
    sites: Sites, log: Log, base: str
) -> None:
    log.moved["/tasks"] = f"{sites.url('other')}/there"
    log.refuses_all = "/there"
    async with client_at(base, sites) as (client, session, plane):
        before = await session.headers()
        assert await get(client, f"{base}/tasks") == 401
        assert await session.headers() == before
    assert [path for path, _ in log.seen] == ["/tasks", "/there"]
    assert plane.asked["refresh_token"] == 0


@pytest.mark.req("BRR-12")
async def test_a_407_renews_the_proxy_credential_and_no_token(
    sites: Sites, log: Log, base: str
) -> None:
    async with client_at(base, sites, "proxied") as (client, session, plane):
        assert isinstance(session, Proxied)
        log.refused.add("Bearer proxy-1")
        assert await get(client, f"{base}/tasks") == 200
    assert [values[PROXY] for values in log.values] == ["Bearer proxy-1", "Bearer proxy-2"]
    assert plane.asked["refresh_token"] == 0


@pytest.mark.req("BRR-11")
@pytest.mark.parametrize("replayable", [False, True])
async def test_a_renewal_that_fails_for_now_is_raised_and_is_no_logout(
    sites: Sites, log: Log, base: str, replayable: bool
) -> None:
    async with client_at(base, sites) as (client, session, plane):
        log.refused.add((await session.headers())["authorization"])

        async def down(name: str) -> RequestFailed | None:
            return plane.down() if name == "refresh_token" else None

        plane.before = down
        if replayable:
            with pytest.raises(Unreachable):
                await post(client, f"{base}/tasks", data=b"x")
        else:  # the 401 says more than that nothing can be renewed now
            assert await post(client, f"{base}/tasks", data=chunks(), headers=FOUR) == 401
        plane.before = None
        assert await get(client, f"{base}/tasks") == 200


@pytest.mark.req("BRR-11")
async def test_a_login_that_is_over_is_said_to_be(sites: Sites, log: Log, base: str) -> None:
    async with client_at(base, sites) as (client, session, plane):
        log.refused.add((await session.headers())["authorization"])
        plane.plane = Plane(base_url=base, refresh_ttl=1.0).plane  # which knows nothing of it
        for _ in range(2):
            with pytest.raises(ReauthRequired):
                await get(client, f"{base}/tasks")
    assert len(log.seen) == 1


@pytest.mark.req("BRR-07", "NET-03")
async def test_a_long_401_is_not_read(sites: Sites, log: Log, base: str) -> None:
    async with client_at(base, sites) as (client, session, _):
        log.refused.add((await session.headers())["authorization"])
        log.refusal = b" " * 10_000_000
        try:
            assert await get(client, f"{base}/tasks") == 200
        finally:
            log.refusal = b"refused"


@pytest.mark.req("BRR-07", "REF-05")
async def test_twenty_requests_that_meet_a_401_share_one_renewal(
    sites: Sites, log: Log, base: str
) -> None:
    async with client_at(base, sites) as (client, session, plane):
        log.refused.add((await session.headers())["authorization"])
        assert await all_at_once(20, lambda: get(client, f"{base}/tasks")) == [200] * 20
    assert plane.asked["refresh_token"] == 1


async def test_with_a_token_in_hand_the_session_is_asked_for_nothing(
    sites: Sites, log: Log, base: str
) -> None:
    async with client_at(base, sites) as (client, session, plane):
        await get(client, f"{base}/tasks")
        plane.asked.clear()
        for _ in range(5):
            await get(client, f"{base}/tasks")
    assert plane.asked.total() == 0


@pytest.mark.req("BRR-04")
async def test_what_a_caller_brings_along_goes_no_further_either(
    sites: Sites, log: Log, base: str
) -> None:
    log.moved["/tasks"] = f"{sites.url('other')}/there"
    async with (
        Session(endpoint=base, auth_type="Passthrough") as session,
        client_of(session, timeout=LIMIT) as client,
    ):
        with auth_metadata(("x-token", "Bearer mine")):
            await get(client, f"{base}/tasks")
    assert log.values == [{"x-token": "Bearer mine"}, {}]


@pytest.mark.req("REF-13", "CLK-07")
async def test_a_request_can_be_cancelled_wherever_it_waits_and_the_next_one_works(
    sites: Sites, log: Log, base: str
) -> None:
    for how in ("scope", "task"):
        at, more = 0, True
        while more:
            places = Places()
            log.refused.clear()  # each plane makes the same tokens
            async with client_at(base, sites) as (client, session, plane):
                assert await get(client, f"{base}/tasks") == 200
                log.refused.add((await session.headers())["authorization"])
                places.at = at
                await cancelling(how, Counted(get(client, f"{base}/tasks"), places), places)
                more = places.count > at
                assert await get(client, f"{base}/tasks") == 200
            assert plane.asked["refresh_token"] <= 1
            at += 1
        assert at >= 4


def test_without_the_library_the_import_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "try: import flyteauth.integrations.aiohttp\n"
        "except ImportError as error: assert 'pip install -U aiohttp' in str(error)\n"
        "else: raise SystemExit(1)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
