"""
What an external command prints: a token, bare or in JSON (BRR-14).

Nobody has written down what such a command prints, so this reads what the usual ones do: one line
with the token; ``{"token": …, "expires_at": …}`` in the spellings of OAuth2, of ``az`` and of Go;
and the ExecCredential of Kubernetes. What it printed is never echoed, be it a token or not.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from .errors import InvalidResponse, quote
from .http import Object, json_object, seconds
from .tokens import Token

OUTPUT_MAX: Final = 64 * 1024

_TOKEN: Final = ("token", "access_token", "accessToken")
_EXPIRES_AT: Final = (
    "expires_at expiresAt expiry expiration expires_on expiresOn expirationTimestamp".split()
)

_WHITE: Final = " \t\r\n"
_BEARER: Final = re.compile(r"\Abearer(?:[ \t]+|$)", re.IGNORECASE)
_B64TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750 §2.1
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_NUMBER: Final = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?")
_RFC_3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,20})?"
    r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
# In seconds this is after the year 9999, in milliseconds it is 1979.
_MILLISECONDS: Final = 3e11


def parse_output(
    stdout: bytes, at: float, *, any_alphabet: bool = False, setting: str = "admin.command"
) -> Token:
    """The token that a command started at *at* has printed; InvalidResponse if it is none.

    Of several expiries the earliest holds. Without any, the ``exp`` claim of a JWT is taken as a
    hint; without that too, the token is good until a server rejects it. *setting* is what the
    message names.
    """
    if len(stdout) > OUTPUT_MAX:
        raise _refused(f"printed more than {OUTPUT_MAX} bytes", setting)
    try:
        text = stdout.decode("utf-8-sig").strip(_WHITE)
    except UnicodeDecodeError:
        raise _refused("printed what is not UTF-8", setting) from None
    if not text:
        raise _refused("printed nothing", setting)
    members = _members(text, setting) if text.startswith("{") else Object(token=text)
    access_token = _access_token(members, any_alphabet, setting)
    expiries = [expiry for name in _EXPIRES_AT if (expiry := _posix(members.get(name))) is not None]
    if (lifetime := seconds(members.get("expires_in"))) is not None:
        expiries.append(at + lifetime)
    expires_at = min(expiries) if expiries else _claimed_expiry(access_token)
    if expires_at is not None and expires_at <= at:
        raise _refused("printed a token that has expired", setting, "check the clock, and ")
    return Token(access_token, obtained_at=at, expires_at=expires_at)


def _members(text: str, setting: str) -> Object:
    """The JSON object that holds token and expiry."""
    body = json_object(text.encode())
    if body is None:
        raise _refused("printed broken JSON", setting)
    if body.get("kind") == "ExecCredential":
        status = body.get("status")
        body = status if isinstance(status, Object) else Object()
    if body.repeated.intersection((*_TOKEN, *_EXPIRES_AT, "expires_in")):
        raise _refused("printed JSON that says the same thing twice", setting)
    return body


def _access_token(members: Object, any_alphabet: bool, setting: str) -> str:
    value = next((members[name] for name in _TOKEN if members.get(name)), None)
    if not isinstance(value, str):
        raise _refused("printed JSON without a token", setting)
    value = value.strip(_WHITE)
    if "\n" in value or "\r" in value:
        raise _refused("printed more than one line", setting)
    value = _BEARER.sub("", value)
    if not (_VISIBLE if any_alphabet else _B64TOKEN).fullmatch(value):
        raise _refused("printed what is not a token", setting)
    return value


def _posix(value: object) -> float | None:
    """A point in time as POSIX seconds; None if it does not say which.

    ``expiresOn`` of ``az`` is local time without a zone: of no use to anybody who may not be
    where it was printed. What was before 1970 is how Go prints that it does not know.
    """
    if isinstance(value, str):
        if _RFC_3339.fullmatch(value):
            try:
                value = datetime.fromisoformat(value.upper()).timestamp()
            except (ValueError, OverflowError):  # the 30th of February
                return None
        elif _NUMBER.fullmatch(value):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 < value < 1000 * _MILLISECONDS:
        return None
    return float(value) if value < _MILLISECONDS else value / 1000


def _claimed_expiry(token: str) -> float | None:
    """When a JWT says that it expires (RFC 7519 §4.1.4). Nobody has verified that."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json_object(urlsafe_b64decode(parts[1] + "=="))  # too much padding does no harm
    except ValueError:
        return None
    return None if claims is None else _posix(claims.get("exp"))


def _refused(why: str, setting: str, also: str = "") -> InvalidResponse:
    return InvalidResponse(
        f"the command {why}; {also}run the command of {setting} by hand", reason="command"
    )


# What it complains about.

_LINES: Final = 3
_LINE_MAX: Final = 160
_WORD: Final = re.compile(r"-{0,2}[a-z]+(?:-[a-z]+)*")
_SECRETS: Final = re.compile(
    r"(?i:bearer|basic)[ \t]+\S+"
    r"|eyJ[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)*"  # JSON in base64, so most likely a JWT
    r"|[A-Za-z0-9_+=-]{32,}"
)


def complaint(stderr: bytes, arguments: Iterable[str] = ()) -> str:
    """The last lines of *stderr*, fit to stand in a message: without the command's *arguments*
    and without what looks like a secret.
    """
    text = stderr.decode(errors="replace")
    for argument in sorted(arguments, key=len, reverse=True):
        if len(argument) > 3 and not _WORD.fullmatch(argument):
            text = text.replace(argument, "…")
    lines = [line.strip() for line in _SECRETS.sub("…", text).splitlines() if line.strip()]
    return " / ".join(quote(line, _LINE_MAX) for line in lines[-_LINES:])
