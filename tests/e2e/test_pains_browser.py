"""Browsers that do not open, launchers that say so falsely, and notebooks instead of a terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flyteauth.devserver import visitor
from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings

from .conftest import DEADLINE, TOKEN, Home, Serve, read_until

SHOWN = "/oauth2/authorize?"
NOISE = "Gtk-WARNING **: cannot open display"

# What stands for a launcher: it notes what it was called with.
NOTING = 'for word in "$0" "$@"; do printf "%s\\n" "$word"; done >>"$HOME/called"\n'
VISITING = f'exec "{sys.executable}" -m flyteauth.devserver.visitor "$url"\n'


@pytest.fixture(scope="module")
def calm() -> Iterator[Running]:
    with serving(Settings(approve="auto")) as running:
        yield running


def program(home: Home, name: str, script: str) -> Path:
    path = home.write(f"bin/{name}", f"#!/bin/sh\n{NOTING}{script}")
    path.chmod(0o755)
    return path


def path_of(home: Home) -> str:
    """A PATH where nothing opens a browser but what is in ``bin``."""
    tools = home.path / "tools"
    tools.mkdir()
    for name in ("sh", "sleep"):
        (tools / name).symlink_to(f"/bin/{name}")
    return f"{home.path}/bin{os.pathsep}{tools}"


def called(home: Home) -> list[str]:
    try:
        return (home.path / "called").read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []


def url_in(shown: str) -> str:
    found = re.findall(rf"http://\S+{re.escape(SHOWN)}\S+", shown)
    assert len(found) == 1, shown
    return str(found[0])


# Launchers.


@pytest.mark.req("AZR-14", "AZR-16")
@pytest.mark.parametrize(
    ("launcher", "script"),
    [
        ("says that it worked", "exit 0\n"),
        ("says that it did not", "exit 3\n"),
        ("hangs", 'echo $$ >"$HOME/hanging"; exec sleep 60\n'),
        ("is noisy", f'echo "{NOISE}"; echo "{NOISE}" >&2; exit 0\n'),
        ("is not there", None),
    ],
)
def test_the_address_is_shown_and_the_login_goes_on_whatever_a_launcher_does(
    home: Home, calm: Running, launcher: str, script: str | None
) -> None:
    """Row 27."""
    if script is not None:
        program(home, "xdg-open", script)
    environ: dict[str, Any] = {"PATH": path_of(home), "DISPLAY": ":9"}
    words = ("login", "--endpoint", calm.base_url)
    with home.started(*words, **environ) as process:
        began = time.monotonic()
        shown = read_until(process.stderr, SHOWN)
        visitor.visit(url_in(shown))
        out, rest = process.communicate(timeout=DEADLINE)
    with suppress(FileNotFoundError):
        os.kill(int((home.path / "hanging").read_text()), signal.SIGKILL)
    assert (process.returncode, out) == (0, ""), rest
    assert time.monotonic() - began < 10.0
    assert "Logged in to " in rest
    assert NOISE not in shown + rest
    assert "If no page appears, open this address" in shown or script is None
    assert TOKEN.fullmatch(home.run("token", "--endpoint", calm.base_url).out)


def test_ctrl_c_ends_a_launcher_that_hangs(home: Home, calm: Running) -> None:
    """Row 27."""
    program(home, "xdg-open", 'echo $$ >"$HOME/hanging"; exec sleep 60\n')
    environ: dict[str, Any] = {"PATH": path_of(home), "DISPLAY": ":9"}
    with home.started("login", "--endpoint", calm.base_url, **environ) as process:
        read_until(process.stderr, SHOWN)
        until = time.monotonic() + DEADLINE
        while not (home.path / "hanging").exists() or not (home.path / "hanging").read_text():
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    launcher = int((home.path / "hanging").read_text())
    while _runs(launcher):
        assert time.monotonic() < until
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or " Z " not in state.read_text("utf-8")


@pytest.mark.parametrize("environ", [{"BROWSER": "w3m"}, {"BROWSER": "/usr/bin/lynx:links %s"}])
def test_a_text_browser_is_not_given_the_terminal(
    home: Home, calm: Running, environ: dict[str, Any]
) -> None:
    """Row 27."""
    for name in ("w3m", "links"):
        program(home, name, "exit 0\n")
    words = ("login", "--endpoint", calm.base_url)
    ended = home.run(*words, **environ, PATH=path_of(home))
    assert (ended.status, ended.out) == (0, ""), ended
    assert "by device code" in ended.err
    assert called(home) == []


def test_inside_windows_it_is_the_browser_of_windows(home: Home, calm: Running) -> None:
    """Row 27."""
    program(home, "xdg-open", "exit 0\n")
    wslview = program(home, "wslview", f'url="$1"\n{VISITING}')
    environ: dict[str, Any] = {"PATH": path_of(home), "WSL_DISTRO_NAME": "Debian", "DISPLAY": ":0"}
    ended = home.run("login", "--endpoint", calm.base_url, **environ)
    assert (ended.status, ended.out) == (0, ""), ended
    assert called(home) == [str(wslview), url_in(ended.err)]


# A browser of the user's own choice.


@pytest.mark.req("AZR-14")
@pytest.mark.parametrize("where", ["configuration", "browserCommand", "BROWSER"])
def test_a_command_of_ones_own_is_run_as_it_is_and_by_no_shell(
    home: Home, calm: Running, where: str
) -> None:
    """Row 28."""
    for other in ("xdg-open", "firefox"):
        program(home, other, "exit 0\n")
    words = ["--profile-directory=Work & Home", "$(touch hacked); *", "--url={url}"]
    opener = str(program(home, "opener", f'url="${{3#--url=}}"\n{VISITING}'))
    environ: dict[str, Any] = {"DISPLAY": ":9", "PATH": path_of(home)}
    match where:
        case "configuration":
            admin = {"endpoint": calm.base_url, "browserCommand": [opener, *words]}
            home.write(".flyte/config.yaml", json.dumps({"admin": admin}))
        case "browserCommand":
            environ["FLYTE_ADMIN_BROWSERCOMMAND"] = json.dumps([opener, *words])
        case _:
            quoted = " ".join(f"'{word}'" for word in [opener, *words])
            environ["BROWSER"] = quoted.replace("{url}", "%s")
    ended = home.run("login", "--endpoint", calm.base_url, **environ)
    assert (ended.status, ended.out) == (0, ""), ended
    url = url_in(ended.err)
    assert called(home) == [opener, *(word.replace("{url}", url) for word in words)]
    assert not (home.path / "hacked").exists()


def test_no_browser_means_none_not_even_the_configured_one(home: Home, calm: Running) -> None:
    """Row 28."""
    opener = program(home, "opener", "exit 0\n")
    environ: dict[str, Any] = {"FLYTE_ADMIN_BROWSERCOMMAND": json.dumps([str(opener)])}
    words = ("login", "--endpoint", calm.base_url, "--no-browser")
    with home.started(*words, **environ) as process:
        shown = read_until(process.stderr, SHOWN)
        visitor.visit(url_in(shown))
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert "open this address in a browser on this machine" in shown
    assert called(home) == []


# Notebooks.

KERNEL = """\
import asyncio, json, sys
from types import ModuleType

