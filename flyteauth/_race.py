"""
One prompt, and every way there is to answer it: the browser that comes back, the address where it
ended, pasted by a person, and a code that is typed on any device. The first to be answered wins,
and the others end with it.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, nullcontext
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import anyio
from attrs import evolve, frozen

from ._grants import Grants
from ._io.bind import OBSTACLES, port_in_use
from ._io.browser import check, opening
from ._io.loopback import Loopback, listen
from ._io.page import success
from ._io.port_holder import holder
from ._io.presenter import Attending, Presenter, Waiting
from ._sansio.authorization_code import ENTROPY, AuthorizationCode, State as CodeState
from ._sansio.client import Client
from ._sansio.device_authorization import DeviceAuthorization, State as DeviceState
from ._sansio.errors import ConfigError, Error, Expired, OAuth2Error
from ._sansio.flow import OpenBrowser, RedirectReceived
from ._sansio.record import Record
from ._sansio.redirect import Reply, Settle, judge_pasted
from ._sansio.tokens import Token
from .events import BrowserNeeded, Warned

_log: Final = logging.getLogger("flyteauth")

_PASTED_WRONG: Final = {
    "empty": "there is nothing in it; paste the address where your browser ended",
    "host": "this is not where your browser should end; paste the address that it shows at the "
    "end, of {where}",
    "path": "this is not where your browser should end; paste the address that it shows at the "
    "end, of {where}",
    "state": "this answers another login, or is not all of the address; paste all of it, from the "
    "newest tab",
    "iss": "this is from another authorization server; paste the address from the newest tab",
    "no_code": "there is no code in it; paste all of the address where your browser ended",
}
_PASTED_BROKEN: Final = "this cannot be used; paste the address where your browser ended as it is"


class _Race:
    """Who comes first. Whoever has an answer claims the race before acting on it."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.patience = anyio.CancelScope()
        self.outcome: str | Record | Exception | None = None
        self.claimed = False

    def claim(self) -> bool:
        """Whether this answer is the first."""
        first, self.claimed = not self.claimed, True
        self.patience.deadline = math.inf  # somebody has logged in; the rest has its own
        return first

    def end(self, outcome: str | Record | Exception) -> None:
        self.outcome = outcome
        self.over.set()


