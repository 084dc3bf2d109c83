from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from attrs import evolve

from flyteauth import _grants as grants_module
from flyteauth._io.store.memory import MemoryStore
from flyteauth._sansio.flow import RequestFailed, ResponseReceived
from flyteauth._sansio.http import Request, Response
from flyteauth._sansio.record import Record
from flyteauth.errors import (
    Expired,
    FlowError,
    InteractionRequired,
    InvalidResponse,
    ReauthRequired,
    StoreError,
    Unreachable,
)
from flyteauth.events import AuthEvent, CodeNeeded, LoggedIn, Refreshed, Warned
from tests.concurrency import all_at_once

from .plane import ENDPOINT, Person, Plane

pytestmark = pytest.mark.anyio

PROJECTS = "/flyteidl2.project.ProjectService/ListProjects"
DEVICE = "device_code"


class SpyStore(MemoryStore):
    """Notes what is asked of it; can be told to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.broken: StoreError | None = None

    async def load(self, key: str) -> Record | None:
        self.calls.append("load")
        return await super().load(key)

    async def save(self, key: str, record: Record) -> None:
        self.calls.append("save")
        if self.broken is not None:
            raise self.broken
        await super().save(key, record)

    async def swap(self, key: str, old: Record | None, new: Record) -> bool:
        self.calls.append("swap")
        if self.broken is not None:
            raise self.broken
        return await super().swap(key, old, new)

    async def delete(self, key: str) -> None:
        self.calls.append("delete")
        await super().delete(key)


# Logging in.


@pytest.mark.req("DEV-10", "TOK-08")
async def test_a_device_login_gives_headers_that_the_control_plane_takes() -> None:
    plane = Plane()
    async with plane.session() as session:
        token = await session.login()
        assert token is not None
        assert await session.headers() == {"authorization": f"Bearer {token.access_token}"}
        assert (await session.call(PROJECTS, {}))["projects"]
        who = await session.whoami()
    assert who is not None
    assert who.subject


async def test_without_a_person_the_first_use_says_what_to_do_and_opens_nothing() -> None:
    plane = Plane()
    person = Person(plane.plane)
    async with plane.session(presenter=person, interactive=True) as session:
        with pytest.raises(InteractionRequired, match="flyteauth login"):
            await session.headers()
    assert person.seen == []


async def test_the_first_use_may_ask_a_person_who_is_there_and_no_later_one() -> None:
    plane = Plane()
    person = Person(plane.plane)
    async with plane.session(presenter=person, interactive=lambda: True) as session:
        assert await session.headers()
        assert person.saw(CodeNeeded) == 1
        await session.logout()
        with pytest.raises(ReauthRequired):
            await session.headers()
    assert person.saw(CodeNeeded) == 1


async def test_many_who_log_in_at_once_see_one_prompt() -> None:
    plane = Plane()
    person = Person(plane.plane)
    async with plane.session(presenter=person) as session:
        tokens = await all_at_once(20, session.login)
    assert person.saw(CodeNeeded) == 1
    assert len({token.access_token for token in tokens}) == 1


async def test_a_new_login_replaces_the_stored_one() -> None:
    plane = Plane()
    async with plane.session() as session:
        first, second = await session.login(), await session.login()
        assert first != second
        assert await session.token() == second


class ProbedStore(SpyStore):
    async def probe(self) -> None:
        self.calls.append("probe")


async def test_a_login_looks_first_whether_it_can_be_kept() -> None:
    """That look has the patience for a person to unlock what the others would find locked."""
    store = ProbedStore()
    async with Plane().session(store=store) as session:
        for _ in range(2):
            store.calls.clear()
            await session.login()
            assert store.calls[0] == "probe"


async def test_an_anonymous_control_plane_needs_no_login_and_touches_no_store() -> None:
    plane = Plane(faults={"no-auth"})
    store = SpyStore()
    person = Person(plane.plane)
    async with plane.session(store=store, presenter=person) as session:
        assert await session.headers() == {}
        assert await session.token() is None
        assert await session.login() is None
        assert (await session.call(PROJECTS, {}))["projects"]
    assert store.calls == []
    assert person.seen == []


async def test_flyte_1_discovery_and_its_header_key_are_understood() -> None:
    plane = Plane(faults={"flyte1-only", "custom-header-key"})
    async with plane.session() as session:
        token = await session.login()
        assert token is not None
        assert await session.headers() == {"flyte-authorization": f"Bearer {token.access_token}"}
        assert (await session.call(PROJECTS, {}))["projects"]


async def test_discovery_is_asked_once_for_any_number_of_first_callers() -> None:
    plane = Plane()
    async with plane.session("ClientSecret") as session:
        await all_at_once(50, session.headers)
    assert plane.asked["/flyteidl2.auth.AuthMetadataService/GetOAuth2Metadata"] == 1
    assert plane.asked["/flyteidl2.auth.AuthMetadataService/GetPublicClientConfig"] == 1
    assert plane.asked["client_credentials"] == 1


@pytest.mark.req("CCG-06", "SEC-08")
async def test_a_service_has_no_refresh_token_and_gets_its_next_token_by_its_secret() -> None:
    plane = Plane(access_ttl=100.0)
    async with plane.session("ClientSecret") as session:
        first = await session.token()
        assert first is not None
        assert first.refresh_token is None
        plane.clock.now += 200
        second = await session.token()
    assert second != first
    assert plane.asked["client_credentials"] == 2
    assert plane.asked["refresh_token"] == 0


# Staying logged in.


@pytest.mark.req("REF-05")
async def test_an_expired_token_is_refreshed_once_for_all_who_wait() -> None:
    plane = Plane(access_ttl=100.0)
    async with plane.session() as session:
        before = await session.login()
        plane.clock.now += 200
        outcomes = await all_at_once(1000, session.token)
    assert plane.asked["refresh_token"] == 1
    assert len(set(outcomes)) == 1
    assert outcomes[0] != before


@pytest.mark.req("CLK-06")
async def test_an_ageing_token_is_handed_out_while_the_next_one_is_fetched() -> None:
    plane = Plane(access_ttl=100.0)
    async with plane.session() as session:
        old = await session.login()
        plane.clock.now += 90
        assert await session.token() == old
        await session.aclose()
        assert plane.asked["refresh_token"] == 1
        assert await session.token() != old


@pytest.mark.req("CLK-06")
async def test_an_ageing_token_survives_a_refresh_that_fails_and_is_not_tried_again_at_once() -> (
    None
):
    plane = Plane(access_ttl=100.0, faults={"refresh-503"})
    async with plane.session() as session:
        old = await session.login()
        plane.clock.now += 85
        for _ in range(5):
            assert await session.token() == old
            await anyio.wait_all_tasks_blocked()
    assert plane.asked["refresh_token"] <= 3  # one refresh, with its retries


@pytest.mark.req("REF-05", "REF-09")
async def test_a_refresh_that_fails_fails_once_for_all_who_wait() -> None:
    plane = Plane(access_ttl=100.0)
    async with plane.session() as session:
        await session.login()
        plane.clock.now += 200

        async def refuse(name: str) -> RequestFailed | None:
            return plane.down() if name == "refresh_token" else None

        plane.before = refuse
        outcomes = await all_at_once(100, session.token)
        assert plane.asked["refresh_token"] == 3  # the attempts of one refresh
        assert all(isinstance(outcome, Unreachable) for outcome in outcomes)


@pytest.mark.req("REF-04")
async def test_the_rotated_pair_is_stored_before_the_new_token_is_handed_out() -> None:
    plane = Plane(access_ttl=100.0)
    store = SpyStore()
    async with plane.session(store=store) as session:
        await session.login()
        plane.clock.now += 200
        store.calls.clear()
        token = await session.token()
        assert store.calls[-1] == "swap"
        key = (await session._life.set_up()).vault.key
        stored = await store.load(key)
    assert stored is not None
    assert stored.token == token


@pytest.mark.req("REF-02", "REF-03")
@pytest.mark.parametrize("faults", [set(), {"refresh-no-rotation-field"}])
async def test_a_login_outlives_any_number_of_refreshes(faults: set[str]) -> None:
    plane = Plane(access_ttl=100.0, faults=faults)
    async with plane.session() as session:
        await session.login()
        for _ in range(5):
            plane.clock.now += 150
            assert (await session.call(PROJECTS, {}))["projects"]
    assert plane.asked["refresh_token"] == 5


FAULTS: dict[str, Callable[[Plane], RequestFailed]] = {
    "refused": lambda plane: plane.down(),
    "timeout": lambda plane: RequestFailed("timeout", "no answer", True, plane.clock.now),
    "lost": lambda plane: RequestFailed("protocol", "closed", True, plane.clock.now),
    "tls": lambda plane: RequestFailed("tls", "self-signed", False, plane.clock.now),
}


@pytest.mark.req("REF-08", "REF-12")
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_transient_fault_changes_nothing_and_the_login_goes_on_after_it(fault: str) -> None:
    plane = Plane(access_ttl=100.0)
    store, person = SpyStore(), Person(plane.plane)
    async with plane.session(store=store, presenter=person) as session:
        await session.login()
        plane.clock.now += 200
        store.calls.clear()
        prompts = person.saw(CodeNeeded)

        async def fail(name: str) -> RequestFailed | None:
            return FAULTS[fault](plane) if name == "refresh_token" else None

        plane.before = fail
        with pytest.raises(Unreachable):
            await session.headers()
        assert "save" not in store.calls
        assert "delete" not in store.calls
        assert person.saw(CodeNeeded) == prompts
        plane.before = None
        assert await session.headers()


@pytest.mark.req("REF-09")
async def test_a_503_is_waited_out_as_the_server_asks() -> None:
    plane = Plane(access_ttl=100.0, faults={"refresh-503-once"})
    async with plane.session() as session:
        await session.login()
        plane.clock.now += 200
        assert await session.headers()
    assert plane.asked["refresh_token"] == 2


@pytest.mark.req("REF-07", "REF-12")
async def test_a_dead_refresh_token_ends_the_login_without_a_browser() -> None:
    plane = Plane(access_ttl=100.0, refresh_ttl=150.0)
    store, person = SpyStore(), Person(plane.plane)
    async with plane.session(store=store, presenter=person, interactive=lambda: True) as session:
        await session.login()
        plane.clock.now += 200
        with pytest.raises(ReauthRequired, match="flyteauth login"):
            await session.headers()
        with pytest.raises(ReauthRequired):
            await session.headers()
        assert person.saw(CodeNeeded) == 1
        assert await session.login()
        assert await session.headers()


@pytest.mark.req("REF-07")
async def test_a_sibling_that_refreshed_first_is_found_in_the_store() -> None:
    plane = Plane(access_ttl=100.0)
    store = MemoryStore()
    async with plane.session(store=store) as one, plane.session(store=store) as other:
        await one.login()
        assert await other.token() == await one.token()
        plane.clock.now += 200
        refreshed = await one.token()
        assert await other.token() == refreshed
    assert plane.asked["refresh_token"] == 1


@pytest.mark.req("REF-11")
async def test_a_lost_reply_is_asked_for_once_more_and_a_server_that_rotated_ends_the_login() -> (
    None
):
    plane = Plane(access_ttl=100.0)
    async with plane.session() as session:
        await session.login()
        plane.clock.now += 200
        lost = 0

        async def lose(name: str) -> None:
            nonlocal lost
            if name == "refresh_token":
                lost += 1
                raise_lost[0] = lost == 1

        raise_lost = [False]
        plane.after = lose
        send = plane.send

        async def lossy(request: Any) -> Any:
            answer = await send(request)
            if raise_lost[0]:
                raise_lost[0] = False
                return RequestFailed("protocol", "closed", True, plane.clock.now)
            return answer

        plane.send = lossy  # type: ignore[method-assign]
        with pytest.raises(ReauthRequired):
            await session.headers()
    assert plane.asked["refresh_token"] == 2


@pytest.mark.req("REF-13")
@pytest.mark.parametrize("how", ["scope", "asyncio"])
async def test_a_cancelled_waiter_loses_nothing(how: str, anyio_backend: str) -> None:
    if how == "asyncio" and anyio_backend != "asyncio":
        pytest.skip("asyncio's own cancel is asyncio's")
    plane = Plane(access_ttl=100.0)
    async with plane.session() as session:
        await session.login()
        plane.clock.now += 200
        asked, go_on = anyio.Event(), anyio.Event()

        async def hold(name: str) -> None:
            if name == "refresh_token":
                asked.set()
                await go_on.wait()

        plane.after = hold
        if how == "scope":
            async with anyio.create_task_group() as group:
                group.start_soon(session.headers)
                await asked.wait()
                group.cancel_scope.cancel()
        else:
            task = asyncio.ensure_future(session.headers())
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        go_on.set()
        assert await session.headers()
    assert plane.asked["refresh_token"] == 1


@pytest.mark.req("SEC-09", "REF-15")
async def test_a_store_that_fails_costs_a_warning_and_not_the_session() -> None:
    plane = Plane(access_ttl=100.0)
    store, person = SpyStore(), Person(plane.plane)
    async with plane.session(store=store, presenter=person) as session:
        await session.login()
        store.broken = StoreError("the disk is full; make room", reason="full")
        for _ in range(3):
            plane.clock.now += 150
            assert await session.headers()
    assert person.saw(Warned) == 1


async def test_a_stored_login_is_used_by_the_next_session_without_any_question() -> None:
    plane = Plane(access_ttl=100.0)
    store = MemoryStore()
    async with plane.session(store=store) as session:
        token = await session.login()
    person = Person(plane.plane)
    async with plane.session(store=store, presenter=person) as session:
        assert await session.token() == token
        plane.clock.now += 200
        assert await session.headers()
    assert plane.asked["refresh_token"] == 1
    assert person.saw(Refreshed) == 1
    assert person.saw(CodeNeeded) == person.saw(LoggedIn) == 0


async def test_a_stored_login_works_while_discovery_is_out_of_reach() -> None:
    plane = Plane()
    store = MemoryStore()
    async with plane.session(store=store) as session:
        token = await session.login()

    async def fail(name: str) -> RequestFailed | None:
        return plane.down() if name.startswith("/") else None

    plane.before = fail
    async with plane.session(store=store) as session:
        assert await session.token() == token


class Silent(Plane):
    """A control plane that says nothing until ``speaks`` is set, or never."""

    def __init__(self) -> None:
        super().__init__()
        self.speaks = anyio.Event()
        self.was_asked = anyio.Event()
        self.before = self._listen

    async def _listen(self, name: str) -> None:
        self.was_asked.set()
        await self.speaks.wait()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long."""
    monkeypatch.setattr("flyteauth._opening.PATIENCE", 0.05)
    monkeypatch.setattr("flyteauth._lifetime.ATTENTION", 0.25)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("way", ["token", "login", "whoami", "renew"])
