"""httpx-auth, by client credentials: it takes no tokens from elsewhere."""

from __future__ import annotations

import sys
from typing import Any

import httpx
from httpx_auth import OAuth2, OAuth2ClientCredentials

from ..clients import Async, instant, limits
from ..program import Order, run

ASYNC = True
OWN = ("httpx_auth",)
IMPORTS = ("httpx_auth",)


def _auth(order: Order) -> Any:
    return OAuth2ClientCredentials(
        order["token_endpoint"],
        client_id=order["service_id"],
        client_secret=order["service_secret"],
        scope="all",
        early_expiry=order.get("margin", 30.0),
    )


def bare(order: Order) -> Any:
    return Async(httpx.AsyncClient(**limits(httpx)))


def cold(order: Order) -> Any:
    OAuth2.token_cache.clear()  # one for the whole process
    return Async(httpx.AsyncClient(auth=_auth(order), **limits(httpx)))


async def mocked(order: Order) -> Any:
    client = cold(order)
    await client.get(order["resource"])
    theirs = httpx.AsyncClient(auth=_auth(order), transport=instant(httpx))
    return Async(httpx.AsyncClient(transport=instant(httpx))), Async(theirs)


if __name__ == "__main__":
    run(sys.modules[__name__])
