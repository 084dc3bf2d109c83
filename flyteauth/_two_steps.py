"""A login in two steps: one process shows the code, and another one waits for its approval."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread
from attrs import evolve

from ._login import Wish, finished, in_turn, probe, prompt_of, refuse_in_task
from ._own_command import to_run
from ._pending import Pending, PendingLogins, text_of
from ._sansio.client import Client
from ._sansio.device_authorization import DeviceCode, Waiting
from ._sansio.record import Record
from ._sansio.tokens import Token
from ._surroundings import look_around
from .errors import (
    ConfigError,
    FlowError,
    InteractionRequired,
    StoreError,
    Unreachable,
)
from .events import CodeNeeded, MethodChosen

if TYPE_CHECKING:
    from ._io.flights import Round
    from ._lifetime import Held, Lifetime
    from ._setup import Setup
    from ._target import Target


async def begin_log_in(life: Lifetime, *, insisted: bool) -> CodeNeeded:
    """Show a code, and keep what is needed to go on with it."""
    setup, target = await _target_of_person(life)
    refuse_in_task(setup, await anyio.to_thread.run_sync(look_around), Wish(insisted=insisted))
    prompt = await prompt_of(life, setup, target)
    server = prompt.client.server
    server.endpoint("device_authorization_endpoint")
    await pending_logins(setup).probe()  # before there is a code that somebody may approve
    why = "a login that somebody finishes later needs a code"
    await setup.notify(MethodChosen(setup.server, "device", why))
    endpoint = server.endpoint("token_endpoint")

    def pending(state: Waiting) -> Pending:
        return Pending(endpoint, prompt.client.client_id, server.issuer, state)

    def check(code: DeviceCode) -> None:
        text_of(pending(Waiting(code, code.expires_at)))  # now, before anybody may approve it

    state, shown = await prompt.grants.begin_on_device(prompt.device_flow, check=check)
    await pending_logins(setup).keep(setup.vault.key, pending(state))
    return shown


async def resume_log_in(life: Lifetime, *, must_keep: bool) -> Held:
    """Go on with what ``begin_log_in`` has kept, as one of the logins of this machine."""
    slot = (await life.set_up()).vault.slot
    outcome = await life.flights.share(("login", slot), partial(_resume, life, must_keep))
    return await life.adopt(outcome)


async def _resume(life: Lifetime, must_keep: bool, shared: Round) -> Record:
    from ._upkeep import successor

    setup = await life.set_up()
    kept, key = pending_logins(setup), setup.vault.key
    pending = await _begun(kept, key)
    if pending is None:
        raise _nothing_pending(setup, f"no login to {setup.server} was begun")
    setup, target = await _target_of_person(life, shared)
    prompt = await prompt_of(life, setup, target)
    server = prompt.client.server
    asked = (server.endpoint("token_endpoint"), prompt.client.client_id)
    if asked != (pending.token_endpoint, pending.client_id):  # the code is no business of others
        await kept.remove(key)
        raise _nothing_pending(
            setup, f"{setup.server} has another authorization server than when the login was begun"
        )

    async def forget() -> None:
        with suppress(StoreError):
            await kept.remove(key)

    async def keep(client: Client, token: Token) -> Record:
        try:
            return await prompt.grants.keep(client, token)
        finally:
            await forget()  # whatever becomes of us, for the code is spent

    async def approved() -> Record:
        if await _begun(kept, key) is None:  # another program was quicker
            there = await successor(setup, None, life.rejected)
            if there is None:
                raise _nothing_pending(
                    setup, f"the login to {setup.server} is not waited for any more"
                )
            return there
        await probe(setup, must_keep)
        waiting = evolve(prompt, grants=evolve(prompt.grants, keep=keep))
        try:
            state = prompt.device_flow.resume(pending.state, setup.clock.time())
            record = await waiting.until_approved(state, pending.state.code.expires_at)
        except FlowError as error:
            if not isinstance(error, Unreachable):
                await forget()
            raise
        return await finished(setup, record, must_keep)

    record = await in_turn(life, setup, approved, "device", Wish(must_keep))
    await forget()  # also if another program was quicker
    return record


async def _begun(kept: PendingLogins, key: str) -> Pending | None:
    """What was begun. It is removed if it is damaged: a secret that nobody can use."""
    try:
        return await kept.load(key)
    except StoreError as error:
        if error.reason == "corrupt":
            with suppress(StoreError):
                await kept.remove(key)
        raise


async def _target_of_person(life: Lifetime, shared: Round | None = None) -> tuple[Setup, Target]:
    """Where a person logs in. Raises ConfigError if none does, MissingMetadata if none need."""
    setup = await life.set_up()
    settings = setup.settings
    if settings.is_service or settings.auth_type in {"NoAuth", "Passthrough"}:
        raise ConfigError(
            f"authType {settings.auth_type} needs no person who enters a code; log in without "
            "--no-wait",
            reason="auth_type",
        )
    target = await life.discovered(fresh=True, shared=shared)
    if target.server is None:
        raise setup.no_login_wanted()
    return setup, target


def pending_logins(setup: Setup) -> PendingLogins:
    """Where logins are kept that were begun and not finished."""
    directory = setup.machine.directory
    return PendingLogins(None if directory is None else directory / "pending")


def _nothing_pending(setup: Setup, what: str) -> InteractionRequired:
    begin = to_run(setup.settings, "login", "--no-wait")
    return InteractionRequired(f"{what}; run: {begin}", reason="nothing_pending")
