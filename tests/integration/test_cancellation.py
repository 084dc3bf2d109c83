"""
Cancelling a login wherever it can be cancelled: nothing of it is left behind, and no token that
the server has issued is lost.

Each login is cancelled at its first place, then a new one at its second, until one is never
cancelled. Places are of two kinds: all awaits at which the task gives way to the event loop,
counted by whoever drives its coroutine; and all steps of the outer world (a request arrives, its
answer is there, a store is written to, a person is told), in whatever task they happen.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from attrs import define, field, frozen

import flyteauth._default
from flyteauth import _lifetime as lifetime_module, ainit, current_session
from flyteauth._io.bind import bind
from flyteauth._io.store import Store
from flyteauth._io.store.file import FileStore
from flyteauth._io.store.memory import MemoryStore
from flyteauth._sansio.flow import RequestFailed, ResponseReceived
from flyteauth._sansio.http import Request
from flyteauth._sansio.record import Record
from flyteauth.devserver.serve import Running
from flyteauth.devserver.visitor import visit
from flyteauth.errors import ConfigError, InteractionRequired, Unreachable
from flyteauth.events import AuthEvent, BrowserNeeded, CodeNeeded, LoggedIn
from flyteauth.session import Session

from .plane import ENDPOINT, FakeClock, Person, Plane

pytestmark = pytest.mark.anyio

T = TypeVar("T")

LIMIT = 10.0
PROJECTS = "/flyteidl2.project.ProjectService/ListProjects"


# Where to cancel.


class Places:
    """Counts places, and cancels at the one with the number ``at``."""

    def __init__(self) -> None:
        self.at: int | None = None
        self.count = 0
        self.cancel: Callable[[], object] = lambda: None

    def here(self) -> None:
        if self.count == self.at:
            self.cancel()
        self.count += 1

    async def step(self) -> None:
        """A place where whoever is cancelled learns it at once."""
        self.here()
        await anyio.lowlevel.checkpoint()

    @property
    def passed(self) -> bool:
        """Whether there was such a place at all."""
        return self.at is not None and self.count > self.at


class Counted(Generic[T]):
    """Awaits *coroutine*, and notes each time that it gives way to the event loop."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], places: Places) -> None:
        self._coroutine = coroutine
        self._places = places

    def __await__(self) -> Generator[Any, Any, T]:
        value, error = None, None
        while True:
            try:
                if error is not None:
                    message = self._coroutine.throw(error)
                else:
                    message = self._coroutine.send(value)
            except StopIteration as stop:
                result: T = stop.value
                return result
            self._places.here()
            try:
                value, error = (yield message), None
            except BaseException as thrown:  # noqa: BLE001
                value, error = None, thrown


async def cancelling(how: str, awaitable: Awaitable[T], places: Places) -> list[T]:
    """What *awaitable* gives, or nothing if it is cancelled at one of *places*."""
    results: list[T] = []

    async def body() -> None:
        results.append(await awaitable)

    with anyio.fail_after(LIMIT):
        if how == "task":
            task = asyncio.create_task(body())
            places.cancel = task.cancel
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()
        else:
            with anyio.CancelScope() as scope:
                places.cancel = scope.cancel
                await body()
    passed, places.at = places.passed, None
    assert results or passed
    return results


# What is left.


def _sockets() -> frozenset[str]:
    """The sockets that are open; none where the system does not tell."""
    found = set()
    with suppress(FileNotFoundError):
        for name in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                found.add(str(name.readlink()))
    return frozenset(target for target in found if target.startswith("socket:"))


def _children() -> frozenset[str]:
    found: set[str] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found.update(task.read_text().split())
    return frozenset(found)


_STAYING = ("AnyIO worker thread", "asyncio_", "Trio thread", "flyteauth portal")


def _threads() -> frozenset[str]:
    """Those that neither wait for the next work nor are asyncio's, trio's or the portal's."""
    return frozenset(
        thread.name for thread in threading.enumerate() if not thread.name.startswith(_STAYING)
    )


def _tasks(backend: str) -> int:
    if backend == "asyncio":
        return len(asyncio.all_tasks())
    import trio

    return trio.lowlevel.current_statistics().tasks_living


