"""One login for several tools: sessions, and other tools that refresh, delete and log in by
themselves.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from flyteauth import SyncSession
from flyteauth._identity import identity
from flyteauth._io.drive import Driver
from flyteauth._io.flights import Flights
from flyteauth._io.store import keyring as keyring_module
from flyteauth._io.store.file import FileStore
from flyteauth._io.store.memory import MemoryStore
from flyteauth._io.store.ring import Ring
from flyteauth._sansio.client import AuthorizationServer, Client
from flyteauth._sansio.exchanges import refresh
from flyteauth._sansio.flow import RequestFailed, Retrying
from flyteauth._sansio.keyring_layouts import Place, Tool, places
from flyteauth._sansio.record import Record
from flyteauth._sansio.token import Token
from flyteauth.config import resolve
from flyteauth.devserver.serve import Running
from flyteauth.errors import (
    ConfigError,
    InteractionRequired,
    MissingMetadata,
    ReauthRequired,
    StoreError,
    Unreachable,
)
from flyteauth.events import (
    AuthEvent,
    Exported,
    Forgotten,
    Imported,
    LoggedIn,
    LoggedOut,
    Warned,
)
from flyteauth.session import Session
from tests.e2e.foreign import refreshed
from tests.io.rings import OthersRing, plain_text

from .plane import ENDPOINT, Person, Plane

pytestmark = pytest.mark.anyio

T = TypeVar("T")

USED = "refresh_token"
REVOKED = "/oauth2/revoke"
KEY = "localhost:8080"
LIMIT = 60.0


class Foreign:
    """Another tool, with a login of its own making or of ours, in its own place in the keyring."""

    def __init__(self, plane: Plane, ring: OthersRing, tool: Tool = "flyte") -> None:
        self.place: Place = places(tool, ENDPOINT, KEY)[0]
        self._plane = plane
        self._ring = ring

    @property
    def token(self) -> Token | None:
        items = self._ring.items
        values = {name: items.get((self.place.service, name)) for name in self.place.names}
        return self.place.parse(values, self._plane.clock.time())

    @property
    def held(self) -> Token:
        token = self.token
        assert token is not None
        return token

    def write(self, token: Token) -> None:
        for name, text in self.place.written(token).items():
            if text is not None:
                self._ring.items[self.place.service, name] = text

    def delete(self) -> None:
        for name in self.place.names:
            self._ring.items.pop((self.place.service, name), None)

    async def refresh(self) -> Token:
        server = AuthorizationServer(token_endpoint=f"{ENDPOINT}/oauth2/token")
        client = Client(server, "flytectl", plain_host="localhost")
        flow = Retrying(refresh(client, self.held))
        token = await Driver(self._plane, self._plane.clock).run(flow, flow.start(0))
        self.write(token)
        return token


class World:
    """A plane, a keyring, and our store."""

    def __init__(self, ring: OthersRing, store: MemoryStore | None = None, **settings: Any) -> None:
        self.plane = Plane(**settings)
        self.ring = ring
        self.store = store or MemoryStore()
        self.person = Person(self.plane.plane)

    def session(self, *tools: Tool, **arguments: Any) -> Session:
        arguments = {"store": self.store, "presenter": self.person, **arguments}
        return self.plane.session(shared_logins=tools or None, **arguments)

    def foreign(self, tool: Tool = "flyte") -> Foreign:
        return Foreign(self.plane, self.ring, tool)

    async def elsewhere(self, tool: Tool = "flyte") -> Foreign:
        """Another tool in which somebody has logged in."""
        async with self.plane.session() as session:
            token = await session.login()
        assert token is not None
        foreign = self.foreign(tool)
        foreign.write(token)
        return foreign

    async def refresh_token(self) -> str | None:
        """The one in our store."""
        (record,) = [await self.store.load(key) for key in self.store._records]
        return None if record is None else record.token.refresh_token

    def is_live(self, tool: Foreign) -> bool:
        """Whether *tool* has a refresh token that nobody has spent."""
        try:
            token = tool.token
        except StoreError:
            return False
        value = None if token is None else token.refresh_token
        known = self.plane.plane._server._refresh_tokens.get(value or "")
        return known is not None and known.family.refresh_token == value

    def later(self, seconds: float = 2000.0) -> None:
        """When the access tokens have ended."""
        self.plane.clock.now += seconds

    def events(self, kind: type[AuthEvent]) -> list[Any]:
        return [event for event in self.person.seen if isinstance(event, kind)]

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events(Warned)]

    @property
    def logins(self) -> int:
        return self.plane.asked["device_code"]

    @property
    def refreshes(self) -> int:
        return self.plane.asked[USED]


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> OthersRing:
    ring = OthersRing()
    found: dict[bool, Ring | StoreError] = {named: Ring(ring) for named in (False, True)}
    monkeypatch.setattr(keyring_module, "_process", keyring_module._Process(found=found))
    return ring


@pytest.fixture
def world(ring: OthersRing) -> World:
    return World(ring)


# While a login lasts.


@pytest.mark.parametrize("tool", ["flyte", "flytekit", "flytectl"])
async def test_a_login_and_each_refresh_is_written_for_a_tool_that_shares_it(
    world: World, tool: Tool
) -> None:
    foreign = world.foreign(tool)
    async with world.session(tool) as session:
        token = await session.login()
        for _ in range(3):
            assert token is not None
            assert foreign.held.access_token == token.access_token
            assert foreign.held.refresh_token == token.refresh_token
            world.later()
            token = await session.token()
    assert (world.logins, world.refreshes, world.warnings) == (1, 3, [])


async def test_without_the_option_the_keyring_is_not_touched(world: World) -> None:
    foreign = await world.elsewhere()
    before = dict(world.ring.items)
    async with world.session() as session:
        await session.login()
        world.later()
        await session.token()
        await session.logout()
    assert world.ring.calls == []
    assert world.ring.items == before
    assert foreign.token is not None


async def test_where_we_have_no_login_that_of_a_tool_that_shares_it_is_taken_over(
    world: World,
) -> None:
    foreign = await world.elsewhere()
    logins = world.logins
    async with world.session("flytekit", "flyte") as session:
        token = await session.token()
        assert token is not None
        assert token.access_token == foreign.held.access_token
    async with world.session("flyte") as session:  # it is ours from now on
        assert await session.whoami() is not None
    assert (world.logins, world.refreshes) == (logins, 0)
    assert [event.tool for event in world.events(Imported)] == ["flyte"]


async def test_a_tool_whose_login_is_over_does_not_keep_anybody_from_being_asked(
    world: World,
) -> None:
    foreign = await world.elsewhere()
    world.plane.plane._server._revoke_family(
        world.plane.plane._server._refresh_tokens[foreign.held.refresh_token or ""].family
    )
    async with world.session("flyte") as session:
        with pytest.raises(InteractionRequired, match="not logged in"):
            await session.token()
    async with world.session("flyte", interactive=lambda: True) as session:
        assert await session.token() is not None


async def test_without_any_login_nothing_is_asked_of_the_network(world: World) -> None:
    async with world.session("flyte") as session:
        with pytest.raises(InteractionRequired, match="not logged in"):
            await session.token()
        asked = world.plane.asked.total()
        with pytest.raises(InteractionRequired, match="not logged in"):
            await session.token()
        assert world.plane.asked.total() == asked


async def test_a_logout_is_one_for_the_tools_that_share_the_login(ring: OthersRing) -> None:
    """Else it would be taken over at the next use, where the server does not take it back."""
    world = World(ring, faults={"revoke-503"})
    await world.elsewhere()
    kept = await world.elsewhere("flytekit")
    async with world.session("flyte") as session:
        assert await session.token() is not None
        await session.logout()
    async with world.session("flyte") as session:
        with pytest.raises(InteractionRequired, match="not logged in"):
            await session.token()
    assert kept.token is not None  # flytekit does not share it


async def test_twenty_who_have_no_login_take_that_of_a_tool_over_once(world: World) -> None:
    foreign = await world.elsewhere()
    world.later()
    async with world.session("flyte") as session, anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(session.headers)
    assert world.refreshes == 1
    assert foreign.held.refresh_token is not None
    assert len(world.events(Imported)) == 1


@pytest.mark.req("REF-06")
async def test_what_another_tool_has_refreshed_is_taken_over_and_ours_is_not_spent(
    world: World,
) -> None:
    foreign = world.foreign()
    async with world.session("flyte") as session:
        await session.login()
        for refreshes in (1, 2):
            world.later()
            theirs = await foreign.refresh()
            assert await session.whoami() is not None
            token = await session.token()
            assert token is not None
            assert token.access_token == theirs.access_token
            assert world.refreshes == refreshes
    assert (world.logins, world.warnings) == (1, [])


async def test_both_refresh_in_turns_for_long_without_a_login(world: World) -> None:
    foreign = world.foreign()
    async with world.session("flyte") as session:
        await session.login()
        for _ in range(5):
            world.later()
            await foreign.refresh()
            await session.token()
            session.reject(foreign.held.access_token)
            world.later()  # nobody knows when theirs has ended, and a server says so
            await session.token()
            assert await session.whoami() is not None
    assert world.logins == 1
    assert world.plane.plane.count(grant_type=USED, status=400) == 0


async def test_what_one_tool_has_refreshed_the_others_get(world: World) -> None:
    flyte, kit = world.foreign(), world.foreign("flytekit")
    async with world.session("flytekit", "flyte") as session:
        await session.login()
        world.later()
        await kit.refresh()
        token = await session.token()
        assert token is not None
        assert flyte.held.refresh_token == kit.held.refresh_token == token.refresh_token
    assert world.refreshes == 1


async def test_an_expired_token_of_another_tool_is_refreshed_with_its_refresh_token(
    world: World,
) -> None:
    """Flytectl keeps an expiry, so nobody has to be refused first."""
    foreign = world.foreign("flytectl")
    async with world.session("flytectl") as session:
        await session.login()
        world.later()
        await foreign.refresh()
        world.later()
        token = await session.token()
        assert token is not None
        assert foreign.held.access_token == token.access_token
    assert (world.logins, world.refreshes) == (1, 2)


async def test_scopes_and_id_token_stay_those_of_the_login(world: World) -> None:
    """Others do not keep them, and what they keep of an ID token nobody has checked."""
    kit = world.foreign("flytekit")
    scopes = ["openid", "offline", "all"]
    async with world.session("flytekit", scopes=scopes) as session:
        token = await session.login()
        assert token is not None
        assert token.id_token is not None
        assert world.ring.items[kit.place.service, "id_token"] == token.id_token
        world.later()
        await kit.refresh()
        world.ring.items[kit.place.service, "id_token"] = "forged"
        adopted = await session.token()
        assert adopted is not None
        assert adopted.refresh_token == kit.held.refresh_token
        assert (adopted.scopes, adopted.id_token) == (token.scopes, token.id_token)
        renewed = await session.renew()
        assert renewed is not None
        assert world.ring.items[kit.place.service, "id_token"] == renewed.id_token
    assert world.refreshes == 2


@pytest.mark.req("REF-03", "REF-08")
async def test_nothing_is_written_for_others_where_nothing_is_new(world: World) -> None:
    async with world.session("flyte") as session:
        await session.login()
        before = dict(world.ring.items)

        async def down(name: str) -> RequestFailed | None:
            return world.plane.down() if name == USED else None

        world.plane.before = down
        world.later()
        with pytest.raises(Unreachable):
            await session.token()
    assert world.ring.items == before


async def test_a_tool_that_has_deleted_its_login_ends_nothing_and_gets_it_again(
    world: World,
) -> None:
    foreign = world.foreign()
    async with world.session("flyte") as session:
        await session.login()
        foreign.delete()
        world.later()
        token = await session.token()
        assert token is not None
        assert foreign.held.refresh_token == token.refresh_token
    assert (world.logins, world.refreshes) == (1, 1)


async def test_a_login_that_another_tool_has_made_is_taken_over_at_the_next_refresh(
    world: World,
) -> None:
    async with world.session("flyte") as session:
        await session.login()
        await (await world.elsewhere()).refresh()
        world.later()
        token = await session.token()
        assert token is not None
        assert token.refresh_token == world.foreign().held.refresh_token


async def test_what_a_command_has_overwritten_without_a_refresh_token_is_no_login(
    world: World,
) -> None:
    async with world.session("flyte") as session:
        await session.login()
        world.foreign().write(Token("of a command", 0.0))
        world.later()
        token = await session.token()
        assert token is not None
        assert world.foreign().held.refresh_token == token.refresh_token
    assert world.refreshes == 1


@pytest.mark.parametrize("garbage", ["{", "[]", '{"access_token": 1}', "\x00"])
async def test_what_is_no_login_is_overwritten(world: World, garbage: str) -> None:
    async with world.session("flyte") as session:
        await session.login()
        world.ring.items[KEY, "tokens"] = garbage
        world.later()
        await session.token()
    assert world.foreign().token is not None
    assert world.warnings == []


async def test_both_at_once_and_the_server_forgives_it(ring: OthersRing) -> None:
    """Between our look and our request the other tool was quicker."""
    world = World(ring, grace=60.0)
    foreign = world.foreign()
    async with world.session("flyte") as session:
        await session.login()
        world.later()
        theirs: list[Token] = []

        async def at_the_same_time(name: str) -> RequestFailed | None:
            if name == USED and not theirs:
                theirs.append(foreign.held)
                theirs.append(await foreign.refresh())
            return None

        world.plane.before = at_the_same_time
        token = await session.token()
        assert token is not None
        assert await session.whoami() is not None
        world.later()
        assert await session.token() is not None
    assert world.logins == 1


@pytest.mark.req("REF-07")
async def test_both_at_once_and_the_server_only_refuses_the_second(ring: OthersRing) -> None:
    world = World(ring, reuse_detection=False)
    foreign = world.foreign()
    async with world.session("flyte") as session:
        await session.login()
        world.later()
        world.plane.before = once(foreign.refresh)
        token = await session.token()
        assert token is not None
        assert token.access_token == foreign.held.access_token
        assert await session.whoami() is not None
    assert world.logins == 1
    assert world.plane.plane.count(grant_type=USED, status=400) == 1


@pytest.mark.req("REF-07", "REF-12")
async def test_both_at_once_and_the_server_ends_the_login_over_it(world: World) -> None:
    """What nobody can keep a server from; no browser opens, and the next step is said."""
    foreign = world.foreign()
    async with world.session("flyte") as session:
        await session.login()
        world.later()
        world.plane.before = once(foreign.refresh)
        with pytest.raises(ReauthRequired, match="flyteauth login"):
            await session.token()
    assert world.logins == 1


def once(act: Callable[[], Awaitable[object]]) -> Callable[[str], Awaitable[RequestFailed | None]]:
    """Before the first refresh."""
    done: list[str] = []

    async def before(name: str) -> RequestFailed | None:
        if name == USED and not done:
            done.append(name)
            await act()
        return None

    return before


@pytest.mark.req("REF-15")
async def test_a_keyring_that_cannot_be_written_is_a_warning_and_the_login_goes_on(
    world: World,
) -> None:
    async with world.session("flyte") as session:
        world.ring.locked = True
        assert await session.login() is not None
        (warning,) = world.warnings
        assert "flyte does not get" in warning
        assert warning.endswith("unlock it")
        world.later()
        assert await session.token() is not None
        assert len(world.warnings) == 2
        world.ring.locked = False
        world.later()
        token = await session.token()
        assert token is not None
        assert world.foreign().held.refresh_token == token.refresh_token
    assert (world.logins, world.refreshes) == (1, 2)


async def test_what_could_not_be_overwritten_is_not_taken_for_something_new(world: World) -> None:
    """A refresh token of ours that is spent already: a server would take it for theft."""
    async with world.session("flyte") as session:
        await session.login()
        world.ring.refuses = "tokens"
        for _ in range(3):
            world.later()
            assert await session.token() is not None
        world.ring.refuses = None
        world.later()
        token = await session.token()
        assert token is not None
        assert world.foreign().held.refresh_token == token.refresh_token
    assert (world.logins, world.refreshes) == (1, 4)
    assert world.plane.plane.count(grant_type=USED, status=400) == 0


async def test_what_is_there_after_nobody_could_look_is_not_taken_for_something_new(
    world: World,
) -> None:
    async with world.session("flyte") as session:
        await session.login()
        await session.renew()
        for locked in (True, False):
            world.ring.locked = locked
            world.later()
            assert await session.whoami() is not None
    assert world.logins == 1
    assert world.plane.plane.count(grant_type=USED, status=400) == 0


async def test_an_old_login_of_a_tool_is_not_taken_over_in_place_of_a_new_one(
    world: World,
) -> None:
    old = (await world.elsewhere()).held
    world.ring.refuses = "tokens"
    async with world.session("flyte") as session:
        token = await session.login()
        world.later()
        renewed = await session.token()
        assert token is not None
        assert renewed is not None
        assert world.foreign().held.refresh_token == old.refresh_token
        assert old.refresh_token not in {token.refresh_token, renewed.refresh_token}
    assert world.refreshes == 1


async def test_a_login_stays_shared_until_it_ends_whatever_is_configured_later(
    world: World,
) -> None:
    """``login --share``, and then commands without it."""
    async with world.session("flyte") as session:
        await session.login()
    async with world.session() as session:
        world.later()
        await world.foreign().refresh()
        token = await session.token()
        assert token is not None
        assert token.access_token == world.foreign().held.access_token
        await session.login()
        other = world.foreign().held
        world.later()
        await session.token()
        assert world.foreign().held == other.replace(obtained_at=world.plane.clock.time())
    assert world.refreshes == 2


async def test_a_login_is_shared_from_the_next_refresh_on_once_it_is_configured(
    world: World,
) -> None:
    async with world.session() as session:
        await session.login()
    async with world.session("flyte") as session:
        world.later()
        token = await session.token()
        assert token is not None
        assert world.foreign().held.refresh_token == token.refresh_token
        world.later()
        theirs = await world.foreign().refresh()
        assert (await session.token() or theirs).access_token == theirs.access_token
    assert world.refreshes == 2


@pytest.mark.req("REV-05")
async def test_a_logout_while_it_is_being_refreshed_leaves_no_copy(world: World) -> None:
    async with world.session("flyte") as one, world.session("flyte") as other:
        await one.login()
        await other.token()
        world.later()
        async with anyio.create_task_group() as group:

            async def log_out() -> None:
                await other.logout(everywhere=True)

            async def meanwhile(name: str) -> None:
                if name == USED:
                    world.plane.after = None
                    group.start_soon(log_out)
                    with anyio.fail_after(LIMIT):
                        while not world.events(LoggedOut):
                            await anyio.lowlevel.checkpoint()

            world.plane.after = meanwhile
            with pytest.raises(ReauthRequired):
                await one.token()
    assert world.ring.items == {}


async def test_a_logout_while_others_are_being_told_leaves_no_copy(ring: OthersRing) -> None:
    world = World(ring, store := SlowStore())
    async with world.session("flyte") as one, world.session("flyte") as other:
        await one.login()
        await other.token()
        world.later()
        async with anyio.create_task_group() as group:

            async def log_out() -> None:
                await other.logout(everywhere=True)

            async def meanwhile() -> None:
                if world.refreshes:
                    store.loaded = None
                    group.start_soon(log_out)
                    with anyio.fail_after(LIMIT):
                        while store.turns < 2 and ring.items:  # it waits for us, or has gone on
                            await anyio.lowlevel.checkpoint()

            store.loaded, store.turns = meanwhile, 0
            await one.token()
    assert ring.items == {}


class SlowStore(MemoryStore):
    """Something may happen when it was read or written."""

    loaded: Callable[[], Awaitable[None]] | None = None
    swapped: Callable[[], Awaitable[None]] | None = None
    turns = 0

    async def exclusively(
        self, key: str, function: Callable[[], Awaitable[T]], *, deadline: float
    ) -> T:
        self.turns += 1
        return await super().exclusively(key, function, deadline=deadline)

    async def load(self, key: str) -> Record | None:
        record = await super().load(key)
        if self.loaded is not None:
            await self.loaded()
        return record

    async def swap(self, key: str, old: Record | None, new: Record) -> bool:
        swapped = await super().swap(key, old, new)
        if self.swapped is not None:
            await self.swapped()
        return swapped


async def test_a_logout_before_others_are_told_leaves_no_copy(ring: OthersRing) -> None:
    world = World(ring)
    store = SlowStore()
    world.store = store
    async with world.session("flyte") as session:
        await session.login()
        before = dict(ring.items)
        world.later()

        async def log_out() -> None:
            (key,) = store._records
            await store.delete(key)

        store.swapped = log_out
        await session.token()
    assert ring.items == before


async def test_others_are_told_of_a_login_that_has_replaced_what_was_refreshed(
    ring: OthersRing,
) -> None:
    world = World(ring, store := SlowStore())
    another = Token("another", 0.0, None, "another")
    async with world.session("flyte") as session:
        await session.login()
        world.later()

        async def replace() -> None:
            ((key, record),) = store._records.items()
            await store.save(key, record.replace(login="another", token=another))

        store.swapped = replace
        await session.token()
    assert world.foreign().held.access_token == "another"


async def test_a_tool_that_refreshes_again_at_once_keeps_what_it_has(ring: OthersRing) -> None:
    world = World(ring, store := SlowStore())
    foreign = world.foreign()
    async with world.session("flyte", "flytekit") as session:
        await session.login()
        world.later()
        await foreign.refresh()

        async def again() -> None:
            store.swapped = None
            await foreign.refresh()

        store.swapped = again
        await session.token()
        newest = foreign.held
        world.later()
        assert await session.whoami() is not None
        assert foreign.held.access_token != newest.access_token
    assert world.logins == 1
    assert world.plane.plane.count(grant_type=USED, status=400) == 0


@pytest.mark.req("REF-07")
async def test_what_a_tool_has_made_of_a_copy_is_worth_a_try_at_last(ring: OthersRing) -> None:
    """It was exported, refreshed there, and only then configured to be shared."""
    world = World(ring, reuse_detection=False)
    async with world.session() as session:
        await session.login()
        await session.export_login("flyte")
    await world.foreign().refresh()
    world.later(100.0)
    async with world.session("flyte") as session:
        token = await session.renew()
        assert token is not None
        assert token.access_token == world.foreign().held.access_token
        assert await session.whoami() is not None
    assert world.logins == 1


async def test_what_is_taken_over_counts_as_a_refresh(world: World) -> None:
    """Or another process could take what it has in hand for younger."""
    async with world.session("flyte") as session:
        await session.login()
        for generation in (1, 2):
            await world.foreign().refresh()
            await session.renew()
            (record,) = world.store._records.values()
            assert record.generation == generation


async def test_a_service_shares_nothing(world: World) -> None:
    async with world.session("flyte", auth_type="ClientSecret") as session:
        await session.token()
        await session.renew()
    assert world.ring.calls == []


# Whatever happens, in whatever order.

LOSSES = ("flyte deletes", "flytekit deletes", "lock", "garble")
STEPS = (
    *("use", "use the other", "renew", "later", "much later", "start again"),
    *("flyte refreshes", "flytekit refreshes", "unlock", "refuse tokens", "refuse refresh_token"),
    *LOSSES,
)


@given(backend=st.sampled_from(["asyncio", "trio"]), steps=st.lists(st.sampled_from(STEPS)))
@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_no_refresh_token_is_spent_twice_and_no_login_is_lost_whatever_happens(
    ring: OthersRing, backend: str, steps: list[str]
) -> None:
    ring.items.clear()
    ring.locked, ring.refuses = False, None
    anyio.run(_live, World(ring), steps, backend=backend)


async def _live(world: World, steps: list[str]) -> None:
    """What nobody could survive is left out: the one who has refreshed loses what it got before we
    have looked, or we cannot look.
    """
    tools = {"flyte": world.foreign("flyte"), "flytekit": world.foreign("flytekit")}
    ours = [world.session("flyte", "flytekit"), world.session("flyte", "flytekit")]
    await ours[0].login()
    for step in [*steps, "unlock", "much later", "use", "use the other"]:
        tool = tools.get(step.partition(" ")[0])
        kept = await world.refresh_token()
        if step in LOSSES and any(
            world.is_live(each) and each.held.refresh_token != kept for each in tools.values()
        ):
            continue
        match step:
            case "use" | "use the other":
                assert await ours[step != "use"].whoami() is not None
            case "renew":
                await ours[0].renew()
            case "later" | "much later":
                world.later(100.0 if step == "later" else 2000.0)
            case "start again":
                ours[0] = world.session("flyte", "flytekit")
            case "lock":
                world.ring.locked = True
            case "unlock":
                world.ring.locked, world.ring.refuses = False, None
            case "refuse tokens" | "refuse refresh_token":
                world.ring.refuses = step.split()[1]
            case "garble":
                tools["flyte"].delete()
                world.ring.items[KEY, "tokens"] = "{"
            case _ if tool is not None and step.endswith("deletes"):
                tool.delete()
            case _ if tool is not None and world.is_live(tool) and not world.ring.locked:
                await tool.refresh()
    assert world.logins == 1
    assert world.plane.plane.count(grant_type=USED, status=400) == 0
    current = await ours[0].token()
    assert current is not None
    assert await ours[0].renew() != current
    for tool in tools.values():
        assert world.is_live(tool)


# To and fro.


async def imports(world: World, *sources: Tool, shared: tuple[Tool, ...] = ()) -> Token:
    async with world.session(*shared) as session:
        token = await session.import_login(*sources)
        assert await session.token() == token
        assert await session.whoami() is not None
        return token


@pytest.mark.parametrize("tool", ["flyte", "flytekit", "flytectl"])
@pytest.mark.parametrize("named", [False, True])
async def test_the_login_of_another_tool_becomes_ours(
    world: World, tool: Tool, *, named: bool
) -> None:
    foreign = await world.elsewhere(tool)
    token = await imports(world, *([tool] if named else []))
    assert (token.access_token, token.refresh_token) == (
        foreign.held.access_token,
        foreign.held.refresh_token,
    )
    (event,) = world.events(Imported)
    assert (event.server, event.tool) == (KEY, tool)
    assert "keyring" in event.place
    (logged_in,) = world.events(LoggedIn)
    assert logged_in.subject == "alice"
    assert (world.logins, world.refreshes) == (1, 0)
    async with world.session() as session:  # it is kept, with all that a refresh takes
        world.later()
        assert await session.whoami() is not None
    assert world.refreshes == 1


@pytest.mark.parametrize("tool", ["flyte", "flytekit", "flytectl"])
async def test_an_expired_login_of_another_tool_takes_exactly_one_refresh(
    world: World, tool: Tool
) -> None:
    foreign = await world.elsewhere(tool)
    world.later()
    token = await imports(world, tool)
    assert (world.logins, world.refreshes) == (1, 1)
    assert foreign.held.refresh_token == token.refresh_token  # or it would spend the old one


async def test_what_was_found_under_another_spelling_is_put_back_there(world: World) -> None:
    foreign = await world.elsewhere("flytekit")
    elsewhere = Place("flytekit", f"dns:///{KEY}")
    moved = {(elsewhere.service, name): text for (_, name), text in world.ring.items.items()}
    world.ring.items = moved
    world.later()
    token = await imports(world)
    assert foreign.token is None
    assert world.ring.items[elsewhere.service, "refresh_token"] == token.refresh_token
    assert set(world.ring.items) == set(moved)


async def test_a_login_that_is_over_is_passed_over_for_one_that_works(world: World) -> None:
    world.foreign("flyte").write(Token("over", 0.0, None, "over"))
    world.ring.items["flytectl", f"{ENDPOINT}:flytectl-user"] = "garbage"
    good = await world.elsewhere("flytekit")
    token = await imports(world)
    assert token.access_token == good.held.access_token
    assert [event.tool for event in world.events(Imported)] == ["flytekit"]


async def test_what_flyte_wrote_long_ago_is_imported(world: World) -> None:
    token = (await world.elsewhere()).held
    world.ring.items = {
        (KEY, "access_token"): token.access_token,
        (KEY, "refresh_token"): token.refresh_token or "",
    }
    assert (await imports(world, "flyte")).access_token == token.access_token


async def test_a_login_without_a_refresh_token_is_imported_with_a_warning(world: World) -> None:
    foreign = await world.elsewhere()
    foreign.write(foreign.held.without_refresh_token())
    await imports(world)
    assert ["ends with its first token" in warning for warning in world.warnings] == [True]


async def test_a_login_in_two_hands_is_warned_of_unless_it_is_shared(world: World) -> None:
    await world.elsewhere()
    await imports(world)
    (warning,) = world.warnings
    assert warning.endswith("set admin.sharedLogins to [flyte]")
    await imports(world, shared=("flyte",))
    assert len(world.warnings) == 1


async def test_an_imported_login_is_shared_if_it_is_configured(world: World) -> None:
    foreign = await world.elsewhere()
    async with world.session("flyte") as session:
        await session.import_login()
        world.later()
        session.reject(foreign.held.access_token)
        theirs = await foreign.refresh()
        token = await session.token()
        assert token is not None
        assert token.access_token == theirs.access_token
    assert (world.logins, world.refreshes) == (1, 1)


async def test_without_a_login_to_import_it_is_said_what_to_do(world: World) -> None:
    async with world.session() as session:
        with pytest.raises(InteractionRequired, match="flyteauth login") as caught:
            await session.import_login()
        assert caught.value.reason == "not_logged_in"
        world.foreign().write(Token("over", 0.0, None, "over"))
        with pytest.raises(ReauthRequired, match="login of flyte .* is over"):
            await session.import_login("flyte")
        with pytest.raises(InteractionRequired, match="^flytectl keeps no login"):
            await session.import_login("flytectl")
        world.ring.items = {(KEY, "tokens"): "garbage"}
        with pytest.raises(StoreError, match="is no login"):
            await session.import_login()
        world.ring.locked = True
        with pytest.raises(StoreError, match="is locked"):
            await session.import_login()
        with pytest.raises(ConfigError, match="flyte, flytekit or flytectl"):
            await session.import_login("kubectl")  # type: ignore[arg-type]
    assert world.events(LoggedIn) == []


async def test_what_was_stored_stays_if_nothing_can_be_imported(world: World) -> None:
    async with world.session() as session:
        token = await session.login()
        with pytest.raises(InteractionRequired):
            await session.import_login()
        assert await session.token() == token


@pytest.mark.req("REF-13")
async def test_an_import_that_is_cancelled_goes_on_until_its_login_is_kept(world: World) -> None:
    """The refresh token is spent by then."""
    foreign = await world.elsewhere()
    world.later()
    async with world.session() as session:
        with anyio.CancelScope() as scope:

            async def cancel(name: str) -> None:
                if name == USED:
                    scope.cancel()

            world.plane.after = cancel
            await session.import_login()
        assert scope.cancelled_caught
    async with world.session() as session:
        token = await session.token()
    assert token is not None
    assert foreign.held.refresh_token == token.refresh_token
    assert world.refreshes == 1


async def test_imports_at_once_spend_the_refresh_token_once(world: World) -> None:
    await world.elsewhere()
    world.later()
    tokens: list[Token] = []
    async with world.session() as one, world.session() as other:

        async def take(session: Session) -> None:
            tokens.append(await session.import_login())

        async with anyio.create_task_group() as group:
            group.start_soon(take, one)
            group.start_soon(take, other)
    assert len({token.access_token for token in tokens}) == 1
    assert world.refreshes == 1


async def test_where_nobody_logs_in_nothing_is_imported(world: World) -> None:
    for auth_type in ("ClientSecret", "NoAuth", "Passthrough"):
        async with world.session(auth_type=auth_type) as session:
            with pytest.raises(ConfigError, match=auth_type):
                await session.import_login()
    async with Session(issuer="https://as.example", store=MemoryStore()) as session:
        with pytest.raises(ConfigError, match="endpoint="):
            await session.import_login()
        with pytest.raises(ConfigError, match="endpoint="):
            await session.export_login("flyte")


async def test_a_login_is_exported_to_where_each_tool_looks(world: World) -> None:
    async with world.session() as session:
        await session.login()
        world.later()
        await session.export_login("flyte", "flytectl")
        token = await session.token()
    assert token is not None
    assert world.foreign().held.access_token == token.access_token
    assert world.foreign("flytectl").held.expires_at == token.expires_at
    assert world.foreign("flytekit").token is None
    assert [event.tool for event in world.events(Exported)] == ["flyte", "flytectl"]
    assert len(world.warnings) == 2
    assert world.refreshes == 1


async def test_what_another_process_has_refreshed_meanwhile_is_exported(world: World) -> None:
    async with world.session() as one, world.session(flights=Flights()) as other:
        await one.login()
        renewed = await other.renew()
        await one.export_login("flyte")
    assert renewed is not None
    assert world.foreign().held.refresh_token == renewed.refresh_token


async def test_a_token_of_a_service_is_exported_as_flyte_itself_would(world: World) -> None:
    async with world.session(auth_type="ClientSecret") as session:
        await session.export_login("flyte")
        token = await session.token()
    assert token is not None
    assert world.foreign().held.access_token == token.access_token
    assert world.warnings == []


async def test_what_cannot_be_exported_says_why(world: World) -> None:
    async with world.session() as session:
        with pytest.raises(InteractionRequired):
            await session.export_login("flyte")
        await session.login()
        with pytest.raises(ConfigError):
            await session.export_login()
        world.ring.locked = True
        with pytest.raises(StoreError, match="unlock it$"):
            await session.export_login("flyte")
    async with world.session(auth_type="NoAuth") as session:
        with pytest.raises(ConfigError, match="NoAuth"):
            await session.export_login("flyte")
    assert world.events(Exported) == []


async def test_where_no_login_is_wanted_there_is_none_to_move(ring: OthersRing) -> None:
    world = World(ring, faults={"no-auth"})
    async with world.session() as session:
        for act in (session.import_login, lambda: session.export_login("flyte")):
            with pytest.raises(MissingMetadata, match="wants no login"):
                await act()


def test_code_without_an_event_loop_has_the_same(ring: OthersRing) -> None:
    world = World(ring)
    with SyncSession(of=world.session()) as session:
        session.login()
        session.export_login("flyte")
        assert session.import_login("flyte").access_token == world.foreign().held.access_token
        assert session.logout(everywhere=True).local_deleted
    assert ring.items == {}


# The end.


@pytest.mark.parametrize("ours", [False, True])
async def test_a_logout_everywhere_removes_every_spelling_and_revokes_each(
    world: World, *, ours: bool
) -> None:
    """Row 29."""
    found = [await world.elsewhere(tool) for tool in ("flyte", "flytekit", "flytectl")]
    held = [foreign.held for foreign in found]
    world.ring.items[f"https://{KEY}/", "id_token"] = "i"
    world.ring.items[f"https://{KEY}/", "refresh_token"] = "unknown"
    world.ring.items["flytectl", f"dns:///{KEY}:flytectl-user"] = "garbage"
    world.ring.items[KEY, "access_token"] = "of long ago"
    others = {("localhost:9", "tokens"): "another", ("flyteauth", "another"): "stays"}
    world.ring.items |= others
    async with world.session() as session:
        if ours:
            await session.login()
        outcome = await session.logout(everywhere=True)
        assert outcome.local_deleted is ours
        with pytest.raises((InteractionRequired, ReauthRequired)):
            await session.token()
    assert world.ring.items == others
    at = world.plane.clock.time()
    assert [world.plane.plane.access(token.access_token, at) for token in held] == [None] * 3
    forgotten = world.events(Forgotten)
    assert {event.tool for event in forgotten} == {"flyte", "flytekit", "flytectl"}
    assert {event.remote_revoked for event in forgotten} == {True}


async def test_a_logout_everywhere_of_a_shared_login_revokes_it_once(world: World) -> None:
    async with world.session("flyte", "flytekit") as session:
        await session.login()
        await session.logout(everywhere=True)
    assert world.ring.items == {}
    assert world.plane.asked[REVOKED] == 2  # the refresh token and the access token
    assert {event.remote_revoked for event in world.events(Forgotten)} == {True}


@pytest.mark.req("REV-06")
async def test_a_logout_everywhere_works_without_the_network(world: World) -> None:
    await world.elsewhere()

    async def down(name: str) -> RequestFailed:
        return world.plane.down()

    world.plane.before = down
    async with world.session() as session:
        await session.logout(everywhere=True)
    assert world.ring.items == {}
    (event,) = world.events(Forgotten)
    assert event.remote_revoked is False


async def test_a_logout_everywhere_with_nothing_there_is_fine(world: World) -> None:
    async with world.session() as session:
        outcome = await session.logout(everywhere=True)
    assert outcome == LoggedOut(KEY, local_deleted=False, remote_revoked=None)
    assert world.events(Forgotten) == []
    assert world.plane.asked[REVOKED] == 0


@pytest.mark.parametrize("trouble", ["locked", "missing"])
async def test_a_keyring_that_cannot_be_looked_into_is_said_after_all_else_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    async with world.session() as session:
        await session.login()
        world.ring.locked = True
        if trouble == "missing":
            missing = StoreError("there is no keyring here; start one", reason="missing")
            found: dict[bool, Ring | StoreError] = {True: missing}
            monkeypatch.setattr(keyring_module, "_process", keyring_module._Process(found=found))
        with pytest.raises(StoreError, match="may still be there") as caught:
            await session.logout(everywhere=True)
        assert caught.value.reason == trouble
    assert [event.local_deleted for event in world.events(LoggedOut)] == [True]


async def test_one_item_that_stays_keeps_no_other(world: World) -> None:
    await world.elsewhere("flyte")
    await world.elsewhere("flytekit")
    world.ring.refuses = "tokens"
    async with world.session() as session:
        with pytest.raises(StoreError, match="may still be there"):
            await session.logout(everywhere=True)
    assert set(world.ring.items) == {(KEY, "tokens")}
    assert [event.tool for event in world.events(Forgotten)] == ["flytekit"]


async def test_a_login_of_ours_that_cannot_be_removed_keeps_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.session("flyte") as session:
        await session.login()

        async def refuse(key: str) -> None:
            raise StoreError("the store is locked; unlock it", reason="locked")

        monkeypatch.setattr(world.store, "delete", refuse)
        with pytest.raises(StoreError, match="the store is locked"):
            await session.logout(everywhere=True)
    assert world.ring.items == {}


# Several processes.

PROGRAM = """
import sys, time
import anyio
from flyteauth.session import Session

