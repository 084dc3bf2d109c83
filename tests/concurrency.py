"""Many tasks at once, and what comes of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio


async def all_at_once(count: int, function: Callable[[], Awaitable[Any]]) -> list[Any]:
    """What *function* returns, or raises, to each of *count* tasks."""
    outcomes: list[Any] = []

    async def one() -> None:
        try:
            outcomes.append(await function())
        except Exception as error:  # noqa: BLE001
            outcomes.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(one)
    return outcomes
