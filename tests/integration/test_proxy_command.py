"""
proxyCommand: a proxy with a login of its own before everything, such as Google's IAP.

It lets nobody through who does not show what its command prints just now, and tells so in one of
two ways; the control plane behind it never learns of that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from flyteauth._io import command as command_module
from flyteauth._io.store.memory import MemoryStore
from flyteauth._sansio.flow import RequestFailed, ResponseReceived
from flyteauth._sansio.http import Request, Response
from flyteauth._sansio.record import Record
from flyteauth.devserver.visitor import visit
from flyteauth.errors import ConfigError, FlowError, InvalidResponse, Unreachable
from flyteauth.events import AuthEvent, BrowserNeeded, CodeNeeded
from flyteauth.session import Session
from tests.concurrency import all_at_once
from tests.io.test_browser import Line

from .plane import ENDPOINT, START, Person, Plane
from .test_external_command import Printer, stay

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="the commands here are POSIX scripts"),
]

LIMIT = 20.0
PROJECTS = "/flyteidl2.project.ProjectService/ListProjects"
USER_INFO = "/flyteidl2.auth.IdentityService/UserInfo"
PAGE = b"<html><title>Sign in</title>"
REFUSALS = {
    "407": Response(407, (("content-type", "text/html"),), PAGE),
    "iap": Response(401, (("x-goog-iap-generated-response", "true"),), b"Invalid IAP credentials"),
}


class Guarded(Plane):
    """A control plane behind a proxy that wants ``wanted``, or nothing where that is None."""

    def __init__(self, refusal: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.wanted: str | None = "proxy-1"
        self.refused = 0
        self.sent: list[Request] = []
        self._refusal = REFUSALS[refusal]

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        self.sent.append(request)
        shown = [value for name, value in request.headers if name == "proxy-authorization"]
        if self.wanted is not None and shown != [f"Bearer {self.wanted}"]:
            self.refused += 1
            now = self.clock.time()
            return ResponseReceived(self._refusal, now, now)
        inside = tuple(pair for pair in request.headers if pair[0] != "proxy-authorization")
        return await super().send(Request(request.method, request.url, inside, request.body))

    def grants(self, kind: str) -> list[Request]:
        return [request for request in self.sent if f"grant_type={kind}".encode() in request.body]


class Notebook(MemoryStore):
    """Remembers all that was ever put into it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    async def save(self, key: str, record: Record) -> None:
        self.written += [key, record.dump()]
        await super().save(key, record)

    async def swap(self, key: str, old: Record | None, new: Record) -> bool:
        self.written += [key, new.dump()]
        return await super().swap(key, old, new)


@pytest.fixture(params=REFUSALS)
def plane(request: pytest.FixtureRequest) -> Guarded:
    return Guarded(request.param, access_ttl=1000.0)


@pytest.fixture
def printer(tmp_path: Path) -> Printer:
    printer = Printer(tmp_path / "printer")
    printer.prints("proxy-1")
    return printer


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path / "line")
    yield line
    line.close()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_module, "TERM_GRACE", 0.3)


def through(plane: Guarded, printer: Printer, kind: str = "DeviceFlow", **more: Any) -> Session:
    return plane.session(kind, proxy_command=printer.argv, **more)


def rotate(plane: Guarded, printer: Printer, name: str) -> None:
    plane.wanted = name
    printer.prints(name)


# Everything goes through it.


