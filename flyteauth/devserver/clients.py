"""Who may ask the authorization server: registered clients, how they prove it, and for what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_plus

from attrs import field, frozen

from .._sansio.http import Request
from .messages import Form, Refusal, basic
from .seed import same

AUTHORIZATION_CODE: Final = "authorization_code"
REFRESH_TOKEN: Final = "refresh_token"  # noqa: S105 - the name of a grant
CLIENT_CREDENTIALS: Final = "client_credentials"
DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
PUBLIC: Final = "none"  # the method of a client that cannot authenticate

SCOPES: Final = ("all", "offline", "access_token", "openid", "profile", "email", "offline_access")
DEFAULT_SCOPES: Final = ("offline", "all")
SERVICE_CLIENT_ID: Final = "demo-ci"

_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 §3.3
# RFC 8252 §7.3: any port of a loopback address, here also of the name that Flyte registers.
LOOPBACK_REDIRECT: Final = re.compile(
    r"http://(?:127\.0\.0\.1|\[::1\]|localhost)(?::([1-9][0-9]{0,4}))?/callback"
)


@frozen
class Registration:
    """A registered client (RFC 6749 §2), in the words of RFC 7591 §2.

    Without a secret it is public. ``client_id_issued_at``: POSIX seconds. ``redirects``: to any
    port of this machine.
    """

    client_id: str
    grant_types: tuple[str, ...]
    client_secret: str | None = field(default=None, repr=False)
    redirects: bool = False
    client_name: str = ""
    client_id_issued_at: int = 0
    redirect_uris: tuple[str, ...] = ()
    response_types: tuple[str, ...] = ()
    token_endpoint_auth_method: str = PUBLIC

    def must_be_allowed(self, grant_type: str) -> None:
        if grant_type not in self.grant_types:
            raise Refusal("unauthorized_client", "the client may not use this grant")

    def may_redirect_to(self, uri: str) -> bool:
        """Whether *uri* is a registered redirect_uri (RFC 6749 §3.1.2.2, RFC 8252 §7.3)."""
        if uri in self.redirect_uris:
            return True
        match = LOOPBACK_REDIRECT.fullmatch(uri)
        return self.redirects and match is not None and int(match[1] or 80) < 65536


class Clients:
    """The registered clients: Flyte's two public ones, a service client, and what people add."""

    def __init__(self, client_secret: str) -> None:
        public = (AUTHORIZATION_CODE, REFRESH_TOKEN, DEVICE_CODE)
        self.service: Final = Registration(
            SERVICE_CLIENT_ID,
            (CLIENT_CREDENTIALS,),
            client_secret,
            client_name=SERVICE_CLIENT_ID,
            token_endpoint_auth_method="client_secret_basic",  # noqa: S106 - the name of a method
        )
        self._by_id: Final = {
            "flytectl": Registration("flytectl", public, redirects=True),
            "flyte-cli": Registration("flyte-cli", public, redirects=True),
            SERVICE_CLIENT_ID: self.service,
        }
        self._built_in: Final = frozenset(self._by_id)

    def get(self, client_id: str) -> Registration | None:
        return self._by_id.get(client_id)

    def is_built_in(self, client_id: str) -> bool:
        """Whether the client was there before anybody added one."""
        return client_id in self._built_in

    def apps(self) -> Sequence[Registration]:
        """What counts as an app, by client id: all but Flyte's own public clients."""
        found = (client for client in self._by_id.values() if not client.redirects)
        return sorted(found, key=lambda client: client.client_id)

    def add(self, client: Registration) -> None:
        self._by_id[client.client_id] = client

    def remove(self, client_id: str) -> None:
        del self._by_id[client_id]

    def authenticated(self, request: Request, form: Form) -> Registration:
        """The client that sent *request* (RFC 6749 §2.3); raises Refusal."""
        in_header = basic(request)
        in_body = form.get("client_secret")
        if in_header is not None and in_body is not None:
            raise Refusal("invalid_request", "only one way of client authentication is allowed")
        if in_header is not None:
            client = self._by_basic(*in_header)
            if form.get("client_id") not in {None, client.client_id}:
                raise Refusal("invalid_request", "client_id names another client")
            return client
        named = self._by_id.get(form.required("client_id"))
        # A public client has no secret to show, a confidential one has to show its own.
        if named is None or (named.client_secret is None) != (in_body is None):
            raise Refusal("invalid_client", "the client is unknown or not authenticated", 401)
        if named.client_secret is not None and not same(named.client_secret, in_body or ""):
            raise Refusal("invalid_client", "the client secret is wrong", 401)
        return named

    def _by_basic(self, name: str, password: str) -> Registration:
        """client_secret_basic, form-encoded as §2.3.1 says or raw as many clients do."""
        for client_id, secret in ((unquote_plus(name), unquote_plus(password)), (name, password)):
            client = self._by_id.get(client_id)
            registered = None if client is None else client.client_secret
            if client is not None and registered is not None and same(registered, secret):
                return client
        raise Refusal("invalid_client", "client id or secret are wrong", 401)


def parse_scopes(text: str | None) -> tuple[str, ...]:
    """The scopes asked for (RFC 6749 §3.3), each once; the default where none is named."""
    if text is None:
        return DEFAULT_SCOPES
    scopes = tuple(dict.fromkeys(text.split(" ")))
    if not all(_SCOPE.fullmatch(scope) and scope in SCOPES for scope in scopes):
        raise Refusal("invalid_scope", f"valid scopes are {' '.join(SCOPES)}")
    return scopes
