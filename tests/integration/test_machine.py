"""What the programs of one machine tell each other: prompts, failures, discovery."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from flyteauth import _login
from flyteauth._io.flights import Flights
from flyteauth._io.store import Store
from flyteauth._io.store.fallback import Elsewhere
from flyteauth._io.store.file import FileStore
from flyteauth._io.store.memory import MemoryStore
from flyteauth._lifetime import RETRY_AFTER
from flyteauth._machine import MUTE, MUTE_BROKEN_OFF, TARGET_AGE_MAX
from flyteauth._sansio.flow import RequestFailed
from flyteauth._sansio.record import Record
from flyteauth._sansio.renewal import BREAKER
from flyteauth.devserver.model import ControlPlane
from flyteauth.errors import (
    Expired,
    InteractionRequired,
    OAuth2Error,
    ReauthRequired,
    StoreError,
    Unreachable,
)
from flyteauth.events import AuthEvent, CodeNeeded, LoggedIn, Warned
from flyteauth.session import Session, Token
from tests.concurrency import all_at_once

from .plane import Person, Plane

pytestmark = pytest.mark.anyio

LIMIT = 20.0
METADATA = "/flyteidl2.auth.AuthMetadataService/GetOAuth2Metadata"


class Passive(Person):
    """Sees every prompt, and does nothing until told to."""

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__(plane)
        self.prompted = anyio.Event()
        self.react: Callable[[str], object] | None = None

    async def show(self, event: AuthEvent) -> None:
        self.seen.append(event)
        if isinstance(event, CodeNeeded):
            self.prompted.set()
            if self.react is not None:
                self.react(event.user_code)


class Machine:
    """Programs with a home in common; each has its own flights, as processes have."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.plane = Plane(**{"approve": "page", **settings})
        self._home = home / "machine"
        self.people: list[Passive] = []

    def program(self, **arguments: Any) -> Session:
        person = Passive(self.plane.plane)
        self.people.append(person)
        store: Store = arguments.pop("store", None) or FileStore(self._home / "logins")
        return self.plane.session(
            store=store,
            presenter=person,
            directory=self._home,
            flights=Flights(),
            **{"interactive": lambda: True, **arguments},
        )

    def notes(self, text: str) -> list[Path]:
        """Those that hold *text*."""
        return [path for path in (self._home / "notes").iterdir() if text in path.read_text()]

    @property
    def prompts(self) -> int:
        return sum(person.saw(CodeNeeded) for person in self.people)


