"""httpx-oauth: requests for tokens, and nothing that uses them."""

from __future__ import annotations

import sys
from typing import Any

import httpx
from httpx_oauth.oauth2 import OAuth2

from ..program import Order, run

ASYNC = True
OWN = ("httpx_oauth",)
IMPORTS = ("httpx_oauth.oauth2",)


class _Client:
    """A refresh, and then the call; whoever uses it writes this."""

    def __init__(self, order: Order) -> None:
        self._refresh_token = order["refresh_token"]
        self._oauth = OAuth2(
            order["client_id"],
            "",
            order["authorization_endpoint"],
            order["token_endpoint"],
            refresh_token_endpoint=order["token_endpoint"],
        )

    async def get(self, url: str) -> int:
        token = await self._oauth.refresh_token(self._refresh_token)
        headers = {"authorization": f"Bearer {token['access_token']}"}
        async with httpx.AsyncClient() as client:
            return (await client.get(url, headers=headers)).status_code

    async def close(self) -> None:
        """Each request has a client of its own."""


def login(order: Order) -> Any:
    return _Client(order)


if __name__ == "__main__":
    run(sys.modules[__name__])
