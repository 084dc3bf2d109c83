"""What Flyte's other tools do by themselves."""

from __future__ import annotations

from pathlib import Path

import httpx

from flyteauth.devserver.serve import Running

from .conftest import Home


def refreshed(running: Running, refresh_token: str) -> tuple[str, str]:
    """The access token and the refresh token that another tool gets for *refresh_token*."""
    form = {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "client_id": "flytectl",
    }
    reply = httpx.post(f"{running.base_url}/oauth2/token", data=form).raise_for_status().json()
    return reply["access_token"], reply["refresh_token"]


def expire(running: Running, access_token: str) -> None:
    """The control plane takes *access_token* no more; its refresh token lives on."""
    form = {"token": access_token, "client_id": "flytectl"}
    httpx.post(f"{running.base_url}/oauth2/revoke", data=form).raise_for_status()


def with_backend(home: Home) -> Path:
    """A directory with the backend in it: the tool's environment need not have it."""
    import keyrings.alt  # type: ignore[import-untyped]

    directory = home.path / "backend"
    if not directory.exists():
        (directory / "keyrings").mkdir(parents=True)
        (directory / "keyrings/alt").symlink_to(Path(keyrings.alt.__file__).parent)
    return directory
