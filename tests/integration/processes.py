"""
Several processes with one login, simulated in one: each with sessions, flights and clocks of its
own, around one control plane, one store and one machine.

Nothing happens by itself. Whatever touches the outer world (a store, the network) waits at a
*gate* before and after, until somebody opens it; time passes when somebody says so. A process may
be crashed between any two gates: none of its gates ever opens again, its turns go to whoever waits
for them, and what it has done stays done.

``World`` keeps the books: what the server has issued, to whom, and what is still good. What may
never happen is noted in ``violations`` at the moment that it does.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import math
import queue
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeVar
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.to_thread
import pytest
import trio
import trio.testing
from attrs import define, evolve, field

from flyteauth import _grants, _lifetime, _target, _upkeep
from flyteauth._io.clock import SystemClock
from flyteauth._io.flights import Flights
from flyteauth._io.store.file import FileStore
from flyteauth._lifetime import GLANCE, RENEW_DEADLINE
from flyteauth._login import ask_person  # noqa: F401  # imported here, not by the first example
from flyteauth._machine import MUTE, Machine
from flyteauth._sansio.flow import RequestFailed, ResponseReceived
from flyteauth._sansio.http import Request, Response
from flyteauth._sansio.record import Record, is_same
from flyteauth._sansio.renewal import JITTER, LEEWAY, LEEWAY_SHARE, SKEW, may_force
from flyteauth._sansio.tokens import Token
from flyteauth._setup import assemble
from flyteauth.config import resolve
from flyteauth.devserver.issued import Family, RefreshToken
from flyteauth.devserver.model import ControlPlane
from flyteauth.devserver.settings import Settings
from flyteauth.errors import (
    Error,
    Expired,
    InteractionRequired,
    OAuth2Error,
    ReauthRequired,
    StoreError,
)
from flyteauth.events import AuthEvent, BrowserNeeded, CodeNeeded
from flyteauth.session import Session

from .plane import ENDPOINT, START

T = TypeVar("T")

Kind = Literal["headers", "token", "login", "logout", "close"]
Answer = Literal["yes", "no", "never"]
Fault = Literal["connect", "lost", "503", "html", "gateway"]
Mode = Literal["rotate", "keep", "silent"]

FAULTS: Final[tuple[Fault, ...]] = ("connect", "lost", "503", "html", "gateway")
PATIENCE: Final = 3000  # steps that whatever has begun may take to end
DEVICE_TTL: Final = 20.0

_ARGUMENTS: Final[dict[str, Any]] = {"endpoint": ENDPOINT, "auth_type": "DeviceFlow"}
_SETTINGS: Final = resolve(_ARGUMENTS, environ=None, search=False)
_serials: Final = itertools.count()


# An event loop that is run from outside, bit by bit, and whose time passes only when told.


class Runner(Protocol):
    def start(self, function: Callable[[], Awaitable[object]]) -> None:
        """Begin *function* as a task."""

    def do(self, function: Callable[[], object]) -> None:
        """Call *function* on the event loop, soon."""

    def settle(self) -> None:
        """Run until every task waits for something."""

    def advance(self, seconds: float) -> None:
        """Let so much time pass, at once."""

    def close(self) -> None:
        """Cancel whatever still runs."""


class _StillLoop(asyncio.SelectorEventLoop):
    """Its clock stands still."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.set_exception_handler(lambda loop, context: None)

    def time(self) -> float:
        return self.now

    @property
    def idle(self) -> bool:
        waiting: Any = self
        due = any(
            not timer.cancelled() and timer.when() <= self.now for timer in waiting._scheduled
        )
        return not waiting._ready and not due


class AsyncioRunner:
    def __init__(self) -> None:
        self._loop = _StillLoop()
        self._tasks: set[asyncio.Task[object]] = set()

    def start(self, function: Callable[[], Awaitable[object]]) -> None:
        async def run() -> None:
            await function()

        task: asyncio.Task[object] = self._loop.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def do(self, function: Callable[[], object]) -> None:
        self._loop.call_soon(function)

    def settle(self) -> None:
        while True:
            self._loop.call_soon(self._loop.stop)
            self._loop.run_forever()
            if self._loop.idle:
                return

    def advance(self, seconds: float) -> None:
        self._loop.now += seconds
        self.settle()

    def close(self) -> None:
        for _ in range(10):
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self.settle()
        assert not asyncio.all_tasks(self._loop)
        self._loop.close()


