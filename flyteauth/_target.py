"""Whom a session talks to, and as whom: discovery, and what the configuration overrides."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import anyio
from attrs import evolve, frozen

from ._io.drive import Driver
from ._io.entropy import random_bits
from ._sansio.client import AuthorizationServer, Client, parse_metadata
from ._sansio.discovery import (
    Discovery,
    PublicClient,
    agrees,
    authorization_server,
    check_redirect_uri,
    issuer_metadata,
    parse_public_client,
    public_client,
)
from ._sansio.http import Object
from .config import Settings
from .errors import ConfigError, Error, InvalidResponse

S = TypeVar("S")
T = TypeVar("T")

# Where an issuer without a Flyte control plane is told to come back: any free port (RFC 8252 §7.3).
DEFAULT_REDIRECT_URI: Final = "http://127.0.0.1/callback"

METADATA_DEADLINE: Final = 10.0  # seconds for each document (META-06)

_NEEDED: Final = {
    "Pkce": {"authorization_endpoint", "token_endpoint"},
    "DeviceFlow": {"device_authorization_endpoint", "token_endpoint"},
    "ClientSecret": {"token_endpoint"},
}


@frozen
class Target:
    """An authorization server, or None where the control plane has none, and the public client
    that the control plane advertises.
    """

    server: AuthorizationServer | None
    public: PublicClient

    def client(self, settings: Settings, secret: str | None) -> Client:
        """Us at that server; what the configuration says goes first."""
        assert self.server is not None
        client_id = settings.client_id or self.public.client_id
        if client_id is None:
            raise ConfigError(
                "no client_id is configured and the control plane advertises none; "
                "set admin.clientId, or pass client_id=",
                reason="client_id",
            )
        return Client(
            server=self.server,
            client_id=client_id,
            client_secret=secret,
            authentication=settings.client_auth,
            audience=settings.audience or self.public.audience,
            extra_parameters=settings.extra_parameters,
            quirks=settings.quirks,
            plain_host=settings.plain_host,
        )

    def scopes(self, settings: Settings) -> tuple[str, ...]:
        return self.public.scopes if settings.scopes is None else settings.scopes

    def redirect_uri(self, settings: Settings) -> str:
        if settings.redirect_uri is not None:
            return settings.redirect_uri
        advertised = self.public.redirect_uri
        return DEFAULT_REDIRECT_URI if advertised is None else check_redirect_uri(advertised)


def target_key(settings: Settings) -> str:
    """What the outcome of discovery depends on."""
    endpoint = None if settings.endpoint is None else settings.endpoint.url
    asked = [endpoint, settings.issuer, settings.auth_type, sorted(settings.endpoints.items())]
    return json.dumps([*asked, settings.verify_issuer, settings.insecure_skip_verify])


async def discover(driver: Driver, settings: Settings) -> Target:
    """Ask the control plane, or the issuer that the user names; what is configured is not asked.

    Both questions to a control plane are asked at once. Raises FlowError or ConfigError.
    """
    driver = evolve(driver, limit=METADATA_DEADLINE)

    async def ask(flow: Discovery[T]) -> T:
        return await driver.run(flow, flow.start(random_bits()))

    endpoint = None if settings.endpoint is None else settings.endpoint.url
    complete = _NEEDED.get(settings.auth_type, set()) <= settings.endpoints.keys()

    async def ask_server() -> AuthorizationServer | None:
        if complete or (endpoint is None and settings.issuer is None):
            return AuthorizationServer(issuer=settings.issuer)
        if settings.issuer is not None:
            return await ask(issuer_metadata(settings.issuer))
        return await ask(authorization_server(endpoint or ""))

    async def ask_public() -> PublicClient:
        return PublicClient() if endpoint is None else await ask(public_client(endpoint))

    server, public = await _both(ask_server, ask_public)
    if server is not None and settings.verify_issuer and settings.issuer is None:
        own = await ask(issuer_metadata(server.issuer or "", settings.plain_host))
        if not agrees(server, own):
            raise InvalidResponse(
                "the control plane names endpoints that are not its issuer's own; do not log in, "
                "and report this to whoever runs it",
                reason="provenance",
            )
        server = own
    return Target(_as_configured(server, settings), public)


def as_told(settings: Settings, metadata: Mapping[str, Any], public: Mapping[str, Any]) -> Target:
    """The same by what a control plane has told somebody else: the messages of its
    AuthMetadataService, in the spelling of the RFCs. Raises InvalidResponse.
    """
    server = None
    if metadata.get("token_endpoint"):
        server = parse_metadata(Object(metadata), settings.plain_host)
    return Target(_as_configured(server, settings), parse_public_client(Object(public)))


def _as_configured(
    server: AuthorizationServer | None, settings: Settings
) -> AuthorizationServer | None:
    if server is None and not settings.endpoints:
        return None
    endpoints: dict[str, Any] = dict(settings.endpoints)
    return evolve(server or AuthorizationServer(), **endpoints)


async def _both(
    first: Callable[[], Awaitable[S]], second: Callable[[], Awaitable[T]]
) -> tuple[S, T]:
    """Both results; of two failures, the first one's."""
    results: dict[int, Any] = {}
    failures: dict[int, Error] = {}

    async def run(index: int, function: Callable[[], Any]) -> None:
        try:
            results[index] = await function()
        except Error as error:
            failures[index] = error

    async with anyio.create_task_group() as group:
        group.start_soon(run, 0, first)
        group.start_soon(run, 1, second)
    for index in sorted(failures):
        raise failures[index]
    return results[0], results[1]
