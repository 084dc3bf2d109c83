"""
Connect's unary protocol in JSON, as far as the pure model speaks it, and what is in a message.

Message shapes are those of flyteidl2, written as its JSON mapping does: camelCase, empty fields
left out. On a socket connectrpc speaks the protocol, in every encoding (``rpc``); what is said is
the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs

from .._sansio.http import Headers, Request, Response
from .messages import Target, json_response, parse_json

PAGE: Final = 100
PAGE_MAX: Final = 1000

Message = Mapping[str, Any]
Reply = dict[str, Any]

_STATUS: Final = {
    "invalid_argument": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "failed_precondition": 400,
    "not_found": 404,
    "already_exists": 409,
    "resource_exhausted": 429,
    "unimplemented": 501,
    "unavailable": 503,
}


class ConnectError(Exception):
    """An error of the Connect protocol: a code and a message."""

    def __init__(self, code: str, message: str, headers: Headers = ()) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.headers = headers

    def response(self) -> Response:
        message = {"code": self.code, "message": self.message}
        return json_response(_STATUS[self.code], message, self.headers)


def read_message(request: Request, target: Target) -> Message | Response:
    """The request message of a unary call; or what refuses one in another encoding."""
    if (request.header("connect-protocol-version") or "1") != "1":
        raise ConnectError("invalid_argument", "connect-protocol-version must be 1")
    if request.method in {"GET", "HEAD"}:
        query = parse_qs(target.query, keep_blank_values=True)
        encoding = query.get("encoding", ["json"])[0]
        body = query.get("message", ["{}"])[0].encode(errors="replace")
        if encoding != "json" or "base64" in query or "compression" in query:
            raise ConnectError("invalid_argument", "only encoding=json is supported")
    else:
        content_type = (request.header("content-type") or "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            return Response(415, (("accept-post", "application/json"),))
        if (request.header("content-encoding") or "identity").lower() != "identity":
            raise ConnectError("unimplemented", "compressed requests are not supported")
        body = request.body
    message = parse_json(body)
    if message is None:
        raise ConnectError("invalid_argument", "the request is not a JSON object")
    return message


# What is in a message. JSON may spell a field either way, and null is absent.


def member(message: Message, *names: str) -> object:
    return next((message[name] for name in names if message.get(name) is not None), None)


def part(message: Message, *names: str) -> Message:
    """A message within a message."""
    found = member(message, *names)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise invalid(names[0], "is not a message")
    return found


def items(message: Message, *names: str) -> list[Any]:
    found = member(message, *names)
    if found is None:
        return []
    if not isinstance(found, list):
        raise invalid(names[0], "is not a list")
    return found


def text(message: Message, *names: str) -> str:
    found = member(message, *names)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise invalid(names[0], "is not a text")
    return found


def number(message: Message, name: str) -> int:
    """A number that is not negative; JSON may write it as text, and absent is zero."""
    value = message.get(name)
    if value is None or value == "":
        return 0
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32:
        return value
    raise invalid(name, "is not valid")


def invalid(name: str, problem: str) -> ConnectError:
    return ConnectError("invalid_argument", f"{name} {problem}")


def timestamp(at: float) -> str:
    """A google.protobuf.Timestamp, of POSIX seconds."""
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def page(name: str, entities: Sequence[object], request: Message) -> Reply:
    """The page that ``limit`` and ``token`` ask for, and the token of the next one."""
    limit = min(number(request, "limit") or PAGE, PAGE_MAX)
    start = number(request, "token")
    shown = entities[start : start + limit]
    reply: Reply = {}
    if shown:
        reply[name] = list(shown)
    if start + limit < len(entities):
        reply["token"] = str(start + limit)
    return reply