from flyteauth.session import Session

class Shell:
    kernel = object()

def display(data, *, raw, display_id=None, update=False):
    print(json.dumps({"id": display_id, "update": update, **data}), flush=True)

ipython, shown = ModuleType("IPython"), ModuleType("IPython.display")
ipython.get_ipython, shown.display = Shell, display
sys.modules |= {"IPython": ipython, "IPython.display": shown}

async def cell():
    async with Session(endpoint=sys.argv[1], interactive=True) as session:
        token = await session.token()
        print(json.dumps({"token": token.access_token}), flush=True)

asyncio.run(cell())
"""


def test_in_a_notebook_link_code_and_state_are_in_the_cell(home: Home, serve: Serve) -> None:
    """Row 42. Nobody is at a terminal, and nothing is said there."""
    running = serve(approve="page")
    home.write("kernel.py", KERNEL)
    argv = [sys.executable, "kernel.py", running.base_url]
    seen: list[dict[str, Any]] = []
    with home.executed(argv, JPY_PARENT_PID="1") as process:
        assert process.stdout is not None
        for line in process.stdout:
            seen.append(json.loads(line))
            shown = seen[-1].get("text/html", "")
            if "Waiting for you" in shown and not any("visited" in each for each in seen):
                (link,) = re.findall(r'href="([^"]+/activate\?user_code=[^"]+)"', shown)
                assert re.search(r"<code[^>]*>[A-Z]{4}-[A-Z]{4}</code>", shown), shown
                visitor.visit(link)
                seen.append({"visited": True})
        assert process.stderr is not None
        err = process.stderr.read()
    assert (process.wait(DEADLINE), err) == (0, "")
    *cards, said = (each for each in seen if "visited" not in each)
    assert TOKEN.fullmatch(said["token"] + "\n")
    assert len({card["id"] for card in cards if card["id"]}) == 1
    assert "user_code" not in cards[-1]["text/html"]
    assert "Logged in to " in cards[-1]["text/plain"]
