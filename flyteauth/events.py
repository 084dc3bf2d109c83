"""
What happens to a login, as values: for a terminal, a notebook, a log or a program to show.

No event holds a token. The URLs and codes in them are for the person who logs in.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen


@frozen
class BrowserNeeded:
    """A person should log in at ``url``. A browser is being opened for them, if one can be."""

    url: str = field(repr=False)


@frozen
class CodeNeeded:
    """A person should open ``url`` on any device and type ``user_code`` (RFC 8628 §3.3).

    ``url_with_code`` spares them the typing, where the server offers it. ``expires_at``: POSIX
    seconds.
    """

    user_code: str
    url: str
    url_with_code: str | None
    expires_at: float


@frozen
class LoggedIn:
    """A login was made; ``place`` says in words where it is kept. Times are POSIX seconds."""

    server: str
    subject: str | None
    expires_at: float | None
    place: str


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
class Warned:
    """Something works, but not as it was meant to; one line that says what to do."""

    message: str


AuthEvent = BrowserNeeded | CodeNeeded | LoggedIn | Refreshed | LoggedOut | Warned

OnEvent = Callable[[AuthEvent], None]
