"""authType ExternalCommand: a real command, run as seldom as possible and never left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from flyteauth._io import command as command_module
from flyteauth._io.flights import Flights
from flyteauth._io.store.file import FileStore
from flyteauth._io.store.memory import MemoryStore
from flyteauth._sansio.flow import RequestFailed
from flyteauth.devserver.serve import Running
from flyteauth.errors import ConfigError, Error, FlowError, InvalidResponse, Unreachable
from flyteauth.events import LoggedIn, Refreshed
from flyteauth.session import Session
from tests.concurrency import all_at_once
from tests.e2e.conftest import Home
from tests.io.test_browser import Line

from .plane import ENDPOINT, START, Person, Plane

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="the commands here are POSIX scripts"),
]

LIMIT = 20.0
PROJECTS = "/flyteidl2.project.ProjectService/ListProjects"


class Printer:
    """A command that notes each run, does what it is told to, and prints what it is told to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self.prints("a-token")
        self.does(":")

    @property
    def argv(self) -> list[str]:
        return ["/bin/sh", str(self._folder / "command")]

    def prints(self, text: str) -> None:
        self._write("output", text)

    def does(self, script: str) -> None:
        """Before it prints."""
        output, runs = self._folder / "output", self._folder / "runs"
        self._write("command", f"echo $$ >>{runs}\n{script}\ncat {output}\n")

    def expiring(self, token: str, expires_at: float) -> None:
        self.prints(json.dumps({"token": token, "expires_at": expires_at}))

    @property
    def runs(self) -> int:
        path = self._folder / "runs"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def _write(self, name: str, text: str) -> None:
        new = self._folder / f"{name}.new"
        new.write_text(text)
        new.replace(self._folder / name)


@pytest.fixture
def printer(tmp_path: Path) -> Printer:
    return Printer(tmp_path / "printer")


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path / "line")
    yield line
    line.close()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_module, "TERM_GRACE", 0.3)


def stay(line: Line) -> str:
    """A script that stays until it is ended, with a child of its own; all of it hold *line*."""
    return f"exec 3>{line.path}; echo $$ >&3; (trap '' TERM; sleep 1000; sleep 1000) & wait"


