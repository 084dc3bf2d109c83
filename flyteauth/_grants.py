"""What each grant does to come by a token; the people and places that it needs are others' part."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

import anyio
from attrs import evolve, frozen

from ._io.entropy import random_bits
from ._io.tasks import Work, start
from ._sansio.authorization_code import AuthorizationCode, State as CodeState
from ._sansio.client import Client
from ._sansio.device_authorization import (
    DeviceAuthorization,
    DeviceCode,
    Polling,
    Prompting,
    State as DeviceState,
    Waiting,
)
from ._sansio.errors import Unreachable
from ._sansio.exchanges import BACKOFF, client_credentials
from ._sansio.flow import Done, Retrying, ShowUserCode
from ._sansio.record import Record
from ._sansio.tokens import Token
from ._setup import Setup
from .events import CodeNeeded

T = TypeVar("T")

FINISH_DEADLINE: Final = 60.0  # seconds for a request whose reply must not be lost
POLL_GRACE: Final = 2.0  # seconds beyond the end of a code for the answer to its last poll


@frozen
class Grants:
    """What a grant needs. ``keep`` stores a token before anybody may use it; ``track`` is told of
    work that goes on when its caller is cancelled, because its reply must not be lost, and for how
    many seconds it is worth waiting for.
    """

    setup: Setup
    keep: Callable[[Client, Token], Awaitable[Record]]
    track: Callable[[Work[Any], float], None]

    async def to_service(self, client: Client, scopes: tuple[str, ...]) -> Record:
        """Client credentials (RFC 6749 §4.4)."""
        flow = Retrying(client_credentials(client, scopes), BACKOFF)
        token = await self.setup.driver.run(flow, flow.start(random_bits()))
        return await self.keep(client, token)

    async def redeem(self, flow: AuthorizationCode, state: CodeState | Done[Token]) -> Record:
        """The rest of an authorization code grant (RFC 6749 §4.1.3), once the code is there."""
        return await self._to_the_end(partial(self._redeem, flow, state))

    async def _redeem(self, flow: AuthorizationCode, state: CodeState | Done[Token]) -> Record:
        return await self.keep(flow.client, await self.setup.driver.run(flow, state))

    async def begin_on_device(
        self,
        flow: DeviceAuthorization,
        *,
        alternative: bool = False,
        check: Callable[[DeviceCode], object] = lambda _: None,
    ) -> tuple[Waiting, CodeNeeded]:
        """Device authorization (RFC 8628) until the code is shown; and what was shown. *check* may
        raise before that.
        """
        shown: list[CodeNeeded] = []

        async def show(effect: ShowUserCode) -> None:
            url, complete = effect.verification_uri, effect.verification_uri_complete
            event = CodeNeeded(effect.user_code, url, complete, effect.expires_at, alternative)
            shown.append(event)
            await self.setup.notify(event)

        driver = evolve(self.setup.driver, show_user_code=show)
        state: DeviceState | Done[Token] = flow.start()
        while not isinstance(state, Waiting):
            assert not isinstance(state, Done)
            if isinstance(state, Prompting):
                check(state.code)
            state = await driver.step(flow, state)
        return state, shown[0]

    async def finish_on_device(self, flow: DeviceAuthorization, state: DeviceState) -> Record:
        """The rest of it: a person approves the code on any device, as long as it lives."""
        following: DeviceState | Done[Record] = state
        while not isinstance(following, Done):
            if isinstance(following, Polling):
                poll = partial(self._poll, flow, following)
                following = await self._to_the_end(poll, 1.0)
            else:
                after = await self.setup.driver.step(flow, following)
                assert not isinstance(after, Done)
                following = after
        return following.value

    async def _poll(self, flow: DeviceAuthorization, state: Polling) -> DeviceState | Done[Record]:
        driver = self.setup.driver
        left = max(0.0, state.code.expires_at - self.setup.clock.time())
        driver = evolve(driver, limit=min(driver.limit, left + POLL_GRACE))
        after = await driver.step(flow, state)
        return Done(await self.keep(flow.client, after.value)) if isinstance(after, Done) else after

    async def _to_the_end(
        self, function: Callable[[], Awaitable[T]], worth: float = FINISH_DEADLINE
    ) -> T:
        """Do what must not stop half-way in a task of its own, and wait for it."""
        work = start(_finish, function)
        self.track(work, worth)
        return await work.wait()


# No closures: a frame keeps those of its function, even when its variables are forgotten.
async def _finish(function: Callable[[], Awaitable[T]]) -> T:
    with anyio.move_on_after(FINISH_DEADLINE):
        return await function()
    raise Unreachable(
        f"the login could not be finished within {FINISH_DEADLINE:.0f} s; log in again",
        reason="timeout",
        sent=True,
    )
