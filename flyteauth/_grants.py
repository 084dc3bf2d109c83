"""How each authType gets a token: flows, and the people and places that they need."""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

import anyio
from attrs import evolve, frozen

from ._io.browser import opening
from ._io.entropy import random_bits
from ._io.loopback import listen
from ._io.page import success
from ._io.tasks import Work, start
from ._sansio.authorization_code import ENTROPY, AuthorizationCode, State as CodeState
from ._sansio.client import Client
from ._sansio.device_authorization import DeviceAuthorization, Polling, State as DeviceState
from ._sansio.errors import Expired, Unreachable
from ._sansio.exchanges import client_credentials
from ._sansio.flow import Done, OpenBrowser, RedirectReceived, Retrying, ShowUserCode
from ._sansio.record import Record
from ._sansio.redirect import Reply
from ._sansio.renewal import BACKOFF
from ._sansio.tokens import Token
from ._setup import Setup
from .events import BrowserNeeded, CodeNeeded

T = TypeVar("T")

FINISH_DEADLINE: Final = 60.0  # seconds for a request whose reply must not be lost


@frozen
class Grants:
    """What a grant needs. ``keep`` stores a token before anybody may use it; ``track`` is told of
    work that goes on when its caller is cancelled, because its reply must not be lost, and for how
    many seconds it is worth waiting for.
    """

    setup: Setup
    keep: Callable[[Client, Token], Awaitable[Record]]
    track: Callable[[Work[Any], float], None]

    async def in_browser(
        self, client: Client, scopes: tuple[str, ...], redirect_uri: str
    ) -> Record:
        """Authorization code with PKCE, by a browser on this machine (RFC 8252).

        The browser gets its page when the code is redeemed, or with the reason why it was not.
        """
        flow = AuthorizationCode(client, scopes, self.setup.verified)
        timeout = self.setup.settings.login_timeout
        hint = ""
        with anyio.move_on_after(timeout) as patience:
            async with listen(redirect_uri) as loopback:
                state = flow.start(os.urandom(ENTROPY), loopback.redirect_uri)
                effect = flow.effect(state)
                assert isinstance(effect, OpenBrowser)
                await self.setup.notify(BrowserNeeded(effect.authorization_uri))
                async with opening(
                    effect.authorization_uri,
                    plain_host=client.plain_host,
                    hidden=self.setup.secret_variables,
                ):
                    try:
                        uri = await loopback.receive(effect.state)
                    finally:
                        hint = _hint(loopback.ignored)
                patience.deadline = math.inf  # somebody has logged in; the rest has its own
                after = flow.advance(state, RedirectReceived(uri, self.setup.clock.time()))
                record = await self._to_the_end(partial(self._redeem, flow, after, client))
                await loopback.answer(success(self.setup.server, record.subject))
                return record
        raise Expired(
            f"nobody logged in within {timeout:.0f} s{hint}; log in again, or use "
            "authType DeviceFlow on a machine without a browser",
            reason="login_timeout",
        )

    async def on_device(self, client: Client, scopes: tuple[str, ...]) -> Record:
        """Device authorization (RFC 8628): a person approves a code on any device, as long as the
        code lives.
        """
        flow = DeviceAuthorization(client, scopes, self.setup.verified)
        driver = evolve(self.setup.driver, show_user_code=self._show_user_code)
        state: DeviceState | Done[Record] = flow.start()
        while not isinstance(state, Done):
            if isinstance(state, Polling):
                state = await self._to_the_end(partial(self._poll, flow, state, client), 1.0)
            else:
                after = await driver.step(flow, state)
                assert not isinstance(after, Done)
                state = after
        return state.value

    async def to_service(self, client: Client, scopes: tuple[str, ...]) -> Record:
        """Client credentials (RFC 6749 §4.4)."""
        flow = Retrying(client_credentials(client, scopes), BACKOFF)
        token = await self.setup.driver.run(flow, flow.start(random_bits()))
        return await self.keep(client, token)

    async def _redeem(
        self, flow: AuthorizationCode, state: CodeState | Done[Token], client: Client
    ) -> Record:
        return await self.keep(client, await self.setup.driver.run(flow, state))

    async def _poll(
        self, flow: DeviceAuthorization, state: Polling, client: Client
    ) -> DeviceState | Done[Record]:
        after = await self.setup.driver.step(flow, state)
        return Done(await self.keep(client, after.value)) if isinstance(after, Done) else after

    async def _to_the_end(
        self, function: Callable[[], Awaitable[T]], worth: float = FINISH_DEADLINE
    ) -> T:
        """Do what must not stop half-way in a task of its own, and wait for it."""

        async def finish() -> T:
            with anyio.move_on_after(FINISH_DEADLINE):
                return await function()
            raise Unreachable(
                f"the login could not be finished within {FINISH_DEADLINE:.0f} s; log in again",
                reason="timeout",
                sent=True,
            )

        work = start(finish)
        self.track(work, worth)
        return await work.wait()

    async def _show_user_code(self, effect: ShowUserCode) -> None:
        await self.setup.notify(
            CodeNeeded(
                effect.user_code,
                effect.verification_uri,
                effect.verification_uri_complete,
                effect.expires_at,
            )
        )


def _hint(ignored: Reply | None) -> str:
    """What came to the listener in vain; perhaps it tells why nobody could log in."""
    if ignored is None:
        return ""
    said = f": it said {ignored.error}" if ignored.error else ""
    return f" (an answer to another login was ignored{said})"
