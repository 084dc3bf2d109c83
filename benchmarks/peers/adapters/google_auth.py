"""google-auth: its credentials of a user, over requests. Everything it does blocks."""

from __future__ import annotations

import datetime as dt
import sys
from typing import Any

import requests
from google.auth import _helpers
from google.auth.transport.requests import AuthorizedSession, Request
from google.oauth2.credentials import Credentials

from ..clients import Sync, mounted, pooled
from ..program import Order, run

ASYNC = False
OWN = ("google",)
IMPORTS = ("google.oauth2.credentials", "google.auth.transport.requests")


def credentials(order: Order) -> Any:
    at = dt.datetime.fromtimestamp(order["expires_at"], dt.UTC)
    if "margin" in order:  # 225 s are too many for a token that lives 3 s
        _helpers.REFRESH_THRESHOLD = dt.timedelta(seconds=order["margin"])
    return Credentials(
        order["access_token"],
        refresh_token=order["refresh_token"],
        token_uri=order["token_endpoint"],
        client_id=order["client_id"],
        client_secret="",
        expiry=at.replace(tzinfo=None),
    )


def bare(order: Order) -> Any:
    return Sync(pooled(requests.Session()))


def login(order: Order) -> Any:
    theirs = credentials(order)
    if "margin" in order:
        theirs.with_non_blocking_refresh()
    session = AuthorizedSession(theirs, auth_request=Request(pooled(requests.Session())))
    return Sync(pooled(session))


def mocked(order: Order) -> Any:
    without = mounted(requests.Session())
    return Sync(without), Sync(mounted(AuthorizedSession(credentials(order))))


if __name__ == "__main__":
    run(sys.modules[__name__])
