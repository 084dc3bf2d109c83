"""Ten thousand workers for an hour, with tokens of five minutes: who asks the server for them?"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel

from flyteauth import _lifetime, _service, _setup, _source
from flyteauth._io.flights import Flights
from flyteauth._sansio.flow import RequestFailed, ResponseReceived
from flyteauth._sansio.http import Request
from flyteauth._sansio.record import Record, is_same
from flyteauth._sansio.renewal import ageing
from flyteauth._sansio.tokens import Token
from flyteauth.devserver.model import ControlPlane, Settings
from flyteauth.errors import Error
from flyteauth.session import Session

from ..logins import Watcher, temporary_home
from ..table import BACKENDS, Row, at_most, exactly, known

T = TypeVar("T")

WORKERS: Final = 10_000
TOKEN_TTL: Final = 300.0
HOUR: Final = 3600.0
EVERY: Final = 30.0  # seconds between two calls of a worker
TICK: Final = 0.5
TOKEN_LATENCY: Final = 1.0
CHECKPOINTS: Final = 30  # more than any task needs from one thing that is counted to the next
START: Final = 1_800_000_000.0
ENDPOINT: Final = "http://localhost:8080"
# A lifetime ends early, by the leeway with all its jitter.
SHORTEST: Final = TOKEN_TTL - 60.0 * 1.25


def rows(*, quick: bool) -> Iterator[Row]:
    """The real sessions, on a clock that jumps: each as in a process of its own, so that they have
    nothing in common but the store, which takes turns as Redis does.
    """
    workers = 300 if quick else WORKERS
    alone = _alone(workers)
    for backend in BACKENDS[: 1 if quick else 2]:
        with temporary_home():
            begun = time.perf_counter()
            fleet = anyio.run(_simulate, workers, backend=backend)
            wall = time.perf_counter() - begun
        yield Row(
            f"{workers} workers for an hour, tokens of {TOKEN_TTL / 60:.0f} min, one store",
            backend,
            [
                at_most("token requests", fleet.plane.asked["token"], HOUR / SHORTEST + 1),
                exactly("calls without a good token", fleet.bad, 0),
                known("calls", fleet.calls),
                known("lifetimes in an hour", HOUR / TOKEN_TTL),
                known("token requests if each were alone", alone),
                known("loads from the store", fleet.store.calls["load"]),
                known("turns taken at the store", fleet.store.calls["turn"]),
                known("seconds that the simulation took", wall, "s"),
            ],
            [f"{text} ({count} times)" for text, count in fleet.errors.most_common(3)],
        )


class JumpingClock:
    """Goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = START
        self.moved = anyio.Event()

    def time(self) -> float:
        return self.now

    monotonic = time

    async def sleep_until(self, deadline: float) -> None:
        await anyio.lowlevel.checkpoint()
        while self.now < deadline:
            await self.moved.wait()

    def jump(self, seconds: float) -> None:
        self.now += seconds
        self.moved.set()
        self.moved = anyio.Event()


class Plane:
    """A control plane as a transport, which takes its time for a token."""

    def __init__(self, clock: JumpingClock) -> None:
        settings = Settings(base_url=ENDPOINT, access_ttl=TOKEN_TTL)
        self.model = ControlPlane(settings, b"an unchanging seed")
        self.asked = Counter[str]()
        self._clock = clock

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        sent_at = self._clock.time()
        name = request.url.rpartition("/")[2]
        self.asked[name] += 1
        if name == "token":
            await self._clock.sleep_until(sent_at + TOKEN_LATENCY)
        response = self.model.handle(request, self._clock.time())
        return ResponseReceived(response, sent_at, self._clock.time())

    async def aclose(self) -> None:
        """Nothing is open."""