@pytest.fixture
def machine(home: Path) -> Machine:
    return Machine(home, access_ttl=100.0)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what other programs do, whose locks and files are real."""
    with anyio.fail_after(LIMIT):
        while not condition():  # noqa: ASYNC110  # nobody else tells
            await anyio.sleep(0.001)


async def outcome(function: Callable[[], Awaitable[Any]]) -> Any:
    (result,) = await all_at_once(1, function)
    return result


# One prompt.


@pytest.mark.req("REF-05", "REF-06")
async def test_any_number_of_programs_wait_for_one_prompt(machine: Machine) -> None:
    programs = [machine.program() for _ in range(4)]
    machine.plane.before = gate = Gate("urn:ietf:params:oauth:grant-type:device_code")
    tokens: list[Any] = []

    async def use(program: Session) -> None:
        tokens.append(await program.token())

    async with anyio.create_task_group() as group:
        for program in programs:
            for _ in range(8):
                group.start_soon(use, program)
        await until(
            lambda: machine.prompts and sum(person.saw(Warned) for person in machine.people) == 3
        )
        (asked,) = (e for p in machine.people for e in p.seen if isinstance(e, CodeNeeded))
        machine.plane.plane.approve(asked.user_code)
        gate.open.set()
    assert len({token.access_token for token in tokens}) == 1
    assert machine.prompts == 1
    for program in programs:
        await program.aclose()


async def test_a_program_that_is_ended_over_its_prompt_mutes_the_next_for_a_minute(
    machine: Machine,
) -> None:
    first, second = machine.program(), machine.program()
    machine.plane.before = Gate("urn:ietf:params:oauth:grant-type:device_code")
    async with anyio.create_task_group() as group, first, second:
        group.start_soon(outcome, first.token)
        await machine.people[0].prompted.wait()
        machine.plane.before = None
        group.cancel_scope.cancel()
    machine.people[1].react = machine.plane.plane.approve
    with pytest.raises(InteractionRequired, match="run: flyteauth login"):
        await second.token()
    assert machine.prompts == 1
    machine.plane.clock.now += MUTE_BROKEN_OFF
    assert await second.token()
    assert machine.prompts == 2
    await second.aclose()


async def test_a_login_asked_for_by_name_goes_on_where_another_was_broken_off(
    machine: Machine,
) -> None:
    first, second = machine.program(), machine.program()
    machine.plane.before = Gate("urn:ietf:params:oauth:grant-type:device_code")
    machine.people[1].react = machine.plane.plane.approve
    results: list[Any] = []

    async def log_in() -> None:
        results.append(await outcome(second.login))

    async with anyio.create_task_group() as waiting, anyio.create_task_group() as asking:
        asking.start_soon(outcome, first.token)
        await machine.people[0].prompted.wait()
        waiting.start_soon(log_in)
        await until(lambda: machine.people[1].saw(Warned))
        machine.plane.before = None
        asking.cancel_scope.cancel()
    assert isinstance(results[0], Token)
    assert machine.prompts == 2
    for program in (first, second):
        await program.aclose()


@pytest.mark.req("REF-12")
async def test_nobody_there_is_interaction_required_at_once_while_another_program_asks(
    machine: Machine,
) -> None:
    first, second = machine.program(), machine.program(interactive=False)
    machine.plane.before = Gate("urn:ietf:params:oauth:grant-type:device_code")
    async with first, second, anyio.create_task_group() as group:
        group.start_soon(outcome, first.token)
        await machine.people[0].prompted.wait()
        with pytest.raises(InteractionRequired, match="flyteauth login"):
            await second.token()
        group.cancel_scope.cancel()


# The prompt budget.


async def test_an_ignored_prompt_mutes_all_programs_for_a_while(machine: Machine) -> None:
    first, second = machine.program(), machine.program()
    async with first, second:
        with pytest.raises(Expired):
            await first.token()
        assert machine.prompts == 1
        for program in (first, second):
            with pytest.raises(InteractionRequired, match="run: flyteauth login") as caught:
                await program.token()
            assert caught.value.reason == "muted"
        assert machine.prompts == 1
        machine.plane.clock.now += MUTE
        machine.people[1].react = machine.plane.plane.approve
        assert await second.token()


@pytest.mark.parametrize("answer", ["none", "no", "broken off"])
async def test_what_a_person_begins_afterwards_asks_again(
    machine: Machine, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_login, "person_present", lambda: True)
    first, second = machine.program(), machine.program()
    machine.people[0].react = machine.plane.plane.deny if answer == "no" else None
    if answer == "broken off":
        machine.plane.before = Gate("urn:ietf:params:oauth:grant-type:device_code")
    async with first, anyio.create_task_group() as group:
        group.start_soon(outcome, first.token)
        await machine.people[0].prompted.wait()
        if answer == "broken off":
            group.cancel_scope.cancel()
    machine.plane.before = None
    machine.plane.clock.now += 1.0
    third = machine.program()
    machine.people[2].react = machine.plane.plane.approve
    async with second, third:
        with pytest.raises(InteractionRequired) as caught:
            await second.token()
        assert caught.value.reason == "muted"
        assert await third.token()
    assert machine.prompts == 2


@pytest.mark.parametrize("present", [False, True])
async def test_nobody_begins_a_program_that_no_terminal_and_no_notebook_is_there_for(
    machine: Machine, present: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_login, "person_present", lambda: present)
    async with machine.program() as first:
        with pytest.raises(Expired):
            await first.token()
    machine.plane.clock.now += 1.0
    async with machine.program() as second:
        with pytest.raises(Expired if present else InteractionRequired):
            await second.token()
    assert machine.prompts == 1 + present


async def test_a_refused_prompt_counts_as_an_answer_nobody_wants_to_repeat(
    machine: Machine,
) -> None:
    first, second = machine.program(), machine.program()
    machine.people[0].react = machine.plane.plane.deny
    async with first, second:
        with pytest.raises(OAuth2Error, match="access_denied"):
            await first.token()
        with pytest.raises(InteractionRequired):
            await second.token()
    assert machine.prompts == 1


async def test_who_waited_for_a_prompt_that_was_ignored_does_not_prompt_again(
    machine: Machine,
) -> None:
    first, second = machine.program(), machine.program()
    machine.plane.before = gate = Gate("urn:ietf:params:oauth:grant-type:device_code")
    results: list[Any] = []

    async def use(program: Session) -> None:
        results.append(await outcome(program.token))

    async with first, second, anyio.create_task_group() as group:
        group.start_soon(use, first)
        await machine.people[0].prompted.wait()
        group.start_soon(use, second)
        await until(lambda: machine.people[1].saw(Warned))
        gate.open.set()
    assert sorted(type(result).__name__ for result in results) == ["Expired", "InteractionRequired"]
    assert machine.prompts == 1


async def test_a_login_that_is_asked_for_by_name_is_never_muted_and_ends_the_silence(
    machine: Machine,
) -> None:
    first, second = machine.program(), machine.program()
    async with first, second:
        with pytest.raises(Expired):
            await first.token()
        machine.people[0].react = machine.plane.plane.approve
        assert await first.login()
        assert (await first.logout()).local_deleted
        machine.people[1].react = machine.plane.plane.approve
        assert await second.token()
    assert machine.prompts == 3


async def test_without_a_home_each_program_is_on_its_own(home: Path) -> None:
    (home / "machine").write_text("not a directory")
    machine = Machine(home, access_ttl=100.0)
    program = machine.program(token_store=None)
    machine.people[0].react = machine.plane.plane.approve
    async with program:
        with pytest.raises(Exception, match="logins"):  # the store was named, and cannot be used
            await program.login()
    assert machine.prompts == 0


class Gate:
    """Holds requests of one kind back until it is opened."""

    def __init__(self, name: str) -> None:
        self._name = name.rpartition(":")[2]
        self.reached = anyio.Event()
        self.open = anyio.Event()
        self.failure: Callable[[], RequestFailed] | None = None

    async def __call__(self, name: str) -> RequestFailed | None:
        if name != self._name:
            return None
        self.reached.set()
        await self.open.wait()
        return None if self.failure is None else self.failure()


# A failure is shared.


@pytest.mark.req("REF-05", "REF-09", "REF-11")
async def test_programs_that_wait_for_a_refresh_share_its_failure(machine: Machine) -> None:
    first, second, third = (machine.program() for _ in range(3))
    machine.people[0].react = machine.plane.plane.approve
    async with first, second, third:
        await first.login()
        assert await second.token() == await third.token()
        machine.plane.clock.now += 200
        machine.plane.before = gate = Gate("refresh_token")
        gate.failure = machine.plane.down
        results: list[Any] = []

        async def use(program: Session) -> None:
            results.append(await outcome(program.token))

        async with anyio.create_task_group() as group:
            group.start_soon(use, first)
            await gate.reached.wait()
            group.start_soon(use, second)
            group.start_soon(use, third)
            await anyio.sleep(0.05)  # whichever comes later begins anew: not what is shown here
            gate.open.set()
        assert all(isinstance(result, Unreachable) for result in results)
        assert len({str(result) for result in results}) == 1
        assert {result.retry_after for result in results} == {RETRY_AFTER}
        assert "try again in 5 s" in str(results[0])
        assert machine.plane.asked["refresh_token"] == 3  # the attempts of one refresh
        machine.plane.before = None
        machine.plane.clock.now += 1
        assert await second.token()


@pytest.mark.req("REF-06", "REF-07")
async def test_programs_share_a_refresh_and_its_outcome(machine: Machine) -> None:
    programs = [machine.program() for _ in range(5)]
    machine.people[0].react = machine.plane.plane.approve
    await programs[0].login()
    for program in programs:
        assert await program.token()
    machine.plane.clock.now += 200
    tokens: list[Any] = []

    async def use(program: Session) -> None:
        tokens.append(await program.token())

    async with anyio.create_task_group() as group:
        for program in programs:
            group.start_soon(use, program)
    assert len(set(tokens)) == 1
    assert machine.plane.asked["refresh_token"] == 1
    for program in programs:
        await program.aclose()


async def test_a_logout_by_another_program_ends_a_refresh_in_flight(machine: Machine) -> None:
    first, second = machine.program(interactive=False), machine.program()
    machine.people[1].react = machine.plane.plane.approve
    async with first, second:
        await second.login()
        assert await first.token()
        machine.plane.clock.now += 200
        machine.plane.before = gate = Gate("refresh_token")
        results: list[Any] = []

        async def use() -> None:
            results.append(await outcome(first.token))

        async with anyio.create_task_group() as group:
            group.start_soon(use)
            await gate.reached.wait()
            await second.logout()
            gate.open.set()
        assert isinstance(results[0], ReauthRequired)
    another = machine.program(interactive=False)
    async with another:
        with pytest.raises(InteractionRequired):
            await another.token()


# The breaker.


@pytest.mark.req("BRR-07", "CLK-05")
async def test_a_server_that_rejects_everything_sees_two_calls_and_one_refresh(
    machine: Machine,
) -> None:
    program = machine.program()
    machine.people[0].react = machine.plane.plane.approve
    async with program:
        await program.login()
        calls = 0

        async def call() -> bool:
            """A client as it should be: one more try, if there is another token."""
            nonlocal calls
            for _ in range(2):
                headers = await program.headers()
                calls += 1
                program.reject(headers["authorization"].removeprefix("Bearer "))
                if await program.headers() == headers:
                    return False
            return False

        for _ in range(20):
            before = calls
            await call()
            assert calls - before <= 2
        assert machine.plane.asked["refresh_token"] == 1
        machine.plane.clock.now += 2 * BREAKER
        await call()
        assert machine.plane.asked["refresh_token"] == 2


@pytest.mark.req("BRR-07")
async def test_the_breaker_holds_for_all_programs_of_an_identity(machine: Machine) -> None:
    programs = [machine.program() for _ in range(4)]
    machine.people[0].react = machine.plane.plane.approve
    await programs[0].login()
    for _ in range(3):
        for program in programs:
            token = await program.token()
            assert token is not None
            program.reject(token.access_token)
    for program in programs:
        assert await program.token()
        await program.aclose()
    assert machine.plane.asked["refresh_token"] == 1


@pytest.mark.req("BRR-08")
async def test_a_late_rejection_of_an_old_token_costs_nothing(machine: Machine) -> None:
    program = machine.program()
    machine.people[0].react = machine.plane.plane.approve
    async with program:
        old = await program.login()
        assert old is not None
        program.reject(old.access_token)
        new = await program.token()
        for _ in range(20):
            program.reject(old.access_token)
            assert await program.token() == new
    assert machine.plane.asked["refresh_token"] == 1


# Discovery.


async def test_a_later_program_asks_nobody_where_the_server_is(machine: Machine) -> None:
    first, second, third = (machine.program() for _ in range(3))
    machine.people[0].react = machine.plane.plane.approve
    async with first:
        await first.login()
    assert machine.plane.asked[METADATA] == 1
    async with second:
        machine.plane.asked.clear()
        assert await second.token()
        assert not machine.plane.asked
    machine.plane.clock.now += TARGET_AGE_MAX
    async with third:
        assert await outcome(third.token)
        assert machine.plane.asked[METADATA] == 1


async def test_nothing_is_remembered_of_a_control_plane_that_wants_no_login(home: Path) -> None:
    machine = Machine(home, faults={"no-auth"})
    for _ in range(2):
        machine.plane.asked.clear()
        async with machine.program() as program:
            assert await program.headers() == {}
        assert machine.plane.asked[METADATA] == 1
    assert not (home / "machine").exists()


async def test_a_401_without_credentials_is_a_reason_to_ask_anew(home: Path) -> None:
    machine = Machine(home, faults={"no-auth"})
    async with machine.program(interactive=False) as program:
        assert await program.headers() == {}
        machine.plane.plane = Plane().plane  # which wants logins
        assert program.cached_headers() == {}
        program.reject("")
        assert program.cached_headers() is None
        with pytest.raises(InteractionRequired):
            await program.headers()


async def test_a_service_finds_its_server_again_when_it_has_moved(machine: Machine) -> None:
    async with machine.program(auth_type="ClientSecret", store=MemoryStore()) as program:
        assert await program.token()
    (note,) = machine.notes("/oauth2/token")
    note.write_text(note.read_text().replace("/oauth2/token", "/oauth2/once"))
    machine.plane.asked.clear()
    async with machine.program(auth_type="ClientSecret", store=MemoryStore()) as program:
        assert await program.token()
    assert machine.plane.asked[METADATA] == 1
    assert machine.notes("/oauth2/token")


@pytest.mark.parametrize("note", ["", "[]", '{"at": "soon"}', '{"at": 1e400, "target": {}}'])
async def test_a_damaged_note_is_no_note(machine: Machine, note: str) -> None:
    program = machine.program()
    machine.people[0].react = machine.plane.plane.approve
    async with program:
        await program.login()
    for path in machine.notes(""):
        path.write_text(note)
    async with machine.program(interactive=False) as another:
        assert await another.token()


class Locked(FileStore):
    """A store that has a login, and does not show it."""

    reason = ""

    async def load(self, key: str) -> Record | None:
        if self.reason == "elsewhere":
            raise Elsewhere("your login cannot be read; unlock the keyring", reason="locked")
        if self.reason:
            raise StoreError("wrong password; check the URL", reason=self.reason)
        return await super().load(key)


@pytest.mark.req("SEC-09")
async def test_a_login_that_cannot_be_read_now_is_neither_none_nor_a_reason_to_ask(
    machine: Machine, home: Path
) -> None:
    store = Locked(home / "logins")
    machine.people.clear()
    store.reason = "elsewhere"
    async with machine.program(store=store) as program:
        with pytest.raises(StoreError, match="unlock the keyring"):
            await program.headers()
    assert machine.prompts == 0


@pytest.mark.parametrize(("reason", "alone"), [("denied", False), ("unreachable", True)])
async def test_a_service_goes_on_without_its_store_but_not_with_a_wrong_password(
    machine: Machine, home: Path, reason: str, alone: bool
) -> None:
    store = Locked(home / "logins")
    store.reason = reason
    async with machine.program(auth_type="ClientSecret", store=store) as program:
        found = await outcome(program.token)
    assert isinstance(found, Token if alone else StoreError)


async def test_who_logged_in_is_told_once(machine: Machine) -> None:
    program = machine.program()
    machine.people[0].react = machine.plane.plane.approve
    async with program:
        await all_at_once(10, program.token)
    assert machine.people[0].saw(LoggedIn) == 1
