"""Logging in at oauth2-mock-server, and token endpoints that misbehave in ways that were met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from flyteauth.errors import FlowError, InvalidResponse, OAuth2Error, Unreachable
from flyteauth.session import Session

from . import sessions
from .clocks import PassingClock
from .people import Person
from .running import Node, node
from .sessions import kept_in

pytestmark = pytest.mark.anyio

HTML = "<html><body>Please log in to the network</body></html>"
IS_HTML = {"content-type": "text/html"}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node("oauth2-mock-server.mjs", tmp_path_factory.mktemp("oauth2-mock-server")) as server:
        yield server


@pytest.fixture
def server(started: Node) -> Node:
    """One that answers as it should until it is told otherwise."""
    started.then()
    return started


def person(server: Node, **more: Any) -> Session:
    return sessions.person(server, scopes=["openid"], **more)


async def test_a_person_logs_in_and_is_renewed(server: Node) -> None:
    who = Person()
    async with person(server, who=who) as session:
        first = await session.login()
        second = await session.renew()
    assert first is not None
    assert second is not None
    assert second.refresh_token not in {None, first.refresh_token}
    assert "johndoe" in (await who.page()).text


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [("3600", 3600.0), (None, None), (3600.0, 3600.0)],
    ids=["text", "missing", "fraction"],
)
async def test_a_lifetime_is_read_however_it_is_written(
    server: Node, expires_in: object, lifetime: float | None
) -> None:
    server.then({"body": {"expires_in": expires_in}})
    async with person(server) as session:
        token = await session.login()
        assert token is not None
        if lifetime is None:
            assert token.expires_at is None
        else:
            assert token.expires_at == token.obtained_at + lifetime
        assert await session.token() == token


async def test_members_that_are_not_ours_change_nothing(server: Node) -> None:
    more = {"token_type": "bearer", "expires_at": 1, "obtained_at": 1, "created_at": 1, "iat": "x"}
    server.then({"body": more})
    async with person(server) as session:
        token = await session.login()
        assert token is not None
        assert token.expires_at == token.obtained_at + 3600
        assert (await session.headers())["authorization"] == f"Bearer {token.access_token}"


@pytest.mark.req("REF-08", "REF-09", "REF-10", "REF-14")
@pytest.mark.parametrize(
    "answer",
    [
        {"status": 503, "headers": IS_HTML, "body": HTML},
        {"status": 503, "headers": {**IS_HTML, "retry-after": "7"}, "body": ""},
        {"status": 429, "body": {"error": "slow_down"}},
        {"status": 502, "headers": IS_HTML, "body": HTML},
        {"status": 500, "body": {"error": "server_error"}},
        {"status": 200, "headers": IS_HTML, "body": HTML},
        {"status": 200, "body": {"access_token": None}},
        {"status": 403, "headers": IS_HTML, "body": HTML},
        {"status": 400, "headers": {"content-type": "text/plain"}, "body": ""},
    ],
    ids=lambda answer: f"{answer['status']}-{type(answer['body']).__name__}",
)
async def test_a_renewal_that_fails_for_now_keeps_the_login(
    server: Node, home: Path, answer: Mapping[str, object]
) -> None:
    clock = PassingClock()
    async with person(server, clock=clock) as session:
        first = await session.login()
        clock.passed += 4000
        server.then(*[answer] * 10)
        with pytest.raises(FlowError) as caught:
            await session.headers()
        assert "\n" not in str(caught.value)
        assert kept_in(home) == 1
        server.then()
        clock.passed += 60
        second = await session.token()
        assert first is not None
        assert second is not None
        assert second.refresh_token not in {None, first.refresh_token}


async def test_one_retry_saves_a_renewal(server: Node) -> None:
    clock = PassingClock()
    async with person(server, clock=clock) as session:
        await session.login()
        before = len(server.journal())
        clock.passed += 4000
        server.then({"status": 503, "headers": IS_HTML, "body": HTML})
        assert await session.token() is not None
    assert server.journal()[before:] == ["refresh_token"] * 2


async def test_an_error_with_status_200_is_an_error(server: Node) -> None:
    server.then({"status": 200, "body": {"access_token": None, "error": "access_denied"}})
    async with person(server) as session:
        with pytest.raises(OAuth2Error) as caught:
            await session.login()
    assert caught.value.error == "access_denied"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"status": 200, "body": {"access_token": 7}}, InvalidResponse),
        ({"status": 200, "body": {"token_type": "mac"}}, InvalidResponse),
        ({"status": 200, "headers": IS_HTML, "body": HTML}, (InvalidResponse, Unreachable)),
        ({"status": 401, "body": {"error": "invalid_client"}}, OAuth2Error),
    ],
)
async def test_a_login_that_comes_to_nothing_says_why(
    server: Node, home: Path, answer: Mapping[str, object], kind: Any
) -> None:
    server.then(*[answer] * 10)
    async with person(server) as session:
        with pytest.raises(kind):
            await session.login()
    assert kept_in(home) == 0
