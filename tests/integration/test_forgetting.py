"""
What is left in memory of a login that is over: of what it was made with, nothing, whatever became
of it; of its token, nothing once it is logged out.
"""

from __future__ import annotations

import gc
from typing import Any

import anyio
import pytest

from flyteauth import _lifetime as lifetime_module
from flyteauth._sansio import authorization_code, device_authorization
from flyteauth._sansio.flow import (
    OpenBrowser,
    RedirectReceived,
    RequestFailed,
    ResponseReceived,
    SendRequest,
)
from flyteauth._sansio.http import Request, Response, post_form
from flyteauth._sansio.record import Record
from flyteauth._sansio.tokens import Token
from flyteauth.errors import Error, Expired, OAuth2Error, ReauthRequired, Unreachable
from flyteauth.events import BrowserNeeded

from .plane import ENDPOINT, Plane
from .test_race import CODE, World

pytestmark = pytest.mark.anyio

LIMIT = 10.0
PATIENCE = 100
MADE_WITH = (  # code, verifier, state and nonce are in these, and nowhere else
    *authorization_code.STATES,
    *device_authorization.STATES,
    device_authorization.DeviceCode,
    OpenBrowser,
    RedirectReceived,
    RequestFailed,
    SendRequest,
    Request,
)
ISSUED = (ResponseReceived, Response, Token, Record)


class Memory:
    """Everything that is there from now on."""

    def __init__(self) -> None:
        gc.collect()
        self._before = gc.get_objects()
        self._known = set(map(id, self._before))

    def left(self, kinds: tuple[type, ...]) -> list[str]:
        """The names of those of *kinds* that somebody holds."""
        gc.collect()
        there = (one for one in gc.get_objects() if isinstance(one, kinds))
        return sorted(type(one).__name__ for one in there if id(one) not in self._known)

    async def forgets(self, kinds: tuple[type, ...]) -> None:
        """Nobody holds one of *kinds* once the threads are done that were at something just now."""
        for _ in range(PATIENCE):
            if not self.left(kinds):
                return
            await anyio.sleep(0.05)
        assert self.left(kinds) == []


@pytest.fixture(autouse=True)
def _no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that is started as the browser does nothing."""
    monkeypatch.setenv("BROWSER", "true")


OUTCOMES: dict[str, type[Error] | None] = {
    "granted": None,
    "refused": OAuth2Error,
    "unanswered": Unreachable,
    "denied": OAuth2Error,
    "nobody came": Expired,
    "cancelled before": None,
    "cancelled meanwhile": None,
}


@pytest.mark.req("COD-06")
@pytest.mark.parametrize("openid", [False, True])
@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_nothing_is_left_of_what_a_login_was_made_with(outcome: str, openid: bool) -> None:
    """Not with the session open, and not for as long as somebody keeps the error."""
    faults = {"refused": {"code-expired"}, "denied": {"deny"}}.get(outcome, set[str]())
    memory = Memory()
    world = World(faults=faults)
    meanwhile = anyio.CancelScope()
    asked, go_on = anyio.Event(), anyio.Event()

    async def before(name: str) -> RequestFailed | None:
        if name == CODE:
            assert {"Request", "Redeeming"} <= set(memory.left(MADE_WITH))  # it would be seen
            asked.set()
            if outcome == "cancelled meanwhile":
                meanwhile.cancel()
                await go_on.wait()
            if outcome == "unanswered":
                return RequestFailed("timeout", "no", sent=True, at=world.clock.time())
        return None

    async def act() -> None:
        await world.desk.shown(BrowserNeeded)
        if outcome == "cancelled before":
            meanwhile.cancel()
        elif outcome != "nobody came":
            await world.come_back()

    world.plane.before = before
    error: Error | None = None
    arguments: dict[str, Any] = {"login_timeout": 0.1} if outcome == "nobody came" else {}
    if openid:
        arguments["scopes"] = ["openid", "offline", "all"]
    with anyio.fail_after(LIMIT):
        async with world.session(**arguments) as session:
            async with anyio.create_task_group() as group:
                group.start_soon(act)
                with meanwhile:
                    try:
                        await session.login()
                    except Error as caught:
                        error = caught
                go_on.set()
            works = session._life._works
            while works:  # what goes on when its caller is cancelled
                await next(iter(works)).wait()
            world.plane.requests.clear()
            world.desk.seen.clear()
            await memory.forgets(MADE_WITH)
    await memory.forgets(MADE_WITH)
    assert (None if error is None else type(error)) is OUTCOMES[outcome]
    assert asked.is_set() is (outcome not in {"denied", "nobody came", "cancelled before"})
    assert meanwhile.cancelled_caught is outcome.startswith("cancelled")


@pytest.mark.req("COD-06")
@pytest.mark.parametrize("auth_type", ["DeviceFlow", "ClientSecret"])
async def test_nothing_is_left_of_a_token_after_a_logout(auth_type: str) -> None:
    memory, plane = Memory(), Plane()
    async with plane.session(auth_type) as session:
        await session.login()
        await session.renew()
        assert "Token" in memory.left(ISSUED)
        await session.logout()
        plane.requests.clear()
        await memory.forgets(ISSUED + MADE_WITH)
    assert not lifetime_module.FLIGHTS._works
    assert not lifetime_module.FLIGHTS._rounds


@pytest.mark.parametrize("over", [False, True])
async def test_nothing_is_left_of_a_renewal_that_failed(over: bool) -> None:
    memory, plane = Memory(), Plane(faults=set() if over else {"refresh-503"})
    async with plane.session() as session:
        token = await session.login()
        assert token is not None
        if over:
            form = {"token": token.refresh_token, "client_id": "flytectl"}
            plane.plane.handle(post_form(f"{ENDPOINT}/oauth2/revoke", form), plane.clock.time())
        with pytest.raises(ReauthRequired if over else Unreachable) as caught:
            await session.renew()
        plane.requests.clear()
        await memory.forgets((*MADE_WITH, ResponseReceived, Response))
        assert session._life._urgent is None
        assert not session._life._works
    assert caught.value.__traceback__ is not None
