"""What a configuration comes to: the parts that a session works with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from attrs import frozen

from ._io.clock import Clock
from ._io.drive import Driver
from ._io.proxy_credential import Proxied, ProxyCredential
from ._io.store import Store
from ._io.transport import HttpxTransport, Transport
from ._machine import Machine
from ._own_command import to_run
from ._sansio.client import Authentication, AuthorizationServer, Client
from ._sansio.record import Record
from ._source import in_time
from ._vault import Vault
from .config import Settings
from .errors import MissingMetadata, ReauthRequired
from .events import AuthEvent

Notify = Callable[[AuthEvent], Awaitable[None]]


@frozen
class Setup:
    """Settings, and the adapters made from them. ``verified``: whether certificates are checked; a
    CA file says so even where skipping was asked for. ``proxy``: the second credential, for a proxy
    that stands before everything.
    """

    settings: Settings
    transport: Transport
    clock: Clock
    vault: Vault
    machine: Machine
    notify: Notify
    verified: bool
    proxy: ProxyCredential | None = None

    @property
    def driver(self) -> Driver:
        return Driver(self.transport, self.clock)

    @property
    def server(self) -> str:
        """The server's name, for people."""
        endpoint = self.settings.endpoint
        return endpoint.key if endpoint is not None else str(self.settings.issuer)

    @property
    def login(self) -> str:
        """The command that logs in here."""
        return to_run(self.settings, "login")

    def reauth_required(self) -> ReauthRequired:
        return ReauthRequired(f"the login to {self.server} is over; run: {self.login}")

    def superseded(self) -> ReauthRequired:
        return ReauthRequired(
            f"the login to {self.server} was replaced or ended meanwhile; try again"
        )

    def no_login_wanted(self) -> MissingMetadata:
        return MissingMetadata(
            f"{self.server} wants no login; go on without one", reason="authorization_server"
        )

    @property
    def secret_variables(self) -> frozenset[str]:
        """Environment variables that hold a secret of ours, and are no child's business."""
        return self.settings.secret_variables

    async def secret(self) -> str | None:
        """The client's secret as its source has it now; read off the event loop (CCG-08)."""
        secret = self.settings.client_secret
        return None if secret is None else await in_time(secret.read)

    async def client_of(self, record: Record) -> Client:
        """The client that *record* was issued to, at the server that issued it."""
        server = AuthorizationServer(
            issuer=record.issuer,
            token_endpoint=record.token_endpoint,
            revocation_endpoint=record.revocation_endpoint,
        )
        return Client(
            server=server,
            client_id=record.client_id,
            client_secret=await self.secret(),
            authentication=cast("Authentication | None", record.authentication),
            extra_parameters=self.settings.extra_parameters,
            quirks=self.settings.quirks,
            plain_host=self.settings.plain_host,
        )


def assemble(
    settings: Settings,
    clock: Clock,
    notify: Notify,
    *,
    transport: Transport | None = None,
    store: Store | None = None,
    directory: Path | None = None,
) -> Setup:
    """The setup for *settings*; *transport* and *store* stand in for those of the settings.

    *directory* is where the programs of this machine leave notes for each other; None: nowhere.
    """
    verified = settings.ca_file is not None or not settings.insecure_skip_verify
    if transport is None:
        transport = HttpxTransport(
            ca_file=settings.ca_file,
            insecure_skip_verify=not verified,
            plain_host=settings.plain_host,
            proxy_url=settings.http_proxy_url,
            clock=clock,
        )
    proxy = None
    if settings.proxy_command is not None:
        proxy = ProxyCredential(
            settings.proxy_command,
            clock=clock,
            deadline=settings.command_timeout,
            hidden=settings.secret_variables,
        )
        named = settings.issuer if settings.endpoint is None else settings.endpoint.url
        transport = Proxied(transport, proxy, hosts={urlsplit(named or "").hostname or ""})
    return Setup(
        settings=settings,
        transport=transport,
        clock=clock,
        vault=Vault(settings, notify, store),
        machine=Machine(directory, clock),
        notify=notify,
        verified=verified,
        proxy=proxy,
    )
