"""authType Passthrough and NoAuth: nothing of ours, and nothing kept."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest

import flyteauth
import flyteauth._default
from flyteauth import SyncSession, auth_metadata, current_session, remote
from flyteauth._io.portal import call
from flyteauth.devserver.serve import Running
from flyteauth.errors import ConfigError, FlowError
from flyteauth.events import Warned
from flyteauth.session import Session
from tests.concurrency import all_at_once

from .plane import ENDPOINT, Person, Plane
from .test_session import SpyStore

pytestmark = pytest.mark.anyio

PROJECTS = "/flyteidl2.project.ProjectService/ListProjects"
CANARY = "canary-0123456789"


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    flyteauth._default._current = None
    yield
    if (left := flyteauth._default._current) is not None:
        call(left.aclose)
    flyteauth._default._current = None


def bearer(token: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {token}")


async def issued(plane: Plane) -> str:
    """A token that the control plane takes."""
    async with plane.session("ClientSecret") as service:
        token = await service.token()
    assert token is not None
    plane.asked.clear()
    plane.requests.clear()
    return token.access_token


# Within and without.


async def test_within_the_callers_metadata_goes_with_every_call_and_nothing_else_is_asked() -> None:
    plane, store = Plane(), SpyStore()
    person = Person(plane.plane)
    token = await issued(plane)
    async with plane.session("Passthrough", store=store, presenter=person) as session:
        with auth_metadata(bearer(token), ("x-tenant", "blue")):
            assert (await session.call(PROJECTS, {}))["projects"]
            assert await session.whoami() is not None
            assert await session.headers() == dict([bearer(token), ("x-tenant", "blue")])
            assert await session.token() is None
            assert session.cached_headers() is None
    assert plane.asked.total() == 2
    assert {request.header("x-tenant") for request in plane.requests} == {"blue"}
    assert store.calls == []
    assert person.seen == []


async def test_without_it_the_error_says_how_to_write_it_and_nothing_is_sent() -> None:
    plane, store = Plane(), SpyStore()
    async with plane.session("Passthrough", store=store) as session:
        with auth_metadata(bearer("x")):
            await session.headers()
        for ask in (session.headers, session.token, session.whoami):
            with pytest.raises(ConfigError, match=r"with flyteauth\.auth_metadata") as raised:
                await ask()
            assert raised.value.reason == "auth_metadata"
    assert plane.asked.total() == 0
    assert store.calls == []


async def test_without_any_pair_nothing_is_sent_along() -> None:
    plane = Plane(faults={"no-auth"})
    async with plane.session("Passthrough") as session:
        with auth_metadata():
            assert await session.headers() == {}
            assert (await session.call(PROJECTS, {}))["projects"]


async def test_the_innermost_holds_and_the_outer_one_comes_back_even_after_an_error() -> None:
    async with Plane().session("Passthrough") as session:
        with auth_metadata(bearer("outer"), ("x-outer", "1")):
            with suppress(ZeroDivisionError), auth_metadata(bearer("inner")):
                assert await session.headers() == dict([bearer("inner")])
                raise ZeroDivisionError
            assert await session.headers() == dict([bearer("outer"), ("x-outer", "1")])


async def test_a_name_is_the_same_in_any_case_and_the_last_one_holds() -> None:
    async with Plane().session("Passthrough") as session:
        with auth_metadata(("Authorization", "one"), ("AUTHORIZATION", "two")):
            assert await session.headers() == {"authorization": "two"}


async def test_a_refused_call_is_told_once_and_never_tried_again() -> None:
    plane, store = Plane(), SpyStore()
    async with plane.session("Passthrough", store=store) as session:
        with auth_metadata(bearer(CANARY)):
            with pytest.raises(FlowError) as raised:
                await session.call(PROJECTS, {})
            session.reject(CANARY)
            session.reject("")
            assert await session.headers() == dict([bearer(CANARY)])
    assert raised.value.reason == "unauthenticated"
    assert CANARY not in f"{raised.value!r} {raised.value}"
    assert plane.asked.total() == 1
    assert store.calls == []


async def test_there_is_no_login_and_no_logout() -> None:
    plane, store = Plane(), SpyStore()
    async with plane.session("Passthrough", store=store) as session:
        with pytest.raises(ConfigError, match="no login of its own"):
            await session.login()
    assert store.calls == []
    assert plane.asked.total() == 0


@pytest.mark.parametrize("auth_type", ["Passthrough", "NoAuth"])
async def test_a_logout_without_a_login_of_our_own_leaves_that_of_a_person_alone(
    auth_type: str,
) -> None:
    plane, store = Plane(), SpyStore()
    async with plane.session(store=store) as session:
        theirs = await session.login()
    plane.asked.clear()
    store.calls.clear()
    async with plane.session(auth_type, store=store) as session:
        outcome = await session.logout()
    assert (outcome.local_deleted, outcome.remote_revoked) == (False, None)
    assert store.calls == []
    assert plane.asked.total() == 0
    async with plane.session(store=store) as session:
        assert await session.token() == theirs


# Whose it is.


async def test_each_task_has_its_own() -> None:
    plane = Plane()
    async with plane.session("Passthrough") as session:
        found: dict[str, Any] = {}
        both = anyio.Event()

        async def one(name: str) -> None:
            with auth_metadata(bearer(name)):
                found[name] = None
                if len(found) == 2:
                    both.set()
                await both.wait()  # the other one is within its own by now
                found[name] = await session.headers()
                with pytest.raises(FlowError):
                    await session.call(PROJECTS, {})

        async with anyio.create_task_group() as group:
            for name in ("alice", "bob"):
                group.start_soon(one, name)
        with pytest.raises(ConfigError):
            await session.headers()
    assert found == {name: dict([bearer(name)]) for name in ("alice", "bob")}
    sent = [request.header("authorization") for request in plane.requests]
    assert sorted(map(str, sent)) == ["Bearer alice", "Bearer bob"]


async def test_what_is_started_within_has_it_and_keeps_it() -> None:
    async with Plane().session("Passthrough") as session:
        started, left = anyio.Event(), anyio.Event()
        found: list[Any] = []

        async def child() -> None:
            started.set()
            await left.wait()
            found.append(await session.headers())

        async with anyio.create_task_group() as group:
            with auth_metadata(bearer("theirs")):
                group.start_soon(child)
                await started.wait()
                found.extend(await all_at_once(3, session.headers))
            left.set()
    assert found == [dict([bearer("theirs")])] * 4


async def test_a_worker_thread_has_it_and_a_thread_of_its_own_has_not() -> None:
    async with Plane().session("Passthrough") as session:
        blocking = SyncSession(of=session)
        with auth_metadata(bearer("theirs")):
            inside = await anyio.to_thread.run_sync(blocking.headers)
            outcomes: list[Any] = []

            def alone() -> None:
                try:
                    outcomes.append(blocking.headers())
                except ConfigError as error:
                    outcomes.append(error)

            context = contextvars.Context()
            await anyio.to_thread.run_sync(partial(context.run, alone))
    assert inside == dict([bearer("theirs")])
    assert isinstance(outcomes[0], ConfigError)


def test_many_threads_each_have_their_own_through_the_one_portal() -> None:
    plane = Plane()
    found: dict[str, Any] = {}
    barrier = threading.Barrier(8)
    with SyncSession(of=plane.session("Passthrough")) as session:

        def one(name: str) -> None:
            with auth_metadata(bearer(name)):
                barrier.wait(20)
                found[name] = [session.headers() for _ in range(5)]

        threads = [threading.Thread(target=one, args=(str(number),)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert found == {str(number): [dict([bearer(str(number))])] * 5 for number in range(8)}


# What a header can carry.


@pytest.mark.req("BRR-01", "SEC-02")
@pytest.mark.parametrize(
    "pair",
    [
        ("", CANARY),
        ("bad name", CANARY),
        ("bad:name", CANARY),
        ("bad\nname", CANARY),
        ("ünsichtbar", CANARY),
        ("authorization", ""),
        ("authorization", f"Bearer {CANARY}\r\nx-evil: 1"),
        ("authorization", f"Bearer {CANARY}\n"),
        ("authorization", f" {CANARY}"),
        ("authorization", f"Bearer {CANARY}\x00"),
        ("authorization", f"Bärer {CANARY}"),
    ],
)
async def test_what_no_header_can_carry_is_refused_without_being_repeated(
    pair: tuple[str, str],
) -> None:
    with pytest.raises(ConfigError) as raised, auth_metadata(pair):
        pass
    assert raised.value.reason == "auth_metadata"
    assert CANARY not in str(raised.value)


# The default session.


async def test_init_passthrough_needs_no_credentials_and_makes_no_call() -> None:
    plane, store = Plane(), SpyStore()
    token = await issued(plane)
    arguments: dict[str, Any] = {"transport": plane, "clock": plane.clock, "store": store}
    session = await flyteauth.ainit_passthrough(ENDPOINT, **arguments)
    assert current_session() is session
    assert plane.asked.total() == 0
    with auth_metadata(bearer(token)):
        projects = [project async for project in remote.Project.listall()]
    assert projects
    with pytest.raises(ConfigError):
        [project async for project in remote.Project.listall()]
    assert set(plane.asked) == {PROJECTS}
    assert store.calls == []


def test_a_blocking_program_lists_its_projects_over_real_sockets(running: Running) -> None:
    client_id, secret = running.plane.service_client
    with SyncSession(
        endpoint=running.base_url, client_id=client_id, client_secret=secret
    ) as service:
        token = service.token()
    assert token is not None
    before = len(running.plane.journal)
    session = flyteauth.init_passthrough(running.base_url)
    with flyteauth.auth_metadata(bearer(token.access_token)):
        assert list(remote.Project.listall())
    with remote.auth_metadata(bearer("wrong")), pytest.raises(FlowError) as raised:
        list(remote.Project.listall())
    assert raised.value.reason == "unauthenticated"
    with pytest.raises(ConfigError):
        list(remote.Project.listall())
    session.close()
    assert [entry.path for entry in running.plane.journal[before:]] == [PROJECTS] * 2


async def test_the_control_plane_may_come_from_the_configuration(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYTE_ADMIN_ENDPOINT", running.base_url)
    monkeypatch.setenv("FLYTE_AUTH_TYPE", "Pkce")
    monkeypatch.setenv("FLYTE_API_KEY", running.api_key)
    session = await flyteauth.ainit_passthrough()
    assert (await session.settings()).auth_type == "Passthrough"
    with auth_metadata(bearer("x")):
        assert await session.headers() == dict([bearer("x")])
    await session.aclose()


# NoAuth.


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"endpoint": "http://flyte.example.com:8080"},
        {"endpoint": "flyte.example.com:80", "insecure": True},
        {"endpoint": "https://flyte.example.com", "insecure_skip_verify": True},
    ],
)
async def test_noauth_asks_nobody_and_touches_nothing(arguments: dict[str, Any]) -> None:
    plane, store = Plane(base_url="http://flyte.example.com:8080"), SpyStore()
    person = Person(plane.plane)
    async with plane.session("NoAuth", store=store, presenter=person, **arguments) as session:
        assert await session.headers() == {}
        assert session.cached_headers() == {}
        assert await session.token() is None
        assert await session.login() is None
        session.reject("")
        assert await session.headers() == {}
    assert plane.asked.total() == 0
    assert store.calls == []
    assert person.seen == []


async def test_noauth_calls_a_remote_control_plane_once_with_no_credentials() -> None:
    remote_plane = "http://flyte.example.com:8080"
    plane, store = Plane(base_url=remote_plane, faults={"no-auth"}), SpyStore()
    person = Person(plane.plane)
    async with plane.session(
        "NoAuth", endpoint=remote_plane, store=store, presenter=person
    ) as session:
        assert (await session.call(PROJECTS, {}))["projects"]
    assert plane.asked.total() == 1
    assert store.calls == []
    assert person.saw(Warned) == 0


async def test_noauth_that_is_refused_asks_once_and_says_so() -> None:
    plane, store = Plane(), SpyStore()
    async with plane.session("NoAuth", store=store) as session:
        for _ in range(3):
            with pytest.raises(FlowError) as raised:
                await session.call(PROJECTS, {})
    assert raised.value.reason == "unauthenticated"
    assert plane.asked == {PROJECTS: 3}
    assert store.calls == []


async def test_noauth_sends_what_an_anonymous_plane_needs_over_real_sockets(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYTE_API_KEY", running.api_key)
    async with Session.from_config(auth_type="NoAuth", endpoint=running.base_url) as session:
        assert await session.headers() == {}
    assert running.plane.journal == []