def of(plane: Plane, printer: Printer, **arguments: Any) -> Session:
    return plane.session("ExternalCommand", command=printer.argv, **arguments)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def issued(plane: Plane) -> str:
    """A token that the control plane takes."""
    async with plane.session("ClientSecret") as service:
        token = await service.token()
    assert token is not None
    plane.asked.clear()
    plane.requests.clear()
    return token.access_token


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process or thread does."""
    with anyio.fail_after(LIMIT):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.01)


# What it prints.


@pytest.mark.req("BRR-14")
@pytest.mark.parametrize(
    ("printed", "expires_at"),
    [
        ("abc\n", None),
        ("Bearer abc\r\n", None),
        (json.dumps({"token": "abc", "expires_at": START + 300}), START + 300),
        (json.dumps({"access_token": "abc", "expires_in": 300}), START + 300),
        (json.dumps({"accessToken": "abc", "expires_on": START + 300}), START + 300),
    ],
)
async def test_text_or_json_is_a_token_that_is_cached_until_it_says(
    printer: Printer, printed: str, expires_at: float | None
) -> None:
    plane = Plane()
    printer.prints(printed)
    async with of(plane, printer) as session:
        token = await session.token()
        assert token is not None
        assert (token.access_token, token.expires_at) == ("abc", expires_at)
        plane.clock.now += 200
        for _ in range(3):
            assert await session.headers() == bearer("abc")
        assert printer.runs == 1
        plane.clock.now += 10_000
        if expires_at is None:
            assert await session.headers() == bearer("abc")
            assert printer.runs == 1
            return
        printer.prints("def")
        assert await session.headers() == bearer("def")
        assert printer.runs == 2


async def test_an_ageing_token_is_used_while_the_command_runs_again_in_the_background(
    printer: Printer, line: Line
) -> None:
    plane = Plane()
    printer.expiring("old", START + 1000)
    async with of(plane, printer) as session:
        assert await session.headers() == bearer("old")
        plane.clock.now += 990
        printer.expiring("new", START + 2000)
        printer.does(f"exec 3>{line.path}; echo $$ >&3; read go <{line.path}.go")
        os.mkfifo(f"{line.path}.go")
        with anyio.fail_after(LIMIT):
            assert await session.headers() == bearer("old")
            await line.up()
            for _ in range(3):
                assert await session.headers() == bearer("old")
            await anyio.to_thread.run_sync(Path(f"{line.path}.go").write_text, "go\n")
            while await session.headers() == bearer("old"):  # noqa: ASYNC110
                await anyio.sleep(0.01)
        assert await session.headers() == bearer("new")
    assert printer.runs == 2


async def test_an_ageing_token_outlives_a_rerun_that_fails_and_is_not_stormed(
    printer: Printer,
) -> None:
    plane = Plane()
    store = MemoryStore()
    printer.expiring("good", START + 1000)
    async with of(plane, printer, store=store) as session:
        await session.headers()
        plane.clock.now += 980
        printer.does("exit 3")
        for _ in range(20):
            assert await session.headers() == bearer("good")
        await until(lambda: printer.runs == 2)
        for work in list(session._life._works):  # one that is done leaves it
            with pytest.raises(Unreachable):
                await work.wait()
        for _ in range(20):
            assert await session.headers() == bearer("good")
        kept = await store.load((await session._life.set_up()).vault.key)
    assert kept is not None
    assert kept.token.access_token == "good"
    assert printer.runs == 2


# When a server refuses it.


async def test_a_401_runs_the_command_once_more_and_tries_once_more(printer: Printer) -> None:
    plane = Plane()
    good = await issued(plane)
    person = Person(plane.plane)
    printer.prints("stale")
    async with of(plane, printer, presenter=person) as session:
        assert await session.headers() == bearer("stale")
        printer.prints(good)
        assert (await session.call(PROJECTS, {}))["projects"]
        assert printer.runs == 2
        assert plane.asked[PROJECTS] == 2
        assert await session.whoami() is not None
        assert (await session.call(PROJECTS, {}))["projects"]
    assert printer.runs == 2
    assert person.saw(Refreshed) == 1


async def test_whoami_runs_it_once_more_too(printer: Printer) -> None:
    plane = Plane()
    good = await issued(plane)
    printer.prints("stale")
    async with of(plane, printer) as session:
        await session.headers()
        printer.prints(good)
        assert await session.whoami() is not None
    assert printer.runs == 2


@pytest.mark.req("BRR-07")
async def test_a_command_that_insists_is_not_run_in_a_loop(printer: Printer) -> None:
    plane = Plane()
    changes: list[str | None] = []
    printer.prints("always-the-same")

    def note(token: Any) -> None:
        changes.append(token and token.access_token)

    async with of(plane, printer, on_token_change=note) as session:
        for _ in range(5):
            with pytest.raises(FlowError):
                await session.call(PROJECTS, {})
        assert printer.runs == 2
        assert plane.asked[PROJECTS] == 6  # the first call tries twice
        plane.clock.now += 3600
        with pytest.raises(FlowError):
            await session.call(PROJECTS, {})
        assert printer.runs == 3
        assert await session.headers() == bearer("always-the-same")
    assert changes == ["always-the-same"]


async def test_many_calls_that_are_refused_at_once_run_it_once(printer: Printer) -> None:
    plane = Plane()
    good = await issued(plane)
    printer.prints("stale")
    async with of(plane, printer) as session:
        await session.headers()
        printer.prints(good)
        replies = await all_at_once(30, partial(session.call, PROJECTS, {}))
    assert all(reply["projects"] for reply in replies)
    assert printer.runs == 2


async def test_a_rerun_that_fails_after_a_401_destroys_nothing_stored(printer: Printer) -> None:
    plane = Plane()
    store = MemoryStore()
    good = await issued(plane)
    printer.prints("stale")
    async with of(plane, printer, store=store) as session:
        await session.headers()
        key = (await session._life.set_up()).vault.key
        before = await store.load(key)
        printer.does("echo it is locked >&2; exit 3")
        with pytest.raises(Unreachable, match="it is locked"):
            await session.call(PROJECTS, {})
        assert await store.load(key) == before
        printer.does(":")
        printer.prints(good)
        assert (await session.call(PROJECTS, {}))["projects"]


# One run for all.


@pytest.mark.req("REF-05")
async def test_fifty_tasks_and_four_threads_that_find_nothing_run_it_once(
    printer: Printer, anyio_backend: str
) -> None:
    plane = Plane()
    printer.does("sleep 0.5")
    async with of(plane, printer) as session:
        found: list[Any] = []

        def elsewhere() -> None:
            found.extend(anyio.run(all_at_once, 10, session.headers, backend=anyio_backend))

        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(anyio.to_thread.run_sync, elsewhere)
                found.extend(await all_at_once(50, session.headers))
    assert found == [bearer("a-token")] * 90
    assert printer.runs == 1


async def test_a_failure_is_for_all_who_wait_and_the_next_one_runs_it_anew(
    printer: Printer,
) -> None:
    plane = Plane()
    printer.does("sleep 0.3; echo no ticket >&2; exit 1")
    async with of(plane, printer) as session:
        outcomes = await all_at_once(20, session.headers)
        assert all(isinstance(outcome, Unreachable) for outcome in outcomes)
        assert printer.runs == 1
        printer.does(":")
        assert await session.headers() == bearer("a-token")


async def test_processes_that_share_a_store_share_a_run(printer: Printer, tmp_path: Path) -> None:
    plane = Plane()
    printer.expiring("shared", START + 1000)
    printer.does("sleep 0.3")

    async def host() -> Any:
        store = FileStore(tmp_path / "store")
        async with of(plane, printer, store=store, flights=Flights()) as session:
            return await session.headers()

    assert await all_at_once(4, host) == [bearer("shared")] * 4
    assert printer.runs == 1


async def test_the_event_loop_never_waits_for_a_command(
    printer: Printer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for its start, however long that takes, nor for its end."""
    start = command_module.Command._start
    gaps: list[float] = []

    def slow(self: Any) -> Any:
        time.sleep(0.5)
        return start(self)

    monkeypatch.setattr(command_module.Command, "_start", slow)
    printer.does("sleep 0.5")
    plane = Plane()

    async def beat() -> None:
        last = time.monotonic()
        while True:
            await anyio.sleep(0.02)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    async with of(plane, printer) as session, anyio.create_task_group() as group:
        group.start_soon(beat)
        assert await session.headers() == bearer("a-token")
        group.cancel_scope.cancel()
    assert len(gaps) > 10
    # A busy machine may hold up anybody, but the command takes a second: that would show.
    assert max(gaps) < 0.4


