"""A login in two steps: a code is shown by one process, and another one waits for its approval."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest

from flyteauth import SyncSession
from flyteauth._io.flights import Flights
from flyteauth._io.store.memory import MemoryStore
from flyteauth._pending import PendingLogins
from flyteauth._sansio.flow import RequestFailed
from flyteauth._sansio.http import Request, Response
from flyteauth.devserver.serve import Running
from flyteauth.errors import (
    ConfigError,
    Error,
    Expired,
    InteractionRequired,
    InvalidResponse,
    MissingMetadata,
    OAuth2Error,
    StoreError,
    Unreachable,
)
from flyteauth.events import AuthEvent, CodeNeeded, LoggedIn, MethodChosen, Warned
from flyteauth.session import Session

from .plane import ENDPOINT, Plane
from .test_cancellation import Counted, Places, cancelling
from .test_race import Desk, HeldClock

pytestmark = pytest.mark.anyio

LIMIT = 10.0
DEVICE = "device_code"
DEVICE_ENDPOINT = "/oauth2/device_authorization"


class World:
    """One machine, one plane, and as many processes with one login as a test likes."""

    def __init__(self, directory: Path, **plane: Any) -> None:
        self.directory = directory / "flyteauth"
        self.plane = Plane(**plane)
        self.clock = self.plane.clock = HeldClock()
        self.clock.go_on.set()
        self.store = MemoryStore()
        self.desk = Desk()

    def session(self, **arguments: Any) -> Session:
        return Session(
            **{
                "transport": self.plane,
                "clock": self.clock,
                "store": self.store,
                "presenter": self.desk,
                "directory": self.directory,
                "endpoint": ENDPOINT,
                **arguments,
            }
        )

    @property
    def pending(self) -> list[Path]:
        folder = self.directory / "pending"
        return sorted(folder.iterdir()) if folder.exists() else []

    async def begin(self, **arguments: Any) -> CodeNeeded:
        async with self.session(**arguments) as session:
            return await session.begin_login()

    async def resume(self, **arguments: Any) -> Any:
        with anyio.fail_after(LIMIT):
            async with self.session(**arguments) as session:
                token = await session.resume_login()
                assert await session.token() == token
                return token

    def kinds(self) -> list[type[AuthEvent]]:
        return [type(event) for event in self.desk.seen]


@pytest.fixture
def world(home: Path) -> World:
    return World(home)


@pytest.mark.req("DEV-14", "DEV-15")
async def test_a_login_that_is_begun_here_is_finished_there(world: World) -> None:
    shown = await world.begin()
    assert world.desk.seen[1:] == [shown]
    assert isinstance(world.desk.seen[0], MethodChosen)
    assert world.desk.seen[0].method == "device"
    assert not shown.alternative
    assert world.plane.asked[DEVICE] == 0
    (file,) = world.pending
    if sys.platform != "win32":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700

    world.desk = Desk()
    world.plane.plane.approve(shown.user_code)
    token = await world.resume()
    assert world.plane.plane.access(token.access_token, world.clock.time()) is not None
    assert world.pending == []
    assert world.kinds() == [LoggedIn]
    assert world.desk.stayed == 1
    async with world.session() as later:
        assert await later.token() == token


async def test_the_person_is_stayed_with_until_the_code_ends(world: World) -> None:
    shown = await world.begin()
    world.clock.go_on = anyio.Event()
    seen: list[float] = []

    async def look() -> None:
        waiting = await world.desk.until(lambda: world.desk.waiting)
        seen.append(waiting.expires_at)
        assert waiting.paste is None
        world.plane.plane.approve(shown.user_code)
        world.clock.go_on.set()

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        await world.resume()
    assert seen == [shown.expires_at]


async def test_without_anything_begun_it_is_said_what_to_run(world: World) -> None:
    with pytest.raises(InteractionRequired, match="run: flyteauth login --no-wait") as caught:
        await world.resume()
    assert caught.value.reason == "nothing_pending"
    assert world.plane.asked[DEVICE] == 0


async def test_a_second_beginning_takes_the_place_of_the_first(world: World) -> None:
    first = await world.begin()
    second = await world.begin()
    assert first.user_code != second.user_code
    assert len(world.pending) == 1
    world.plane.plane.approve(second.user_code)
    await world.resume()
    with pytest.raises(InteractionRequired):
        await world.resume()


async def test_two_identities_are_begun_side_by_side(world: World) -> None:
    mine = await world.begin(account="mine")
    await world.begin(account="other")
    assert len(world.pending) == 2
    world.plane.plane.approve(mine.user_code)
    await world.resume(account="mine")
    assert len(world.pending) == 1


# It ends.


@pytest.mark.req("DEV-06")
async def test_a_code_that_was_denied_is_forgotten(world: World) -> None:
    shown = await world.begin()
    world.plane.plane.deny(shown.user_code)
    with pytest.raises(OAuth2Error) as caught:
        await world.resume()
    assert caught.value.error == "access_denied"
    assert world.pending == []


@pytest.mark.req("DEV-09")
@pytest.mark.parametrize("ahead", [10_000.0, 0.0])
async def test_a_code_that_has_expired_is_forgotten(home: Path, ahead: float) -> None:
    world = World(home, approve="page")
    await world.begin()
    world.clock.now += ahead
    with pytest.raises(Expired, match="log in again"):
        await world.resume()
    assert world.pending == []
    assert bool(world.plane.asked[DEVICE]) is not bool(ahead)


@pytest.mark.parametrize("when", ["discovery", "polls"])
async def test_a_network_that_is_away_changes_nothing(world: World, when: str) -> None:
    shown = await world.begin()
    away = True

    async def before(name: str) -> RequestFailed | None:
        if away and (name == DEVICE) is (when == "polls"):
            if when == "polls":
                return RequestFailed("tls", "no", sent=False, at=world.clock.time())
            return world.plane.down()
        return None

    world.plane.before = before
    with pytest.raises(Unreachable):
        await world.resume()
    assert len(world.pending) == 1
    away = False
    world.plane.plane.approve(shown.user_code)
    await world.resume()
    assert world.pending == []


async def test_a_server_that_is_another_one_by_now_gets_no_code(world: World) -> None:
    await world.begin()
    with pytest.raises(InteractionRequired, match="another authorization server") as caught:
        await world.resume(endpoints={"token_endpoint": f"{ENDPOINT}/elsewhere"})
    assert caught.value.reason == "nothing_pending"
    assert world.pending == []
    assert world.plane.asked[DEVICE] == 0


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"class":"Pending"}', "null", "\0" * 300_000, "[" * 100_000]
)
async def test_a_file_that_is_damaged_is_an_error_and_the_next_beginning_mends_it(
    world: World, text: str
) -> None:
    await world.begin()
    world.pending[0].write_text(text)
    with pytest.raises(StoreError) as caught:
        await world.resume()
    assert caught.value.reason == "corrupt"
    assert world.pending == []  # it may hold a code, and nobody can use it
    with pytest.raises(InteractionRequired):
        await world.resume()
    shown = await world.begin()
    world.plane.plane.approve(shown.user_code)
    await world.resume()


async def test_a_login_that_could_not_be_read_again_is_not_begun(world: World) -> None:
    before = await world.begin()
    (file,) = world.pending
    text, handle = file.read_bytes(), world.plane.plane.handle

    def long(request: Request, at: float) -> Response:
        response = handle(request, at)
        if urlsplit(request.url).path != DEVICE_ENDPOINT:
            return response
        members = json.loads(response.body) | {"device_code": "d" * 262_144}
        return Response(200, response.headers, json.dumps(members).encode())

    world.plane.plane.handle = long  # type: ignore[method-assign]
    with pytest.raises(InvalidResponse, match="without --no-wait") as caught:
        await world.begin()
    assert caught.value.reason == "too_large"
    assert world.desk.all(CodeNeeded) == [before]  # nobody approves what is in vain
    assert file.read_bytes() == text
    assert world.pending == [file]


async def test_a_logout_forgets_what_was_begun(world: World) -> None:
    await world.begin()
    async with world.session() as session:
        await session.logout()
    assert world.pending == []
    with pytest.raises(InteractionRequired):
        await world.resume()


async def test_a_stored_login_stays_until_the_next_one_is_there(world: World) -> None:
    async with world.session(auth_type="DeviceFlow") as session:
        before = await session.login()
        await session.begin_login()
        assert await session.token() == before
        world.clock.now += 1
        assert await session.resume_login() != before


@pytest.mark.req("DEV-14", "CBK-16")
async def test_a_resumed_login_may_be_cancelled_anywhere_and_gone_on_with(
    home: Path, anyio_backend: str
) -> None:
    for place in range(1000):
        world = World(home / str(place))
        shown = await world.begin()
        world.plane.plane.approve(shown.user_code)
        session, places = world.session(), Places()
        places.at = place
        results = await cancelling("scope", Counted(session.resume_login(), places), places)
        places.cancel = lambda: None
        with anyio.fail_after(LIMIT):
            await session.aclose()
        if not world.plane.asked[DEVICE]:
            assert len(world.pending) == 1
            await world.resume()
        else:  # the poll went on to its end
            async with world.session() as later:
                assert await later.token() is not None
        assert world.pending == []
        assert world.plane.asked[DEVICE] == 1
        if results and places.count <= place:
            break
    assert place >= 5


# Where it cannot be.


@pytest.mark.parametrize(
    ("plane", "arguments", "kind", "reason"),
    [
        ({"faults": {"no-device"}}, {}, MissingMetadata, "device_authorization_endpoint"),
        ({"faults": {"no-auth"}}, {}, MissingMetadata, "authorization_server"),
        ({}, {"auth_type": "NoAuth"}, ConfigError, "auth_type"),
        ({}, {"client_id": "x", "client_secret": "y"}, ConfigError, "auth_type"),
    ],
)
async def test_where_no_person_enters_a_code_none_is_shown(
    home: Path, plane: dict[str, Any], arguments: dict[str, Any], kind: type[Error], reason: str
) -> None:
    world = World(home, **plane)
    with pytest.raises(kind) as caught:
        await world.begin(**arguments)
    assert caught.value.reason == reason
    assert CodeNeeded not in world.kinds()
    assert world.pending == []


async def test_without_a_place_to_keep_it_that_is_said(world: World) -> None:
    with pytest.raises(StoreError, match="without --no-wait"):
        await world.begin(directory=None)


@pytest.mark.skipif(sys.platform == "win32", reason="a file in the place of a directory")
async def test_a_place_that_cannot_be_written_is_said(world: World) -> None:
    world.directory.mkdir()
    (world.directory / "pending").write_text("")
    with pytest.raises(StoreError, match="pending"):
        await world.begin()


# It is a secret.


@pytest.mark.req("DEV-15", "SEC-05")
async def test_the_device_code_is_in_that_file_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    shown = await world.begin()
    saved = json.loads(world.pending[0].read_text())
    secret = saved["state"]["code"]["device_code"]
    assert len(secret) > 20
    assert secret not in repr(shown) + caplog.text + repr(world.desk.seen)
    others = [path for path in world.directory.rglob("*") if path.is_file()]
    assert [path for path in others if secret in path.read_text()] == world.pending


# Without an event loop, and on a real machine.


def test_programs_without_an_event_loop_can_do_the_same(running: Running) -> None:
    desk = Desk()
    with SyncSession(endpoint=running.base_url, token_store="file", presenter=desk) as first:
        shown = first.begin_login()
    running.plane.approve(shown.user_code)
    with SyncSession(endpoint=running.base_url, token_store="file", presenter=desk) as second:
        token = second.resume_login(must_keep=True)
        assert second.token() == token
    assert not desk.all(Warned)


async def test_two_that_go_on_with_one_login_both_have_it(tmp_path: Path) -> None:
    """The second has looked for what to go on with before the first was done."""
    world = World(tmp_path)
    shown = await world.begin()
    world.plane.plane.approve(shown.user_code)
    looked, finished = anyio.Event(), anyio.Event()
    load = PendingLogins.load

    async def late(kept: PendingLogins, key: str) -> Any:
        pending = await load(kept, key)
        if not looked.is_set():
            looked.set()
            await finished.wait()
        return pending

    tokens: list[Any] = []

    async def second() -> None:
        tokens.append(await world.resume(flights=Flights()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PendingLogins, "load", late)
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as group:
                group.start_soon(second)
                await looked.wait()
                tokens.append(await world.resume(flights=Flights()))
                finished.set()
    assert tokens[0] == tokens[1]
    assert tokens[0] is not None
