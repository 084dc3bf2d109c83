"""
The MCP Python SDK: its auth for httpx2. It has no store: the harness brings a file. There is no
public way to tell it when a stored token ends, so that is set on its context.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import (
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthMetadata,
    OAuthToken,
)

from ..clients import Async, instant, limits
from ..program import LoginAsked, Order, run

ASYNC = True
OWN = ("mcp",)
IMPORTS = ("mcp.client.auth",)
FILE = Path("~/mcp.json")
REDIRECT = "http://localhost:53593/callback"


class _Memory:
    """TokenStorage of one client."""

    def __init__(self, order: Order) -> None:
        self._tokens = _tokens(order)
        self._client = OAuthClientInformationFull(
            client_id=order["client_id"],
            redirect_uris=[REDIRECT],
            token_endpoint_auth_method="none",
        )

    async def get_tokens(self) -> Any:
        return self._tokens

    async def set_tokens(self, tokens: Any) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> Any:
        return self._client

    async def set_client_info(self, client_info: Any) -> None:
        self._client = client_info


class _File(_Memory):
    async def get_tokens(self) -> Any:
        return OAuthToken(**json.loads(_read()))

    async def set_tokens(self, tokens: Any) -> None:
        _write(tokens)


def _read() -> str:
    return FILE.expanduser().read_text()


def _write(tokens: OAuthToken) -> None:
    FILE.expanduser().write_text(tokens.model_dump_json())


def _tokens(order: Order) -> Any:
    return OAuthToken(
        access_token=order["access_token"],
        refresh_token=order["refresh_token"],
        token_type="Bearer",
        expires_in=1800,
    )


async def _ask(*_: Any) -> None:
    raise LoginAsked


def _provider(order: Order, storage: Any) -> Any:
    return OAuthClientProvider(
        order["resource"],
        OAuthClientMetadata(redirect_uris=[REDIRECT], scope=order["scope"]),
        storage,
        redirect_handler=_ask,
        callback_handler=_ask,
    )


async def _knowing(order: Order) -> Any:
    """A provider that has its tokens in hand, and knows when they end."""
    provider = _provider(order, _Memory(order))
    await provider._initialize()  # noqa: SLF001  # it has no public name
    provider.context.token_expiry_time = order["expires_at"]
    provider.context.oauth_metadata = OAuthMetadata(
        issuer=order["endpoint"],
        authorization_endpoint=order["authorization_endpoint"],
        token_endpoint=order["token_endpoint"],
    )
    return provider


def bare(order: Order) -> Any:
    return Async(httpx2.AsyncClient(**limits(httpx2)))


async def login(order: Order) -> Any:
    return Async(httpx2.AsyncClient(auth=await _knowing(order), **limits(httpx2)))


def keep(order: Order) -> None:
    _write(_tokens(order))


def kept(order: Order) -> Any:
    provider = _provider(order, _File(order))
    return Async(httpx2.AsyncClient(auth=provider, **limits(httpx2)))


async def mocked(order: Order) -> Any:
    provider = await _knowing(order)
    without = httpx2.AsyncClient(transport=instant(httpx2))
    return Async(without), Async(httpx2.AsyncClient(auth=provider, transport=instant(httpx2)))


if __name__ == "__main__":
    run(sys.modules[__name__])