async def test_without_a_login_discovery_has_one_deadline_which_is_named(way: str) -> None:
    plane = Silent()
    async with plane.session(auth_type="Pkce") as session:
        with (
            anyio.fail_after(10),
            pytest.raises(Unreachable, match=r"within 0\.25 s how to log in"),
        ):
            await getattr(session, way)()
    assert max(plane.asked.values()) == 1


@pytest.mark.parametrize("way", ["headers", "login"])
async def test_the_deadline_goes_on_when_the_one_who_is_at_it_is_cancelled(way: str) -> None:
    plane, late = Silent(), 0
    async with plane.session(auth_type="Pkce") as session:

        async def patient() -> None:
            nonlocal late
            with pytest.raises(Unreachable, match="within 20 s how to log in"):
                await getattr(session, way)()
            late += 1

        with anyio.fail_after(5):
            async with anyio.create_task_group() as others, anyio.create_task_group() as first:
                first.start_soon(getattr(session, way))
                await plane.was_asked.wait()
                for _ in range(3):
                    others.start_soon(patient)
                await anyio.wait_all_tasks_blocked()
                plane.clock.now += 20
                first.cancel_scope.cancel()
        assert late == 3
        plane.speaks.set()  # and whoever comes later has all of the time
        with pytest.raises(InteractionRequired):
            await session.headers()


