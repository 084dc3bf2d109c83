"""What a token endpoint says when it is up to no good, and what a poll for a device gets."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

Reply = tuple[int, Mapping[str, str], bytes]

JSON: Final = {"content-type": "application/json"}
HTML: Final = {"content-type": "text/html"}
TEXT: Final = {"content-type": "text/plain"}
PROXY: Final = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"


def _with(**members: Any) -> Callable[[dict[str, Any]], Reply]:
    """A good reply with other *members*; None leaves one out."""
    return lambda good: (200, JSON, json.dumps(_but(good, members)).encode())


def _but(good: dict[str, Any], members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**good, **members}.items() if value is not None}


def _literal(name: str, text: str) -> Callable[[dict[str, Any]], Reply]:
    """A good reply in which the value of *name* is *text*, as it stands."""

    def reply(good: dict[str, Any]) -> Reply:
        dumped = json.dumps({**good, name: "here"})
        return 200, JSON, dumped.replace('"here"', text).encode()

    return reply


def _crlf(good: dict[str, Any]) -> Reply:
    forged = f"{good['access_token']}\r\nx-injected: 1"
    return 200, JSON, json.dumps({**good, "access_token": forged}).encode()


@cache
def bomb() -> bytes:
    """50 MB of a token response, in 50 KB."""
    padding = b'{"padding": "' + b"x" * 50_000_000 + b'", "access_token": "a"}'
    return gzip.compress(padding)


# What the plane has answered goes in; the names are those of the table.
ALTERED: Final[dict[str, Callable[[dict[str, Any]], Reply]]] = {
    "good": _with(),
    "late": _with(),
    "no access_token": _with(access_token=None),
    "access_token null": _literal("access_token", "null"),
    "access_token with CRLF": _crlf,
    'expires_in "3600"': _with(expires_in="3600"),
    "expires_in 3600.5": _with(expires_in=3600.5),
    "expires_in -1": _with(expires_in=-1),
    "no expires_in": _with(expires_in=None),
    "expires_in null": _literal("expires_in", "null"),
    "expires_in 1e18": _literal("expires_in", "1e18"),
    "expires_in NaN": _literal("expires_in", "NaN"),
    'expires_in "soon"': _with(expires_in="soon"),
    "no token_type": _with(token_type=None),
    "token_type bearer": _with(token_type="bearer"),
    "token_type mac": _with(token_type="mac"),
    "10 MB": _with(padding="x" * 10_000_000),
    "gzip bomb, 50 MB": lambda good: (200, {**JSON, "content-encoding": "gzip"}, bomb()),
}
# In place of the plane, which does not hear of the request.
FIXED: Final[dict[str, Reply]] = {
    "HTML, 200": (200, HTML, PROXY),
    "a JSON array": (200, JSON, b"[1, 2]"),
    "302": (302, {"location": "/elsewhere"}, b""),
    "307": (307, {"location": "/elsewhere"}, b""),
    "503 HTML": (503, HTML, PROXY),
    "400 text": (400, TEXT, b"bad request"),
    "invalid_grant": (400, JSON, b'{"error": "invalid_grant"}'),
}
# What is no reply, or none in time: see ``server``.
NO_REPLIES: Final = ("endless", "dropped", "hang")
LATE: Final = 1.0  # seconds between what the plane has done and that anybody hears of it

POLLS: Final[dict[str, Reply]] = {
    "pending": (400, JSON, b'{"error": "authorization_pending"}'),
    "slow_down": (400, JSON, b'{"error": "slow_down"}'),
    "access_denied": (400, JSON, b'{"error": "access_denied"}'),
    "503": (503, HTML, PROXY),
    "429": (429, TEXT, b"too many requests"),
}
