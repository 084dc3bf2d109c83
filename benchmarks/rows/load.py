"""A steady load while tokens come and go: does any request notice a refresh?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Final

import anyio
import httpx
from attrs import define, field

from flyteauth.errors import Error
from flyteauth.integrations.httpx import Auth

from ..logins import log_in, person, temporary_home
from ..server import Server, serving
from ..table import BACKENDS, Row, at_most, exactly, known, no_collection, percentile

RATE: Final = 200  # requests in a second, whatever becomes of the ones before
SECONDS: Final = 8.0
TOKEN_TTL: Final = 3
TOKEN_LATENCY: Final = 0.2
DELAYED: Final = 0.05  # seconds on the way to the transport: a quarter of a refresh
RATIO: Final = 1.2
BUSY: Final = 0.05
SATURATED: Final = (
    "without auth, half the requests took more than 50 ms: the machine cannot keep up with this "
    "load just now, so measure again when it is quiet"
)


def rows(*, quick: bool) -> Iterator[Row]:
    """The same load with and without auth, in turns."""
    for backend in BACKENDS:
        with serving(access_ttl=TOKEN_TTL) as server, temporary_home():
            server.set(token_latency=TOKEN_LATENCY, resource_latency=0.005)
            seconds, pairs = (6.0, 1) if quick else (SECONDS, 5)
            yield anyio.run(_row, server, backend, seconds, pairs, backend=backend)


@define
class Load:
    """What came of one load; all times in seconds.

    ``latencies`` are from the scheduled start of a request to its end, ``held`` from the real one
    until the client's transport has it.
    """

    latencies: list[float] = field(factory=list)
    held: list[float] = field(factory=list)
    failed: int = 0

    @property
    def p99(self) -> float:
        return percentile(self.latencies, 0.99)

    @property
    def delayed(self) -> int:
        return sum(seconds > DELAYED for seconds in self.held)


_FIGURES: Final[dict[str, Callable[[Load], float]]] = {
    "p50": lambda load: statistics.median(load.latencies),
    "p99": lambda load: load.p99,
    "max": lambda load: max(load.latencies),
    "longest held back": lambda load: max(load.held),
}


class _Noting(httpx.AsyncHTTPTransport):
    """Notes when a request arrives."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["arrived"][0] = time.perf_counter()
        return await super().handle_async_request(request)


async def _row(server: Server, backend: str, seconds: float, pairs: int) -> Row:
    await log_in(server)
    with_auth: list[Load] = []
    without: list[Load] = []
    requests, refused = [], 0
    async with (
        person(server) as session,
        httpx.AsyncClient(transport=_Noting(), timeout=60) as control,
        httpx.AsyncClient(transport=_Noting(), timeout=60, auth=Auth(session)) as client,
    ):
        await _load(control, f"{server.base_url}/open", 1.0)
        await _load(client, f"{server.base_url}/resource", 1.0)
        for index in range(pairs):
            for ours in (bool(index % 2), not index % 2):
                if not ours:
                    without.append(await _load(control, f"{server.base_url}/open", seconds))
                    continue
                await session.headers()  # the token of before the pause has expired
                server.reset()
                with_auth.append(await _load(client, f"{server.base_url}/resource", seconds))
                counts = server.counts()
                refused += counts["resource 401"]
                requests.append(counts["token"])
    ratios = [ours.p99 / theirs.p99 for ours, theirs in zip(with_auth, without, strict=True)]
    lifetimes = seconds / TOKEN_TTL
    return Row(
        f"{RATE} requests/s for {seconds:.0f} s, tokens that live {TOKEN_TTL} s",
        backend,
        [
            exactly("requests with a 401", refused, 0),
            exactly("failed requests", sum(load.failed for load in with_auth), 0),
            at_most("p99, times that without auth", ratios, RATIO, "x"),
            exactly(
                f"held back for more than {1000 * DELAYED:.0f} ms, beyond those without auth",
                max(0, sum(a.delayed for a in with_auth) - sum(b.delayed for b in without)),
                0,
            ),
            *(
                known(f"{name} {who}", [1000 * of(load) for load in loads], "ms")
                for who, loads in (("with auth", with_auth), ("without", without))
                for name, of in _FIGURES.items()
            ),
            known("token requests", requests),
            known("lifetimes", lifetimes),
        ],
        [SATURATED] if any(statistics.median(load.latencies) > BUSY for load in without) else [],
    )


async def _load(client: httpx.AsyncClient, url: str, seconds: float) -> Load:
    load = Load()

    async def call(due: float) -> None:
        arrived = [0.0]
        begun = time.perf_counter()
        try:
            response = await client.get(url, extensions={"arrived": arrived})
            load.failed += response.status_code != 200
        except (httpx.HTTPError, Error):
            load.failed += 1
        load.latencies.append(time.perf_counter() - due)
        load.held.append((arrived[0] or time.perf_counter()) - begun)

    with no_collection():
        begun = time.perf_counter()
        async with anyio.create_task_group() as group:
            for number in range(int(seconds * RATE)):
                due = begun + number / RATE
                await anyio.sleep(max(0.0, due - time.perf_counter()))
                group.start_soon(call, due)
    return load
