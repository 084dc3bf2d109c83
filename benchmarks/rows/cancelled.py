"""A caller is cancelled in the middle of a refresh: is anything lost, or done twice?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

import anyio

from flyteauth.session import Session

from ..logins import TTL, Kept, LaterClock, log_in, person, temporary_home
from ..server import Server, serving
from ..table import BACKENDS, Row, exactly
from ..worker import status

TOKEN_LATENCY: Final = 0.3

# Begins to wait for headers, and stops as soon as the event is set.
Cancelling = Callable[[Session, anyio.Event], Awaitable[None]]


async def _by_scope(session: Session, asked: anyio.Event) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(session.headers)
        await asked.wait()
        group.cancel_scope.cancel()


async def _by_task(session: Session, asked: anyio.Event) -> None:
    task = asyncio.create_task(session.headers())
    await asked.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def _by_shielded_timeout(session: Session, asked: anyio.Event) -> None:
    """A shield of anyio's keeps its own cancellation out, and asyncio's time-out does not care."""
    try:
        async with asyncio.timeout(TOKEN_LATENCY / 2):
            with anyio.CancelScope(shield=True):
                await session.headers()
    except TimeoutError:
        return
    raise AssertionError("nothing was cancelled")


WAYS: Final[Mapping[str, tuple[Cancelling, tuple[str, ...]]]] = {
    "an anyio scope": (_by_scope, BACKENDS),
    "asyncio's Task.cancel": (_by_task, ("asyncio",)),
    "asyncio.timeout": (_by_shielded_timeout, ("asyncio",)),
}


def rows(*, quick: bool) -> Iterator[Row]:
    for backend in BACKENDS:
        for name, (cancel, backends) in WAYS.items():
            if backend in backends:
                with serving() as server, temporary_home():
                    yield anyio.run(_row, server, backend, name, cancel, backend=backend)


async def _row(server: Server, backend: str, name: str, cancel: Cancelling) -> Row:
    await log_in(server)
    server.set(token_latency=TOKEN_LATENCY)
    clock = LaterClock()
    async with person(server, clock=clock) as session:
        await session.headers()
        kept = await Kept.of(session)
        before = kept.read()
        _pass(server, clock)
        server.reset()
        asked = anyio.Event()

        async def see() -> None:
            while not server.counts()["token"]:  # noqa: ASYNC110  # it is another process
                await anyio.sleep(0.005)
            asked.set()

        async with anyio.create_task_group() as group:
            group.start_soon(see)
            await cancel(session, asked)
        cancelled_in_time = kept.read() == before
        headers = await session.headers()
        authorised = status(f"{server.base_url}/resource", headers)
        requests = server.counts()["token"]
        after = kept.read()
        _pass(server, clock)
        again = status(f"{server.base_url}/resource", await session.headers())
    return Row(
        f"a caller cancelled in mid-refresh by {name}, then a new call",
        backend,
        [
            exactly("cancelled while the refresh went on", cancelled_in_time, 1),
            exactly("token requests", requests, 1),
            exactly("the new call is authorised", authorised, 200),
            exactly("the new refresh token is kept", after != before, 1),
            exactly("and so is the call after the next expiry", again, 200),
        ],
    )


def _pass(server: Server, clock: LaterClock) -> None:
    clock.later += TTL + 1
    server.advance(TTL + 1)
