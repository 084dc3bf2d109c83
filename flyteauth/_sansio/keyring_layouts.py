"""
How Flyte's other clients lay a login down in a keyring: under which names, and in which shape.

    tool        service                  user name                       what
    flyte       host[:port][/path]       tokens                          JSON without expiry
      < 2.5.10  the same                 access_token, refresh_token     each as it is
    flytekit    endpoint, dns:/// cut    access_token, refresh_token,    each as it is
                                         id_token
    flytectl    flytectl                 <endpoint>:flytectl-user        Go's oauth2.Token as JSON

Each takes the endpoint as its configuration spells it, so one endpoint has several places.

On macOS flyte and flytectl run /usr/bin/security, which reaches the same items by the same two
names. In IPython flyte has a file of its own (keyring.cfg), which is not looked at; nor are the
items of flytectl on Windows, where its library names them otherwise.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from base64 import b64decode, urlsafe_b64decode
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from .errors import StoreError, quote
from .token import Token
from .value import Value

Tool = Literal["flyte", "flytekit", "flytectl"]
TOOLS: Final[tuple[Tool, ...]] = get_args(Tool)

Values = Mapping[str, str | None]
"""What lies under each user name; None: nothing."""

_HTTPS: Final = "https://"
_SCHEMES: Final = ("dns:///", _HTTPS, "http://")
_GO_USER: Final = ":flytectl-user"

_ACCESS_TOKEN: Final = re.compile(r"[\x21-\x7e]+")  # what fits into a header
_REFRESH_TOKEN: Final = re.compile(r"[\x20-\x7e]+")  # RFC 6749 App. A.17
_JWT: Final = re.compile(r"[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]*")
_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_NO_EXPIRY: Final = "0001-01-01T00:00:00Z"  # the zero of Go's time.Time
_LATEST: Final = 253402300800.0  # the year 10000


class Place(Value):
    """Where a tool keeps its login to one spelling of an endpoint.

    ``address`` is the part of its two names that the endpoint is in. ``old``: as flyte did before
    2.5.10; it does not look there any more.
    """

    tool: Tool
    address: str
    old: bool = False

    @property
    def service(self) -> str:
        return "flytectl" if self.tool == "flytectl" else self.address

    @property
    def names(self) -> tuple[str, ...]:
        """The user names of its items."""
        match self.tool:
            case "flyte" if not self.old:
                return ("tokens",)
            case "flyte":
                return ("access_token", "refresh_token")
            case "flytekit":
                return ("access_token", "refresh_token", "id_token")
            case _:
                return (f"{self.address}{_GO_USER}",)

    def parse(self, values: Values, at: float) -> Token | None:
        """The login in *values*, read at time *at*; None if there is none.

        Only a refresh token is left of some: then ``access_token`` is empty. Raises StoreError
        ("corrupt") if it is something else.
        """
        read, token = _PARSERS.get(self.tool, _parse_raw), None
        if self.old:
            read = _parse_raw
        try:
            token = read([values.get(name) or "" for name in self.names], at)
        except (ValueError, TypeError, OverflowError, RecursionError, AttributeError):
            broken = True
        else:
            broken = False
        if broken:
            raise StoreError(
                f"what {self.tool} keeps in the keyring for {quote(self.address)} is no login; "
                f"log in with {self.tool} again",
                reason="corrupt",
            )
        return token

    def written(self, token: Token) -> dict[str, str | None]:
        """*token* as the tool writes it, in this order; None: the item has to go, for what it
        holds belongs to another login.
        """
        match self.tool:
            case "flytectl":
                texts: tuple[str | None, ...] = (_dump_go(token),)
            case "flyte" if not self.old:
                members = {"access_token": token.access_token, "refresh_token": token.refresh_token}
                texts = (json.dumps(members),)
            case _:
                texts = (token.access_token, token.refresh_token, token.id_token)
        written = dict(zip(self.names, texts, strict=False))
        # The refresh token first: with an old access token beside it, it is still a login.
        return dict(sorted(written.items(), key=lambda item: item[0] != "refresh_token"))


def places(tool: Tool, endpoint: str, key: str) -> tuple[Place, ...]:
    """Where *tool* may keep a login to an endpoint: first the place that it takes itself where its
    configuration says *endpoint*, then those for other spellings. *key* is the same for all.
    """
    hosts = _hosts(endpoint, key)
    match tool:
        case "flyte":
            return tuple(Place(tool, host, old) for old in (False, True) for host in hosts)
        case "flytekit":
            own = endpoint.replace("dns:///", "")
        case _:
            own = endpoint if "://" in endpoint else f"dns:///{endpoint}"
    spelled = [
        f"{scheme}{host}{slash}"
        for host in hosts
        for scheme in ("", *_SCHEMES)
        for slash in ("", "/")
    ]
    return tuple(Place(tool, address) for address in _once([own, *spelled]))


def places_of(tools: Iterable[Tool], endpoint: str, key: str) -> tuple[Place, ...]:
    """The same for several tools: where a login may be now before where it was long ago, and no
    item twice. What flyte once wrote is just what flytekit writes.
    """
    found = [place for tool in tools for place in places(tool, endpoint, key)]
    found.sort(key=lambda place: place.old)
    taken: dict[tuple[str, str], Place] = {}
    for place in found:
        taken.setdefault((place.service, place.names[0]), place)
    return tuple(taken.values())


def trace(refresh_token: str | None) -> str:
    """What tells one refresh token from another, and not what it is; empty for none."""
    return hashlib.sha256(refresh_token.encode()).hexdigest()[:32] if refresh_token else ""


def _hosts(endpoint: str, key: str) -> list[str]:
    """host[:port][/path], in the spelling of *endpoint* and in others."""
    host, slash, path = key.partition("/")
    port = "" if re.search(r":\d+$", host) else ":443"
    return _once([_bare(endpoint), key, f"{host}{port}{slash}{path}"])


def _bare(endpoint: str) -> str:
    """*endpoint* as flyte names it: the letters as they are, without scheme and slashes."""
    for scheme in _SCHEMES:
        if endpoint[: len(scheme)].lower() == scheme:
            endpoint = endpoint[len(scheme) :]
    return endpoint.rstrip("/")


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


# How each is read. ValueError and its like: it is no login.


def _parse_json(texts: list[str], at: float) -> Token | None:
    if not texts[0]:
        return None
    members = json.loads(texts[0])
    return _token(members.get("access_token"), members.get("refresh_token"), at)


def _parse_raw(texts: list[str], at: float) -> Token | None:
    return _token(texts[0], texts[1], at)


def _parse_go(texts: list[str], at: float) -> Token | None:
    if not texts[0]:
        return None
    members = json.loads(_plain(texts[0]))
    token = _token(members.get("access_token"), members.get("refresh_token"), at)
    expiry = members.get("expiry")
    if token is None or expiry is None:
        return token
    ends = _time(expiry)
    return token if ends is None else token.replace(expires_at=ends)


_PARSERS: Final[Mapping[str, Callable[[list[str], float], Token | None]]] = {
    "flyte": _parse_json,
    "flytekit": _parse_raw,
    "flytectl": _parse_go,
}


def _plain(text: str) -> str:
    """*text* as it was before go-keyring, on macOS, made it fit for a command line."""
    for prefix, decode in (("go-keyring-base64:", b64decode), ("go-keyring-encoded:", _unhex)):
        if text.startswith(prefix):
            return decode(text.removeprefix(prefix)).decode()
    return text


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def _token(access_token: Any, refresh_token: Any, at: float) -> Token | None:
    access_token, refresh_token = access_token or "", refresh_token or None
    if not access_token and refresh_token is None:
        return None
    if access_token and not _ACCESS_TOKEN.fullmatch(access_token):
        raise ValueError
    if refresh_token is not None and not _REFRESH_TOKEN.fullmatch(refresh_token):
        raise ValueError
    return Token(access_token, at, expiry(access_token) if access_token else at, refresh_token)


def expiry(access_token: str) -> float | None:
    """When *access_token* ends, if it is a JWT that says so (RFC 9068 §2.2): something to go by,
    for nobody has checked its signature. None: nobody knows.
    """
    match = _JWT.fullmatch(access_token)
    try:
        segment = match[1] if match else ""
        claims = json.loads(urlsafe_b64decode(segment + "=="))  # too much padding does no harm
        ends = claims.get("exp")
        number = float(ends) if type(ends) in {int, float} else math.nan
    except (ValueError, OverflowError, RecursionError, AttributeError):
        return None
    return number if 0 < number < _LATEST else None


def _time(text: str) -> float | None:
    """POSIX seconds of an RFC 3339 time; None for the zero of Go's time.Time."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError
    day, time, fraction, zone = match.groups()
    whole = datetime.fromisoformat(f"{day}T{time}{zone.upper()}")
    if whole.year == 1:
        return None
    return whole.timestamp() + float(fraction or 0)


def _dump_go(token: Token) -> str:
    members = {"access_token": token.access_token, "token_type": "Bearer"}
    if token.refresh_token is not None:
        members["refresh_token"] = token.refresh_token
    ends = token.expires_at
    known = ends is not None and 0 < ends < _LATEST
    members["expiry"] = _NO_EXPIRY
    if known and ends is not None:
        members["expiry"] = datetime.fromtimestamp(ends, UTC).isoformat().replace("+00:00", "Z")
    return json.dumps(members, separators=(",", ":"))
