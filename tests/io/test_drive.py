from __future__ import annotations

import math
from typing import Any

import anyio
import pytest

from flyteauth._io.drive import Driver
from flyteauth._sansio.client import AuthorizationServer, Client
from flyteauth._sansio.device_authorization import (
    Authorizing,
    DeviceAuthorization,
    Polling,
    Prompting,
    Waiting,
)
from flyteauth._sansio.flow import (
    Effect,
    Event,
    OpenBrowser,
    RedirectReceived,
    RequestFailed,
    ResponseReceived,
    SendRequest,
    ShowUserCode,
    TimeReached,
    WaitUntil,
)
from flyteauth._sansio.http import Request, get
from tests.integration.plane import ENDPOINT, Plane

pytestmark = pytest.mark.anyio

SERVER = AuthorizationServer(
    issuer=ENDPOINT,
    token_endpoint=f"{ENDPOINT}/oauth2/token",
    device_authorization_endpoint=f"{ENDPOINT}/oauth2/device_authorization",
)


async def test_a_flow_is_driven_to_its_end_and_each_state_is_saved_before_its_effect() -> None:
    plane = Plane()
    saved: list[Any] = []

    async def show(effect: ShowUserCode) -> None:
        assert isinstance(saved[-1], Prompting)
        plane.plane.approve(effect.user_code)

    flow = DeviceAuthorization(Client(SERVER, "flytectl"), ("all",))
    driver = Driver(plane, plane.clock, show_user_code=show)
    token = await driver.run(flow, flow.start(), saved.append)
    assert token.refresh_token
    assert [type(state) for state in saved] == [Authorizing, Prompting, Waiting, Polling]


async def test_waiting_and_browsing_answer_with_their_events() -> None:
    plane = Plane()

    async def browse(effect: OpenBrowser) -> str:
        return f"{effect.redirect_uri}?code=c"

    driver = Driver(plane, plane.clock, open_browser=browse)
    deadline = plane.clock.now + 5
    assert await driver.perform(WaitUntil(deadline)) == TimeReached(deadline)
    opened = await driver.perform(OpenBrowser("https://as/auth", "http://127.0.0.1/cb", "s"))
    assert opened == RedirectReceived("http://127.0.0.1/cb?code=c", deadline)


@pytest.mark.parametrize(
    "effect",
    [ShowUserCode("A", "https://as/d", None, 1.0), OpenBrowser("https://as", "http://l", "s")],
)
async def test_a_driver_without_a_person_refuses_what_needs_one(effect: Any) -> None:
    plane = Plane()
    with pytest.raises(NotImplementedError):
        await Driver(plane, plane.clock).perform(effect)


class Silent:
    """A transport whose server accepts, and says nothing."""

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        await anyio.sleep_forever()
        raise AssertionError

    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.mark.req("NET-01")
async def test_a_request_may_be_given_less_time_than_the_transport_gives_it() -> None:
    plane = Plane()
    driver = Driver(Silent(), plane.clock, limit=0.0)
    event = await driver.perform(SendRequest(get("https://as.example/")))
    assert event == RequestFailed("timeout", "no answer within 0 s", sent=True, at=plane.clock.now)


@pytest.mark.req("META-06")
async def test_a_document_of_metadata_may_take_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    perform = Driver.perform

    async def noted(driver: Driver, effect: Effect) -> Event:
        given.append(driver.limit)
        return await perform(driver, effect)

    monkeypatch.setattr(Driver, "perform", noted)
    plane = Plane()
    async with plane.session("ClientSecret") as session:
        await session.headers()
    assert 10.0 in given
    assert set(given) == {10.0, math.inf}  # what follows has the time that a request has
