"""on_token_change and on_event: who is told what, in which order, and what a bad hook may cost."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import anyio
import pytest

from flyteauth import _audience as audience_module
from flyteauth._io.store.memory import MemoryStore
from flyteauth._sansio.record import Record
from flyteauth._sansio.tokens import Token
from flyteauth.errors import InteractionRequired, ReauthRequired
from flyteauth.events import AuthEvent, CodeNeeded, LoggedIn, LoggedOut, MethodChosen, Refreshed
from flyteauth.session import Session
from tests.concurrency import all_at_once

from .plane import Plane

pytestmark = pytest.mark.anyio

LIMIT = 10.0
PROJECTS = "/flyteidl2.project.ProjectService/ListProjects"


class Diary(MemoryStore):
    """A store and a hook that write what happens into one list."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str | None]] = []

    async def save(self, key: str, record: Record) -> None:
        await super().save(key, record)
        self.lines.append(("stored", record.token.access_token))

    async def swap(self, key: str, old: Record | None, new: Record) -> bool:
        swapped = await super().swap(key, old, new)
        if swapped and (old is None or old.token.access_token != new.token.access_token):
            self.lines.append(("stored", new.token.access_token))
        return swapped

    def hook(self, token: Token | None) -> None:
        self.lines.append(("told", None if token is None else token.access_token))

    def used(self, token: Token | None) -> None:
        self.lines.append(("used", None if token is None else token.access_token))

    @property
    def told(self) -> list[str | None]:
        return [name for what, name in self.lines if what == "told"]


# In which order.


@pytest.mark.req("REF-04")
@pytest.mark.parametrize("kind", ["DeviceFlow", "ClientSecret"])
async def test_a_token_is_stored_then_told_then_used(kind: str) -> None:
    plane, diary = Plane(access_ttl=100.0), Diary()
    async with plane.session(kind, store=diary, on_token_change=diary.hook) as session:
        if kind == "DeviceFlow":
            diary.used(await session.login())
        else:
            diary.used(await session.token())
        first = diary.lines[-1][1]
        plane.clock.now += 200
        diary.used(await session.token())
        second = diary.lines[-1][1]
        assert await session.headers()
    assert first != second
    order = ["stored", "told", "used"]
    assert diary.lines == [(what, name) for name in (first, second) for what in order]


async def test_who_waits_for_a_token_waits_for_an_async_hook_too() -> None:
    plane, done = Plane(access_ttl=100.0), False

    async def hook(token: Token | None) -> None:
        nonlocal done
        await anyio.wait_all_tasks_blocked()
        done = True

    async with plane.session(on_token_change=hook) as session:
        await session.login()
        assert done
        plane.clock.now += 200
        done = False
        await all_at_once(20, session.headers)
        assert done


@pytest.mark.parametrize("kind", ["DeviceFlow", "ClientSecret"])
async def test_a_token_is_told_once_however_many_ask(kind: str) -> None:
    plane, diary = Plane(access_ttl=100.0), Diary()
    async with plane.session(kind, store=diary, on_token_change=diary.hook) as session:
        if kind == "DeviceFlow":
            await all_at_once(20, session.login)
        await all_at_once(50, session.headers)
        assert len(diary.told) == 1
        plane.clock.now += 200
        await all_at_once(50, session.headers)
        await all_at_once(50, partial(session.call, PROJECTS, {}))
    assert len(diary.told) == 2
    assert len(set(diary.told)) == 2


async def test_a_refresh_in_the_background_is_told_as_well() -> None:
    plane, diary = Plane(access_ttl=100.0), Diary()
    async with plane.session(store=diary, on_token_change=diary.hook) as session:
        await session.login()
        plane.clock.now += 90
        await session.headers()
        await session.aclose()
    assert len(diary.told) == 2


