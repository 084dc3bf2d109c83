"""
Every flow against oidc-provider, which is certified, and is as strict here as it can be: refresh
tokens rotate, reuse of one ends the login, nothing lives long, and redirect URIs are exact.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from flyteauth import Session
from flyteauth.errors import Expired, OAuth2Error, ReauthRequired
from flyteauth.events import LoggedIn, Refreshed
from flyteauth.integrations.httpx import Auth

from ..services import ROOT
from . import sessions
from .clocks import PassingClock
from .people import Page, Person, allow, visit
from .running import CLIENT_SECRET, Node
from .sessions import PERSON, kept_in, refused, service

pytestmark = pytest.mark.anyio

TOKEN_TTL, CODE_TTL = 60.0, 120.0
WHOAMI = "/me"
LIMIT = 60.0


def person(server: Node, who: Person | None = None, **more: Any) -> Session:
    return sessions.person(server, who, **{"clock": clock(server), **more})


def clock(server: Node, **more: Any) -> PassingClock:
    """One that agrees with *server* as it is now."""
    return PassingClock(server.passes(0), **more)


def subject(server: Node, headers: Mapping[str, str]) -> str | None:
    return sessions.subject(server, WHOAMI, headers)


def cancel(page: Page) -> dict[str, str] | str:
    """Log in, and refuse the rest."""
    return f"{urlsplit(page.url).path}/abort" if "consent" in page.fields.values() else allow(page)


def refuse_device(page: Page) -> dict[str, str] | None:
    """Look at the code, and press Cancel; after that another code is asked for."""
    if "confirm" not in page.fields:
        return allow(page) if page.fields["user_code"] else None
    return {**{name: page.fields[name] for name in ("xsrf", "user_code")}, "abort": "yes"}


class Since:
    """What the server has granted and refused from now on."""

    def __init__(self, server: Node) -> None:
        self._server = server
        self._from = len(server.journal())

    def __call__(self, event: str, grant_type: str | None = None) -> int:
        entries = self._server.journal()[self._from :]
        return sum(e[0] == event and grant_type in {None, e[1]} for e in entries)


class TestBrowser:
    @pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
    async def test_a_person_logs_in_and_is_known(self, oidc_provider: Node, host: str) -> None:
        who = Person()
        async with person(oidc_provider, who, redirect_uri=f"http://{host}/callback") as session:
            token = await session.login()
            assert token is not None
            assert token.refresh_token is not None
            assert subject(oidc_provider, await session.headers()) == "alice"
        page = await who.page()
        assert page.status == 200
        assert "alice" in page.text
        (logged_in,) = [event for event in who.seen if isinstance(event, LoggedIn)]
        assert logged_in.subject == "alice"
        assert logged_in.renews

    async def test_without_consent_a_login_does_not_renew_itself(self, oidc_provider: Node) -> None:
        who = Person()
        async with person(oidc_provider, who, extra_parameters={}) as session:
            token = await session.login()
            assert token is not None
            assert token.refresh_token is None
        assert [event.renews for event in who.seen if isinstance(event, LoggedIn)] == [False]

    async def test_who_cancels_is_told_so_on_both_sides(self, oidc_provider: Node) -> None:
        who = Person(lambda url: visit(url, cancel))
        async with person(oidc_provider, who) as session:
            with pytest.raises(OAuth2Error) as caught:
                await session.login()
        assert caught.value.error == "access_denied"
        assert "access_denied" in (await who.page()).text

    async def test_a_redirect_uri_that_is_not_registered_never_comes_back(
        self, oidc_provider: Node
    ) -> None:
        who = Person()
        async with person(oidc_provider, who, client_id="exact", login_timeout=1.0) as session:
            with pytest.raises(Expired, match="nobody logged in"):
                await session.login()
        page = await who.page()
        assert page.status == 400
        assert "redirect_uri" in page.text


class TestDevice:
    async def test_a_code_is_approved_elsewhere(self, oidc_provider: Node) -> None:
        who = Person()
        time = clock(oidc_provider, before=who.page)
        async with person(oidc_provider, who, auth_type="DeviceFlow", clock=time) as session:
            token = await session.login()
            assert token is not None
            assert token.refresh_token is not None
            assert subject(oidc_provider, await session.headers()) == "alice"
        assert "Sign-in Success" in (await who.page()).text

    async def test_a_code_that_is_refused_ends_the_login(self, oidc_provider: Node) -> None:
        who = Person(lambda url: visit(url, refuse_device))
        time = clock(oidc_provider, before=who.page)
        async with person(oidc_provider, who, auth_type="DeviceFlow", clock=time) as session:
            with pytest.raises(OAuth2Error) as caught:
                await session.login()
        assert caught.value.error == "access_denied"

    @pytest.mark.req("DEV-09")
    async def test_a_code_that_nobody_approves_expires(self, oidc_provider: Node) -> None:
        since = Since(oidc_provider)
        time = clock(oidc_provider)

        def fall_asleep(url: str) -> Page:
            oidc_provider.passes(CODE_TTL + 1)
            time.passed += CODE_TTL + 1
            return Page(url, 0, "")

        who = Person(fall_asleep)
        time.before = who.page
        async with person(oidc_provider, who, auth_type="DeviceFlow", clock=time) as session:
            with pytest.raises(Expired):
                await session.login()
        assert since("grant.error") == 0

    @pytest.mark.req("DEV-06")
    async def test_a_code_that_the_server_has_forgotten_ends_the_login(
        self, oidc_provider: Node
    ) -> None:
        def stay_away(url: str) -> Page:
            oidc_provider.passes(CODE_TTL + 1)
            return Page(url, 0, "")

        who = Person(stay_away)
        time = clock(oidc_provider, before=who.page)
        async with person(oidc_provider, who, auth_type="DeviceFlow", clock=time) as session:
            with pytest.raises(OAuth2Error) as caught:
                await session.login()
        assert caught.value.error == "invalid_grant"  # and not expired_token


class TestService:
    @pytest.mark.req("CCG-01", "CCG-02")
    @pytest.mark.parametrize("how", ["basic", "post"])
    async def test_a_secret_of_awkward_characters_is_understood(
        self, oidc_provider: Node, how: str
    ) -> None:
        since = Since(oidc_provider)
        async with service(
            oidc_provider, f"service {how}", client_secret=CLIENT_SECRET, client_auth=how
        ) as session:
            token = await session.token()
            assert token is not None
            assert token.refresh_token is None
        assert since("grant.success", "client_credentials") == 1

    async def test_a_wrong_secret_is_named_and_not_shown(self, oidc_provider: Node) -> None:
        wrong = f"not {CLIENT_SECRET}"
        async with service(oidc_provider, "service basic", client_secret=wrong) as session:
            with pytest.raises(OAuth2Error) as caught:
                await session.headers()
        assert caught.value.error == "invalid_client"
        assert wrong not in str(caught.value)


class TestRefresh:
    @pytest.mark.req("REF-02")
    async def test_a_token_that_has_expired_is_renewed_and_rotates(
        self, oidc_provider: Node
    ) -> None:
        who, time = Person(), clock(oidc_provider)
        async with person(oidc_provider, who, clock=time) as session:
            first = await session.login()
            oidc_provider.passes(TOKEN_TTL + 1)
            assert first is not None
            assert subject(oidc_provider, {"authorization": f"Bearer {first.access_token}"}) is None
            time.passed += TOKEN_TTL + 1
            assert subject(oidc_provider, await session.headers()) == "alice"
            second = await session.token()
            assert second is not None
            assert second.refresh_token not in {None, first.refresh_token}
        assert who.told(Refreshed) == 1

    async def test_a_clock_that_is_behind_costs_one_more_try(self, oidc_provider: Node) -> None:
        since = Since(oidc_provider)
        async with person(oidc_provider) as session:
            await session.login()
            oidc_provider.passes(TOKEN_TTL + 1)
            auth = Auth(session, origins=[oidc_provider.issuer])
            async with httpx.AsyncClient(auth=auth, trust_env=False) as client:
                response = await client.get(oidc_provider.issuer + WHOAMI)
        assert response.status_code == 200
        assert since("grant.success", "refresh_token") == 1

    async def test_a_stolen_refresh_token_ends_the_login_for_everybody(
        self, oidc_provider: Node, home: Path
    ) -> None:
        async with person(oidc_provider) as session:
            first = await session.login()
            assert first is not None
            assert first.refresh_token is not None
            await session.renew()
            assert kept_in(home) == 1
            headers = await session.headers()
            assert subject(oidc_provider, headers) == "alice"
            assert refused(oidc_provider, first.refresh_token)
            assert subject(oidc_provider, headers) is None
            session.reject(headers["authorization"].removeprefix("Bearer "))
            with pytest.raises(ReauthRequired, match="flyteauth login"):
                await session.headers()
        assert kept_in(home) == 0

    @pytest.mark.req("REF-06")
    @pytest.mark.parametrize(
        "processes", [4, *(pytest.param(n, marks=pytest.mark.servers) for n in (8, 16))]
    )
    async def test_processes_that_race_share_one_renewal(
        self, oidc_provider: Node, processes: int, anyio_backend: str
    ) -> None:
        async with person(oidc_provider) as session:
            await session.login()
        oidc_provider.passes(TOKEN_TTL + 1)
        since = Since(oidc_provider)
        answers = race(oidc_provider, processes, anyio_backend)
        assert [answer["status"] for answer in answers] == [200] * processes
        assert since("grant.success", "refresh_token") == 1
        assert since("grant.error") == since("grant.revoked") == 0
        assert len({answer["token"] for answer in answers}) == 1


class TestLogout:
    async def test_nothing_of_a_login_is_good_after_it(self, oidc_provider: Node) -> None:
        since = Since(oidc_provider)
        async with person(oidc_provider) as session:
            token = await session.login()
            assert token is not None
            assert token.refresh_token is not None
            outcome = await session.logout()
            assert outcome.local_deleted
            assert outcome.remote_revoked is True
        assert subject(oidc_provider, {"authorization": f"Bearer {token.access_token}"}) is None
        assert refused(oidc_provider, token.refresh_token)
        assert since("grant.revoked") == 1


def race(server: Node, processes: int, backend: str) -> list[dict[str, Any]]:
    """What so many processes come to that find one expired login at the same moment."""
    argv = [sys.executable, "-m", "tests.servers.racer", str(server.passes(0)), backend]
    argv += [server.issuer + WHOAMI, json.dumps({"issuer": server.issuer, **PERSON})]
    with ExitStack() as stack:
        racers = [stack.enter_context(racing(argv)) for _ in range(processes)]
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("\n")
            racer.stdin.flush()
        answers = [racer.communicate(timeout=LIMIT)[0] for racer in racers]
    return [json.loads(answer) for answer in answers]


@contextmanager
def racing(argv: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, env=environ, text=True) as process:
        try:
            yield process
        finally:
            process.kill()  # harmless if it has ended
