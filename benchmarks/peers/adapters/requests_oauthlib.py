"""requests-oauthlib. Everything it does blocks."""

from __future__ import annotations

import sys
from typing import Any

import requests
from oauthlib.oauth2 import BackendApplicationClient
from requests_oauthlib import OAuth2Session

from ..clients import TIMEOUT, Sync, mounted, pooled
from ..program import Order, run

ASYNC = False
OWN = ("requests_oauthlib", "oauthlib")
IMPORTS = ("requests_oauthlib",)


def _session(order: Order) -> Any:
    token = {
        "access_token": order["access_token"],
        "refresh_token": order["refresh_token"],
        "expires_at": order["expires_at"],
        "token_type": "Bearer",
    }
    session = OAuth2Session(
        order["client_id"],
        token=token,
        auto_refresh_url=order["token_endpoint"],
        auto_refresh_kwargs={"client_id": order["client_id"]},
        token_updater=lambda token: None,
    )
    session.trust_env = False
    return session


def bare(order: Order) -> Any:
    return Sync(pooled(requests.Session()), timeout=TIMEOUT)


def login(order: Order) -> Any:
    return Sync(pooled(_session(order)), timeout=TIMEOUT)


class _Cold(Sync):
    def __init__(self, order: Order) -> None:
        client = BackendApplicationClient(order["service_id"], scope=["all"])
        super().__init__(OAuth2Session(client=client), timeout=TIMEOUT)
        self._order = order

    def get(self, url: str) -> int:
        if not self._client.token:
            self._client.fetch_token(
                self._order["token_endpoint"],
                client_id=self._order["service_id"],
                client_secret=self._order["service_secret"],
                timeout=TIMEOUT,
            )
        return super().get(url)


def cold(order: Order) -> Any:
    return _Cold(order)


def mocked(order: Order) -> Any:
    without = mounted(requests.Session())
    return Sync(without), Sync(mounted(_session(order)))


if __name__ == "__main__":
    run(sys.modules[__name__])
