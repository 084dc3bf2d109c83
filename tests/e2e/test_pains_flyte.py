"""
What hurts users of the real flyte today (rows F1 to F11), with flyteauth in its place.

The control plane is asked what has happened: which calls were refused, how often somebody logged
in, and how many tokens were asked for.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from attrs import evolve

from .conftest import Home
from .flyte_tool import Tool, plane

# Lists the projects twenty times at once, in one process.
TWENTY = """\
import asyncio, json
import flyte
from flyte import remote

async def one():
    return [project.pb2.id async for project in remote.Project.listall.aio()]

async def main():
    await flyte.init_from_config.aio()
    print(json.dumps(await asyncio.gather(*(one() for _ in range(20)))))

asyncio.run(main())
"""
PROCESSES = 6


@pytest.fixture
def start(home: Home) -> Any:
    """A control plane with the faults and settings that it is called with, and flyte for it, which
    asks us for tokens; somebody is logged in.
    """
    with ExitStack() as stack:

        def start(*faults: str, logged_in: bool = True, **settings: Any) -> Tool:
            tool = Tool(home, stack.enter_context(plane(*faults, **settings)))
            tool.configure(name=".flyte/login.yaml", authType="Pkce", tokenStore="file")
            command = [str(tool.bin / "flyteauth"), "token", "--verify"]
            ours = str(home.path / ".flyte" / "login.yaml")
            tool.configure(
                authType="ExternalCommand",
                command=[*command, "--config", ours],
                disableKeyring=True,
            )
            if logged_in:
                tool.good("login", "--config", ours, program="flyteauth")
                tool.running.plane.journal.clear()
            return tool

        yield start


Start = Callable[..., Tool]


def twenty(tool: Tool, program: str = TWENTY) -> list[list[str]]:
    tool.home.write("twenty.py", program)
    said = tool.good("twenty.py", program="python")
    results: list[list[str]] = json.loads(said.splitlines()[0])
    return results


def test_f1_a_stray_request_to_the_callback_port_freezes_nothing(home: Home, start: Start) -> None:
    """F1: there, a favicon before the code freezes the event loop for ever."""
    tool = start(logged_in=False)
    browser = home.write(
        "browser.py",
        "import sys, urllib.error, urllib.parse, urllib.request\n"
        "url = sys.argv[1]\n"
        "query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)\n"
        "where = urllib.parse.urlsplit(query['redirect_uri'][0])\n"
        "for path in ('/favicon.ico', '/', where.path, f'{where.path}?code=x&state=wrong'):\n"
        "    try: urllib.request.urlopen(f'http://{where.netloc}{path}', timeout=10).close()\n"
        "    except urllib.error.HTTPError as error: error.close()\n"
        "urllib.request.urlopen(url, timeout=10).close()\n",
    )
    begun = time.monotonic()
    ended = tool("login", BROWSER=f"{sys.executable} {browser} %s")
    assert ended.status == 0, ended
    assert time.monotonic() - begun < 30
    assert "flytesnacks" in tool.good("get", "project")
    assert tool.grants() == {"authorization_code": 1}


def test_f2_a_denied_login_ends_at_once(start: Start) -> None:
    """F2: there, it never returns."""
    tool = start("deny", logged_in=False)
    ended = tool("login")
    assert ended.status == 1
    assert "denied" in ended.err
    assert "Traceback" not in ended.err
    assert tool.home.stored() == {}


def test_f3_f4_a_refresh_that_fails_for_now_keeps_the_login_and_opens_no_browser(
    start: Start,
) -> None:
    """F3, F4: there, the stored tokens are deleted, and a browser opens."""
    tool = start("refresh-503", access_ttl=2.0)
    before = tool.home.stored()
    assert before
    _until_expired(tool)
    ended = tool("get", "project")
    assert ended.status != 0
    assert "try again" in ended.out + ended.err
    assert tool.home.stored() == before
    assert tool.pages() == 0
    assert set(tool.grants()) == {"refresh_token"}


def test_f5_a_refresh_without_a_new_refresh_token_keeps_the_old_one(start: Start) -> None:
    """F5: there, the refresh token is lost after the first refresh."""
    tool = start("refresh-no-rotation-field", access_ttl=2.0)
    for _ in range(3):
        _until_expired(tool)
        assert "flytesnacks" in tool.good("get", "project")
        assert tool.grants() == {"refresh_token": 1}
        assert tool.pages() == 0


def test_f6_six_processes_with_one_expired_login_are_one_refresh(start: Start) -> None:
    """F6: there, one of them refreshes and the other five open a browser."""
    tool = start(access_ttl=2.0)
    _until_expired(tool)
    _let_tokens_live(tool)
    argv = [str(tool.bin / "flyte"), "get", "project"]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(tool.home.executed(argv, **tool.environ()))
            for _ in range(PROCESSES)
        ]
        outcomes = [
            (*process.communicate(timeout=120), process.returncode) for process in processes
        ]
    assert [status for _, _, status in outcomes] == [0] * PROCESSES, outcomes
    assert all("flytesnacks" in out for out, _, _ in outcomes)
    assert tool.pages() == 0
    assert tool.grants() == {"refresh_token": 1}
    assert tool.calls() == {(401, None): PROCESSES, (200, "authorization"): PROCESSES}


def test_twenty_cold_calls_that_ask_our_command_are_no_login_and_no_refresh(start: Start) -> None:
    """Wire §1.4: there, DeviceFlow refreshes nineteen times. That the command is run for each call
    that was refused is flyte's; they all come to the same token.
    """
    tool = start()
    assert all("flytesnacks" in names for names in twenty(tool))
    assert tool.calls() == {(401, None): 20, (200, "authorization"): 20}
    assert tool.grants() == {}
    assert tool.pages() == 0


def test_twenty_cold_calls_with_an_expired_token_are_one_refresh(start: Start) -> None:
    tool = start(access_ttl=2.0)
    _until_expired(tool)
    _let_tokens_live(tool)
    assert all("flytesnacks" in names for names in twenty(tool))
    assert tool.grants() == {"refresh_token": 1}
    assert tool.pages() == 0


def test_twenty_cold_calls_with_a_session_in_the_process_run_one_command(start: Start) -> None:
    """One command, no call without a token, where the session is in flyte's place."""
    tool = start()
    runs = tool.home.path / "runs"
    ours = tool.home.path / ".flyte" / "login.yaml"
    script = tool.home.write(
        "command.py",
        "import pathlib, subprocess, sys\n"
        f"with pathlib.Path({str(runs)!r}).open('a') as file: file.write('run\\n')\n"
        f"subprocess.run([{str(tool.bin / 'flyteauth')!r}, 'token', '--config', {str(ours)!r}])\n",
    )
    program = TWENTY.replace(
        "    await flyte.init_from_config.aio()\n",
        f"    tls = {{'endpoint': {tool.running.endpoint!r},\n"
        f"           'ca_cert_file_path': {str(tool.running.ca_file)!r}}}\n"
        "    session = flyteauth.Session(auth_type='ExternalCommand',\n"
        f"        command=[sys.executable, {str(script)!r}], **tls)\n"
        "    await stack.enter_async_context(installed(session))\n"
        "    await flyte.init.aio(**tls)\n",
    )
    program = program.replace("async def main():\n", "async def main(stack):\n").replace(
        "asyncio.run(main())",
        "async def everything():\n"
        "    async with contextlib.AsyncExitStack() as stack:\n"
        "        await main(stack)\n\n"
        "asyncio.run(everything())",
    )
    program = (
        "import contextlib, sys\nimport flyteauth\n"
        "from flyteauth.integrations.flyte import installed\n" + program
    )
    assert all("flytesnacks" in names for names in twenty(tool, program))
    assert runs.read_text() == "run\n"
    assert tool.calls() == {(200, "authorization"): 20}
    assert tool.grants() == {}