@frozen
class Prompt:
    """A person is asked to log in. ``drop`` takes the place of ``grants.keep`` for a token that
    nobody is going to use.
    """

    grants: Grants
    presenter: Presenter
    client: Client
    scopes: tuple[str, ...]
    drop: Callable[[Client, Token], Awaitable[Record]]

    @property
    def device_flow(self) -> DeviceAuthorization:
        return DeviceAuthorization(self.client, self.scopes, self.grants.setup.verified)

    @property
    def _has_codes(self) -> bool:
        return self.client.server.device_authorization_endpoint is not None

    # By device authorization alone (RFC 8628).

    async def by_device(self) -> Record:
        state, _ = await self.grants.begin_on_device(self.device_flow)
        return await self.until_approved(state, state.code.expires_at)

    async def until_approved(self, state: DeviceState, expires_at: float) -> Record:
        """Wait for the code in *state* to be approved, and for as long stay with the person."""
        present = attending(self.presenter)
        flow, grants = self.device_flow, self.grants
        if present is None:
            return await grants.finish_on_device(flow, state)
        waiting = Waiting(expires_at, grants.setup.clock.time)
        race = _Race()

        async def approve() -> None:
            try:
                race.end(await grants.finish_on_device(flow, state))
            except Exception as error:  # noqa: BLE001  # out of the group it would be wrapped
                race.end(error)

        async with anyio.create_task_group() as group:
            group.start_soon(_attend, present, waiting)
            group.start_soon(approve)
            await race.over.wait()
            group.cancel_scope.cancel()
        if isinstance(race.outcome, Exception):
            raise race.outcome
        assert isinstance(race.outcome, Record)
        return race.outcome

    # By a browser (RFC 8252), and whatever else can be had beside it.

    async def by_browser(
        self, redirect_uri: str, *, opens: bool = True, switch: bool = False
    ) -> Record:
        """Authorization code with PKCE. The browser gets its page when the code is redeemed, or
        with the reason why it was not. Where it cannot come back, a person who is there can paste.
        """
        setup, client = self.grants.setup, self.client
        flow = AuthorizationCode(
            client, self.scopes, setup.verified, "select_account" if switch else None
        )
        present = attending(self.presenter)
        async with AsyncExitStack() as stack:
            loopback, obstacle = None, ""
            try:
                bound = listen(redirect_uri, setup.settings.callback_bind)
                loopback = await stack.enter_async_context(bound)
            except ConfigError as error:
                can_go_on = present is not None or self._has_codes
                obstacle = await self._obstacle(error, redirect_uri, can_go_on=can_go_on)
                if present is None:  # nobody can paste
                    lost = f"the browser could not come back ({obstacle})"
                    await setup.notify(Warned(f"{lost}; use the code instead"))
                    return await self.by_device()
            else:
                redirect_uri = loopback.redirect_uri
                await self._warn_of(loopback)
            state = flow.start(os.urandom(ENTROPY), redirect_uri)
            effect = flow.effect(state)
            assert isinstance(effect, OpenBrowser)
            check(effect.authorization_uri, client.plain_host)
            await setup.notify(
                BrowserNeeded(effect.authorization_uri, opens, loopback is not None, obstacle)
            )
            race = _Race()
            timeout = setup.settings.login_timeout
            with anyio.move_on_after(timeout) as race.patience:
                launched = opening(
                    effect.authorization_uri,
                    command=setup.settings.browser_command,
                    plain_host=client.plain_host,
                    hidden=setup.secret_variables,
                )
                # No closure: its frame would keep the state for as long as somebody keeps an error.
                redeem = partial(_redeem, flow, state)
                async with launched if opens else nullcontext():
                    await self._run(race, effect, loopback, present, redeem)
            match race.outcome:
                case str(uri):
                    record = await redeem(uri, self.grants)
                case Record() as record:
                    pass
                case Exception() as failure:
                    raise failure
                case _:
                    race.claimed = True  # whoever comes later is late
                    raise _nobody_came(timeout, None if loopback is None else loopback.ignored)
            if loopback is not None:
                await loopback.answer(success(setup.server, record.subject))
            return record

    async def _run(
        self,
        race: _Race,
        effect: OpenBrowser,
        loopback: Loopback | None,
        present: Attending | None,
        redeem: Callable[[str, Grants], Awaitable[Record]],
    ) -> None:
        """Wait for the first answer, by all ways."""

        async def come_back(loopback: Loopback) -> None:
            uri = await loopback.receive(effect.state)
            if race.claim():
                race.end(uri)

        def paste(text: str) -> str | None:
            issuer = self.client.server.issuer
            match judge_pasted(text, effect.redirect_uri, effect.state, issuer):
                case Settle(uri, guessed=True):
                    group.start_soon(self._by_guess, race, partial(redeem, uri))
                    return None
                case Settle(uri):
                    if race.claim():
                        race.end(uri)
                    return None
                case Reply(reason=reason):
                    where = effect.redirect_uri.partition("?")[0]
                    return _PASTED_WRONG.get(reason, _PASTED_BROKEN).format(where=where)

        async with anyio.create_task_group() as group:
            if loopback is not None:
                group.start_soon(come_back, loopback)
            if present is not None:
                clock = self.grants.setup.clock
                expires_at = clock.time() + self.grants.setup.settings.login_timeout
                group.start_soon(_attend, present, Waiting(expires_at, clock.time, paste))
                if self._has_codes:
                    group.start_soon(self._by_code, race)
            await race.over.wait()
            group.cancel_scope.cancel()

    async def _by_guess(self, race: _Race, redeem: Callable[[Grants], Awaitable[Record]]) -> None:
        """Try a code that was pasted alone. If it is none, the other ways go on."""
        bid = _Bid(self, race)
        try:
            race.end(await redeem(bid.grants))
        except Exception as error:  # noqa: BLE001  # the other ways go on
            if bid.won or not isinstance(error, Error):
                race.end(error)
            elif not race.claimed:
                why = str(error).partition(";")[0]
                await self.grants.setup.notify(
                    Warned(f"what was pasted did not do ({why}); paste the whole address instead")
                )

    async def _by_code(self, race: _Race) -> None:
        """Device authorization as one way among others, which does not miss it if it fails."""
        bid, shown = _Bid(self, race), False
        try:
            state, _ = await bid.grants.begin_on_device(self.device_flow, alternative=True)
            shown = True
            race.end(await bid.grants.finish_on_device(self.device_flow, state))
        except Exception as error:  # noqa: BLE001  # the other ways go on
            denied = isinstance(error, OAuth2Error) and error.error == "access_denied"
            if bid.won or (denied and race.claim()):
                race.end(error)
            elif not isinstance(error, Error):
                _log.exception("a login by code failed; the login goes on in the browser")
            elif shown and not race.claimed:
                await self.grants.setup.notify(
                    Warned("the code cannot be used any more; go on in the browser, or log in anew")
                )

    async def _obstacle(self, error: ConfigError, redirect_uri: str, *, can_go_on: bool) -> str:
        """Why the browser cannot come back, in words. Raises *error*, with the name of whoever is
        in the way, if nothing goes on without that.
        """
        if error.reason not in OBSTACLES:
            raise error
        bound = self.grants.setup.settings.callback_bind
        port = (bound and bound[1]) or urlsplit(redirect_uri).port
        who = None
        if port and error.reason == "port_in_use":
            who = await holder(port)
        if not can_go_on:
            raise error if who is None or port is None else port_in_use(port, who)
        return str(error).partition(";")[0] if who is None else f"port {port} is held by {who}"

    async def _warn_of(self, loopback: Loopback) -> None:
        for address, port in loopback.addresses:
            if address not in {"127.0.0.1", "::1"}:
                await self.grants.setup.notify(
                    Warned(
                        f"anybody on the network of {address} can reach port {port} of this "
                        "machine while this login lasts; leave out callbackBind where it need not "
                        "be so"
                    )
                )


