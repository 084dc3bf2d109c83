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

import logging
import math
import os
import weakref
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, TypeVarTuple

import anyio
import anyio.to_thread
from attrs import evolve, field, frozen

from ._io.clock import Clock, SystemClock
from ._io.entropy import random_bits
from ._io.flights import Flights
from ._io.presenter import Presenter, Terminal, person_present
from ._io.tasks import Abandoned, Work
from ._sansio.flow import fraction
from ._sansio.http import Object
from ._sansio.record import Record
from ._sansio.renewal import Authorize, Refresh, Use, UseAndRefresh, plan
from ._sansio.tokens import Token as Token  # noqa: PLC0414  # what token() returns is public
from ._source import Source, in_time, prepare
from .errors import (
    Error,
    FlowError,
    InteractionRequired,
    MissingMetadata,
    OAuth2Error,
    ReauthRequired,
    Unreachable,
)
from .events import AuthEvent, LoggedIn, LoggedOut, OnEvent, Refreshed, Warned

if TYPE_CHECKING:
    from ._calls import Reply
    from ._io.store import Store
    from ._io.transport import Transport
    from ._sansio.client import Client
    from ._setup import Setup
    from ._target import Target
    from ._vault import Vault
    from .config import Settings

# Everything else is imported where it is needed, and for the first time by prepare, in a worker
# thread: a session that only mentions itself costs little, and no event loop waits for an import.

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

RENEW_DEADLINE: Final = 150.0  # seconds for a refresh with all its retries
CLOSE_DEADLINE: Final = 30.0  # seconds to wait, when a session ends, for a reply in flight
WHOAMI_DEADLINE: Final = 3.0
DISCOVERY_DEADLINE: Final = 60.0  # seconds, with all retries
PATIENCE: Final = 10.0  # the same where a stored login may do without
RETRY_AFTER: Final = 5.0  # seconds before an ageing token is tried to be refreshed once more

_UNVERIFIED: Final = (
    "insecureSkipVerify: certificates are not checked, so whoever is in between can take the "
    "login; set caCertFilePath instead"
)

# In this process: one refresh at a time for one identity in one store, and one login.
_FLIGHTS: Final = Flights()
_LIVE: Final = weakref.WeakSet["Session"]()

_log: Final = logging.getLogger("flyteauth")


@frozen
class Identity:
    """Who a session is, as the control plane sees it (flyteidl2.auth.IdentityService)."""

    subject: str
    name: str = ""
    preferred_username: str = ""
    email: str = ""


@frozen
class _Held:
    """What is handed out, and until when nobody need think about it."""

    record: Record | None
    headers: Mapping[str, str] = field(repr=False)
    use_until: float


_NOTHING: Final = _Held(None, MappingProxyType({}), -math.inf)
_ANONYMOUS: Final = _Held(None, MappingProxyType({}), math.inf)


