"""A renewal on demand, and a token that was checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flyteauth._identity import identity
from flyteauth._io.notes import Notes
from flyteauth._io.store.memory import MemoryStore
from flyteauth._sansio.flow import RequestFailed, ResponseReceived
from flyteauth._sansio.http import Request, Response
from flyteauth._sansio.token import Token
from flyteauth._verified import is_so, name
from flyteauth.errors import InteractionRequired, ReauthRequired, Unreachable
from flyteauth.events import CodeNeeded, Refreshed
from flyteauth.session import Session
from tests.concurrency import all_at_once

from .plane import Person, Plane

pytestmark = pytest.mark.anyio

USER_INFO = "/flyteidl2.auth.IdentityService/UserInfo"
USED = "refresh_token"


# Renewing.


async def test_a_renewal_happens_however_good_the_token_is() -> None:
    plane = Plane()
    person = Person(plane.plane)
    async with plane.session(presenter=person) as session:
        old = await session.login()
        new = await session.renew()
        assert new is not None
        assert new != old
        assert await session.token() == new
        assert await session.headers() == {"authorization": f"Bearer {new.access_token}"}
    assert plane.asked[USED] == 1
    assert person.saw(Refreshed) == 1


async def test_those_who_renew_at_once_share_one_renewal() -> None:
    plane = Plane()
    async with plane.session() as session:
        await session.login()
        tokens = await all_at_once(20, session.renew)
    assert len({token.access_token for token in tokens if token}) == 1
    assert plane.asked[USED] == 1


async def test_what_another_process_has_renewed_meanwhile_will_do() -> None:
    plane = Plane()
    store = MemoryStore()
    async with plane.session(store=store) as first, plane.session(store=store) as second:
        await first.login()
        await second.token()
        renewed = await first.renew()
        assert await second.renew() == renewed
    assert plane.asked[USED] == 1


@pytest.mark.req("BRR-08")
async def test_a_login_that_is_heard_of_twice_does_not_undo_a_rejection() -> None:
    """Somebody who waited for the login hears of it only after its token was refused."""
    plane = Plane()
    async with plane.session() as session:
        token, held = await session.login(), session._life.held
        assert token is not None
        assert held is not None
        session.reject(token.access_token)
        await session._life.adopt(held.record)
        fresh = await session.token()
        assert fresh is not None
        assert fresh.access_token != token.access_token
    assert plane.asked[USED] == 1


async def test_a_renewal_that_fails_for_now_leaves_the_token_as_it_was() -> None:
    plane = Plane(faults={"refresh-503"})
    async with plane.session() as session:
        old = await session.login()
        with pytest.raises(Unreachable, match="it is kept"):
            await session.renew()
        assert await session.token() == old


async def test_a_renewal_that_the_server_refuses_ends_the_login() -> None:
    plane = Plane(refresh_ttl=50.0)
    async with plane.session() as session:
        await session.login()
        plane.clock.now += 60
        with pytest.raises(ReauthRequired, match="flyteauth login"):
            await session.renew()
        with pytest.raises(ReauthRequired):
            await session.token()


async def test_a_person_may_be_asked_instead_if_that_was_agreed() -> None:
    plane = Plane(refresh_ttl=50.0)
    store = MemoryStore()
    async with plane.session(store=store) as session:
        old = await session.login()
    plane.clock.now += 60
    person = Person(plane.plane)
    async with plane.session(store=store, presenter=person, interactive=lambda: True) as session:
        new = await session.renew()
    assert new is not None
    assert new != old
    assert person.saw(CodeNeeded) == 1


async def test_without_a_refresh_token_there_is_no_renewal_and_the_token_stays() -> None:
    plane = Plane(faults={"no-refresh-token"})
    async with plane.session() as session:
        old = await session.login()
        with pytest.raises(ReauthRequired):
            await session.renew()
        assert await session.token() == old


async def test_without_a_login_there_is_nothing_to_renew() -> None:
    async with Plane().session() as session:
        with pytest.raises(InteractionRequired, match="not logged in"):
            await session.renew()
        with pytest.raises(InteractionRequired, match="not logged in"):
            await session.verify()


async def test_a_service_gets_another_token() -> None:
    plane = Plane()
    async with plane.session("ClientSecret") as session:
        tokens = {str(await session.renew()), str(await session.token())}
        first = await session.token()
        second = await session.renew()
    assert len(tokens) == 1
    assert first is not None
    assert second is not None
    assert first.access_token != second.access_token
    assert plane.asked["client_credentials"] == 2


@pytest.mark.parametrize("auth_type", ["NoAuth", "Pkce"])
async def test_where_no_token_is_wanted_there_is_none(auth_type: str) -> None:
    plane = Plane(faults={"no-auth"})
    async with plane.session(auth_type) as session:
        assert await session.renew() is None
        assert await session.verify() is None
    assert plane.asked[USER_INFO] == 0


# Checking.


async def test_a_token_that_is_taken_is_asked_about_once() -> None:
    plane = Plane()
    async with plane.session() as session:
        token = await session.login()
        before = plane.asked[USER_INFO]
        assert await session.verify() == token
    assert plane.asked[USER_INFO] - before == 1
    assert plane.asked[USED] == 0


async def test_a_token_that_is_refused_costs_one_question_and_one_renewal() -> None:
    plane = Plane(faults={"always-401"})
    async with plane.session() as session:
        old = await session.login()
        before = plane.asked[USER_INFO]
        new = await session.verify()
    assert new is not None
    assert new != old
    assert plane.asked[USER_INFO] - before == 1
    assert plane.asked[USED] == 1


async def test_a_refused_token_that_cannot_be_renewed_now_is_no_token() -> None:
    plane = Plane(faults={"always-401", "refresh-503"})
    async with plane.session() as session:
        await session.login()
        with pytest.raises(Unreachable):
            await session.verify()


async def noted(plane: Plane, directory: Path, session: Session, token: Token) -> bool:
    """Whether other processes are told that *token* is good."""
    read = await Notes(directory / "notes").read(name(identity(await session.settings())))
    return is_so(read or {}, token.access_token, plane.clock.time())


async def test_a_token_that_is_taken_is_told_to_other_processes(tmp_path: Path) -> None:
    plane = Plane()
    async with plane.session(directory=tmp_path) as session:
        token = await session.login()
        assert token is not None
        assert not await noted(plane, tmp_path, session, token)
        await session.verify()
        assert await noted(plane, tmp_path, session, token)


async def test_so_is_the_one_that_takes_the_place_of_a_refused_token(tmp_path: Path) -> None:
    plane = Plane(faults={"always-401"})
    async with plane.session(directory=tmp_path) as session:
        old = await session.login()
        new = await session.verify()
        assert old is not None
        assert new is not None
        assert await noted(plane, tmp_path, session, new)
        again = await session.verify()  # which is not renewed once more, so soon
        assert again == new
        assert not await noted(plane, tmp_path, session, old)


async def test_of_a_server_that_is_away_nothing_is_told(tmp_path: Path) -> None:
    plane = Plane()

    async def away(asked: str) -> RequestFailed | None:
        return plane.down() if asked == USER_INFO else None

    async with plane.session(directory=tmp_path) as session:
        token = await session.login()
        assert token is not None
        plane.before = away
        assert await session.verify() == token
        assert not await noted(plane, tmp_path, session, token)


class Silent(Plane):
    """Says ``answer`` when it is asked who somebody is."""

    def __init__(self, answer: Response | None, **settings: Any) -> None:
        super().__init__(**settings)
        self.answer = answer

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        received = await super().send(request)
        if not request.url.endswith(USER_INFO) or isinstance(received, RequestFailed):
            return received
        if self.answer is None:
            return self.down()
        return ResponseReceived(self.answer, received.sent_at, received.at)


JSON = (("content-type", "application/json"),)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        Response(404, (), b"page not found"),
        Response(501, JSON, json.dumps({"code": "unimplemented"}).encode()),
        Response(503, (), b"<html>"),
        Response(200, (), b"<!doctype html>"),
        Response(407, (("proxy-authenticate", "Basic"),)),
    ],
)
async def test_a_server_that_does_not_say_is_no_reason_to_fail(answer: Response | None) -> None:
    plane = Silent(answer)
    async with plane.session() as session:
        token = await session.login()
        assert await session.verify() == token
    assert plane.asked[USED] == 0
