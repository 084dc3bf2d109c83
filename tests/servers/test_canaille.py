"""
Logging in at canaille, whose redirect URIs are exact even on loopback, which wants a nonce, and
which cannot make two tokens of one login within one second.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flyteauth.errors import OAuth2Error, Unreachable
from flyteauth.session import Session, Token

from ..services import require
from . import sessions
from .people import Page, Person, allow, visit
from .running import CLIENT_SECRET, Server, free_port, speaking
from .sessions import kept_in, service, subject

pytestmark = pytest.mark.anyio

WHOAMI = "/oauth/userinfo"
PATIENCE = 20
REDIRECT_URI = f"http://127.0.0.1:{free_port()}/callback"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    script = Path(__file__).with_name("canaille_server.py")
    argv = [str(require("canaille")), str(script), REDIRECT_URI]
    folder = tmp_path_factory.mktemp("canaille")
    with speaking(argv, folder, CLIENT_SECRET=CLIENT_SECRET) as server:
        yield server


def deciding(answer: str) -> Person:
    """Somebody who logs in, and then gives that answer."""

    def decide(page: Page) -> dict[str, str]:
        if {"login", "password"} & page.fields.keys():
            return {**allow(page), "answer": ""}
        return {**page.fields, "answer": answer}

    return Person(lambda url: visit(url, decide))


def person(server: Server, **more: Any) -> Session:
    more = {"who": deciding("accept"), "redirect_uri": REDIRECT_URI, **more}
    return sessions.person(server, scopes=["openid", "profile"], **more)


async def test_a_person_logs_in_and_is_renewed_and_logs_out(server: Server, home: Path) -> None:
    async with person(server) as session:
        first = await patiently(session.login)
        assert subject(server, WHOAMI, await session.headers()) == "alice"
        second = await patiently(session.renew)
        assert second.access_token != first.access_token
        headers = await session.headers()
        assert subject(server, WHOAMI, headers) == "alice"
        assert kept_in(home) == 1
        outcome = await session.logout()
        assert outcome.remote_revoked is False  # a client without a secret may not
        assert outcome.local_deleted
    assert kept_in(home) == 0


async def test_who_refuses_is_told_so(server: Server) -> None:
    async with person(server, who=deciding("deny")) as session:
        with pytest.raises(OAuth2Error) as caught:
            await session.login()
    assert caught.value.error == "access_denied"


async def test_an_error_for_two_tokens_in_one_second_ends_nothing(
    server: Server, home: Path
) -> None:
    async with person(server) as session:
        await patiently(session.login)
        for _ in range(2):
            await patiently(session.renew)
            assert subject(server, WHOAMI, await session.headers()) == "alice"
    assert kept_in(home) == 1


async def patiently(ask: Callable[[], Awaitable[Token | None]]) -> Token:
    """What *ask* brings, at the latest when another second has begun."""
    for _ in range(PATIENCE):
        try:
            token = await ask()
        except Unreachable:
            continue
        assert token is not None
        return token
    raise AssertionError("there is never a token")


async def test_a_service_logs_in(server: Server) -> None:
    async with service(
        server, "service", client_secret=CLIENT_SECRET, client_auth="basic_raw", scopes=["profile"]
    ) as session:
        await patiently(session.token)
