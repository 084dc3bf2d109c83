"""What a token response grants."""

from __future__ import annotations

from .value import Value


class Token(Value, hidden=("access_token", "refresh_token", "id_token")):
    """What a token response grants. Secrets are never in its repr.

    ``obtained_at`` and ``expires_at`` are POSIX seconds; None means that nobody knows, and the
    token is good until a server rejects it.
    """

    access_token: str
    obtained_at: float
    expires_at: float | None = None
    refresh_token: str | None = None
    id_token: str | None = None
    scopes: tuple[str, ...] = ()

    def without_refresh_token(self) -> Token:
        return self.replace(refresh_token=None)

    def succeeding(self, old: Token) -> Token:
        """This token as the outcome of refreshing *old*: what was not sent again still holds
        (RFC 6749 §6).
        """
        return self.replace(
            refresh_token=self.refresh_token or old.refresh_token,
            id_token=self.id_token or old.id_token,
        )
