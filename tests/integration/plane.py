"""A session and the pure model of a control plane, with nothing in between; and their clocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.lowlevel

from flyteauth._io.clock import SystemClock
from flyteauth._io.store import Store
from flyteauth._io.store.memory import MemoryStore
from flyteauth._sansio.flow import RequestFailed, ResponseReceived
from flyteauth._sansio.http import Request
from flyteauth.devserver.model import ControlPlane
from flyteauth.devserver.settings import Settings
from flyteauth.events import AuthEvent, CodeNeeded
from flyteauth.session import Session

ENDPOINT = "http://localhost:8080"
START = 1_800_000_000.0


class FakeClock:
    """Time stands still, except for whoever waits for it."""

    def __init__(self) -> None:
        self.now = START

    def time(self) -> float:
        return self.now

    monotonic = time

    async def sleep_until(self, deadline: float) -> None:
        await anyio.lowlevel.checkpoint()
        self.now = max(self.now, deadline)


class HastyClock(SystemClock):
    """The real time, but nobody waits: whoever would, is told that the time has come."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0
        self.waits = 0

    def time(self) -> float:
        return super().time() + self.ahead

    async def sleep_until(self, deadline: float) -> None:
        await anyio.lowlevel.checkpoint()
        self.waits += 1
        self.ahead += max(0.0, deadline - self.time())


class Plane:
    """A control plane as a transport. ``asked`` counts requests by path, token requests by grant.

    ``before`` is awaited before each request reaches the plane, and may return a failure in its
    place; ``after`` before its answer is handed over.
    """

    def __init__(self, **settings: Any) -> None:
        settings = {"base_url": ENDPOINT, "approve": "auto", **settings}
        self.clock = FakeClock()
        self.plane = ControlPlane(Settings(**settings), b"an unchanging seed")
        self.asked: Counter[str] = Counter()
        self.before: Callable[[str], Awaitable[RequestFailed | None]] | None = None
        self.after: Callable[[str], Awaitable[None]] | None = None
        self.closed = False
        self.requests: list[Request] = []

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        sent_at = self.clock.time()
        form = (
            parse_qs(request.body.decode())
            if request.header("content-type") != "application/json"
            else {}
        )
        name = form.get("grant_type", [urlsplit(request.url).path])[0].rpartition(":")[2]
        self.asked[name] += 1
        self.requests.append(request)
        await anyio.lowlevel.checkpoint()
        if self.before is not None and (failed := await self.before(name)) is not None:
            return failed
        response = self.plane.handle(request, self.clock.time())
        if self.after is not None:
            await self.after(name)
        return ResponseReceived(response, sent_at, self.clock.time())

    async def aclose(self) -> None:
        self.closed = True

    def session(self, auth_type: str | None = "DeviceFlow", **arguments: Any) -> Session:
        """A session with this plane, in which a person approves what is asked."""
        store: Store = arguments.pop("store", None) or MemoryStore()
        presenter = arguments.pop("presenter", None) or Person(self.plane)
        if auth_type == "ClientSecret":
            arguments = {"api_key": self.plane.api_key, **arguments}
        else:
            arguments = {"endpoint": ENDPOINT, "auth_type": auth_type, **arguments}
        return Session(
            transport=self, clock=self.clock, store=store, presenter=presenter, **arguments
        )

    def down(self) -> RequestFailed:
        return RequestFailed("connect", "connection refused", False, self.clock.time())


class Person:
    """Sees every event, and approves each code that is shown."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self.seen: list[AuthEvent] = []

    async def show(self, event: AuthEvent) -> None:
        self.seen.append(event)
        if isinstance(event, CodeNeeded):
            self._plane.approve(event.user_code)

    def saw(self, kind: type[AuthEvent]) -> int:
        return sum(isinstance(event, kind) for event in self.seen)
