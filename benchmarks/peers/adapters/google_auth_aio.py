"""google-auth's asynchronous session, over aiohttp; it refreshes in a thread, over requests."""

from __future__ import annotations

import sys
from typing import Any

import aiohttp
from google.auth.aio.transport.aiohttp import Request
from google.auth.aio.transport.sessions import AsyncAuthorizedSession

from ..clients import AT_ONCE, TIMEOUT
from ..program import Order, run
from .google_auth import credentials

ASYNC = True
OWN = ("google",)
IMPORTS = ("google.oauth2.credentials", "google.auth.aio.transport.sessions")


def _session() -> Any:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=AT_ONCE),
        timeout=aiohttp.ClientTimeout(TIMEOUT),
    )


class _Bare:
    def __init__(self) -> None:
        self._session = _session()

    async def get(self, url: str) -> Any:
        async with self._session.get(url) as response:
            await response.read()
            return response.status

    async def close(self) -> None:
        await self._session.close()


class _Authorized:
    def __init__(self, order: Order) -> None:
        self._session = AsyncAuthorizedSession(credentials(order), auth_request=Request(_session()))

    async def get(self, url: str) -> Any:
        response = await self._session.get(url, timeout=TIMEOUT, max_allowed_time=TIMEOUT)
        await response.read()
        return response.status_code

    async def close(self) -> None:
        await self._session.close()


async def bare(order: Order) -> Any:
    return _Bare()


async def login(order: Order) -> Any:
    return _Authorized(order)


if __name__ == "__main__":
    run(sys.modules[__name__])
