"""Shows a login to the person in front of a terminal."""

from __future__ import annotations

import sys
from typing import Final, Protocol, TextIO

from .._sansio.errors import escape
from ..events import AuthEvent, BrowserNeeded, CodeNeeded, LoggedIn, LoggedOut, Refreshed, Warned

WRITE_DEADLINE: Final = 5.0


def person_present() -> bool:
    """Whether somebody is there to be asked: at a terminal, or in a notebook."""
    for stream in (sys.stdin, sys.stderr):
        try:
            if stream is None or not stream.isatty():
                break
        except (OSError, ValueError):  # closed
            break
    else:
        return True
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


class Presenter(Protocol):
    """Whatever shows events to the person who logs in."""

    async def show(self, event: AuthEvent) -> None:
        """Show one event; must not block the event loop."""
        ...


class Silent:
    """Shows nothing: whoever embeds the session has its own way, through ``on_event``."""

    async def show(self, event: AuthEvent) -> None:
        del event


class Terminal:
    """Plain lines on standard error, so that standard output stays the program's own."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    async def show(self, event: AuthEvent) -> None:
        from .threads import run_in_daemon

        if text := describe(event):
            try:
                await run_in_daemon(self._write, text, deadline=WRITE_DEADLINE)
            except (OSError, ValueError):  # a closed or a stopped terminal must not end a login
                return

    def _write(self, text: str) -> None:
        stream = self._stream or sys.stderr
        stream.write(text + "\n")
        stream.flush()


def describe(event: AuthEvent) -> str:
    """An event as a terminal shows it: a URL stands alone on one line, so that it can be copied.

    Empty for what a person at a terminal need not hear about.
    """
    match event:
        case BrowserNeeded(url):
            return (
                "Opening your browser to log in. If no page appears, open this address:\n\n"
                f"{escape(url)}\n"
            )
        case CodeNeeded(user_code, url, complete):
            code = f"and enter the code\n\n    {escape(user_code)}\n"
            shown = "To log in, open this address in any browser, on any device\n\n"
            if complete is None or complete == url:
                return f"{shown}{escape(url)}\n\n{code}"
            return (
                f"{shown}{escape(complete)}\n\n"
                f"and check that it shows the code\n\n    {escape(user_code)}\n\n"
                f"or open {escape(url)} and type it.\n"
            )
        case LoggedIn(server, subject, _, place):
            who = f" as {escape(subject)}" if subject else ""
            return f"Logged in to {escape(server)}{who}. The login is kept in {escape(place)}."
        case LoggedOut(server, local_deleted, remote_revoked):
            return _logged_out(escape(server), local_deleted, remote_revoked)
        case Warned(message):
            return f"flyteauth: {escape(message)}"
        case Refreshed():
            return ""


def _logged_out(server: str, local_deleted: bool, remote_revoked: bool | None) -> str:
    if not local_deleted:
        return f"There was no login to {server}."
    match remote_revoked:
        case True:
            return f"Logged out of {server}; the server took its tokens back."
        case False:
            return (
                f"Logged out of {server} on this machine, but the server did not take its tokens "
                "back; they end by themselves."
            )
        case None:
            return f"Logged out of {server} on this machine; the server was not told."
