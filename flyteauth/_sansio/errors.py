"""
What can go wrong::

Error:
    ├─ FlowError               the flow is over without a result
    │  ├─ OAuth2Error          the server said no (RFC 6749 §4.1.2.1, §5.2); branch on .error
    │  ├─ InvalidResponse      the server, or something in between, broke the RFC
    │  ├─ Expired              nobody approved in time
    │  ├─ Unreachable          no usable response: transient, see .retry_after
    │  ├─ MissingMetadata      the server does not offer what this needs
    │  └─ InsufficientScope    the token lacks a scope that a call needs; see .scopes
    ├─ ReauthRequired          the login is over
    ├─ InteractionRequired     a person is needed and none is there
    ├─ ConfigError             a setting is wrong
    ├─ StoreError              the token store is locked, denied, corrupt or full
    └─ UnexpectedEvent         the driver broke the contract: a bug

Every message is one line, escaped, of bounded length, free of secrets, and ends with what to do.
``reason`` is a stable word for programs; the text is for people and may change.

"""

from __future__ import annotations

import unicodedata
from typing import Final

TEXT_MAX: Final = 300  # characters of one text from a server
MESSAGE_MAX: Final = 2000  # of all that an error says

# Unicode categories that must never reach a terminal as they are: C0, C1 and DEL (Cc), bidi
# controls and zero-width characters (Cf), lone surrogates (Cs), line and paragraph separators.
_UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def escape(text: str) -> str:
    """*text* on one line, with everything that could steer a terminal made visible (ERR-01)."""
    return "".join(
        ascii(character)[1:-1] if unicodedata.category(character) in _UNPRINTABLE else character
        for character in text
    )


def quote(text: str, limit: int = TEXT_MAX) -> str:
    """Server text, fit to stand in a message: escaped, and cut at *limit* characters."""
    visible = escape(text[:limit])
    return visible if len(visible) <= limit and len(text) <= limit else visible[: limit - 1] + "…"


def cut(text: str, limit: int = TEXT_MAX) -> str:
    """*text* in *limit* characters, to be escaped where it is shown."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def bounded(message: str) -> str:
    """A whole message, escaped. Whatever got into it, its beginning says what is wrong and its end
    what to do, so it is the middle that goes.
    """
    half = MESSAGE_MAX // 2
    if len(message) > MESSAGE_MAX or len(escape(message)) > MESSAGE_MAX:
        return escape(message[:half])[: half - 1] + "…" + escape(message[-half:])[-half:]
    return escape(message)


def duration(seconds: float) -> str:
    """A length of time for people: "90 s", "5 min", "3 h", "20 days"."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


class Error(Exception):
    """The base of everything that flyteauth raises on purpose.

    ``reason`` is a stable word that programs may branch on.
    """

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(bounded(message))
        self.reason = quote(reason)


class FlowError(Error):
    """The flow is over without a result."""


class OAuth2Error(FlowError):
    """The authorization server said no: RFC 6749 §4.1.2.1 and §5.2, RFC 8628 §3.5.

    ``error`` is the code on the wire, ``description`` and ``uri`` are its escaped company.
    """

    def __init__(self, error: str, description: str = "", uri: str = "", *, hint: str = "") -> None:
        self.error = quote(error)
        self.description = quote(description)
        self.uri = uri if len(uri) <= TEXT_MAX else ""  # half of an address leads elsewhere
        self.hint = hint
        said = f"{self.error} ({self.description})" if description else self.error
        hint = hint or _HINTS.get(error, "log in again, or ask whoever runs the server")
        super().__init__(f"the authorization server answered {said}; {hint}", reason=self.error)

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (type(self), self.args, vars(self))


_HINTS: Final = {
    "access_denied": "log in again and allow the access",
    "expired_token": "log in again and approve the code in time",
    "invalid_client": "check clientId and the client secret",
    "invalid_grant": "log in again",
    "invalid_target": "check admin.audience in the configuration",
    "invalid_scope": "check admin.scopes in the configuration",
    "unauthorized_client": "ask whoever runs the server to allow this grant for the client",
    "unsupported_grant_type": "choose another authType",
}


class InvalidResponse(FlowError):
    """The server, or something between us and it, broke the RFC; ``reason`` names the check."""


class Expired(FlowError):
    """Nobody approved in time."""


class Unreachable(FlowError):
    """No usable response: transient. Nothing stored is touched.

    ``retry_after`` is when the server says to come back, in seconds from the answer, or None.
    ``sent`` says whether the request may have reached the server.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        retry_after: float | None = None,
        sent: bool = False,
    ) -> None:
        super().__init__(message, reason=reason)
        self.retry_after = retry_after
        self.sent = sent


class MissingMetadata(FlowError):
    """The authorization server does not offer what the flow needs (RFC 8414 §2)."""


class InsufficientScope(FlowError):
    """The token lacks a scope that a call needs (RFC 6750 §3.1): one of ``scopes``, escaped, if the
    server says so. A refresh would not help.
    """

    def __init__(self, scopes: tuple[str, ...] = ()) -> None:
        self.scopes = tuple(map(quote, scopes))
        wanted = f" ({quote(' '.join(self.scopes))})" if self.scopes else ""
        super().__init__(
            f"the token lacks a scope that this call needs{wanted}; add it to admin.scopes, and "
            "log in again",
            reason="insufficient_scope",
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (type(self), self.args, vars(self))


class ReauthRequired(Error):
    """The login is over; log in again."""


class InteractionRequired(Error):
    """A person is needed and none is there."""


class ConfigError(Error):
    """A setting is wrong; the message names it and the value to use."""


class StoreError(Error):
    """The token store is locked, denied, corrupt or full. Nothing in it was deleted."""


class UnexpectedEvent(Error):
    """The driver answered an effect with the wrong event: always a bug in flyteauth."""

    def __init__(self, state: object, event: object) -> None:
        super().__init__(
            f"{type(state).__name__} cannot take {type(event).__name__}; please report this bug"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (type(self), self.args, vars(self))


def _again(kind: type[Error], args: tuple[object, ...], members: dict[str, object]) -> Error:
    """An unpickled error: the same, without its message being made anew."""
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(members)
    return error
