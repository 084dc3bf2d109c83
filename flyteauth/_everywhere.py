"""The end of a login in all tools: ours, and whatever flyte, flytekit and flytectl keep of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import anyio
from attrs import field, frozen

from ._io.store.others import Others
from ._lifetime import TURN_DEADLINE
from ._opening import PATIENCE
from ._places import all_places, in_words
from ._sansio.keyring_layouts import Place, Tool
from ._sansio.record import Record
from ._sansio.tokens import Token
from ._upkeep import REVOKE_DEADLINE, revoke_all
from .errors import Error, StoreError, Unreachable
from .events import Forgotten, LoggedOut

if TYPE_CHECKING:
    from ._lifetime import Lifetime
    from ._setup import Setup


@frozen
class _Removal:
    """What of other tools is gone, what was in it, and what kept the rest."""

    gone: list[Place]
    tokens: list[Token] = field(repr=False)
    error: StoreError | None


async def log_out_everywhere(
    life: Lifetime,
    log_out: Callable[[], Awaitable[tuple[LoggedOut, Record | None]]],
    tools: Iterable[Tool],
) -> LoggedOut:
    """Our own logout, and then that of *tools* at this endpoint, in whatever spelling."""
    setup = await life.set_up()
    outcome, ours, failure = LoggedOut(setup.server, False, None), None, None
    try:
        outcome, ours = await log_out()
    except StoreError as error:
        failure = error
    if setup.settings.endpoint is None:
        removal = _Removal([], [], None)
    else:
        there = all_places(tools, setup.settings.endpoint)

        async def remove() -> _Removal:
            return await _remove(setup, there)

        # In turn: a refresh that ends just now may still be writing for them.
        try:
            removal = await setup.vault.in_turn(remove, deadline=TURN_DEADLINE)
        except (StoreError, Unreachable):
            removal = await remove()
    known = set() if ours is None else {_secret(ours.token)}
    left = {_secret(token): token for token in removal.tokens if _secret(token) not in known}
    revoked = outcome.remote_revoked if removal.tokens else None  # most often theirs is ours
    if left:
        revoked = await _revoke(life, setup, list(left.values()), ours)
    others = Others()
    for place in removal.gone:
        words = in_words(others, place)
        await setup.notify(Forgotten(setup.server, place.tool, words, revoked))
    if failure is not None:
        raise failure
    if removal.error is not None:
        raise StoreError(
            f"what other tools keep of {setup.server} may still be there: {removal.error}",
            reason=removal.error.reason,
        )
    return outcome


async def _remove(setup: Setup, there: tuple[Place, ...]) -> _Removal:
    others = Others()
    try:
        found = await others.find(there, setup.clock.time())
    except StoreError:  # the same keeps it from being removed
        found = []
    gone, error = await others.remove(there)
    return _Removal(gone, [each.token for each in found if each.token is not None], error)


async def _revoke(
    life: Lifetime, setup: Setup, tokens: list[Token], ours: Record | None
) -> bool | None:
    """Whether the server took back *tokens*; None if it does not do that."""
    answers: list[bool | None] = []
    with anyio.move_on_after(REVOKE_DEADLINE):
        try:
            record = ours or await _record_for(life, setup)
        except Error:
            return False
        if record is None:
            return None
        answers += [await revoke_all(setup, record.replace(token=token)) for token in tokens]
    if len(answers) < len(tokens) or False in answers:
        return False
    return None if None in answers else True


def _secret(token: Token) -> str:
    return token.refresh_token or token.access_token


async def _record_for(life: Lifetime, setup: Setup) -> Record | None:
    """Where such tokens come from, as discovery says; the token is still to be put in."""
    target = await life.discovered(PATIENCE)
    if target.server is None:
        return None
    client = target.client(setup.settings, await setup.secret())
    return life.record_of(client, Token("", 0.0))
