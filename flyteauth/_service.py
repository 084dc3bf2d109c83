"""How a token comes to be that takes no person: by the client's own secret, or from a command."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import evolve

from ._grants import Grants
from ._io.command import run_command
from ._own_command import asking_variables
from ._sansio.record import Record
from ._source import Source, in_time, prepare
from .errors import ConfigError, FlowError, MissingMetadata, OAuth2Error

if TYPE_CHECKING:
    from ._lifetime import Lifetime
    from ._setup import Setup

HEADER_PATIENCE: Final = 3.0  # seconds for discovery, where only a header's name depends on it


async def token_for_service(life: Lifetime, setup: Setup) -> Record:
    """A new token, kept. Raises FlowError or ConfigError."""
    if setup.settings.auth_type == "ExternalCommand":
        return await _from_command(life, setup)
    return await _from_server(life, setup)


async def reread(setup: Setup, source: Source) -> Setup:
    """*setup* by what the configuration says now: whoever gives a service other credentials does
    not restart it for that.
    """
    before = setup.settings
    if not before.is_service:
        return setup
    try:
        settings = await in_time(prepare, source)
    except ConfigError:
        return setup  # half-written, perhaps; what was in force goes on
    if (settings.endpoint, settings.issuer) != (before.endpoint, before.issuer):
        return setup  # no rotation, but another place
    if settings.auth_type != before.auth_type:
        return setup  # half-written, too: without its secret a service reads like a person
    if settings == before:
        return setup
    return evolve(setup, settings=settings, vault=setup.vault.under(settings))


async def _from_command(life: Lifetime, setup: Setup) -> Record:
    settings, epoch, header = setup.settings, setup.vault.epoch, "authorization"
    with suppress(FlowError):
        header = (await life.discovered(HEADER_PATIENCE)).public.header
    assert settings.command is not None
    token = await run_command(
        settings.command,
        clock=setup.clock,
        deadline=settings.command_timeout,
        hidden=setup.secret_variables | asking_variables(os.environ),
        any_alphabet="any_token_alphabet" in settings.quirks,
    )
    return await life.keep(epoch, Record(token, token_endpoint="", client_id="", header=header))


async def _from_server(life: Lifetime, setup: Setup) -> Record:
    """By client credentials, whose secret is read anew each time (RFC 6749 §4.4). If the server
    does not know it, and it has changed meanwhile, once again; and so if the server is another one
    by now.
    """
    target = await life.discovered()
    if target.server is None:
        raise MissingMetadata(f"{life.server} has no authorization server any more; start again")
    grants = Grants(setup, partial(life.keep_token, setup.vault.epoch), life.track)
    scopes = target.scopes(setup.settings)
    secret = await setup.secret()
    client = target.client(setup.settings, secret)
    try:
        return await grants.to_service(client, scopes)
    except OAuth2Error as error:
        changed = await setup.secret()
        if error.error != "invalid_client" or changed == secret:
            raise
        return await grants.to_service(evolve(client, client_secret=changed), scopes)
    except FlowError:
        now = await life.discovered(fresh=True)
        if now == target or now.server is None:
            raise
        return await grants.to_service(now.client(setup.settings, secret), scopes)
