"""What the authorization server has issued and must remember."""

from __future__ import annotations

from attrs import define, field, frozen

from .requests import AuthorizationRequest


@define(eq=False)
class Family:
    """All that grew out of one approval."""

    client_id: str
    subject: str
    scopes: tuple[str, ...]
    auth_time: float
    refresh_token: str | None = field(default=None, repr=False)
    revoked: bool = False
    key: str = field(default="", repr=False)
    """What it is known by where it is kept; only one with refresh tokens is."""


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
