"""Sessions at other servers, and what those servers make of their tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from flyteauth.session import Session

from .people import Person
from .running import Server

# Somebody who wants to stay logged in.
PERSON: Final[Mapping[str, Any]] = {
    "auth_type": "Pkce",
    "client_id": "person",
    "scopes": ["openid", "offline_access", "all"],
    "redirect_uri": "http://127.0.0.1/callback",
    "extra_parameters": {"authorization": {"prompt": "consent"}},
    "token_store": "file",
    "login_timeout": 60.0,
}


def person(server: Server, who: Person | None = None, **more: Any) -> Session:
    return Session(issuer=server.issuer, presenter=who or Person(), **{**PERSON, **more})


def service(server: Server, client_id: str, **more: Any) -> Session:
    more = {"scopes": ["all"], "token_store": "memory", **more}
    return Session(issuer=server.issuer, client_id=client_id, **more)


def subject(server: Server, path: str, headers: Mapping[str, str]) -> str | None:
    """Whom the server takes us for, as it says at *path*; None if it does not know us."""
    response = server.get(path, headers=dict(headers))
    if response.status_code == 401:
        return None
    sub: str = response.raise_for_status().json()["sub"]
    return sub


def refused(server: Server, refresh_token: str) -> bool:
    """Whether the server says no to somebody who has got hold of that."""
    form = {"grant_type": "refresh_token", "client_id": PERSON["client_id"]}
    answer = server.post("/token", {**form, "refresh_token": refresh_token})
    return answer.status_code == 400 and answer.json()["error"] == "invalid_grant"


def kept_in(home: Path) -> int:
    """How many logins are kept there."""
    return sum(path.is_file() for path in home.rglob("logins/*"))
