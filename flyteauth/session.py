"""
Session: one identity at one endpoint. The only stateful object that users embed::

    async with Session(endpoint="dns:///flyte.example.com") as session:
        headers = await session.headers()

It joins the pure core, the adapters and the configuration, and carries out the renewal policy:
a fresh token is handed out without any I/O, an ageing one is handed out while the next is fetched
in the background, and only an expired or a rejected one makes callers wait, all of them for the
same refresh.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, TypeVarTuple

from attrs import frozen

from ._audience import Audience, OnTokenChange
from ._io.clock import Clock, SystemClock
from ._io.flights import Flights
from ._io.frames import clearing
from ._io.presenter import Presenter, person_present
from ._lifetime import ANONYMOUS, FLIGHTS, Lifetime
from ._sansio.http import Object
from ._sansio.origins import (
    Origins as Origins,  # noqa: PLC0414  # what origins() returns is public, too
    origin_of as origin_of,  # noqa: PLC0414  # and how its adapters read a URL
)
from ._sansio.tokens import Token as Token  # noqa: PLC0414  # what token() returns is public
from ._source import Source
from .errors import ConfigError, FlowError, Unreachable
from .events import CodeNeeded, LoggedOut, OnEvent, Warned

if TYPE_CHECKING:
    from ._calls import Reply
    from ._io.store import Store
    from ._io.transport import Transport
    from ._sansio.keyring_layouts import Tool
    from ._sansio.record import Record
    from ._setup import Setup
    from .config import Settings

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@frozen
class Identity:
    """Who a session is, as the control plane sees it (flyteidl2.auth.IdentityService): each text
    is cut at 300 characters, and has to be escaped where it is shown.
    """

    subject: str
    name: str = ""
    preferred_username: str = ""
    email: str = ""


class Session:
    """One identity at one endpoint, on asyncio and on trio, for any number of tasks.

    Arguments are those of ``flyteauth.config``: ``endpoint``, or ``issuer`` for any other server,
    ``client_id``, ``client_secret``, ``client_auth``, ``scopes``, ``audience``, ``redirect_uri``,
    ``endpoints``, ``extra_parameters``, ``auth_type``, ``token_store`` and so on. Nothing is read
    from files or the environment: that is ``Session.from_config``.

    ``on_event`` is called with each ``flyteauth.events`` value, from the event loop; it must not
    block. ``on_token_change`` is called with each new token once it is stored, and with None when
    the login is over; it may be async, and has ten seconds, for which those who wait for the token
    wait. ``presenter`` shows a login to the person: by default, lines on standard error.
    ``interactive`` lets the first use, and only that, ask a person to log in: True if one is at a
    terminal or in a notebook, a function if that says so.

    A session can be pickled: its configuration travels, and no secret, hook or token does. In a
    forked child it goes on with connections of its own.
    """

    def __init__(
        self,
        *,
        on_event: OnEvent | None = None,
        on_token_change: OnTokenChange | None = None,
        presenter: Presenter | None = None,
        interactive: bool | Callable[[], bool] = False,
        transport: Transport | None = None,
        clock: Clock | None = None,
        store: Store | None = None,
        directory: Path | None = None,
        flights: Flights = FLIGHTS,
        **arguments: Any,
    ) -> None:
        from .config import check_arguments

        check_arguments(arguments)
        clock = clock or SystemClock()
        self._life = Lifetime(
            Source(arguments),
            Audience(on_event, on_token_change, presenter),
            clock,
            may_ask=(
                interactive if callable(interactive) else person_present if interactive else None
            ),
            transport=transport,
            store=store,
            directory=directory,
            flights=flights,
        )
        self._interactive = bool(interactive)
        self._offer = self._life.offer
        self._monotonic = clock.monotonic

    @classmethod
    def from_config(
        cls,
        path: str | Path | None = None,
        *,
        on_event: OnEvent | None = None,
        on_token_change: OnTokenChange | None = None,
        presenter: Presenter | None = None,
        interactive: bool | Callable[[], bool] = False,
        **arguments: Any,
    ) -> Self:
        """A session as the configuration file at *path*, or else the first one found, and the
        environment say; *arguments*, those of Session, go before both.

        The file is read at the first use; a wrong value then raises ConfigError.
        """
        session = cls(
            on_event=on_event,
            on_token_change=on_token_change,
            presenter=presenter,
            interactive=interactive,
            **arguments,
        )
        session._life.source = Source(arguments, path, os.environ)
        return session

    def __reduce__(self) -> tuple[object, ...]:
        return _revive, (type(self), self._life.source)

    @clearing
    async def __aenter__(self) -> Self:
        await self._life.set_up()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @clearing
    async def aclose(self) -> None:
        """Wait for a reply in flight that must not be lost, and close all connections."""
        await self._life.aclose()

    async def headers(self) -> Mapping[str, str]:
        """The headers that authorise a call; empty where the control plane wants none.

        Raises InteractionRequired without a login, ReauthRequired when it is over, Unreachable
        when a refresh has to wait for the network, ConfigError for a wrong setting.
        """
        if self._monotonic() < self._offer.until:
            return self._offer.headers
        return await self._life.authorised()

    def cached_headers(self) -> Mapping[str, str] | None:
        """What ``headers`` would return at once, from any thread; None if it would have to wait."""
        if self._monotonic() < self._offer.until:
            return self._offer.headers
        return None

    @clearing
    async def token(self) -> Token | None:
        """A token that is good now; None where the control plane wants none.

        Raises what ``headers`` raises.
        """
        held, _ = await self._life.current()
        return held.token

    @clearing
    async def renew(self) -> Token | None:
        """The token that a renewal comes to which begins now, however good the one in hand is; who
        renews already is waited for. None where the control plane wants none.

        Raises what ``headers`` raises; one that fails for now takes nothing away that is still
        good.
        """
        held = await self._life.renew()
        return held.token

    @clearing
    async def verify(self) -> Token | None:
        """A token that the control plane does not refuse, as far as it says: it is asked once, and
        a token that it refuses is renewed. None where it wants none.

        Raises what ``headers`` raises.
        """
        setup = await self._life.set_up()
        from ._calls import USER_INFO, send

        held, _ = await self._life.current()
        if held.record is None:
            return None
        token, refused = held.record.token, False
        try:
            refused = (await send(setup, held.headers, USER_INFO, {})).refused
        except Unreachable as error:
            await setup.notify(Warned(f"the token could not be verified: {error}"))
            return token
        except (FlowError, ConfigError):  # it does not say
            pass
        if refused:
            self.reject(token.access_token)
            held, _ = await self._life.current()
        if held.token is not None and not (refused and held.token == token):
            await setup.machine.tell_verified(setup.vault.key, held.token.access_token)
        return held.token

    def reject(self, access_token: str) -> None:
        """A server refused *access_token*: it, and no other, is not handed out any more.

        Unless it is what an earlier rejection has just brought about: a server that refuses that as
        well is asked for another token only after half a minute. An empty *access_token* says that
        a server refused a call without one.
        """
        self._life.reject(access_token)

    def reject_proxy(self) -> None:
        """A proxy refused the credential of ``proxyCommand`` (a 407): it is fetched anew."""
        self._life.reject_proxy()

    @clearing
    async def login(
        self, *, must_keep: bool = False, switch: bool = False, open_browser: bool = True
    ) -> Token | None:
        """Log in, whatever is stored, and replace it. Needs no terminal: the presenter shows
        what a person has to do. None where the control plane wants no login.

        Unless auth_type says how, a person logs in the way that can work here: by a browser, or
        by a code that they enter on another device; the event MethodChosen says why. A presenter
        that is ``Attending`` may answer a browser's prompt by pasting the address where it ended.

        With *must_keep*, a login that could not outlive the program is StoreError before anybody
        is asked. With *switch*, the server is asked to let the person choose another account.
        Without *open_browser*, its address is only shown.

        While another program on this machine asks for the same login, this one waits for it.
        Raises FlowError (denied, expired, unreachable), ConfigError, StoreError, or
        InteractionRequired if nobody answered the other program, and in a task of Flyte's unless
        the session is ``interactive``; what was stored before stays until the new login is there.
        """
        await self._life.set_up()
        from ._login import Wish, log_in

        wish = Wish(must_keep, switch, open_browser, insisted=self._interactive)
        held = await log_in(self._life, wish)
        return held.token

    @clearing
    async def begin_login(self) -> CodeNeeded:
        """Show the code of a device login, keep the rest of it on this machine for
        ``resume_login``, in this process or another one, and return what was shown. A login that
        was begun before is forgotten; one that is stored stays.

        Raises MissingMetadata if the server has no device authorization, ConfigError if no person
        logs in here, StoreError if there is no place to keep it, and what ``login`` raises.
        """
        await self._life.set_up()
        from ._two_steps import begin_log_in

        return await begin_log_in(self._life, insisted=self._interactive)

    @clearing
    async def resume_login(self, *, must_keep: bool = False) -> Token:
        """Wait until the person has approved the code that ``begin_login`` has shown, and log in;
        to be called again if it was cancelled or the network was away.

        Raises InteractionRequired ("nothing_pending") if nothing was begun, and what ``login``
        raises.
        """
        await self._life.set_up()
        from ._two_steps import resume_log_in

        held = await resume_log_in(self._life, must_keep=must_keep)
        assert held.record is not None
        return held.record.token

    @clearing
    async def import_login(self, source: Tool | None = None, *, must_keep: bool = False) -> Token:
        """Take over the login that another tool of Flyte's keeps in the keyring, and replace what
        is stored; the event Imported says which. Without a *source*, the first one that works.

        The tool keeps it as well: unless ``shared_logins`` names it, one of the two ends when the
        other is refreshed. *must_keep* as for ``login``.

        Raises InteractionRequired ("not_logged_in") if there is none, ReauthRequired if it is over,
        StoreError if the keyring cannot be read, and what ``login`` raises.
        """
        await self._life.set_up()
        from ._moving import take_over

        return (await take_over(self._life, source, must_keep=must_keep)).token

    @clearing
    async def export_login(self, *targets: Tool) -> None:
        """Write the login to where each of *targets* keeps its own in the keyring, in place of it;
        the event Exported says so of each. See ``import_login`` on what becomes of it.

        Raises StoreError if that fails, and what ``headers`` raises.
        """
        await self._life.set_up()
        from ._moving import hand_out

        await hand_out(self._life, targets)

    @clearing
    async def logout(self, *, everywhere: bool = False) -> LoggedOut:
        """Forget the login on this machine, whatever the network does, and ask the server to
        revoke its tokens (RFC 7009). Other sessions of this identity stop using it at once. The
        tools that share it by configuration lose it, too.

        *everywhere*: and whatever flyte, flytekit and flytectl keep of this endpoint in the
        keyring, however it is spelled; the event Forgotten says so of each.

        Raises StoreError if anything cannot be forgotten; whatever can is gone then.
        """
        setup = await self._life.set_up()
        # What is left with a tool that shares the login would be taken over at the next use.
        if not everywhere and not setup.settings.shared_logins:
            return (await self._log_out(setup))[0]
        from ._everywhere import log_out_everywhere
        from ._sansio.keyring_layouts import TOOLS

        tools = TOOLS if everywhere else setup.settings.shared_logins
        return await log_out_everywhere(self._life, partial(self._log_out, setup), tools)

    async def _log_out(self, setup: Setup) -> tuple[LoggedOut, Record | None]:
        """What came of it, and what there was."""
        from ._two_steps import pending_logins
        from ._upkeep import revoke_all

        if setup.settings.auth_type in {"NoAuth", "Passthrough"}:  # what is stored is not ours
            outcome = LoggedOut(setup.server, local_deleted=False, remote_revoked=None)
            await setup.notify(outcome)
            return outcome, None
        held = self._life.held
        record = await setup.vault.load() or (None if held is None else held.record)
        there = record is not None or setup.vault.damaged
        await setup.vault.delete()
        await pending_logins(setup).remove(setup.vault.key)
        await self._life.end_everywhere()
        revoked = None if record is None else await revoke_all(setup, record)
        outcome = LoggedOut(setup.server, there, revoked)
        await setup.notify(outcome)
        return outcome, record

    @clearing
    async def whoami(self) -> Identity | None:
        """Who the control plane takes us for; None where it knows nobody.

        Raises what ``call`` raises.
        """
        await self._life.set_up()
        from ._calls import USER_INFO

        return (await self._reply(USER_INFO, {})).identity()

    @clearing
    async def call(self, procedure: str, message: object) -> Object:
        """One unary call to the control plane over Connect, in JSON, with our credentials.

        *procedure* is ``/package.Service/Method``. A 401 is answered by one renewal and one more
        try. Raises FlowError with the Connect code as ``reason``, Unreachable, and what
        ``headers`` raises.
        """
        return (await self._reply(procedure, message)).read()

    @clearing
    async def settings(self) -> Settings:
        """What arguments, environment and file come to. Raises ConfigError."""
        return (await self._life.set_up()).settings

    @clearing
    async def origins(self, also: Iterable[str] = (), *, data_plane: bool = True) -> Origins:
        """Where the headers may be sent: to the endpoint's origin, to *also*, which are origins
        like ``https://files.example.com``, and over https to the control plane's data plane.

        The control plane is asked for the domain of that, unless it was lately or *data_plane* is
        false; FlowError if it cannot say, ConfigError for what is no origin.
        """
        await self._life.set_up()
        from ._origins import origins

        return await origins(self._life, also, data_plane=data_plane)

    async def _reply(self, procedure: str, message: object) -> Reply:
        setup = await self._life.set_up()
        from ._calls import send

        held, _ = await self._life.current()
        reply = await send(setup, held.headers, procedure, message, held.record)
        if reply.refused and (held.record is not None or held is ANONYMOUS):
            self.reject("" if held.record is None else held.record.token.access_token)
            again, _ = await self._life.current()
            if again is not held:
                reply = await send(setup, again.headers, procedure, message, held.record)
        return reply


def _revive(kind: type[Session], source: Source) -> Session:
    session = kind()
    session._life.source = source  # noqa: SLF001
    return session


def in_portal(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """What *function* of *args* returns, awaited on the portal: for code without an event loop."""
    from ._io.portal import call

    return call(function, *args)
