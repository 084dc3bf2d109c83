"""
Where credentials may travel to: the one decision that every adapter asks for.

They go to the endpoint's own origin, to those that the user names, and, where the control plane
names its data-plane domain (flyteidl2.auth, ``dataplane_domain``), to that domain and to whatever
is below it, but there over https and on port 443 alone. Nothing else is close enough: neither
another port nor another spelling of the host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from attrs import evolve, frozen

from .errors import ConfigError
from .urls import canonical_host, is_loopback, split_url

Origin = tuple[str, str, int]
"""Scheme, host and port (RFC 6454 §4): the host in lower case, without brackets, in punycode."""

_PORT: Final = {"http": 80, "https": 443}
_AUTHORITY: Final = re.compile(r"(?:\[[^][@]*\]|[^][@:]+)(?::[0-9]*)?")
_EXAMPLE: Final = "write each like https://files.example.com"


@frozen
class Origins:
    """The servers that a session's credentials may go to."""

    exact: frozenset[Origin] = frozenset()
    domain: str | None = None

    def allow(self, url: str) -> bool:
        """Whether a credential may go to *url*: not if it cannot be read beyond doubt."""
        origin = origin_of(url)
        return origin is not None and self.allow_origin(*origin)

    def allow_origin(self, scheme: str, host: str, port: int) -> bool:
        """The same of what an HTTP library has made of a URL."""
        if (scheme, host, port) in self.exact:
            return True
        if self.domain is None or (scheme, port) != ("https", 443):
            return False
        below = host.removesuffix(f".{self.domain}")
        return host == self.domain or (below != host and canonical_host(host) == host)

    def including(self, texts: Iterable[str], plain_host: str | None = None) -> Origins:
        """These, and the origins that a user names; ConfigError for what is none, or is neither
        https, nor on this machine, nor on *plain_host*.
        """
        named = {parse_origin(text, plain_host) for text in texts}
        return evolve(self, exact=self.exact | named) if named else self


def origin_of(url: str) -> Origin | None:
    """The origin of an absolute http or https URL; None if it is not one, or holds userinfo."""
    parts = split_url(url)
    # What stands beside the brackets of an address is not part of urlsplit's host, but may be of
    # somebody else's; and userinfo is there to make a host look like another.
    if parts is None or not _AUTHORITY.fullmatch(parts.netloc):
        return None
    port = _PORT[parts.scheme] if parts.port is None else parts.port
    return parts.scheme, parts.hostname or "", port


def parse_origin(text: str, plain_host: str | None = None) -> Origin:
    """The origin that a user names in ``origins=``."""
    origin = _read(text)
    if origin is None:
        raise ConfigError(f"origins holds what is not an origin; {_EXAMPLE}", reason="origins")
    scheme, host, _ = origin
    if scheme == "http" and host != plain_host and not is_loopback(host):
        raise ConfigError(
            f"origins would let credentials travel unencrypted to {host}; {_EXAMPLE}",
            reason="insecure",
        )
    return origin


_TEXT: Final = re.compile(
    r"(https?)://(\[[^][]*\]|[^][:/?#@\\\s]+)(?::([0-9]{1,5}))?/?", re.IGNORECASE
)


def _read(text: object) -> Origin | None:
    if not isinstance(text, str) or not (match := _TEXT.fullmatch(text)):
        return None
    scheme, host = match[1].lower(), canonical_host(match[2])
    port = int(match[3] or _PORT[scheme])
    return (scheme, host, port) if host and 0 < port < 65536 else None


# The data-plane domain.

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# Below a country, what belongs to everybody: co.uk, com.au. Not the whole public suffix list, but
# enough that a slip in a configuration does not hand credentials to strangers.
_SHARED: Final = frozenset("ac co com edu go gob gov gouv gv mil ne net nom or org".split())


def data_plane_domain(text: str | None) -> str | None:
    """The domain that a control plane names for its data plane, or None if it names none that a
    credential could be trusted to: no host name of two labels or more, an address, or a suffix
    that strangers share.
    """
    domain = (text or "").lower()
    labels = domain.split(".")
    valid = len(domain) <= 253 and all(map(_LABEL.fullmatch, labels))
    # What ends in digits, or in 0x…, is an address to some resolvers.
    if not valid or len(labels) < 2 or not labels[-1][0].isalpha():
        return None
    shared = len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _SHARED
    return None if shared else domain
