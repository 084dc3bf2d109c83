"""What Flyte's other tools do by themselves."""

from __future__ import annotations

import httpx

from flyteauth.devserver.serve import Running


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
