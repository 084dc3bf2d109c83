"""The authorization request, RFC 6749 §4.1.1, as the authorization server reads it."""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

from .clients import Clients, Registration, parse_scopes
from .messages import Form, Refusal

_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # the base64url of a SHA-256, §4.2


@frozen
class AuthorizationRequest:
    """A valid authorization request (RFC 6749 §4.1.1, RFC 7636 §4.3)."""

    client: Registration
    redirect_uri: str
    scopes: tuple[str, ...]
    code_challenge: str
    state: str | None = None
    nonce: str | None = None
    prompt: frozenset[str] = frozenset()
    login_hint: str | None = None


def parse_destination(form: Form, clients: Clients) -> tuple[Registration, str]:
    """Client and redirect_uri; raises Refusal where no redirect may happen (§4.1.2.1)."""
    if form.repeated & {"client_id", "redirect_uri"}:
        raise Refusal("invalid_request", "a parameter is repeated")
    client = clients.get(form.required("client_id"))
    if client is None:
        raise Refusal("invalid_client", "this client is not registered")
    redirect_uri = form.required("redirect_uri")
    if not client.may_redirect_to(redirect_uri):
        raise Refusal("invalid_request", "this redirect_uri is not registered for the client")
    return client, redirect_uri


def parse_request(form: Form, client: Registration, redirect_uri: str) -> AuthorizationRequest:
    """The request to decide on; a Refusal goes to the client in a redirect (§4.1.2.1)."""
    form.once()
    if form.required("response_type") != "code":
        raise Refusal("unsupported_response_type", "only response_type=code is supported")
    if form.get("response_mode") not in {None, "query"}:
        raise Refusal("invalid_request", "only response_mode=query is supported")
    for name in ("request", "request_uri"):  # OpenID Connect Core §6
        if form.get(name) is not None:
            raise Refusal(f"{name}_not_supported", f"{name} is not supported")
    challenge = form.get("code_challenge")
    if challenge is None:  # RFC 7636 §4.4.1
        raise Refusal("invalid_request", "code challenge required")
    if form.get("code_challenge_method") != "S256":
        raise Refusal("invalid_request", "transform algorithm not supported; use S256")
    if not _CHALLENGE.fullmatch(challenge):
        raise Refusal("invalid_request", "the code challenge is no SHA-256 in base64url")
    return AuthorizationRequest(
        client=client,
        redirect_uri=redirect_uri,
        scopes=parse_scopes(form.get("scope")),
        code_challenge=challenge,
        state=form.get("state"),
        nonce=form.get("nonce"),
        prompt=frozenset((form.get("prompt") or "").split()),
        login_hint=form.get("login_hint"),
    )
