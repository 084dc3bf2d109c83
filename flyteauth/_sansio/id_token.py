"""
ID tokens, OpenID Connect Core 1.0 §3.1.3.7 and §12.2.

The signature is not verified: the token comes straight from the token endpoint over verified TLS,
or over loopback (§3.1.3.7 item 6). Whoever turns TLS verification off gets no ID token accepted.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, Final

from .client import Client
from .errors import InvalidResponse, cut
from .http import Object, json_object
from .tokens import Token

SKEW: Final = 60.0
OUT_OF_TIME: Final = frozenset({"id_token.exp", "id_token.iat"})
"""Reasons that a clock may be to blame for, and nobody who answers in the place of another."""

UNVERIFIED: Final = "id_token.signature"
"""The reason that is about the connection, and not about the token."""

_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_HASHES: Final = {"256": hashlib.sha256, "384": hashlib.sha384, "512": hashlib.sha512}
_READ: Final = frozenset("alg iss sub aud azp exp iat nonce at_hash".split())
_ALGORITHMS: Final = frozenset(
    "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA".split()
)


def check(token: Token, client: Client, *, nonce: str | None, at: float, verified: bool) -> None:
    """The ID token in *token* answers our request: the one with *nonce*, if it had one.

    *verified* says whether the connection that it came over was. Raises InvalidResponse.
    """
    if not verified:
        raise unverified()
    algorithm, claims = _open(token.id_token or "")
    _check_party(claims, client)
    if nonce is not None and claims.get("nonce") != nonce:  # item 11
        raise _refused("nonce", "answers another login")
    _check_times(claims, at)
    _check_hash(token.access_token, algorithm, claims)


def check_refreshed(token: Token, before: str, client: Client, *, at: float) -> None:
    """The ID token in *token*, from a refresh over a verified connection, is good, and names the
    issuer and subject that *before* does (§12.2).
    """
    algorithm, claims = _open(token.id_token or "")
    _, earlier = _open(before)
    _check_party(claims, client)
    if claims["sub"] != earlier.get("sub"):
        raise _refused("sub", "is about somebody else")
    # authentik sends null.
    if claims.get("nonce") is not None and claims["nonce"] != earlier.get("nonce"):
        raise _refused("nonce", "answers another login")
    _check_hash(token.access_token, algorithm, claims)
    _check_times(claims, at)  # last: see OUT_OF_TIME


def unverified() -> InvalidResponse:
    """Why no ID token is accepted over a connection that nobody has verified (item 6)."""
    return InvalidResponse(
        "an ID token cannot be accepted over an unverified connection; verify TLS, "
        "or log in without openid",
        reason=UNVERIFIED,
    )


def _check_times(claims: Object, at: float) -> None:
    if not _number(claims.get("exp")) or at >= claims["exp"] + SKEW:  # item 9
        raise _refused("exp", "has expired; check the clock of this machine")
    if not _number(claims.get("iat")) or claims["iat"] > at + SKEW:  # item 10
        raise _refused("iat", "is from the future; check the clock of this machine")


def _check_hash(access_token: str, algorithm: str, claims: Object) -> None:
    if claims.get("at_hash") is not None:  # §3.1.3.8
        hash_of = _HASHES.get(algorithm[-3:], hashlib.sha512)
        digest = hash_of(access_token.encode()).digest()
        half = urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()
        if claims["at_hash"] != half:
            raise _refused("at_hash", "belongs to another access token")


def subject(id_token: str) -> str | None:
    """Whom a checked ID token is about: something to show, never to decide by."""
    _, claims = _open(id_token)
    shown = claims.get("preferred_username") or claims.get("email") or claims.get("sub")
    return cut(shown) if isinstance(shown, str) else None


def _check_party(claims: Object, client: Client) -> None:
    if claims.get("iss") != client.server.issuer or client.server.issuer is None:  # item 2
        raise _refused("iss", "comes from another issuer")
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if audiences != [client.client_id]:  # item 3: no other audience is trusted
        raise _refused("aud", "is meant for somebody else")
    if claims.get("azp", client.client_id) != client.client_id:  # items 4, 5
        raise _refused("azp", "was issued to another client")
    who = claims.get("sub")
    if not isinstance(who, str) or not who or len(who) > 255 or not who.isascii():  # §2
        raise _refused("sub", "names nobody")


def _open(id_token: str) -> tuple[str, Object]:
    match = _COMPACT.fullmatch(id_token)
    if match is None:
        raise _refused("malformed", "is not a signed token")
    header, claims = (_segment(match[index]) for index in (1, 2))
    algorithm = header.get("alg")
    if (
        not isinstance(algorithm, str) or algorithm not in _ALGORITHMS
    ):  # items 7, 8: never none, never a shared secret
        raise _refused("alg", "is signed in a way that proves nothing")
    return algorithm, claims


def _segment(text: str) -> Object:
    try:
        segment = json_object(urlsafe_b64decode(text + "=="))  # too much padding does no harm
    except ValueError:
        segment = None
    if segment is None or segment.repeated & _READ:  # RFC 7519 §4, RFC 7515 §4
        raise _refused("malformed", "is not a signed token")
    return segment


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _refused(reason: str, why: str) -> InvalidResponse:
    return InvalidResponse(
        f"the ID token {why}; log in again, and report it if it stays so",
        reason=f"id_token.{reason}",
    )
