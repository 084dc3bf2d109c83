"""The real flyte SDK with a session of ours in the same process, seen from the control plane."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings

from ..services import require
from .conftest import BROWSER, Ended, Home
from .flyte_tool import DEADLINE, calls, grants

# What each program begins with: a session that nobody is logged in to yet, and calls.
PREAMBLE = """\
import asyncio, json, os, sys, urllib.parse, urllib.request
from concurrent.futures import ThreadPoolExecutor

import flyte
from flyte import remote

import flyteauth
from flyteauth.integrations.flyte import *

ENDPOINT = {"endpoint": os.environ["ENDPOINT"], "ca_cert_file_path": os.environ["CA"]}


def session(**arguments):
    arguments = {"interactive": lambda: True, "token_store": "file", **ENDPOINT, **arguments}
    return flyteauth.Session(redirect_uri="http://localhost/callback", **arguments)


def projects():
    return [project.pb2.id for project in remote.Project.listall()]


async def aprojects():
    return [project.pb2.id async for project in remote.Project.listall.aio()]


def take_back(token):
    form = {"token": token, "token_type_hint": "access_token", "client_id": "flytectl"}
    data = urllib.parse.urlencode(form).encode()
    urllib.request.urlopen(f"{os.environ['ISSUER']}/oauth2/revoke", data, timeout=10).close()


def say(value):
    print(json.dumps(value))

"""


@pytest.fixture
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    faults = frozenset(getattr(request, "param", ()))
    with serving(Settings(approve="auto", faults=faults), tls=True) as running:
        yield running


def ended(home: Home, running: Running, program: str, **environ: str) -> Ended:
    home.write("program.py", PREAMBLE + program)
    environ = {
        "ENDPOINT": running.endpoint,
        "CA": str(running.ca_file),
        "ISSUER": running.base_url,
        "DO_NOT_TRACK": "1",
        "BROWSER": BROWSER,
        "PYTHONWARNINGS": "default",
        **environ,
    }
    return home.program([str(require("flyte")), "program.py"], environ, DEADLINE)


def said(home: Home, running: Running, program: str, **environ: str) -> Any:
    """What the program says, as JSON on its last line.

    It leaves no interpreter to end: flyte's HTTP client has threads of its own, written in Rust, that
    sometimes abort a Python that ends while they want to call it.
    """
    at_once = "\nsys.stdout.flush()\nos._exit(0)\n"
    result = ended(home, running, program + at_once, **environ)
    assert result.status == 0, result
    return json.loads(result.out.splitlines()[-1])


# Installed: a private seam of versions that are known.


def test_init_uses_the_session_within_and_what_was_made_within_afterwards(
    home: Home, running: Running
) -> None:
    program = """
with installed(session()):
    flyte.init(**ENDPOINT)
    within = projects()
say([within, projects()])
"""
    within, afterwards = said(home, running, program)
    assert within == afterwards != []
    assert calls(running) == {(200, "authorization"): 2}
    assert grants(running) == {"authorization_code": 1}


def test_twenty_cold_calls_at_once_are_one_login_and_none_is_refused(
    home: Home, running: Running
) -> None:
    program = """
async def main():
    async with installed(session()):
        await flyte.init.aio(**ENDPOINT)
        return await asyncio.gather(*(aprojects() for _ in range(20)))
say(asyncio.run(main()))
"""
    results = said(home, running, program)
    assert len(results) == 20
    assert all(results)
    assert calls(running) == {(200, "authorization"): 20}
    assert grants(running) == {"authorization_code": 1}


def test_headless_is_one_device_flow_for_twenty_threads(home: Home, running: Running) -> None:
    program = """
with installed(session(headless=True)), ThreadPoolExecutor(20) as pool:
    flyte.init(headless=True, **ENDPOINT)
    say([len(future.result()) for future in [pool.submit(projects) for _ in range(20)]])
