"""What a session begins with: where to log in, and the login that is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from .errors import FlowError

if TYPE_CHECKING:
    from ._io.flights import Round
    from ._lifetime import Lifetime
    from ._sansio.record import Record
    from ._setup import Setup
    from ._target import Target

PATIENCE: Final = 10.0  # seconds for discovery, where a stored login may do without


async def target_and_stored(
    life: Lifetime, setup: Setup, shared: Round
) -> tuple[Target | None, Record | None]:
    """Where to log in, and what is stored: not asked for where the control plane wants no login.

    Discovery goes first, for nobody should unlock a keyring over nothing. Where it fails, or takes
    longer than PATIENCE, who is logged in goes on without a target: a stored login knows where it
    came from. Nobody else starts over, but waits for the rest of it.
    """
    target: Target | None = None
    stored: list[Record | None] = []
    failures: list[Exception] = []  # told from here, for the task group would wrap them
    elapsed = life.elapsed(shared)
    pause, seeking = anyio.CancelScope(), anyio.CancelScope()

    async def seek() -> None:
        nonlocal target
        with seeking:
            try:
                target = await life.discovered(shared=shared)
            except Exception as error:  # noqa: BLE001
                failures.append(error)
        pause.cancel()

    async def look_meanwhile() -> None:
        with pause:
            await anyio.sleep(max(0.0, PATIENCE - elapsed))
        if not pause.cancelled_caught:
            try:
                stored.append(await setup.vault.load(first=True))
            except Exception as error:  # noqa: BLE001
                failures.insert(0, error)
            if stored != [None]:
                seeking.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(seek)
        group.start_soon(look_meanwhile)
    trouble = next(iter(failures), None)
    if trouble is not None and not isinstance(trouble, FlowError):
        raise trouble
    if target is not None and target.server is None:
        return target, None
    record = stored[0] if stored else await setup.vault.load(first=True)
    if record is None and trouble is not None:
        raise trouble
    return target, record