async def test_a_stored_login_is_used_in_time_although_who_asked_first_was_cancelled() -> None:
    plane, store = Plane(), MemoryStore()
    async with plane.session(store=store) as session:
        token = await session.login()
    silent, tokens = Silent(), list[object]()
    async with silent.session(store=store) as session:

        async def patient() -> None:
            tokens.append(await session.token())

        with anyio.fail_after(5):
            async with anyio.create_task_group() as others, anyio.create_task_group() as first:
                first.start_soon(session.token)
                await silent.was_asked.wait()
                others.start_soon(patient)
                await anyio.wait_all_tasks_blocked()
                silent.clock.now += 10
                first.cancel_scope.cancel()
    assert tokens == [token]


@pytest.mark.usefixtures("hasty")
async def test_a_stored_login_does_not_wait_for_a_silent_discovery() -> None:
    plane, store = Plane(), MemoryStore()
    async with plane.session(store=store) as session:
        token = await session.login()
    silent = Silent()
    async with silent.session(store=store) as session:
        with anyio.fail_after(10):
            assert await session.token() == token
    assert max(silent.asked.values()) == 1


async def test_a_slow_discovery_is_not_begun_anew_once_nothing_is_found_in_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flyteauth._opening.PATIENCE", 0.0)
    plane = Silent()

    class Store(SpyStore):
        async def load(self, key: str) -> Record | None:
            record = await super().load(key)
            plane.speaks.set()
            return record

    store = Store()
    async with plane.session(store=store) as session:
        with pytest.raises(InteractionRequired, match="not logged in"):
            await session.token()
    assert plane.asked["/flyteidl2.auth.AuthMetadataService/GetOAuth2Metadata"] == 1
    assert store.calls == ["load"]


