"""The examination as a whole: what hangs, crashes or is cancelled keeps nothing else from its end."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from flyteauth._doctor import access, examination, keeping, network
from flyteauth._doctor.examination import Check, advice, examine
from flyteauth._doctor.finding import Finding, State
from flyteauth._doctor.patient import Patient, admit
from flyteauth._io.presenter import Silent
from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings
from flyteauth.errors import StoreError
from flyteauth.session import Session
from tests.io.server import Connection, serve

pytestmark = pytest.mark.anyio

LIMIT = 20.0


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYTEAUTH_HOME", str(tmp_path / "home"))


def stalling(connection: Connection) -> None:
    """Takes a request, and says nothing for ever."""
    connection.read_request()
    connection.wait_for_close()


@pytest.mark.req("ERR-01")
async def test_what_a_check_says_is_one_line_of_bounded_length() -> None:
    finding = Finding("long", "warn", "\x1b" + "x" * 100_000, "y" * 100_000)
    assert finding.text.startswith("\\x1bx")
    assert (len(finding.text), len(finding.fix)) == (2000, 2000)


async def well(patient: Patient) -> Finding:
    del patient
    return Finding("well", "ok", "all is well")


async def hangs(patient: Patient) -> Finding:
    del patient
    await anyio.sleep_forever()
    raise AssertionError("unreachable")


async def crashes(patient: Patient) -> Finding:
    del patient
    raise ZeroDivisionError("canary-4711-secret")


async def fails(patient: Patient) -> Finding:
    del patient
    raise StoreError("the shelf is full; make room", reason="full")


async def test_what_hangs_or_crashes_is_a_finding_like_any_other() -> None:
    checks = [Check("one", hangs), Check("two", crashes), Check("three", fails), Check("4", well)]
    with anyio.fail_after(LIMIT):
        found = await examine(None, {"endpoint": "http://localhost:1"}, {}, checks, deadline=0.1)
    late, crashed, failed, fine = found
    assert (late.name, late.state) == ("one", "fail")
    assert "0.1 s" in late.text
    assert (crashed.state, "ZeroDivisionError" in crashed.text) == ("fail", True)
    assert "canary" not in f"{crashed}"
    assert (failed.text, failed.fix) == ("the shelf is full", "make room")
    assert fine.state == "ok"
    assert advice(found, "flyteauth login") == f"first: {late.fix}"


@pytest.mark.parametrize(
    ("states", "line"),
    [
        ("ok ok skip", "everything works"),
        ("ok warn skip", "works, with 1 warning: 1"),
        ("warn ok warn", "works, with 2 warnings: 0, 2"),
        ("warn fail ok", "first: mend 1"),
    ],
)
async def test_the_last_line_says_that_everything_works_only_where_it_does(
    states: str, line: str
) -> None:
    found = [
        Finding(f"{place}", cast("State", state), "it is so", f"mend {place}")
        for place, state in enumerate(states.split())
    ]
    assert advice(found, "flyteauth login") == line


async def test_everything_is_asked_at_once_and_nothing_stays_behind() -> None:
    """A server that says nothing costs its deadline once, however many checks wait for it."""
    with serve(stalling) as server:
        begun = time.monotonic()
        with anyio.fail_after(LIMIT):
            found = await examine(None, {"endpoint": f"http://localhost:{server.port}"}, {})
        assert time.monotonic() - begun < examination.DEADLINE + 3
        assert server.all_closed()
        assert {each.name: each.state for each in found}["access"] == "skip"
    assert len(found) == len(examination.CHECKS)
    assert [each.name for each in found] == [check.name for check in examination.CHECKS]


async def test_a_cancellation_passes_and_closes_what_was_opened() -> None:
    with serve(stalling) as server:
        with anyio.move_on_after(LIMIT) as scope:
            async with anyio.create_task_group() as group:
                given = {"endpoint": f"http://localhost:{server.port}"}
                group.start_soon(examine, None, given, {})
                assert await anyio.to_thread.run_sync(server.wait_requests)
                group.cancel_scope.cancel()
        assert not scope.cancelled_caught
        assert server.all_closed()


async def accessed(given: dict[str, Any]) -> Finding:
    with anyio.fail_after(LIMIT):
        found = await examine(None, given, {})
    return next(finding for finding in found if finding.name == "access")


def service(running: Running, **more: str) -> dict[str, Any]:
    client_id, secret = running.plane.service_client
    given = {"endpoint": running.base_url, "auth_type": "ClientSecret", "client_id": client_id}
    return {**given, "client_secret": secret, **more}


async def test_a_wrong_secret_is_found_out_by_asking_for_a_token() -> None:
    with serving(Settings()) as running:
        found = await accessed(service(running, client_secret="another"))
        assert (found.state, "invalid_client" in found.text) == ("fail", True)
        found = await accessed(service(running))
        assert (found.state, found.text.split()[-1]) == ("ok", running.plane.service_client[0])
        assert running.plane.count(path="/flyteidl2.auth.IdentityService/UserInfo") == 1


@pytest.mark.parametrize(
    ("command", "said"), [(["/nope"], "cannot be run"), (["sh", "-c", "exit 3"], "status 3")]
)
async def test_a_command_without_a_token_is_found_out_by_running_it(
    command: list[str], said: str
) -> None:
    with serving(Settings()) as running:
        given = {"endpoint": running.base_url, "auth_type": "ExternalCommand", "command": command}
        found = await accessed(given)
    assert found.state == "fail"
    assert said in found.text
    assert found.fix


async def test_a_login_that_is_refused_is_found_out_by_a_call() -> None:
    with serving(Settings(approve="auto", faults=frozenset({"always-401"}))) as running:
        given: dict[str, Any] = {"endpoint": running.base_url, "auth_type": "DeviceFlow"}
        async with Session(**given, presenter=Silent()) as session:
            await session.login()
        found = await accessed(given)
        again = await accessed(given)
    assert found.state == again.state == "fail"
    assert "unauthenticated" in found.text
    assert found.fix.startswith("ask whoever runs")  # another new login would not be taken, either
    assert again.fix.startswith(keeping.LOGIN)


async def test_a_command_that_hangs_has_a_deadline_and_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "DEADLINE", 3.0)
    note = tmp_path / "pid"
    with serving(Settings()) as running:
        command = ["sh", "-c", f"echo $$ > {note}; exec sleep 60"]
        given = {"endpoint": running.base_url, "auth_type": "ExternalCommand", "command": command}
        found = await accessed(given)
    assert found.state == "fail"
    assert "within 3 s" in found.text
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


async def test_without_an_endpoint_the_token_alone_is_tried() -> None:
    with serving(Settings()) as running:
        given = service(running)
        found = await accessed({**given, "endpoint": None, "issuer": running.base_url})
        assert running.plane.count(grant_type="client_credentials") == 1
        assert running.plane.count(path="/flyteidl2.auth.IdentityService/UserInfo") == 0
    assert (found.state, "no control plane" in found.text) == ("ok", True)


async def test_the_checks_see_what_a_login_would_see() -> None:
    with serving(Settings(approve="auto")) as running, anyio.fail_after(LIMIT):
        patient = await admit(None, {"endpoint": running.base_url}, {})
        assert patient.setup is not None
        await patient.talk.hold(patient.setup)
        assert (await network.discovery(patient)).state == "ok"
        assert (await network.clock(patient)).state == "ok"
        assert (await keeping.login(patient)).fix == keeping.LOGIN
        await patient.setup.transport.aclose()
    paths = {entry.path for entry in running.plane.journal}
    assert all("/flyteidl2.auth." in path for path in paths), paths
