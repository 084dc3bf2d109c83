"""Importing what a client needs: how much longer than a bare Python, and how much memory?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ...processes import Usage, processes
from ..comparison import Column, Comparison, first, turns
from ..environments import OURS, Environment

PAIRS: Final = 11

# What a program imports to make authorised calls.
NEEDED: Final = {
    OURS: {
        OURS: "import flyteauth.integrations.httpx, httpx",
        "flyteauth, Session": "import flyteauth; flyteauth.Session",
        "flyteauth, import only": "import flyteauth",
    },
    "flyte": {
        "flyte, session": "import flyte.remote._client.auth._session",
        "flyte": "import flyte",
    },
    "flytekit": {"flytekit, auth_helper": "import flytekit.clients.auth_helper"},
    "authlib": {"authlib, httpx_client": "import authlib.integrations.httpx_client"},
    "httpx-auth": {"httpx-auth": "import httpx_auth"},
    "httpx-oauth": {"httpx-oauth": "import httpx_oauth.oauth2"},
    "msal": {"msal": "import msal"},
    "google-auth": {
        "google-auth": "import google.oauth2.credentials, google.auth.transport.requests"
    },
    "google-auth-aio": {
        "google-auth-aio": "import google.oauth2.credentials, google.auth.aio.transport.sessions"
    },
    "requests-oauthlib": {"requests-oauthlib": "import requests_oauthlib"},
    "mcp": {"mcp, client.auth": "import mcp.client.auth"},
}
"""By environment. Our Session alone imports no HTTP library before it needs one."""

# Nothing of these attaches credentials to a call.
LESS: Final = frozenset({"httpx-oauth", "flyte"})


def rows(found: list[Environment], *, quick: bool) -> Iterator[Comparison]:
    programs = {
        label: (str(each.python), program)
        for each in found
        for label, program in NEEDED[each.name].items()
    }
    measured: dict[str, list[tuple[Usage, ...]]] = {label: [] for label in programs}
    with processes() as launched:
        for index in range(-1, 3 if quick else PAIRS):
            for label in turns(list(programs), index):
                python, program = programs[label]
                pair = tuple(launched.use([python, "-c", code]) for code in ("pass", program))
                if index >= 0:  # before that, byte code is written
                    measured[label].append(pair)
    figures = {
        label: {
            "more than bare": [1000 * (b.seconds - a.seconds) for a, b in pairs],
            "times bare": [b.seconds / a.seconds for a, b in pairs],
            "peak memory": [b.peak_mb for _, b in pairs],
            "of bare": [a.peak_mb for a, _ in pairs],
        }
        for label, pairs in measured.items()
    }
    compared = {
        name: each
        for name, each in figures.items()
        if name not in LESS and not name.startswith(f"{OURS}, ")
    }
    yield Comparison(
        "import",
        "importing what a client needs, whole processes",
        [
            Column("more than bare", "ms", decides=True),
            Column("times bare"),
            Column("peak memory", "MB"),
            Column("of bare", "MB"),
        ],
        figures,
        first(compared, "more than bare"),
        [f"{' and '.join(sorted(LESS))} only to be known: they attach nothing to a call"],
    )