# How it ends.


@pytest.mark.req("CBK-16")
@pytest.mark.parametrize("how", ["scope", "task"])
async def test_when_every_caller_is_cancelled_it_ends_with_all_its_children(
    printer: Printer, line: Line, how: str, anyio_backend: str
) -> None:
    if how == "task" and anyio_backend != "asyncio":
        return
    plane = Plane()
    async with of(plane, printer) as session:
        printer.does(stay(line))
        if how == "scope":
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(session.headers)
                await line.up()
                group.cancel_scope.cancel()
        else:
            tasks = [asyncio.create_task(_one(session.headers)) for _ in range(5)]
            await line.up()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)
        await line.gone()
        printer.does(":")
        assert await session.headers() == bearer("a-token")
    assert printer.runs == 2


async def _one(function: Callable[[], Awaitable[Any]]) -> Any:
    return await function()


@pytest.mark.req("CBK-16")
async def test_one_caller_who_is_cancelled_takes_nothing_from_the_others(printer: Printer) -> None:
    plane = Plane()
    printer.does("sleep 0.5")
    found: list[Any] = []
    async with of(plane, printer) as session, anyio.create_task_group() as group:

        async def stays() -> None:
            found.append(await session.headers())

        group.start_soon(stays)
        await until(lambda: printer.runs == 1)
        with anyio.move_on_after(0.1):
            await session.headers()
    assert found == [bearer("a-token")]
    assert printer.runs == 1


@pytest.mark.parametrize("waiters", [1, 5])
async def test_a_session_that_is_closed_leaves_no_child_and_tells_who_waits(
    printer: Printer, line: Line, waiters: int
) -> None:
    plane = Plane()
    printer.does(stay(line))
    outcomes: list[Any] = []
    session = of(plane, printer)
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:

            async def wait() -> None:
                outcomes.extend(await all_at_once(waiters, session.headers))

            group.start_soon(wait)
            await line.up()
            await session.aclose()
            assert not line.alive()
    assert printer.runs == 1
    assert len(outcomes) == waiters
    for outcome in outcomes:
        assert isinstance(outcome, Unreachable)
        assert outcome.reason == "closed"


async def test_a_run_in_the_background_ends_with_the_session(printer: Printer, line: Line) -> None:
    plane = Plane()
    printer.expiring("old", START + 1000)
    async with of(plane, printer) as session:
        await session.headers()
        plane.clock.now += 990
        printer.does(stay(line))
        assert await session.headers() == bearer("old")
        await line.up()
    assert not line.alive()


