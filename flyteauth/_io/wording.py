"""Events in plain words, for a log, a pipe or a terminal that can do nothing but lines."""

from __future__ import annotations

from typing import Final

from .._sansio.errors import bounded, escape, quote
from ..events import (
    AuthEvent,
    BrowserNeeded,
    CodeNeeded,
    Exported,
    Forgotten,
    Imported,
    LoggedIn,
    LoggedOut,
    MethodChosen,
    Refreshed,
    Warned,
)

_METHODS: Final = {
    "browser": "by browser",
    "device": "by device code",
    "secret": "with a client secret",
    "command": "by an external command",
}

_REVOKED: Final = {
    True: "the server took its tokens back",
    False: "but the server did not take its tokens back; they end by themselves",
    None: "the server was not told",
}


def describe(event: AuthEvent) -> str:
    """An event in lines: a URL stands alone on one, so that it can be copied.

    Empty for what a person who reads a log need not hear about.
    """
    match event:
        case BrowserNeeded(url):
            after = f"\n{stranded(event)}\n" if not event.returns else ""
            return f"{to_browser(event)}\n\n{escape(url)}\n{after}"
        case CodeNeeded(user_code, url, complete):
            code = f"    {escape(user_code)}\n"
            shown = f"{to_any_browser(event)}\n\n"
            if complete is None or complete == url:
                return f"{shown}{escape(url)}\n\nand enter the code\n\n{code}"
            return (
                f"{shown}{escape(complete)}\n\nand check that it shows the code\n\n{code}\n"
                f"or open {escape(url)} and type it.\n"
            )
        case LoggedIn(server, _, _, place, proven=False):
            kept = f", which is kept in {escape(place)}" if event.kept else ""
            return (
                f"The command has given a token for {escape(server)}{kept}. Whether the control "
                "plane takes it is not known yet; to find out, run: flyteauth doctor"
            )
        case LoggedIn(server, kept=False):
            return (
                f"The credentials work: {escape(server)} has given a token. No login is kept; each "
                "program gets its token by itself."
            )
        case LoggedIn(server, subject, _, place, renews):
            who = f" as {quote(subject)}" if subject else ""
            lasting = ", and renews itself" if renews else ""
            kept = f"The login is kept in {escape(place)}{lasting}."
            return f"Logged in to {escape(server)}{who}. {kept}"
        case LoggedOut(server, local_deleted, remote_revoked):
            return _logged_out(escape(server), local_deleted, remote_revoked)
        case Imported(server, tool, place):
            return f"Took over the login of {tool} to {escape(server)} from {escape(place)}."
        case Exported(server, tool, place):
            return f"The login to {escape(server)} is now in {escape(place)} for {tool}, too."
        case Forgotten(server, tool, place, remote_revoked):
            what = f"The login of {tool} to {escape(server)} is gone from {escape(place)}"
            return f"{what}; {_REVOKED[remote_revoked]}."
        case Warned(message):
            return f"flyteauth: {bounded(message)}"
        case MethodChosen():
            return chosen(event)
        case Refreshed():
            return ""


def chosen(event: MethodChosen) -> str:
    why = f", because {escape(event.why)}" if event.why else ""
    return f"Logging in to {escape(event.server)} {_METHODS[event.method]}{why}."


def to_browser(event: BrowserNeeded) -> str:
    """What goes before the URL of *event*."""
    if event.opens:
        return "Opening your browser to log in. If no page appears, open this address:"
    where = "in a browser on this machine" if event.returns else "in any browser"
    return f"To log in, open this address {where}:"


def stranded(event: BrowserNeeded) -> str:
    """What becomes of a browser that cannot come back by itself."""
    why = f" ({escape(event.obstacle.rstrip('.'))})" if event.obstacle else ""
    return (
        f"After the login your browser cannot come back here by itself{why}, so its last page will "
        "look like an error. That is fine: copy the address of that page from the address bar."
    )


def to_any_browser(event: CodeNeeded) -> str:
    """What goes before the URL of *event*."""
    if event.alternative:
        return "Or open this address in any browser, on any device"
    return "To log in, open this address in any browser, on any device"


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