@frozen
class Belongings:
    """What a login may have while it lasts."""

    tasks: int
    threads: frozenset[str]
    sockets: frozenset[str]
    children: frozenset[str]

    @classmethod
    def now(cls, backend: str) -> Belongings:
        return cls(_tasks(backend), _threads(), _sockets(), _children())

    async def are_all(self, backend: str) -> None:
        """Nothing else is there; threads and processes may need a moment to end."""
        end = time.monotonic() + LIMIT
        while True:
            now = Belongings.now(backend)
            more = (
                now.tasks - self.tasks,
                now.threads - self.threads,
                now.sockets - self.sockets,
                now.children - self.children,
            )
            if not any(more[1:]) or time.monotonic() > end:
                break
            await anyio.sleep(0.002)
        assert more == (0, frozenset(), frozenset(), frozenset())


# The world around a login.


class SteppingClock(FakeClock):
    def __init__(self, places: Places) -> None:
        super().__init__()
        self._places = places

    async def sleep_until(self, deadline: float) -> None:
        await self._places.step()
        await super().sleep_until(deadline)
        await self._places.step()


class SteppingStore:
    """Another store, with places before and after everything that it does."""

    def __init__(self, inner: Store, places: Places) -> None:
        self._inner = inner
        self._places = places
        self.name = inner.name
        self.place = inner.place
        self.slot = inner.slot
        self.records: dict[str, Record | None] = {}

    async def probe(self) -> None:
        await self._places.step()
        await self._inner.probe()
        await self._places.step()

    async def load(self, key: str) -> Record | None:
        await self._places.step()
        record = await self._inner.load(key)
        await self._places.step()
        return record

    async def save(self, key: str, record: Record) -> None:
        await self._places.step()
        await self._inner.save(key, record)
        self.records[key] = record
        await self._places.step()

    async def swap(self, key: str, old: Record | None, new: Record) -> bool:
        await self._places.step()
        swapped = await self._inner.swap(key, old, new)
        if swapped:
            self.records[key] = new
        await self._places.step()
        return swapped

    async def delete(self, key: str) -> None:
        await self._places.step()
        await self._inner.delete(key)
        self.records.pop(key, None)
        await self._places.step()

    async def exclusively(
        self, key: str, function: Callable[[], Awaitable[T]], *, deadline: float
    ) -> T:
        await self._places.step()
        outcome = await self._inner.exclusively(key, function, deadline=deadline)
        await self._places.step()
        return outcome

    async def aclose(self) -> None:
        await self._inner.aclose()


@define
class Surfer(Person):
    """A person with a browser, which comes back at once to where the plane sends it."""

    plane: Plane
    places: Places
    seen: list[AuthEvent] = field(factory=list)
    redirect_uri: str | None = None
    browser: threading.Thread | None = None

    async def show(self, event: AuthEvent) -> None:
        await self.places.step()
        self.seen.append(event)
        if isinstance(event, CodeNeeded):
            self.plane.plane.approve(event.user_code)
        elif isinstance(event, BrowserNeeded):
            self.redirect_uri = parse_qs(urlsplit(event.url).query)["redirect_uri"][0]
            answer = self.plane.plane.handle(Request("GET", event.url), self.plane.clock.time())
            there = answer.header("location")
            assert there is not None
            self.browser = threading.Thread(target=_come_back, args=(there,), daemon=True)
            self.browser.start()
        await self.places.step()

    async def leave(self) -> None:
        if self.browser is not None:
            await anyio.to_thread.run_sync(self.browser.join, LIMIT)
            assert not self.browser.is_alive()


def _come_back(url: str) -> None:
    """Whatever becomes of it: the login may be over by now."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, LIMIT)
    try:
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", f"{parts.path}?{parts.query}")
            with connection.getresponse() as response:
                response.read()
    finally:
        connection.close()


@frozen
class Case:
    auth_type: str
    grant_type: str
    refresh: bool = False
    on_disk: bool = False


CASES = {
    "browser": Case("Pkce", "authorization_code"),
    "device": Case("DeviceFlow", "urn:ietf:params:oauth:grant-type:device_code"),
    "device, on disk": Case(
        "DeviceFlow", "urn:ietf:params:oauth:grant-type:device_code", on_disk=True
    ),
    "service": Case("ClientSecret", "client_credentials"),
    "refresh": Case("DeviceFlow", "refresh_token", refresh=True),
}


@pytest.fixture(autouse=True)
def _no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that is started as the browser does nothing."""
    monkeypatch.setenv("BROWSER", "true")