async def test_a_store_that_fails_while_discovery_is_slow_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flyteauth._opening.PATIENCE", 0.0)

    class Locked(MemoryStore):
        async def load(self, key: str) -> Record | None:
            raise StoreError("the keyring is locked; unlock it", reason="locked")

    async with Silent().session(store=Locked(), token_store="keyring") as session:
        with anyio.fail_after(10), pytest.raises(StoreError, match="unlock it"):
            await session.token()


async def test_a_service_gives_discovery_the_time_that_it_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flyteauth._lifetime.ATTENTION", 0.0)
    plane = Plane()
    async with plane.session("ClientSecret") as session:
        assert await session.headers()


async def test_two_accounts_at_one_endpoint_live_side_by_side() -> None:
    plane = Plane()
    store = MemoryStore()
    async with (
        plane.session(store=store, account="work") as work,
        plane.session(store=store, account="home") as home,
    ):
        first, second = await work.login(), await home.login()
        assert await work.token() == first != second == await home.token()


# When a server refuses a token.


@pytest.mark.req("BRR-07")
async def test_a_401_costs_one_refresh_and_one_more_try() -> None:
    plane = Plane(faults={"always-401"})
    async with plane.session() as session:
        await session.login()
        before = plane.asked[PROJECTS]
        with pytest.raises(FlowError) as refused:
            await session.call(PROJECTS, {})
    assert refused.value.reason == "unauthenticated"
    assert plane.asked[PROJECTS] - before == 2
    assert plane.asked["refresh_token"] == 1