class _Bid:
    """One way to a token in a race: ``grants`` claim the race with it, and drop it if another way
    was first.
    """

    def __init__(self, prompt: Prompt, race: _Race) -> None:
        self.won = False
        self.grants = evolve(prompt.grants, keep=self._keep)
        self._prompt = prompt
        self._race = race

    async def _keep(self, client: Client, token: Token) -> Record:
        self.won = self._race.claim()
        keep = self._prompt.grants.keep if self.won else self._prompt.drop
        return await keep(client, token)


async def _redeem(flow: AuthorizationCode, state: CodeState, uri: str, grants: Grants) -> Record:
    """Redeem the code that *uri* came back with."""
    event = RedirectReceived(uri, grants.setup.clock.time())
    return await grants.redeem(flow, flow.advance(state, event))


def attending(presenter: Presenter) -> Attending | None:
    """*presenter*, if a person is at it who can answer."""
    try:
        if isinstance(presenter, Attending) and presenter.is_attended():
            return presenter
    except Exception:  # noqa: BLE001  # it is the program's own
        _log.exception("the presenter failed; the login goes on")
    return None


async def _attend(presenter: Attending, waiting: Waiting) -> None:
    try:
        await presenter.attend(waiting)
    except Exception:  # noqa: BLE001  # it is the program's own
        _log.exception("the presenter failed; the login goes on")


def _nobody_came(timeout: float, ignored: Reply | None) -> Expired:
    """What came to the listener in vain perhaps tells why nobody could log in."""
    hint = ""
    if ignored is not None:
        said = f": it said {ignored.error}" if ignored.error else ""
        hint = f" (an answer to another login was ignored{said})"
    return Expired(
        f"nobody logged in within {timeout:.0f} s{hint}; log in again, or use "
        "authType DeviceFlow on a machine without a browser",
        reason="login_timeout",
    )
