"""flytekit: its session of requests. Everything it does blocks."""

from __future__ import annotations

import sys
from typing import Any

import requests
from flytekit.clients.auth.authenticator import (
    ClientConfig,
    ClientCredentialsAuthenticator,
    DeviceCodeAuthenticator,
    PKCEAuthenticator,
    StaticClientConfigStore,
)
from flytekit.clients.auth.keyring import Credentials, KeyringStore
from flytekit.clients.auth_helper import AuthenticationHTTPAdapter

from ..clients import Sync, client_config, mounted, pooled
from ..program import Order, run

ASYNC = False
OWN = ("flytekit",)
IMPORTS = ("flytekit.clients.auth_helper", "keyring")


def _told(order: Order) -> Any:
    return StaticClientConfigStore(ClientConfig(**client_config(order)))


def _person(order: Order) -> Any:
    return PKCEAuthenticator(order["endpoint"], _told(order), header_key="authorization")


def _session(authenticator: Any) -> Any:
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, AuthenticationHTTPAdapter(authenticator, pool_maxsize=128))
    return Sync(session)


def bare(order: Order) -> Any:
    return Sync(pooled(requests.Session()))


def keep(order: Order) -> None:
    KeyringStore.store(
        Credentials(order["access_token"], order["refresh_token"], order["endpoint"])
    )


def kept(order: Order) -> Any:
    return _session(_person(order))


def login(order: Order) -> Any:
    keep(order)
    return kept(order)


def cold(order: Order) -> Any:
    return _session(
        ClientCredentialsAuthenticator(
            endpoint=order["endpoint"],
            client_id=order["service_id"],
            client_secret=order["service_secret"],
            cfg_store=_told(order),
        )
    )


def mocked(order: Order) -> Any:
    keep(order)
    authenticator = _person(order)
    instant = mounted(requests.Session())

    class Adapter(AuthenticationHTTPAdapter):
        def send(self, request: Any, **options: Any) -> Any:
            self.add_auth_header(request)
            return instant.get_adapter(request.url).send(request, **options)

    session = requests.Session()
    session.mount("http://", Adapter(authenticator))
    return Sync(instant), Sync(session)


def device(order: Order) -> str:
    DeviceCodeAuthenticator(order["endpoint"], _told(order)).refresh_credentials()
    return "a token"


if __name__ == "__main__":
    run(sys.modules[__name__])