class TrioRunner:
    """A guest of this thread, which lets it go on for as long as ``settle`` says."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._clock = trio.testing.MockClock()
        self._outcomes: list[Any] = []
        self._begun: list[tuple[trio.Nursery, trio.lowlevel.TrioToken]] = []
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._queue.put,
            done_callback=self._outcomes.append,
            clock=self._clock,
            restrict_keyboard_interrupt_to_checkpoints=True,
        )
        self._run_until(self._begun)
        self._nursery, self._token = self._begun[0]

    async def _main(self) -> None:
        async with trio.open_nursery() as nursery:
            self._begun.append((nursery, trio.lowlevel.current_trio_token()))
            await trio.sleep_forever()

    def _run_until(self, signs: list[Any]) -> None:
        while not signs:
            self._queue.get(timeout=60)()

    def start(self, function: Callable[[], Awaitable[object]]) -> None:
        self.do(partial(self._nursery.start_soon, function))

    def do(self, function: Callable[[], object]) -> None:
        self._token.run_sync_soon(function)

    def settle(self) -> None:
        signs: list[bool] = []

        async def sign() -> None:
            await trio.testing.wait_all_tasks_blocked()
            signs.append(True)

        self.start(sign)
        self._run_until(signs)

    def advance(self, seconds: float) -> None:
        self._clock.jump(seconds)
        self.settle()

    def close(self) -> None:
        self._token.run_sync_soon(self._nursery.cancel_scope.cancel)
        self._run_until(self._outcomes)
        self._outcomes[0].unwrap()


RUNNERS: Final[Mapping[str, Callable[[], Runner]]] = {
    "asyncio": AsyncioRunner,
    "trio": TrioRunner,
}


@contextmanager
def determined() -> Iterator[None]:
    """Jitter by a fixed rule, and no threads: what is drawn decides what happens."""
    count = itertools.count()

    def bits() -> int:
        return int.from_bytes(hashlib.sha256(str(next(count)).encode()).digest()[:8], "big")

    async def inline(function: Callable[..., T], *args: Any) -> T:
        return function(*args)

    with pytest.MonkeyPatch.context() as patch:
        for module in (_grants, _lifetime, _target, _upkeep):
            if hasattr(module, "random_bits"):
                patch.setattr(module, "random_bits", bits)
        patch.setattr(anyio.to_thread, "run_sync", inline)
        yield


# What lasts: where records are, and whose turn it is.


class Shelf(Protocol):
    """Where records are, whatever becomes of the processes."""

    def load_sync(self, key: str) -> Record | None: ...
    def save_sync(self, key: str, record: Record) -> None: ...
    def swap_sync(self, key: str, old: Record | None, new: Record) -> bool: ...
    def delete_sync(self, key: str) -> None: ...


class Memory:
    """Like MemoryStore, but no process takes it with it."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}

    def load_sync(self, key: str) -> Record | None:
        return self._records.get(key)

    def save_sync(self, key: str, record: Record) -> None:
        self._records[key] = record

    def swap_sync(self, key: str, old: Record | None, new: Record) -> bool:
        if not is_same(self.load_sync(key), old):
            return False
        self.save_sync(key, new)
        return True

    def delete_sync(self, key: str) -> None:
        self._records.pop(key, None)


def disk(directory: Path) -> Shelf:
    return FileStore(directory)


@define(eq=False)
class Ticket:
    process: Process
    called: anyio.Event = field(factory=anyio.Event)


class Turns:
    """A lock as the operating system gives it: who dies lets go."""

    def __init__(self) -> None:
        self.line: list[Ticket] = []

    async def exclusively(
        self,
        process: Process,
        function: Callable[[], Awaitable[T]],
        deadline: float,
        waiting: Callable[[], Awaitable[object]] | None = None,
    ) -> T:
        ticket = Ticket(process)
        self.line.append(ticket)
        try:
            if self.line[0] is not ticket:
                if waiting is not None:
                    await waiting()
                with anyio.move_on_after(deadline):
                    while self.line[0] is not ticket:
                        await ticket.called.wait()
                if self.line[0] is not ticket:
                    raise StoreError("another process keeps it busy; try again", reason="busy")
            return await function()
        finally:
            self._leave(ticket)

    def holder(self) -> Process | None:
        return self.line[0].process if self.line else None

    def bury(self, process: Process) -> None:
        for ticket in [ticket for ticket in self.line if ticket.process is process]:
            self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        if ticket in self.line:
            self.line.remove(ticket)
        if self.line:
            self.line[0].called.set()


# A process, and what it has.


class WorldOver(Exception):
    """Ends what nothing else would: a task that is shielded, of a process that has crashed."""


