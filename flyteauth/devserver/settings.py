"""What can be set on the embedded control plane, and what it can be told to get wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from attrs import Attribute, field, frozen

from .._sansio.http import is_loopback, split_url
from .clients import LOOPBACK_REDIRECT

Approval = Literal["auto", "page"]

FAULTS: Final[dict[str, str]] = {
    # Discovery
    "html-discovery": "discovery answers with the HTML of a web console",
    "login-redirect": "a login proxy redirects discovery and calls to its own page",
    "discovery-503": "discovery is not available (503)",
    "no-auth": "an anonymous control plane: no discovery, no tokens, calls are open",
    "flyte1-only": "no Connect discovery (404), only Flyte 1's documents",
    "no-device": "the device authorization endpoint is empty",
    "empty-header-key": "authorizationMetadataKey is empty",
    "custom-header-key": "tokens are taken from the header flyte-authorization only",
    # The authorization endpoint
    "deny": "whatever the user is asked, the answer is no",
    "wrong-iss": "the redirect names another issuer",
    "missing-iss": "the redirect names no issuer, although the metadata promise it",
    "wrong-state": "the redirect carries another state",
    "wrong-nonce": "the ID token carries another nonce",
    "code-expired": "every authorization code has expired when it is redeemed",
    # The token endpoint
    "refresh-503": "every refresh gets 503 with Retry-After and a page",
    "refresh-503-once": "the first refresh gets 503 with Retry-After and a page",
    "refresh-no-rotation-field": "a refresh returns no refresh_token, the old one stays valid",
    "no-refresh-token": "no grant returns a refresh_token",
    "token-no-expires-in": "token replies lack expires_in",
    "token-string-expires-in": "expires_in is a string",
    "token-html": "the token endpoint answers 200 with a page",
    "huge-body": "token replies are 10 MB long",
    "escape-codes": "error descriptions carry terminal escape sequences",
    # Device authorization
    "no-interval": "the device authorization reply lacks interval",
    "poll-slow-down": "the first and then every second poll gets slow_down",
    "poll-429": "the first and then every second poll gets 429 with Retry-After",
    "poll-502-html": "the first and then every second poll gets 502 with a page",
    # Calls and revocation
    "always-401": "protected calls reject every token",
    "apps-unimplemented": "there are no API keys (501), as in Flyte without Union",
    "revoke-503": "revocation is not available (503)",
}


def _positive(settings: Settings, attribute: Attribute[Any], value: float) -> None:
    if not 0 < value < 1e9:
        raise ValueError(f"{attribute.name} must be a positive number of seconds")


def _whole(settings: Settings, attribute: Attribute[Any], value: float) -> None:
    # expires_in and interval are whole numbers on the wire, and none may round down to nothing.
    if not 1 <= value < 1e9:
        raise ValueError(f"{attribute.name} must be at least 1 second")


def _not_negative(settings: Settings, attribute: Attribute[Any], value: float) -> None:
    if not 0 <= value < 1e9:
        raise ValueError(f"{attribute.name} must not be negative")


def _base(settings: Settings, attribute: Attribute[str], value: str) -> None:
    parts = split_url(value)
    path = attribute.name == "issuer"  # RFC 8414 §2 lets an issuer have a path, but no query
    if parts is None or "?" in value or "#" in value or "@" in value or value.endswith("/"):
        raise ValueError(f"{attribute.name} must be an http or https URL without a trailing slash")
    if parts.path and not path:
        raise ValueError(f"{attribute.name} must not have a path")


def _callback(settings: Settings, attribute: Attribute[str], value: str) -> None:
    if LOOPBACK_REDIRECT.fullmatch(value) is None:
        raise ValueError(f"{attribute.name} must be like http://localhost:53593/callback")


def _known(settings: Settings, attribute: Attribute[frozenset[str]], value: frozenset[str]) -> None:
    if unknown := sorted(value - FAULTS.keys()):
        raise ValueError(f"unknown fault {unknown[0]!r}; valid are {', '.join(sorted(FAULTS))}")


def _names(names: Iterable[str]) -> frozenset[str]:
    return frozenset(names)


def _approval(settings: Settings, attribute: Attribute[Approval], value: Approval) -> None:
    if value not in {"auto", "page"}:
        raise ValueError("approve must be 'auto' or 'page'")


@frozen(kw_only=True)
class Settings:
    """The configuration of a control plane. All lifetimes are in seconds.

    ``base_url`` is where it is reached, without a trailing slash; ``issuer`` is the same unless
    set, and so is ``endpoint``, which is what people configure. ``redirect_uri`` is the one that
    clients are told to use. ``approve`` says who decides on a login: a person on a page, or nobody
    ("auto"). ``dataplane_domain`` is named as it stands, whatever a client makes of it.
    """

    base_url: str = field(default="http://localhost:8080", validator=_base)
    issuer: str = field(validator=_base)
    endpoint: str = field()
    redirect_uri: str = field(default="http://localhost:53593/callback", validator=_callback)
    approve: Approval = field(default="page", validator=_approval)
    access_ttl: float = field(default=1800.0, validator=_whole)
    refresh_ttl: float = field(default=24 * 3600.0, validator=_positive)
    code_ttl: float = field(default=60.0, validator=_positive)  # RFC 6749 §4.1.2: short
    device_ttl: float = field(default=600.0, validator=_whole)
    device_interval: int = field(default=1, validator=_whole)
    dataplane_domain: str | None = None
    rotate: bool = True
    reuse_detection: bool = True
    grace: float = field(default=0.0, validator=_not_negative)
    faults: frozenset[str] = field(factory=frozenset, converter=_names, validator=_known)

    @issuer.default
    def _issuer(self) -> str:
        return self.base_url

    @endpoint.default
    def _endpoint(self) -> str:
        return self.base_url

    def fault(self, name: str) -> bool:
        """Whether this fault is switched on."""
        return name in self.faults

    def serves(self, host: str | None) -> bool:
        """Whether a request for *host* is meant for us. Other names are DNS rebinding."""
        return host is None or is_loopback(host) or host == urlsplit(self.base_url).hostname