@pytest.mark.req("BRR-12")
async def test_a_whole_life_by_device_flow_goes_through_the_proxy(
    plane: Guarded, printer: Printer
) -> None:
    store, person = Notebook(), Person(plane.plane)
    async with through(plane, printer, store=store, presenter=person) as session:
        token = await session.login()
        assert token is not None
        assert (await session.call(PROJECTS, {}))["projects"]
        plane.clock.now += 2000
        assert await session.whoami() is not None
        headers = dict(await session.headers())
        assert (await session.logout()).remote_revoked
    assert headers.pop("proxy-authorization") == "Bearer proxy-1"
    assert list(headers) == ["authorization"]
    assert plane.refused == 0
    assert printer.runs == 1
    assert plane.asked["device_code"] >= 1
    assert plane.asked["refresh_token"] == 1
    assert plane.asked["/oauth2/revoke"] == 2
    for request in plane.sent:
        assert "proxy-1" not in (request.header("authorization") or "")
        assert b"proxy-1" not in request.body
        assert "proxy-1" not in request.url
    assert "proxy-1" not in repr((store.written, person.seen))


@pytest.mark.req("BRR-12")
async def test_so_does_a_login_in_a_browser(plane: Guarded, printer: Printer) -> None:
    """The browser itself logs in to the proxy in its own way."""

    class Visitor:
        async def show(self, event: AuthEvent) -> None:
            if isinstance(event, BrowserNeeded):
                response = plane.plane.handle(Request("GET", event.url, (), b""), plane.clock.now)
                place = response.header("location")
                assert place is not None
                group.start_soon(partial(anyio.to_thread.run_sync, visit, place))

    session = through(
        plane, printer, "Pkce", presenter=Visitor(), redirect_uri="http://localhost/callback"
    )
    async with anyio.create_task_group() as group, session:
        assert await session.login() is not None
        assert (await session.call(PROJECTS, {}))["projects"]
    assert plane.refused == 0
    assert plane.asked["authorization_code"] == 1


@pytest.mark.req("BRR-12")
async def test_so_does_a_service(plane: Guarded, printer: Printer) -> None:
    async with through(plane, printer, "ClientSecret") as session:
        assert (await session.call(PROJECTS, {}))["projects"]
        headers = await session.headers()
    assert plane.refused == 0
    assert headers["proxy-authorization"] == "Bearer proxy-1"
    assert plane.asked["client_credentials"] == 1


@pytest.mark.req("BRR-12")
async def test_so_does_a_command_and_each_is_run_for_its_own(
    plane: Guarded, printer: Printer, tmp_path: Path
) -> None:
    async with through(plane, printer, "ClientSecret") as service:
        token = await service.token()
    assert token is not None
    own = Printer(tmp_path / "own")
    own.prints(token.access_token)
    async with through(plane, printer, "ExternalCommand", command=own.argv) as session:
        assert (await session.call(PROJECTS, {}))["projects"]
        assert await session.headers() == {
            "authorization": f"Bearer {token.access_token}",
            "proxy-authorization": "Bearer proxy-1",
        }
        rotate(plane, printer, "proxy-2")
        assert (await session.call(PROJECTS, {}))["projects"]
    assert own.runs == 1


async def test_an_anonymous_control_plane_may_stand_behind_one(printer: Printer) -> None:
    plane = Guarded("iap", faults={"no-auth"})
    async with through(plane, printer) as session:
        assert await session.headers() == {"proxy-authorization": "Bearer proxy-1"}
        assert (await session.call(PROJECTS, {}))["projects"]
    assert plane.refused == 0


@pytest.mark.parametrize("kind", ["NoAuth", "Passthrough"])
async def test_authtypes_without_a_token_have_it_too(
    kind: str, plane: Guarded, printer: Printer
) -> None:
    from flyteauth import auth_metadata

    async with through(plane, printer, kind) as session:
        with auth_metadata(("x-tenant", "blue")):
            headers = dict(await session.headers())
    assert headers.pop("proxy-authorization") == "Bearer proxy-1"
    assert headers == ({} if kind == "NoAuth" else {"x-tenant": "blue"})


# When it is refused.