async def test_a_login_that_is_new_and_not_taken_is_not_to_be_made_again() -> None:
    plane = Plane(faults={"always-401"})
    doctor = f"run: flyteauth doctor --endpoint {ENDPOINT} --auth-type headless"

    async def said() -> str:
        with pytest.raises(FlowError) as refused:
            await session.call(PROJECTS, {})
        return str(refused.value).partition(" is not valid); ")[2]

    async with plane.session() as session:
        for age, advice in (
            (59.0, f"it does not take this login, though that is new; {doctor}, or ask"),
            (60.0, "log in again"),
        ):
            await session.login()
            plane.clock.now += age
            assert (await said()).startswith(advice)
        assert await said() == f"log in again, or if you just have, {doctor}"


@pytest.mark.req("BRR-08")
async def test_a_rejection_of_an_older_token_does_not_touch_the_present_one() -> None:
    plane = Plane(access_ttl=100.0)
    async with plane.session() as session:
        old = await session.login()
        assert old is not None
        plane.clock.now += 200
        new = await session.token()
        session.reject(old.access_token)
        assert await session.token() == new
        assert new is not None
        session.reject(new.access_token)
        assert await session.token() != new
    assert plane.asked["refresh_token"] == 2


@pytest.mark.req("BRR-07")
async def test_twenty_calls_that_meet_a_401_share_one_refresh() -> None:
    plane = Plane(access_ttl=1000.0)
    async with plane.session() as session:
        token = await session.login()
        assert token is not None
        plane.plane.revoke_access(token.access_token) if hasattr(
            plane.plane, "revoke_access"
        ) else session.reject(token.access_token)
        outcomes = await all_at_once(20, lambda: session.call(PROJECTS, {}))
    assert plane.asked["refresh_token"] == 1
    assert all("projects" in outcome for outcome in outcomes)


# Logging out.


@pytest.mark.req("REV-04", "REV-05", "REV-06")
async def test_logging_out_revokes_and_ends_every_session_of_the_identity() -> None:
    plane = Plane()
    store = MemoryStore()
    async with plane.session(store=store) as one, plane.session(store=store) as other:
        await one.login()
        await other.headers()
        outcome = await one.logout()
        assert outcome.local_deleted
        assert outcome.remote_revoked is True
        for session in (one, other):
            with pytest.raises(ReauthRequired):
                await session.headers()
        again = await one.logout()
        assert not again.local_deleted
        assert again.remote_revoked is None


@pytest.mark.req("REV-03", "REV-06")
@pytest.mark.parametrize(("faults", "revoked"), [({"revoke-503"}, False), (set(), None)])
async def test_logging_out_works_whatever_the_server_does(
    faults: set[str], revoked: bool | None
) -> None:
    plane = Plane(faults=faults)
    async with plane.session() as session:
        await session.login()
        if revoked is None:

            async def fail(name: str) -> RequestFailed | None:
                return plane.down()

            plane.before = fail
        outcome = await session.logout()
    assert outcome.local_deleted
    assert outcome.remote_revoked is revoked


