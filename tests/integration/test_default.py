"""
The process-wide default session and its blocking twin: from a program without an event loop,
inside a running one, and from many threads and loops at once.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

import flyteauth
import flyteauth._default
from flyteauth import SyncSession, _lifetime as lifetime_module, current_session, remote
from flyteauth._io.clock import SystemClock
from flyteauth._io.portal import call
from flyteauth._io.store.file import FileStore
from flyteauth._io.store.memory import MemoryStore
from flyteauth._io.transport import HttpxTransport
from flyteauth._sansio.api_key import ApiKey
from flyteauth._sansio.flow import RequestFailed, ResponseReceived
from flyteauth._sansio.http import Request
from flyteauth.devserver.serve import Running
from flyteauth.devserver.visitor import visit
from flyteauth.errors import ConfigError, InteractionRequired, ReauthRequired
from flyteauth.events import AuthEvent, BrowserNeeded, CodeNeeded, LoggedIn, Warned
from flyteauth.session import Session

from .plane import ENDPOINT, Person, Plane

pytestmark = pytest.mark.anyio

LIMIT = 20.0
PROJECTS = "/flyteidl2.project.ProjectService/ListProjects"

Init = Callable[..., Awaitable[Session]]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody has called init before, nobody is at a terminal, and no browser opens."""
    monkeypatch.setenv("BROWSER", "true")
    monkeypatch.setattr("sys.stdin", None)
    flyteauth._default._current = None
    yield
    if (left := flyteauth._default._current) is not None:
        call(left.aclose)
    flyteauth._default._current = None


def blocking(function: Callable[..., SyncSession]) -> Init:
    """Called as it is, in the middle of the running event loop, which it blocks."""

    async def inside(*args: Any, **arguments: Any) -> Session:
        return function(*args, **arguments).session

    return inside


INIT: dict[str, Init] = {"ainit": flyteauth.ainit, "init": blocking(flyteauth.init)}
FROM_CONFIG: dict[str, Init] = {
    "ainit": flyteauth.ainit_from_config,
    "init": blocking(flyteauth.init_from_config),
}
FROM_API_KEY: dict[str, Init] = {
    "ainit": flyteauth.ainit_from_api_key,
    "init": blocking(flyteauth.init_from_api_key),
}


