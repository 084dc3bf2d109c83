"""
HTTP as values: requests, responses, and how to read what servers really send.

Nothing here trusts its input. Any bytes give a value or an InvalidResponse, and every number
of seconds is finite.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote as percent_encode, urlencode, urlsplit, urlunsplit

from attrs import field, frozen

from .errors import InvalidResponse, quote
from .urls import (
    is_loopback as is_loopback,  # noqa: PLC0414
    is_secure as is_secure,  # noqa: PLC0414
    plain_host as plain_host,  # noqa: PLC0414
    split_url as split_url,  # noqa: PLC0414
)

BODY_MAX: Final = 1024 * 1024
YEAR: Final = 365 * 24 * 3600.0

Headers = tuple[tuple[str, str], ...]


@frozen
class Request:
    """One HTTP request. Headers and body may hold secrets, so a repr shows neither."""

    method: str
    url: str
    headers: Headers = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)

    def header(self, name: str) -> str | None:
        """The first value of a header, whatever the case of its name."""
        return _header(self.headers, name)


@frozen
class Response:
    """One HTTP response; the body may hold tokens, so a repr does not show it."""

    status: int
    headers: Headers = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)

    def header(self, name: str) -> str | None:
        """The first value of a header, whatever the case of its name."""
        return _header(self.headers, name)

    @property
    def transient(self) -> bool:
        """Whether the same request may well succeed later (RFC 9110 §15.6, RFC 6585 §4)."""
        return self.status in {408, 429} or self.status >= 500


def _header(headers: Headers, name: str) -> str | None:
    wanted = name.lower()
    return next((value for key, value in headers if key.lower() == wanted), None)


JSON: Final = (("accept", "application/json"),)


def get(url: str) -> Request:
    return Request("GET", url, JSON)


def post_form(url: str, form: Mapping[str, str | None], headers: Headers = ()) -> Request:
    """A form POST (RFC 6749 App. B). Parameters without a value are left out (§3.1, §3.2)."""
    body = urlencode({name: value for name, value in form.items() if value})
    content_type = ("content-type", "application/x-www-form-urlencoded")
    return Request("POST", url, (*JSON, content_type, *headers), body.encode())


def post_json(url: str, message: object, headers: Headers = ()) -> Request:
    """A POST of one JSON message, as the Connect protocol wants it."""
    content_type = ("content-type", "application/json")
    body = json.dumps(message, separators=(",", ":"))
    return Request("POST", url, (*JSON, content_type, *headers), body.encode())


# Reading JSON.


class Object(dict[str, Any]):
    """A JSON object that remembers which of its members were given more than once."""

    repeated: frozenset[str] = frozenset()


def _object(pairs: list[tuple[str, Any]]) -> Object:
    members = Object(pairs)
    if len(members) != len(pairs):
        members.repeated = repeated(name for name, _ in pairs)
    return members


def repeated(names: Iterable[str]) -> frozenset[str]:
    """Those of *names* that are there more than once."""
    return frozenset(name for name, count in Counter(names).items() if count > 1)


def _no_constant(name: str) -> float:
    raise ValueError  # NaN and Infinity are not JSON


def parse_object(response: Response, host: str = "") -> Object:
    """The JSON object in a response, whatever its Content-Type claims; *host* said it."""
    where = f"{quote(host)}: " if host else ""
    if len(response.body) > BODY_MAX:
        raise InvalidResponse(
            f"{where}the answer is larger than {BODY_MAX} bytes; check the endpoint",
            reason="too_large",
        )
    parsed = json_object(response.body)
    if parsed is None:
        raise InvalidResponse(where + _not_json(response), reason="not_json")
    return parsed


def json_object(text: bytes) -> Object | None:
    """The JSON object that *text* is, or None if it is something else."""
    try:
        parsed = json.loads(
            text.decode("utf-8-sig"), object_pairs_hook=_object, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, Object) else None


def is_html(response: Response) -> bool:
    start = response.body[:512].lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head", b"<body"))


def _not_json(response: Response) -> str:
    if is_html(response):
        return (
            f"a web page came back instead of JSON (status {response.status}): the endpoint looks "
            "like a web console, or a login page stands in between; check the endpoint"
        )
    return f"the answer is not a JSON object (status {response.status}); check the endpoint"


def member(body: Object, name: str) -> str | None:
    """A text member. Absent, null and empty are the same (RFC 6749 §3.2); repeated is an error."""
    value = known(body, name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _is_text(value):
        raise _malformed(name, "is not text")
    return value


def required(body: Object, name: str) -> str:
    value = member(body, name)
    if value is None:
        raise _malformed(name, "is missing")
    return value


def texts(body: Object, name: str) -> tuple[str, ...]:
    """A member that is a list of texts; absent is empty."""
    value = known(body, name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(x, str) and _is_text(x) for x in value):
        raise _malformed(name, "is not a list of texts")
    return tuple(value)


def known(body: Object, name: str) -> Any:
    """A member that we know, which must not be there twice (RFC 6749 §3.2)."""
    if name in body.repeated:
        raise InvalidResponse(
            f"the answer repeats {name!r}; report this to whoever runs the server",
            reason="duplicate",
        )
    return body.get(name)


def seconds(value: object) -> float | None:
    """A positive number of seconds, or None where it is not one.

    Servers send 3600, 3600.0 and "3600", and sometimes nonsense (RFC 6749 App. A.14). Clamped
    to a year, so that arithmetic with it stays finite.
    """
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not value.is_integer():  # also nan and inf
        return None
    return float(min(value, YEAR)) if value > 0 else None


_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def _is_text(value: str) -> bool:
    """Whether it has no halves of characters, which JSON can name and nothing can encode."""
    return value.isascii() or _SURROGATE.search(value) is None


def _malformed(name: str, how: str) -> InvalidResponse:
    return InvalidResponse(
        f"{name!r} {how} in the answer; report this to whoever runs the server", reason=name
    )


# Retry-After, RFC 9110 §10.2.3.

RETRY_AFTER_MAX: Final = 120.0
_MONTHS: Final = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_HTTP_DATE: Final = re.compile(
    r"[A-Z][a-z]{2,8}, (?P<day>[0-9]{2})[ -](?P<month>[A-Z][a-z]{2})[ -]"
    r"(?P<year>[0-9]{2}|[0-9]{4}) (?P<time>[0-9]{2}:[0-9]{2}:[0-9]{2}) GMT"
)
_ASCTIME: Final = re.compile(
    r"[A-Z][a-z]{2} (?P<month>[A-Z][a-z]{2}) (?P<day>[ 0-9][0-9]) "
    r"(?P<time>[0-9]{2}:[0-9]{2}:[0-9]{2}) (?P<year>[0-9]{4})"
)


def retry_after(response: Response, at: float) -> float | None:
    """How long the server asks us to wait, in seconds from *at*; None if it does not say."""
    value = (response.header("retry-after") or "").strip()
    if re.fullmatch(r"[0-9]{1,20}", value):
        return min(float(value), YEAR)
    date = http_date(value)
    return None if date is None else min(max(0.0, date - at), YEAR)


def http_date(value: str) -> float | None:
    """An HTTP-date (RFC 9110 §5.6.7) as POSIX seconds; None if it is not one.

    A year of two digits is the one in 1970 to 2069: nobody sends a date of another time.
    """
    match = _HTTP_DATE.fullmatch(value) or _ASCTIME.fullmatch(value)
    if match is None or match["month"] not in _MONTHS:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        year += 1900 if year >= 70 else 2000
    date = (year, _MONTHS.index(match["month"]) + 1, int(match["day"]))
    hour, minute, second = map(int, match["time"].split(":"))
    try:
        return datetime(*date, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        return None


# URLs.


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: what two URLs share if a credential for one fits the other."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default


def host_of(url: str) -> str:
    """Host and port of *url*, fit to stand in a message."""
    return urlsplit(url).netloc.rpartition("@")[2]


def add_query(url: str, parameters: Iterable[tuple[str, str]]) -> str:
    """*url* with *parameters* after those that it has already (RFC 6749 §3.1)."""
    parts = urlsplit(url)
    added = urlencode(list(parameters), quote_via=percent_encode)
    return urlunsplit(parts._replace(query="&".join(filter(None, [parts.query, added]))))


def same_path(url: str, path: str) -> str:
    """The URL at *path* on the server of *url*, path and query replaced."""
    return urlunsplit(urlsplit(url)._replace(path=path, query="", fragment=""))


def ascii_url(url: str) -> str:
    """*url* with its host in punycode and the rest percent-encoded, as it is safe to print.

    What cannot be written so comes back as it is; split_url then refuses it.
    """
    try:
        parts = urlsplit(url)
        if url.isascii() or parts.hostname is None or "@" in parts.netloc:
            return url
        host = parts.hostname.encode("idna").decode()
        host = f"[{host}]" if ":" in host else host
        port = "" if parts.port is None else f":{parts.port}"
        safe = "/:?#[]@!$&'()*+,;=%~"
        rest = (parts.path, parts.query, parts.fragment)
        tail = [percent_encode(part, safe=safe) for part in rest]
    except ValueError:  # also UnicodeError
        return url
    return urlunsplit((parts.scheme, host + port, *tail))
