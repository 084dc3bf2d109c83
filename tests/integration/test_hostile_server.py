"""
A server that misbehaves, through the whole session: whatever it does in whatever place, a typed
error comes out, in time, and what is stored stays as it is.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import frozen

from flyteauth._io.clock import SystemClock
from flyteauth._io.store.file import FileStore
from flyteauth._io.transport import HttpxTransport
from flyteauth._sansio.flow import RequestFailed, ResponseReceived
from flyteauth._sansio.http import Request, is_secure
from flyteauth.devserver.visitor import visit
from flyteauth.errors import Error
from flyteauth.events import AuthEvent, BrowserNeeded, CodeNeeded, LoggedIn
from flyteauth.session import Session
from tests.fuzz.properties import proper

from .hostile import (
    BEHAVIOURS,
    HEAVY,
    METADATA,
    PUBLIC_CLIENT,
    SLOW,
    USER_INFO,
    Hostile,
    hostile,
    place_of,
)
from .plane import HastyClock

pytestmark = pytest.mark.anyio

LIMIT = 20.0
PATIENCE = 10.0  # of a request
IMPATIENCE = 0.1  # of one that nobody will answer
MEMORY_MAX = 9 * 1024 * 1024
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
Act = Callable[[Session], Awaitable[object]]


class Impatient(HttpxTransport):
    """The real transport, which does not wait long in *bad* places."""

    def __init__(self, bad: Hostile, clock: SystemClock, *, slow: bool) -> None:
        super().__init__(clock=clock, deadline=PATIENCE)
        self._context, self._user_agent = NO_TLS, "flyteauth"  # reading a trust store takes longer
        self._bad = bad
        self._slow = slow

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        hopeless = self._slow and place_of(request) in self._bad.where
        self._deadline = IMPATIENCE if hopeless else PATIENCE
        return await super().send(request)


class Guest:
    """Goes where it is sent, and enters each code that it is shown."""

    def __init__(self, bad: Hostile) -> None:
        self._bad = bad
        self.seen: list[AuthEvent] = []
        self.threads: list[threading.Thread] = []

    async def show(self, event: AuthEvent) -> None:
        self.seen.append(event)
        if isinstance(event, BrowserNeeded):
            thread = threading.Thread(target=_visit, args=(event.url,), daemon=True)
            self.threads.append(thread)
            thread.start()
        if isinstance(event, CodeNeeded):
            with suppress(LookupError):
                self._bad.plane.approve(event.user_code)


def _visit(url: str) -> None:
    with suppress(OSError, ValueError):  # where nobody listens any more
        visit(url)


async def log_in(session: Session) -> object:
    return await session.login()


async def refresh(session: Session) -> object:
    return await session.renew()


async def ask_who(session: Session) -> object:
    return await session.whoami()


async def log_out(session: Session) -> object:
    outcome = await session.logout()
    assert outcome.local_deleted
    return outcome


@frozen
class Place:
    """Where a server misbehaves, and what somebody does who comes there. ``before``: once they are
    logged in. ``passes``: with what behaviours it may still end well.
    """

    where: frozenset[str]
    act: Act
    auth_type: str = "DeviceFlow"
    before: bool = False
    passes: frozenset[str] = frozenset()


ANYTHING = frozenset(BEHAVIOURS)
# JSON objects that name no server: nobody need log in.
OBJECTS = frozenset(
    {
        "a byte order mark",
        "60,000 members, one of them twice",
        "10,000 headers",
        "infinity",
        "an error with 200",
    }
)

PLACES = {
    "server metadata": Place(METADATA, log_in, passes=OBJECTS - {"an error with 200"}),
    "public client": Place(PUBLIC_CLIENT, log_in, passes=ANYTHING),
    "issuer": Place(
        frozenset({"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"}),
        log_in,
        "issuer",
    ),
    "device authorization": Place(frozenset({"/oauth2/device_authorization"}), log_in),
    "token, by device code": Place(frozenset({"device_code"}), log_in),
    "token, by code": Place(frozenset({"authorization_code"}), log_in, "Pkce"),
    "token, by secret": Place(frozenset({"client_credentials"}), log_in, "ClientSecret"),
    "token, by refresh": Place(frozenset({"refresh_token"}), refresh, before=True),
    "revocation": Place(frozenset({"/oauth2/revoke"}), log_out, before=True, passes=ANYTHING),
    "call": Place(USER_INFO, ask_who, before=True, passes=ANYTHING),
}


class Visit:
    """One session with a server that misbehaves, and what came of it."""

    def __init__(self, bad: Hostile, clock: SystemClock, home: Path, place: Place) -> None:
        self.bad = bad
        self.guest = Guest(bad)
        self.place = place
        self._clock = clock
        self._home = home
        self._secrets = [bad.plane.service_client[1]]

    async def run(self, behaviour: str) -> Error | None:
        """The error that the session ends with. Nothing is left, and what was stored is as it
        was.
        """
        transport = Impatient(self.bad, self._clock, slow=behaviour in SLOW)
        outcome: Error | None = None
        before: dict[str, bytes] = {}
        with anyio.fail_after(LIMIT):
            async with self._session(transport) as session:
                if self.place.before:
                    token = await session.login()
                    assert token is not None
                    self._secrets += [token.access_token, token.refresh_token or ""]
                    before = self._stored()
                self.bad.where, self.bad.does = self.place.where, BEHAVIOURS[behaviour]
                try:
                    await self.place.act(session)
                except Error as error:
                    outcome = error
        assert sum(self.bad.asked[name] for name in self.place.where) > 0
        assert self.bad.server.all_closed()
        for thread in self.guest.threads:
            thread.join(LIMIT)
            assert not thread.is_alive()
        for event in self.guest.seen:
            if isinstance(event, BrowserNeeded | CodeNeeded):
                assert is_secure(event.url)
        if outcome is not None:
            proper(outcome)
            if not self.bad.asked["refresh_token"] or "refresh_token" in self.place.where:
                assert self._stored() == before
            said = f"{outcome} {outcome!r}"
            assert not any(secret in said for secret in self._secrets if secret)
        return outcome

    def _session(self, transport: HttpxTransport) -> Session:
        common: dict[str, Any] = {
            "transport": transport,
            "clock": self._clock,
            "store": FileStore(self._home / "logins"),
            "presenter": self.guest,
            "login_timeout": LIMIT,
            "redirect_uri": "http://127.0.0.1/callback",
            "interactive": lambda: True,
        }
        match self.place.auth_type:
            case "ClientSecret":
                return Session(api_key=self.bad.plane.api_key, **common)
            case "issuer":
                return Session(
                    issuer=self.bad.url, client_id="flytectl", auth_type="DeviceFlow", **common
                )
            case auth_type:
                return Session(endpoint=self.bad.url, auth_type=auth_type, **common)

    def _stored(self) -> dict[str, bytes]:
        directory = self._home / "logins"
        files = directory.iterdir() if directory.exists() else ()
        return {path.name: path.read_bytes() for path in files if len(path.name) == 64}


@pytest.fixture(autouse=True)
def _no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that is started as the browser does nothing."""
    monkeypatch.setenv("BROWSER", "true")


