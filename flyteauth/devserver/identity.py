"""Who a user is: what is known about them, and the ID tokens that say so."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

from . import signing
from .issued import Family
from .settings import Settings

DEFAULT_USER: Final = "alice"


def id_token(
    settings: Settings, family: Family, access_token: str, at: float, nonce: str | None
) -> str:
    """OpenID Connect Core §2, §3.1.3.6; after a refresh without a nonce (§12.2)."""
    half = hashlib.sha256(access_token.encode()).digest()[:16]
    claims: dict[str, Any] = {
        "iss": settings.issuer,
        "sub": subject_of(family.subject),
        "aud": family.client_id,
        "exp": int(at + settings.access_ttl),
        "iat": int(at),
        "auth_time": int(family.auth_time),
        "at_hash": signing.base64url(half),
        **profile(family.subject),
    }
    if nonce is not None:
        claims["nonce"] = "another" if settings.fault("wrong-nonce") else nonce
    return signing.jwt(claims)


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
