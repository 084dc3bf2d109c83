"""
Answers that are right but for one member, through the whole session: whatever is in it, the session
ends in a token or in a typed error, and nobody is sent to what is no web page.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import anyio
import pytest
from attrs import evolve

from flyteauth._io.store.memory import MemoryStore
from flyteauth._sansio.errors import escape
from flyteauth._sansio.flow import RequestFailed, ResponseReceived
from flyteauth._sansio.http import Request, is_secure
from flyteauth.errors import Error
from flyteauth.events import AuthEvent, BrowserNeeded, CodeNeeded
from flyteauth.session import Session
from tests.fuzz.properties import proper
from tests.sansio.strategies import FRAGMENTS

from .hostile import METADATA, PUBLIC_CLIENT, USER_INFO, place_of
from .plane import Person, Plane

pytestmark = pytest.mark.anyio

LIMIT = 20.0
TEXTS = (
    "\x1b]0;pwn\x07",
    "a\r\nx: y",
    "\u202e\u200b\u2028",
    "x" * 70_000,
    "javascript:alert(1)",
    "file:///etc/passwd",
    "data:text/html,x",
    "//evil.example/",
    "http://evil.example/",
    "https://localhost:8080@evil.example/",
    "https://evil.example\\@localhost:8080/",
    "https://localhost:99999/",
    "-1",
    "cookie",
    "[link=https://evil.example]x[/link] %s {x} <b>",
)
VALUES = (*FRAGMENTS, "[" * 500 + "]" * 500, '[["a"]]', *map(json.dumps, TEXTS))


class Mangled(Plane):
    """A plane in whose answers, at the places *where*, *member* is *value* (in JSON)."""

    where: frozenset[str] = frozenset()
    member = ""
    value = ""
    twice = False

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        event = await super().send(request)
        if place_of(request) not in self.where or isinstance(event, RequestFailed):
            return event
        pairs = [
            (name, json.dumps(value))
            for name, value in json.loads(event.response.body).items()
            if self.twice or name != self.member
        ]
        inside = ",".join(
            f"{json.dumps(name)}:{value}" for name, value in [*pairs, (self.member, self.value)]
        )
        return evolve(event, response=evolve(event.response, body=f"{{{inside}}}".encode()))


class Watcher(Person):
    """Goes on where there is a code, and ends it all where a browser would be opened."""

    browser: anyio.CancelScope | None = None

    async def show(self, event: AuthEvent) -> None:
        with suppress(LookupError):  # a code that the plane has not given out
            await super().show(event)
        if isinstance(event, BrowserNeeded) and self.browser is not None:
            self.browser.cancel()

    def saw_nothing_bad(self) -> None:
        for event in self.seen:
            if isinstance(event, BrowserNeeded | CodeNeeded):
                assert is_secure(event.url)
                assert escape(event.url) == event.url
            if isinstance(event, CodeNeeded):
                assert escape(event.user_code) == event.user_code
                assert event.url_with_code is None or is_secure(event.url_with_code)


async def by_browser(session: Session) -> object:
    return await session.login(open_browser=False)


async def by_code(session: Session) -> object:
    return await session.login()


async def by_refresh(session: Session) -> object:
    await session.login()
    return await session.renew()


async def who(session: Session) -> object:
    await session.login()
    return await session.whoami()


DEVICE = frozenset({"/oauth2/device_authorization"})
TOKEN = ("access_token", "token_type", "expires_in", "refresh_token", "scope", "id_token", "error")
CASES: dict[str, tuple[frozenset[str], tuple[str, ...], str, Any]] = {
    "server metadata": (
        METADATA,
        ("issuer", "authorizationEndpoint", "tokenEndpoint", "deviceAuthorizationEndpoint"),
        "Pkce",
        by_browser,
    ),
    "lists in server metadata": (
        METADATA,
        ("scopesSupported", "grantTypesSupported", "codeChallengeMethodsSupported"),
        "Pkce",
        by_browser,
    ),
    "public client": (
        PUBLIC_CLIENT,
        ("clientId", "redirectUri", "scopes", "authorizationMetadataKey", "audience"),
        "DeviceFlow",
        by_code,
    ),
    "public client, for a browser": (PUBLIC_CLIENT, ("redirectUri",), "Pkce", by_browser),
    "device authorization": (
        DEVICE,
        (
            *("device_code", "user_code", "verification_uri", "verification_uri_complete"),
            *("expires_in", "interval"),
        ),
        "DeviceFlow",
        by_code,
    ),
    "token, by device code": (frozenset({"device_code"}), TOKEN, "DeviceFlow", by_code),
    "token, by secret": (frozenset({"client_credentials"}), TOKEN, "ClientSecret", by_code),
    "token, by refresh": (frozenset({"refresh_token"}), TOKEN, "DeviceFlow", by_refresh),
    "call": (USER_INFO, ("subject", "name", "preferredUsername", "email"), "DeviceFlow", who),
}


MEMBERS = [(place, member) for place, case in CASES.items() for member in case[1]]


@pytest.mark.req("ERR-07", "META-02", "META-09", "DEV-12", "DEV-13", "TOK-06", "TOK-10")
@pytest.mark.parametrize(("place", "member"), MEMBERS)
async def test_whatever_a_member_is_the_session_ends_in_a_token_or_a_typed_error(
    place: str, member: str
) -> None:
    where, _, auth_type, act = CASES[place]
    for twice in (False, True):
        for value in VALUES:
            plane = Mangled(device_ttl=60.0, device_interval=5)
            plane.where, plane.member, plane.value, plane.twice = where, member, value, twice
            watcher = Watcher(plane.plane)
            try:
                with anyio.fail_after(LIMIT), anyio.CancelScope() as watcher.browser:
                    async with plane.session(
                        auth_type, presenter=watcher, store=MemoryStore(), login_timeout=LIMIT
                    ) as session:
                        await act(session)
            except Error as error:
                proper(error)
            watcher.saw_nothing_bad()
