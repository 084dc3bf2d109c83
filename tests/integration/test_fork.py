"""
A session across a fork: it goes on in the child, and in the parent as if nothing had happened.

Each case is a program of its own, because what a fork copies should not be a test run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flyteauth._sansio.http import Request, Response
from flyteauth.devserver.serve import Running

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

LIMIT = 60.0
HOWS = ("asyncio", "trio", "sync")

COMMON = """
import anyio, json, multiprocessing, os, signal, sys, threading, time, warnings
from pathlib import Path
warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
import flyteauth._io.transport as transport
transport.KEEP_ALIVE = 60.0
from flyteauth._io.portal import call
from flyteauth._io.store.file import FileStore
from flyteauth._io.store.memory import MemoryStore
from flyteauth.session import Session

PROJECTS = "/flyteidl2.project.ProjectService/ListProjects"
how, endpoint = sys.argv[1:3]
signal.alarm(50)  # whoever hangs is ended, the child as well

def run(function, *args):
    if how == "sync":
        return call(function, *args)
    return anyio.run(function, *args, backend=how)

def in_thread(function, *args):
    # Where the parent's event loop still seems to run.
    results = []
    thread = threading.Thread(target=lambda: results.append(run(function, *args)))
    thread.start()
    thread.join()
    return results[0]

def forked(function):
    # What function returns in a child, once that has ended well.
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        signal.alarm(20)
        try:
            os.write(writing, json.dumps(function()).encode())
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    return child, reading

def outcome(child, reading):
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, said
    return json.loads(said)

def say(value):
    print(json.dumps(value), flush=True)

async def works(session):
    return bool((await session.call(PROJECTS, {}))["projects"])

async def token(session):
    return (await session.token()).access_token

session = Session(endpoint=endpoint, auth_type="DeviceFlow", token_store="file", disable_keyring=True)
"""


def program(running: Running, how: str, code: str) -> Any:
    ended = subprocess.run(
        [sys.executable, "-c", COMMON + code, how, running.base_url],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    errors = [line for line in ended.stderr.splitlines() if "devserver" not in line]
    assert ended.returncode == 0, ended
    assert not any("Traceback" in line or "Warning" in line for line in errors), ended.stderr
    return json.loads(ended.stdout)


def refreshes(running: Running) -> int:
    return running.plane.count(grant_type="refresh_token", status=200)


# What was used before goes on after.


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("method", ["fork", "multiprocessing"])
def test_a_session_goes_on_in_the_child_and_in_the_parent(
    how: str, method: str, running: Running
) -> None:
    fork = """
before = run(token, session) if run(session.login) else None
def child():
    return [session.cached_headers() is not None, run(token, session), run(works, session)]
"""
    if method == "fork":
        fork += "said = outcome(*forked(child))\n"
    else:
        fork += """
context = multiprocessing.get_context("fork")
ours, theirs = context.Pipe(duplex=False)
process = context.Process(target=lambda: theirs.send(child()))
process.start()
theirs.close()
said = ours.recv()
process.join()
assert process.exitcode == 0
"""
    said = program(
        running, how, fork + "say([before, *said[1:], run(token, session), run(works, session)])"
    )
    token = said[0]
    assert said == [token, token, True, token, True]
    assert refreshes(running) == 0


@pytest.mark.parametrize("how", HOWS)
def test_parent_and_child_that_both_need_a_refresh_make_one(how: str, running: Running) -> None:
    said = program(
        running,
        how,
        """
before = run(session.login).access_token
session.reject(before)
child = forked(lambda: run(token, session))
mine = run(token, session)
say([before, mine, outcome(*child), run(works, session)])
""",
    )
    before, ours, theirs, worked = said
    assert ours == theirs != before
    assert worked
    assert refreshes(running) == 1


@pytest.mark.parametrize("how", HOWS)
def test_many_children_make_one_refresh_as_well(how: str, running: Running) -> None:
    said = program(
        running,
        how,
        """
before = run(session.login).access_token
session.reject(before)
children = [forked(lambda: run(token, session)) for _ in range(4)]
say([before, *[outcome(*child) for child in children], run(token, session)])
""",
    )
    before, *after = said
    assert len(set(after)) == 1
    assert before not in after
    assert refreshes(running) == 1


@pytest.mark.parametrize("how", HOWS)
def test_a_grandchild_works_too(how: str, running: Running) -> None:
    said = program(
        running,
        how,
        """
run(session.login)
def child():
    mine = run(works, session)
    return [mine, outcome(*forked(lambda: run(works, session)))]
say([outcome(*forked(child)), run(works, session)])
""",
    )
    assert said == [[True, True], True]


# In the middle of things.


@pytest.mark.parametrize("how", ["asyncio", "trio"])
def test_a_fork_within_a_running_event_loop_leaves_the_parents_connection_alone(
    how: str, running: Running
) -> None:
    said = program(
        running,
        how,
        """
def sockets():
    found = set()
    for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd") else ():
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        found |= {target} if target.startswith("socket") else set()
    return sorted(found)

