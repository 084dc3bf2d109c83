"""What happens to a login after it was made: refresh and revocation."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import anyio
from attrs import evolve

from ._io.entropy import random_bits
from ._sansio.client import Client
from ._sansio.discovery import issuer_metadata
from ._sansio.exchanges import Revocable, refresh, revoke
from ._sansio.flow import Retrying
from ._sansio.http import is_secure
from ._sansio.record import Record
from ._sansio.renewal import Use, UseAndRefresh, plan
from ._setup import Setup
from .errors import Error, FlowError, MissingMetadata, OAuth2Error
from .events import Refreshed

REVOKE_DEADLINE: Final = 10.0  # seconds for all of it


async def refresh_login(setup: Setup, ours: Record | None, rejected: str | None) -> Record:
    """The record that follows *ours*. Only invalid_grant, after a second look at the store, ends
    the login; everything else leaves all as it is.

    *rejected* is the access token that a server refused last. Raises ReauthRequired when the
    login is over, and FlowError.
    """
    vault = setup.vault
    epoch = vault.epoch  # before the first look: a logout meanwhile must be noticed
    latest = await vault.load()
    if latest is None or (ours is not None and _older(latest, ours)):
        latest = None if vault.erased else ours
    if latest is None:
        raise setup.reauth_required()
    if ours is not None and latest.token.access_token != ours.token.access_token:
        at = setup.clock.time()
        if isinstance(plan(latest.token, rejected, at, 0.0), Use | UseAndRefresh):
            return latest  # another process was quicker
    try:
        return await refresh_once(setup, latest, epoch)
    except OAuth2Error as error:
        if error.error != "invalid_grant":
            raise
    epoch = vault.epoch
    stored = await vault.load()
    if stored is not None and stored.token.refresh_token != latest.token.refresh_token:
        try:
            return await refresh_once(setup, stored, epoch)
        except OAuth2Error as error:
            if error.error != "invalid_grant":
                raise
        latest, stored = stored, await vault.load()
    if stored is not None and stored.token.refresh_token == latest.token.refresh_token:
        await vault.delete()
    raise setup.reauth_required()


def _older(one: Record, other: Record) -> bool:
    """Whether *one* was overtaken by *other*: a store that cannot be written to falls behind."""
    return one.token.obtained_at < other.token.obtained_at


async def refresh_once(setup: Setup, record: Record, epoch: int) -> Record:
    """The record after one refresh, stored. It goes to where the login came from and nowhere else
    (RFC 6749 §10.4). Raises FlowError, and ReauthRequired if *epoch* is over by then.
    """
    flow = Retrying(refresh(await setup.client_of(record), record.token))
    token = await setup.driver.run(flow, flow.start(random_bits()))
    fresh = evolve(record, token=token)
    if not await setup.vault.renew(fresh, epoch):
        await revoke_all(setup, fresh)  # nobody is going to use it
        raise setup.superseded()
    await setup.notify(Refreshed(setup.server, token.expires_at))
    return fresh


async def revoke_all(setup: Setup, record: Record) -> bool | None:
    """Whether the server took back the refresh token and then the access token (RFC 7009); None
    if it does not do that.
    """
    try:
        with anyio.move_on_after(REVOKE_DEADLINE):
            client = await _with_revocation(setup, await setup.client_of(record))
            for kind, secret in _secrets(record):
                await _revoke_one(setup, client, kind, secret)
            return True
    except MissingMetadata:
        return None
    except Error:
        return False
    return False


def _secrets(record: Record) -> list[tuple[Revocable, str]]:
    token = record.token
    refresh_token: list[tuple[Revocable, str]] = (
        [] if token.refresh_token is None else [("refresh_token", token.refresh_token)]
    )
    return [*refresh_token, ("access_token", token.access_token)]


async def _revoke_one(setup: Setup, client: Client, kind: Revocable, secret: str) -> None:
    flow = Retrying(revoke(client, kind, secret))
    try:
        await setup.driver.run(flow, flow.start(random_bits()))
    except OAuth2Error as error:
        if error.error != "unsupported_token_type":  # RFC 7009 §2.2.1
            raise


async def _with_revocation(setup: Setup, client: Client) -> Client:
    """*client* with a revocation endpoint: if need be the one that its issuer's own document
    names, because Flyte's AuthMetadataService has no word for it.
    """
    server = client.server
    if server.revocation_endpoint is not None or server.issuer is None:
        return client
    if not is_secure(server.issuer, setup.settings.plain_host):
        return client
    flow = issuer_metadata(server.issuer, setup.settings.plain_host)
    with suppress(FlowError):
        own = await setup.driver.run(flow, flow.start(random_bits()))
        if own.token_endpoint == server.token_endpoint:
            server = evolve(server, revocation_endpoint=own.revocation_endpoint)
    return evolve(client, server=server)
