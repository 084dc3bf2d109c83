"""A thousand calls at the moment when the token expires: how long do they wait, and for what?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, Self

import anyio
import anyio.lowlevel
import httpx

from flyteauth.errors import Error
from flyteauth.integrations.httpx import Auth
from flyteauth.session import Session

from ..logins import TTL, Kept, LaterClock, log_in, person, settled, temporary_home
from ..server import Server, serving
from ..table import BACKENDS, Row, at_most, exactly, known, no_collection

CALLS: Final = 1000
AT_ONCE: Final = 8  # httpcore's queue is quadratic in what waits for a connection
TOKEN_LATENCY: Final = 0.05
RESOURCE_LATENCY: Final = 0.005
RATIO: Final = 1.15


def rows(*, quick: bool) -> Iterator[Row]:
    for backend in BACKENDS:
        with serving() as server, temporary_home():
            server.set(token_latency=TOKEN_LATENCY, resource_latency=RESOURCE_LATENCY)
            yield anyio.run(_with_httpx, server, backend, 2 if quick else 5, backend=backend)
    for store in ("file", "memory"):
        for backend in BACKENDS:
            with serving() as server, temporary_home():
                server.set(token_latency=TOKEN_LATENCY)
                yield anyio.run(_bare, server, backend, store, 5 if quick else 7, backend=backend)


class _Bystander:
    """A login of its own, to be refreshed without flyteauth: one token round trip, and no more."""

    def __init__(self, server: Server) -> None:
        self._server = server
        # Each on a connection of its own, as a refresh once in half an hour is.
        self._client = httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0))
        self._refresh_token = ""

    async def __aenter__(self) -> Self:
        async with person(self._server, account="bystander") as session:
            await session.login()
            self._refresh_token = (await Kept.of(session)).read().token.refresh_token or ""
        await self.round_trip()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def round_trip(self) -> float:
        """Seconds that a refresh takes."""
        form = {
            "grant_type": "refresh_token",
            "refresh_token": self._refresh_token,
            "client_id": "flytectl",
        }
        begun = time.perf_counter()
        response = await self._client.post(f"{self._server.base_url}/oauth2/token", data=form)
        wall = time.perf_counter() - begun
        self._refresh_token = response.raise_for_status().json()["refresh_token"]
        return wall


async def _with_httpx(server: Server, backend: str, rounds: int) -> Row:
    await log_in(server)
    clock = LaterClock()
    ratios, walls, control_walls, trips = [], [], [], []
    requests = refused = failed = 0
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    async with (
        person(server, clock=clock) as session,
        httpx.AsyncClient(limits=limits, timeout=60) as control,
        httpx.AsyncClient(limits=limits, timeout=60, auth=Auth(session)) as client,
        _Bystander(server) as bystander,
    ):
        await _calls(control, f"{server.base_url}/open")
        await _calls(client, f"{server.base_url}/resource")
        for index in range(rounds):
            for ours in (bool(index % 2), not index % 2):
                await settled()
                if not ours:
                    trips.append(await bystander.round_trip())
                    wall, _ = await _calls(control, f"{server.base_url}/open")
                    control_walls.append(wall)
                    continue
                clock.later += TTL + 1
                server.advance(TTL + 1)
                server.reset()
                wall, bad = await _calls(client, f"{server.base_url}/resource")
                walls.append(wall)
                counts = server.counts()
                requests = max(requests, counts["token"])
                refused += counts["resource 401"]
                failed += bad
    ratios = [
        wall / (without + trip)
        for wall, without, trip in zip(walls, control_walls, trips, strict=True)
    ]
    return Row(
        f"{CALLS} calls by httpx, {AT_ONCE} at once, when the token expires",
        backend,
        [
            exactly("token requests in a round, at most", requests, 1),
            exactly("failed calls", failed, 0),
            exactly("calls with a 401", refused, 0),
            at_most("as long as without auth and a token round trip", ratios, RATIO, "x"),
            known("wall", walls, "s"),
            known("wall without auth", control_walls, "s"),
            known("token round trip", [1000 * trip for trip in trips], "ms"),
        ],
    )


async def _calls(client: httpx.AsyncClient, url: str) -> tuple[float, int]:
    """Wall of a thousand calls, and how many of them failed."""
    turns = anyio.Semaphore(AT_ONCE)
    failed = 0

    async def call() -> None:
        nonlocal failed
        async with turns:
            try:
                failed += (await client.get(url)).status_code != 200
            except (httpx.HTTPError, Error):
                failed += 1

    with no_collection():
        begun = time.perf_counter()
        async with anyio.create_task_group() as group:
            for _ in range(CALLS):
                group.start_soon(call)
        return time.perf_counter() - begun, failed


async def _bare(server: Server, backend: str, store: str, rounds: int) -> Row:
    clock = LaterClock()
    walls: list[float] = []
    alone: list[float] = []
    trips, tasks, busy = [], [], []
    requests = 0
    async with (
        person(server, clock=clock, token_store=store) as session,
        _Bystander(server) as bystander,
    ):
        await session.login()
        for _ in range(rounds):
            await settled()
            trips.append(await bystander.round_trip())
            tasks.append(await _tasks())
            for callers, found in ((CALLS, walls), (1, alone)):
                await settled()
                clock.later += TTL + 1
                server.advance(TTL + 1)
                server.reset()
                wall, worked = await _headers(session, callers)
                found.append(wall)
                if callers > 1:
                    busy.append(worked)
                requests = max(requests, server.counts()["token"])
    return Row(
        f"{CALLS} times session.headers() when the token expires, store {store}",
        backend,
        [
            exactly("token requests in a round, at most", requests, 1),
            at_most(
                "as long as a token round trip",
                [wall / trip for wall, trip in zip(walls, trips, strict=True)],
                RATIO,
                "x",
            ),
            known(
                "as long as that and the tasks alone, see below",
                [w / (trip + t) for w, trip, t in zip(walls, trips, tasks, strict=True)],
                "x",
            ),
            known("wall", [1000 * wall for wall in walls], "ms"),
            known("of that, the event loop was busy", [1000 * seconds for seconds in busy], "ms"),
            known("token round trip without flyteauth", [1000 * trip for trip in trips], "ms"),
            known("wall of a single caller", [1000 * wall for wall in alone], "ms"),
            known(f"{CALLS} tasks that wait for one event", [1000 * t for t in tasks], "ms"),
        ],
    )


async def _headers(session: Session, callers: int) -> tuple[float, float]:
    """Wall, and the own time of this thread."""
    with no_collection():
        begun, busy = time.perf_counter(), time.thread_time()
        async with anyio.create_task_group() as group:
            for _ in range(callers):
                group.start_soon(session.headers)
        return time.perf_counter() - begun, time.thread_time() - busy


async def _tasks() -> float:
    """What so many tasks cost that wait for one event, whatever it is."""
    event = anyio.Event()
    with no_collection():
        begun = time.perf_counter()
        async with anyio.create_task_group() as group:
            for _ in range(CALLS):
                group.start_soon(event.wait)
            await anyio.lowlevel.checkpoint()
            event.set()
        return time.perf_counter() - begun