async def main():
    endpoint, backend, start = sys.argv[1:4]
    async with Session(
        endpoint=endpoint, auth_type="DeviceFlow", token_store="file", shared_logins=["flyte"]
    ) as session:
        sys.stdin.readline()
        print((await session.token()).access_token, await session.whoami() is not None)

anyio.run(main, backend=sys.argv[2])
"""


@pytest.mark.req("REF-05", "REF-06")
@pytest.mark.parametrize("theirs", [False, True])
def test_eight_processes_that_share_a_login_refresh_it_once(
    running: Running, home: Path, anyio_backend: str, *, theirs: bool
) -> None:
    """Row 4; or not at all, if another tool has done it."""
    environ = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring",
        "XDG_DATA_HOME": str(home / "data"),
    }
    arguments: dict[str, Any] = {
        "endpoint": running.base_url,
        "auth_type": "DeviceFlow",
        "token_store": "file",
    }
    ring = plain_text(home / "data/python_keyring")
    address = running.base_url.partition("://")[2]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PYTHON_KEYRING_BACKEND", "XDG_DATA_HOME"):
            patch.setenv(name, environ[name])
        found: dict[bool, Ring | StoreError] = {True: Ring(ring)}
        patch.setattr(keyring_module, "_process", keyring_module._Process(found=found))
        with SyncSession(**arguments, shared_logins=["flyte"]) as session:
            session.login()
    before = json.loads(ring.get_password(address, "tokens"))
    if theirs:
        access_token, refresh_token = refreshed(running, before["refresh_token"])
        fresh = {"access_token": access_token, "refresh_token": refresh_token}
        ring.set_password(address, "tokens", json.dumps(fresh))
    key = identity(resolve(arguments, environ=None, search=False))
    record = FileStore().load_sync(key)
    assert record is not None
    FileStore().save_sync(key, record.replace(token=record.token.replace(expires_at=1.0)))

    command = [sys.executable, "-c", PROGRAM, running.base_url, anyio_backend, ""]
    processes = [
        subprocess.Popen(
            command,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    try:
        said = [process.communicate("go\n", timeout=LIMIT) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0] * 8, said
    after = json.loads(ring.get_password(address, "tokens"))
    assert {out for out, _ in said} == {f"{after['access_token']} True\n"}
    assert after != before
    assert running.plane.count(grant_type=USED) == 1
    assert running.plane.count(grant_type="urn:ietf:params:oauth:grant-type:device_code") <= 3
