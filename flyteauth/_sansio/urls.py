"""URLs and hosts, and where a credential may travel to."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit


def split_url(url: str) -> SplitResult | None:
    """The parts of an absolute http or https URL with a host, or None if it is not one."""
    if not re.fullmatch(r"[\x21-\x7e]+", url) or "\\" in url:
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return None
    return parts


def is_loopback(host: str) -> bool:
    """Whether *host* can only be this machine: 127.0.0.0/8, ::1 or localhost (RFC 8252 §8.3)."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_secure(url: str, plain_host: str | None = None) -> bool:
    """Whether a credential may travel to *url*: https, or plain http to this machine, or to the
    one other host that the user allows it for.

    Neither userinfo nor a fragment is allowed (RFC 6749 §3.1, §3.2; RFC 8252 §8.3).
    """
    parts = split_url(url)
    if parts is None or "@" in parts.netloc or "#" in url:
        return False
    host = parts.hostname or ""
    return parts.scheme == "https" or is_loopback(host) or host == plain_host


def plain_host(endpoint: str) -> str | None:
    """The host of an endpoint that is reached without TLS: the user has allowed that for it."""
    parts = urlsplit(endpoint)
    return parts.hostname if parts.scheme == "http" else None


# Hosts.

_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# Letters that the Python codec, which speaks the older IDNA, turns into others: another host.
_DEVIATIONS: Final = frozenset("ßẞς\u200c\u200d")


def canonical_host(text: str) -> str:
    """A host in its one spelling: lower case, punycode, addresses compressed, no brackets; "" where
    the text is none.
    """
    try:
        return _address(text) or _name(text)
    except ValueError:  # also UnicodeError and AddressValueError, which hold the text
        return ""


def _address(text: str) -> str:
    """An IP address, or "" where the text is none. A zone is of this machine: no server has one."""
    if text.startswith("["):
        return IPv6Address(text[1:-1]).compressed if re.fullmatch(r"\[[^%]*\]", text) else ""
    # What ends in digits is an IPv4 address or nothing; resolvers have odd ideas of the rest.
    return str(IPv4Address(text)) if re.fullmatch(r"(.*\.)?[0-9]+", text) else ""


def _name(text: str) -> str:
    """A host name, or "" where the text is none."""
    if not text.isascii():
        if _DEVIATIONS & set(text):
            return ""
        text = text.encode("idna").decode()  # which also turns other digits into ours
        if address := _address(text):
            return address
    text = text.lower()
    valid = len(text) <= 253 and all(map(_LABEL.fullmatch, text.split(".")))
    return text if valid else ""