@pytest.fixture(params=["scope", "task"])
def how(request: pytest.FixtureRequest, anyio_backend: str) -> str:
    if request.param == "task" and anyio_backend != "asyncio":
        pytest.skip("asyncio's own cancel is asyncio's")
    name: str = request.param
    return name


@define
class World:
    """One plane, one store and one person, for one login."""

    case: Case
    steps: Places
    plane: Plane
    store: SteppingStore
    person: Surfer

    @classmethod
    def of(cls, case: Case, directory: Path) -> World:
        steps = Places()
        plane = Plane(access_ttl=100.0)
        plane.clock = SteppingClock(steps)

        async def before(_: str) -> RequestFailed | None:
            await steps.step()
            return None

        async def after(_: str) -> None:
            await steps.step()

        plane.before, plane.after = before, after
        inner = FileStore(directory / "logins") if case.on_disk else MemoryStore()
        return cls(case, steps, plane, SteppingStore(inner, steps), Surfer(plane, steps))

    def session(self) -> Session:
        arguments = (
            {"redirect_uri": "http://127.0.0.1/callback"} if self.case.auth_type == "Pkce" else {}
        )
        return self.plane.session(
            self.case.auth_type, store=self.store, presenter=self.person, **arguments
        )

    @property
    def issued(self) -> int:
        """How often the server has issued tokens."""
        return self.plane.plane.count(grant_type=self.case.grant_type, status=200)


async def cancelled_at(
    place: int, kind: str, how: str, case: Case, directory: Path, backend: str
) -> bool:
    """Cancel a login at one place and look around; False if it never came to that place."""
    world = World.of(case, directory)
    if case.refresh:
        async with world.session() as before:
            await before.login()
        world.plane.clock.now += 200
    session = world.session()
    belongings = Belongings.now(backend)

    places = world.steps if kind == "step" else Places()
    places.count, places.at = 0, place
    use: Coroutine[Any, Any, object] = session.headers() if case.refresh else session.login()
    results = await cancelling(how, Counted(use, places) if kind == "await" else use, places)
    passed = places.count > place
    places.cancel = lambda: None

    with anyio.fail_after(LIMIT):
        await session.aclose()
        await world.person.leave()
    await belongings.are_all(backend)
    if world.person.redirect_uri is not None:
        for listener in bind(world.person.redirect_uri)[0]:
            listener.close()
    assert all(work.done for work in lifetime_module.FLIGHTS._works.values())
    if not case.refresh:
        assert bool(world.store.records) == bool(world.issued)
    if results:
        assert world.issued == 1
    await goes_on(world)
    return passed


async def goes_on(world: World) -> None:
    """Whoever comes next has what was issued, and can refresh it."""
    told = len(world.person.seen)
    issued = world.issued
    async with world.session() as session:
        if not issued and world.case.auth_type != "ClientSecret" and not world.case.refresh:
            with pytest.raises(InteractionRequired):
                await session.headers()
            return
        for _ in range(2):
            assert (await session.call(PROJECTS, {}))["projects"]
            world.plane.clock.now += 200
    if issued and world.case.auth_type == "ClientSecret":
        assert world.plane.asked["client_credentials"] <= 2 + issued
    later = world.person.seen[told:]
    assert not [
        event for event in later if isinstance(event, BrowserNeeded | CodeNeeded | LoggedIn)
    ]


@pytest.mark.req("CBK-16", "AZR-14", "REF-13", "DEV-14")
@pytest.mark.parametrize("kind", ["await", "step"])
@pytest.mark.parametrize("name", CASES)
async def test_a_login_may_be_cancelled_anywhere(
    name: str, kind: str, how: str, anyio_backend: str, home: Path
) -> None:
    for place in itertools.count():
        directory = home / str(place)
        if not await cancelled_at(place, kind, how, CASES[name], directory, anyio_backend):
            break
    assert place >= 5


# The same over real sockets.


