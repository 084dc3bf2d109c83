"""What happens to a login after it was made: refresh and revocation."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final

import anyio
from attrs import evolve

from ._io.entropy import random_bits
from ._sansio.client import Client
from ._sansio.discovery import issuer_metadata
from ._sansio.errors import duration
from ._sansio.exchanges import BACKOFF, Revocable, refresh, revoke
from ._sansio.flow import Retrying
from ._sansio.http import is_secure
from ._sansio.id_token import UNVERIFIED
from ._sansio.record import Record, is_same
from ._sansio.renewal import will_do
from ._setup import Setup
from .errors import (
    Error,
    FlowError,
    InvalidResponse,
    MissingMetadata,
    OAuth2Error,
    StoreError,
    Unreachable,
)
from .events import Refreshed

REVOKE_DEADLINE: Final = 10.0  # seconds for all of it
TRY_AGAIN: Final = 5.0  # seconds, where the server does not say when

_TRY_AGAIN: Final = re.compile(r"(; |, and )try again( in \d+ \w+)?$")


async def successor(setup: Setup, ours: Record | None, rejected: str | None) -> Record | None:
    """What another process has put in the store in the place of *ours*, if it is good now."""
    vault = setup.vault
    there = await vault.load()
    if there is None:
        return None
    if ours is not None and (is_same(there, ours) or vault.is_behind(there, ours)):
        return None
    return there if will_do(there.token, rejected, setup.clock.time()) else None


async def refresh_login(setup: Setup, ours: Record | None, rejected: str | None) -> Record:
    """The record that follows *ours*. Only invalid_grant, after a second look at the store, ends
    the login; everything else leaves all as it is.

    *rejected* is the access token that a server refused last. Raises ReauthRequired when the
    login is over, OAuth2Error for any other no, and Unreachable for whatever may pass.
    """
    vault = setup.vault
    epoch = vault.epoch  # before the first look: a logout meanwhile must be noticed
    stored = latest = await vault.load()
    if latest is None or (ours is not None and vault.is_behind(latest, ours)):
        latest = None if vault.erased else ours
    if latest is None:
        raise setup.reauth_required()
    is_another = ours is None or not is_same(latest, ours)
    if is_another and will_do(latest.token, rejected, setup.clock.time()):
        return latest  # somebody else was quicker
    if _is_shared(setup, latest):
        from ._sharing import catch_up, is_good

        before, (latest, stored) = latest, await catch_up(setup, latest, stored, epoch)
        if not is_same(latest, before) and await is_good(setup, latest, rejected):
            return latest  # another tool was
    if latest.token.refresh_token is None:
        raise setup.reauth_required()
    try:
        return await _refresh_once(setup, latest, stored, epoch, rejected)
    except OAuth2Error as error:
        if error.error != "invalid_grant":
            raise
    epoch = vault.epoch
    stored = await vault.load()
    if stored is not None and _is_shared(setup, stored):
        from ._sharing import catch_up, is_good

        at_last = is_same(stored, latest)  # there is nothing else to be tried
        before = latest if at_last else stored
        again, stored = await catch_up(setup, before, stored, epoch, at_last=at_last)
        if not is_same(again, before) and await is_good(setup, again, rejected):
            return again
    if stored is not None and stored.token.refresh_token not in {None, latest.token.refresh_token}:
        try:
            return await _refresh_once(setup, stored, stored, epoch, rejected)
        except OAuth2Error as error:
            if error.error != "invalid_grant":
                raise
        latest = stored
    await _forget(setup, latest)
    raise setup.reauth_required()


def _is_shared(setup: Setup, record: Record) -> bool:
    """Whether other tools have, or should have, this login as well."""
    return bool(setup.settings.shared_logins or record.shared)


async def _forget(setup: Setup, record: Record) -> None:
    """Delete *record*, whose refresh token is no good any more, if it is what is stored; not while
    another program may be about to replace it by a new login.
    """

    async def forget() -> None:
        stored = await setup.vault.load()
        if stored is not None and stored.token.refresh_token == record.token.refresh_token:
            await setup.vault.delete()

    async def leave_it() -> None: ...

    with suppress(StoreError):
        await setup.machine.prompt(setup.vault.key, forget, waiting=leave_it, deadline=0.0)


async def _refresh_once(
    setup: Setup, record: Record, stored: Record | None, epoch: int, rejected: str | None
) -> Record:
    """The record after one refresh, kept in the place of *stored*. It goes to where the login came
    from and nowhere else (RFC 6749 §10.4). Raises FlowError, and ReauthRequired if the login was
    replaced or ended by then.
    """
    client = await setup.client_of(record)
    try:
        flow = Retrying(refresh(client, record.token, verified=setup.verified), BACKOFF)
        token = await setup.driver.run(flow, flow.start(random_bits()))
    except (InvalidResponse, Unreachable) as error:
        raise passing(setup, error) from None
    forced = record.token.access_token == rejected
    forced_at = setup.clock.time() if forced else record.forced_at
    fresh = record.replace(token=token, forced_at=forced_at, generation=record.generation + 1)
    with anyio.CancelScope(shield=True):
        kept = await setup.vault.renew(stored, fresh, epoch)
    if kept is None:
        await revoke_all(setup, fresh)  # nobody is going to use it
        raise setup.superseded()
    if kept.shared:
        from ._sharing import publish

        await publish(setup, kept)
    await setup.notify(Refreshed(setup.server, kept.token.expires_at))
    return kept


def passing(setup: Setup, error: InvalidResponse | Unreachable) -> Unreachable:
    """*error* as what it means to a login that is kept: not now, and when to try again."""
    retry_after = error.retry_after if isinstance(error, Unreachable) else None
    retry_after = TRY_AGAIN if retry_after is None else retry_after
    said = _TRY_AGAIN.sub("", str(error))
    told = f"the login to {setup.server} cannot be renewed now: {said}; it is kept"
    if error.reason == UNVERIFIED:  # that does not pass by itself
        return Unreachable(told, reason=error.reason)
    return Unreachable(
        f"{told}, try again in {duration(retry_after)}",
        reason=error.reason,
        retry_after=retry_after,
        sent=isinstance(error, Unreachable) and error.sent,
    )


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
    both: list[tuple[Revocable, str | None]] = [
        ("refresh_token", token.refresh_token),
        ("access_token", token.access_token),
    ]
    return [(kind, secret) for kind, secret in both if secret]


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
