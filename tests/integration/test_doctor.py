"""The examination as a whole: what hangs, crashes or is cancelled keeps nothing else from its end."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import pytest

from flyteauth._doctor import examination, keeping, network
from flyteauth._doctor.examination import Check, advice, examine
from flyteauth._doctor.finding import Finding
from flyteauth._doctor.patient import Patient, admit
from flyteauth.devserver.serve import serving
from flyteauth.devserver.settings import Settings
from flyteauth.errors import StoreError
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


async def test_everything_is_asked_at_once_and_nothing_stays_behind() -> None:
    """A server that says nothing costs its deadline once, however many checks wait for it."""
    with serve(stalling) as server:
        begun = time.monotonic()
        with anyio.fail_after(LIMIT):
            found = await examine(None, {"endpoint": f"http://localhost:{server.port}"}, {})
        assert time.monotonic() - begun < examination.DEADLINE + 3
        assert server.all_closed()
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
