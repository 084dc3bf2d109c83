"""
The credential of an authenticating proxy in front of the control plane, such as Google's IAP.

It comes from a command of its own, is kept in memory only and travels in ``Proxy-Authorization``
with every request (RFC 9110 §11.7.2). It and the user's own token know nothing of each other: a
proxy that refuses it costs another run of its command, and no login (BRR-12).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit
from weakref import WeakSet

import anyio
from attrs import define, evolve, field

from .._sansio.errors import Unreachable
from .._sansio.flow import RequestFailed, ResponseReceived, fraction
from .._sansio.http import Request, Response
from .._sansio.renewal import Authorize, Refresh, Use, UseAndRefresh, plan
from .._sansio.tokens import Token
from .clock import Clock
from .command import DEADLINE, KILL_GRACE, TERM_GRACE, Command
from .entropy import random_bits
from .forks import in_forked_children
from .tasks import Abandoned, Work, start
from .transport import Transport

RETRY_AFTER: Final = 5.0  # seconds before a command that brought nothing new is run once more

_HEADER: Final = "proxy-authorization"


@define(eq=False)
class _Round:
    """One run of the command, and how many wait for it."""

    command: Command
    work: Work[Token] = field(repr=False)
    waiting: int = 0


class ProxyCredential:
    """What the command *argv* prints, for any number of tasks on any number of event loops.

    The command is run when the credential is needed, again in the background when it ages, and
    again when a proxy has refused it; at most once at a time. A run belongs to nobody in
    particular: it ends early only when nobody waits for it any more, or on ``aclose``.
    """

    def __init__(
        self,
        argv: tuple[str, ...],
        *,
        clock: Clock,
        deadline: float = DEADLINE,
        hidden: Collection[str] = (),
        any_alphabet: bool = False,
    ) -> None:
        self._argv = argv
        self._clock = clock
        self._deadline = deadline
        self._hidden = hidden
        self._any_alphabet = any_alphabet
        self._token: Token | None = None
        self._rejected: str | None = None
        self._jitter = 0.0
        self._renew_not_before = -math.inf  # in the background
        self._nothing_better_until = -math.inf  # than what was refused
        self._closed = False
        self._forget_rounds()
        _LIVE.add(self)

    def _forget_rounds(self) -> None:
        self._mutex = threading.Lock()  # held for a moment, never over a yield
        self._round: _Round | None = None

    def cached(self, at: float) -> tuple[str, float] | None:
        """What ``header`` would return at once, and until when nobody need think about it; None
        if there is something to do. From any thread.
        """
        token = self._token
        match plan(token, self._rejected, at, self._jitter, silent=True):
            case Use(until) if token is not None:
                return _value(token), math.inf if until is None else until
            case _:
                return None

    async def header(self) -> str:
        """The value of Proxy-Authorization; raises what the command's run does."""
        if self._closed:
            raise _closed()
        token, at = self._token, self._clock.time()
        match plan(token, self._rejected, at, self._jitter, silent=True):
            case Use() if token is not None:
                return _value(token)
            case UseAndRefresh() if token is not None:
                if at >= self._renew_not_before:
                    self._renew_not_before = at + RETRY_AFTER
                    self._join()  # and never leave: it is wanted, though nobody waits
                return _value(token)
            case Refresh() if (
                token is not None
                and at < self._nothing_better_until
                and not _has_expired(token, at)
            ):
                return _value(token)
            case Use() | UseAndRefresh() | Refresh() | Authorize():
                return _value(await self._renewed())

    def reject(self, value: str) -> None:
        """A proxy refused *value*: it, and no other, is not used any more."""
        token = self._token
        if token is not None and _value(token) == value:
            self._rejected = token.access_token

    async def aclose(self) -> None:
        """End a run that is in progress, and wait until nothing is left of it."""
        with self._mutex:
            self._closed = True
            running = self._round
        if running is not None:
            running.command.end()
            with anyio.move_on_after(TERM_GRACE + 2 * KILL_GRACE, shield=True), suppress(Exception):
                await running.work.wait()

    async def _renewed(self) -> Token:
        while True:
            running = self._join()
            try:
                with suppress(Abandoned):  # its event loop has ended, or all others have left
                    return await running.work.wait()
            finally:
                self._leave(running)
            if self._closed:
                raise _closed()

    def _join(self) -> _Round:
        """The run in progress, or else a new one on this event loop."""
        with self._mutex:
            if self._closed:
                raise _closed()
            running = self._round
            if running is None or running.work.done:
                command = Command(
                    self._argv,
                    clock=self._clock,
                    deadline=self._deadline,
                    hidden=self._hidden,
                    any_alphabet=self._any_alphabet,
                    setting="admin.proxyCommand",
                )
                running = self._round = _Round(command, start(self._renew, command))
            running.waiting += 1
            return running

    def _leave(self, running: _Round) -> None:
        with self._mutex:
            running.waiting -= 1
            if running.waiting == 0 and not running.work.done:
                running.command.end()

    async def _renew(self, command: Command) -> Token:
        token = await command.token()
        if token.access_token == self._rejected:
            self._nothing_better_until = self._clock.time() + RETRY_AFTER
        else:
            self._nothing_better_until = -math.inf
        if self._token is None or token.access_token != self._token.access_token:
            self._renew_not_before = -math.inf
            self._jitter = fraction(random_bits(), 0)
        self._token = token
        return token


class Proxied:
    """A Transport whose requests carry the credential of a proxy. Closing it closes both.

    The proxy stands before *hosts*, on whatever port. That it stands before another host as well,
    as before an authorization server, shows when it refuses a request that goes there without its
    credential; nobody else gets it. None: it stands before everybody.

    A failing command is raised as what it is, not as what the network does.
    """

    def __init__(
        self,
        transport: Transport,
        credential: ProxyCredential,
        *,
        hosts: Iterable[str] | None = None,
    ) -> None:
        self._transport = transport
        self._credential = credential
        self._hosts = None if hosts is None else set(hosts)

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        host = urlsplit(request.url).hostname or ""
        if self._hosts is not None and host not in self._hosts:
            received = await self._transport.send(request)
            if isinstance(received, RequestFailed) or not is_refusal(received.response):
                return received
            self._hosts.add(host)
        value = await self._credential.header()
        received = await self._transport.send(_carrying(request, value))
        if isinstance(received, RequestFailed) or not is_refusal(received.response):
            return received
        self._credential.reject(value)
        another = await self._credential.header()
        if another == value:
            return received
        # The proxy has kept the request to itself, so even a one-shot one may be sent again.
        return await self._transport.send(_carrying(request, another))

    async def aclose(self) -> None:
        try:
            await self._credential.aclose()
        finally:
            await self._transport.aclose()


def is_refusal(response: Response) -> bool:
    """Whether a proxy refused its credential (RFC 9110 §15.5.8), IAP in its own way."""
    by_iap = (response.header("x-goog-iap-generated-response") or "").strip().lower() == "true"
    return response.status == 407 or (response.status == 401 and by_iap)


def _carrying(request: Request, value: str) -> Request:
    others = tuple(pair for pair in request.headers if pair[0].lower() != _HEADER)
    return evolve(request, headers=(*others, (_HEADER, value)))


def _value(token: Token) -> str:
    return f"Bearer {token.access_token}"


def _has_expired(token: Token, at: float) -> bool:
    return token.expires_at is not None and at >= token.expires_at


def _closed() -> Unreachable:
    return Unreachable("the session was closed; open another", reason="closed")


_LIVE: Final = WeakSet[ProxyCredential]()
in_forked_children(_LIVE, ProxyCredential._forget_rounds)  # noqa: SLF001
