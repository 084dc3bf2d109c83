"""
What an incoming request on the loopback redirect means (RFC 8252 §7.3, RFC 6749 §4.1.2).

Anything on this machine, and any web page that the browser shows, can send requests to the port:
favicon fetches, prefetches, port scanners, stale tabs, hostile pages. Only a GET with the right
authority, path and ``state`` settles a login; everything else gets a short answer, and the login
goes on waiting::

    method → Host → path → purpose → limits → parse → state → settle

What settles is the flow's to judge: it alone may act on an error, an issuer or a code.

A person may also paste where their browser ended. That goes through the same checks, as far as
they make sense, and what is wrong with it costs nothing either.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import unquote_to_bytes, urlencode, urlsplit

from attrs import field, frozen

from .errors import InvalidResponse, quote
from .http import Headers

HEAD_MAX: Final = 64 * 1024
TARGET_MAX: Final = 32 * 1024  # RFC 9112 §3 asks for 8000 octets; codes and states grow

_LOOPBACKS: Final = ("127.0.0.1", "[::1]", "localhost")
_TARGET: Final = re.compile(r"[\x21\x22\x24-\x7e]+")  # visible ASCII without "#", RFC 9112 §3.2
_ABSOLUTE: Final = re.compile(r"http://([^/?]*)(.*)", re.DOTALL | re.IGNORECASE)

# A browser may hide the scheme, or have tried https on its own account; it went nowhere anyway.
_PASTED: Final = re.compile(r"(?:https?://)?([^/?]*)(/[^?]*)?", re.IGNORECASE)
_CODE: Final = re.compile(r"[\x21-\x7e]+")  # RFC 6749 App. A.11, without spaces
# What is shorter is a user code, or a word; a code must not be guessed (RFC 6749 §10.10).
_CODE_MIN: Final = 16

# What RFC 6749 §4.1.2, §4.1.2.1 and §4.2.2 and RFC 9207 §2 define. Others are ignored.
_KNOWN: Final = frozenset(
    "code state iss error error_description error_uri "
    "access_token id_token token_type expires_in".split()
)
_SECRET: Final = frozenset({"code", "state"})


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _texts(pairs: Iterable[tuple[str | bytes, str | bytes]]) -> Headers:
    return tuple((_text(name), _text(value)) for name, value in pairs)


@frozen
class IncomingRequest:
    """The head of one request. The target holds the code, the headers cookies: no repr shows it."""

    method: str = field(converter=_text)
    target: str = field(converter=_text, repr=False)
    headers: Headers = field(converter=_texts, default=(), repr=False)

    def values(self, name: str) -> list[str]:
        """All values of a header, whatever the case of its name."""
        return [value for key, value in self.headers if key.lower() == name]


@frozen
class Settle:
    """The redirect that the login waits for, as a full URI. ``guessed``: only a person says that it
    is one, so it may turn out to be nothing.
    """

    uri: str = field(repr=False)
    guessed: bool = False


@frozen
class Reply:
    """Answer, and go on waiting.

    ``reason`` is a stable word: method, host, path, prefetch, subresource, too_long, malformed,
    state; of what was pasted also empty, no_code, duplicate, undecodable, iss. ``error`` is what a
    response without any state claims, escaped: a hint at most.
    """

    status: int
    reason: str
    headers: Headers = ()
    error: str = ""


def judge(request: IncomingRequest, redirect_uri: str, state: str) -> Settle | Reply:
    """What *request* means to the login that waits at *redirect_uri* for *state*.

    An empty *state* never settles.
    """
    if request.method != "GET":
        return Reply(405, "method", (("allow", "GET"),))  # RFC 9110 §15.5.6
    authority, target = _authority(request)
    if authority is None:
        return Reply(400, "host")  # RFC 9112 §3.2
    expected = urlsplit(redirect_uri)
    if authority.lower() not in _authorities(expected.netloc.lower()):
        return Reply(421, "host")  # RFC 9110 §15.5.20: DNS rebinding ends here
    path, _, query = target.partition("?")
    if path != (expected.path or "/"):
        return Reply(404, "path")
    if any("prefetch" in x.lower() for name in _PURPOSE for x in request.values(name)):
        return Reply(503, "prefetch", (("cache-control", "no-store"),))
    if any(x.lower() == "no-cors" for x in request.values("sec-fetch-mode")):
        return Reply(403, "subresource")
    if len(request.target) > TARGET_MAX:
        return Reply(414, "too_long")
    if not _TARGET.fullmatch(target):
        return Reply(400, "malformed")
    fields = list(_fields(query))
    states = [value for name, value in fields if name == "state"]
    if len(states) != 1 or not same(states[0], state):
        return Reply(400, "state", error="" if states else _claimed(fields))
    return Settle(f"{redirect_uri.partition('#')[0].partition('?')[0]}?{query}")


def judge_pasted(
    text: str, redirect_uri: str, state: str, issuer: str | None = None
) -> Settle | Reply:
    """What *text*, which a person pasted, means to the login that waits at *redirect_uri* for
    *state* and, if known, *issuer*: the address where the browser ended, its query, or the code
    in it (CBK-21).
    """
    text = text.strip().strip("<>\"'`").strip()
    if not text:
        return Reply(400, "empty")
    if len(text) > TARGET_MAX:
        return Reply(414, "too_long")
    base = redirect_uri.partition("#")[0].partition("?")[0]
    if not any(mark in text for mark in "=&/?"):
        return _judge_code(text, base, state, issuer)
    text = text.partition("#")[0]  # a browser hands fragments on
    is_query = "?" not in text and "=" in text.partition("/")[0]
    where, query = ("", text) if is_query else text.partition("?")[::2]
    if where and (reply := _judge_address(where, redirect_uri)):
        return reply
    if not _TARGET.fullmatch(query):
        return Reply(400, "malformed")
    settled = Settle(f"{base}?{query}")
    try:
        parameters = parse_redirect(settled.uri)
    except InvalidResponse as error:
        return Reply(400, error.reason)
    if not state or not same(parameters.get("state", ""), state):
        return Reply(400, "state")
    if None not in {issuer, parameters.get("iss")} and parameters["iss"] != issuer:
        return Reply(400, "iss")
    return settled if parameters.keys() & {"code", "error"} else Reply(400, "no_code")


def _judge_address(where: str, redirect_uri: str) -> Reply | None:
    """What is wrong with an address, without its query, as that of the redirect."""
    expected = urlsplit(redirect_uri)
    match = _PASTED.fullmatch(where)
    if match is None or match[1].lower() not in _authorities(expected.netloc.lower()):
        return Reply(421, "host")
    return None if (match[2] or "/") == (expected.path or "/") else Reply(404, "path")


def _judge_code(text: str, base: str, state: str, issuer: str | None) -> Settle | Reply:
    """A code alone. It comes without a state, so it is taken on the word of the person, who is at
    our own prompt: no web page can put it there. The same goes for the issuer; and whoever tricks
    a person into pasting another's code is stopped by PKCE, for that code has another challenge.
    """
    try:
        code = unquote_to_bytes(text).decode()
    except UnicodeError:
        return Reply(400, "undecodable")
    if len(code) < _CODE_MIN or not _CODE.fullmatch(code) or not state:
        return Reply(400, "no_code")
    fields = {"code": code, "state": state, **({"iss": issuer} if issuer else {})}
    return Settle(f"{base}?{urlencode(fields)}", guessed=True)


_PURPOSE: Final = ("sec-purpose", "purpose", "x-moz")


def _authority(request: IncomingRequest) -> tuple[str | None, str]:
    """Whom the request is meant for, and the target without that.

    The authority of an absolute-form target replaces the Host header (RFC 9112 §3.2.2).
    """
    if match := _ABSOLUTE.fullmatch(request.target):
        authority, target = match.groups()
        return authority, target if target.startswith("/") else f"/{target}"
    hosts = request.values("host")
    return hosts[0].strip() if len(hosts) == 1 else None, request.target


def _authorities(netloc: str) -> frozenset[str]:
    """All names of this machine on the port of *netloc*: browsers and proxies swap them."""
    port = netloc.rpartition(":")[2]
    names = {f"{name}:{port}" for name in _LOOPBACKS} if port.isdecimal() else set(_LOOPBACKS)
    if port == "80":
        names.update(_LOOPBACKS)  # the default port is left out (RFC 9110 §4.2.1)
    return frozenset({netloc, *names})


def _claimed(fields: list[tuple[str, bytes]]) -> str:
    errors = [value for name, value in fields if name == "error"]
    return quote(errors[0].decode("utf-8", "replace")) if errors else ""


def parse_redirect(uri: str) -> Mapping[str, str]:
    """The parameters of an authorization response, from its redirect URI.

    Unknown parameters are ignored and empty ones absent (RFC 6749 §3.1, §4.1.2). Raises
    InvalidResponse if a known one is repeated (§3.1), or code or state is not text (App. B).
    """
    parameters: dict[str, str] = {}
    for name, value in _fields(uri.partition("#")[0].partition("?")[2]):
        if name in parameters:
            raise InvalidResponse(
                f"the redirect repeats {name!r}; log in again, and report this to whoever runs "
                "the authorization server",
                reason="duplicate",
            )
        try:
            parameters[name] = value.decode("utf-8", "strict" if name in _SECRET else "replace")
        except UnicodeDecodeError:
            raise InvalidResponse(
                f"{name!r} in the redirect is not text; log in again", reason="undecodable"
            ) from None
    return parameters


def _fields(query: str) -> Iterator[tuple[str, bytes]]:
    """The known, non-empty parameters of a form-encoded query (RFC 6749 App. B)."""
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        known = _decode(name).decode("ascii", "replace")
        if known in _KNOWN and value:
            yield known, _decode(value)


def _decode(text: str) -> bytes:
    return unquote_to_bytes(text.replace("+", " ").encode("utf-8", "surrogatepass"))


def same(received: str | bytes, expected: str) -> bool:
    """Whether a secret is the expected one, in a time that says nothing about it (RND-04)."""
    if isinstance(received, str):
        received = received.encode("utf-8", "surrogatepass")
    return hmac.compare_digest(received, expected.encode("utf-8", "surrogatepass"))