@pytest.mark.req("BRR-12")
@pytest.mark.parametrize("refusal", REFUSALS)
async def test_its_token_may_change_before_any_request_and_one_rerun_heals_that(
    refusal: str, printer: Printer
) -> None:
    """Before the first in one life, before the second in the next, until there are no more."""
    for at in range(20):
        plane, runs = Guarded(refusal, access_ttl=1000.0), printer.runs
        plane.wanted = f"proxy-{at}"
        printer.prints(plane.wanted)
        send = plane.send

        async def changing(request: Request, at: int = at, plane: Guarded = plane) -> Any:
            if len(plane.sent) == at:
                rotate(plane, printer, f"proxy-{at}-too")
            return await send(request)  # noqa: B023

        plane.send = changing  # type: ignore[method-assign]
        person = Person(plane.plane)
        async with through(plane, printer, presenter=person) as session:
            token = await session.login()
            assert (await session.call(PROJECTS, {}))["projects"]
            plane.clock.now += 2000
            assert await session.token() != token
            assert (await session.logout()).remote_revoked
        assert person.saw(CodeNeeded) == 1
        assert plane.asked["refresh_token"] == 1
        assert plane.asked["/oauth2/revoke"] == 2
        if at >= len(plane.sent):
            break
        assert plane.refused in {1, 2}  # both questions of discovery are asked at once
        assert printer.runs == runs + 2
    assert at > 6


@pytest.mark.req("BRR-12")
async def test_a_proxy_that_never_lets_us_through_costs_no_login(
    plane: Guarded, printer: Printer
) -> None:
    store, person = Notebook(), Person(plane.plane)
    async with through(plane, printer, store=store, presenter=person) as session:
        token = await session.login()
        plane.wanted = "what no command prints"
        store.written.clear()
        plane.sent.clear()
        for _ in range(3):
            with pytest.raises(FlowError) as raised:
                await session.call(PROJECTS, {})
            assert "proxy-1" not in str(raised.value)
            assert await session.token() == token
        assert plane.grants("refresh_token") == []
        assert store.written == []
        plane.clock.now += 2000
        with pytest.raises(Unreachable):  # and not: the login is over
            await session.headers()
        assert store.written == []
        rotate(plane, printer, "proxy-2")
        plane.clock.now += 100
        assert (await session.call(PROJECTS, {}))["projects"]
    assert person.saw(CodeNeeded) == 1


async def test_a_proxy_that_refuses_everything_does_not_storm_its_command(
    plane: Guarded, printer: Printer
) -> None:
    plane.wanted = "what no command prints"
    async with through(plane, printer, "ClientSecret") as session:
        for _ in range(5):
            with pytest.raises(FlowError):
                await session.headers()
    assert printer.runs <= 3


@pytest.mark.req("BRR-12")
async def test_a_caller_who_was_refused_himself_may_say_so(
    plane: Guarded, printer: Printer
) -> None:
    async with through(plane, printer) as session:
        await session.login()
        before = await session.headers()
        rotate(plane, printer, "proxy-2")
        assert session.cached_headers() == before
        session.reject_proxy()
        assert session.cached_headers() is None
        after = await session.headers()
    assert after["proxy-authorization"] == "Bearer proxy-2"
    assert after["authorization"] == before["authorization"]
    assert plane.grants("refresh_token") == []


async def test_a_rejected_token_of_the_user_is_no_business_of_the_proxys_command(
    plane: Guarded, printer: Printer
) -> None:
    async with through(plane, printer) as session:
        token = await session.login()
        assert token is not None
        session.reject(token.access_token)
        assert await session.token() != token
    assert printer.runs == 1


async def test_many_calls_that_the_proxy_refuses_run_its_command_once(
    plane: Guarded, printer: Printer
) -> None:
    async with through(plane, printer) as session:
        await session.login()
        rotate(plane, printer, "proxy-2")
        replies = await all_at_once(30, partial(session.call, PROJECTS, {}))
    assert all(reply["projects"] for reply in replies)
    assert printer.runs == 2


# How long it lasts.