@define(eq=False)
class Gate:
    process: Process
    name: str
    event: anyio.Event = field(factory=anyio.Event)


@define(eq=False)
class Process:
    """``carrying``: refresh tokens that are in no store yet; ``refused``: those that the server
    would not take; ``rejected``: access tokens that a server refused, and that is to be believed.
    """

    world: World
    number: int
    wall_offset: float = 0.0
    alive: bool = True
    users: list[User] = field(factory=list)
    flights: Flights = field(factory=Flights)
    carrying: dict[str, Family] = field(factory=dict)
    refused: set[str] = field(factory=set)
    rejected: set[str] = field(factory=set)
    issued: set[str] = field(factory=set)
    readings: list[tuple[float, float]] = field(factory=list)
    turn_taken_at: float = 0.0
    refreshed: int = 0
    serial: int = field(factory=partial(next, _serials))  # no two in all worlds have the same
    clock: SystemClock = field(init=False)
    began: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.clock = SystemClock(wall=self.wall, monotonic=lambda: self.world.awake)
        self.began = self.wall() - self.world.awake
        self.read_clock()

    def wall(self) -> float:
        return self.world.now + self.wall_offset

    def time(self) -> float:
        """The later of what both clocks say."""
        return max(self.wall(), self.began + self.world.awake)

    def read_clock(self) -> None:
        """Note what the clocks say, before and after they are changed."""
        self.readings.append((self.world.awake, self.time()))

    async def step(self, name: str) -> None:
        gate = Gate(self, name)
        self.world.gates.append(gate)
        try:
            if not self.world.over:
                await gate.event.wait()
        finally:
            if gate in self.world.gates:
                self.world.gates.remove(gate)
        if self.world.over:
            raise WorldOver

    @property
    def busy(self) -> bool:
        works = [*self.flights._works.values()]
        for user in self.users:
            works += user.session._life._works
        return any(not work.done for work in works) or any(user.calls for user in self.users)

    def __repr__(self) -> str:
        return f"process {self.number}"


@define(eq=False)
class Call:
    user: User
    kind: Kind
    rejected: frozenset[str]
    fast: bool
    at: float
    known: frozenset[str]  # the access tokens that there were when it began
    refreshed: int  # how often its process had refreshed by then
    joins: bool  # whether there was a renewal that it might join
    last: str | None  # what the user had before
    scope: anyio.CancelScope | None = None
    outcome: object = None
    over: bool = False


@define(eq=False)
class User:
    """A session, and whoever uses it. ``got``: it has had a token; so nobody may be asked."""

    process: Process
    interactive: bool
    session: Session = field(init=False)
    calls: list[Call] = field(factory=list)
    rejected: set[str] = field(factory=set)
    last: str | None = None
    got: bool = False
    closed: bool = False
    answer: Answer = "yes"

    def __attrs_post_init__(self) -> None:
        process = self.process
        store, transport = DoorStore(process), DoorTransport(process)
        self.session = Session(
            **_ARGUMENTS,
            clock=process.clock,
            store=store,
            transport=transport,
            presenter=self,
            flights=process.flights,
            interactive=(lambda: True) if self.interactive else False,
        )
        life = self.session._life
        life._ready = assemble(
            _SETTINGS, process.clock, life.audience.notify, transport=transport, store=store
        )
        machine = Machine(None, process.clock)
        machine._notes = DoorNotes(process)  # type: ignore[assignment]
        machine._locks = DoorLocks(process)  # type: ignore[assignment]
        life._ready = evolve(life._ready, machine=machine)

    async def show(self, event: AuthEvent) -> None:
        if not self.process.alive:
            return
        self.process.world.shown(self, event)

    def __repr__(self) -> str:
        return f"session {self.process.users.index(self)} of {self.process}"