def _every_other() -> list[tuple[str, str, str]]:
    """Each place with each behaviour; each of both on either backend."""
    return [
        (place, behaviour, ("asyncio", "trio")[(row + column) % 2])
        for row, place in enumerate(PLACES)
        for column, behaviour in enumerate(BEHAVIOURS)
    ]


@pytest.mark.req("ERR-01", "ERR-07", "META-08", "REF-08", "REF-10", "REF-14", "TOK-02", "BRR-05")
@pytest.mark.parametrize(("place", "behaviour", "anyio_backend"), _every_other())
async def test_whatever_a_server_does_a_typed_error_comes_out(
    place: str, behaviour: str, home: Path, anyio_backend: str
) -> None:
    clock = HastyClock()
    with hostile(clock) as bad:
        visit_ = Visit(bad, clock, home, PLACES[place])
        outcome = await visit_.run(behaviour)
    assert outcome is not None or behaviour in PLACES[place].passes
    if outcome is not None and not PLACES[place].before:
        assert not any(isinstance(event, LoggedIn) for event in visit_.guest.seen)
    if anyio_backend == "asyncio":
        assert len(asyncio.all_tasks()) <= 2  # the test, and who runs it


@pytest.mark.req("META-06", "TOK-02")
@pytest.mark.parametrize("behaviour", HEAVY)
async def test_much_takes_little_memory(behaviour: str, home: Path) -> None:
    clock = HastyClock()
    place = PLACES["token, by secret"]
    with hostile(clock) as bad:
        tracemalloc.start()
        try:
            await Visit(bad, clock, home, place).run(behaviour)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < MEMORY_MAX
