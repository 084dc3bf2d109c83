"""
Every flow against nanoidp, whose refresh tokens rotate as well: it takes a client's secret as it
is, and says Retry-After with everything, where it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from flyteauth.errors import Expired, OAuth2Error, ReauthRequired, Unreachable
from flyteauth.events import LoggedIn, Refreshed

from ..services import require
from .clocks import PassingClock
from .people import Page, Person, allow, visit
from .running import CLIENT_SECRET, Server, free_port, listening
from .sessions import kept_in, person, refused, service, subject

pytestmark = pytest.mark.anyio

WHOAMI = "/userinfo"
INTERVAL = 1


def nanoidp(folder: Path, **server: Any) -> AbstractContextManager[Server]:
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    people = {"client_id": "person", "token_endpoint_auth_method": "none"}
    settings = {
        "server": {"host": "127.0.0.1", "port": port, **server},
        "oauth": {
            "issuer": issuer,
            "token_expiry_minutes": 1,
            "refresh_token_rotation": True,
            "require_pkce": True,
            "scopes_supported": ["openid", "offline_access", "all"],
            "clients": [
                {**people, "redirect_uris": ["http://127.0.0.1/callback"]},
                {"client_id": "service", "client_secret": CLIENT_SECRET},
            ],
        },
        "device_flow": {"polling_interval": INTERVAL},
        "session": {"enforce_password_check": True},
    }
    users = {"users": {"alice": {"password": "an-alice"}}}
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    (folder / "users.yaml").write_text(yaml.safe_dump(users), "utf-8")
    program = require("nanoidp").with_name("nanoidp")
    argv = [str(program), "--config", str(folder), "--strict-config"]
    return listening(argv, port, folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with nanoidp(tmp_path_factory.mktemp("nanoidp")) as server:
        yield server


def decide(action: str) -> Any:
    """What a person presses who has been shown a code."""

    def press(page: Page) -> dict[str, str] | None:
        if "user_code" in page.fields and "password" in page.fields:
            return {**allow(page), "action": action}
        return None

    return press


async def test_a_person_logs_in_and_is_renewed_and_logs_out(server: Server, home: Path) -> None:
    who = Person()
    async with person(server, who) as session:
        first = await session.login()
        assert first is not None
        assert subject(server, WHOAMI, await session.headers()) == "alice"
        second = await session.renew()
        assert second is not None
        assert second.refresh_token not in {None, first.refresh_token}
        headers = await session.headers()
        assert subject(server, WHOAMI, headers) == "alice"
        assert kept_in(home) == 1
        outcome = await session.logout()
        assert outcome.remote_revoked is True
    assert subject(server, WHOAMI, headers) is None
    assert kept_in(home) == 0
    assert (who.told(LoggedIn), who.told(Refreshed)) == (1, 1)


@pytest.mark.parametrize(("action", "error"), [("authorize", ""), ("deny", "access_denied")])
async def test_a_code_is_decided_about_elsewhere(server: Server, action: str, error: str) -> None:
    who = Person(lambda url: visit(url, decide(action)))
    clock = PassingClock(before=who.page)
    async with person(server, who, auth_type="DeviceFlow", clock=clock) as session:
        if not error:
            await session.login()
            assert subject(server, WHOAMI, await session.headers()) == "alice"
        else:
            with pytest.raises(OAuth2Error) as caught:
                await session.login()
            assert caught.value.error == error


async def test_a_stolen_refresh_token_ends_the_login_for_everybody(
    server: Server, home: Path
) -> None:
    async with person(server) as session:
        first = await session.login()
        assert first is not None
        assert first.refresh_token is not None
        await session.renew()
        assert refused(server, first.refresh_token)
        assert kept_in(home) == 1
        with pytest.raises(ReauthRequired):
            await session.renew()
    assert kept_in(home) == 0


async def test_a_secret_goes_as_it_is_where_that_is_asked_for(server: Server) -> None:
    """RFC 6749 §2.3.1 wants it encoded, and not every server reads that."""
    more = {"client_secret": CLIENT_SECRET, "client_auth": "basic_raw"}
    async with service(server, "service", **more) as session:
        assert await session.token() is not None
    async with service(server, "service", client_secret=CLIENT_SECRET) as session:
        with pytest.raises(OAuth2Error) as caught:
            await session.token()
    assert caught.value.error == "invalid_client"


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Callable[[int], Server]]:
    """A server that answers so many token requests a minute."""
    with ExitStack() as stack:

        def start(requests: int) -> Server:
            folder = tmp_path / "nanoidp"
            folder.mkdir()
            limit = f"{requests}/minute"
            server = nanoidp(folder, rate_limit_enabled=True, rate_limit_token_endpoint=limit)
            return stack.enter_context(server)

        yield start


@pytest.mark.req("REF-09")
async def test_too_many_requests_put_a_renewal_off_and_end_nothing(
    limited: Callable[[int], Server], home: Path
) -> None:
    clock = PassingClock()
    async with person(limited(2), clock=clock) as session:
        await session.login()
        second = await session.renew()
        with pytest.raises(Unreachable) as caught:
            await session.renew()
        assert await session.token() == second
    assert caught.value.retry_after is not None
    assert 30 < caught.value.retry_after <= 60
    assert kept_in(home) == 1


@pytest.mark.req("DEV-05", "DEV-08")
async def test_polls_are_put_off_by_a_refusal_only(limited: Callable[[int], Server]) -> None:
    """It says Retry-After with every answer, and means it with 429. Nobody approves."""
    clock = PassingClock()
    who = Person(lambda url: Page(url, 0, ""))
    async with person(limited(2), who, auth_type="DeviceFlow", clock=clock) as session:
        with pytest.raises(Expired):
            await session.login()
    # Before two polls that are answered, and before one that is refused.
    assert clock.waited[:3] == pytest.approx([INTERVAL] * 3, abs=0.5)
    assert clock.waited[3] > 30
