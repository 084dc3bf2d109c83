"""A thousand calls over Connect when the token expires, and what credentials add to each call."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final

import anyio
from connectrpc.errors import ConnectError
from flyteidl2.workflow.run_service_connect import RunServiceClient
from flyteidl2.workflow.run_service_pb2 import (
    GetRunDetailsRequest,
    GetRunDetailsResponse,
    WatchRunsRequest,
    WatchRunsResponse,
)

from flyteauth.errors import Error
from flyteauth.integrations.connect import client, interceptors

from ..logins import TTL, LaterClock, log_in, person, settled, temporary_home
from ..server import Server, serving
from ..table import Row, at_most, exactly, known, no_collection

CALLS: Final = 1000
AT_ONCE: Final = 32
TOKEN_LATENCY: Final = 0.05
RESOURCE_LATENCY: Final = 0.005

PAIRS: Final = 240
LOOPS: Final = 50
COLLECT: Final = 20  # pairs
TARGET_US: Final = 5.0


def rows(*, quick: bool) -> Iterator[Row]:
    # connectrpc's asynchronous clients know asyncio only.
    with serving() as server, temporary_home():
        server.set(token_latency=TOKEN_LATENCY, resource_latency=RESOURCE_LATENCY)
        yield anyio.run(_burst, server, 2 if quick else 7)
    with serving() as server, temporary_home():
        yield from anyio.run(_added, server, 20 if quick else PAIRS)


async def _burst(server: Server, rounds: int) -> Row:
    await log_in(server)
    clock = LaterClock()
    walls, control_walls = [], []
    requests = refused = failed = 0
    control = RunServiceClient(f"{server.base_url}/open")
    async with (
        person(server, clock=clock) as session,
        client(RunServiceClient, session) as runs,
    ):
        await _calls(control)
        await _calls(runs)
        for index in range(rounds):
            for ours in (bool(index % 2), not index % 2):
                await settled()
                if not ours:
                    wall, bad = await _calls(control)
                    control_walls.append(wall)
                    assert not bad
                    continue
                clock.later += TTL + 1
                server.advance(TTL + 1)
                server.reset()
                wall, bad = await _calls(runs)
                walls.append(wall)
                counts = server.counts()
                requests = max(requests, counts["token"])
                refused += counts["call 401"]
                failed += bad
    return Row(
        f"{CALLS} calls over Connect, unary and streams, {AT_ONCE} at once, when the token expires",
        "asyncio",
        [
            exactly("token requests in a round, at most", requests, 1),
            exactly("failed calls", failed, 0),
            exactly("calls with a 401", refused, 0),
            known("wall", walls, "s"),
            known("wall without auth", control_walls, "s"),
        ],
    )


async def _calls(runs: RunServiceClient) -> tuple[float, int]:
    """Wall of a thousand calls, every other one a stream, and how many of them failed."""
    turns = anyio.Semaphore(AT_ONCE)
    failed = 0

    async def call(streams: bool) -> None:
        nonlocal failed
        async with turns:
            try:
                if streams:
                    failed += len([_ async for _ in runs.watch_runs(WatchRunsRequest())]) != 2
                else:
                    await runs.get_run_details(GetRunDetailsRequest())
            except (ConnectError, Error):
                failed += 1

    with no_collection():
        begun = time.perf_counter()
        async with anyio.create_task_group() as group:
            for index in range(CALLS):
                group.start_soon(call, bool(index % 2))
        return time.perf_counter() - begun, failed


class _Network:
    """The last interceptor, which answers at once: only the client's own work is measured."""

    async def intercept_unary(self, call_next: Any, request: Any, ctx: Any) -> Any:
        return GetRunDetailsResponse()

    async def intercept_server_stream(
        self, call_next: Any, request: Any, ctx: Any
    ) -> AsyncIterator[Any]:
        yield WatchRunsResponse()
        yield WatchRunsResponse()


async def _added(server: Server, pairs: int) -> list[Row]:
    await log_in(server)
    async with person(server) as session:
        await session.headers()
        bare = RunServiceClient(server.base_url, interceptors=[_Network()])
        ours = RunServiceClient(server.base_url, interceptors=[*interceptors(session), _Network()])
        return [
            _row("a unary call", await _pairs([_unary(bare), _unary(ours)], pairs)),
            _row("a stream of two replies", await _pairs([_stream(bare), _stream(ours)], pairs)),
        ]


def _row(what: str, measured: list[list[float]]) -> Row:
    without, with_it = measured
    added = [ours - bare for bare, ours in zip(without, with_it, strict=True)]
    return Row(
        f"{what} over Connect with credentials in hand",
        "asyncio",
        [at_most("added", added, TARGET_US, "µs"), known("without", without, "µs")],
    )


def _unary(runs: RunServiceClient) -> Callable[[], Awaitable[Any]]:
    request = GetRunDetailsRequest()
    return lambda: runs.get_run_details(request)


def _stream(runs: RunServiceClient) -> Callable[[], Awaitable[Any]]:
    request = WatchRunsRequest()

    async def read() -> None:
        async for _ in runs.watch_runs(request):
            pass

    return read


async def _pairs(functions: list[Callable[[], Awaitable[Any]]], pairs: int) -> list[list[float]]:
    """Processor time of each function, in µs; which goes first alternates."""
    measured: list[list[float]] = [[], []]
    with no_collection():
        for index in range(pairs):
            if index % COLLECT == 0:
                gc.collect()
                for function in functions:
                    await _time(function)
            for which in ((0, 1), (1, 0))[index % 2]:
                measured[which].append(await _time(functions[which]))
    return measured


async def _time(function: Callable[[], Awaitable[Any]]) -> float:
    begun = time.thread_time()
    for _ in range(LOOPS):
        await function()
    return (time.thread_time() - begun) / LOOPS * 1e6