class Session:
    """One identity at one endpoint, on asyncio and on trio, for any number of tasks.

    Arguments are those of ``flyteauth.config``: ``endpoint``, or ``issuer`` for any other server,
    ``client_id``, ``client_secret``, ``client_auth``, ``scopes``, ``audience``, ``redirect_uri``,
    ``endpoints``, ``extra_parameters``, ``auth_type``, ``token_store`` and so on. Nothing is read
    from files or the environment: that is ``Session.from_config``.

    ``on_event`` is called with each ``flyteauth.events`` value, from the event loop; it must not
    block. ``presenter`` shows a login to the person: by default, lines on standard error.
    ``interactive`` lets the first use, and only that, ask a person to log in: True if one is at a
    terminal or in a notebook, a function if that says so.
    """

    def __init__(
        self,
        *,
        on_event: OnEvent | None = None,
        presenter: Presenter | None = None,
        interactive: bool | Callable[[], bool] = False,
        transport: Transport | None = None,
        clock: Clock | None = None,
        store: Store | None = None,
        **arguments: Any,
    ) -> None:
        from .config import check_arguments

        check_arguments(arguments)
        self._source = Source(arguments)
        self._on_event = on_event
        self._presenter = presenter or Terminal()
        # Until the first token is in hand. Later nobody expects a browser to open.
        self._may_ask: Callable[[], bool] | None = (
            interactive if callable(interactive) else person_present if interactive else None
        )
        self._given_transport = transport
        self._given_store = store
        self._clock = clock or SystemClock()
        self._ready: Setup | None = None
        self._target: Target | None = None
        self._held: _Held | None = None
        self._rejected: str | None = None
        self._jitter = fraction(random_bits(), 0)
        self._renew_not_before = 0.0
        self._over = False
        self._closed = False
        self._works: dict[Work[Any], float] = {}  # and how many seconds each is worth waiting for
        _LIVE.add(self)

    @classmethod
    def from_config(
        cls,
        path: str | Path | None = None,
        *,
        on_event: OnEvent | None = None,
        presenter: Presenter | None = None,
        interactive: bool | Callable[[], bool] = False,
        **arguments: Any,
    ) -> Self:
        """A session as the configuration file at *path*, or else the first one found, and the
        environment say; *arguments*, those of Session, go before both.

        The file is read at the first use; a wrong value then raises ConfigError.
        """
        session = cls(on_event=on_event, presenter=presenter, interactive=interactive, **arguments)
        session._source = Source(arguments, path, os.environ)
        return session

    async def __aenter__(self) -> Self:
        await self._set_up()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Wait for a reply in flight that must not be lost, and close all connections."""
        with anyio.CancelScope(shield=True):
            begun = anyio.current_time()
            for work, worth in sorted(self._works.items(), key=lambda item: item[1]):
                deadline = begun + min(worth, CLOSE_DEADLINE)
                # Its waiters are told what comes of it, not we.
                with anyio.CancelScope(deadline=deadline), suppress(Exception):
                    await work.wait()
            self._closed = True
            if self._ready is not None:
                await self._ready.transport.aclose()

    # What users ask for.

    async def headers(self) -> Mapping[str, str]:
        """The headers that authorise a call; empty where the control plane wants none.

        Raises InteractionRequired without a login, ReauthRequired when it is over, Unreachable
        when a refresh has to wait for the network, ConfigError for a wrong setting.
        """
        held = self._held
        if held is not None and self._clock.time() < held.use_until:
            return held.headers
        return (await self._current()).headers

    async def token(self) -> Token | None:
        """A token that is good now; None where the control plane wants none.

        Raises what ``headers`` raises.
        """
        held = await self._current()
        return None if held.record is None else held.record.token

    def reject(self, access_token: str) -> None:
        """A server refused *access_token*: it, and no other, is not handed out any more."""
        held = self._held
        if held is None or held.record is None or held.record.token.access_token != access_token:
            return
        self._rejected = access_token
        self._held = evolve(held, use_until=-math.inf)

    async def login(self, *, must_keep: bool = False) -> Token | None:
        """Log in, whatever is stored, and replace it. Needs no terminal: the presenter shows
        what a person has to do. None where the control plane wants no login.

        With *must_keep*, a login that could not outlive the program is StoreError before anybody
        is asked. Raises FlowError (denied, expired, unreachable), ConfigError or StoreError; what
        was stored before stays until the new login is there.
        """
        held = await self._login_once(must_keep=must_keep)
        return None if held.record is None else held.record.token

    async def logout(self) -> LoggedOut:
        """Forget the login on this machine, whatever the network does, and ask the server to
        revoke its tokens (RFC 7009). Other sessions of this identity stop using it at once.

        Raises StoreError if it cannot be forgotten.
        """
        from ._upkeep import revoke_all

        vault = (await self._set_up()).vault
        held = self._held
        record = await vault.load() or (None if held is None else held.record)
        await vault.delete()
        for session in list(_LIVE):
            session._end_if(vault)  # noqa: SLF001
        revoked = None if record is None else await revoke_all(await self._set_up(), record)
        outcome = LoggedOut(self._server, record is not None, revoked)
        await self._notify(outcome)
        return outcome

    async def whoami(self) -> Identity | None:
        """Who the control plane takes us for; None where it knows nobody.

        Raises what ``call`` raises.
        """
        from ._calls import USER_INFO

        return (await self._reply(USER_INFO, {})).identity()

    async def call(self, procedure: str, message: object) -> Object:
        """One unary call to the control plane over Connect, in JSON, with our credentials.

        *procedure* is ``/package.Service/Method``. A 401 is answered by one renewal and one more
        try. Raises FlowError with the Connect code as ``reason``, Unreachable, and what
        ``headers`` raises.
        """
        return (await self._reply(procedure, message)).read()

    async def settings(self) -> Settings:
        """What arguments, environment and file come to. Raises ConfigError."""
        return (await self._set_up()).settings

    async def _reply(self, procedure: str, message: object) -> Reply:
        from ._calls import send

        setup, held = await self._set_up(), await self._current()
        reply = await send(setup, held.headers, procedure, message)
        if reply.refused:
            if held.record is not None:
                self.reject(held.record.token.access_token)
            else:  # anonymous it is no more
                self._target = self._held = None
            reply = await send(setup, await self.headers(), procedure, message)
        return reply

    # How a token comes to be in hand.

    async def _current(self) -> _Held:
        """What is good to use now, after whatever it takes to have it."""
        held = self._held
        if held is None:
            held = await _FLIGHTS.share(("open", id(self)), self._open)
        if held is _ANONYMOUS:
            return held
        token = None if held.record is None else held.record.token
        at = self._clock.time()
        silent = (await self._set_up()).settings.is_service
        match plan(token, self._rejected, at, self._jitter, silent=silent):
            case Use(until):
                self._may_ask = None
                self._held = evolve(held, use_until=math.inf if until is None else until)
                return self._held
            case UseAndRefresh():
                if at >= self._renew_not_before:
                    self._renew_not_before = at + RETRY_AFTER
                    await self._renewal()
                return held
            case Refresh():
                try:
                    return await self._renewed()
                except ReauthRequired:
                    if not self._may_ask:
                        raise
                    return await self._ask_person()
            case Authorize():
                return await self._ask_person()

    async def _open(self) -> _Held:
        """What is stored, once it is known that anything is needed at all."""
        vault = (await self._set_up()).vault
        try:
            target = await self._discovered(PATIENCE)
        except FlowError:
            # Whoever is logged in may go on: a stored login knows where it came from.
            if (record := await vault.load()) is not None:
                return self._hold(record)
            raise
        if target.server is None:
            self._held = _ANONYMOUS
            return _ANONYMOUS
        record = await vault.load()
        return _NOTHING if record is None else self._hold(record)

    async def _ask_person(self) -> _Held:
        """A login, if a person is there and may be asked; else an error that says what to do."""
        may_ask = self._may_ask
        if may_ask is not None and await anyio.to_thread.run_sync(may_ask):
            return await self._login_once()
        held = self._held
        if self._over or (held is not None and held.record is not None):
            raise (await self._set_up()).reauth_required()
        raise InteractionRequired(
            f"not logged in to {self._server}; run: flyteauth login, or set FLYTE_API_KEY "
            "where nobody can log in",
            reason="not_logged_in",
        )

    async def _login_once(self, *, must_keep: bool = False) -> _Held:
        """One login at a time for one identity in this process; who waited shares it."""
        slot = (await self._set_up()).vault.slot
        return self._adopt(await _FLIGHTS.share(("login", slot), partial(self._login, must_keep)))

    async def _login(self, must_keep: bool) -> Record | None:
        from ._grants import Grants

        setup = await self._set_up()
        settings = setup.settings
        target = await self._discovered()
        if target.server is None:
            return None
        if setup.settings.is_service:
            record = (await self._renewed()).record
            assert record is not None
            return await self._logged_in(setup, record, must_keep=must_keep)
        client = target.client(settings, await setup.secret())
        scopes = target.scopes(settings)
        await setup.vault.probe(must_keep=must_keep)
        grants = Grants(setup, partial(self._keep, setup.vault.epoch), self._track)
        if settings.auth_type == "DeviceFlow":
            record = await grants.on_device(client, scopes)
        else:
            record = await grants.in_browser(client, scopes, target.redirect_uri(settings))
        return await self._logged_in(setup, record, must_keep=must_keep)

    async def _logged_in(self, setup: Setup, record: Record, *, must_keep: bool) -> Record:
        if must_keep and setup.vault.failure is not None:
            raise setup.vault.failure
        expires_at, place = record.token.expires_at, setup.vault.place
        await self._notify(LoggedIn(setup.server, record.subject, expires_at, place))
        return record

    async def _renewal(self) -> Work[Record]:
        """The one renewal in progress for this identity in this process."""
        slot = (await self._set_up()).vault.slot
        work = _FLIGHTS.join(("renew", slot), self._renew)
        self._track(work)
        return work

    async def _renewed(self) -> _Held:
        while True:
            work = await self._renewal()
            with suppress(Abandoned):  # its event loop or its session ended; ours has not
                return self._adopt(await work.wait())
            if self._closed:
                raise Unreachable("the session was closed; open a new one", reason="closed")

    async def _renew(self) -> Record:
        try:
            return await self._renew_in_time()
        except Exception:
            if self._closed:  # by whoever began this; others who wait for it go on without us
                raise Abandoned("the session was closed") from None
            raise

    async def _renew_in_time(self) -> Record:
        setup = await self._set_up()
        with anyio.move_on_after(RENEW_DEADLINE):
            if not setup.settings.is_service:
                return await self._refresh(setup)
            before = self._held
            record = await self._grant_to_service(setup)
            if before is not None:
                await self._notify(Refreshed(self._server, record.token.expires_at))
            return record
        raise Unreachable(
            f"{self._server} did not answer within {RENEW_DEADLINE:.0f} s; try again",
            reason="timeout",
        )

    async def _grant_to_service(self, setup: Setup) -> Record:
        """A token by the client's own secret, which is read anew each time; if the server does
        not know it any more, and it has changed meanwhile, once again.
        """
        from ._grants import Grants

        target = await self._discovered()
        if target.server is None:
            raise MissingMetadata(
                f"{self._server} has no authorization server any more; start again"
            )
        scopes = target.scopes(setup.settings)
        client = target.client(setup.settings, await setup.secret())
        grants = Grants(setup, partial(self._keep, setup.vault.epoch), self._track)
        try:
            return await grants.to_service(client, scopes)
        except OAuth2Error as error:
            secret = await setup.secret()
            if error.error != "invalid_client" or secret == client.client_secret:
                raise
            return await grants.to_service(evolve(client, client_secret=secret), scopes)

    async def _refresh(self, setup: Setup) -> Record:
        from ._upkeep import refresh_login

        ours = None if self._held is None else self._held.record
        try:
            record = await refresh_login(setup, ours, self._rejected)
        except ReauthRequired:
            self._end_if(setup.vault)
            raise
        self._hold(record)
        return record

    async def _keep(self, epoch: int, client: Client, token: Token) -> Record:
        """Store what a grant brought, before anybody uses it; *epoch* is when it was begun."""
        from ._upkeep import revoke_all

        setup, target = await self._set_up(), self._target
        record = Record(
            token=token,
            token_endpoint=client.server.endpoint("token_endpoint"),
            client_id=client.client_id,
            header="authorization" if target is None else target.public.header,
            issuer=client.server.issuer,
            revocation_endpoint=client.server.revocation_endpoint,
            authentication=client.authentication_method(),
        )
        opened = await setup.vault.replace(record, epoch)
        if opened is None:
            await revoke_all(setup, record)  # nobody is going to use it
            raise setup.superseded()
        if not setup.settings.is_service and (who := await self._subject(record)) is not None:
            record = evolve(record, subject=who)
            await setup.vault.renew(record, opened)
        if setup.vault.epoch == opened:
            self._hold(record)
        return record

    async def _subject(self, record: Record) -> str | None:
        """Whom the login is of, to be shown; not worth waiting for, nor failing for."""
        from ._calls import USER_INFO, send
        from ._sansio.id_token import subject

        with suppress(Error), anyio.move_on_after(WHOAMI_DEADLINE):
            if record.token.id_token is not None:
                return subject(record.token.id_token)
            headers = self._headed(record).headers
            identity = (await send(await self._set_up(), headers, USER_INFO, {})).identity()
            if identity is not None:
                shown = (identity.preferred_username, identity.email, identity.subject)
                return next(filter(None, shown))
        return None

    # What all that is made of.

    async def _set_up(self) -> Setup:
        if self._ready is None:
            settings = await in_time(prepare, self._source)
            if self._ready is None:
                from ._setup import assemble

                self._ready = assemble(
                    settings, self._clock, self._notify, self._given_transport, self._given_store
                )
                if settings.endpoint is not None and settings.endpoint.warning:
                    await self._notify(Warned(settings.endpoint.warning))
                if not self._ready.verified:  # META-05
                    await self._notify(Warned(_UNVERIFIED))
        return self._ready

    async def _discovered(self, deadline: float = DISCOVERY_DEADLINE) -> Target:
        if self._target is None:
            with anyio.move_on_after(deadline):
                self._target = await _FLIGHTS.share(("discover", id(self)), self._discover)
        if self._target is None:
            raise Unreachable(
                f"{self._server} did not say within {deadline:.0f} s how to log in; check the "
                "endpoint, and try again",
                reason="timeout",
            )
        return self._target

    async def _discover(self) -> Target:
        from ._target import discover

        setup = await self._set_up()
        return await discover(setup.driver, setup.settings)

    def _headed(self, record: Record) -> _Held:
        headers = MappingProxyType({record.header: f"Bearer {record.token.access_token}"})
        return _Held(record, headers, -math.inf)

    def _hold(self, record: Record) -> _Held:
        """Hand out *record* from now on."""
        self._jitter = fraction(random_bits(), 0)
        self._renew_not_before = 0.0
        self._over = False
        held = self._held = self._headed(record)
        return held

    def _adopt(self, record: Record | None) -> _Held:
        """Hand out what a renewal or a login came to, be it another session's."""
        if record is None:
            self._held = _ANONYMOUS
            return _ANONYMOUS
        self._may_ask = None
        held = self._held
        return held if held is not None and held.record == record else self._hold(record)

    def _end_if(self, vault: Vault) -> None:
        """Hand out nothing more, if it comes from the slot of *vault*."""
        if self._ready is not None and self._ready.vault.slot == vault.slot:
            held, self._held = self._held, None
            self._over = self._over or (held is not None and held.record is not None)

    def _track(self, work: Work[Any], worth: float = CLOSE_DEADLINE) -> None:
        running = {other: its for other, its in self._works.items() if not other.done}
        self._works = {**running, work: worth}

    async def _notify(self, event: AuthEvent) -> None:
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:  # noqa: BLE001  # it is not ours, and must not cost a login
                _log.exception("on_event failed; the login goes on")
        await self._presenter.show(event)

    @property
    def _server(self) -> str:
        """The server's name, for people."""
        return "the control plane" if self._ready is None else self._ready.server


def in_portal(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """What *function* of *args* returns, awaited on the portal: for code without an event loop."""
    from ._io.portal import call

    return call(function, *args)


def _older(one: Record, other: Record) -> bool:
    """Whether *one* was overtaken by *other*: a store that cannot be written to falls behind."""
    return one.token.obtained_at < other.token.obtained_at