async def test_a_refresh_in_flight_does_not_bring_back_a_login_that_has_ended() -> None:
    plane = Plane(access_ttl=100.0)
    store = SpyStore()
    async with plane.session(store=store) as session:
        await session.login()
        plane.clock.now += 200
        asked, go_on = anyio.Event(), anyio.Event()

        async def hold(name: str) -> None:
            if name == "refresh_token":
                asked.set()
                await go_on.wait()

        plane.after = hold
        outcomes: list[Any] = []

        async def use() -> None:
            try:
                outcomes.append(await session.headers())
            except ReauthRequired as error:
                outcomes.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(use)
            await asked.wait()
            await session.logout()
            go_on.set()
        assert [type(outcome) for outcome in outcomes] == [ReauthRequired]
        assert await store.load((await session._life.set_up()).vault.key) is None


@pytest.mark.req("REF-16")
async def test_a_refresh_token_goes_only_to_where_it_came_from() -> None:
    plane = Plane(access_ttl=100.0)
    store = MemoryStore()
    async with plane.session(store=store) as session:
        await session.login()
        key = (await session._life.set_up()).vault.key
        record = await store.load(key)
    assert record is not None
    assert record.token_endpoint.startswith(ENDPOINT)
    elsewhere = "http://localhost:8080/oauth2/elsewhere"
    await store.save(key, record.replace(token_endpoint=elsewhere))
    plane.clock.now += 200
    plane.requests.clear()
    async with plane.session(store=store) as session:
        with pytest.raises(FlowError):
            await session.headers()
    spent = record.token.refresh_token
    assert spent is not None
    assert {request.url for request in plane.requests if spent.encode() in request.body} == {
        elsewhere
    }
    assert await store.load(key) == record.replace(token_endpoint=elsewhere)


@pytest.mark.req("CCG-07", "SEC-07")
async def test_a_service_never_touches_the_login_of_a_person() -> None:
    plane = Plane()
    store = SpyStore()
    async with plane.session(store=store) as person:
        theirs = await person.login()
    assert theirs is not None
    plane.requests.clear()
    async with plane.session("ClientSecret", store=store) as service:
        headers = await service.headers()
        await service.call(PROJECTS, {})
        await service.logout()
    assert theirs.access_token not in headers["authorization"]
    sent = [request.header("authorization") or "" for request in plane.requests]
    assert not any(theirs.access_token in value for value in sent)
    async with plane.session(store=store) as person:
        assert await person.token() == theirs


@pytest.mark.req("BRR-09")
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, b'{"code": "permission_denied", "message": "no"}'),
        (500, b'{"code": "unknown", "message": "unauthorized"}'),
        (500, b'{"code": "internal", "message": "unauthenticated"}'),
        (503, b'{"code": "unavailable", "message": "unauthenticated"}'),
        (404, b"404 page not found"),
    ],
)
async def test_only_a_401_is_about_the_token(status: int, body: bytes) -> None:
    plane = Plane()
    async with plane.session() as session:
        token = await session.login()
        send = plane.send

        async def refuse(request: Request) -> Any:
            if request.url.endswith(PROJECTS):
                plane.asked["refused"] += 1
                now = plane.clock.now
                return ResponseReceived(Response(status, (), body), now, now)
            return await send(request)

        plane.send = refuse  # type: ignore[method-assign]
        with pytest.raises(FlowError):
            await session.call(PROJECTS, {})
        assert await session.token() == token
    assert plane.asked["refused"] == 1
    assert plane.asked["refresh_token"] == 0


@pytest.mark.req("BRR-11", "CLK-05", "REF-10")
async def test_a_401_whose_refresh_fails_for_now_is_no_logout() -> None:
    plane = Plane(access_ttl=1000.0)
    store = SpyStore()
    async with plane.session(store=store) as session:
        token = await session.login()
        assert token is not None
        store.calls.clear()

        async def fail(name: str) -> RequestFailed | None:
            return plane.down() if name == "refresh_token" else None

        plane.before = fail
        session.reject(token.access_token)
        with pytest.raises(Unreachable):
            await session.headers()
        assert "delete" not in store.calls
        assert "save" not in store.calls
        plane.before = None
        assert await session.headers()


