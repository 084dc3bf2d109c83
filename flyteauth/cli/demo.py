"""``flyteauth demo``: every way to log in, against a control plane of its own."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from shlex import quote
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
DEADLINE: Final = 25.0
BACKENDS: Final = ("asyncio", "trio")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def main(options: argparse.Namespace) -> int:
    settings = Settings(access_ttl=ACCESS_TTL, device_interval=1)
    try:
        with serving(settings) as running, _browser():
            print(f"An embedded control plane answers at {running.base_url}.")
            print(f"Its tokens live {ACCESS_TTL:.0f} seconds, and refresh tokens rotate.")
            for backend in BACKENDS:
                print(f"\n{backend}\n{'─' * len(backend)}", flush=True)
                anyio.run(_tour, running, backend=backend)
    except ServeError as error:
        print(f"flyteauth: {error}", file=sys.stderr)
        return 1
    print("\nEverything worked, on both.")
    return 0


@contextmanager
def _browser() -> Iterator[None]:
    """A $BROWSER that needs no person."""
    before = os.environ.get("BROWSER")
    os.environ["BROWSER"] = f"{quote(sys.executable)} -m {visitor.__name__} %s"
    try:
        yield
    finally:
        del os.environ["BROWSER"]
        if before is not None:
            os.environ["BROWSER"] = before


class _Story:
    """Tells what happens to one session, under its label. Plays the person with a telephone."""

    def __init__(self, label: str) -> None:
        self.label = label

    def tell(self, text: str) -> None:
        print(f"  {self.label:<12} {text}", flush=True)
        self.label = ""

    async def show(self, event: AuthEvent) -> None:
        match event:
            case BrowserNeeded():
                self.tell("a browser opens the login page")
            case CodeNeeded(user_code, url, complete):
                self.tell(f"the code {user_code} is approved at {url}")
                threading.Thread(target=visitor.visit, args=[complete or url], daemon=True).start()
            case LoggedIn(subject=subject):
                self.tell(f"logged in as {subject or 'a service'}")
            case Refreshed():
                self.tell("the token has expired; it was refreshed, and nobody noticed")
            case LoggedOut(remote_revoked=revoked):
                self.tell("logged out, tokens revoked" if revoked else "logged out on this side")
            case Warned(message):
                self.tell(message)


async def _tour(running: Running) -> None:
    person: dict[str, Any] = {"endpoint": running.base_url, "token_store": "memory"}
    ways: dict[str, dict[str, Any]] = {
        "PKCE": {**person, "auth_type": "Pkce", "redirect_uri": "http://127.0.0.1/callback"},
        "device flow": {**person, "auth_type": "DeviceFlow"},
        "API key": {"api_key": running.api_key},
    }
    with anyio.fail_after(DEADLINE):
        async with AsyncExitStack() as stack:
            sessions: list[tuple[Session, _Story]] = []
            for label, arguments in ways.items():
                story = _Story(label)
                session = await stack.enter_async_context(Session(presenter=story, **arguments))
                sessions.append((session, story))
                await session.login()
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