async def test_what_was_stored_before_is_nothing_new() -> None:
    plane, store = Plane(), MemoryStore()
    told: list[Token | None] = []
    async with plane.session(store=store) as session:
        await session.login()
    async with plane.session(store=store, on_token_change=told.append) as session:
        assert await session.headers()
        assert await session.whoami() is not None
    assert told == []


async def test_a_rejected_token_is_followed_by_its_successor_and_no_none() -> None:
    plane, diary = Plane(), Diary()
    async with plane.session(store=diary, on_token_change=diary.hook) as session:
        token = await session.login()
        assert token is not None
        session.reject(token.access_token)
        after = await session.token()
        assert after is not None
    assert diary.told == [token.access_token, after.access_token]


# Several sessions of one identity.


async def test_each_session_is_told_once_of_what_another_one_has_got() -> None:
    plane, store = Plane(access_ttl=100.0), MemoryStore()
    told: list[list[str | None]] = [[], []]

    def hook(number: int, token: Token | None) -> None:
        told[number].append(None if token is None else token.access_token)

    one, other = (
        plane.session(store=store, on_token_change=partial(hook, number)) for number in range(2)
    )
    async with one, other:
        await one.login()
        await other.headers()
        plane.clock.now += 200
        async with anyio.create_task_group() as group:
            for session in (one, other):
                group.start_soon(all_at_once, 20, session.headers)
        token = await one.token()
        assert token is not None
        plane.clock.now += 200
        await one.headers()  # alone this time
        await other.headers()
        assert plane.asked["refresh_token"] == 2
    assert told[1] == told[0][1:]
    assert len(told[0]) == len(set(told[0])) == 3


async def test_a_logout_tells_every_session_that_has_the_login_and_no_other() -> None:
    plane, store = Plane(), MemoryStore()
    told: list[Any] = [[], [], [], []]
    sessions = [
        plane.session(store=store, on_token_change=told[0].append),
        plane.session(store=store, on_token_change=told[1].append),
        plane.session(store=store, on_token_change=told[2].append, account="another"),
        plane.session(store=store, on_token_change=told[3].append),  # and never used it
    ]
    await sessions[0].login()
    await sessions[2].login()
    await sessions[1].headers()
    await sessions[0].logout()
    assert [events.count(None) for events in told] == [1, 1, 0, 0]
    await sessions[0].logout()
    assert [events.count(None) for events in told] == [1, 1, 0, 0]
    for session in sessions:
        await session.aclose()


# The end of a login.


async def test_the_end_of_a_login_is_none_once() -> None:
    plane, diary = Plane(access_ttl=100.0, refresh_ttl=150.0), Diary()
    async with plane.session(store=diary, on_token_change=diary.hook) as session:
        await session.login()
        plane.clock.now += 200
        for _ in range(3):
            with pytest.raises(ReauthRequired):
                await session.headers()
        await all_at_once(10, session.headers)
        assert diary.told[1:] == [None]
        again = await session.login()
        assert again is not None
    assert diary.told[1:] == [None, again.access_token]


async def test_the_end_of_a_login_is_told_to_everyone_who_waited_for_its_refresh() -> None:
    plane, store = Plane(access_ttl=100.0, refresh_ttl=150.0), MemoryStore()
    told: list[Any] = [[], []]
    one, other = (plane.session(store=store, on_token_change=told[n].append) for n in range(2))
    async with one, other:
        await one.login()
        await other.headers()
        plane.clock.now += 200
        outcomes: list[Any] = []

        async def ask(session: Session) -> None:
            outcomes.extend(await all_at_once(5, session.headers))

        async with anyio.create_task_group() as group:
            group.start_soon(ask, one)
            group.start_soon(ask, other)
    assert [type(outcome) for outcome in outcomes] == [ReauthRequired] * 10
    assert [events.count(None) for events in told] == [1, 1]