@pytest.mark.req("REF-10")
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>Log in to the network"),
        (403, b"<html>Blocked"),
        (401, b'{"error": "invalid_client"}'),
        (400, b'{"error": "invalid_scope"}'),
        (200, b'{"token_type": "bearer"}'),
        (302, b""),
    ],
)
async def test_only_invalid_grant_ends_a_login(status: int, body: bytes) -> None:
    plane = Plane(access_ttl=100.0)
    store = SpyStore()
    async with plane.session(store=store) as session:
        await session.login()
        plane.clock.now += 200
        store.calls.clear()
        send = plane.send

        async def refuse(request: Request) -> Any:
            if b"grant_type=refresh_token" in request.body:
                now = plane.clock.now
                return ResponseReceived(Response(status, (), body), now, now)
            return await send(request)

        plane.send = refuse  # type: ignore[method-assign]
        with pytest.raises(FlowError):
            await session.headers()
        assert "delete" not in store.calls
        assert "save" not in store.calls
        plane.send = send  # type: ignore[method-assign]
        assert await session.headers()


async def test_a_login_that_was_ended_elsewhere_is_not_brought_back() -> None:
    plane = Plane(access_ttl=100.0)
    store = SpyStore()
    async with plane.session(store=store) as session:
        await session.login()
        await session.headers()
        await store.delete((await session._life.set_up()).vault.key)  # as another process does
        plane.clock.now += 200
        with pytest.raises(ReauthRequired):
            await session.headers()
    assert plane.asked["refresh_token"] == 0


async def test_a_logout_while_the_store_is_being_read_for_a_refresh_stays_a_logout() -> None:
    plane = Plane(access_ttl=100.0)
    store = SpyStore()
    async with plane.session(store=store) as session:
        await session.login()
        plane.clock.now += 200
        reading, go_on = anyio.Event(), anyio.Event()
        load = store.load

        async def slow(key: str) -> Record | None:
            record = await load(key)
            reading.set()
            await go_on.wait()
            return record

        async def use() -> None:
            with pytest.raises(ReauthRequired):
                await session.headers()

        store.load = slow  # type: ignore[method-assign]
        async with anyio.create_task_group() as group:
            group.start_soon(use)
            await reading.wait()
            store.load = load  # type: ignore[method-assign]
            await session.logout()
            go_on.set()
        with pytest.raises(ReauthRequired):
            await session.headers()
        assert await load((await session._life.set_up()).vault.key) is None


async def test_a_store_that_fails_once_does_not_end_a_login_that_was_made_anew() -> None:
    plane = Plane(access_ttl=100.0)
    store = FlakyStore()
    async with plane.session(store=store) as session:
        session_vault = (await session._life.set_up()).vault
        session_vault._pinned = False
        await session.login()
        await store.delete(session_vault.key)  # by another process
        plane.clock.now += 200
        with pytest.raises(ReauthRequired):
            await session.headers()
        await session.login()
        plane.clock.now += 200
        store.fail_loads = 1
        assert await session.headers()


class FlakyStore(MemoryStore):
    """Fails to load as often as it is told."""

    fail_loads = 0

    async def load(self, key: str) -> Record | None:
        if self.fail_loads:
            self.fail_loads -= 1
            raise StoreError("the file system hangs; try again", reason="timeout")
        return await super().load(key)


@pytest.mark.req("SEC-08")
async def test_a_login_that_could_not_be_kept_is_not_said_to_be() -> None:
    plane = Plane()
    store, person = SpyStore(), Person(plane.plane)
    store.broken = StoreError("the disk is full; make room", reason="full")
    async with plane.session(store=store, presenter=person) as session:
        assert await session.login()
        assert await session.headers()
        with pytest.raises(StoreError, match="disk is full"):
            await session.login(must_keep=True)
    (logged_in,) = (event for event in person.seen if isinstance(event, LoggedIn))
    assert logged_in.place == MemoryStore.place


async def test_a_control_plane_that_begins_to_want_logins_is_noticed_at_its_first_401() -> None:
    plane = Plane(faults={"no-auth"})
    guarded = Plane()
    async with plane.session() as session:
        assert await session.call(PROJECTS, {})
        plane.plane = guarded.plane
        with pytest.raises(InteractionRequired):
            await session.call(PROJECTS, {})