async def test_a_sibling_goes_on_when_the_session_that_ran_it_is_closed(
    printer: Printer, line: Line, tmp_path: Path
) -> None:
    plane = Plane()
    printer.does(stay(line))
    store = FileStore(tmp_path / "store")
    one, other = (of(plane, printer, store=store) for _ in range(2))
    outcomes: list[Any] = []
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:

            async def ask(session: Session) -> None:
                outcomes.extend(await all_at_once(1, session.headers))

            group.start_soon(ask, one)
            await line.up()
            group.start_soon(ask, other)
            await until(lambda: any(work.waiting > 1 for work in one._life._works))
            printer.does(":")
            await one.aclose()
    await other.aclose()
    assert bearer("a-token") in outcomes
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, Unreachable)] in (
        ["closed"],
        [],
    )
    assert not line.alive()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_event_loop_that_ends_takes_the_command_along(
    printer: Printer, line: Line
) -> None:
    plane = Plane()
    session = of(plane, printer)
    printer.does(stay(line))

    def program() -> None:
        async def main() -> None:
            task = asyncio.create_task(_one(session.headers))
            await line.up()
            del task

        asyncio.run(main())

    await anyio.to_thread.run_sync(program)
    await line.gone()
    printer.does(":")
    assert await session.headers() == bearer("a-token")
    await session.aclose()


# What goes wrong.


FAILURES: dict[str, tuple[str, str, type[Error], str]] = {
    "fails": ("echo first >&2; echo last >&2; exit 3", "", Unreachable, "status 3: first / last"),
    "fails silently": ("exit 7", "", Unreachable, "failed with status 7"),
    "is killed": ("kill -9 $$", "", Unreachable, "was ended by signal 9"),
    "prints two lines": (":", "one\ntwo\n", InvalidResponse, "more than one line"),
    "prints nothing": (":", "\n", InvalidResponse, "printed nothing"),
    "prints prose": (":", "please log in first", InvalidResponse, "not a token"),
    "prints broken JSON": (":", '{"token": ', InvalidResponse, "broken JSON"),
    "prints an old token": (":", '{"token":"x","expires_at":1}', InvalidResponse, "has expired"),
    "prints too much": (":", "x" * 70_000, InvalidResponse, "more than"),
    "never ends": ("sleep 1000", "", Unreachable, "did not end within 0.5 s"),
}


@pytest.mark.req("BRR-14", "SEC-02")
@pytest.mark.parametrize("kind", FAILURES)
async def test_whatever_goes_wrong_is_one_line_that_says_what_to_do(
    printer: Printer, line: Line, kind: str
) -> None:
    script, printed, expected, words = FAILURES[kind]
    plane = Plane()
    store = MemoryStore()
    printer.does(f"exec 3>{line.path}\n{script}")
    printer.prints(printed)
    canary = "--password=canary0123456789"
    argv = [*printer.argv, canary]
    timeout = 0.5 if kind == "never ends" else LIMIT
    async with plane.session(
        "ExternalCommand", command=argv, command_timeout=timeout, store=store
    ) as session:
        for ask in (session.headers, session.login, session.whoami):
            with pytest.raises(expected, match=words) as raised:
                await ask()
            said = str(raised.value)
            assert raised.value.reason == "command"
            assert said.endswith("run the command of admin.command by hand")
            assert "\n" not in said
            assert "canary" not in f"{said!r} {raised.value!r} {session!r}"
            assert str(printer.argv[1]) not in said
        assert await store.load((await session._life.set_up()).vault.key) is None
        assert not any(request.header("authorization") for request in plane.requests)
    await line.gone()


async def test_a_command_that_is_not_there_is_a_wrong_setting() -> None:
    plane = Plane()
    async with plane.session("ExternalCommand", command=["flyteauth-no-such-thing"]) as session:
        with pytest.raises(ConfigError, match=r"admin\.command: .*cannot be run"):
            await session.headers()


async def test_a_working_command_after_any_failure_gives_a_token(printer: Printer) -> None:
    plane = Plane()
    async with of(plane, printer, command_timeout=LIMIT) as session:
        for script, printed, expected, _ in FAILURES.values():
            if "sleep" not in script:
                printer.does(script)
                printer.prints(printed)
                with pytest.raises(expected):
                    await session.headers()
        printer.does(":")
        printer.prints("a-token")
        assert await session.headers() == bearer("a-token")