class DoorStore:
    """The way of one process to the shelf."""

    name = "file"
    place = "the shelf"

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self.slot = ("simulated", process.serial)

    async def probe(self) -> None: ...

    async def load(self, key: str) -> Record | None:
        await self._process.step("load")
        record = self._world.shelf.load_sync(key)
        await self._process.step("loaded")
        return record

    async def save(self, key: str, record: Record) -> None:
        await self._process.step("save")
        self._world.storing(self._process, record)
        self._world.shelf.save_sync(key, record)
        self._world.stored(self._process, record)
        await self._process.step("saved")

    async def swap(self, key: str, old: Record | None, new: Record) -> bool:
        await self._process.step("swap")
        before = self._world.shelf.load_sync(key)
        swapped = self._world.shelf.swap_sync(key, old, new)
        if swapped:
            self._world.swapped(self._process, before, new)
            self._world.stored(self._process, new)
        await self._process.step("swapped")
        return swapped

    async def delete(self, key: str) -> None:
        await self._process.step("delete")
        self._world.deleting(self._process)
        self._world.shelf.delete_sync(key)
        await self._process.step("deleted")

    async def exclusively(
        self, key: str, function: Callable[[], Awaitable[T]], *, deadline: float
    ) -> T:
        async def in_turn() -> T:
            self._process.turn_taken_at = self._world.awake
            return await function()

        await self._process.step("take the turn")
        if any(ticket.process is self._process for ticket in self._world.turns.line):
            self._world.violated(f"{self._process} renews twice at once")
        try:
            return await self._world.turns.exclusively(self._process, in_turn, deadline)
        finally:
            await self._process.step("turn over")

    async def aclose(self) -> None: ...


class DoorLocks:
    def __init__(self, process: Process) -> None:
        self._process = process

    async def exclusively(
        self,
        name: str,
        function: Callable[[], Awaitable[T]],
        *,
        deadline: float,
        waiting: Callable[[], Awaitable[object]] | None = None,
    ) -> T:
        turns = self._process.world.prompting
        return await turns.exclusively(self._process, function, deadline, waiting)


class DoorNotes:
    def __init__(self, process: Process) -> None:
        self._process = process
        self._notes = process.world.notes

    async def read(self, name: str) -> Mapping[str, Any] | None:
        text = self._notes.get(name)
        return None if text is None else json.loads(text)

    async def write(self, name: str, value: Mapping[str, Any]) -> None:
        if self._process.alive:
            self._notes[name] = json.dumps(dict(value))

    async def remove(self, name: str) -> None:
        if self._process.alive:
            self._notes.pop(name, None)