@pytest.mark.req("CBK-16", "AZR-14")
@pytest.mark.parametrize("auth_type", ["Pkce", "ClientSecret"])
async def test_a_login_over_real_sockets_may_be_cancelled_at_every_await(
    auth_type: str, how: str, anyio_backend: str, running: Running
) -> None:
    grant_type = "authorization_code" if auth_type == "Pkce" else "client_credentials"
    for place in itertools.count():
        store, visitor = SteppingStore(MemoryStore(), Places()), Visitor()
        arguments: dict[str, Any] = {"api_key": running.api_key}
        if auth_type == "Pkce":
            arguments = {
                "endpoint": running.base_url,
                "auth_type": auth_type,
                "redirect_uri": "http://127.0.0.1/callback",
            }
        issued = running.plane.count(grant_type=grant_type, status=200)
        belongings = Belongings.now(anyio_backend)
        session = Session(store=store, presenter=visitor, **arguments)
        places = Places()
        places.at = place
        results = await cancelling(how, Counted(session.login(), places), places)
        with anyio.fail_after(LIMIT):
            await session.aclose()
            await visitor.leave()
        await belongings.are_all(anyio_backend)
        if visitor.redirect_uri is not None:
            for listener in bind(visitor.redirect_uri)[0]:
                listener.close()
        issued = running.plane.count(grant_type=grant_type, status=200) - issued
        assert bool(store.records) == bool(issued)
        if results and places.count <= place:
            break
    assert place >= 3


class Visitor:
    """A person with a browser that follows every redirect."""

    def __init__(self) -> None:
        self.redirect_uri: str | None = None
        self._browser: threading.Thread | None = None

    async def show(self, event: AuthEvent) -> None:
        if isinstance(event, BrowserNeeded):
            self.redirect_uri = parse_qs(urlsplit(event.url).query)["redirect_uri"][0]
            self._browser = threading.Thread(target=self._visit, args=(event.url,), daemon=True)
            self._browser.start()

    def _visit(self, url: str) -> None:
        with suppress(OSError, http.client.HTTPException):
            visit(url)

    async def leave(self) -> None:
        if self._browser is not None:
            await anyio.to_thread.run_sync(self._browser.join, LIMIT)
            assert not self._browser.is_alive()


# Sessions that end in the middle.


class Held:
    """A plane whose answer to one kind of request is held back until ``go_on`` is set."""

    def __init__(self, plane: Plane, name: str) -> None:
        self.asked, self.go_on = anyio.Event(), anyio.Event()
        self._name = name
        plane.after = self._hold

    async def _hold(self, name: str) -> None:
        if name == self._name:
            self.asked.set()
            await self.go_on.wait()


async def logged_in(store: Store) -> Plane:
    """A plane with a login in *store* that has to be refreshed before its next use."""
    plane = Plane(access_ttl=100.0)
    async with plane.session(store=store) as session:
        await session.login()
    plane.clock.now += 200
    return plane


async def assert_alive(plane: Plane, store: Store) -> None:
    """Its refresh token is the one that the server takes."""
    person = Person(plane.plane)
    plane.after = None
    async with plane.session(store=store, presenter=person) as session:
        for _ in range(2):
            assert (await session.call(PROJECTS, {}))["projects"]
            plane.clock.now += 200
    assert not person.saw(CodeNeeded)


@pytest.mark.req("REF-04", "REF-13")
async def test_leaving_a_session_by_cancellation_waits_for_a_refresh_in_flight(
    how: str, anyio_backend: str
) -> None:
    store = MemoryStore()
    plane = await logged_in(store)
    held = Held(plane, "refresh_token")
    belongings = Belongings.now(anyio_backend)
    left = anyio.Event()
    places = Places()
    places.at = 0

    async def use() -> None:
        try:
            async with plane.session(store=store) as session:
                await session.headers()
        finally:
            assert held.go_on.is_set()
            left.set()

    async def cancel() -> None:
        await held.asked.wait()
        places.here()
        await anyio.wait_all_tasks_blocked()
        assert not left.is_set()
        held.go_on.set()

    async with anyio.create_task_group() as group:
        group.start_soon(cancel)
        assert await cancelling(how, use(), places) == []
    assert left.is_set()
    assert plane.closed
    assert plane.asked["refresh_token"] == 1
    await belongings.are_all(anyio_backend)
    await assert_alive(plane, store)


