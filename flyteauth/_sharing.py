"""
One login for several tools: what flyte, flytekit and flytectl keep in the keyring, beside our own
store.

Our record is the truth, and theirs are copies of it that we keep up. Before each refresh they are
looked at: a refresh token that is neither ours nor what was last seen there is of a refresh by that
tool, and is taken over instead of spending ours, which a server that rotates would take for theft.
What a refresh or a login brings is kept in our store first, and then written to the others. An item
that has vanished ends nothing, and is written again.

All of this happens in the turn of the login (see Vault.in_turn), so our own processes never get in
each other's way. The other tools take no turns: if one of them refreshes between our look and our
request, both spend the same refresh token. Then there is a second look for what the tool has got;
but a server that ends the whole login over that cannot be kept from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from ._calls import USER_INFO, send
from ._io.store.others import DEADLINE, Others
from ._lifetime import TURN_DEADLINE
from ._places import in_words, own_places
from ._sansio.keyring_layouts import TOOLS, Place, trace
from ._sansio.record import Record
from ._sansio.renewal import will_do
from ._sansio.tokens import Token
from .errors import ConfigError, FlowError, StoreError, Unreachable
from .events import Exported, Warned

if TYPE_CHECKING:
    from ._endpoint import Endpoint
    from ._setup import Setup
    from .config import Settings

Lines = tuple[tuple[str, str, str | None], ...]


def lines_of(settings: Settings, record: Record | None = None) -> Lines:
    """``Record.shared`` for a new login, or as the configuration now adds to it."""
    lines: Lines = () if record is None else record.shared
    known = {(tool, address) for tool, address, _ in lines}
    if settings.endpoint is None or settings.is_service:
        return lines
    own = own_places(settings.shared_logins, settings.endpoint)
    added = [place for place in own if (place.tool, place.address) not in known]
    return (*lines, *((place.tool, place.address, None) for place in added))


async def catch_up(
    setup: Setup, record: Record, stored: Record | None, epoch: int, *, at_last: bool = False
) -> tuple[Record, Record | None]:
    """*record* with what the tools that share it now have, or what one of them has made of it,
    kept in the place of *stored*; and what is stored then. *at_last*: ours is no good any more, so
    that theirs is worth a try whether or not it came after ours.

    Raises ReauthRequired if the login was replaced or ended by then.
    """
    lines = lines_of(setup.settings, record)
    there = {place for line in lines if (place := _place(line)) is not None}
    try:
        found = await Others().find(sorted(there, key=repr), setup.clock.time(), deadline=DEADLINE)
    except StoreError:  # then there is only ours, and what is there may be older than what was seen
        unknown = tuple((tool, address, None) for tool, address, _ in lines)
        return record.replace(shared=unknown), stored
    tokens = {each.place: each.token for each in found}
    ours, seen, newer = trace(record.token.refresh_token), [], None
    for line in lines:
        tool, address, last = line
        place = _place(line)
        token = None if place is None else tokens.get(place)
        now = "" if token is None else trace(token.refresh_token)
        is_new = now not in {"", ours} and (at_last or last not in {None, now})
        if newer is None and is_new and place is not None and token is not None:
            newer = place, token
        seen.append((tool, address, now))
    record = record.replace(shared=tuple(seen))
    if newer is None:
        return record, stored
    source, theirs = newer
    token = theirs.replace(id_token=record.token.id_token, scopes=record.token.scopes)
    fresh = record.replace(token=token, generation=record.generation + 1)
    with anyio.CancelScope(shield=True):
        kept = await setup.vault.renew(stored, fresh, epoch)
    if kept is None:
        raise setup.superseded()
    await publish(setup, kept, source)
    return kept, kept


async def is_good(setup: Setup, record: Record, rejected: str | None) -> bool:
    """Whether the token that another tool has got can be handed out. Where nobody knows when it
    ends, the control plane is asked.
    """
    token = record.token
    if not will_do(token, rejected, setup.clock.time()):
        return False
    return token.expires_at is not None or not await is_refused(setup, record.header, token)


async def is_refused(setup: Setup, header: str, token: Token) -> bool:
    """Whether the control plane says that it does not take *token*."""
    headers = {header: f"Bearer {token.access_token}"}
    try:
        return (await send(setup, headers, USER_INFO, {})).refused
    except (FlowError, ConfigError):  # it does not say
        return False


async def publish(setup: Setup, record: Record, source: Place | None = None) -> list[Place]:
    """Write *record* for the tools that share it, except at the *source* that it comes from; where
    it is written then. What fails is a warning. Only for who has the turn.
    """
    vault = setup.vault
    if vault.failure is None:
        there = await vault.peek()
        if there is None:
            return []  # somebody has logged out
        record = there  # be it a login that has replaced it
    lines, told, trouble = [], [], ""
    for line in record.shared:
        tool, address, last = line
        place = _place(line)
        if place is not None and place != source:
            try:
                await Others().write(place, record.token, deadline=DEADLINE)
            except StoreError as error:
                trouble = f"{tool} does not get the new login to {setup.server}: {error}"
            else:
                told.append(place)
                last = trace(record.token.refresh_token) if last is None else last
        lines.append((tool, address, last))
    if tuple(lines) != record.shared:
        await vault.renew(record, record.replace(shared=tuple(lines)), vault.epoch)
    if trouble:
        await setup.notify(Warned(trouble))
    return told


async def share(setup: Setup, record: Record) -> None:
    """Publish a login that was just made."""

    async def now() -> list[Place]:
        return await publish(setup, record)

    try:
        for place in await setup.vault.in_turn(now, deadline=TURN_DEADLINE):
            await setup.notify(Exported(setup.server, place.tool, in_words(Others(), place)))
    except (StoreError, Unreachable) as error:  # there is no turn to be had
        await setup.notify(Warned(f"other tools do not get the login to {setup.server}: {error}"))


# Where.


def _place(line: tuple[str, str, str | None]) -> Place | None:
    """The place that a line of Record.shared means, if we know that tool."""
    for tool in TOOLS:
        if tool == line[0]:
            return Place(tool, line[1])
    return None


def endpoint_of(setup: Setup) -> Endpoint:
    if setup.settings.endpoint is None:
        raise ConfigError(
            "this session has an issuer but no Flyte endpoint, by which other tools know a login; "
            "pass endpoint=",
            reason="endpoint",
        )
    return setup.settings.endpoint
