"""Workload identities: credentials that are rotated under a running program, and fleets of it."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import evolve

import flyteauth
import flyteauth._default
from flyteauth._io.flights import Flights
from flyteauth._io.store import Store
from flyteauth._io.store.file import FileStore
from flyteauth._io.store.memory import MemoryStore
from flyteauth._io.store.redis import RedisStore
from flyteauth._sansio.flow import ResponseReceived
from flyteauth._sansio.http import Request, Response
from flyteauth._sansio.record import Record
from flyteauth.errors import ConfigError, FlowError, OAuth2Error, StoreError
from flyteauth.session import Session
from tests.concurrency import all_at_once
from tests.io.valkey import shared_for

from .plane import ENDPOINT, Person, Plane

pytestmark = pytest.mark.anyio

PROJECTS = "/flyteidl2.project.ProjectService/ListProjects"
GRANT = "client_credentials"


class SpyStore(MemoryStore):
    """Notes each key that it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: set[str] = set()

    async def load(self, key: str) -> Record | None:
        self.keys.add(key)
        return await super().load(key)

    async def save(self, key: str, record: Record) -> None:
        self.keys.add(key)
        await super().save(key, record)

    async def swap(self, key: str, old: Record | None, new: Record) -> bool:
        self.keys.add(key)
        return await super().swap(key, old, new)

    async def delete(self, key: str) -> None:
        self.keys.add(key)
        await super().delete(key)


def register(plane: Plane, client_id: str, secret: str) -> str:
    """Let the server know a client by this secret and no other; its API key."""
    clients = plane.plane._server.clients
    registration = evolve(clients.service, client_id=client_id, client_secret=secret)
    clients._by_id[client_id] = registration
    return b64encode(f"{ENDPOINT}:{client_id}:{secret}:None".encode()).decode()


class Configured:
    """A configuration file, and the file of the secret that it names."""

    def __init__(self, home: Path) -> None:
        self.path = home / "config.yaml"
        self.secret = home / "secret"
        self.names("ci")

    def names(self, client_id: str) -> None:
        self.path.write_text(
            f"admin:\n  endpoint: {ENDPOINT}\n  authType: ClientSecret\n"
            f"  clientId: {client_id}\n  clientSecretLocation: {self.secret}\n"
        )

    def session(self, plane: Plane, store: Store | None = None, **more: Any) -> Session:
        session = Session.from_config(self.path, presenter=Person(plane.plane), **more)
        session._life._given = plane, store or MemoryStore(), None
        session._life._clock = plane.clock
        return session


@pytest.fixture
def configured(home: Path) -> Configured:
    return Configured(home)


async def token_of(session: Session) -> str:
    token = await session.token()
    assert token is not None
    return token.access_token


# Rotation.


@pytest.mark.req("CCG-08")
async def test_the_next_grant_takes_the_secret_that_is_in_the_file_by_then(
    configured: Configured,
) -> None:
    plane = Plane(access_ttl=100.0)
    register(plane, "ci", "the first")
    configured.secret.write_text("the first\n")
    async with configured.session(plane) as session:
        first = await token_of(session)
        register(plane, "ci", "the second")
        configured.secret.write_text("the second\n")
        assert await token_of(session) == first
        plane.clock.now += 200
        assert await token_of(session) != first
    assert plane.asked[GRANT] == 2


@pytest.mark.req("CCG-08")
async def test_a_secret_that_changes_while_it_is_sent_is_tried_once_more(
    configured: Configured,
) -> None:
    plane = Plane()
    register(plane, "ci", "the second")
    configured.secret.write_text("the first\n")

    async def rotate(name: str) -> None:
        if name == GRANT:
            configured.secret.write_text("the second\n")

    plane.before = rotate
    async with configured.session(plane) as session:
        assert await session.headers()
    assert plane.asked[GRANT] == 2


@pytest.mark.req("CCG-04", "CCG-08")
async def test_a_wrong_secret_is_sent_once_and_can_be_put_right_without_a_restart(
    configured: Configured,
) -> None:
    plane = Plane()
    register(plane, "ci", "the right one")
    configured.secret.write_text("canary-the-wrong-one\n")
    async with configured.session(plane) as session:
        with pytest.raises(OAuth2Error) as raised:
            await session.headers()
        assert raised.value.error == "invalid_client"
        assert "canary" not in str(raised.value)
        assert plane.asked[GRANT] == 1
        configured.secret.write_text("the right one\n")
        assert await session.headers()


async def test_another_client_in_the_file_is_who_asks_next(configured: Configured) -> None:
    plane, store = Plane(access_ttl=100.0), SpyStore()
    register(plane, "ci", "a secret")
    register(plane, "cd", "a secret")
    configured.secret.write_text("a secret")
    told: list[Any] = []
    async with configured.session(plane, store, on_token_change=told.append) as session:
        first = await token_of(session)
        configured.names("cd")
        plane.clock.now += 200
        second = await token_of(session)
        access = plane.plane.access(second, plane.clock.now)
        assert access is not None
        assert "cd" in repr(access)
        assert await token_of(session) == second
        assert (await session.settings()).client_id == "cd"
        assert (await session.logout()).local_deleted
        assert await token_of(session) not in {first, second}
    assert len(store.keys) == 2
    assert len(told) == 4


