"""
Who asks, and whom: a client registration (RFC 6749 §2) at an authorization server (RFC 8414 §2).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Final, Literal, assert_never, get_args
from urllib.parse import quote_plus

from attrs import field, frozen

from .errors import ConfigError, InvalidResponse, MissingMetadata, quote
from .http import Headers, Object, Request, is_secure, known, member, post_form, texts

Authentication = Literal[
    "client_secret_basic", "client_secret_basic_raw", "client_secret_post", "none"
]
Quirk = Literal["assume_bearer", "any_token_alphabet"]
QUIRKS: Final[tuple[str, ...]] = get_args(Quirk)

ENDPOINTS: Final = (
    "authorization_endpoint",
    "token_endpoint",
    "device_authorization_endpoint",
    "revocation_endpoint",
)


_PKCE: Final = "code_challenge_methods_supported"


@frozen
class AuthorizationServer:
    """The metadata that the flows need (RFC 8414 §2). None means: not said."""

    issuer: str | None = None
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    device_authorization_endpoint: str | None = None
    revocation_endpoint: str | None = None
    scopes_supported: tuple[str, ...] = ()
    grant_types_supported: tuple[str, ...] = ()
    token_endpoint_auth_methods_supported: tuple[str, ...] = ()
    code_challenge_methods_supported: tuple[str, ...] | None = None
    authorization_response_iss_parameter_supported: bool = False  # RFC 9207 §3

    def endpoint(self, name: str) -> str:
        """The URL of an endpoint; raises MissingMetadata if the server has none."""
        url: str | None = getattr(self, name)
        if url is None:
            raise MissingMetadata(
                f"the authorization server names no {name}; choose another authType, "
                f"or set endpoints.{name}",
                reason=name,
            )
        return url


def parse_metadata(body: Object, plain_host: str | None = None) -> AuthorizationServer:
    """Authorization server metadata. Unknown members are ignored, known ones of a wrong type are
    not (RFC 8414 §3.2), and no credential may go to an insecure endpoint (RFC 6749 §3.1, §3.2).
    """
    urls = {name: member(body, name) for name in ENDPOINTS}
    for name, url in urls.items():
        if url is not None and not is_secure(url, plain_host):
            raise InvalidResponse(
                f"{name} is not an https URL; report this to whoever runs the server", reason=name
            )
    flag = known(body, "authorization_response_iss_parameter_supported")
    if not isinstance(flag, bool | None):
        raise InvalidResponse(
            "authorization_response_iss_parameter_supported is not true or false; "
            "report this to whoever runs the server",
            reason="authorization_response_iss_parameter_supported",
        )
    methods = known(body, _PKCE)
    return AuthorizationServer(
        issuer=member(body, "issuer"),
        scopes_supported=texts(body, "scopes_supported"),
        grant_types_supported=texts(body, "grant_types_supported"),
        token_endpoint_auth_methods_supported=texts(body, "token_endpoint_auth_methods_supported"),
        # An empty list says that there is no PKCE; no list says nothing (RFC 9700 §2.1.1).
        code_challenge_methods_supported=None if methods is None else texts(body, _PKCE),
        authorization_response_iss_parameter_supported=bool(flag),
        **urls,
    )


@frozen
class Client:
    """One registration at one server; configuration of a flow, never part of a saved state.

    ``extra_parameters`` are added to the requests to the endpoint that they are filed under:
    "authorization", "device_authorization" or "token". ``plain_host`` is a host that the user
    lets credentials go to unencrypted.
    """

    server: AuthorizationServer
    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    authentication: Authentication | None = None
    audience: str | None = None
    extra_parameters: Mapping[str, Mapping[str, str]] = field(factory=dict, repr=False)
    quirks: frozenset[Quirk] = frozenset()
    plain_host: str | None = None

    def added_to(self, endpoint: str, protocol: frozenset[str]) -> dict[str, str]:
        """The caller's own parameters, none of which may shadow one of the *protocol*."""
        extra = self.extra_parameters.get(endpoint, {})
        for name in sorted(protocol & extra.keys()):
            raise ConfigError(
                f"extra_parameters may not set {name!r}: it belongs to the protocol; remove it",
                reason="extra_parameters",
            )
        return dict(extra)

    def token_request(self, grant_type: str, /, **form: str | None) -> Request:
        """A request to the token endpoint (RFC 6749 §3.2)."""
        url = self.server.endpoint("token_endpoint")
        return self.authenticated(url, {"grant_type": grant_type, **form}, extra="token")

    def authenticated(
        self, url: str, form: Mapping[str, str | None], *, extra: str | None = None
    ) -> Request:
        """A form POST with exactly one kind of client authentication (RFC 6749 §2.3)."""
        headers: Headers = ()
        own: dict[str, str | None] = {}
        method = self.authentication_method()
        match method:
            case "none":
                own = {"client_id": self.client_id}
            case "client_secret_post":
                own = {"client_id": self.client_id, "client_secret": self.client_secret}
            case "client_secret_basic":  # RFC 6749 §2.3.1: each part form-encoded on its own
                headers = _basic(quote_plus(self.client_id), quote_plus(self.client_secret or ""))
            case "client_secret_basic_raw":
                headers = _basic(self.client_id, self.client_secret or "")
            case _:
                assert_never(method)
        protocol = {**form, **own}
        added = self.added_to(extra, PROTOCOL | protocol.keys()) if extra else {}
        return post_form(url, {**protocol, **added}, headers)

    def authentication_method(self) -> Authentication:
        """What was configured, else what the server lists, else basic (RFC 8414 §2)."""
        if self.client_secret is None:
            return "none"
        if self.authentication is not None:
            return self.authentication
        listed = self.server.token_endpoint_auth_methods_supported or ("client_secret_basic",)
        if "client_secret_basic" in listed:
            return "client_secret_basic"
        if "client_secret_post" in listed:
            return "client_secret_post"
        raise ConfigError(
            "the authorization server takes no client secret "
            f"(it lists {quote(', '.join(listed))}); set client_auth to override",
            reason="auth_method",
        )


# Parameters that a caller's extras may never set, at any endpoint.
PROTOCOL: Final = frozenset(
    "client_id client_secret redirect_uri response_type response_mode scope state nonce "
    "code code_challenge code_challenge_method code_verifier grant_type device_code "
    "refresh_token request request_uri dpop_jkt client_assertion client_assertion_type".split()
)


def _basic(name: str, password: str) -> Headers:
    pair = b64encode(f"{name}:{password}".encode()).decode()
    return (("authorization", f"Basic {pair}"),)


_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


def join_scopes(scopes: Iterable[str]) -> str:
    """Scopes as they go on the wire (RFC 6749 §3.3), exactly as configured."""
    scopes = list(scopes)
    for scope in scopes:
        if not _SCOPE_TOKEN.fullmatch(scope):
            raise ConfigError(
                f"{scope[:40]!r} is not a scope: write scopes as a list, without quotes or spaces",
                reason="scopes",
            )
    return " ".join(scopes)
