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

from .._sansio.http import Request, Response
from . import pages, signing
from .clients import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    DEVICE_CODE,
    REFRESH_TOKEN,
    Clients,
    Registration,
    parse_scopes,
)
from .identity import DEFAULT_USER, id_token
from .issued import AccessToken, AuthorizationCode, DeviceGrant, Family, RefreshToken
from .logins import Logins
from .messages import NO_STORE, Form, Refusal, json_response, parse_form
from .requests import AuthorizationRequest
from .seed import Seed, same
from .settings import Settings
from .shelves import Shelves

T = TypeVar("T")

# How much is remembered at most, of each kind: the oldest goes first.
_MEMORY: Final = 50_000
# How long an answer stays exact (already redeemed, expired) before it is only "unknown".
_AFTERLIFE: Final = 3600.0
# A clock that is read twice may be off by less than this; no poll is too early for that.
_TICK: Final = 1 / 1024
_HUGE: Final = 10_000_000

_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 §4.1


class AuthorizationServer:
    """Codes, device codes and tokens, and the requests that turn one into another."""

    def __init__(self, settings: Settings, seed: Seed, shelves: Shelves) -> None:
        self.settings = settings
        self._logins = Logins(shelves)
        self._seed = seed
        # base64url, so without a colon: an API key has no room for one.
        self.clients: Final = Clients(seed.fixed("client_secret"))
        self._grants: Final[Mapping[str, Callable[[Form, Registration, float], dict[str, Any]]]] = {
            AUTHORIZATION_CODE: self._redeem_code,
            REFRESH_TOKEN: self._refresh,
            CLIENT_CREDENTIALS: self._client_credentials,
            DEVICE_CODE: self._poll,
        }
        # All four are in order of issue, and so of expiry.
        self._codes: dict[str, AuthorizationCode] = {}
        self._devices: dict[str, DeviceGrant] = {}
        self._refresh_tokens = self._logins.restored()
        self._access_tokens: dict[str, AccessToken] = {}
        self._refreshes_failed = 0

    # What the authorization endpoint issues, RFC 6749 §3.1. Its pages are in ``browser``.

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
        client = self.clients.authenticated(request, form)
        client.must_be_allowed(DEVICE_CODE)
        grant = DeviceGrant(
            client_id=client.client_id,
            user_code=self._seed.next_user_code(),
            scopes=parse_scopes(form.get("scope")),
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
        client = self.clients.authenticated(request, form)
        grant_type = form.required("grant_type")
        rule = self._grants.get(grant_type)
        if rule is None:
            raise Refusal("unsupported_grant_type", "this grant_type is not supported")
        client.must_be_allowed(grant_type)
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
            self._revoke_family(code.family)
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
            if self.settings.reuse_detection:
                self._revoke_family(family)
            raise Refusal("invalid_grant", "the refresh token was used before")
        scopes = family.scopes
        if (narrowed := form.get("scope")) is not None:
            scopes = parse_scopes(narrowed)
            if not set(scopes) <= set(family.scopes):
                raise Refusal("invalid_scope", "the scope exceeds what was granted")
        silent = self.settings.fault("refresh-no-rotation-field")
        if self.settings.rotate and token.rotated_at is None and not silent:
            token.rotated_at = at
            self._logins.keep(form.required("refresh_token"), token)
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
        return self._access(client.client_id, client.client_id, parse_scopes(form.get("scope")), at)

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
        client = self.clients.authenticated(request, form)
        value = form.required("token")
        refresh_token = self._refresh_tokens.get(value)
        access_token = self._access_tokens.get(value)
        if refresh_token is not None:
            _owned(client, refresh_token.family.client_id)
            self._revoke_family(refresh_token.family)
        elif access_token is not None:
            _owned(client, access_token.client_id)
            del self._access_tokens[value]
        return Response(200, NO_STORE)  # §2.2: also for a token that is unknown

    def unregister(self, client_id: str) -> None:
        """Forgets a client and all that it was issued: nothing of it passes to a successor."""
        self.clients.remove(client_id)
        _drop_all(self._codes, lambda code: code.request.client.client_id == client_id)
        _drop_all(self._devices, lambda grant: grant.client_id == client_id)
        _drop_all(self._refresh_tokens, lambda token: token.family.client_id == client_id)
        self._logins.forget_all_but(self._refresh_tokens)
        _drop_all(self._access_tokens, lambda token: token.client_id == client_id)

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
        self._logins.forget_all_but(self._refresh_tokens)
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
        may = REFRESH_TOKEN in client.grant_types
        if may and not self.settings.fault("no-refresh-token"):
            # Also without the scope "offline": Flyte's client cannot do without.
            family.refresh_token = self._new_refresh_token(family, at)
        return family

    def _new_refresh_token(self, family: Family, at: float) -> str:
        value = self._seed.next("refresh_token")
        family.key = family.key or self._seed.next("family")
        token = RefreshToken(family, at + self.settings.refresh_ttl)
        self._refresh_tokens[value] = token
        self._logins.keep(value, token)
        return value

    def _revoke_family(self, family: Family) -> None:
        family.revoked = True
        self._logins.keep_family(family, self._refresh_tokens)

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
            reply["id_token"] = id_token(self.settings, family, reply["access_token"], at, nonce)
        return reply

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


def _owned(client: Registration, client_id: str) -> None:
    """RFC 7009 §2.1: a token is revoked only by the client that it was issued to."""
    if client.client_id != client_id:
        raise Refusal("invalid_grant", "the token was issued to another client")


def _drop_all(kept: dict[str, T], gone: Callable[[T], bool]) -> None:
    for key in [key for key, value in kept.items() if gone(value)]:
        del kept[key]


def _drop(kept: dict[str, T], gone: Callable[[T], bool]) -> None:
    while kept:
        oldest = next(iter(kept))
        if len(kept) <= _MEMORY and not gone(kept[oldest]):
            return
        del kept[oldest]
