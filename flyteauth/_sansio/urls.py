"""URLs and hosts, and where a credential may travel to."""

from __future__ import annotations

import re
from ipaddress import ip_address
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
