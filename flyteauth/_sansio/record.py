"""What a store keeps of a login: the token, and where it came from."""

from __future__ import annotations

import json
from typing import Final

from attrs import asdict, frozen

from .errors import StoreError
from .flow import load
from .tokens import Token

VERSION: Final = 1
# What the first records did not have.
_NEWER: Final = {"login": None, "forced_at": None, "generation": 0}


@frozen
class Record:
    """One login. Its refresh token goes only to the token endpoint that it came from, for the
    client that it was issued to (RFC 6749 §10.4).

    ``header`` carries the token to the control plane, ``authentication`` is how the client proves
    itself to the server, and ``subject`` is whom the login is of, to be shown. ``login`` is a
    random name for the login that the record goes back to, and ``generation`` counts the refreshes
    since. ``forced_at``: when one of them was last made because a server had rejected the token.
    """

    token: Token
    token_endpoint: str
    client_id: str
    header: str = "authorization"
    issuer: str | None = None
    revocation_endpoint: str | None = None
    authentication: str | None = None
    subject: str | None = None
    login: str | None = None
    forced_at: float | None = None
    generation: int = 0

    def dump(self) -> str:
        """Everything, secrets included, as JSON."""
        return json.dumps({"version": VERSION, **asdict(self)})


def load_record(text: str) -> Record:
    """The record in *text*; StoreError (``reason="corrupt"``) if there is none."""
    try:
        saved = json.loads(text)
        version = saved.pop("version")
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        version = None
    if version != VERSION:
        raise StoreError(
            "the stored login is damaged or was written by another version; log in again",
            reason="corrupt",
        )
    return load((Record,), {"class": "Record", **_NEWER, **saved})


def is_same(one: Record | None, other: Record | None) -> bool:
    """Whether two records hold the same tokens, or both are none."""
    if one is None or other is None:
        return one is other
    return (one.token.access_token, one.token.refresh_token) == (
        other.token.access_token,
        other.token.refresh_token,
    )