@pytest.fixture(params=["ainit", "init"])
def which(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def of(plane: Plane, **arguments: Any) -> dict[str, Any]:
    """Arguments of init that make it talk to *plane*, and to a person who approves everything."""
    return {
        "transport": plane,
        "clock": plane.clock,
        "store": MemoryStore(),
        "presenter": Person(plane.plane),
        **arguments,
    }


def written(home: Path, running: Running, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration file of a service."""
    client_id, secret = running.plane.service_client
    monkeypatch.setenv("THE_SECRET", secret)
    path = home / "somewhere.yaml"
    path.write_text(
        f"admin:\n  endpoint: {running.base_url}\n  authType: ClientSecret\n"
        f"  clientId: {client_id}\n  clientSecretEnvVar: THE_SECRET\n"
        "task:\n  project: flytesnacks\n  domain: development\n"
    )
    return path


# Beginning.


def test_before_init_there_is_no_session() -> None:
    with pytest.raises(ConfigError, match="init") as error:
        current_session()
    assert error.value.reason == "not_initialized"
    with pytest.raises(ConfigError):
        list(remote.Project.listall())


async def test_headless_really_is_device_flow(which: str) -> None:
    plane = Plane()
    arguments = of(plane, endpoint=ENDPOINT)
    session = await INIT[which](headless=True, **arguments)
    assert current_session() is session
    assert plane.asked["/oauth2/device_authorization"] == 1
    assert plane.asked["device_code"] >= 1
    assert plane.asked["authorization_code"] == 0
    assert arguments["presenter"].saw(CodeNeeded) == 1
    assert arguments["presenter"].saw(BrowserNeeded) == 0
    before = plane.asked.total()
    assert (await session.headers())["authorization"].startswith("Bearer ")
    assert plane.asked.total() == before  # the token was in hand


async def test_headless_login_over_real_sockets_blocks_and_returns(running: Running) -> None:
    session = flyteauth.init(endpoint=running.base_url, headless=True, disable_keyring=True)
    assert session.headers()["authorization"].startswith("Bearer ")
    assert running.plane.count(path="/oauth2/device_authorization", status=200) == 1
    assert running.plane.count(path="/oauth2/authorize") == 0


async def test_a_configuration_file_is_enough(
    which: str, running: Running, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await FROM_CONFIG[which](written(home, running, monkeypatch))
    assert current_session() is session
    assert running.plane.count(grant_type="client_credentials") == 1
    assert (await session.call(PROJECTS, {}))["projects"]
    await session.aclose()


async def test_init_without_arguments_looks_for_the_configuration(
    which: str, running: Running, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYTECTL_CONFIG", str(written(home, running, monkeypatch)))
    session = await INIT[which]()
    assert (await session.settings()).project == "flytesnacks"
    assert await session.headers()
    await session.aclose()


@pytest.mark.parametrize("variable", ["FLYTE_API_KEY", "UNION_API_KEY", None])
async def test_an_api_key_is_enough(
    which: str, variable: str | None, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is None:
        session = await FROM_API_KEY[which](running.api_key)
    else:
        monkeypatch.setenv(variable, running.api_key)
        session = await FROM_API_KEY[which]()
    assert current_session() is session
    assert (await session.call(PROJECTS, {}))["projects"]
    await session.aclose()


ELSEWHERE = ApiKey("elsewhere.example", "ci", "c4nary").encode()


@pytest.mark.parametrize("given", ["argument", "environment"])
async def test_the_secret_of_another_control_plane_s_api_key_is_not_sent(
    which: str, given: str, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(running.plane.journal)
    arguments = {"endpoint": running.base_url}
    if given == "argument":
        begin = partial(INIT[which], api_key=ELSEWHERE, **arguments)
    else:
        monkeypatch.setenv("FLYTE_API_KEY", ELSEWHERE)
        begin = partial(FROM_CONFIG[which], **arguments)
    with pytest.raises(ConfigError, match=r"elsewhere\.example.*; leave out the endpoint"):
        await begin()
    assert len(running.plane.journal) == before


async def test_a_file_that_names_another_control_plane_than_the_api_key_is_warned_of(
    which: str, running: Running, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It serves people, perhaps, and the key a machine."""
    file = home / "theirs.yaml"
    file.write_text("admin: {endpoint: elsewhere.example}\n")
    monkeypatch.setenv("FLYTE_API_KEY", running.api_key)
    told: list[AuthEvent] = []
    session = await FROM_CONFIG[which](file, on_event=told.append)
    assert (await session.call(PROJECTS, {}))["projects"]
    await session.aclose()
    (warning,) = [event for event in told if isinstance(event, Warned)]
    assert f"goes before elsewhere.example ({file}: admin.endpoint)" in warning.message


async def test_without_an_api_key_the_error_says_where_it_may_be(which: str) -> None:
    with pytest.raises(ConfigError, match="FLYTE_API_KEY"):
        await FROM_API_KEY[which]()
    with pytest.raises(ConfigError):
        current_session()


async def test_lazy_puts_everything_off_until_the_first_use(which: str) -> None:
    plane = Plane()
    session = await INIT[which](
        lazy=True, **of(plane, endpoint=ENDPOINT, headless=True, project="p", domain="d")
    )
    assert current_session() is session
    assert plane.asked.total() == 0
    assert await session.headers()
    assert plane.asked["/oauth2/device_authorization"] == 1


async def test_lazy_without_a_person_fails_at_the_first_use(which: str) -> None:
    plane = Plane()
    session = await INIT[which](lazy=True, **of(plane, endpoint=ENDPOINT))
    with pytest.raises(InteractionRequired):
        await session.headers()


@pytest.mark.req("REF-12")
async def test_without_a_person_nothing_is_opened_or_bound_and_the_error_comes_at_once(
    which: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = home / "opened"
    monkeypatch.setenv("BROWSER", f"touch {opened}")
    plane = Plane()
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        # Whoever binds this port gets another error.
        uri = f"http://127.0.0.1:{stranger.getsockname()[1]}/callback"
        arguments = of(plane, endpoint=ENDPOINT, auth_type="Pkce", redirect_uri=uri)
        begun = time.monotonic()
        with pytest.raises(InteractionRequired, match="flyteauth login") as error:
            await INIT[which](**arguments)
        assert time.monotonic() - begun < 0.8
    assert "\n" not in str(error.value)
    assert arguments["presenter"].seen == []
    assert plane.closed
    assert not opened.exists()
    with pytest.raises(ConfigError):
        current_session()


async def test_a_second_init_replaces_the_first_and_one_that_fails_does_not(which: str) -> None:
    first, second, third = Plane(), Plane(), Plane()
    one = await INIT[which](headless=True, **of(first, endpoint=ENDPOINT))
    with pytest.raises(InteractionRequired):
        await INIT[which](**of(third, endpoint=ENDPOINT))
    assert current_session() is one
    assert not first.closed
    two = await INIT[which](headless=True, **of(second, endpoint=ENDPOINT))
    assert current_session() is two
    assert first.closed
    assert not second.closed


def test_the_blocking_twins_are_named_and_documented_like_what_they_block_on() -> None:
    for name in ("init", "init_from_config", "init_from_api_key"):
        twin, original = getattr(flyteauth, name), getattr(flyteauth, f"a{name}")
        assert twin.__name__ == name
        assert twin.__doc__ == original.__doc__


# The control plane's lists.


@pytest.mark.parametrize("given", [True, False], ids=["a session", "the default session"])
async def test_lists_are_iterated_with_for_and_with_async_for(given: bool, which: str) -> None:
    plane = Plane()
    arguments = of(plane, endpoint=ENDPOINT, project="flytesnacks", domain="development")
    session = await INIT[which](headless=True, **arguments)
    if given:
        flyteauth._default._current = None
    chosen = session if given else None
    listings: list[Callable[[], remote.Listing[Any]]] = [
        partial(remote.Project.listall, session=chosen),
        partial(remote.Task.listall, session=chosen),
        partial(remote.Task.listall, "flytesnacks", "development", session=chosen),
        partial(remote.App.listall, session=chosen),
    ]
    for listing in listings:
        found = [item async for item in listing()]
        assert found
        assert list(listing()) == found
        assert all(item.name for item in found)
    await session.aclose()


async def test_a_list_of_an_unnamed_project_says_what_to_name() -> None:
    plane = Plane()
    await flyteauth.ainit(headless=True, **of(plane, endpoint=ENDPOINT))
    with pytest.raises(ConfigError, match="project") as error:
        list(remote.Task.listall())
    assert error.value.reason == "project"
    with pytest.raises(ConfigError, match="domain"):
        [task async for task in remote.Task.listall(project="flytesnacks")]


# Blocking.


def blocking_story(plane: Plane, person: Person) -> None:
    with SyncSession(
        endpoint=ENDPOINT,
        auth_type="DeviceFlow",
        transport=plane,
        clock=plane.clock,
        store=MemoryStore(),
        presenter=person,
    ) as session:
        assert session.settings().auth_type == "DeviceFlow"
        with pytest.raises(InteractionRequired):
            session.headers()
        token = session.login()
        assert token is not None
        assert session.token() == token
        assert session.headers() == {"authorization": f"Bearer {token.access_token}"}
        assert session.call(PROJECTS, {})["projects"]
        who = session.whoami()
        assert who is not None
        assert who.subject
        session.reject(token.access_token)
        assert session.token() != token
        outcome = session.logout()
        assert outcome.local_deleted
        assert outcome.remote_revoked
        with pytest.raises(ReauthRequired):
            session.headers()
        assert isinstance(session.session, Session)
    assert plane.closed


def test_a_program_without_an_event_loop_has_the_whole_session() -> None:
    plane = Plane()
    person = Person(plane.plane)
    blocking_story(plane, person)
    assert person.saw(LoggedIn) == 1


async def test_inside_a_running_loop_as_well() -> None:
    plane = Plane()
    blocking_story(plane, Person(plane.plane))
    await anyio.to_thread.run_sync(blocking_story, plane, Person(plane.plane))


class Visitor:
    """A person whose browser follows every redirect, on a thread."""

    def __init__(self) -> None:
        self._browser: threading.Thread | None = None

    async def show(self, event: AuthEvent) -> None:
        if isinstance(event, BrowserNeeded):
            self._browser = threading.Thread(target=visit, args=(event.url,), daemon=True)
            self._browser.start()

    def leave(self) -> None:
        assert self._browser is not None
        self._browser.join(LIMIT)


class Tomorrow(SystemClock):
    """Time goes on, but somewhere else: what was issued an hour ago has expired."""

    def time(self) -> float:
        return super().time() + 4000.0


class Late(HttpxTransport):
    """Sends no refresh before it may."""

    def __init__(self, may: threading.Event) -> None:
        super().__init__(clock=Tomorrow())
        self._may = may

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        if b"grant_type=refresh_token" in request.body:
            assert await anyio.to_thread.run_sync(self._may.wait, LIMIT)
        return await super().send(request)


@pytest.mark.req("REF-05")
@pytest.mark.parametrize("shared", [True, False], ids=["one session", "a session each"])
def test_eight_threads_and_two_event_loops_share_one_refresh(
    shared: bool, running: Running, home: Path
) -> None:
    arguments: dict[str, Any] = {
        "endpoint": running.base_url,
        "auth_type": "Pkce",
        "redirect_uri": "http://127.0.0.1/callback",
    }
    visitor = Visitor()
    with SyncSession(store=FileStore(home / "logins"), presenter=visitor, **arguments) as first:
        old = first.login()
    visitor.leave()
    assert old is not None

    all_wait = threading.Event()

    def make() -> Session:
        store, clock = FileStore(home / "logins"), Tomorrow()
        return Session(store=store, clock=clock, transport=Late(all_wait), **arguments)

    one = make()
    outcomes: list[object] = []

    async def use() -> object:
        if shared:
            return dict(await one.headers())
        async with make() as session:
            return dict(await session.headers())

    def use_and_block() -> object:
        if shared:
            return dict(SyncSession(of=one).headers())
        with SyncSession(of=make()) as session:
            return dict(session.headers())

    def note(function: Callable[[], object]) -> None:
        try:
            outcomes.append(function())
        except Exception as error:  # noqa: BLE001
            outcomes.append(error)

    users: list[Callable[[], object]] = [
        *[use_and_block] * 8,
        lambda: asyncio.run(use()),
        lambda: trio.run(use),
    ]
    threads = [threading.Thread(target=note, args=(user,), daemon=True) for user in users]
    for thread in threads:
        thread.start()
    wait_for(lambda: waiting() == len(users))
    all_wait.set()
    for thread in threads:
        thread.join(LIMIT)
    call(one.aclose)
    assert running.plane.count(grant_type="refresh_token") == 1
    assert len(outcomes) == len(users)
    assert all(outcome == outcomes[0] for outcome in outcomes), outcomes
    assert outcomes[0] != {"authorization": f"Bearer {old.access_token}"}
    assert isinstance(outcomes[0], dict)


def waiting() -> int:
    """How many wait for a refresh that is on its way."""
    works = list(lifetime_module.FLIGHTS._works.values())
    return sum(work.waiting for work in works if not work.done)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)
