"""
The whole lifetime of a login, among several processes, over anything that may happen to it.

Hypothesis draws what happens, one gate at a time (see ``processes``): sessions are used, processes
start and crash, clocks are set, everybody sleeps, the network fails, the server rotates refresh
tokens or does not, revokes, and people log in and out. After each step there are never two
refreshes in flight, no live refresh token is lost, no expired or rejected token is handed out, and
nobody is asked who did not want to be.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flyteauth._sansio.tokens import Token
from flyteauth.errors import ReauthRequired

from .processes import (
    FAULTS,
    RUNNERS,
    Answer,
    Fault,
    Kind,
    Mode,
    Process,
    User,
    World,
    determined,
    disk,
)

PROCESSES_MAX = 3
STEPS = 40
# With Phase.shrink, what is found becomes short, after some minutes.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]

numbers = st.integers(0, 7)
kinds: st.SearchStrategy[Kind] = st.sampled_from(["headers", "token", "headers"])
modes: st.SearchStrategy[Mode] = st.sampled_from(["rotate", "keep", "silent"])
faults: st.SearchStrategy[Fault] = st.sampled_from(FAULTS)
places = st.sampled_from(
    [
        None,
        "loaded",
        "take the turn",
        "send refresh_token",
        "answer refresh_token",
        "swap",
        "swapped",
        "save",
        "delete",
        "turn over",
        "the end",
    ]
)
between: st.SearchStrategy[Any] = st.sampled_from(
    ["login", "logout", "token", "wait", "cancel", "crash"]
)
answers: st.SearchStrategy[Answer] = st.sampled_from(["yes", "no", "never"])
# A glance, a pause, the leeway, the breaker, a token's life, a deadline; and a long while.
spans = st.sampled_from([0.125, 0.5, 2.0, 15.0, 31.0, 45.0, 60.0, 85.0, 120.0, 200.0, 3600.0])
steps_of_clocks = st.sampled_from([-7200.0, -90.0, -30.0, 30.0, 90.0, 7200.0, 3.2e8])


class Lifetime(RuleBasedStateMachine):
    backend: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.world: World
        self._determined = determined()
        self._determined.__enter__()

    def teardown(self) -> None:
        # Not where something else has ended the example: its outcome would be lost.
        undisturbed = sys.exc_info()[0] is None
        try:
            if undisturbed and hasattr(self, "world"):
                self.world.end()
        finally:
            if hasattr(self, "world"):
                self.world.close()
            self._determined.__exit__(None, None, None)

    def user(self, number: int) -> User:
        users = self.world.users
        return users[number % len(users)]

    @initialize(
        grace=st.sampled_from([0.0, 0.0, 60.0]),
        mode=modes,
        refresh_ttl=st.sampled_from([24 * 3600.0, 24 * 3600.0, 500.0]),
        sessions=st.lists(st.integers(1, 2), min_size=1, max_size=2),
    )
    def begin(self, grace: float, mode: Mode, refresh_ttl: float, sessions: list[int]) -> None:
        """Somebody has logged in, and everybody has a token."""
        self.world = World(self.backend, grace=grace, mode=mode, refresh_ttl=refresh_ttl)
        for count in sessions:
            self.world.start_process(*[False] * count)
        assert isinstance(self.world.run(self.user(0), "login"), Token)
        for user in self.world.users:
            assert isinstance(self.world.run(user, "token"), Token)

    # Who is there, and what they do, and how far they come at first.

    @precondition(lambda self: len(self.world.living) < PROCESSES_MAX)
    @rule(interactive=st.lists(st.booleans(), min_size=1, max_size=2))
    def start(self, interactive: list[bool]) -> None:
        self.world.start_process(*interactive)

    @precondition(lambda self: self.world.users)
    @rule(number=numbers, kind=kinds, place=places)
    def use(self, number: int, kind: Kind, place: str | None) -> None:
        self.call(self.user(number), kind, place)

    @precondition(lambda self: self.world.users)
    @rule(number=numbers, kind=kinds)
    def use_alone(self, number: int, kind: Kind) -> None:
        self.world.run_alone(self.user(number), kind)

    @precondition(lambda self: self.world.users)
    @rule(kind=kinds)
    def use_everywhere_when_it_is_old(self, kind: Kind) -> None:
        self.world.advance(120.0)
        for user in self.world.users:
            self.world.call(user, kind)

    @precondition(lambda self: self.world.users)
    @rule(number=numbers)
    def reject(self, number: int) -> None:
        user = self.user(number)
        if user.last is not None:
            self.world.reject(user, user.last)

    @precondition(lambda self: self.world.users)
    @rule(number=numbers, answer=answers, place=places)
    def login(self, number: int, answer: Answer, place: str | None) -> None:
        user = self.user(number)
        user.answer = answer
        self.call(user, "login", place)

    @precondition(lambda self: self.world.users)
    @rule(number=numbers)
    def login_alone(self, number: int) -> None:
        user = self.user(number)
        user.answer = "yes"
        self.world.run_alone(user, "login")

    @precondition(lambda self: self.world.users and self.world.aged)
    @rule(number=numbers, place=places)
    def logout(self, number: int, place: str | None) -> None:
        self.call(self.user(number), "logout", place)

    @precondition(lambda self: self.world.calls)
    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        self.world.cancel(self.world.calls[number % len(self.world.calls)])

    @precondition(lambda self: len(self.world.users) > 2)
    @rule(number=numbers)
    def leave(self, number: int) -> None:
        user = self.user(number)
        if not user.calls:
            user.closed = True
            self.world.call(user, "close")

    def call(self, user: User, kind: Kind, place: str | None) -> None:
        self.world.call(user, kind)
        if place is not None:
            self.world.go_on(user.process, place)

    @precondition(lambda self: self.world.users)
    @rule(first=numbers, place=places, over=st.booleans(), second=numbers, what=between)
    def come_between(
        self, first: int, place: str | None, over: bool, second: int, what: str
    ) -> None:
        """One process has come so far with its refresh; then another does something."""
        user, other = self.user(first), self.user(second)
        if over and self.world.aged:
            self.world.revoke()
        self.world.advance(120.0)
        self.call(user, "headers", place)
        match what:
            case "login" | "logout" | "token":
                other.answer = "yes"
                self.world.run_alone(other, what)
            case "wait":
                self.world.advance(200.0)
            case "cancel":
                for call in list(user.calls):
                    self.world.cancel(call)
            case "crash":
                self.world.crash(user.process)

    @precondition(lambda self: self.world.users)
    @rule(number=numbers)
    def reject_again_and_again(self, number: int) -> None:
        user = self.user(number)
        for _ in range(3):
            if user.last is not None:
                self.world.reject(user, user.last)
            self.world.run_alone(user, "token")

    # How far they come then.

    @precondition(lambda self: self.world.open_gates)
    @rule(number=numbers)
    def open(self, number: int) -> None:
        gates = self.world.open_gates
        self.world.open(gates[number % len(gates)])

    @precondition(lambda self: self.world.open_gates)
    @rule(number=numbers, place=places)
    def go_on(self, number: int, place: str | None) -> None:
        gates = self.world.open_gates
        gate = gates[number % len(gates)]
        self.world.open(gate)
        self.world.go_on(gate.process, place)

    @precondition(lambda self: self.world.calls or self.world.open_gates)
    @rule()
    def finish(self) -> None:
        self.world.finish()

    @precondition(lambda self: self.world.open_gates)
    @rule(number=numbers)
    def crash(self, number: int) -> None:
        gates = self.world.open_gates
        self.world.crash(gates[number % len(gates)].process)

    # What happens to them.

    @rule(seconds=spans, asleep=st.booleans())
    def pass_time(self, seconds: float, asleep: bool) -> None:
        self.world.advance(seconds, asleep=asleep)

    @precondition(lambda self: self.world.living)
    @rule(number=numbers, seconds=steps_of_clocks)
    def set_clock(self, number: int, seconds: float) -> None:
        living = self.world.living
        self.world.set_clock(living[number % len(living)], seconds)

    @rule(fault=faults, count=st.sampled_from([1, 3]))
    def disturb(self, fault: Fault, count: int) -> None:
        """What becomes of the next requests."""
        self.world.faults = [fault] * count

    @rule(mode=modes)
    def rotate(self, mode: Mode) -> None:
        self.world.set_mode(mode)

    @precondition(lambda self: self.world.aged)
    @rule()
    def revoke(self) -> None:
        self.world.revoke()


class LifetimeOnAsyncio(Lifetime):
    backend = "asyncio"


class LifetimeOnTrio(Lifetime):
    backend = "trio"


@pytest.mark.req("CLK-02", "CLK-03", "CLK-06", "REF-02", "REF-03", "REF-04", "REF-05", "REF-06")
@pytest.mark.req("REF-07", "REF-08", "REF-09", "REF-10", "REF-12", "REF-13", "BRR-08", "BRR-11")
@pytest.mark.parametrize(("machine", "examples"), [(LifetimeOnAsyncio, 300), (LifetimeOnTrio, 80)])
def test_a_login_survives_whatever_happens(machine: type[Lifetime], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=STEPS, phases=PHASES),
    )


# All places at which one refresh can end, in turn.


@contextmanager
def a_world(backend: str, **arguments: Any) -> Iterator[World]:
    with determined():
        world = World(backend, **arguments)
        try:
            yield world
        finally:
            world.close()


def stop_after(world: World, process: Process, steps: int) -> bool:
    """Let *process* do so much, and crash it; False if it has nothing more to do by then."""
    for _ in range(steps):
        gates = [gate for gate in world.open_gates if gate.process is process]
        if not gates:
            return False
        world.open(gates[0])
    world.crash(process)
    return True


@pytest.mark.req("REF-04", "REF-06")
@pytest.mark.parametrize("waits", [False, True], ids=["comes later", "waits already"])
@pytest.mark.parametrize("place", ["memory", "disk"])
@pytest.mark.parametrize("grace", [0.0, 60.0])
@pytest.mark.parametrize("backend", RUNNERS)
def test_a_process_that_crashes_in_its_refresh_takes_nobody_with_it(
    backend: str, grace: float, place: str, waits: bool, tmp_path: Path
) -> None:
    """Only between the server's answer and the store's write there is nothing that a client could
    do: the old refresh token is spent, and the new one nowhere. A server's grace is for that.
    """
    lost = 0
    for steps in itertools.count():
        shelf = disk(tmp_path / str(steps)) if place == "disk" else None
        with a_world(backend, grace=grace, shelf=shelf) as world:
            process, other = world.start_process(), world.start_process()
            user, heir = process.users[0], other.users[0]
            world.run(user, "login")
            world.run(heir, "headers")
            world.advance(120.0)
            world.call(user, "headers")
            call = world.call(heir, "headers") if waits else None
            if not stop_after(world, process, steps):
                break
            spent_in_vain = not world.takes(world.stored_record)
            world.finish()
            outcome = world.run(heir, "headers") if call is None else call.outcome
            if spent_in_vain:
                lost += 1
                assert isinstance(outcome, ReauthRequired)
            else:
                assert isinstance(outcome, Mapping)
                world.advance(120.0)
                assert isinstance(world.run(heir, "headers"), Mapping)
            assert world.prompts == 1
    assert lost == (0 if grace else 2)  # before the answer arrives, and before it is written
    assert steps > 8


# What the machine has found, and what it seldom comes to, by name.


def let_go_on(world: World, process: Process, name: str) -> None:
    """*process* comes to the gate *name*, and stops there."""
    world.go_on(process, name)
    assert [gate.name for gate in world.open_gates if gate.process is process] == [name]


def a_login_of(world: World, *sessions: bool) -> tuple[Process, list[User]]:
    process = world.start_process(*sessions)
    world.run(process.users[0], "login")
    return process, process.users


def clock_that_is_set_back(world: World) -> None:
    """A clock runs ahead and is corrected: the next refresh is not of a token that was spent."""
    process, (user,) = a_login_of(world)
    world.set_clock(process, 7200.0)
    world.run(user, "token")
    world.set_clock(process, -7200.0)
    world.run(world.start_process().users[0], "token")
    world.run(user, "token")


def hosts_whose_clocks_differ(world: World) -> None:
    """What another host has made of a login is not older because its clock is slower."""
    process = world.start_process()
    world.set_clock(process, 90.0)
    world.run(process.users[0], "login")
    world.run(world.start_process().users[0], "token")
    world.advance(200.0)
    world.run(process.users[0], "token")


def deadline_before_the_write(world: World) -> None:
    """A process is suspended between the answer and the write, for longer than a refresh may take:
    when it goes on, it writes.
    """
    process, (user,) = a_login_of(world)
    world.advance(120.0)
    world.call(user, "headers")
    let_go_on(world, process, "swap")
    world.advance(200.0)
    world.finish()


def deadline_before_the_write_of_a_login(world: World) -> None:
    """The same for what a person has just approved."""
    process = world.start_process()
    world.call(process.users[0], "login")
    while not any(gate.name == "save" for gate in world.open_gates):
        world.go_on(process, "save")
        world.advance(1.0)
    world.advance(200.0)
    world.finish()


def prompt_after_an_ageing_token(world: World) -> None:
    """Whoever had a token, be it an ageing one, is not asked any more."""
    a_login_of(world)
    user = world.start_process(True).users[0]
    world.advance(90.0)
    world.call(user, "headers")
    world.go_on(user.process, "send refresh_token")
    assert user.got
    world.revoke()
    world.finish()
    assert isinstance(world.run(user, "headers"), ReauthRequired)


def rejected_while_another_session_renews(world: World) -> None:
    """A renewal that another session began does not hand a rejected token out again."""
    process, (user, other) = a_login_of(world, False, False)
    world.run(other, "headers")
    world.advance(120.0)
    world.run(world.start_process().users[0], "headers")
    world.run(user, "headers")  # has the new one; the other session still the old one
    world.call(other, "headers")
    let_go_on(world, process, "loaded")
    assert user.last is not None
    world.reject(user, user.last)
    world.run(user, "headers")


def rejected_and_read_again(world: World) -> None:
    """A token whose login is over is not handed out again because it is still stored."""
    _, (user,) = a_login_of(world)
    assert user.last is not None
    world.revoke()
    world.reject(user, user.last)
    user.answer = "never"
    world.call(user, "login")
    world.call(user, "headers")
    world.finish()
    world.run(user, "headers")


def dead_on_arrival(world: World) -> None:
    """A token that has expired before it arrives is not handed out; the next one is."""
    process, (user,) = a_login_of(world)
    world.advance(120.0)
    world.call(user, "headers")
    let_go_on(world, process, "answer refresh_token")
    world.advance(3600.0, asleep=True)
    world.finish()


def login_replaced_during_a_look(world: World) -> None:
    """What a process remembers does not replace a login that was made meanwhile elsewhere."""
    process, (user,) = a_login_of(world)
    world.set_clock(process, 7200.0)
    world.run(user, "token")
    a_login_of(world)
    world.advance(120.0)
    world.run(user, "token")


def logout_elsewhere(world: World) -> None:
    """Another process has logged out, and could not tell the server: nobody goes on."""
    _, (user,) = a_login_of(world)
    other = world.start_process().users[0]
    world.run(other, "token")
    world.faults = ["connect"] * 10
    world.run(user, "logout")
    world.faults.clear()
    world.advance(120.0)
    assert isinstance(world.run(other, "token"), ReauthRequired)


def logout_before_the_turn(world: World) -> None:
    """The same in the middle of a refresh of the same session."""
    process, (user,) = a_login_of(world)
    world.advance(120.0)
    call = world.call(user, "headers")
    let_go_on(world, process, "take the turn")
    world.faults = ["connect"] * 10
    renewal = world.open_gates[0]
    world.call(user, "logout")
    while gates := [gate for gate in world.open_gates if gate is not renewal]:
        world.open(gates[0])
    world.faults.clear()
    world.finish()
    assert isinstance(call.outcome, ReauthRequired)


def login_during_a_refusal(world: World) -> None:
    """Somebody logs in elsewhere while the server refuses our refresh: we go on with that login."""
    process, (user,) = a_login_of(world)
    other = world.start_process().users[0]
    world.advance(120.0)
    world.revoke()
    call = world.call(user, "headers")
    let_go_on(world, process, "answer refresh_token")
    world.run_alone(other, "login")
    world.finish()
    assert isinstance(call.outcome, Mapping)


def offer_of_a_glance(world: World) -> None:
    """What is handed out at once is looked at again before it is too old."""
    _, (user,) = a_login_of(world)
    for _ in range(9):
        world.advance(45.0, asleep=True)
        world.advance(2.0)
        world.run(user, "headers")


SCENES = [
    clock_that_is_set_back,
    hosts_whose_clocks_differ,
    login_replaced_during_a_look,
    deadline_before_the_write,
    deadline_before_the_write_of_a_login,
    prompt_after_an_ageing_token,
    rejected_while_another_session_renews,
    rejected_and_read_again,
    logout_elsewhere,
    logout_before_the_turn,
    dead_on_arrival,
    login_during_a_refusal,
    offer_of_a_glance,
]


@pytest.mark.req("CLK-02", "REF-04", "REF-12", "BRR-07")
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
@pytest.mark.parametrize("backend", RUNNERS)
def test_what_the_machine_has_found(backend: str, scene: Callable[[World], None]) -> None:
    with a_world(backend) as world:
        scene(world)
        world.end()
