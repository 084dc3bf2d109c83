"""
What flyteauth.integrations.httpx adds to a request: ``python -m benchmarks.httpx_auth``.

The token is in hand and the transport answers at once, so that nothing but the clients' own work
is measured: processor time of the one thread that does it, for nothing is waited for. Rounds of
requests with and without credentials alternate, and in turns which goes first, so that whatever
else the machine does meets both of a pair. The figures are medians of the pairs, and where their
middle half lies.

Adding any header costs 3 to 4 µs with httpx, which decodes all of them once more for its cookies;
having an auth flow of one's own saves about as much.
"""

from __future__ import annotations

import argparse
import gc
import logging
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import anyio
import httpx
import httpx2

from flyteauth._io.clock import SystemClock
from flyteauth._io.store.memory import MemoryStore
from flyteauth._sansio.flow import RequestFailed, ResponseReceived
from flyteauth._sansio.http import Request
from flyteauth.devserver.model import ControlPlane
from flyteauth.devserver.settings import Settings
from flyteauth.integrations.httpx import Auth, Auth2, install
from flyteauth.session import Session

from .table import BACKENDS, Row, at_most, known, machine, no_collection

PAIRS: Final = 240
REQUESTS: Final = 50  # in each half of a pair: short, for a busy machine changes its pace
COLLECT: Final = 20  # pairs; the collector leaves the caches cold, so it does not come between
TARGET_US: Final = 5.0

ENDPOINT: Final = "http://localhost:8080"

Pairs = list[tuple[float, float]]


class Plane:
    """The model of a control plane, as a session's transport."""

    def __init__(self) -> None:
        settings = Settings(base_url=ENDPOINT, approve="auto", access_ttl=86_400.0)
        self.model = ControlPlane(settings, b"an unchanging seed")
        self.clock = SystemClock()

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        at = self.clock.time()
        return ResponseReceived(self.model.handle(request, at), at, at)

    async def aclose(self) -> None:
        """Nothing is open."""

    def session(self) -> Session:
        return Session(api_key=self.model.api_key, transport=self, store=MemoryStore())


# What is compared.

Equip = Callable[[Any, Session], Any]


def _with(auth: Any) -> Equip:
    def equip(client: Any, session: Session) -> None:
        client.auth = auth(session)

    return equip


WAYS: Final[dict[str, tuple[Any, Equip]]] = {
    "httpx, Auth": (httpx, _with(Auth)),
    "httpx, install": (httpx, install),
    "httpx2, Auth2": (httpx2, _with(Auth2)),
    "httpx2, install": (httpx2, install),
}


def compare_sync(way: str, count: int) -> Pairs:
    """µs per request of synchronous clients, without and with credentials."""
    library, equip = WAYS[way]
    mock = library.MockTransport(lambda _: library.Response(200))
    with library.Client(transport=mock) as bare, library.Client(transport=mock) as client:
        equip(client, Plane().session())
        functions = (lambda: bare.get(ENDPOINT), lambda: client.get(ENDPOINT))
        measured = []
        with no_collection():
            for index in range(count):
                if index % COLLECT == 0:
                    gc.collect()
                    for function in functions:
                        _time(function)
                times = [0.0, 0.0]
                for which in ((0, 1), (1, 0))[index % 2]:
                    times[which] = _time(functions[which])
                measured.append((times[0], times[1]))
        return measured


async def compare_async(way: str, count: int) -> Pairs:
    """The same of asynchronous clients."""
    library, equip = WAYS[way]

    async def answer(_: Any) -> Any:
        return library.Response(200)

    mock = library.MockTransport(answer)
    async with (
        library.AsyncClient(transport=mock) as bare,
        library.AsyncClient(transport=mock) as client,
    ):
        equip(client, Plane().session())
        functions = (lambda: bare.get(ENDPOINT), lambda: client.get(ENDPOINT))
        measured = []
        with no_collection():
            for index in range(count):
                if index % COLLECT == 0:
                    gc.collect()
                    for function in functions:
                        await _atime(function)
                times = [0.0, 0.0]
                for which in ((0, 1), (1, 0))[index % 2]:
                    times[which] = await _atime(functions[which])
                measured.append((times[0], times[1]))
        return measured


def _time(function: Callable[[], Any]) -> float:
    begun = time.thread_time()
    for _ in range(REQUESTS):
        function()
    return (time.thread_time() - begun) / REQUESTS * 1e6


async def _atime(function: Callable[[], Awaitable[Any]]) -> float:
    begun = time.thread_time()
    for _ in range(REQUESTS):
        await function()
    return (time.thread_time() - begun) / REQUESTS * 1e6


# What comes of it.


def row(way: str, backend: str, pairs: Pairs) -> Row:
    without = [without for without, _ in pairs]
    added = [with_it - without for without, with_it in pairs]
    measures = [
        known("without", without, "µs"),
        at_most("added", added, TARGET_US, "µs"),
    ]
    return Row(f"a request with credentials in hand: {way}", backend, measures)


def rows(count: int = PAIRS) -> Iterator[Row]:
    """Everything that there is to compare."""
    logging.disable(logging.INFO)  # httpx has a line for each request
    try:
        for way in WAYS:
            yield row(way, "sync", compare_sync(way, count))
            for backend in BACKENDS:
                yield row(way, backend, anyio.run(compare_async, way, count, backend=backend))
    finally:
        logging.disable(logging.NOTSET)


def main() -> int:
    parser = argparse.ArgumentParser(description="What credentials add to a request of httpx.")
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N")
    options = parser.parse_args()

    print(f"{machine()}\nmedians of {options.pairs} pairs of {REQUESTS} requests, in µs\n")
    print(f"{'':58}  without   added    middle half   target")
    good = True
    for measured in rows(options.pairs):
        without, added = measured.measures
        low, _, high = statistics.quantiles(added.samples, n=4)
        print(
            f"{measured.name + ', ' + measured.backend:58}  {without.value:7.1f}  "
            f"{added.value:+6.2f}  {low:+6.2f} {high:+6.2f}  {added.wanted:>7}",
            flush=True,
        )
        good = good and measured.good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