def test_f9_a_command_that_hangs_has_a_deadline_and_leaves_nothing(start: Start) -> None:
    """F9: there, a command has no deadline, and lives on when it is cancelled."""
    tool = start()
    pids = tool.home.path / "pids"
    script = tool.home.write(
        "hang.py",
        "import os, pathlib, signal\n"
        f"pathlib.Path({str(pids)!r}).write_text(str(os.getpid()))\n"
        "signal.pause()\n",
    )
    tool.configure(
        name="hang.yaml",
        authType="ExternalCommand",
        command=[sys.executable, str(script)],
        commandTimeout=1,
    )
    begun = time.monotonic()
    ended = tool.flyteauth("token", "--config", "hang.yaml")
    assert ended.status == 1
    assert "1 s" in ended.err
    assert time.monotonic() - begun < 20
    gone = subprocess.run(["ps", "-p", pids.read_text()], capture_output=True, check=False)
    assert gone.returncode == 1


def test_f10_an_api_key_with_scheme_and_port_is_read_right_and_said_to_be_ours_alone(
    start: Start,
) -> None:
    """F10: there, it is cut in the wrong places."""
    tool = start()
    key = tool.running.api_key
    assert "flytesnacks" in tool.good("get", "project", program="flyteauth", FLYTE_API_KEY=key)
    created = tool.flyteauth(
        *("--config", ".flyte/login.yaml", "create", "api-key", "--name", "with-a-port")
    )
    assert created.status == 0
    assert "not usable by flyte.init(api_key=)" in created.err


def test_f11_a_new_process_knows_when_its_token_has_expired(start: Start) -> None:
    """F11: there, each process learns it from a 401."""
    tool = start(access_ttl=2.0)
    _until_expired(tool)
    listed = tool.good(
        *("--config", ".flyte/login.yaml", "get", "project", "--json"), program="flyteauth"
    )
    assert "flytesnacks" in listed
    assert tool.calls() == {(200, "authorization"): 1}
    assert tool.grants() == {"refresh_token": 1}


def _let_tokens_live(tool: Tool) -> None:
    """From now on, for half an hour: so that a slow machine makes no second refresh of them."""
    server = tool.running.plane._server
    server.settings = evolve(server.settings, access_ttl=1800.0)


def _until_expired(tool: Tool) -> None:
    """Wait until the control plane takes the stored token no more, and forget that."""
    token = tool.good("token", "--config", ".flyte/login.yaml", "--json", program="flyteauth")
    held = json.loads(token.splitlines()[0])
    wait = held["expires_at"] - time.time()
    if wait > 0:
        time.sleep(wait + 0.05)
    request = urllib.request.Request(
        f"{tool.running.base_url}/me", headers={"authorization": f"Bearer {held['access_token']}"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    refused.value.close()
    assert refused.value.code == 401
    tool.running.plane.journal.clear()