API_KEYS = ("FLYTE_API_KEY", "UNION_API_KEY")


@pytest.mark.parametrize("variable", API_KEYS)
async def test_another_api_key_in_the_environment_is_what_the_next_grant_takes(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = Plane(access_ttl=100.0)
    monkeypatch.setenv(variable, register(plane, "ci", "the first"))
    session = Session.from_config(os.devnull)
    await _rotated_in_the_environment(session, plane, variable, monkeypatch)


@pytest.mark.parametrize("variable", API_KEYS)
async def test_and_so_it_is_after_init_from_api_key(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = Plane(access_ttl=100.0)
    monkeypatch.setattr(flyteauth._default, "_current", None)
    monkeypatch.setenv(variable, register(plane, "ci", "the first"))
    session = await flyteauth.ainit_from_api_key(lazy=True)
    await _rotated_in_the_environment(session, plane, variable, monkeypatch)


async def _rotated_in_the_environment(
    session: Session, plane: Plane, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session._life._given = plane, MemoryStore(), None
    session._life._clock = plane.clock
    async with session:
        first = await token_of(session)
        monkeypatch.setenv(variable, register(plane, "cd", "the second"))
        register(plane, "ci", "no longer")
        plane.clock.now += 200
        second = await token_of(session)
        assert second != first
        monkeypatch.delenv(variable)
        plane.clock.now += 200
        assert await token_of(session) != second  # what was in force goes on
    assert plane.asked[GRANT] == 3


async def test_an_api_key_that_was_given_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = Plane(access_ttl=100.0)
    monkeypatch.setenv("FLYTE_API_KEY", register(plane, "other", "a secret"))
    given = register(plane, "ci", "a secret")
    async with plane.session("ClientSecret", api_key=given) as session:
        await session.headers()
        plane.clock.now += 200
        await session.headers()
        assert (await session.settings()).client_id == "ci"


# A configuration that is being written just now.


def _truncated(configured: Configured) -> None:
    text = configured.path.read_text()
    configured.path.write_text(text[: text.index("  authType")])


HALF: dict[str, Callable[[Configured], object]] = {
    "broken": lambda configured: configured.path.write_text("admin:\n  endpoint: [\n"),
    "empty": lambda configured: configured.path.write_text(""),
    "gone": lambda configured: configured.path.unlink(),
    "without the service": _truncated,
    "another authType": lambda configured: configured.path.write_text(
        f"admin:\n  endpoint: {ENDPOINT}\n  authType: DeviceFlow\n"
    ),
    "another place": lambda configured: configured.path.write_text(
        configured.path.read_text().replace(ENDPOINT, "http://localhost:9090")
    ),
    "no secret": lambda configured: configured.secret.unlink(),
    "empty secret": lambda configured: configured.secret.write_text(""),
}


@pytest.mark.req("CCG-07", "CCG-08")
@pytest.mark.parametrize("half", HALF)
async def test_a_configuration_that_is_half_written_makes_nobody_else_of_a_service(
    configured: Configured, half: str
) -> None:
    plane, store = Plane(access_ttl=100.0), SpyStore()
    async with plane.session(store=store) as person:
        theirs = await token_of_login(person)
    store.keys.clear()
    plane.requests.clear()
    register(plane, "ci", "a secret")
    configured.secret.write_text("a secret")
    whole = configured.path.read_text()
    async with configured.session(plane, store) as session:
        first = await token_of(session)
        HALF[half](configured)
        plane.clock.now += 200
        if half in {"no secret", "empty secret"}:
            with pytest.raises(ConfigError):
                await session.headers()
        else:
            second = await token_of(session)
            assert second != first
        configured.path.write_text(whole)
        configured.secret.write_text("a secret")
        plane.clock.now += 200
        assert await session.headers()
        assert (await session.settings()).client_id == "ci"
    assert not any(theirs in str(request) for request in plane.requests)
    assert [json.loads(key)[2] for key in store.keys] == ["service"]


async def token_of_login(session: Session) -> str:
    token = await session.login()
    assert token is not None
    return token.access_token


# Whose slot.


@pytest.mark.req("CCG-07")
@pytest.mark.parametrize("kind", ["ClientSecret", "ExternalCommand"])
async def test_a_service_neither_reads_nor_writes_what_is_a_persons(kind: str) -> None:
    plane, store = Plane(access_ttl=100.0), SpyStore()
    async with plane.session(store=store) as person:
        theirs = await token_of_login(person)
        persons = store.keys.copy()
    store.keys.clear()
    more = {"command": ["/bin/echo", "a-token"]} if kind == "ExternalCommand" else {}
    async with plane.session(kind, store=store, **more) as service:
        assert await token_of(service) != theirs
        plane.clock.now += 200
        await service.headers()
        service.reject(await token_of(service))
        await service.headers()
        await service.login()
        await service.logout()
    assert not store.keys & persons
    assert len(store.keys) == 1
    record = await store.load(persons.pop())
    assert record is not None
    assert record.token.access_token == theirs


@pytest.mark.req("SEC-08")
async def test_a_service_keeps_its_token_in_memory_unless_it_is_told_where(
    configured: Configured, home: Path
) -> None:
    plane = Plane()
    register(plane, "ci", "a secret")
    configured.secret.write_text("a secret")
    session = configured.session(plane)
    session._life._given = plane, None, None
    async with session:
        await session.headers()
        assert (await session._life.set_up()).vault.place == MemoryStore.place
    assert not (home / "flyteauth").exists()


# A fleet.


def fleet(plane: Plane, count: int, make: Callable[[], Store], **more: Any) -> list[Session]:
    """Sessions that know nothing of each other but the store."""
    return [
        plane.session("ClientSecret", store=make(), flights=Flights(), **more) for _ in range(count)
    ]


@pytest.fixture(params=["file", "valkey"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "file":
        return lambda: FileStore(tmp_path / "shared")
    url = shared_for(tmp_path).url
    return lambda: RedisStore(url)


@pytest.mark.parametrize("count", [2, 8])
async def test_a_fleet_asks_for_one_token_and_then_for_one_more(
    count: int, make: Callable[[], Store]
) -> None:
    plane = Plane(access_ttl=100.0)
    sessions = fleet(plane, count, make)

    async def everybody() -> set[str]:
        outcomes: list[Any] = []

        async def host(session: Session) -> None:
            outcomes.extend(await all_at_once(3, session.token))

        async with anyio.create_task_group() as group:
            for session in sessions:
                group.start_soon(host, session)
        assert len(outcomes) == 3 * count
        return {token.access_token for token in outcomes}

    first = await everybody()
    assert len(first) == 1
    assert plane.asked[GRANT] == 1
    plane.clock.now += 200
    second = await everybody()
    assert len(second) == 1
    assert second != first
    assert plane.asked[GRANT] == 2
    for session in sessions:
        session.reject(next(iter(second)))
    third = await everybody()
    assert len(third) == 1
    assert third != second
    assert plane.asked[GRANT] == 3
    for session in sessions:
        await session.aclose()


async def test_a_host_that_comes_later_asks_for_nothing(make: Callable[[], Store]) -> None:
    plane = Plane()
    one, other = fleet(plane, 2, make)
    async with one:
        token = await one.token()
    async with other:
        assert await other.token() == token
        assert (await other.call(PROJECTS, {}))["projects"]
    assert plane.asked[GRANT] == 1


async def test_a_host_without_the_store_goes_on_alone() -> None:
    class Broken(MemoryStore):
        async def load(self, key: str) -> Record | None:
            raise StoreError("the store is away; wait", reason="timeout")

        async def save(self, key: str, record: Record) -> None:
            raise StoreError("the store is away; wait", reason="timeout")

        async def swap(self, key: str, old: Record | None, new: Record) -> bool:
            raise StoreError("the store is away; wait", reason="timeout")

        async def exclusively(self, key: str, function: Any, *, deadline: float) -> Any:
            raise StoreError("the store is away; wait", reason="timeout")

    plane = Plane(access_ttl=100.0)
    async with plane.session("ClientSecret", store=Broken()) as session:
        await all_at_once(10, session.headers)
        assert await session.headers()
        plane.clock.now += 200
        assert await session.headers()
    assert plane.asked[GRANT] == 2


async def test_a_fleet_whose_server_refuses_everybody_is_told_why(
    make: Callable[[], Store],
) -> None:
    plane = Plane()
    key = register(plane, "ci", "a secret")
    register(plane, "ci", "another")
    sessions = [
        plane.session("ClientSecret", api_key=key, store=make(), flights=Flights())
        for _ in range(3)
    ]
    for session in sessions:
        with pytest.raises(FlowError, match="invalid_client"):
            await session.headers()
        await session.aclose()


async def test_calls_of_a_fleet_that_are_refused_bring_one_more_token(
    make: Callable[[], Store],
) -> None:
    plane = Plane()
    sessions = fleet(plane, 4, make)
    for session in sessions:
        await session.headers()
    revoked = await token_of(sessions[0])
    send = plane.send

    async def refuse(request: Request) -> Any:
        if request.header("authorization") == f"Bearer {revoked}":
            now = plane.clock.now
            return ResponseReceived(Response(401, (), b""), now, now)
        return await send(request)

    plane.send = refuse  # type: ignore[method-assign]
    for session in sessions:
        replies = await all_at_once(3, partial(session.call, PROJECTS, {}))
        assert all(reply["projects"] for reply in replies)
        await session.aclose()
    assert plane.asked[GRANT] == 2
