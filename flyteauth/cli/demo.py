"""``flyteauth demo``: every way to log in, against a control plane of its own."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import anyio

from .. import remote
from ..devserver import visitor
from ..devserver.serve import Running, ServeError, serving
from ..devserver.settings import Settings
from ..errors import ReauthRequired
from ..events import AuthEvent, BrowserNeeded, CodeNeeded, LoggedIn, LoggedOut, Refreshed, Warned
from ..session import Session

ACCESS_TTL: Final = 2.0  # seconds
DEADLINE: Final = 25.0  # for one round of logins, in which nobody has to click
PATIENCE: Final = 180.0  # for the person who has to
BACKENDS: Final = ("asyncio", "trio")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may be seen of it."""
    parser.add_argument(
        "--browser",
        action="store_true",
        help="open your own browser for the first login, and let you click there",
    )


def main(options: argparse.Namespace) -> int:
    settings = Settings(access_ttl=ACCESS_TTL, device_interval=1)
    try:
        with serving(settings) as running:
            print(f"An embedded control plane answers at {running.base_url}.")
            print(f"Its tokens live {ACCESS_TTL:.0f} seconds, and refresh tokens rotate.")
            by_person = options.browser
            if by_person:
                print("Your browser opens for the first login; the others need nobody.")
            for backend in BACKENDS:
                print(f"\n{backend}\n{'─' * len(backend)}", flush=True)
                anyio.run(_tour, running, by_person, backend=backend)
                by_person = False
    except ServeError as error:
        print(f"flyteauth: {error}", file=sys.stderr)
        return 1
    print("\nEverything worked, on both.")
    return 0


class _Story:
    """Tells what happens to one session, under its label. Plays the person, in the browser and
    with a telephone, except *by_person*.
    """

    def __init__(self, label: str, *, by_person: bool) -> None:
        self.label = label
        self._by_person = by_person

    def tell(self, text: str) -> None:
        print(f"  {self.label:<12} {text}", flush=True)
        self.label = ""

    async def show(self, event: AuthEvent) -> None:
        match event:
            case BrowserNeeded(url, opens=True):
                self.tell("your browser opens the login page; log in there, and allow")
                self.tell("if none opens, this is the address:")
                print(url, flush=True)
            case BrowserNeeded(url):
                if self._by_person:
                    self.tell("no browser can be opened here")
                self.tell("a program opens the login page, and allows")
                _in_background(visitor.visit, url)
            case CodeNeeded(user_code, url, complete, alternative=False):
                self.tell(f"the code {user_code} is approved at {url}")
                _in_background(visitor.visit, complete or url)
            case LoggedIn(subject=subject):
                self.tell(f"logged in as {subject or 'a service'}")
            case Refreshed():
                self.tell("the token has expired; it was refreshed, and nobody noticed")
            case LoggedOut(remote_revoked=revoked):
                self.tell("logged out, tokens revoked" if revoked else "logged out on this side")
            case Warned(message):
                self.tell(message)


def _in_background(function: Callable[[str], object], url: str) -> None:
    threading.Thread(target=function, args=[url], daemon=True).start()


async def _tour(running: Running, by_person: bool) -> None:
    person: dict[str, Any] = {
        "endpoint": running.base_url,
        "token_store": "memory",
        "login_timeout": PATIENCE,
    }
    ways: dict[str, dict[str, Any]] = {
        "PKCE": {**person, "auth_type": "Pkce", "redirect_uri": "http://127.0.0.1/callback"},
        "device flow": {**person, "auth_type": "DeviceFlow"},
        "API key": {"api_key": running.api_key},
    }
    with anyio.fail_after(DEADLINE + (PATIENCE if by_person else 0)):
        async with AsyncExitStack() as stack:
            sessions: list[tuple[Session, _Story]] = []
            for label, arguments in ways.items():
                story = _Story(label, by_person=by_person)
                session = await stack.enter_async_context(Session(presenter=story, **arguments))
                sessions.append((session, story))
                await session.login(open_browser=by_person)
                await _call(session, story)
            print(f"\n  {ACCESS_TTL:.0f} seconds later\n", flush=True)
            await anyio.sleep(ACCESS_TTL)
            for (session, story), label in zip(sessions, ways, strict=True):
                story.label = label
                await _call(session, story)
                await _log_out(session)


async def _call(session: Session, story: _Story) -> None:
    projects = [project.id async for project in remote.Project.listall(session=session)]
    story.tell(f"an authorised call: {len(projects)} projects ({', '.join(projects)})")


async def _log_out(session: Session) -> None:
    """A service may get a new token by its secret; a person's session hands out no more."""
    await session.logout()
    if (await session.settings()).auth_type == "ClientSecret":
        return
    try:
        await session.headers()
    except ReauthRequired:
        return
    raise AssertionError("a session that has logged out still hands out a token")
