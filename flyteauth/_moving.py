"""A login goes from one tool to another: what flyte, flytekit or flytectl has made becomes ours, or
ours is written for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

from ._io.entropy import random_bits
from ._io.store.others import DEADLINE, Found, Others
from ._io.tasks import start
from ._lifetime import RENEW_DEADLINE, TURN_DEADLINE
from ._login import finished, probe
from ._places import all_places, in_words, own_places
from ._sansio.exchanges import BACKOFF, refresh
from ._sansio.flow import Retrying
from ._sansio.keyring_layouts import TOOLS, Place, Tool
from ._sansio.record import Record
from ._sansio.renewal import will_do
from ._sansio.tokens import Token
from ._sharing import endpoint_of, is_refused, lines_of
from .errors import (
    ConfigError,
    Error,
    InteractionRequired,
    OAuth2Error,
    ReauthRequired,
    StoreError,
    Unreachable,
)
from .events import Exported, Imported, Warned

if TYPE_CHECKING:
    from ._io.flights import Round
    from ._lifetime import Lifetime
    from ._sansio.client import Client
    from ._setup import Setup
    from ._target import Target


async def take_over(
    life: Lifetime, source: Tool | None, *, must_keep: bool, shared: Round | None = None
) -> Record:
    """Make the login of another tool ours. What it takes runs in a task of its own: it may have to
    spend the refresh token.
    """
    tools = _known([source] if source is not None else TOOLS)
    setup = await life.set_up()
    endpoint, auth_type = endpoint_of(setup), setup.settings.auth_type
    if setup.settings.is_service or auth_type in {"NoAuth", "Passthrough"}:
        raise ConfigError(
            f"authType {auth_type} needs no login of a person; import where it is Pkce or "
            "DeviceFlow",
            reason="auth_type",
        )
    target = await life.discovered(fresh=True, shared=shared)
    if target.server is None:
        raise setup.no_login_wanted()
    await probe(setup, must_keep)

    async def take() -> Record:
        with anyio.move_on_after(RENEW_DEADLINE):
            there = all_places(tools, endpoint)
            if (record := await _take(life, setup, target, there)) is not None:
                return record
            who = "no other tool keeps a" if source is None else f"{source} keeps no"
            raise InteractionRequired(
                f"{who} login to {setup.server} in the keyring; run: {setup.login}",
                reason="not_logged_in",
            )
        late = f"{setup.server} did not answer within {RENEW_DEADLINE:.0f} s; try again"
        raise Unreachable(late, reason="timeout")

    async def finish() -> Record:
        record = await setup.vault.in_turn(take, deadline=TURN_DEADLINE)
        return await finished(setup, record, must_keep)

    work = start(finish)
    life.track(work)
    return await work.wait()


async def taken_from_sharers(life: Lifetime) -> Record | None:
    """Where we have no login, that of a tool which is configured to share ours; None if none of
    them has one that is good.
    """
    setup = await life.set_up()
    tools = setup.settings.shared_logins

    async def look(shared: Round) -> Record | None:
        # Nobody waits for a network that is away before it is known that there is anything.
        with suppress(StoreError):
            there = all_places(tools, endpoint_of(setup))
            if not await Others().find(there, setup.clock.time(), deadline=DEADLINE):
                return None
        for tool in tools:
            # What is no use to us stays where it is, and somebody is asked to log in.
            with suppress(InteractionRequired, ReauthRequired, OAuth2Error, StoreError):
                return await take_over(life, tool, must_keep=False, shared=shared)
        return None

    return await life.flights.share(("take over", setup.vault.slot), look)


async def _take(
    life: Lifetime, setup: Setup, target: Target, there: Iterable[Place]
) -> Record | None:
    """The first login of those that works, kept; None if there is none at all. What had to be
    refreshed is put back, too.
    """
    epoch, others, failures = setup.vault.epoch, Others(), list[Error]()
    client = target.client(setup.settings, await setup.secret())
    for found in await others.find(list(there), setup.clock.time()):
        try:
            token = await _good(setup, target, client, found)
        except (OAuth2Error, ReauthRequired, StoreError) as error:  # the next one may be better
            failures.append(error)
            continue
        record = await life.keep_token(epoch, client, token)
        place, words = found.place, in_words(others, found.place)
        if token is not found.token:
            try:
                await others.write(place, token)
            except StoreError as error:
                await setup.notify(
                    Warned(f"{place.tool} does not get its login back as it is now: {error}")
                )
        await setup.notify(Imported(setup.server, place.tool, words))
        await _warn_of_copies(setup, record, place)
        return record
    for failure in failures:
        raise failure
    return None


async def _good(setup: Setup, target: Target, client: Client, found: Found) -> Token:
    """The token of *found*, or what a refresh makes of it if the control plane refuses it."""
    if found.token is None:
        assert found.error is not None
        raise found.error
    token = found.token
    header = target.public.header
    if will_do(token, None, setup.clock.time()) and not await is_refused(setup, header, token):
        return token
    over = ReauthRequired(
        f"the login of {found.place.tool} to {setup.server} is over; run: {setup.login}"
    )
    if token.refresh_token is None:
        raise over
    flow = Retrying(refresh(client, token, verified=setup.verified), BACKOFF)
    try:
        return await setup.driver.run(flow, flow.start(random_bits()))
    except OAuth2Error as error:
        if error.error != "invalid_grant":
            raise
    raise over


async def hand_out(life: Lifetime, tools: Iterable[Tool]) -> None:
    """Write the login for *tools*."""
    setup = await life.set_up()
    there = own_places(_known(tools), endpoint_of(setup))
    if setup.settings.auth_type in {"NoAuth", "Passthrough"}:
        raise ConfigError(
            f"authType {setup.settings.auth_type} has no login of its own; choose another authType",
            reason="auth_type",
        )
    held, _ = await life.current()
    if held.record is None:
        raise setup.no_login_wanted()
    ours, others = held.record, Others()

    async def write() -> None:
        record: Record | None = ours
        if setup.vault.failure is None:  # another process may have refreshed it meanwhile
            record = await setup.vault.peek()
        if record is None:
            raise setup.superseded()
        for place in there:
            await others.write(place, record.token)
            await setup.notify(Exported(setup.server, place.tool, in_words(others, place)))
            await _warn_of_copies(setup, record, place)

    await setup.vault.in_turn(write, deadline=TURN_DEADLINE)


async def _warn_of_copies(setup: Setup, record: Record, place: Place) -> None:
    """A login in two hands, of which neither knows of the other."""
    shared = {(tool, address) for tool, address, _ in lines_of(setup.settings, record)}
    if record.token.refresh_token is not None and (place.tool, place.address) not in shared:
        await setup.notify(
            Warned(
                f"{place.tool} has this login as well, and whoever refreshes it first may end it "
                f"for the other; to keep both in step, set admin.sharedLogins to [{place.tool}]"
            )
        )


def _known(tools: Iterable[Tool]) -> tuple[Tool, ...]:
    known = tuple(dict.fromkeys(tools))
    if not known or not set(known) <= set(TOOLS):
        raise ConfigError(
            f"this names no other tool that keeps logins; write {', '.join(TOOLS[:-1])} or "
            f"{TOOLS[-1]}",
            reason="tool",
        )
    return known
