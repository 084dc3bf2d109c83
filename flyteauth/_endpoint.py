"""
Endpoints: what people write, and the one server that they mean.

``flyte.example.com``, ``dns:///flyte.example.com``, ``https://flyte.example.com`` and
``http://flyte.example.com`` are the same endpoint, reached over TLS. Plain HTTP is for this
machine (``http://localhost:8080``), or where ``insecure`` says so.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from ._sansio.errors import ConfigError
from ._sansio.urls import canonical_host, is_loopback
from ._sansio.value import Value


class Endpoint(Value, hidden=("spelling",), uncompared=("spelling",)):
    """A Flyte control plane. ``warning`` is one line to be shown to a person, or None."""

    url: str
    """https://host[:port][/path], or http:// where there is no TLS; without a trailing slash."""
    key: str
    """host[:port][/path], the same for every spelling of the endpoint."""
    host: str
    warning: str | None = None
    spelling: str = ""
    """As it was written: other tools take it as it is."""

    def agrees_with(self, other: Endpoint) -> bool:
        """Whether the two may be one control plane: one host, and no two ports. Loopback names are
        one host; a port that is not written says nothing.
        """
        ports = {urlsplit(each.url).port for each in (self, other)} - {None}
        here = is_loopback(self.host) and is_loopback(other.host)
        return (self.host == other.host or here) and len(ports) < 2


EXAMPLE: Final = "write it like dns:///flyte.example.com or https://flyte.example.com:8443"

_DEFAULT_PORT: Final = {"http": 80, "https": 443}
_AUTHORITY: Final = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::([^:]*))?")
_PATH: Final = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*")


def parse_endpoint(
    text: str, *, insecure: bool, allow_insecure_credentials: bool, source: str
) -> Endpoint:
    """The endpoint that *text* means; ConfigError names *source*, and never repeats *text*.

    ``insecure`` means no TLS, not no authentication. Credentials travel unencrypted to this
    machine only, or, with a warning, where ``allow_insecure_credentials`` is true.
    """
    try:
        scheme, host, port, path = _split(text)
    except ValueError as error:
        problem = str(error)
    else:
        problem = ""
    if problem:
        raise ConfigError(f"{source}: the endpoint {problem}; {EXAMPLE}", reason="endpoint")

    loopback = is_loopback(host)
    plain = insecure or (scheme == "http" and loopback)
    warning = None
    if plain and not loopback:
        if not allow_insecure_credentials:
            raise ConfigError(
                f"{source}: insecure is true, so credentials would travel unencrypted to {host}; "
                "set insecure to false, or allowInsecureCredentials to true",
                reason="insecure",
            )
        warning = (
            f"credentials travel unencrypted to {host}, because allowInsecureCredentials is true; "
            "set insecure to false as soon as the server has TLS"
        )
    scheme = "http" if plain else "https"
    name = f"[{host}]" if ":" in host else host
    explicit = "" if port is None else f":{port}"
    canonical = "" if port == _DEFAULT_PORT[scheme] else explicit
    return Endpoint(
        f"{scheme}://{name}{explicit}{path}", f"{name}{canonical}{path}", host, warning, text
    )


def _split(text: str) -> tuple[str, str, int | None, str]:
    """Scheme ("" if there is none), host, port and path; ValueError says what is wrong."""
    for character, name in _NEVER.items():
        if character in text:
            raise ValueError(name)
    if not text.isprintable():
        raise ValueError("has a line break or another character that cannot be printed")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    scheme = scheme.lower()
    if separator and scheme not in {"dns", "http", "https"}:
        raise ValueError("has a scheme that is not dns, https or http")
    if scheme == "dns":
        if not rest.startswith("/"):
            raise ValueError("needs three slashes after dns:")
        rest = rest[1:]
    authority, slash, path = rest.rstrip("/").partition("/")
    path = slash + path
    if "@" in authority:
        raise ValueError("has a user name or password in it")
    if not (match := _AUTHORITY.fullmatch(authority)) or authority.lower() in {"http", "https"}:
        raise ValueError("has no host that can be read")
    if not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise ValueError("has a path that no server would have")
    if not match[1]:
        raise ValueError("has no host")
    if not (host := canonical_host(match[1])):
        raise ValueError("has a host that is not a host name or an IP address")
    return scheme, host, _port(match[2]), path


_NEVER: Final = {
    " ": "has a space in it",
    "\\": "has a backslash in it",
    "?": "has a query in it",
    "#": "has a fragment in it",
}


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ValueError("has a port that is not a number from 1 to 65535")
    return int(text)
