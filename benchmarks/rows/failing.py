"""A refresh that fails while 100 callers wait for it: who asks the server, and what do they get?"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

import anyio

from flyteauth.errors import Error

from ..logins import TTL, LaterClock, log_in, person, temporary_home
from ..server import Server, serving
from ..table import BACKENDS, Measure, Row, at_most, exactly, known

WAITERS: Final = 100
TOKEN_LATENCY: Final = 0.05

# The error, and how many token requests it may take: what may pass is tried three times.
CASES: Final[Mapping[str, tuple[str, int]]] = {
    "400 HTML": ("Unreachable", 1),
    "503": ("Unreachable", 3),
    "invalid_grant": ("ReauthRequired", 1),  # the last one: it ends the login
}


def rows(*, quick: bool) -> Iterator[Row]:
    for backend in BACKENDS:
        with serving() as server, temporary_home():
            yield from anyio.run(_fail, server, backend, backend=backend)


async def _fail(server: Server, backend: str) -> list[Row]:
    await log_in(server)
    server.set(token_latency=TOKEN_LATENCY)
    return [await _case(server, backend, name) for name in CASES]


async def _case(server: Server, backend: str, name: str) -> Row:
    kind, allowed = CASES[name]
    clock = LaterClock()
    async with person(server, clock=clock) as session:
        await session.headers()
        clock.later += TTL + 1
        server.set(fault=name, counts=True)
        errors: list[Error] = []

        async def wait() -> None:
            try:
                await session.headers()
            except Error as error:
                errors.append(error)

        begun = time.perf_counter()
        async with anyio.create_task_group() as group:
            for _ in range(WAITERS):
                group.start_soon(wait)
        wall = time.perf_counter() - begun
        requests = server.counts()["token"]
        server.set(fault="")
    said = Counter(f"{type(error).__name__}: {error}" for error in errors)
    measures: list[Measure] = [
        (exactly if allowed == 1 else at_most)("token requests", requests, allowed),
        exactly(f"callers with {kind}", sum(type(e).__name__ == kind for e in errors), WAITERS),
        exactly("different errors", len(said), 1),
        known("until the last has it", wall, "s"),
    ]
    return Row(f"a refresh that fails with {name}, {WAITERS} callers", backend, measures, [*said])
