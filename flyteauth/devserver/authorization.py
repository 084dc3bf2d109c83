"""
The rules of the authorization server: who may have which token, and until when.

What one approval leads to is a *family*: the tokens of one login, which live and die together
(RFC 9700 §4.14.2). Pure: time and secrets come from outside.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import unquote_plus

from attrs import define, field, frozen

from .._sansio.http import Request, Response
from . import pages, signing
from .messages import NO_STORE, Form, Refusal, basic, json_response, parse_form
from .seed import Seed, same
from .settings import Settings

T = TypeVar("T")

AUTHORIZATION_CODE: Final = "authorization_code"
REFRESH_TOKEN: Final = "refresh_token"  # noqa: S105 - the name of a grant
CLIENT_CREDENTIALS: Final = "client_credentials"
DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"

SCOPES: Final = ("all", "offline", "access_token", "openid", "profile", "email", "offline_access")
DEFAULT_SCOPES: Final = ("offline", "all")
SERVICE_CLIENT_ID: Final = "demo-ci"
DEFAULT_USER: Final = "alice"

# How much is remembered at most, of each kind: the oldest goes first.
_MEMORY: Final = 50_000
# How long an answer stays exact (already redeemed, expired) before it is only "unknown".
_AFTERLIFE: Final = 3600.0
# A clock that is read twice may be off by less than this; no poll is too early for that.
_TICK: Final = 1 / 1024
_HUGE: Final = 10_000_000

_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 §4.1
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # the base64url of a SHA-256, §4.2
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 §3.3
# RFC 8252 §7.3: any port of a loopback address, here also of the name that Flyte registers.
_LOOPBACK_REDIRECT: Final = re.compile(
    r"http://(?:127\.0\.0\.1|\[::1\]|localhost)(?::([1-9][0-9]{0,4}))?/callback"
)


@frozen
class Registration:
    """A registered client (RFC 6749 §2). Without a secret it is public."""

    client_id: str
    grant_types: frozenset[str]
    client_secret: str | None = field(default=None, repr=False)
    redirects: bool = False

    def may_redirect_to(self, uri: str) -> bool:
        """Whether *uri* is a registered redirect_uri (RFC 6749 §3.1.2.2, RFC 8252 §7.3)."""
        match = _LOOPBACK_REDIRECT.fullmatch(uri)
        return self.redirects and match is not None and int(match[1] or 80) < 65536


@define(eq=False)
class Family:
    """All that grew out of one approval."""

    client_id: str
    subject: str
    scopes: tuple[str, ...]
    auth_time: float
    refresh_token: str | None = field(default=None, repr=False)
    revoked: bool = False


@define(eq=False)
class RefreshToken:
    """One link of a family's chain; rotated once its successor is out."""

    family: Family
    expires_at: float
    rotated_at: float | None = None


@frozen
class AccessToken:
    """What a bearer token stands for. Without a family it belongs to a service client."""

    client_id: str
    subject: str
    scopes: tuple[str, ...]
    expires_at: float
    family: Family | None = None


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


@define(eq=False)
class AuthorizationCode:
    """A code that waits to be redeemed, or has been (RFC 6749 §4.1.2)."""

    request: AuthorizationRequest
    subject: str
    issued_at: float
    expires_at: float
    family: Family | None = None


@define(eq=False)
class DeviceGrant:
    """A device that polls while its user decides (RFC 8628 §3.2)."""

    client_id: str
    user_code: str
    scopes: tuple[str, ...]
    issued_at: float
    expires_at: float
    interval: float
    polled_at: float | None = None
    polls: int = 0
    subject: str | None = None
    denied: bool = False
    redeemed: bool = False

    @property
    def pending(self) -> bool:
        return self.subject is None and not self.denied


