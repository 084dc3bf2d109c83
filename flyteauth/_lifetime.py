"""
The token in hand, over its lifetime: how it is come by, shared, renewed and given up.

A fresh token is handed out without any I/O, an ageing one is handed out while the next is fetched
in the background, and only an expired or a rejected one makes callers wait, all of them for the
same renewal: in this process by one flight, among processes and hosts by the turn that the store
gives, after which the store is read again.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import anyio
from attrs import field, frozen

from ._audience import Audience
from ._io.clock import Clock
from ._io.entropy import random_bits
from ._io.flights import Flights, Round
from ._io.forks import in_forked_children
from ._io.frames import clearing
from ._io.tasks import Abandoned, Work
from ._sansio.flow import fraction
from ._sansio.record import Record, is_same
from ._sansio.renewal import Authorize, Refresh, Use, UseAndRefresh, may_force, plan, will_do
from ._source import Source, in_time, prepare
from .errors import ReauthRequired, Unreachable
from .events import Refreshed, Warned

if TYPE_CHECKING:
    from ._io.store import Store
    from ._io.transport import Transport
    from ._sansio.client import Client
    from ._sansio.tokens import Token
    from ._setup import Setup
    from ._target import Target
    from .config import Settings

# Everything else is imported where it is needed, and for the first time by prepare, in a worker
# thread: a session that only mentions itself costs little, and no event loop waits for an import.

RENEW_DEADLINE: Final = 150.0  # seconds for a refresh with all its retries
TURN_DEADLINE: Final = RENEW_DEADLINE + 10.0  # seconds to wait for that of another process
DISCOVERY_DEADLINE: Final = 60.0  # seconds for a service, with all retries
ATTENTION: Final = 20.0  # the same where a person waits, or has to be told to log in
CLOSE_DEADLINE: Final = 30.0  # seconds to wait, when a session ends, for a reply in flight
RETRY_AFTER: Final = 5.0  # seconds before an ageing token is tried to be refreshed once more
GLANCE: Final = 1.0  # seconds of the monotonic clock after which the other clock is looked at

_UNVERIFIED: Final = (
    "insecureSkipVerify: certificates are not checked, so whoever is in between can take the "
    "login; set caCertFilePath (--ca-cert, ca_cert_file_path=) instead"
)

# In this process: one renewal at a time for one identity in one store, and one login.
FLIGHTS: Final = Flights()
_LIVE: Final = weakref.WeakSet["Lifetime"]()


@frozen
class Held:
    """A record, and the headers that say it to the control plane."""

    record: Record | None
    headers: Mapping[str, str] = field(repr=False)

    @property
    def token(self) -> Token | None:
        return None if self.record is None else self.record.token


NOTHING: Final = Held(None, MappingProxyType({}))
ANONYMOUS: Final = Held(None, MappingProxyType({}))


class Offer:
    """Headers that may be handed out without a thought until the monotonic clock says ``until``."""

    __slots__ = ("headers", "until")

    def __init__(self) -> None:
        self.headers: Mapping[str, str] = NOTHING.headers
        self.until = -math.inf


class Lifetime:
    """What a session has in hand. ``may_ask`` says whether a person may be asked to log in: only
    until the first token is in hand, because later nobody expects a browser to open.
    """

    def __init__(
        self,
        source: Source,
        audience: Audience,
        clock: Clock,
        *,
        may_ask: Callable[[], bool] | None = None,
        transport: Transport | None = None,
        store: Store | None = None,
        directory: Path | None = None,
        flights: Flights = FLIGHTS,
    ) -> None:
        self.source = source
        self.audience = audience
        self.may_ask = may_ask
        self.flights = flights
        self.offer = Offer()
        self.ask: Callable[[Settings], Awaitable[Target]] | None = None
        """Another way to ask the control plane how to log in than over HTTP."""
        self.held: Held | None = None
        self.rejected: str | None = None
        self.over = False
        self.closed = False
        self.begun = clock.time()
        """When somebody wanted this: a prompt that was ignored before is no answer to it."""
        self._clock = clock
        self._given = transport, store, directory
        self._ready: Setup | None = None
        self._target: Target | None = None
        self._target_is_fresh = False
        self._asked_again_at: float | None = None
        self._version = 0  # of what is held, and of whether it was rejected
        self._jitter = fraction(random_bits(), 0)
        self._renew_not_before = 0.0
        self._urgent: Work[Record] | None = None  # a renewal that everybody has to wait for
        self._works: dict[Work[Any], float] = {}  # and how many seconds each is worth waiting for
        _LIVE.add(self)

    async def aclose(self) -> None:
        """Wait for a reply in flight that must not be lost, and close all connections."""
        with anyio.CancelScope(shield=True):
            begun = anyio.current_time()
            self.closed = True  # whoever is told that a command was ended must not run it again
            # A copy made in one go: work may end in any thread.
            for work, worth in sorted(self._works.copy().items(), key=lambda item: item[1]):
                deadline = begun + min(worth, CLOSE_DEADLINE)
                work.cancel()  # where it is optional
                # Its waiters are told what comes of it, not we.
                with anyio.CancelScope(deadline=deadline), suppress(Exception):
                    await work.wait()
            if self._ready is not None:
                await self._ready.transport.aclose()
                await self._ready.vault.aclose()

    # What is handed out.

    @clearing
    async def authorised(self) -> Mapping[str, str]:
        """The headers for a call, and an offer of them until somebody should think again."""
        urgent = self._urgent
        if urgent is not None and not urgent.done:
            # The token is spent, and this is all that there is to wait for.
            with suppress(Abandoned):
                await urgent.wait()
            if self._clock.monotonic() < self.offer.until:
                return self.offer.headers
        held, until = await self.current()
        version, headers = self._version, held.headers
        proxy = (await self.set_up()).proxy
        if proxy is not None:
            value = await proxy.header()
            headers = MappingProxyType({**headers, "proxy-authorization": value})
            cached = proxy.cached(self._clock.time())
            until = min(until, -math.inf if cached is None else cached[1])
        left = min(GLANCE, until - self._clock.time())
        if left > 0 and version == self._version:
            self.offer.headers = headers
            self.offer.until = self._clock.monotonic() + left
        return headers

    async def current(self) -> tuple[Held, float]:
        """What is good to use now, after whatever it takes to have it, and until when it need not
        be thought about again (POSIX seconds).
        """
        setup = await self.set_up()
        if setup.settings.auth_type == "Passthrough":
            from ._passthrough import current_metadata

            return Held(None, current_metadata()), -math.inf
        held = await self.opened()
        if held is ANONYMOUS:
            return held, math.inf
        token = held.token
        at, silent = self._clock.time(), setup.settings.is_service
        match plan(token, self.rejected, at, self._jitter, silent=silent):
            case Use(until):
                self.may_ask = None
                return held, math.inf if until is None else until
            case UseAndRefresh():
                self.may_ask = None
                if at >= self._renew_not_before and not self.closed:
                    self._renew_not_before = at + RETRY_AFTER
                    await self._renewal(held)
                assert token is not None
                return held, token.expires_at or at
            case Refresh():
                return self._while_good(await self._renewed_or_asked(held))
            case Authorize():
                pass
        if setup.settings.shared_logins and not self.over:
            from ._moving import taken_from_sharers

            if (record := await taken_from_sharers(self)) is not None:
                return self._while_good(await self.adopt(record))
        from ._login import ask_person

        return self._while_good(await ask_person(self))

    def _while_good(self, held: Held) -> tuple[Held, float]:
        """What was just come by, and until when it need not be thought about again."""
        if held is ANONYMOUS:
            return held, math.inf
        match plan(held.token, self.rejected, self._clock.time(), self._jitter):
            case Use(until):
                return held, math.inf if until is None else until
            case _:
                return held, -math.inf

    def reject(self, access_token: str) -> None:
        """A server refused *access_token*, or, where it is empty, that there was none."""
        held, at = self.held, self._clock.time()
        if held is ANONYMOUS and not access_token:
            if may_force(self._asked_again_at, at, self._jitter):
                self._asked_again_at = at
                self._forget_target()
                self._withdraw(None)
            return
        record = None if held is None else held.record
        if record is None or record.token.access_token != access_token:
            return
        if may_force(record.forced_at, at, self._jitter):
            self.rejected = access_token
            self._withdraw(held)

    def reject_proxy(self) -> None:
        """A proxy refused the second credential."""
        if self._ready is not None and (proxy := self._ready.proxy) is not None:
            if (cached := proxy.cached(self._clock.time())) is not None:
                proxy.reject(cached[0])
            self._withdraw(self.held)

    def hold(self, record: Record, *, insists: bool = False) -> Held:
        """Hand out *record* from now on; see ``adopt``."""
        self._jitter = fraction(random_bits(), 0)
        self._renew_not_before = 0.0
        self._urgent = None  # also for a hook, which must not wait for what waits for it
        self.over = False
        if insists and self.held is not None and self.rejected == record.token.access_token:
            self.rejected = None  # whether to ask again, the breaker says
        held = self.headed(record)
        self._withdraw(held)
        return held

    async def adopt(self, record: Record | None, *, insists: bool = False) -> Held:
        """Hand out what a renewal or a login came to, be it another session's. *insists*: where its
        token is the one that was rejected, its source was told of that. Otherwise the rejection is
        the younger news.
        """
        if record is None:
            self._be_anonymous()
            return ANONYMOUS
        self.may_ask = None
        held = self.held
        stays = not insists or self.rejected != record.token.access_token
        if held is not None and held.record == record and stays:
            return held
        is_new = held is None or not is_same(held.record, record)
        held = self.hold(record, insists=insists)
        if is_new:  # a command may insist on what it has printed
            await self.audience.token_changed(record.token)
        return held

    def headed(self, record: Record) -> Held:
        headers = {record.header: f"Bearer {record.token.access_token}"}
        return Held(record, MappingProxyType(headers))

    async def end(self) -> None:
        """Hand out nothing more: the login is over."""
        held = self.held
        self._withdraw(None)
        if held is not None and held.record is not None:
            self.over = True
            await self.audience.token_changed(None)

    async def end_everywhere(self) -> None:
        """The same in every session of this process that has this login."""
        slot = self.slot
        for other in list(_LIVE):
            if other.slot == slot:
                await other.end()

    @property
    def slot(self) -> Hashable:
        """What two sessions have in common if they have the same login; None before it is known."""
        return None if self._ready is None else self._ready.vault.slot

    def _withdraw(self, held: Held | None) -> None:
        self.held = held
        self._version += 1
        self.offer.until = -math.inf

    def _be_anonymous(self) -> Held:
        self._withdraw(ANONYMOUS)
        return ANONYMOUS

    # What there is to begin with.

    async def opened(self) -> Held:
        """What is in hand, or else what is stored, good or not."""
        held = self.held
        if held is None:
            held = await self.flights.share(("open", id(self)), self._open)
        return held

    async def _open(self, shared: Round) -> Held:
        """What is stored, once it is known that anything is needed at all."""
        setup = await self.set_up()
        if setup.settings.auth_type == "NoAuth":
            return self._be_anonymous()
        if setup.settings.auth_type == "ExternalCommand":
            record = await setup.vault.load(first=True)
        else:
            from ._opening import target_and_stored

            target, record = await target_and_stored(self, setup, shared)
            if target is not None and target.server is None:
                return self._be_anonymous()
        return NOTHING if record is None else self.hold(record)

    async def set_up(self) -> Setup:
        if self._ready is None:
            settings = await in_time(prepare, self.source)
            if self._ready is None:
                from ._setup import assemble

                transport, store, directory = self._given
                if directory is None and transport is None:
                    from ._io.folder import home

                    directory = home()
                self._ready = assemble(
                    settings,
                    self._clock,
                    self.audience.notify,
                    transport=transport,
                    store=store,
                    directory=directory,
                )
                endpoint, has_secrets = settings.endpoint, settings.auth_type != "NoAuth"
                if has_secrets and endpoint is not None and endpoint.warning:
                    await self.audience.notify(Warned(endpoint.warning))
                if settings.key_warning:
                    await self.audience.notify(Warned(settings.key_warning))
                if has_secrets and not self._ready.verified:  # META-05
                    await self.audience.notify(Warned(_UNVERIFIED))
        return self._ready

    async def discovered(
        self, deadline: float | None = None, *, fresh: bool = False, shared: Round | None = None
    ) -> Target:
        """Where the authorization server is. What a program of this machine found out lately will
        do, unless it has to be *fresh*. The time for it is that of the *shared* work it belongs to.
        """
        if deadline is None:
            is_service = (await self.set_up()).settings.is_service
            deadline = DISCOVERY_DEADLINE if is_service else ATTENTION
        if fresh and not self._target_is_fresh:
            self._forget_target()
        if self._target is None:
            with anyio.move_on_after(deadline - self.elapsed(shared)):
                self._target = await self.flights.share(
                    ("discover", id(self), fresh), lambda _: self._discover(fresh)
                )
        if self._target is None:
            raise Unreachable(
                f"{self.server} did not say within {deadline:g} s how to log in; check the "
                "endpoint, and try again",
                reason="timeout",
            )
        if shared is not None:
            shared.begun = None  # what else is shared has its own time
        return self._target

    def elapsed(self, shared: Round | None) -> float:
        """How many seconds of the time for what is *shared* have passed, whoever was at it."""
        return 0.0 if shared is None else shared.elapsed(self._clock.monotonic())

    async def _discover(self, fresh: bool) -> Target:
        from ._target import discover, target_key

        setup = await self.set_up()
        key = target_key(setup.settings)
        known = None if fresh or self._target_is_fresh else await setup.machine.target(key)
        if known is not None:
            return known
        settings = setup.settings
        if self.ask is not None and settings.issuer is None and not settings.verify_issuer:
            self._target_is_fresh = True
            return await self.ask(settings)  # it is told less than others should know
        target = await discover(setup.driver, setup.settings)
        self._target_is_fresh = True
        await setup.machine.keep_target(key, target)
        return target

    def _forget_target(self) -> None:
        self._target = None
        self._target_is_fresh = True  # what others found out is not good enough any more

    # Renewal.

    async def renew(self) -> Held:
        """What a renewal comes to that begins now, or is in progress, however good the token in
        hand is; where nothing can be renewed, what ``current`` says.
        """
        setup = await self.set_up()
        if setup.settings.auth_type != "Passthrough":
            held = await self.opened()
            token = held.token
            silent = held is not ANONYMOUS and setup.settings.is_service
            if silent or (token is not None and token.refresh_token is not None):
                return await self._renewed_or_asked(held)
            if token is not None:
                raise setup.reauth_required()
        return (await self.current())[0]

    async def _renewed_or_asked(self, spent: Held) -> Held:
        try:
            return await self.renewed(spent)
        except ReauthRequired:
            if not self.may_ask:
                raise
        from ._login import ask_person

        return await ask_person(self)

    async def renewed(self, spent: Held) -> Held:
        """What a renewal comes to: the one in progress, or else one that begins now, because
        *spent* is no good; what has taken its place in the store by then may do.
        """
        again = True
        while not self.closed:
            before, work = self.held, await self._renewal(spent)
            if self.may_ask is None:  # otherwise its failure may lead to a question
                self._urgent = work
                if work.done:  # by now, in another thread
                    self._let_go(work)
            try:
                with suppress(Abandoned):  # its event loop or its session ended; ours has not
                    record = await work.wait()
                    if again and not will_do(record.token, self.rejected, self._clock.time()):
                        again = False
                        continue
                    return await self.adopt(record, insists=not again)
            except ReauthRequired:
                if self.held is before:  # the work was begun by another session
                    await self.end()
                raise
        raise Unreachable("the session was closed; open a new one", reason="closed")

    async def _renewal(self, spent: Held) -> Work[Record]:
        setup = await self.set_up()
        # A command can be run again; a refresh token that was sent cannot be taken back.
        optional = setup.settings.auth_type == "ExternalCommand"
        renew = partial(self._renew, spent.record, setup.vault.epoch)
        work = self.flights.join(("renew", setup.vault.slot), renew, optional=optional)
        self.track(work)
        return work

    async def _renew(self, ours: Record | None, epoch: int) -> Record:
        known = self.rejected
        try:
            record = await self._renew_in_turn(await self._reread(), ours, epoch)
            await self.adopt(record, insists=known == record.token.access_token)
            return record
        except ReauthRequired:
            await self.end()
            raise
        except Exception:
            if self.closed:  # by whoever began this; others who wait for it go on without us
                raise Abandoned("the session was closed") from None
            raise

    async def _renew_in_turn(self, setup: Setup, ours: Record | None, epoch: int) -> Record:
        """The record of another process if it was quicker, before our turn or in it; else ours."""
        from ._upkeep import successor

        vault, machine, begun = setup.vault, setup.machine, self._clock.time()

        async def now() -> Record:
            if vault.shared and (error := await machine.failure_since(vault.key, begun)):
                raise error
            try:
                return await self._renew_now(setup, ours if epoch == vault.epoch else None)
            except Unreachable as error:
                if vault.shared:
                    await machine.tell_failure(vault.key, error)
                raise

        if vault.shared and (there := await successor(setup, ours, self.rejected)) is not None:
            return there
        return await vault.in_turn(now, deadline=TURN_DEADLINE)

    async def _renew_now(self, setup: Setup, ours: Record | None) -> Record:
        with anyio.move_on_after(RENEW_DEADLINE):
            return await self._renew_for(setup, ours)
        from ._upkeep import passing

        late = f"{self.server} did not answer within {RENEW_DEADLINE:.0f} s; try again"
        raise passing(setup, Unreachable(late, reason="timeout"))

    async def _renew_for(self, setup: Setup, ours: Record | None) -> Record:
        from ._service import token_for_service
        from ._upkeep import refresh_login, successor

        if not setup.settings.is_service:
            return await refresh_login(setup, ours, self.rejected)
        if (there := await successor(setup, ours, self.rejected)) is not None:
            return there
        record = await token_for_service(self, setup)
        if ours is not None:
            await self.audience.notify(Refreshed(self.server, record.token.expires_at))
        return record

    async def _reread(self) -> Setup:
        """The setup; for a service, by what the configuration says now."""
        from ._service import reread

        setup = self._ready = await reread(await self.set_up(), self.source)
        return setup

    async def keep_token(self, epoch: int, client: Client, token: Token) -> Record:
        """Store what a grant brought, before anybody uses it; *epoch* is when it was begun."""
        return await self.keep(epoch, self.record_of(client, token))

    def record_of(self, client: Client, token: Token) -> Record:
        """*token*, issued to *client*."""
        target = self._target
        return Record(
            token=token,
            token_endpoint=client.server.endpoint("token_endpoint"),
            client_id=client.client_id,
            header="authorization" if target is None else target.public.header,
            issuer=client.server.issuer,
            revocation_endpoint=client.server.revocation_endpoint,
            authentication=client.authentication_method(),
        )

    async def keep(self, epoch: int, record: Record) -> Record:
        """The same for what is no grant."""
        from ._login import subject_of
        from ._upkeep import revoke_all

        setup = await self.set_up()
        record = record.replace(login=f"{random_bits():016x}", forced_at=self._forced_at())
        if setup.settings.shared_logins:
            from ._sharing import lines_of

            record = record.replace(shared=lines_of(setup.settings))
        with anyio.CancelScope(shield=True):
            opened = await setup.vault.replace(record, epoch)
        if opened is None:
            await revoke_all(setup, record)  # nobody is going to use it
            raise setup.superseded()
        if not setup.settings.is_service and (who := await subject_of(self, record)) is not None:
            named = record.replace(subject=who)
            record = await setup.vault.renew(record, named, opened) or named
        if setup.vault.epoch == opened:
            await self.adopt(record)
        return record

    def _forced_at(self) -> float | None:
        """When a service last asked for a token only because one had been rejected."""
        held = self.held
        if held is None or held.record is None or not self._ready:
            return None
        if not self._ready.settings.is_service:
            return None
        if held.record.token.access_token == self.rejected:
            return self._clock.time()
        return held.record.forced_at

    # What all that is made of.

    def track(self, work: Work[Any], worth: float = CLOSE_DEADLINE) -> None:
        """Wait for *work* before everything is closed, for at most *worth* seconds."""
        self._works[work] = worth
        work.when_done(self._let_go)

    def _let_go(self, work: Work[Any]) -> None:
        """*work* is done: what came of it may be a secret, so nothing of it is kept."""
        self._works.pop(work, None)
        if self._urgent is work:
            self._urgent = None

    @property
    def server(self) -> str:
        """The server's name, for people."""
        return "the control plane" if self._ready is None else self._ready.server

    def _forked(self) -> None:
        """In a forked child: connections, locks and threads are the parent's."""
        self._works, self._urgent = {}, None
        if self._given[0] is None:
            self._ready = None


in_forked_children(_LIVE, Lifetime._forked)  # noqa: SLF001