@pytest.mark.req("REF-04", "REF-13")
async def test_a_session_closed_during_a_refresh_ends_with_it() -> None:
    store = MemoryStore()
    plane = await logged_in(store)
    held = Held(plane, "refresh_token")
    closed = anyio.Event()
    plane.closed = False

    async def close(session: Session) -> None:
        await session.aclose()
        closed.set()

    session = plane.session(store=store)
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:
            waiters = [group.start_soon(partial(use_quietly, session, [])) for _ in range(3)]
            await held.asked.wait()
            group.start_soon(close, session)
            await anyio.wait_all_tasks_blocked()
            assert not closed.is_set()
            assert not plane.closed
            held.go_on.set()
    assert len(waiters) == 3
    assert closed.is_set()
    assert plane.closed
    assert plane.asked["refresh_token"] == 1
    await assert_alive(plane, store)


async def use_quietly(session: Session, outcomes: list[object]) -> None:
    try:
        outcomes.append(await session.headers())
    except Exception as error:  # noqa: BLE001
        outcomes.append(error)


class Hanging:
    """A transport like the real one when it is closed: it ends what it waits for, and no more is
    sent. No answer to a refresh ever comes.
    """

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._closed = anyio.Event()
        self.asked = anyio.Event()

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        if self._closed.is_set():
            raise RuntimeError("this transport is closed")
        if b"grant_type=refresh_token" not in request.body:
            return await self._plane.send(request)
        self.asked.set()
        await self._closed.wait()
        return RequestFailed("protocol", "the session was closed", True, self._plane.clock.time())

    async def aclose(self) -> None:
        self._closed.set()


@pytest.mark.req("REF-05", "REF-13")
async def test_a_session_that_is_closed_over_its_refresh_takes_nobody_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server does not answer; whoever closes does not wait for ever, and others go on."""
    monkeypatch.setattr(lifetime_module, "CLOSE_DEADLINE", 0.05)
    store = MemoryStore()
    ours: list[object] = []
    theirs: list[object] = []
    plane = await logged_in(store)
    wire = Hanging(plane)
    first = Session(
        endpoint=ENDPOINT,
        auth_type="DeviceFlow",
        transport=wire,
        clock=plane.clock,
        store=store,
        presenter=Person(plane.plane),
    )
    with anyio.fail_after(LIMIT):
        async with plane.session(store=store) as second, anyio.create_task_group() as group:
            group.start_soon(use_quietly, first, ours)
            await wire.asked.wait()
            group.start_soon(use_quietly, second, theirs)
            await anyio.wait_all_tasks_blocked()
            await first.aclose()
    assert [type(error) for error in ours] == [Unreachable]
    assert "authorization" in str(theirs)
    assert plane.asked["refresh_token"] == 1
    await assert_alive(plane, store)


# The process-wide session.


@pytest.mark.parametrize("kind", ["await", "step"])
@pytest.mark.parametrize("name", ["device", "service", "browser"])
async def test_making_the_default_session_may_be_cancelled_anywhere(
    name: str,
    kind: str,
    how: str,
    anyio_backend: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flyteauth._default, "_current", None)
    monkeypatch.setattr("flyteauth._default.person_present", lambda: True, raising=False)
    monkeypatch.setattr("flyteauth.session.person_present", lambda: True)
    for place in itertools.count():
        world = World.of(CASES[name], home)
        arguments: dict[str, Any] = {"endpoint": ENDPOINT, "auth_type": world.case.auth_type}
        if name == "service":
            arguments = {"api_key": world.plane.plane.api_key}
        elif name == "browser":
            arguments["redirect_uri"] = "http://127.0.0.1/callback"
        use = ainit(
            **arguments,
            transport=world.plane,
            clock=world.plane.clock,
            store=world.store,
            presenter=world.person,
        )
        places = world.steps if kind == "step" else Places()
        places.at = place
        belongings = Belongings.now(anyio_backend)
        results = await cancelling(how, Counted(use, places) if kind == "await" else use, places)
        passed = places.count > place
        places.cancel = lambda: None
        await world.person.leave()
        await belongings.are_all(anyio_backend)
        if results:
            assert current_session() is results[0]
            await current_session().aclose()
        else:
            assert world.plane.closed or not world.plane.asked
            with pytest.raises(ConfigError):
                current_session()
        flyteauth._default._current = None
        await goes_on(world)
        if not passed:
            break
    assert place >= 5
