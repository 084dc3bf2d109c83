"""Logins that outlive a restart: refresh tokens, each with what is known of its family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .issued import Family, RefreshToken
from .shelves import Shelves

_KIND: Final = "login"


class Logins:
    """The refresh tokens, by value, on *shelves*."""

    def __init__(self, shelves: Shelves) -> None:
        self._shelves = shelves

    def restored(self) -> dict[str, RefreshToken]:
        families: dict[str, Family] = {}
        tokens: dict[str, RefreshToken] = {}
        for value in self._shelves.keys(_KIND):
            kept = self._shelves.document(_KIND, value)
            assert kept is not None
            family = families.setdefault(
                kept["family"],
                Family(
                    kept["client_id"],
                    kept["subject"],
                    tuple(kept["scopes"]),
                    kept["auth_time"],
                    key=kept["family"],
                ),
            )
            family.revoked = family.revoked or kept["revoked"]
            if kept["rotated_at"] is None:
                family.refresh_token = value
            tokens[value] = RefreshToken(family, kept["expires_at"], kept["rotated_at"])
        return tokens

    def keep(self, value: str, token: RefreshToken) -> None:
        family = token.family
        document = {
            "family": family.key,
            "client_id": family.client_id,
            "subject": family.subject,
            "scopes": family.scopes,
            "auth_time": family.auth_time,
            "revoked": family.revoked,
            "expires_at": token.expires_at,
            "rotated_at": token.rotated_at,
        }
        self._shelves.put_document(_KIND, value, document)

    def keep_family(self, family: Family, tokens: Mapping[str, RefreshToken]) -> None:
        """All of *tokens* that are of *family*: something has changed for each of them."""
        for value, token in tokens.items():
            if token.family is family:
                self.keep(value, token)

    def forget_all_but(self, tokens: Mapping[str, RefreshToken]) -> None:
        if self._shelves.count(_KIND) != len(tokens):
            for value in self._shelves.keys(_KIND):
                if value not in tokens:
                    self._shelves.drop(_KIND, value)