@pytest.mark.parametrize("body", [b"", b"default backend - 404", b'{"error": "Not Found"}'])
async def test_a_control_plane_that_is_just_starting_is_not_anonymous(body: bytes) -> None:
    plane = Plane()
    store = MemoryStore()
    async with plane.session(store=store) as session:
        token = await session.login()
    send = plane.send

    async def starting(request: Request) -> Any:
        now = plane.clock.now
        return ResponseReceived(Response(404, (), body), now, now)

    plane.send = starting  # type: ignore[method-assign]
    async with plane.session() as session:
        with pytest.raises(FlowError, match="check the endpoint"):
            await session.headers()
        plane.send = send  # type: ignore[method-assign]
        with pytest.raises(InteractionRequired):
            await session.headers()
    plane.send = starting  # type: ignore[method-assign]
    async with plane.session(store=store) as session:
        assert await session.token() == token


async def test_an_expired_login_that_cannot_be_refreshed_is_over() -> None:
    plane = Plane(access_ttl=100.0, faults={"no-refresh-token"})
    async with plane.session() as session:
        await session.login()
        plane.clock.now += 200
        with pytest.raises(ReauthRequired):
            await session.headers()


@pytest.mark.req("BRR-02")
async def test_a_plain_host_that_the_user_allows_is_reached_for_everything() -> None:
    remote = "http://flyte.internal:8080"
    plane = Plane(base_url=remote, access_ttl=100.0)
    person = Person(plane.plane)
    async with plane.session(
        endpoint="flyte.internal:8080",
        insecure=True,
        allow_insecure_credentials=True,
        presenter=person,
    ) as session:
        await session.login()
        assert (await session.call(PROJECTS, {}))["projects"]
        plane.clock.now += 200
        assert await session.headers()
        assert (await session.logout()).remote_revoked
    assert person.saw(Warned) == 1
    assert {request.url.startswith(remote) for request in plane.requests} == {True}


class Hurrying(Person):
    """Time passes while the code is entered: when the first poll is sent, so little is left."""

    def __init__(self, plane: Plane, left: float) -> None:
        super().__init__(plane.plane)
        self._clock = plane.clock
        self._left = left

    async def show(self, event: AuthEvent) -> None:
        await super().show(event)
        if isinstance(event, CodeNeeded):
            self._clock.now = event.expires_at - 5.0 - self._left


@pytest.mark.req("DEV-09")
async def test_a_poll_that_hangs_ends_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants_module, "POLL_GRACE", 0.0)
    plane = Plane(device_interval=5)

    async def hang(name: str) -> None:
        if name == DEVICE:
            await anyio.sleep_forever()

    plane.after = hang
    with anyio.fail_after(5):
        async with plane.session(presenter=Hurrying(plane, 0.125)) as session:
            with pytest.raises(Expired):
                await session.login()
    assert plane.asked[DEVICE] == 1


@pytest.mark.req("DEV-09")
async def test_the_answer_to_the_last_poll_may_come_when_the_code_has_ended() -> None:
    plane = Plane(device_interval=5)

    async def late(name: str) -> None:
        if name == DEVICE:
            plane.clock.now += 1.0

    plane.after = late
    async with plane.session(presenter=Hurrying(plane, 2.0**-20)) as session:
        assert await session.login() is not None
    assert plane.asked[DEVICE] == 1


@pytest.mark.req("DEV-14")
async def test_a_poll_that_hangs_is_not_waited_for_when_the_session_ends() -> None:
    plane = Plane()
    polling, never = anyio.Event(), anyio.Event()

    async def hang(name: str) -> None:
        if name == DEVICE:
            polling.set()
            await never.wait()

    plane.after = hang
    with anyio.fail_after(5):
        async with plane.session() as session, anyio.create_task_group() as group:
            group.start_soon(session.login)
            await polling.wait()
            group.cancel_scope.cancel()
    never.set()


@pytest.mark.req("META-11")
@pytest.mark.parametrize("honest", [True, False])
async def test_a_control_plane_may_be_checked_against_its_issuers_own_document(
    honest: bool,
) -> None:
    plane = Plane()
    send = plane.send

    async def advertise(request: Request) -> Any:
        received = await send(request)
        assert isinstance(received, ResponseReceived)
        if honest or not request.url.endswith("/GetOAuth2Metadata"):
            return received
        body = received.response.body.replace(b"/oauth2/token", b"/oauth2/elsewhere")
        return evolve(received, response=evolve(received.response, body=body))

    plane.send = advertise  # type: ignore[method-assign]
    async with plane.session(verify_issuer=True) as session:
        if honest:
            assert await session.login()
            return
        with pytest.raises(InvalidResponse) as refused:
            await session.login()
    assert refused.value.reason == "provenance"
    assert plane.asked[DEVICE] == 0
