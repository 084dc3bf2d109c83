"""One step of each flow, without a network: what does it cost beside reading its JSON alone?"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from flyteauth._sansio.client import AuthorizationServer, Client
from flyteauth._sansio.device_authorization import DeviceAuthorization, DeviceCode, Polling
from flyteauth._sansio.discovery import authorization_server, public_client
from flyteauth._sansio.exchanges import client_credentials, refresh
from flyteauth._sansio.flow import Flow, ResponseReceived
from flyteauth._sansio.http import Response
from flyteauth._sansio.token import Token

from ..table import Measure, Row, known, no_collection

PAIRS: Final = 60
LOOPS: Final = 200  # in each half of a pair
AT: Final = 1_700_000_000.0
SERVER: Final = AuthorizationServer(
    issuer="https://as.example",
    token_endpoint="https://as.example/token",
    device_authorization_endpoint="https://as.example/device",
)
CLIENT: Final = Client(SERVER, "flytectl")
GRANTED: Final = {
    "access_token": "a" * 900,
    "token_type": "Bearer",
    "expires_in": 1800,
    "refresh_token": "r" * 64,
    "scope": "all offline",
}
PENDING: Final = {"error": "authorization_pending"}
METADATA: Final = {
    "issuer": "https://as.example",
    "authorizationEndpoint": "https://as.example/authorize",
    "tokenEndpoint": "https://as.example/token",
    "deviceAuthorizationEndpoint": "https://as.example/device",
    "responseTypesSupported": ["code"],
    "scopesSupported": ["all", "offline"],
    "tokenEndpointAuthMethodsSupported": ["client_secret_basic", "none"],
    "codeChallengeMethodsSupported": ["S256"],
    "grantTypesSupported": ["authorization_code", "refresh_token", "client_credentials"],
}
PUBLIC: Final = {
    "clientId": "flytectl",
    "redirectUri": "http://localhost:53593/callback",
    "scopes": ["all", "offline"],
    "authorizationMetadataKey": "authorization",
}


def rows(*, quick: bool) -> Iterator[Row]:
    pairs = 10 if quick else PAIRS
    token = Token("a" * 900, AT - 1800, AT, "r" * 64, None, ("all", "offline"))
    service = Client(SERVER, "service", client_secret="secret")
    code = DeviceCode("d" * 32, "WDJB-MJHT", "https://as.example/device", None, AT + 600, 5.0)
    device = DeviceAuthorization(CLIENT)
    grant, renewal = client_credentials(service, ("all",)), refresh(CLIENT, token)
    metadata = authorization_server("https://flyte.example.com")
    public = public_client("https://flyte.example.com")
    steps: dict[str, tuple[Flow[Any, Any], Any, int, dict[str, Any]]] = {
        "refresh, a token": (renewal, renewal.start(), 200, GRANTED),
        "client credentials, a token": (grant, grant.start(), 200, GRANTED),
        "device, still pending": (device, Polling(code), 400, PENDING),
        "device, a token": (device, Polling(code), 200, GRANTED),
        "discovery, the server": (metadata, metadata.start(7), 200, METADATA),
        "discovery, the client": (public, public.start(7), 200, PUBLIC),
    }
    measures: list[Measure] = []
    for name, step in steps.items():
        measures.extend(_measures(name, *step, pairs=pairs))
    yield Row(
        "a step of a flow, from its effect to its next state",
        "",
        measures,
        ["beside json.loads of the same body; everything is checked in it"],
    )


def _measures(
    name: str, flow: Flow[Any, Any], state: Any, status: int, body: dict[str, Any], *, pairs: int
) -> list[Measure]:
    text = json.dumps(body).encode()
    headers = (("content-type", "application/json"),)
    event = ResponseReceived(Response(status, headers, text), AT, AT)

    def step() -> None:
        flow.effect(state)
        flow.advance(state, event)

    def floor() -> None:
        json.loads(text)

    functions = (floor, step)
    found: tuple[list[float], list[float]] = ([], [])
    with no_collection():
        for index in range(-1, pairs):
            gc.collect()
            for which in ((0, 1), (1, 0))[index % 2]:
                microseconds = _time(functions[which])
                if index >= 0:
                    found[which].append(microseconds)
    ratios = [ours / bare for bare, ours in zip(*found, strict=True)]
    return [
        known(name, found[1], "µs"),
        known(f"{name}: json.loads", found[0], "µs"),
        known(f"{name}: as many times that", ratios, "x"),
    ]


def _time(function: Callable[[], None]) -> float:
    begun = time.thread_time()
    for _ in range(LOOPS):
        function()
    return (time.thread_time() - begun) / LOOPS * 1e6