class SharedStore:
    """What Redis is to a fleet, without the network: records, and one turn for each."""

    name = "fleet"
    place = "the fleet's store"

    def __init__(self) -> None:
        self.calls = Counter[str]()
        self._records: dict[str, Record] = {}
        self._turns: dict[str, anyio.Lock] = {}

    @property
    def slot(self) -> Hashable:
        return ("fleet", id(self))

    async def probe(self) -> None:
        """It always works."""

    async def load(self, key: str) -> Record | None:
        self.calls["load"] += 1
        await anyio.lowlevel.checkpoint()
        return self._records.get(key)

    async def save(self, key: str, record: Record) -> None:
        self.calls["save"] += 1
        self._records[key] = record

    async def swap(self, key: str, old: Record | None, new: Record) -> bool:
        self.calls["swap"] += 1
        if not is_same(self._records.get(key), old):
            return False
        self._records[key] = new
        return True

    async def delete(self, key: str) -> None:
        self._records.pop(key, None)

    async def exclusively(
        self, key: str, function: Callable[[], Awaitable[T]], *, deadline: float
    ) -> T:
        self.calls["turn"] += 1
        async with self._turns.setdefault(key, anyio.Lock()):
            return await function()

    async def aclose(self) -> None:
        """Nothing is open."""


class Fleet:
    """Everything at work, and what came of it."""

    def __init__(self, workers: int) -> None:
        self.clock = JumpingClock()
        self.plane = Plane(self.clock)
        self.store = SharedStore()
        self.calls = self.bad = self.waiting = 0
        self.errors = Counter[str]()
        self.sessions = [
            Session(
                api_key=self.plane.model.api_key,
                transport=self.plane,
                clock=self.clock,
                store=self.store,
                flights=Flights(),
                presenter=Watcher(),
            )
            for _ in range(workers)
        ]

    async def call(self, session: Session) -> None:
        self.calls += 1
        self.waiting += 1
        try:
            headers = await session.headers()
            token = headers["authorization"].removeprefix("Bearer ")
            if self.plane.model.access(token, self.clock.time()) is None:
                self.bad += 1
        except Error as error:
            self.bad += 1
            self.errors[f"{type(error).__name__}: {error}"] += 1
        finally:
            self.waiting -= 1

    async def settle(self) -> None:
        """Return when nothing happens any more, unless time passes."""
        before = -1
        while before != (before := self._happened()):
            for _ in range(CHECKPOINTS):
                await anyio.lowlevel.checkpoint()

    def _happened(self) -> int:
        return self.store.calls.total() + self.plane.asked.total() - self.waiting


async def _simulate(workers: int) -> Fleet:
    """Each worker calls at moments of its own; nobody waits for anybody but as the store says."""
    fleet = Fleet(workers)
    phases: list[list[Session]] = [[] for _ in range(int(EVERY / TICK))]
    chance = random.Random(1)
    for session in fleet.sessions:
        chance.choice(phases).append(session)
    with _configuration_read_once():
        async with anyio.create_task_group() as group:
            for tick in range(int(HOUR / TICK)):
                for session in phases[tick % len(phases)]:
                    group.start_soon(fleet.call, session)
                await fleet.settle()
                fleet.clock.jump(TICK)
            while fleet.waiting:
                await fleet.settle()
                fleet.clock.jump(TICK)
    return fleet


@contextmanager
def _configuration_read_once() -> Iterator[None]:
    """All have the same configuration: it is not read in ten thousand threads, for whose sake the
    clock would have to stand still.
    """
    settings: list[Any] = []

    async def at_once(function: Callable[..., Any], *args: Any) -> Any:
        if function is not _source.prepare:
            return function(*args)
        if not settings:
            settings.append(function(*args))
        return settings[0]

    modules: tuple[Any, ...] = (_lifetime, _service, _setup)
    real = _source.in_time
    for module in modules:
        module.in_time = at_once
    try:
        yield
    finally:
        for module in modules:
            module.in_time = real


def _alone(workers: int) -> int:
    """Token requests by the pure policy, for workers that share nothing."""
    chance, requests = random.Random(2), 0
    for _ in range(workers):
        at = chance.random() * EVERY
        while at < HOUR:
            requests += 1
            token = Token("a", obtained_at=at, expires_at=at + TOKEN_TTL)
            # The first call after it begins to age.
            at += EVERY * -(-(ageing(token, chance.random()) - at) // EVERY)
    return requests