# What it is told, and what not.


@pytest.mark.req("SEC-04")
async def test_the_command_sees_our_environment_without_our_secrets(
    printer: Printer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = home / "seen"
    monkeypatch.setenv("FLYTE_API_KEY", "canary-of-flyte")
    monkeypatch.setenv("UNION_API_KEY", "canary-of-union")
    monkeypatch.setenv("THE_CLIENTS_OWN", "canary-of-the-client")
    monkeypatch.setenv("FLYTE_ADMIN_TOKENSTORE", "redis://user:canary-of-redis@127.0.0.1:1/0")
    monkeypatch.setenv("FLYTE_ADMIN_HTTPPROXYURL", "http://user:canary-of-proxy@127.0.0.1:1")
    monkeypatch.setenv("HARMLESS", "harmless")
    path = home / "config.yaml"
    path.write_text(
        f"admin:\n  endpoint: {ENDPOINT}\n  clientSecretEnvVar: THE_CLIENTS_OWN\n"
        f"  command: {json.dumps(printer.argv)}\n"
    )
    printer.does(f"env >{seen}")
    plane = Plane()
    async with _from_config(path, plane) as session:
        assert await session.headers() == bearer("a-token")
    assert "HARMLESS=harmless" in seen.read_text()
    assert "canary" not in seen.read_text()


def _from_config(path: Path, plane: Plane) -> Session:
    session = Session.from_config(path, auth_type="ExternalCommand", presenter=Person(plane.plane))
    session._life._given = plane, MemoryStore(), None
    session._life._clock = plane.clock
    return session


@pytest.mark.req("BRR-01")
async def test_the_header_is_the_one_that_the_control_plane_names(printer: Printer) -> None:
    plane = Plane(faults={"custom-header-key"})
    printer.prints(await issued(plane))
    async with of(plane, printer) as session:
        assert list(await session.headers()) == ["flyte-authorization"]
        assert (await session.call(PROJECTS, {}))["projects"]
    assert not any(request.header("authorization") for request in plane.requests)


@pytest.mark.parametrize("faults", [{"html-discovery"}, {"discovery-503"}, {"no-auth"}])
async def test_discovery_is_not_needed(printer: Printer, faults: set[str]) -> None:
    async with of(Plane(faults=faults), printer) as session:
        assert await session.headers() == bearer("a-token")


async def test_a_control_plane_that_cannot_be_reached_keeps_nobody_from_a_token(
    printer: Printer,
) -> None:
    plane = Plane()

    async def fail(name: str) -> RequestFailed:
        return plane.down()

    plane.before = fail
    async with of(plane, printer) as session:
        assert await session.headers() == bearer("a-token")


async def test_nor_does_one_that_never_answers(
    printer: Printer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyteauth._service.HEADER_PATIENCE", 0.2)
    plane = Plane()

    async def hang(name: str) -> None:
        await anyio.sleep_forever()

    plane.before = hang
    with anyio.fail_after(LIMIT):
        async with of(plane, printer) as session:
            assert await session.headers() == bearer("a-token")


async def test_a_header_that_becomes_known_later_heals_with_the_next_401(printer: Printer) -> None:
    plane = Plane(faults={"custom-header-key"})
    printer.prints(await issued(plane))

    async def fail(name: str) -> RequestFailed:
        return plane.down()

    plane.before = fail
    async with of(plane, printer) as session:
        assert list(await session.headers()) == ["authorization"]
        plane.before = None
        assert (await session.call(PROJECTS, {}))["projects"]
        assert list(await session.headers()) == ["flyte-authorization"]


async def test_a_control_plane_is_asked_only_for_the_headers_name(printer: Printer) -> None:
    plane = Plane()
    async with of(plane, printer) as session:
        await session.headers()
        assert await session.login() is not None
    assert {name.rpartition("/")[2] for name in plane.asked} == {"GetPublicClientConfig"}


# Logging in and out, as far as there is such a thing.


async def test_a_login_runs_the_command_even_if_there_is_a_token(printer: Printer) -> None:
    plane = Plane()
    person = Person(plane.plane)
    async with of(plane, printer, presenter=person) as session:
        await session.headers()
        printer.prints("another")
        token = await session.login()
        assert token is not None
        assert token.access_token == "another"
        assert await session.headers() == bearer("another")
    assert printer.runs == 2
    assert person.saw(LoggedIn) == 1


async def test_only_what_a_server_has_given_is_told_of_as_proven(printer: Printer) -> None:
    plane = Plane()
    person = Person(plane.plane)
    async with of(plane, printer, presenter=person) as session:
        await session.login()
    async with plane.session("ClientSecret", presenter=person) as session:
        await session.login()
    made = [event for event in person.seen if isinstance(event, LoggedIn)]
    assert [event.proven for event in made] == [False, True]


async def test_of_a_service_no_login_is_told_of_as_kept_unless_it_is(tmp_path: Path) -> None:
    plane = Plane()
    person = Person(plane.plane)
    for store in (MemoryStore(), FileStore(tmp_path)):
        async with plane.session("ClientSecret", presenter=person, store=store) as session:
            await session.login()
    async with plane.session(presenter=person, store=MemoryStore()) as session:
        await session.login()
    made = [event for event in person.seen if isinstance(event, LoggedIn)]
    assert [event.kept for event in made] == [False, True, True]


async def test_a_login_replaces_what_another_program_has_stored(
    printer: Printer, tmp_path: Path
) -> None:
    plane = Plane()
    store = FileStore(tmp_path / "store")
    async with of(plane, printer, store=store) as session:
        await session.login()
    printer.prints("another")
    async with of(plane, printer, store=FileStore(tmp_path / "store")) as session:
        token = await session.login()
    assert token is not None
    assert token.access_token == "another"


async def test_a_logout_forgets_the_token_and_asks_no_server(printer: Printer) -> None:
    plane = Plane()
    store = MemoryStore()
    async with of(plane, printer, store=store) as session:
        await session.headers()
        plane.asked.clear()
        outcome = await session.logout()
        assert (outcome.local_deleted, outcome.remote_revoked) == (True, None)
        assert plane.asked.total() == 0
        assert await store.load((await session._life.set_up()).vault.key) is None
        printer.prints("another")
        assert await session.headers() == bearer("another")


async def test_another_command_is_another_identity(printer: Printer, tmp_path: Path) -> None:
    plane = Plane()
    store = MemoryStore()
    other = Printer(tmp_path / "other")
    other.prints("other")
    async with of(plane, printer, store=store) as one, of(plane, other, store=store) as two:
        assert await one.headers() == bearer("a-token")
        assert await two.headers() == bearer("other")
        assert await one.headers() == bearer("a-token")


async def test_a_person_is_never_asked(printer: Printer) -> None:
    plane = Plane()
    printer.does("exit 1")
    person = Person(plane.plane)
    async with of(plane, printer, presenter=person, interactive=lambda: True) as session:
        with pytest.raises(Unreachable):
            await session.headers()
    assert person.seen == []


# As a program.


def test_the_command_line_prints_what_the_command_prints(
    printer: Printer, running: Running, tmp_path: Path
) -> None:
    printer.prints("a-token")
    home = Home(tmp_path)
    home.write(
        ".flyte/config.yaml",
        f"admin:\n  endpoint: {running.base_url}\n  authType: ExternalCommand\n"
        f"  command: {json.dumps(printer.argv)}\n",
    )
    ended = home.run("token")
    assert (ended.status, ended.out, ended.err) == (0, "a-token\n", "")
    assert printer.runs == 1
    assert home.stored() == {}
    printer.does("echo no ticket >&2; exit 3")
    home.run("token").failed_with(1, "status 3: no ticket", "admin.command")
    named = " ".join(printer.argv)
    printer.does(":")
    ended = home.run(
        "token",
        FLYTE_AUTH_TYPE="ExternalCommand",
        FLYTE_AUTH_COMMAND=named,
        FLYTE_ADMIN_ENDPOINT="http://localhost:9",
        UCTL_CONFIG=os.devnull,
    )
    assert (ended.status, ended.out, ended.err) == (0, "a-token\n", "")


async def test_a_program_that_is_interrupted_leaves_no_child(
    printer: Printer, line: Line, running: Running, tmp_path: Path
) -> None:
    printer.does(stay(line))
    home = Home(tmp_path)
    environ = {
        "FLYTE_AUTH_TYPE": "ExternalCommand",
        "FLYTE_AUTH_COMMAND": " ".join(printer.argv),
        "FLYTE_ADMIN_ENDPOINT": running.base_url,
    }
    with home.started("token", **environ) as process:
        await line.up()
        process.send_signal(signal.SIGINT)
        await line.gone()
        await anyio.to_thread.run_sync(partial(process.communicate, timeout=LIMIT))
    assert process.returncode == 130