async def test_it_is_kept_until_it_says_and_both_expiries_count(
    plane: Guarded, printer: Printer
) -> None:
    printer.expiring("proxy-1", START + 300)
    async with through(plane, printer) as session:
        await session.login()
        for _ in range(3):
            await session.headers()
        assert printer.runs == 1
        token = await session.token()
        plane.clock.now += 400
        printer.expiring("proxy-2", START + 10_000)
        plane.wanted = "proxy-2"
        headers = await session.headers()
        assert headers["proxy-authorization"] == "Bearer proxy-2"
        assert await session.token() == token
        plane.clock.now += 1000
        assert await session.token() != token
    assert printer.runs == 2


async def test_a_command_that_fails_says_whose_it_is_and_costs_no_login(
    plane: Guarded, printer: Printer
) -> None:
    store = Notebook()
    async with through(plane, printer, store=store) as session:
        token = await session.login()
        store.written.clear()
        session.reject_proxy()
        printer.does("echo no ticket >&2; exit 3")
        with pytest.raises(Unreachable, match=r"no ticket.*admin\.proxyCommand") as raised:
            await session.headers()
        assert raised.value.reason == "command"
        with pytest.raises(Unreachable, match=r"admin\.proxyCommand"):
            await session.call(PROJECTS, {})
        assert await session.token() == token
        assert store.written == []
        printer.does(":")
        assert await session.headers()


@pytest.mark.parametrize(
    ("printed", "expected"), [("", InvalidResponse), ("one\ntwo", InvalidResponse)]
)
async def test_without_a_token_for_the_proxy_nothing_is_sent(
    plane: Guarded, printer: Printer, printed: str, expected: type[FlowError]
) -> None:
    printer.prints(printed)
    async with through(plane, printer) as session:
        with pytest.raises(expected, match=r"admin\.proxyCommand"):
            await session.login()
    assert plane.sent == []


async def test_a_command_that_is_not_there_is_a_wrong_setting(plane: Guarded) -> None:
    async with plane.session("DeviceFlow", proxy_command=["flyteauth-no-such"]) as session:
        with pytest.raises(ConfigError, match=r"admin\.proxyCommand"):
            await session.login()


async def test_when_a_session_is_closed_its_command_ends(
    plane: Guarded, printer: Printer, line: Line
) -> None:
    printer.does(stay(line))
    outcomes: list[Any] = []
    session = through(plane, printer, "ClientSecret")
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:

            async def wait() -> None:
                outcomes.extend(await all_at_once(3, session.headers))

            group.start_soon(wait)
            await line.up()
            await session.aclose()
            assert not line.alive()
    assert [type(outcome) for outcome in outcomes] == [Unreachable] * 3
    assert printer.runs == 1


async def test_when_every_caller_is_cancelled_it_ends_and_the_next_one_runs_it(
    plane: Guarded, printer: Printer, line: Line
) -> None:
    async with through(plane, printer, "NoAuth") as session:
        printer.does(stay(line))
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(session.headers)
            await line.up()
            group.cancel_scope.cancel()
        await line.gone()
        printer.does(":")
        assert await session.headers() == {"proxy-authorization": "Bearer proxy-1"}


@pytest.mark.req("SEC-04")
async def test_the_command_does_not_see_our_secrets(
    printer: Printer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = Guarded("407")
    seen = home / "seen"
    printer.does(f"env >{seen}")
    monkeypatch.setenv("THE_SECRET", f"canary{plane.plane.service_client[1]}")
    path = home / "config.yaml"
    path.write_text(
        f"admin:\n  endpoint: {ENDPOINT}\n  clientId: someone\n  clientSecretEnvVar: THE_SECRET\n"
        f"  proxyCommand: {json.dumps(printer.argv)}\n"
    )
    session = Session.from_config(path, auth_type="ClientSecret")
    session._life._given = plane, MemoryStore(), None
    async with session:
        with pytest.raises(FlowError):
            await session.headers()
    assert "PATH=" in seen.read_text()
    assert "canary" not in seen.read_text()