class AuthorizationServer:
    """Codes, device codes and tokens, and the requests that turn one into another."""

    def __init__(self, settings: Settings, seed: Seed) -> None:
        self.settings = settings
        self._seed = seed
        public = frozenset({AUTHORIZATION_CODE, REFRESH_TOKEN, DEVICE_CODE})
        secret = seed.fixed("client_secret")  # base64url: no colon, as an API key demands
        service = Registration(SERVICE_CLIENT_ID, frozenset({CLIENT_CREDENTIALS}), secret)
        self.clients: Final[Mapping[str, Registration]] = {
            "flytectl": Registration("flytectl", public, redirects=True),
            "flyte-cli": Registration("flyte-cli", public, redirects=True),
            SERVICE_CLIENT_ID: service,
        }
        self.service_client: Final = service
        self._grants: Final[Mapping[str, Callable[[Form, Registration, float], dict[str, Any]]]] = {
            AUTHORIZATION_CODE: self._redeem_code,
            REFRESH_TOKEN: self._refresh,
            CLIENT_CREDENTIALS: self._client_credentials,
            DEVICE_CODE: self._poll,
        }
        # All four are in order of issue, and so of expiry.
        self._codes: dict[str, AuthorizationCode] = {}
        self._devices: dict[str, DeviceGrant] = {}
        self._refresh_tokens: dict[str, RefreshToken] = {}
        self._access_tokens: dict[str, AccessToken] = {}
        self._refreshes_failed = 0

    # The authorization endpoint, RFC 6749 §3.1. Its pages are in ``browser``.

    def redirect_of(self, form: Form) -> tuple[Registration, str]:
        """Client and redirect_uri; raises Refusal where no redirect may happen (§4.1.2.1)."""
        if form.repeated & {"client_id", "redirect_uri"}:
            raise Refusal("invalid_request", "a parameter is repeated")
        client = self.clients.get(form.required("client_id"))
        if client is None:
            raise Refusal("invalid_client", "this client is not registered")
        redirect_uri = form.required("redirect_uri")
        if not client.may_redirect_to(redirect_uri):
            raise Refusal("invalid_request", "this redirect_uri is not registered for the client")
        return client, redirect_uri

    def authorization_request(
        self, form: Form, client: Registration, redirect_uri: str
    ) -> AuthorizationRequest:
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
            scopes=_scopes(form.get("scope")),
            code_challenge=challenge,
            state=form.get("state"),
            nonce=form.get("nonce"),
            prompt=frozenset((form.get("prompt") or "").split()),
            login_hint=form.get("login_hint"),
        )

    def issue_code(self, request: AuthorizationRequest, subject: str, at: float) -> str:
        """A code for what *subject* has allowed (RFC 6749 §4.1.2)."""
        code = self._seed.next("code")
        self._codes[code] = AuthorizationCode(
            request, subject, issued_at=at, expires_at=at + self.settings.code_ttl
        )
        return code

    # The device authorization endpoint, RFC 8628 §3.1.

    def device_authorization(self, request: Request, at: float) -> Response:
        return self._answered(self._authorize_device, request, at)

    def _authorize_device(self, request: Request, at: float) -> Response:
        form = parse_form(request)
        client = self._authenticated(request, form)
        _permitted(client, DEVICE_CODE)
        grant = DeviceGrant(
            client_id=client.client_id,
            user_code=self._seed.next_user_code(),
            scopes=_scopes(form.get("scope")),
            issued_at=at,
            expires_at=at + self.settings.device_ttl,
            interval=self.settings.device_interval,
        )
        device_code = self._seed.next("device_code")
        self._devices[device_code] = grant
        where = f"{self.settings.base_url}/activate"
        reply: dict[str, Any] = {
            "device_code": device_code,
            "user_code": grant.user_code,
            "verification_uri": where,
            "verification_uri_complete": f"{where}?user_code={grant.user_code}",
            "expires_in": int(self.settings.device_ttl),
        }
        if not self.settings.fault("no-interval"):
            reply["interval"] = self.settings.device_interval
        return json_response(200, reply, NO_STORE)

    def device_grant(self, user_code: str, at: float | None) -> DeviceGrant | None:
        """The grant behind a code that somebody typed (RFC 8628 §6.1), if its time is not over."""
        wanted = re.sub(r"[\s-]", "", user_code).upper()
        for grant in reversed(self._devices.values()):  # codes are short and may come again
            if grant.user_code.replace("-", "") == wanted:
                return grant if at is None or at < grant.expires_at else None
        return None

    def decide(self, grant: DeviceGrant, subject: str | None) -> None:
        """The user's decision on a device: *subject* allows, None denies."""
        if subject is None or self.settings.fault("deny"):
            grant.denied = True
        else:
            grant.subject = subject

    # The token endpoint, RFC 6749 §3.2.

    def token(self, request: Request, at: float) -> Response:
        if self.settings.fault("token-html"):
            return pages.console()
        return self._answered(self._grant, request, at)

    def _grant(self, request: Request, at: float) -> Response:
        form = parse_form(request)
        client = self._authenticated(request, form)
        grant_type = form.required("grant_type")
        rule = self._grants.get(grant_type)
        if rule is None:
            raise Refusal("unsupported_grant_type", "this grant_type is not supported")
        _permitted(client, grant_type)
        if (disturbed := self._disturbance(grant_type, form)) is not None:
            return disturbed
        reply = rule(form, client, at)
        if self.settings.fault("huge-body"):
            reply["padding"] = "x" * _HUGE
        return json_response(200, reply, NO_STORE)

    def _redeem_code(self, form: Form, client: Registration, at: float) -> dict[str, Any]:
        """RFC 6749 §4.1.3. Unknown parameters are ignored: Flyte's client sends them all again."""
        code = self._codes.get(form.required("code"))
        if code is None or code.request.client.client_id != client.client_id:
            raise Refusal("invalid_grant", "the code is unknown or was issued to another client")
        if code.family is not None:
            # §4.1.2: a code that comes twice was stolen, and so were its tokens.
            code.family.revoked = True
            raise Refusal("invalid_grant", "the code was redeemed before; its tokens are revoked")
        if at >= code.expires_at or self.settings.fault("code-expired"):
            raise Refusal("invalid_grant", "the code has expired")
        if form.required("redirect_uri") != code.request.redirect_uri:
            raise Refusal("invalid_grant", "redirect_uri differs from the authorization request")
        verifier = form.required("code_verifier")
        digest = hashlib.sha256(verifier.encode(errors="replace")).digest()
        proven = same(signing.base64url(digest), code.request.code_challenge)
        if not _VERIFIER.fullmatch(verifier) or not proven:  # RFC 7636 §4.6
            raise Refusal("invalid_grant", "code_verifier does not match the code_challenge")
        code.family = self._family(client, code.subject, code.request.scopes, code.issued_at, at)
        return self._tokens(code.family, code.request.scopes, at, nonce=code.request.nonce)

    def _refresh(self, form: Form, client: Registration, at: float) -> dict[str, Any]:
        """RFC 6749 §6, with rotation and reuse detection (RFC 9700 §4.14.2)."""
        token = self._refresh_tokens.get(form.required("refresh_token"))
        if token is None or token.family.client_id != client.client_id:
            raise Refusal("invalid_grant", "the refresh token is unknown or not this client's")
        family = token.family
        if family.revoked:
            raise Refusal("invalid_grant", "the refresh token is revoked")
        if at >= token.expires_at:
            raise Refusal("invalid_grant", "the refresh token has expired")
        if token.rotated_at is not None and not self._in_grace(token.rotated_at, at):
            family.revoked = self.settings.reuse_detection
            raise Refusal("invalid_grant", "the refresh token was used before")
        scopes = family.scopes
        if (narrowed := form.get("scope")) is not None:
            scopes = _scopes(narrowed)
            if not set(scopes) <= set(family.scopes):
                raise Refusal("invalid_scope", "the scope exceeds what was granted")
        silent = self.settings.fault("refresh-no-rotation-field")
        if self.settings.rotate and token.rotated_at is None and not silent:
            token.rotated_at = at
            family.refresh_token = self._new_refresh_token(family, at)
        # Inside the grace, a token that is rotated already leads to the same successor.
        reply = self._tokens(family, scopes, at)
        if silent:
            reply.pop("refresh_token", None)
        return reply

    def _in_grace(self, rotated_at: float, at: float) -> bool:
        return rotated_at <= at < rotated_at + self.settings.grace

    def _client_credentials(self, form: Form, client: Registration, at: float) -> dict[str, Any]:
        """RFC 6749 §4.4; never a refresh token (§4.4.3)."""
        return self._access(client.client_id, client.client_id, _scopes(form.get("scope")), at)

    def _poll(self, form: Form, client: Registration, at: float) -> dict[str, Any]:
        """RFC 8628 §3.5."""
        grant = self._devices.get(form.required("device_code"))
        if grant is None or grant.client_id != client.client_id:
            raise Refusal("invalid_grant", "the device code is unknown or not this client's")
        if grant.redeemed:
            raise Refusal("invalid_grant", "the device code was redeemed before")
        if at >= grant.expires_at:
            raise Refusal("expired_token", "nobody approved in time")
        # The interval lies between two polls, so the first one is never too early.
        last, grant.polled_at = grant.polled_at, at
        hasty = last is not None and at < last + grant.interval - _TICK
        if hasty or (self.settings.fault("poll-slow-down") and grant.polls % 2 == 0):
            grant.polls += 1
            grant.interval += 5
            raise Refusal("slow_down", "the device polls too often")
        grant.polls += 1
        waited = at >= grant.issued_at + grant.interval - _TICK
        if grant.pending and waited and self.settings.approve == "auto":
            self.decide(grant, DEFAULT_USER)
        if grant.denied:
            raise Refusal("access_denied", "the user denied the access")
        if grant.subject is None:
            raise Refusal("authorization_pending", "the user has not decided yet")
        grant.redeemed = True
        family = self._family(client, grant.subject, grant.scopes, at, at)
        return self._tokens(family, grant.scopes, at)

    def _disturbance(self, grant_type: str, form: Form) -> Response | None:
        """What a fault lets a proxy answer, without the authorization server noticing."""
        fault = self.settings.fault
        if grant_type == REFRESH_TOKEN:
            once = fault("refresh-503-once") and self._refreshes_failed == 0
            if once or fault("refresh-503"):
                self._refreshes_failed += 1
                return pages.proxy(503, (("retry-after", "1"),))
        if grant_type == DEVICE_CODE and (fault("poll-429") or fault("poll-502-html")):
            grant = self._devices.get(form.get("device_code") or "")
            if grant is not None:
                grant.polls += 1
                if grant.polls % 2 == 1:
                    if fault("poll-429"):
                        return pages.proxy(429, (("retry-after", "1"),))
                    return pages.proxy(502)
        return None

    # The revocation endpoint, RFC 7009 §2.

    def revoke(self, request: Request, at: float) -> Response:
        if self.settings.fault("revoke-503"):
            return pages.proxy(503, (("retry-after", "1"),))
        return self._answered(self._revoke, request, at)

    def _revoke(self, request: Request, at: float) -> Response:
        form = parse_form(request)
        client = self._authenticated(request, form)
        value = form.required("token")
        refresh_token = self._refresh_tokens.get(value)
        access_token = self._access_tokens.get(value)
        if refresh_token is not None:
            _owned(client, refresh_token.family.client_id)
            refresh_token.family.revoked = True
        elif access_token is not None:
            _owned(client, access_token.client_id)
            del self._access_tokens[value]
        return Response(200, NO_STORE)  # §2.2: also for a token that is unknown

    # What the protected calls ask.

    def access(self, token: str, at: float) -> AccessToken | None:
        """What a bearer token stands for, or None if it is not (or no longer) good."""
        access_token = self._access_tokens.get(token)
        if access_token is None or at >= access_token.expires_at:
            return None
        if access_token.family is not None and access_token.family.revoked:
            return None
        return access_token

    def forget(self, at: float) -> None:
        """Drops what nobody can ask for any more, so that a long run stays small."""
        after = at - _AFTERLIFE
        _drop(self._codes, lambda code: code.expires_at < after)
        _drop(self._devices, lambda grant: grant.expires_at < after)
        _drop(self._refresh_tokens, lambda token: token.expires_at < after)
        _drop(self._access_tokens, lambda token: token.expires_at < after)

    # How tokens are made.

    def _family(
        self,
        client: Registration,
        subject: str,
        scopes: tuple[str, ...],
        auth_time: float,
        at: float,
    ) -> Family:
        family = Family(client.client_id, subject, scopes, auth_time)
        if not self.settings.fault("no-refresh-token"):
            # Also without the scope "offline": Flyte's client cannot do without.
            family.refresh_token = self._new_refresh_token(family, at)
        return family

    def _new_refresh_token(self, family: Family, at: float) -> str:
        value = self._seed.next("refresh_token")
        self._refresh_tokens[value] = RefreshToken(family, at + self.settings.refresh_ttl)
        return value

    def _access(
        self,
        client_id: str,
        subject: str,
        scopes: tuple[str, ...],
        at: float,
        family: Family | None = None,
    ) -> dict[str, Any]:
        """A successful response (RFC 6749 §5.1)."""
        value = self._seed.next("access_token")
        self._access_tokens[value] = AccessToken(
            client_id, subject, scopes, at + self.settings.access_ttl, family
        )
        reply: dict[str, Any] = {"access_token": value, "token_type": "Bearer"}
        lifetime = int(self.settings.access_ttl)
        if not self.settings.fault("token-no-expires-in"):
            as_text = self.settings.fault("token-string-expires-in")
            reply["expires_in"] = str(lifetime) if as_text else lifetime
        reply["scope"] = " ".join(scopes)
        return reply

    def _tokens(
        self, family: Family, scopes: tuple[str, ...], at: float, *, nonce: str | None = None
    ) -> dict[str, Any]:
        reply = self._access(family.client_id, family.subject, scopes, at, family)
        if family.refresh_token is not None:
            reply["refresh_token"] = family.refresh_token
        if "openid" in scopes:
            reply["id_token"] = self._id_token(family, reply["access_token"], at, nonce)
        return reply

    def _id_token(self, family: Family, access_token: str, at: float, nonce: str | None) -> str:
        """OpenID Connect Core §2, §3.1.3.6; after a refresh without a nonce (§12.2)."""
        half = hashlib.sha256(access_token.encode()).digest()[:16]
        claims: dict[str, Any] = {
            "iss": self.settings.issuer,
            "sub": subject_of(family.subject),
            "aud": family.client_id,
            "exp": int(at + self.settings.access_ttl),
            "iat": int(at),
            "auth_time": int(family.auth_time),
            "at_hash": signing.base64url(half),
            **profile(family.subject),
        }
        if nonce is not None:
            claims["nonce"] = "another" if self.settings.fault("wrong-nonce") else nonce
        return signing.jwt(claims)

    # Client authentication, RFC 6749 §2.3, and errors, §5.2.

    def _authenticated(self, request: Request, form: Form) -> Registration:
        in_header = basic(request)
        in_body = form.get("client_secret")
        if in_header is not None and in_body is not None:
            raise Refusal("invalid_request", "only one way of client authentication is allowed")
        if in_header is not None:
            client = self._by_basic(*in_header)
            if form.get("client_id") not in {None, client.client_id}:
                raise Refusal("invalid_request", "client_id names another client")
            return client
        named = self.clients.get(form.required("client_id"))
        # A public client has no secret to show, a confidential one has to show its own.
        if named is None or (named.client_secret is None) != (in_body is None):
            raise Refusal("invalid_client", "the client is unknown or not authenticated", 401)
        if named.client_secret is not None and not same(named.client_secret, in_body or ""):
            raise Refusal("invalid_client", "the client secret is wrong", 401)
        return named

    def _by_basic(self, name: str, password: str) -> Registration:
        """client_secret_basic, form-encoded as §2.3.1 says or raw as many clients do."""
        for client_id, secret in ((unquote_plus(name), unquote_plus(password)), (name, password)):
            client = self.clients.get(client_id)
            registered = None if client is None else client.client_secret
            if client is not None and registered is not None and same(registered, secret):
                return client
        raise Refusal("invalid_client", "client id or secret are wrong", 401)

    def description(self, refusal: Refusal) -> str:
        """The error_description of a refusal."""
        if self.settings.fault("escape-codes"):
            return f"\x1b]0;owned\x07\x1b[2J\x1b[31m{refusal.description}\u202e\r\nlogin: "
        return refusal.description

    def _answered(
        self, rule: Callable[[Request, float], Response], request: Request, at: float
    ) -> Response:
        """What *rule* answers, or its refusal as JSON."""
        try:
            return rule(request, at)
        except Refusal as refusal:
            message = {"error": refusal.error, "error_description": self.description(refusal)}
            challenge = (("www-authenticate", 'Basic realm="flyteauth"'),)
            headers = (*NO_STORE, *challenge) if refusal.status == 401 else NO_STORE
            return json_response(refusal.status, message, headers)


