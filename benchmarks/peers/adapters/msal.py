"""
MSAL for Python, by client credentials and by device code. Everything it does blocks.

It insists on an authority with TLS, so its requests are led to the server by the HTTP client that
it lets its users bring.
"""

from __future__ import annotations

import sys
from typing import Any

import msal
import requests

from ..clients import TIMEOUT, Sync, mounted, pooled
from ..program import Order, run

ASYNC = False
OWN = ("msal", "msal_extensions")
IMPORTS = ("msal", "msal_extensions")
AUTHORITY = "https://authority.invalid/tenant"


class _Led:
    """requests, as far as msal needs it."""

    def __init__(self, order: Order) -> None:
        self._session = requests.Session()
        self._order = order

    def get(self, url: str, **options: Any) -> Any:
        response = self._session.get(self._to(url), timeout=TIMEOUT, **options)
        # The discovery document speaks of the server itself.
        text = response.text.replace(self._order["endpoint"], AUTHORITY)
        response._content = text.encode()  # noqa: SLF001
        return response

    def post(self, url: str, **options: Any) -> Any:
        return self._session.post(self._to(url), timeout=TIMEOUT, **options)

    def _to(self, url: str) -> Any:
        return url.replace(AUTHORITY, self._order["endpoint"])

    def close(self) -> None:
        self._session.close()


class _Client(Sync):
    def __init__(self, session: Any, application: Any, **options: Any) -> None:
        super().__init__(session, **options)
        self._application = application
        self.made = None

    def get(self, url: str) -> Any:
        application = self.made = self.made or self._application()
        token = application.acquire_token_for_client(["all"])
        if "access_token" not in token:
            raise ErrorReturned(token.get("error"))
        headers = {"authorization": f"Bearer {token['access_token']}"}
        return self._client.get(url, headers=headers, **self._options).status_code


class ErrorReturned(Exception):
    """msal returns errors; whoever uses it raises one."""


ErrorReturned.__module__ = "msal"


def _service(order: Order) -> Any:
    return lambda: msal.ConfidentialClientApplication(
        order["service_id"],
        order["service_secret"],
        oidc_authority=AUTHORITY,
        http_client=_Led(order),
    )


def _person(order: Order) -> Any:
    return msal.PublicClientApplication(
        order["client_id"], oidc_authority=AUTHORITY, http_client=_Led(order)
    )


def bare(order: Order) -> Any:
    return Sync(pooled(requests.Session()), timeout=TIMEOUT)


def cold(order: Order) -> Any:
    return _Client(pooled(requests.Session()), _service(order), timeout=TIMEOUT)


def mocked(order: Order) -> Any:
    client = cold(order)
    client.get(order["resource"])
    theirs = _Client(mounted(requests.Session()), lambda: client.made)
    return Sync(mounted(requests.Session())), theirs


def device(order: Order) -> str:
    application = _person(order)
    flow = application.initiate_device_flow(["all"])
    if "user_code" not in flow:
        raise ErrorReturned(flow.get("error"))
    token = application.acquire_token_by_device_flow(flow)
    if "access_token" not in token:
        raise ErrorReturned(token.get("error"))
    return "a token"


if __name__ == "__main__":
    run(sys.modules[__name__])
