"""Flyte's own tools: the real ones, for the tests that need them, and what they do by themselves."""

from __future__ import annotations

import os
from typing import Final

import httpx
import pytest

from flyteauth.devserver.serve import Running

_VARIABLES: Final = {
    "flyte": "FLYTEAUTH_FLYTE_PYTHON",
    "flytekit": "FLYTEAUTH_FLYTEKIT_PYTHON",
}


def python_of(tool: str) -> str:
    """A Python that has *tool*, or else the test is skipped."""
    variable = _VARIABLES[tool]
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{tool} is missing; set {variable} to a Python that has it")
    return python


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