"""
    results = said(home, running, program)
    assert len(results) == 20
    assert all(results)
    assert calls(running) == {(200, "authorization"): 20}
    assert grants(running) == {"device_code": 1}


def test_twenty_refused_calls_are_one_refresh(home: Home, running: Running) -> None:
    program = """
async def main():
    ours = session()
    async with installed(ours):
        await flyte.init.aio(**ENDPOINT)
        await aprojects()
        take_back((await ours.token()).access_token)
        return await asyncio.gather(*(aprojects() for _ in range(20)))
say(asyncio.run(main()))
"""
    results = said(home, running, program)
    assert len(results) == 20
    assert all(results)
    assert grants(running) == {"authorization_code": 1, "refresh_token": 1}
    statuses = calls(running)
    assert statuses[200, "authorization"] == 21
    assert statuses.total() - 21 == statuses[401, "authorization"] <= 20


@pytest.mark.parametrize("running", [("custom-header-key",)], indirect=True)
def test_the_token_goes_into_the_header_that_the_control_plane_wants(
    home: Home, running: Running
) -> None:
    program = """
with installed(session()):
    flyte.init(**ENDPOINT)
    say(projects())
"""
    assert said(home, running, program)
    assert calls(running) == {(200, "flyte-authorization"): 1}


def test_all_kinds_of_calls_ask_one_authenticator_and_a_stream_has_its_token(
    home: Home, running: Running
) -> None:
    program = """
from flyte._initialize import get_client
from flyteidl2.workflow.run_service_connect import RunServiceClient
from flyteidl2.workflow.run_service_pb2 import WatchRunDetailsRequest

async def main():
    async with installed(session()):
        await flyte.init.aio(**ENDPOINT)
        config = get_client().session_config
        client = RunServiceClient(**config.connect_kwargs())
        try:
            async for _ in client.watch_run_details(WatchRunDetailsRequest()):
                pass
        except Exception as error:
            pass
        auth = [each for each in config.interceptors if hasattr(each, "authenticator")]
        return [type(each).__name__ for each in auth], len({id(each.authenticator) for each in auth})
say(asyncio.run(main()))
"""
    kinds, authenticators = said(home, running, program)
    assert len(kinds) == len(set(kinds)) == 4
    assert authenticators == 1
    (entry,) = [e for e in running.plane.journal if e.path.endswith("/WatchRunDetails")]
    assert entry.credential == "authorization"


def test_another_endpoint_gets_nothing_of_the_session(home: Home, running: Running) -> None:
    program = """
with installed(session()):
    flyte.init(**ENDPOINT)
    mine = projects()
    other = {"endpoint": os.environ["OTHER"], "ca_cert_file_path": os.environ["OTHER_CA"]}
    flyte.init(auth_type="ExternalCommand", command=["false"], **other)
    try:
        projects()
    except Exception as error:
        say([len(mine), type(error).__name__])
"""
    with serving(Settings(approve="auto"), tls=True) as other:
        environ = {"OTHER": other.endpoint, "OTHER_CA": str(other.ca_file)}
        count, failure = said(home, running, program, **environ)
        assert count
        assert failure == "AuthenticationError"
        assert calls(other) == {(401, None): 1}


def test_two_sessions_side_by_side_and_afterwards_flyte_is_as_it_was(
    home: Home, running: Running
) -> None:
    program = """
from flyte.remote._client.auth import _session as seam
before = seam.create_auth_interceptors
other = {"endpoint": os.environ["OTHER"], "ca_cert_file_path": os.environ["OTHER_CA"]}
first, second = installed(session()), installed(session(**other))
with first:
    second.__enter__()
flyte.init(**other)
found = projects()
second.__exit__(None, None, None)
say([len(found), seam.create_auth_interceptors is before])
"""
    with serving(Settings(approve="auto"), tls=True) as other:
        environ = {"OTHER": other.endpoint, "OTHER_CA": str(other.ca_file)}
        count, restored = said(home, running, program, **environ)
        assert count
        assert restored
        assert calls(other) == {(200, "authorization"): 1}
        assert calls(running) == {}


def test_without_a_login_and_a_person_the_call_says_what_to_do(
    home: Home, running: Running
) -> None:
    program = """
