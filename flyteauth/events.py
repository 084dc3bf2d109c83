"""
What happens to a login, as values: for a terminal, a notebook, a log or a program to show.

No event holds a token. The URLs and codes in them are for the person who logs in.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from attrs import asdict, field, frozen

Method = Literal["browser", "device", "secret", "command"]


@frozen
class MethodChosen:
    """A login to ``server`` begins: by which ``method``, and ``why`` by that one, in words that
    go on after "because".
    """

    server: str
    method: Method
    why: str


@frozen
class BrowserNeeded:
    """A person should log in at ``url``.

    ``opens``: whether a browser is being opened for them, as far as one can be. ``returns``:
    whether the browser comes back to this program by itself; if not, ``obstacle`` says why, and the
    address where it ends can be pasted.
    """

    url: str = field(repr=False)
    opens: bool = True
    returns: bool = True
    obstacle: str = ""


@frozen
class CodeNeeded:
    """A person should open ``url`` on any device and type ``user_code`` (RFC 8628 §3.3).

    ``url_with_code`` spares them the typing, where the server offers it. ``expires_at``: POSIX
    seconds. ``alternative``: the browser of a BrowserNeeded just before will do as well.
    """

    user_code: str
    url: str
    url_with_code: str | None
    expires_at: float
    alternative: bool = False


@frozen
class LoggedIn:
    """A login was made; ``place`` says in words where it is kept. Times are POSIX seconds.

    ``renews``: whether it goes on by itself when its first token ends; a command is asked again
    then. ``proven``: whether a server has given the token. What a command gives, nobody has tried.
    ``kept``: whether there is a login that is kept; a service most often has none, and each program
    gets a token of its own.
    """

    server: str
    subject: str | None
    expires_at: float | None
    place: str
    renews: bool = True
    proven: bool = True
    kept: bool = True


@frozen
class Refreshed:
    """A new token took the place of an old one, and nobody had to do anything."""

    server: str
    expires_at: float | None


@frozen
class LoggedOut:
    """The login is gone from this machine if ``local_deleted``.

    ``remote_revoked``: whether the server took the tokens back; None if it was not or could not
    be asked.
    """

    server: str
    local_deleted: bool
    remote_revoked: bool | None


@frozen
class Imported:
    """The login of another tool was taken over; ``place`` says in words where it was."""

    server: str
    tool: str
    place: str


@frozen
class Exported:
    """Another tool has this login, too; ``place`` says in words where."""

    server: str
    tool: str
    place: str


@frozen
class Forgotten:
    """Another tool's login is gone from this machine; ``remote_revoked`` as in LoggedOut."""

    server: str
    tool: str
    place: str
    remote_revoked: bool | None


@frozen
class Warned:
    """Something works, but not as it was meant to; one line that says what to do."""

    message: str


AuthEvent = (
    MethodChosen
    | BrowserNeeded
    | CodeNeeded
    | LoggedIn
    | Refreshed
    | LoggedOut
    | Imported
    | Exported
    | Forgotten
    | Warned
)

OnEvent = Callable[[AuthEvent], None]


def to_json(event: AuthEvent) -> dict[str, Any]:
    """*event* for a program in another language: its fields, and its name in snake_case as
    ``event``. The URLs and codes in it are for the person who logs in.
    """
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
    return {"event": name, **asdict(event)}
