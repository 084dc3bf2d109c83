"""Where a Redis or Valkey server is, and who we are to it: its URL."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from attrs import field, frozen

from ..._sansio.errors import ConfigError

# To whether TLS is spoken.
_SCHEMES: Final = {
    "redis": False,
    "valkey": False,
    "rediss": True,
    "valkeys": True,
    "redis+unix": False,
    "unix": False,
}
_HOST: Final = re.compile(r"[A-Za-z0-9._:%-]+")


@frozen
class Address:
    """The parts of a URL. ``path`` is that of a local socket; then there is no host."""

    host: str
    port: int
    path: str | None
    db: int
    tls: bool
    user: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def where(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.path or f'{host}:{self.port}'}/{self.db}"


def check_url(url: str) -> None:
    """Raise ConfigError if *url* does not name a Redis or Valkey server."""
    parse_url(url)


def parse_url(url: str) -> Address:
    """The parts of *url*. Nothing of it is quoted in an error: a password may stand anywhere."""
    if not url.isprintable() or " " in url:
        raise _wrong("has a blank or a control character in it")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _wrong("has no host and port that can be read") from None
    if parts.scheme not in _SCHEMES:
        raise _wrong("does not begin with one of " + ", ".join(f"{s}://" for s in _SCHEMES))
    if "#" in url:
        raise _wrong("has a # in it")
    path, database = None, parts.path.removeprefix("/")
    if parts.scheme.endswith("unix"):
        path, database = unquote(parts.path), ""
        if host or port is not None or path in {"", "/"} or not path.isprintable():
            raise _wrong("does not name a socket by its whole path")
    elif not _HOST.fullmatch(host) or port == 0:
        raise _wrong("names no host, or not as a name or an IP address")
    options = parse_qsl(parts.query, keep_blank_values=True)
    if parts.query and (database or [name for name, _ in options] != ["db"]):
        raise _wrong("has options after a ?, where only db is known, and only once")
    number = database or (options[0][1] if options else "0")
    if not (number.isascii() and number.isdecimal() and len(number) < 10):
        raise _wrong("does not end with the number of a database")
    return Address(
        host="" if path else host,
        port=0 if path else port or 6379,
        path=path,
        db=int(number),
        tls=_SCHEMES[parts.scheme],
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
    )


def _wrong(why: str) -> ConfigError:
    return ConfigError(
        f"the URL of the Redis server {why}; write redis://user:password@host:6379/0, with "
        "special characters in user and password percent-encoded",
        reason="redis_url",
    )