with installed(session(interactive=False)):
    flyte.init(**ENDPOINT)
    try:
        projects()
    except flyteauth.InteractionRequired as error:
        say(str(error))
"""
    assert "run: flyteauth login" in said(home, running, program)
    assert calls(running) == {}


def test_a_version_that_nobody_has_tried_is_refused_with_what_works(
    home: Home, running: Running
) -> None:
    program = """
import flyteauth.integrations.flyte as ours
ours.KNOWN = frozenset({"1.2.3"})
try:
    installed(session()).__enter__()
except flyteauth.ConfigError as error:
    say(str(error))
"""
    message = said(home, running, program)
    assert "only with 1.2.3; use external_command(session)" in message


# By public means.


def test_a_scope_s_calls_have_the_token_and_a_refused_one_is_not_used_again(
    home: Home, running: Running
) -> None:
    program = """
async def main():
    ours = session()
    flyte.init(**passthrough(await ours.settings()))
    async with auth_metadata(ours):
        found = await aprojects()
    take_back((await ours.token()).access_token)
    try:
        async with auth_metadata(ours):
            await aprojects()
    except Exception as error:
        failure = error.code.name
    async with auth_metadata(ours):
        again = await aprojects()
    return [found == again, failure]
say(asyncio.run(main()))
"""
    assert said(home, running, program) == [True, "UNAUTHENTICATED"]
    assert grants(running) == {"authorization_code": 1, "refresh_token": 1}
    statuses = calls(running)
    assert statuses[200, "authorization"] == 2
    assert statuses[401, None] == 0


def test_a_program_without_an_event_loop_does_the_same(home: Home, running: Running) -> None:
    program = """
ours = flyteauth.SyncSession(of=session())
flyte.init(**passthrough(ours.settings()))
with auth_metadata(ours):
    say(projects())
"""
    assert said(home, running, program)
    assert calls(running) == {(200, "authorization"): 1}


def test_flyte_asks_our_command_and_gets_the_login_of_the_session(
    home: Home, running: Running
) -> None:
    program = """
async def main():
    ours = session()
    await ours.login()
    async with external_command(ours) as arguments:
        await flyte.init.aio(**arguments)
        found = await aprojects()
    return [found, arguments["command"]]
found, command = asyncio.run(main())
say([len(found), os.path.exists(command[command.index("--config") + 1])])
"""
    count, is_there = said(home, running, program)
    assert count
    assert not is_there
    assert calls(running) == {(401, None): 1, (200, "authorization"): 1}
    assert grants(running) == {"authorization_code": 1}


def test_a_login_that_only_this_process_has_is_no_login_for_a_command(
    home: Home, running: Running
) -> None:
    program = """
ours = flyteauth.SyncSession(of=session(token_store="memory"))
ours.login()
try:
    external_command(ours).__enter__()
except flyteauth.StoreError as error:
    say(str(error))
"""
    assert "no tool can use it from there" in said(home, running, program)


def test_flyte_s_own_login_is_as_the_session_is_configured(home: Home, running: Running) -> None:
    """Its listener is at the redirect URI of our settings: nobody has told flyte of another."""
    with socket.create_server(("localhost", 0)) as found:
        port = found.getsockname()[1]
    program = """
uri = f"http://localhost:{os.environ['PORT']}/callback"
ours = flyteauth.SyncSession(redirect_uri=uri, scopes=["all", "offline"], **ENDPOINT)
config = client_config(ours.settings())
flyte.init(auth_client_config=config, disable_keyring=True, **ENDPOINT)
say([projects(), config.redirect_uri == uri, config.scopes])
"""
    # flyte waits for the browser to end on the event loop that has to answer it.
    environ = {"PORT": str(port), "BROWSER": f"{BROWSER} &"}
    found_projects, same, scopes = said(home, running, program, **environ)
    assert found_projects
    assert same
    assert scopes == ["all", "offline"]
    assert grants(running) == {"authorization_code": 1}
