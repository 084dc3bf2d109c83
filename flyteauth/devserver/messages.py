"""Requests as the control plane reads them, responses as it writes them. Any bytes may come in."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from attrs import frozen

from .._sansio.http import Headers, Request, Response

NO_STORE: Final[Headers] = (("cache-control", "no-store"), ("pragma", "no-cache"))
FORM: Final = "application/x-www-form-urlencoded"
_PARAMETERS_MAX: Final = 100


class Refusal(Exception):
    """An error of RFC 6749 §4.1.2.1 or §5.2, RFC 7009 §2.2.1 or RFC 8628 §3.5."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.status = status


@frozen
class Target:
    """Where a request goes: the parts of its URL that matter."""

    host: str | None
    path: str
    query: str


def target_of(url: str) -> Target | None:
    """The parts of an absolute URL or of an origin-form target; None if it is neither."""
    if not re.fullmatch(r"[\x21-\x7e]+", url):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    if parts.scheme not in {"", "http", "https"} or bool(parts.scheme) != bool(parts.netloc):
        return None
    path = parts.path or "/"
    return Target(parts.hostname, path, parts.query) if path.startswith("/") else None


@frozen
class Form:
    """Parameters of a query or a form body."""

    values: dict[str, str]
    repeated: frozenset[str] = frozenset()

    def get(self, name: str) -> str | None:
        """A parameter; sent without a value it counts as omitted (RFC 6749 §3.1, §3.2)."""
        return self.values.get(name)

    def required(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise Refusal("invalid_request", f"{name} is missing")
        return value

    def once(self) -> None:
        """Parameters must not be included more than once (RFC 6749 §3.1, §3.2)."""
        if self.repeated:
            raise Refusal("invalid_request", "a parameter is repeated")


def parse_parameters(encoded: str) -> Form:
    """x-www-form-urlencoded UTF-8 (RFC 6749 App. B)."""
    try:
        pairs = parse_qsl(encoded, errors="strict", max_num_fields=_PARAMETERS_MAX)
    except ValueError:  # also UnicodeDecodeError
        raise Refusal("invalid_request", "the parameters cannot be decoded") from None
    names = [name for name, _ in pairs]
    values = dict(pairs)
    if len(values) == len(names):
        return Form(values)
    return Form(values, frozenset(name for name in values if names.count(name) > 1))


def parse_form(request: Request) -> Form:
    """The form in a request body, each parameter at most once."""
    content_type = (request.header("content-type") or "").partition(";")[0].strip().lower()
    if content_type != FORM:
        raise Refusal("invalid_request", f"the content type must be {FORM}")
    try:
        encoded = request.body.decode()
    except UnicodeDecodeError:
        raise Refusal("invalid_request", "the body is not UTF-8") from None
    form = parse_parameters(encoded)
    form.once()
    return form


def basic(request: Request) -> tuple[str, str] | None:
    """Name and password of an Authorization: Basic header (RFC 7617 §2), as they stand there."""
    scheme, _, pair = (request.header("authorization") or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = b64decode(pair.strip(), validate=True).decode().partition(":")
    except ValueError:
        name = colon = password = ""
    if not colon:
        raise Refusal("invalid_client", "the Authorization header cannot be decoded", 401)
    return name, password


def bearer_tokens(headers: Headers) -> Iterable[tuple[str, str]]:
    """Lower-case header name and token of each header that carries one (RFC 6750 §2.1)."""
    for name, value in headers:
        scheme, _, token = value.strip().partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            yield name.lower(), token.strip()


def cookie(request: Request, name: str) -> str | None:
    """The value of a cookie (RFC 6265 §5.4)."""
    for key, header in request.headers:
        if key.lower() == "cookie":
            for pair in header.split(";"):
                found, _, value = pair.strip().partition("=")
                if found == name:
                    return value
    return None


def json_response(status: int, message: object, headers: Headers = ()) -> Response:
    body = json.dumps(message, separators=(",", ":")).encode()
    return Response(status, (("content-type", "application/json"), *headers), body)


def text_response(status: int, text: str, headers: Headers = ()) -> Response:
    content_type = ("content-type", "text/plain; charset=utf-8")
    return Response(status, (content_type, *headers), f"{text}\n".encode())


def redirect(uri: str, *, after_post: bool) -> Response:
    """Sends the browser on. After a POST with 303, so that no form travels (RFC 9700 §4.12)."""
    headers = (("location", uri), ("referrer-policy", "no-referrer"), *NO_STORE)
    return Response(303 if after_post else 302, headers)


def parse_json(body: bytes) -> dict[str, Any] | None:
    """The JSON object in *body*, or None if there is none."""
    try:
        parsed = json.loads(body.decode())
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None
