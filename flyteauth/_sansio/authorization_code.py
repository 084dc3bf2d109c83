"""
Authorization code grant (RFC 6749 §4.1) with PKCE (RFC 7636), for native apps (RFC 8252)::

    Authorizing ─► Redeeming ─► Done
                     ▲   │ the connection was never made
                     └ Pausing
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from typing import Final, assert_never

from attrs import field, frozen

from .client import PROTOCOL, Client, join_scopes
from .errors import (
    ConfigError,
    InvalidResponse,
    MissingMetadata,
    OAuth2Error,
    ReauthRequired,
    UnexpectedEvent,
    Unreachable,
)
from .flow import (
    Done,
    Effect,
    Event,
    Flow,
    OpenBrowser,
    RedirectReceived,
    RequestFailed,
    ResponseReceived,
    SendRequest,
    TimeReached,
    WaitUntil,
    failure,
)
from .http import Request, add_query
from .id_token import check
from .redirect import parse_redirect, same
from .tokens import Token, oauth2_error, parse_token

ENTROPY: Final = 96  # octets: 32 each for state, verifier and nonce (RFC 7636 §4.1, RND-01)
ATTEMPTS: Final = 3
URI_MAX: Final = 8192  # characters; servers commonly take no longer ones

# What a server may answer that does not like a prompt (OpenID Connect Core §3.1.2.6; OpenID
# Connect Unmet Authentication Requirements §3).
_PROMPT_REFUSED: Final = frozenset(
    "invalid_request interaction_required login_required account_selection_required "
    "unmet_authentication_requirements".split()
)


# States, in the order a flow visits them.


@frozen
class Authorizing:
    """Waiting for the browser to come back (§4.1.1, §4.1.2)."""

    redirect_uri: str
    state: str = field(repr=False)
    code_verifier: str = field(repr=False)
    nonce: str | None = field(repr=False)


@frozen
class Redeeming:
    """Asking for the token; the code works once (§4.1.3)."""

    redirect_uri: str
    code: str = field(repr=False)
    code_verifier: str = field(repr=False)
    nonce: str | None = field(repr=False)
    attempt: int = 0


@frozen
class Pausing:
    """Giving a server that could not be connected to a moment; the code is still unused."""

    until: float
    redeeming: Redeeming


State = Authorizing | Redeeming | Pausing
STATES: Final = (Authorizing, Redeeming, Pausing)


@frozen
class AuthorizationCode(Flow[State, Token]):
    """A flow that ends with a Token.

    *verified* says whether TLS certificates are checked: an ID token's signature may only be
    skipped if they are. *prompt* is what to ask the person for even if they are logged in, such as
    "select_account" (OpenID Connect Core §3.1.2.1); a server that does not know it ignores it.
    """

    client: Client
    scopes: tuple[str, ...] = ()
    verified: bool = True
    prompt: str | None = None

    def start(self, entropy: bytes, redirect_uri: str) -> State:
        """*entropy*: 96 fresh octets from the operating system. *redirect_uri* is listening."""
        assert len(entropy) == ENTROPY
        methods = self.client.server.code_challenge_methods_supported
        if methods is not None and "S256" not in methods:  # RFC 9700 §2.1.1
            raise MissingMetadata(
                "the authorization server does not support PKCE with S256; "
                "log in with another authType",
                reason="pkce",
            )
        state, verifier, nonce = (_base64url(entropy[i : i + 32]) for i in (0, 32, 64))
        return Authorizing(redirect_uri, state, verifier, nonce if self._openid else None)

    def effect(self, state: State) -> Effect:
        match state:
            case Authorizing(redirect_uri, csrf):
                return OpenBrowser(self._authorization_uri(state), redirect_uri, csrf)
            case Redeeming():
                return SendRequest(self._token_request(state))
            case Pausing(until):
                return WaitUntil(until)
            case _:
                assert_never(state)

    def advance(self, state: State, event: Event) -> State | Done[Token]:
        match state, event:
            # §4.1.2: "redirecting the user-agent back to the client with the code"
            case Authorizing(), RedirectReceived(uri):
                return Redeeming(
                    state.redirect_uri, self._code(state, uri), state.code_verifier, state.nonce
                )

            # §4.1.4: "If the access token request is valid and authorized, the authorization
            # server issues an access token"
            case Redeeming(nonce=nonce), ResponseReceived(at=at):
                token = parse_token(event, self.client, self.scopes)
                if nonce is None:
                    token = token.replace(id_token=None)  # nobody asked for it, nobody checks it
                else:
                    self._check_id_token(token, nonce, at)
                return Done(token)

            # §4.1.2: "The client MUST NOT use the authorization code more than once": only a
            # request that never left is sent again.
            case Redeeming(attempt=attempt), RequestFailed(sent=sent, at=at):
                error = failure(self._token_request(state), event)
                hopeless = not isinstance(error, Unreachable) or error.reason == "tls"
                if sent or hopeless or attempt + 1 >= ATTEMPTS:
                    raise error
                again = Redeeming(
                    state.redirect_uri, state.code, state.code_verifier, state.nonce, attempt + 1
                )
                return Pausing(at + 0.5 * 2.0**attempt, again)

            case Pausing(until, redeeming), TimeReached(at):
                return state if at < until else redeeming

        raise UnexpectedEvent(state, event)

    def resume(self, state: State, at: float) -> State:
        """A saved login goes on only if its code cannot have been used yet."""
        match state:
            case Redeeming():
                raise ReauthRequired("the login was interrupted while finishing; log in again")
            case Authorizing() | Pausing():
                return state
            case _:
                assert_never(state)

    @property
    def _openid(self) -> bool:
        return "openid" in self.scopes

    def _authorization_uri(self, state: Authorizing) -> str:
        """§4.1.1, with RFC 7636 §4.3 and, for openid, a nonce (OpenID Connect Core §3.1.2.1)."""
        self.client.server.endpoint("token_endpoint")  # not only after the user has logged in
        challenge = _base64url(hashlib.sha256(state.code_verifier.encode()).digest())
        parameters = {
            "response_type": "code",
            "client_id": self.client.client_id,
            "redirect_uri": state.redirect_uri,
            "scope": join_scopes(self.scopes),
            "state": state.state,
            "nonce": state.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "audience": self.client.audience,
            **self.client.added_to("authorization", PROTOCOL),
        }
        if self.prompt is not None:
            parameters["prompt"] = self.prompt
        uri = add_query(
            self.client.server.endpoint("authorization_endpoint"),
            [(name, value) for name, value in parameters.items() if value],
        )
        if len(uri) > URI_MAX:  # no half of it would do
            raise ConfigError(
                f"the address to log in at has {len(uri)} characters, too many for a browser; "
                "check what is asked for: clientId, scopes, audience and the endpoint",
                reason="authorization_uri",
            )
        return uri

    def _code(self, state: Authorizing, uri: str) -> str:
        """The code in a redirect, once everything else about it is right: first the state, so
        that nothing of a stranger's is acted on or shown (§10.12), then the issuer (RFC 9207).
        """
        redirect = parse_redirect(uri)
        if not same(redirect.get("state", ""), state.state):
            raise _refused("state", "belongs to another login")
        issuer, expected = redirect.get("iss"), self.client.server.issuer
        promised = self.client.server.authorization_response_iss_parameter_supported
        # RFC 9207 §2.4. Without an issuer to compare with, a server that promises to name itself
        # is refused, and what any other one sends is unknown to us.
        if issuer not in {None, expected} and (promised or expected is not None):
            raise _refused("iss", "comes from another authorization server")
        error, code = redirect.get("error"), redirect.get("code")
        if (error and code) or redirect.keys() & {"access_token", "id_token"}:
            raise _refused("malformed", "says two things at once")
        if error:  # §4.1.2.1; servers that send iss may leave it out here
            description, page = redirect.get("error_description", ""), redirect.get("error_uri", "")
            if self.prompt is not None and error in _PROMPT_REFUSED:
                hint = f"it may not know prompt={self.prompt}; log out there first, then log in"
                raise OAuth2Error(error, description, hint=hint)
            raise oauth2_error(error, description, page)
        if issuer is None and promised:
            raise _refused("iss_missing", "does not say which authorization server it is from")
        if not code:
            raise _refused("no_code", "carries no code")
        return code

    def _token_request(self, state: Redeeming) -> Request:
        """§4.1.3 and RFC 7636 §4.5: this and nothing else."""
        return self.client.token_request(
            "authorization_code",
            code=state.code,
            redirect_uri=state.redirect_uri,
            code_verifier=state.code_verifier,
        )

    def _check_id_token(self, token: Token, nonce: str, at: float) -> None:
        if token.id_token is None:  # OpenID Connect Core §3.1.3.3
            raise InvalidResponse(
                "the server sent no ID token though openid was asked for; "
                "remove openid from admin.scopes, or report it to whoever runs the server",
                reason="id_token.missing",
            )
        check(token, self.client, nonce=nonce, at=at, verified=self.verified)


def _base64url(octets: bytes) -> str:
    """Base64url without padding (RFC 7636 App. A)."""
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


def _refused(reason: str, why: str) -> InvalidResponse:
    return InvalidResponse(f"the redirect from the browser {why}; log in again", reason=reason)
