"""How a person comes to be logged in: asked only if somebody is there, and one prompt at a time."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
from attrs import evolve, frozen

from ._grants import Grants
from ._io.presenter import person_present
from ._io.store.memory import MemoryStore
from ._race import Prompt
from ._sansio.device_authorization import LIFETIME_MAX
from ._sansio.errors import duration
from ._sansio.id_token import subject
from ._sansio.record import Record
from ._surroundings import Surroundings, choose, look_around
from .errors import (
    ConfigError,
    Error,
    Expired,
    InteractionRequired,
    OAuth2Error,
    StoreError,
)
from .events import LoggedIn, Method, MethodChosen, Warned

if TYPE_CHECKING:
    from ._io.flights import Round
    from ._lifetime import Held, Lifetime
    from ._setup import Setup
    from ._target import Target

WHOAMI_DEADLINE: Final = 3.0  # seconds
TIDY_UP: Final = 60.0  # seconds beyond a prompt's own time until whoever waits gives up
NEVER: Final = -1  # the epoch of a token that nobody is going to use


@frozen
class Wish:
    """What is asked of a login. ``switch``: that it may be of somebody else. ``unasked``: nobody
    has asked for it by that name, it is only needed. ``insisted``: a person is there, whatever it
    looks like. ``begun``: since when it is wanted (POSIX seconds), if a person began it.
    """

    must_keep: bool = False
    switch: bool = False
    open_browser: bool = True
    unasked: bool = False
    insisted: bool = False
    begun: float = -math.inf


async def ask_person(life: Lifetime) -> Held:
    """A login, if a person is there and may be asked; else an error that says what to do."""
    setup = await life.set_up()
    if life.may_ask is not None and await anyio.to_thread.run_sync(life.may_ask):
        present = await anyio.to_thread.run_sync(person_present)
        begun = life.begun if present else -math.inf
        # Of a prompt that was not answered yet, wait for what comes.
        await _refuse_if_muted(setup, answered_only=True, begun=begun)
        return await log_in(life, Wish(unasked=True, insisted=True, begun=begun))
    if life.over or (life.held is not None and life.held.record is not None):
        raise setup.reauth_required()
    raise InteractionRequired(
        f"not logged in to {life.server}; run: {setup.login}, or set FLYTE_API_KEY "
        "where nobody can log in",
        reason="not_logged_in",
    )


async def log_in(life: Lifetime, wish: Wish) -> Held:
    """One login at a time for one identity, on this machine; who waited for it shares it."""
    slot = (await life.set_up()).vault.slot
    outcome = await life.flights.share(("login", slot), partial(_log_in, life, wish))
    return await life.adopt(outcome)


async def _log_in(life: Lifetime, wish: Wish, shared: Round) -> Record | None:
    setup = await life.set_up()
    match setup.settings.auth_type:
        case "NoAuth":
            return None
        case "Passthrough":
            raise ConfigError(
                "authType Passthrough has no login of its own; use flyteauth.auth_metadata, or "
                "choose another authType",
                reason="auth_type",
            )
        case "ExternalCommand":
            return await _renewed(life, setup, wish.must_keep)
    target = await life.discovered(fresh=True, shared=shared)
    if target.server is None:
        return None
    if setup.settings.is_service:
        return await _renewed(life, setup, wish.must_keep)
    around = await anyio.to_thread.run_sync(look_around)
    refuse_in_task(setup, around, wish)
    has_device = target.server.device_authorization_endpoint is not None
    method, why = choose(setup.settings, around, has_device=has_device)
    opens = wish.open_browser and around.can_open(setup.settings)
    wish = evolve(wish, open_browser=opens)

    chosen = MethodChosen(setup.server, method, why)
    return await in_turn(
        life, setup, partial(_ask, life, setup, target, chosen, wish), method, wish
    )


def refuse_in_task(setup: Setup, around: Surroundings, wish: Wish) -> None:
    """A task that asks somebody to log in waits for nobody, and blocks what waits for it."""
    if around.in_task and not wish.insisted:
        raise InteractionRequired(
            f"this is a task of Flyte's, and nobody is there to log in to {setup.server}; set "
            "FLYTE_API_KEY, or pass interactive=True if somebody is",
            reason="task",
        )


async def _renewed(life: Lifetime, setup: Setup, must_keep: bool) -> Record:
    method, why = choose(setup.settings, Surroundings(), has_device=False)
    await setup.notify(MethodChosen(setup.server, method, why))
    before = await life.opened()  # or else what is stored would pass for what is asked for
    record = (await life.renewed(before)).record
    assert record is not None
    return await _logged_in(setup, record, must_keep)


async def in_turn(
    life: Lifetime,
    setup: Setup,
    prompt: Callable[[], Awaitable[Record]],
    method: Method,
    wish: Wish,
) -> Record:
    """Ask the person, or take what another program that asks just now comes to."""
    from ._upkeep import successor

    machine, key = setup.machine, setup.vault.key
    before: Record | None = None
    waited = False

    async def waiting() -> None:
        nonlocal before, waited
        waited = True
        # Only now, for whoever waits for nobody should not be kept from the probe, which leaves a
        # person the time to unlock a keyring.
        before = await setup.vault.peek()
        await setup.notify(
            Warned(
                f"another program on this machine asks for a login to {setup.server} just now; "
                "log in there, and this one goes on, too"
            )
        )

    async def ask() -> Record:
        if waited and not wish.switch:
            there = await successor(setup, before, life.rejected)
            if there is not None:
                return await _logged_in(setup, there, must_keep=False)
        if waited or wish.unasked:
            begun = -math.inf if waited else wish.begun
            await _refuse_if_muted(setup, answered_only=not wish.unasked, begun=begun)
        if wish.unasked:
            await machine.mute(key, ended=False)  # in case that we are ended over it
        try:
            record = await prompt()
        except (Expired, OAuth2Error) as error:
            if isinstance(error, Expired) or error.error == "access_denied":
                await machine.mute(key, ended=True)
            raise
        await machine.unmute(key)
        return record

    patience = LIFETIME_MAX if method == "device" else 0.0
    deadline = max(patience, setup.settings.login_timeout) + TIDY_UP
    try:
        return await machine.prompt(key, ask, waiting=waiting, deadline=deadline)
    except StoreError as error:
        if error.reason != "busy":
            raise
        raise InteractionRequired(
            f"another program on this machine has been asking for a login to {setup.server} for "
            f"{deadline:.0f} s; log in there, or end it",
            reason="busy",
        ) from None


async def _ask(
    life: Lifetime, setup: Setup, target: Target, chosen: MethodChosen, wish: Wish
) -> Record:
    prompt = await prompt_of(life, setup, target)
    await probe(setup, wish.must_keep)
    await setup.notify(chosen)
    if chosen.method == "device":
        if wish.switch:
            await setup.notify(
                Warned(
                    "the browser in which you enter the code decides who logs in; log out there "
                    "first, or use a private window"
                )
            )
        record = await prompt.by_device()
    else:
        record = await prompt.by_browser(
            target.redirect_uri(setup.settings), opens=wish.open_browser, switch=wish.switch
        )
    return await finished(setup, record, wish.must_keep)


async def prompt_of(life: Lifetime, setup: Setup, target: Target) -> Prompt:
    """What asks a person to log in at *target*."""
    settings = setup.settings
    return Prompt(
        Grants(setup, partial(life.keep_token, setup.vault.epoch), life.track),
        life.audience.presenter,
        target.client(settings, await setup.secret()),
        target.scopes(settings),
        partial(life.keep_token, NEVER),
    )


async def probe(setup: Setup, must_keep: bool) -> None:
    """Find out whether a login can be kept, before anybody is asked for one."""
    await setup.vault.probe(must_keep=must_keep)
    if must_keep:
        await setup.vault.require_room()


async def finished(setup: Setup, record: Record, must_keep: bool) -> Record:
    """What is to be told of a login that a person has made."""
    if record.token.refresh_token is None:
        await setup.notify(
            Warned(
                f"{setup.server} gave no refresh token, so this login ends with its first token; "
                "ask for a scope like offline or offline_access (admin.scopes)"
            )
        )
    await _logged_in(setup, record, must_keep)
    if record.shared:
        from ._sharing import share

        await share(setup, record)
    return record


async def _logged_in(setup: Setup, record: Record, must_keep: bool) -> Record:
    if must_keep and setup.vault.failure is not None:
        raise setup.vault.failure
    expires_at, place = record.token.expires_at, setup.vault.place
    renews = setup.settings.is_service or record.token.refresh_token is not None
    proven = setup.settings.auth_type != "ExternalCommand"
    kept = not (setup.settings.is_service and place == MemoryStore.place)
    await setup.notify(
        LoggedIn(setup.server, record.subject, expires_at, place, renews, proven, kept)
    )
    return record


async def _refuse_if_muted(setup: Setup, *, answered_only: bool, begun: float) -> None:
    """Whoever ignores a prompt, or denies it, ignores all of that time; what a person begins
    afterwards is another matter.
    """
    muted = await setup.machine.muted(setup.vault.key, answered_only=answered_only)
    if muted is not None and setup.clock.time() - muted[0] >= begun:
        ago, left = muted
        raise InteractionRequired(
            f"nobody answered when a login to {setup.server} was asked for {duration(ago)} ago, so "
            f"nobody is asked for another {duration(left)}; run: {setup.login}",
            reason="muted",
        )


async def subject_of(life: Lifetime, record: Record) -> str | None:
    """Whom a login is of, to be shown; not worth waiting for, nor failing for."""
    from ._calls import USER_INFO, send

    with suppress(Error), anyio.move_on_after(WHOAMI_DEADLINE):
        if record.token.id_token is not None:
            return subject(record.token.id_token)
        headers = life.headed(record).headers
        identity = (await send(await life.set_up(), headers, USER_INFO, {})).identity()
        if identity is not None:
            shown = (identity.preferred_username, identity.email, identity.subject)
            return next(filter(None, shown))
    return None