async def main():
    await session.login()
    await works(session)
    before = sockets()
    child = forked(lambda: [in_thread(works, session), in_thread(works, session)])
    said = await anyio.to_thread.run_sync(outcome, *child)
    worked = await works(session)
    after = sockets()
    await session.aclose()
    return [said, worked, before == after]

import anyio.to_thread
say(run(main))
""",
    )
    assert said == [[True, True], True, True]


@pytest.mark.parametrize("how", HOWS)
def test_a_fork_at_any_moment_of_a_refresh_neither_hangs_nor_doubles_it(
    how: str, running: Running
) -> None:
    """A refresh that takes a moment in another thread, and a fork somewhere in the middle."""
    handle = running.plane.handle

    def slowly(request: Request, at: float) -> Response:
        if b"grant_type=refresh_token" in request.body:
            time.sleep(0.2)
        return handle(request, at)

    running.plane.handle = slowly  # type: ignore[method-assign]
    said = program(
        running,
        how,
        """
run(session.login)
rounds = []
for delay in (0, 0.01, 0.03, 0.1, 0.2, 0.3):
    before = run(token, session)
    session._life.rejected = before  # and not by reject, which would wait half a minute in between
    session._life._withdraw(session._life.held)
    found = []
    thread = threading.Thread(target=lambda: found.append(run(token, session)))
    thread.start()
    time.sleep(delay)
    child = forked(lambda: run(token, session))
    thread.join()
    rounds.append([before, *found, outcome(*child), run(works, session)])
say(rounds)
""",
    )
    for before, ours, theirs, worked in said:
        assert ours == theirs != before
        assert worked
    assert refreshes(running) == len(said)


@pytest.mark.parametrize("how", HOWS)
def test_a_fork_in_the_middle_of_a_store_call_does_not_hang_the_child(
    how: str, running: Running
) -> None:
    said = program(
        running,
        how,
        """
run(session.login)
parent, entered, go = os.getpid(), threading.Event(), threading.Event()

class Slow(FileStore):
    def look_sync(self, key):
        if os.getpid() == parent:
            entered.set()
            go.wait(20)
        return super().look_sync(key)

slow = Session(endpoint=endpoint, auth_type="DeviceFlow", store=Slow())
found = []
thread = threading.Thread(target=lambda: found.append(run(token, slow)))
thread.start()
assert entered.wait(20)
child = forked(lambda: run(token, slow))
theirs = outcome(*child)
go.set()
thread.join()
say([*found, theirs])
""",
    )
    assert said[0] == said[1]


@pytest.mark.parametrize("how", HOWS)
def test_a_lock_that_another_thread_held_is_free_in_the_child(how: str, running: Running) -> None:
    said = program(
        running,
        how,
        """
from contextlib import ExitStack

store = MemoryStore()
memory = Session(endpoint=endpoint, auth_type="DeviceFlow", store=store)
run(memory.login)
run(session.settings)
transport = session._life._ready.transport
locks = [store._lock, memory._life.flights._mutex, transport._lock, transport._building]
held, go = threading.Event(), threading.Event()
def hold():
    with ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock)
        held.set()
        go.wait(40)
thread = threading.Thread(target=hold)
thread.start()
assert held.wait(20)
memory.reject(memory._life.held.record.token.access_token)
child = forked(lambda: [run(works, memory), run(session.login) is not None])
try:
    say(outcome(*child))
finally:
    go.set()
    thread.join()
""",
    )
    assert said == [True, True]


@pytest.mark.parametrize("how", HOWS)
def test_a_child_that_ends_in_the_usual_way_takes_nothing_along(how: str, running: Running) -> None:
    """It runs its finalizers, which must not touch what is the parent's."""
    said = program(
        running,
        how,
        """
run(session.login)
sys.stdout.flush()
if (child := os.fork()) == 0:
    assert run(works, session)
    run(session.aclose)
    raise SystemExit(7)
status = os.waitpid(child, 0)[1]
say([os.waitstatus_to_exitcode(status), run(works, session)])
run(session.aclose)
""",
    )
    assert said == [7, True]


@pytest.mark.parametrize("how", HOWS)
def test_a_command_of_the_parent_is_not_the_childs_to_wait_for(
    how: str, running: Running, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = f"if [ -e {tmp_path}/first ]; then echo second; exit; fi; touch {tmp_path}/first; cat {gate}"
    said = program(
        running,
        how,
        f"""
session = Session(
    endpoint=endpoint, auth_type="ExternalCommand", command=["/bin/sh", "-c", {script!r}]
)
found = []
thread = threading.Thread(target=lambda: found.append(run(token, session)))
thread.start()
deadline = time.monotonic() + 20
while not os.path.exists({str(tmp_path / "first")!r}) and time.monotonic() < deadline:
    time.sleep(0.01)
theirs = outcome(*forked(lambda: run(token, session)))
with open({str(gate)!r}, "w") as pipe:
    pipe.write("first")
thread.join()
say([*found, theirs])
""",
    )
    assert said == ["first", "second"]