async def test_a_fault_that_passes_is_not_the_end() -> None:
    plane, diary = Plane(access_ttl=100.0, faults={"refresh-503"}), Diary()
    async with plane.session(store=diary, on_token_change=diary.hook) as session:
        await session.login()
        plane.clock.now += 200
        await all_at_once(3, session.headers)
    assert len(diary.told) == 1


async def test_nothing_is_told_where_there_was_no_login() -> None:
    plane = Plane()
    told: list[Token | None] = []
    async with plane.session(on_token_change=told.append) as session:
        with pytest.raises(InteractionRequired):
            await session.headers()
        await session.logout()
    async with Plane(faults={"no-auth"}).session(on_token_change=told.append) as session:
        assert await session.headers() == {}
    assert told == []


# Bad hooks.


def _raises(token: Token | None) -> None:
    raise ZeroDivisionError


async def _raises_later(token: Token | None) -> None:
    await anyio.lowlevel.checkpoint()
    raise ZeroDivisionError


async def _hangs(token: Token | None) -> None:
    await anyio.sleep_forever()


@pytest.mark.req("SEC-03")
@pytest.mark.parametrize("hook", [_raises, _raises_later, _hangs])
async def test_a_bad_hook_is_logged_and_costs_no_login(
    hook: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audience_module, "HOOK_DEADLINE", 0.1)
    plane = Plane(access_ttl=100.0)
    with anyio.fail_after(LIMIT), caplog.at_level(logging.DEBUG):
        async with plane.session(on_token_change=hook) as session:
            token = await session.login()
            assert token is not None
            plane.clock.now += 200
            after = await session.token()
            assert after is not None
            assert (await session.call(PROJECTS, {}))["projects"]
            assert (await session.logout()).local_deleted
    assert caplog.text.count("on_token_change failed") == 3
    for secret in (token.access_token, token.refresh_token, after.access_token):
        assert secret is not None
        assert secret not in caplog.text


async def test_a_hook_may_use_the_session() -> None:
    plane = Plane(access_ttl=100.0)
    found: list[dict[str, str]] = []

    async def hook(token: Token | None) -> None:
        if token is not None:
            found.append(dict(await session.headers()))
            assert await session.whoami() is not None

    with anyio.fail_after(LIMIT):
        async with plane.session(on_token_change=hook) as session:
            await session.login()
            plane.clock.now += 200
            headers = await session.headers()
    assert found[-1] == headers
    assert len(found) == 2


async def test_a_caller_who_is_cancelled_in_a_hook_loses_no_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audience_module, "HOOK_DEADLINE", 0.3)
    plane, entered = Plane(access_ttl=100.0), anyio.Event()
    hang = False

    async def hook(token: Token | None) -> None:
        if hang:
            entered.set()
            await anyio.sleep_forever()

    async with plane.session(on_token_change=hook) as session:
        await session.login()
        plane.clock.now += 200
        hang = True
        async with anyio.create_task_group() as group:
            group.start_soon(session.headers)
            await entered.wait()
            group.cancel_scope.cancel()
        assert await session.headers()
    assert plane.asked["refresh_token"] == 1


# Events.


async def test_events_tell_the_life_of_a_login_and_hold_no_token() -> None:
    plane = Plane(access_ttl=100.0)
    events: list[AuthEvent] = []
    async with plane.session(on_event=events.append) as session:
        token = await session.login()
        plane.clock.now += 200
        after = await session.token()
        await session.logout()
    kinds = [MethodChosen, CodeNeeded, LoggedIn, Refreshed, LoggedOut]
    assert [type(event) for event in events] == kinds
    assert token is not None
    assert after is not None
    for each in (token, after):
        for secret in (each.access_token, each.refresh_token):
            assert str(secret) not in repr(events)


async def test_an_event_hook_that_fails_is_logged_and_costs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plane = Plane()

    def fail(event: object) -> None:
        raise ZeroDivisionError

    async with plane.session(on_event=fail) as session:
        assert await session.login()
    assert "on_event failed" in caplog.text