class DoorTransport:
    """The way of one process to the server. Discovery has no gates: nothing hangs on it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        process, world = self._process, self._world
        if not process.alive:
            await process.step("nothing more")
        path = urlsplit(request.url).path
        form = (
            {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
            if path.startswith("/oauth2/")
            else {}
        )
        name = form.get("grant_type", path).rpartition(":")[2]
        sent_at = process.clock.time()
        if not form:
            await anyio.lowlevel.checkpoint()
            return self._delivered(world.plane.handle(request, world.now), sent_at, None)
        if name == "refresh_token":
            world.takes_off(process, form["refresh_token"])
        elif name == "/oauth2/revoke":
            world.revoking(process, form["token"])
        try:
            await process.step(f"send {name}")
            fault = world.faults.pop(0) if world.faults else None
            if fault in {"connect", "503", "html"}:
                return self._delivered(Response(500), sent_at, fault)
            return await self._exchange(request, form, name, sent_at, fault)
        finally:
            if process.alive and name == "refresh_token":
                world.refreshing.remove(process)

    async def _exchange(
        self,
        request: Request,
        form: Mapping[str, str],
        name: str,
        sent_at: float,
        fault: Fault | None,
    ) -> ResponseReceived | RequestFailed:
        process, world = self._process, self._world
        spent = form.get("refresh_token")
        begun = process.turn_taken_at if spent else world.awake
        patience = RENEW_DEADLINE if spent else _grants.FINISH_DEADLINE
        response = world.serve(process, request, spent)
        delivered = False
        try:
            await process.step(f"answer {name}")
            delivered = fault is None
        finally:
            # Who waits so long for an answer may give up; nobody else may.
            excused = fault is not None or world.awake >= begun + patience
            if process.alive and excused and not delivered:
                world.lost(process)
        if delivered:
            world.delivered(process, response, spent)
        return self._delivered(response, sent_at, fault)

    def _delivered(
        self, response: Response, sent_at: float, fault: Fault | None
    ) -> ResponseReceived | RequestFailed:
        at = self._process.clock.time()
        html = (("content-type", "text/html"),)
        match fault:
            case "connect":
                return RequestFailed("connect", "connection refused", False, at)
            case "lost":
                return RequestFailed("timeout", "no answer", True, at)
            case "503":
                headers = (*html, ("retry-after", "1"))
                return ResponseReceived(Response(503, headers, b"<p>later"), sent_at, at)
            case "gateway":
                return ResponseReceived(Response(504, html, b"<p>timeout"), sent_at, at)
            case "html":
                return ResponseReceived(Response(200, html, b"<p>log in"), sent_at, at)
        return ResponseReceived(response, sent_at, at)

    async def aclose(self) -> None: ...


# The world, and its books.


class World:
    """``awake`` is the time that all monotonic clocks show: it stands still while all sleep."""

    def __init__(
        self,
        backend: str = "asyncio",
        *,
        shelf: Shelf | None = None,
        grace: float = 0.0,
        mode: Mode = "rotate",
        access_ttl: float = 100.0,
        refresh_ttl: float = 24 * 3600.0,
    ) -> None:
        self.runner = RUNNERS[backend]()
        self.now = START
        self.awake = 0.0
        self.skewed = False
        self.plane = ControlPlane(
            Settings(
                base_url=ENDPOINT,
                access_ttl=access_ttl,
                refresh_ttl=refresh_ttl,
                device_ttl=DEVICE_TTL,
                grace=grace,
            ),
            b"an unchanging seed",
        )
        self.server = self.plane._server
        self.set_mode(mode)
        self.faults: list[Fault] = []
        self.shelf: Shelf = Memory() if shelf is None else shelf
        self.turns = Turns()
        self.prompting = Turns()
        self.notes: dict[str, str] = {}
        self.gates: list[Gate] = []
        self.processes: list[Process] = []
        self.calls: list[Call] = []
        self.violations: list[str] = []
        self.history: list[str] = []
        # The books.
        self.refreshing: list[Process] = []
        self.families: dict[Family, None] = {}
        self.refreshed = Counter[Family]()
        self.ended: set[Family] = set()
        self.logged_out: set[Family] = set()
        self.excused: dict[Family, float] = {}
        self.records: dict[str, Record] = {}
        self.by_refresh_token: dict[str, Record] = {}
        self.muted_at: float | None = None
        self.prompts = 0
        self.over = False

    # What happens.

    def start_process(self, *interactive: bool) -> Process:
        process = Process(self, len(self.processes))
        self.processes.append(process)
        for may_ask in interactive or (False,):
            process.users.append(User(process, may_ask))
        return process

    def call(self, user: User, kind: Kind) -> Call:
        fast = kind == "headers" and user.session.cached_headers() is not None
        process = user.process
        call = Call(
            user,
            kind,
            frozenset(user.rejected),
            fast,
            process.time(),
            frozenset(self.records),
            process.refreshed,
            process.busy,
            user.last,
        )
        self.history.append(f"{user} is asked for {kind}")
        self.calls.append(call)
        user.calls.append(call)
        self.runner.start(partial(self._perform, call))
        self.settle()
        return call

    async def _perform(self, call: Call) -> None:
        session = call.user.session
        functions: dict[Kind, Callable[[], Awaitable[object]]] = {
            "headers": session.headers,
            "token": session.token,
            "login": session.login,
            "logout": session.logout,
            "close": session.aclose,
        }
        outcome: object = None
        try:
            with anyio.CancelScope() as call.scope:
                outcome = await functions[call.kind]()
        except Exception as error:  # noqa: BLE001
            outcome = error
        if call.user.process.alive:
            call.over, call.outcome = True, outcome
            call.user.calls.remove(call)
            self.calls.remove(call)
            self.history.append(f"{call.user}: {call.kind} comes to {type(outcome).__name__}")
            if call.scope is None or not call.scope.cancel_called:
                self.judge(call)

    def settle(self) -> None:
        self.runner.settle()
        self.check()

    def open(self, gate: Gate) -> None:
        self.history.append(f"{gate.process}: {gate.name}")
        self.gates.remove(gate)
        self.runner.do(gate.event.set)
        self.settle()

    def go_on(self, process: Process, name: str | None = None, patience: int = 40) -> None:
        """Let *process* alone go on until it comes to the gate with this name, or has nothing to
        do.
        """
        for _ in range(patience):
            gates = [gate for gate in self.open_gates if gate.process is process]
            if not gates or any(gate.name == name for gate in gates):
                return
            self.open(gates[0])

    @property
    def open_gates(self) -> list[Gate]:
        return [gate for gate in self.gates if gate.process.alive]

    def finish(self) -> None:
        """Whatever has begun comes to its end, step by step."""
        waits = 0
        for _ in range(PATIENCE):
            if gates := self.open_gates:
                self.open(gates[0])
            elif any(process.busy for process in self.living):
                self.advance(1.0 if waits < 100 else 600.0)  # a clock was set back meanwhile
                waits += 1
            else:
                return
        raise AssertionError(f"this never ends: {[call.kind for call in self.calls]}")

    def run(self, user: User, kind: Kind) -> Any:
        """What a call comes to, without a disturbance."""
        call = self.call(user, kind)
        self.finish()
        assert call.over
        return call.outcome

    def run_alone(self, user: User, kind: Kind) -> None:
        """The same, while all other processes stay where they are; as far as they let it."""
        call = self.call(user, kind)
        for _ in range(30):
            self.go_on(user.process)
            if call.over:
                return
            self.advance(1.0)

    def cancel(self, call: Call) -> None:
        """Whoever called does not want to wait any longer."""
        if call.scope is not None:
            self.runner.do(call.scope.cancel)
        self.settle()

    def crash(self, process: Process) -> None:
        process.alive = False
        self.history.append(f"{process} crashes")
        for call in [call for call in self.calls if call.user.process is process]:
            self.calls.remove(call)
        while process in self.refreshing:
            self.refreshing.remove(process)
        self.lost(process)
        self.runner.do(partial(self.turns.bury, process))
        self.runner.do(partial(self.prompting.bury, process))
        self.settle()

    def advance(self, seconds: float, *, asleep: bool = False) -> None:
        """Time passes; monotonic clocks and timers know nothing of it if all are *asleep*."""
        self.history.append(f"{seconds} s pass{' in sleep' if asleep else ''}")
        self._read_clocks()
        self.now += seconds
        if not asleep:
            self.awake += seconds
        self._read_clocks()
        self.runner.advance(0.0 if asleep else seconds)
        self.check()

    def set_clock(self, process: Process, seconds: float) -> None:
        """Somebody sets the wall clock by so much; it is the clock of one host."""
        self.history.append(f"the clock of {process} is set by {seconds} s")
        self.skewed = True
        self._read_clocks()
        process.wall_offset += seconds
        self._read_clocks()

    def _read_clocks(self) -> None:
        for process in self.living:
            process.read_clock()

    def set_mode(self, mode: Mode) -> None:
        faults = {"refresh-no-rotation-field"} if mode == "silent" else set()
        self.server.settings = evolve(
            self.server.settings, rotate=mode == "rotate", faults=frozenset(faults)
        )

    def revoke(self) -> None:
        """The server ends the login that is stored."""
        record = self.stored_record
        family = None if record is None else self.family_of(record)
        if family is not None:
            family.revoked = True
            self._end(family)

    def reject(self, user: User, access_token: str) -> None:
        """A server refuses a token; whether that counts is what the breaker says."""
        held, at = user.session._life.held, user.process.clock.time()
        record = None if held is None else held.record
        jitter = user.session._life._jitter
        user.session.reject(access_token)
        if record is None or record.token.access_token != access_token:
            return
        if may_force(record.forced_at, at, jitter):
            self.history.append(f"{user}: its token is rejected")
            user.rejected.add(access_token)
            user.process.rejected.add(access_token)
        self.check()

    def close(self) -> None:
        for process in self.living:
            process.alive = False
        self.over = True
        for gate in self.gates:
            self.runner.do(gate.event.set)
        for _ in range(3):
            self.runner.advance(3600.0)  # over all deadlines
        self.runner.close()

    # What there is.

    @property
    def living(self) -> list[Process]:
        return [process for process in self.processes if process.alive]

    @property
    def users(self) -> list[User]:
        return [user for process in self.living for user in process.users if not user.closed]

    @property
    def key(self) -> str:
        setup = self.processes[0].users[0].session._life._ready
        assert setup is not None
        return setup.vault.key

    @property
    def stored_record(self) -> Record | None:
        return self.shelf.load_sync(self.key) if self.processes else None

    def refresh_token(self, value: str | None) -> RefreshToken | None:
        return None if value is None else self.server._refresh_tokens.get(value)

    def family_of(self, record: Record) -> Family | None:
        token = self.refresh_token(record.token.refresh_token)
        return None if token is None else token.family

    @property
    def aged(self) -> bool:
        """Whether the login that is stored has been refreshed; so its end is of interest."""
        record = self.stored_record
        family = None if record is None else self.family_of(record)
        return family is not None and not family.revoked and self.refreshed[family] > 0

    def takes(self, record: Record | None) -> bool:
        """Whether the server would refresh *record* now."""
        token = None if record is None else self.refresh_token(record.token.refresh_token)
        if token is None or token.family.revoked or self.now >= token.expires_at:
            return False
        return token.rotated_at is None or self.server._in_grace(token.rotated_at, self.now)

    # What is noted, and what must not be.

    def violated(self, text: str) -> None:
        self.violations.append(text)

    def check(self) -> None:
        self._check_kept()
        assert not self.violations, "\n".join([*self.violations, *self.history[-60:]])

    def _check_kept(self) -> None:
        """Never a live refresh token lost."""
        record = self.stored_record
        stored = None if record is None else record.token.refresh_token
        for family in self.families:
            live = self.refresh_token(family.refresh_token)
            if family.revoked or family in self.ended or live is None:
                continue
            if self.now >= live.expires_at:
                continue
            if stored == family.refresh_token:
                self.excused.pop(family, None)
                continue
            if any(family.refresh_token in process.carrying for process in self.living):
                carriers = [p for p in self.living if family.refresh_token in p.carrying]
                if any(process.busy for process in carriers):
                    continue
            if self.takes(record) or self.excused.get(family, math.inf) <= self.now:
                continue
            self.violated("a live refresh token is lost")

    def _end(self, family: Family) -> None:
        self.ended.add(family)

    def takes_off(self, process: Process, value: str) -> None:
        """A refresh begins."""
        if self.refreshing:
            self.violated(f"{process} refreshes while {self.refreshing[0]} does")
        self.refreshing.append(process)
        record = self.by_refresh_token.get(value)
        if record is None:
            self.violated("a refresh token is sent that was never stored")
            return
        token = record.token
        if token.access_token in process.rejected or process.refused:
            return
        if not self._is_old(process, token):
            self.violated("a token is refreshed that is neither old nor rejected")

    def _is_old(self, process: Process, token: Token) -> bool:
        """Whether *process* has ever had reason to take *token* for that."""
        assert token.expires_at is not None
        leeway = min(LEEWAY, LEEWAY_SHARE * (token.expires_at - token.obtained_at))
        ageing = token.expires_at - leeway * (1 + JITTER)
        return any(at >= ageing or token.obtained_at > at + SKEW for _, at in process.readings)

    def serve(self, process: Process, request: Request, spent: str | None) -> Response:
        """What the server says, and does."""
        token = self.refresh_token(spent)
        family = None if token is None else token.family
        over = (
            token is None
            or token.family.revoked
            or token.family in self.ended
            or self.now >= token.expires_at
            or self.excused.get(token.family, math.inf) <= self.now
        )
        response = self.plane.handle(request, self.now)
        try:
            body = json.loads(response.body)
        except ValueError:
            body = {}
        if spent is not None and body.get("error") == "invalid_grant":
            if not over:
                self.violated("a refresh token is sent that was spent before")
            if family is not None and family.revoked:
                self._end(family)
        if "access_token" in body:
            if family is not None:
                self.refreshed[family] += 1
            process.issued.add(body["access_token"])
            new = body.get("refresh_token")
            issued = self.refresh_token(new)
            if issued is not None:
                self.families[issued.family] = None
                process.carrying[new] = issued.family
        return response

    def delivered(self, process: Process, response: Response, spent: str | None) -> None:
        if spent is not None and b"invalid_grant" in response.body:
            process.refused.add(spent)

    def lost(self, process: Process) -> None:
        """What *process* had in hand, nobody has: nothing but the server's grace can help."""
        for value, family in process.carrying.items():
            record = self.stored_record
            if record is not None and record.token.refresh_token == value:
                continue
            self.excused[family] = self.now
            for token in self.server._refresh_tokens.values():
                if token.family is family and token.rotated_at is not None:
                    over = token.rotated_at + self.server.settings.grace
                    self.excused[family] = max(self.excused[family], over)
        process.carrying.clear()

    def revoking(self, process: Process, value: str) -> None:
        token = self.refresh_token(value)
        if token is None:
            return
        record = self.stored_record
        stored = None if record is None else self.family_of(record)
        if token.family is stored and not self._logs_out(process):
            self.violated(f"{process} revokes the login that is stored")
        self._end(token.family)

    def _logs_out(self, process: Process) -> bool:
        return any(call.kind == "logout" for user in process.users for call in user.calls)

    def storing(self, process: Process, record: Record) -> None:
        """A login replaces whatever is there."""
        there = self.stored_record
        old = None if there is None else self.family_of(there)
        if old is not None and old is not self.family_of(record):
            self._end(old)

    def swapped(self, process: Process, old: Record | None, new: Record) -> None:
        process.refreshed += 1
        if old is None:
            return
        if new.token.refresh_token is None:
            self._refusing(process, old)
        elif self.family_of(old) is not self.family_of(new):
            self.violated("a refresh puts another login in place")
        elif (
            old.token.access_token in process.rejected - {new.token.access_token}
            and new.forced_at is None
            and not self._is_old(process, old.token)
        ):
            self.violated("a refresh that a rejection has brought about is not noted")

    def stored(self, process: Process, record: Record) -> None:
        token = record.token
        if token.refresh_token is None:
            return
        if token.access_token not in process.issued:
            self.violated(f"{process} stores a token that it was not given")
        if self.family_of(record) in self.logged_out:
            self.violated(f"{process} brings back a login that somebody has logged out of")
        self.records[token.access_token] = record
        self.by_refresh_token[token.refresh_token] = record
        for other in self.processes:
            other.carrying.pop(token.refresh_token, None)

    def deleting(self, process: Process) -> None:
        record = self.stored_record
        if record is None:
            return
        family = self.family_of(record)
        if self._logs_out(process):
            if family is not None:
                self._end(family)
                self.logged_out.add(family)
        else:
            self._refusing(process, record)

    def _refusing(self, process: Process, record: Record) -> None:
        if record.token.refresh_token not in process.refused:
            self.violated(f"{process} deletes a login that the server has not refused")

    def shown(self, user: User, event: AuthEvent) -> None:
        if not isinstance(event, CodeNeeded | BrowserNeeded):
            return
        self.prompts += 1
        asked = any(call.kind == "login" for call in user.calls)
        first = user.interactive and not user.got and bool(user.calls)
        if not asked and not first:
            self.violated(f"{user} asks a person, and nobody wanted it")
        if self.prompting.holder() is not user.process:
            self.violated("two programs ask a person at once")
        muted = self.muted_at is not None and self.now - self.muted_at < MUTE - 1
        if muted and not asked and not self.skewed:
            self.violated("a person is asked again soon after having said nothing")
        if isinstance(event, CodeNeeded):
            if user.answer == "yes":
                self.plane.approve(event.user_code)
            elif user.answer == "no":
                self.plane.deny(event.user_code)

    def judge(self, call: Call) -> None:
        """Whether what a call came to is right."""
        user, outcome = call.user, call.outcome
        if call.kind == "close":
            user.closed = True
            return
        match outcome:
            case Token():
                self._handed_out(call, outcome.access_token)
            case Mapping() if call.kind == "headers":
                self._handed_out(call, next(iter(outcome.values())).removeprefix("Bearer "))
            case ReauthRequired():
                stored, mine = self.stored_record, self.records.get(call.last or "")
                family = None if stored is None else self.family_of(stored)
                same = mine is not None and family is self.family_of(mine)
                if same and self.takes(stored) and family not in self.ended:
                    self.violated(f"{user}: the login is said to be over, and it is not")
            case Expired() | OAuth2Error(error="access_denied"):
                self.muted_at = self.now
            case Error():
                pass
            case Exception():
                self.violated(f"{user}: {call.kind} raises {outcome!r}")
        if call.kind == "login" and isinstance(outcome, Token):
            self.muted_at = None
        if call.kind != "logout":
            return
        if not isinstance(outcome, Error):
            user.rejected.clear()

    def _handed_out(self, call: Call, access_token: str) -> None:
        user, process = call.user, call.user.process
        user.got, user.last = True, access_token
        record = self.records.get(access_token)
        if record is None:
            self.violated("a token is handed out that is not stored")
            return
        if access_token in call.rejected:
            self.violated(f"{user}: a rejected token is handed out again")
        expires_at = record.token.expires_at
        assert expires_at is not None
        process.read_clock()
        if process.refreshed >= call.refreshed + (1 if call.joins else 2):
            return  # what it got was old when it came, and so was the next
        # The fast path looks at the wall clock once per glance.
        since = self.awake - GLANCE if call.fast else math.inf
        glances = [process.time(), *(at for mono, at in process.readings if mono >= since)]
        if min(glances) >= expires_at:
            self.violated(f"{user}: an expired token is handed out")
        if access_token in call.known and max(call.at, *glances) < record.token.obtained_at - SKEW:
            self.violated(f"{user}: a token from the future is handed out")

    def end(self) -> None:
        """With a healthy server, everybody goes on."""
        self.faults.clear()
        self.finish()
        for user in self.users:
            self.advance(1.0)  # so that no failure of before is still the latest news
            user.answer = "yes"
            outcome: object = None
            for _ in range(3):
                alive = self.takes(self.stored_record)
                outcome = self.run(user, "token")
                if isinstance(outcome, Token):
                    break
                if not alive and isinstance(outcome, ReauthRequired | InteractionRequired):
                    break
            else:
                raise AssertionError(f"{user} does not go on: {outcome!r}")
