"""The headers of a token that is good: what does it cost to ask for them?"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import repeat
from typing import Any, Final

import anyio
import anyio.lowlevel

from ..logins import log_in, person, temporary_home
from ..server import Server, serving
from ..table import BACKENDS, Row, at_most, known, no_collection

PAIRS: Final = 60
LOOPS: Final = 2_000  # of ten awaits each, in each half of a pair
RATIO: Final = 3.0


async def nothing() -> None:
    """An empty coroutine."""


def rows(*, quick: bool) -> Iterator[Row]:
    for backend in BACKENDS:
        with serving() as server, temporary_home():
            yield anyio.run(_row, server, backend, 10 if quick else PAIRS, backend=backend)


async def _row(server: Server, backend: str, pairs: int) -> Row:
    await log_in(server)
    empty: list[float] = []
    asked: list[float] = []
    async with person(server) as session:
        for function in (nothing, session.headers):
            await _time(function)
        with no_collection():
            for index in range(pairs):
                for ours in (bool(index % 2), not index % 2):
                    # The loop gets its turn, which is not measured, as it does in any program.
                    await anyio.lowlevel.checkpoint()
                    await session.headers()
                    nanoseconds = await _time(session.headers if ours else nothing)
                    (asked if ours else empty).append(nanoseconds)
    ratios = [ours / theirs for ours, theirs in zip(asked, empty, strict=True)]
    return Row(
        "await session.headers() with a valid token",
        backend,
        [
            at_most("as many times an await of an empty coroutine", ratios, RATIO, "x"),
            known("await session.headers()", asked, "ns"),
            known("await of an empty coroutine", empty, "ns"),
        ],
    )


async def _time(f: Callable[[], Awaitable[Any]]) -> float:
    """Nanoseconds of this thread's own time for each await; ten in a line, so that the loop itself
    hardly counts.
    """
    begun = time.thread_time_ns()
    for _ in repeat(None, LOOPS):
        await f(), await f(), await f(), await f(), await f()
        await f(), await f(), await f(), await f(), await f()
    return (time.thread_time_ns() - begun) / (10 * LOOPS)
