"""Authlib: its asynchronous client for httpx. It has no store: the harness brings a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import httpx
from authlib.integrations.httpx_client import AsyncOAuth2Client

from ..clients import Async, instant, limits
from ..program import Order, run

ASYNC = True
OWN = ("authlib",)
IMPORTS = ("authlib.integrations.httpx_client",)
FILE = Path("~/authlib.json")


def _token(order: Order) -> Any:
    return {
        "access_token": order["access_token"],
        "refresh_token": order["refresh_token"],
        "expires_at": order["expires_at"],
        "token_type": "Bearer",
    }


def _client(order: Order, token: Any, **options: Any) -> Any:
    # Its 60 s before the end of a token are too many for one that lives 3 s.
    return AsyncOAuth2Client(
        order["client_id"],
        token=token,
        token_endpoint=order["token_endpoint"],
        token_endpoint_auth_method="none",
        leeway=order.get("margin", 60),
        **options,
    )


def bare(order: Order) -> Any:
    return Async(httpx.AsyncClient(**limits(httpx)))


def login(order: Order) -> Any:
    return Async(_client(order, _token(order), **limits(httpx)))


def _write(token: Any) -> None:
    FILE.expanduser().write_text(json.dumps(dict(token)))


def keep(order: Order) -> None:
    _write(_token(order))


def kept(order: Order) -> Any:
    async def update(token: Any, refresh_token: Any = None, access_token: Any = None) -> None:
        _write(token)

    token = json.loads(FILE.expanduser().read_text())
    return Async(_client(order, token, update_token=update, **limits(httpx)))


class _Cold(Async):
    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._asked = False

    async def get(self, url: str) -> int:
        if not self._asked:
            await self._client.fetch_token(grant_type="client_credentials")
            self._asked = True
        return await super().get(url)


def cold(order: Order) -> Any:
    return _Cold(
        AsyncOAuth2Client(
            order["service_id"],
            order["service_secret"],
            token_endpoint=order["token_endpoint"],
            scope="all",
            **limits(httpx),
        )
    )


def mocked(order: Order) -> Any:
    without = httpx.AsyncClient(transport=instant(httpx))
    return Async(without), Async(_client(order, _token(order), transport=instant(httpx)))


if __name__ == "__main__":
    run(sys.modules[__name__])