def subject_of(username: str) -> str:
    """The ``sub`` of a user: ASCII, at most 255 characters (OpenID Connect Core §2)."""
    if username.isascii():
        return username
    return f"user-{hashlib.sha256(username.encode()).hexdigest()[:32]}"


def profile(username: str) -> dict[str, str]:
    """What is known about a user (OpenID Connect Core §5.1)."""
    local_part = re.sub(r"[^a-z0-9]+", ".", username.lower()).strip(".") or "user"
    return {
        "name": username[:1].upper() + username[1:],
        "preferred_username": username,
        "email": f"{local_part}@example.com",
    }


def _scopes(text: str | None) -> tuple[str, ...]:
    """The scopes asked for (RFC 6749 §3.3), each once; the default where none is named."""
    if text is None:
        return DEFAULT_SCOPES
    scopes = tuple(dict.fromkeys(text.split(" ")))
    if not all(_SCOPE.fullmatch(scope) and scope in SCOPES for scope in scopes):
        raise Refusal("invalid_scope", f"valid scopes are {' '.join(SCOPES)}")
    return scopes


def _permitted(client: Registration, grant_type: str) -> None:
    if grant_type not in client.grant_types:
        raise Refusal("unauthorized_client", "the client may not use this grant")


def _owned(client: Registration, client_id: str) -> None:
    """RFC 7009 §2.1: a token is revoked only by the client that it was issued to."""
    if client.client_id != client_id:
        raise Refusal("invalid_grant", "the token was issued to another client")


def _drop(kept: dict[str, T], gone: Callable[[T], bool]) -> None:
    while kept:
        oldest = next(iter(kept))
        if len(kept) <= _MEMORY and not gone(kept[oldest]):
            return
        del kept[oldest]
