"""flyte: its httpx client, and its interceptors for Connect."""

from __future__ import annotations

import sys
from typing import Any

import httpx
from flyte.remote._client.auth._authenticators.base import (
    AsyncAuthenticatedClient,
    get_async_session,
)
from flyte.remote._client.auth._authenticators.client_credentials import (
    ClientCredentialsAuthenticator,
)
from flyte.remote._client.auth._authenticators.device_code import DeviceCodeAuthenticator
from flyte.remote._client.auth._authenticators.pkce import PKCEAuthenticator
from flyte.remote._client.auth._client_config import (
    ClientConfig,
    StaticClientConfigStore,
)
from flyte.remote._client.auth._interceptors.auth import AuthUnaryInterceptor
from flyte.remote._client.auth._keyring import Credentials, KeyringStore
from flyte.remote._client.auth._session import create_session_config
from flyteidl2.workflow.run_service_connect import RunServiceClient

from ..clients import Async, client_config, instant, limits
from ..connect import Calls, Instant, bare_connect as bare_connect  # noqa: PLC0414
from ..program import Order, run

ASYNC = True
OWN = ("flyte",)
IMPORTS = ("flyte.remote._client.auth._session", "keyring")


def _told(order: Order) -> Any:
    return StaticClientConfigStore(ClientConfig(**client_config(order)))


def _person(order: Order) -> Any:
    return PKCEAuthenticator(
        endpoint=order["endpoint"], cfg_store=_told(order), http_session=get_async_session()
    )


def bare(order: Order) -> Any:
    return Async(httpx.AsyncClient(**limits(httpx)))


def keep(order: Order) -> None:
    KeyringStore.store(
        Credentials(
            for_endpoint=order["endpoint"],
            access_token=order["access_token"],
            refresh_token=order["refresh_token"],
        )
    )


def kept(order: Order) -> Any:
    return Async(AsyncAuthenticatedClient(_person(order), **limits(httpx)))


def login(order: Order) -> Any:
    keep(order)
    return kept(order)


def cold(order: Order) -> Any:
    authenticator = ClientCredentialsAuthenticator(
        client_id=order["service_id"],
        client_credentials_secret=order["service_secret"],
        endpoint=order["endpoint"],
        cfg_store=_told(order),
        http_session=get_async_session(),
        disable_keyring=True,
    )
    return Async(AsyncAuthenticatedClient(authenticator, **limits(httpx)))


def mocked(order: Order) -> Any:
    keep(order)
    theirs = AsyncAuthenticatedClient(_person(order), transport=instant(httpx))
    return Async(httpx.AsyncClient(transport=instant(httpx))), Async(theirs)


async def device(order: Order) -> str:
    authenticator = DeviceCodeAuthenticator(
        endpoint=order["endpoint"],
        cfg_store=_told(order),
        http_session=get_async_session(),
        disable_keyring=True,
    )
    await authenticator.refresh_credentials()
    return "a token"


# Over Connect.


async def login_connect(order: Order) -> Any:
    keep(order)
    config = await create_session_config(order["endpoint"], auth_type="Pkce")
    return Calls(RunServiceClient(**config.connect_kwargs()))


async def cold_connect(order: Order) -> Any:
    config = await create_session_config(
        order["endpoint"],
        auth_type="ClientSecret",
        client_id=order["service_id"],
        client_credentials_secret=order["service_secret"],
        disable_keyring=True,
    )
    return Calls(RunServiceClient(**config.connect_kwargs()))


def mocked_connect(order: Order) -> Any:
    keep(order)
    authenticator = _person(order)
    theirs = AuthUnaryInterceptor(lambda: authenticator)
    runs = RunServiceClient(order["endpoint"], interceptors=[theirs, Instant()])
    without = RunServiceClient(order["endpoint"], interceptors=[Instant()])
    return Calls(without, streams=False), Calls(runs, streams=False)


if __name__ == "__main__":
    run(sys.modules[__name__])
