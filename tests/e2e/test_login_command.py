"""``flyteauth login`` with each of its options, and ``logout``, of this login and of all."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from flyteauth.cli import main
from flyteauth.devserver import visitor
from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings

from .conftest import BROWSER, DEADLINE, FLYTEAUTH, TOKEN, Ended, Home, Serve, login, read_until

PLAINTEXT: dict[str, Any] = {"PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring"}


def events(ended: Ended) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ended.out.splitlines()]


def token(home: Home, endpoint: str, *words: str) -> str:
    ended = home.run("token", "--endpoint", endpoint, *words)
    assert ended.status == 0, ended
    assert TOKEN.fullmatch(ended.out)
    return ended.out.strip()


def is_good(running: Running, access_token: str) -> bool:
    return running.plane.access(access_token, time.time()) is not None


# For programs.


@pytest.mark.req("DEV-14")
def test_events_are_lines_of_json_and_nothing_else_is_said(home: Home, serve: Serve) -> None:
    running = serve()
    words = ("login", "--endpoint", running.base_url, "--headless", "--json")
    ended = home.run(*words, BROWSER="false")
    assert ended.status == 0, ended
    said = events(ended)
    names = [event["event"] for event in said if event["event"] != "warned"]
    assert names == ["method_chosen", "code_needed", "logged_in"]
    assert next(event for event in said if "method" in event)["method"] == "device"
    assert said[-1]["subject"] == "alice"
    assert ended.err == ""
    assert token(home, running.base_url) not in ended.out


def test_a_failure_is_the_last_line_of_json_and_a_line_for_people(home: Home, serve: Serve) -> None:
    running = serve("deny")
    ended = home.run("login", "--endpoint", running.base_url, "--json", BROWSER=BROWSER)
    assert ended.status == 1
    last = events(ended)[-1]
    assert (last["event"], last["error"], last["reason"]) == (
        "failed",
        "OAuth2Error",
        "access_denied",
    )
    assert ended.err == f"flyteauth: {last['message']}\n"


def test_a_wrong_setting_is_a_line_of_json_as_well(home: Home) -> None:
    ended = home.run("login", "--json")
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    (last,) = events(ended)
    assert (last["event"], last["reason"]) == ("failed", "endpoint")


def test_a_reader_that_has_gone_ends_no_login(home: Home, serve: Serve) -> None:
    running = serve()
    script = f"exec {FLYTEAUTH} login --headless --json --endpoint {running.base_url} | head -1"
    ended = home.program(["/bin/bash", "-c", script], {})
    assert events(ended)
    assert "Traceback" not in ended.err
    assert token(home, running.base_url)


def test_a_control_plane_that_wants_no_login_says_so_in_json(home: Home, serve: Serve) -> None:
    running = serve("no-auth")
    ended = home.run("login", "--endpoint", running.base_url, "--json")
    assert (ended.status, ended.err) == (0, "")
    (said,) = events(ended)
    assert said == {
        "event": "no_login_wanted",
        "server": running.base_url.removeprefix("http://"),
    }


# In two steps.


def test_a_login_that_nobody_waits_for_is_gone_on_with(home: Home, serve: Serve) -> None:
    running = serve(approve="page")
    endpoint = ("--endpoint", running.base_url)
    begun = home.run("login", *endpoint, "--no-wait")
    assert (begun.status, begun.out) == (0, ""), begun
    found = re.search(r"http://\S+/activate\?user_code=\S+", begun.err)
    assert found, begun.err
    assert begun.err.splitlines()[-1].endswith(
        f"flyteauth login --resume --endpoint {running.base_url}"
    )
    home.run("token", *endpoint).failed_with(4)

    approved = home.run("login", *endpoint, "--no-wait", "--json")
    said = events(approved)
    assert said[-1] == {
        "event": "login_begun",
        "go_on": ["flyteauth", "login", "--resume", *endpoint],
    }
    (code,) = (event for event in said if event["event"] == "code_needed")
    visitor.visit(code["url_with_code"])
    resumed = home.run(*said[-1]["go_on"][1:])
    assert (resumed.status, resumed.out) == (0, ""), resumed
    assert token(home, running.base_url)
    home.run(*said[-1]["go_on"][1:]).failed_with(3, "--no-wait")


# Its options.


@pytest.mark.parametrize(
    "words",
    [
        ("--no-wait", "--resume"),
        ("--resume", "--switch"),
        ("--no-wait", "--switch"),
        ("--headless", "--auth-type", "pkce"),
    ],
)
def test_options_that_exclude_each_other_are_a_usage_error(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["login", "--endpoint", "localhost", *words])
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert "not allowed with" in err


def test_all_excludes_the_name_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["logout", "--all", "--account", "work"])
    assert caught.value.code == 2
    assert "--all" in capsys.readouterr().err


def test_an_endpoint_that_was_only_said_can_be_made_to_stick(home: Home, serve: Serve) -> None:
    running = serve()
    hint = f"flyteauth create config --endpoint {running.base_url}"
    assert hint in login(home, running.base_url).err
    said = login(home, running.base_url, "--headless", "--insecure").err
    assert f"{hint} --auth-type headless --insecure\n" in said
    home.write("flyte.yaml", "admin:\n  authType: Pkce\n")
    assert hint not in login(home, running.base_url, "--config", "flyte.yaml").err


def test_no_browser_is_opened_if_none_is_wanted(home: Home, serve: Serve) -> None:
    running, opened = serve(), home.path / "opened"
    words = ("login", "--endpoint", running.base_url, "--auth-type", "pkce", "--no-browser")
    with home.started(*words, BROWSER=f"touch {opened}") as process:
        shown = read_until(process.stderr, "/oauth2/authorize?")
        visitor.visit(shown.splitlines()[-1].strip())
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert not opened.exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--scopes", "offline,all"),
        ("--scopes", "offline all"),
        ("--scopes", "offline", "--scopes", "all"),
    ],
)
def test_scopes_are_asked_for_as_they_are_said(
    home: Home, calm: Running, words: tuple[str, ...]
) -> None:
    found = re.search(r"[?&]scope=([^&\s]+)", login(home, calm.base_url, *words).err)
    assert found
    assert set(found[1].split("%20")) == {"offline", "all"}
    found = re.search(r"[?&]scope=([^&\s]+)", login(home, calm.base_url, "--scopes", "offline").err)
    assert found
    assert found[1] == "offline"


def test_a_redirect_port_that_is_taken_names_who_has_it(home: Home, calm: Running) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = ("login", "--endpoint", calm.base_url)
        environ: dict[str, Any] = {"FLYTE_ADMIN_REDIRECTURI": f"http://localhost:{port}/callback"}
        ended = home.run(*words, BROWSER=BROWSER, **environ)
        assert f"process {os.getpid()}" in ended.err, ended
        assert str(port) in ended.err
        assert "Traceback" not in ended.err
        assert home.run(*words, "--headless", **environ).status == 0


def test_switch_has_the_server_ask_which_account(home: Home, serve: Serve) -> None:
    running = serve()
    assert "prompt=" not in login(home, running.base_url).err
    assert re.search(r"[?&]prompt=\w+", login(home, running.base_url, "--switch").err)


def test_two_accounts_in_two_shells_do_not_meet(home: Home, serve: Serve) -> None:
    """Which one is used is said by each call, and kept nowhere."""
    running = serve()
    endpoint = running.base_url
    login(home, endpoint, "--account", "work")
    login(home, endpoint, "--account", "home")
    work = token(home, endpoint, "--account", "work")
    private = token(home, endpoint, "--account", "home")
    assert work != private
    shells = {"work": work, "home": private}
    for account in ("work", "home", "work"):
        ended = home.run("token", "--endpoint", endpoint, FLYTE_ADMIN_ACCOUNT=account)
        assert ended.out.strip() == shells[account]
    home.run("token", "--endpoint", endpoint).failed_with(4)

    assert home.run("logout", "--endpoint", endpoint, "--account", "work").status == 0
    home.run("token", "--endpoint", endpoint, "--account", "work").failed_with(4)
    assert token(home, endpoint, "--account", "home") == private
    assert is_good(running, private)
    assert not is_good(running, work)


# Logging out.


def other_credentials(home: Home) -> dict[Path, bytes]:
    """What other programs keep here, and what the user has written."""
    for name in (".aws/credentials", ".flyte/config.yaml", ".local/share/other/token"):
        home.write(name, "admin:\n  authType: Pkce\n")
    return {
        path: path.read_bytes()
        for path in home.path.rglob("*")
        if path.is_file() and "flyteauth" not in path.parts
    }


@pytest.mark.req("REV-04")
def test_logout_tells_programs_what_came_of_it(home: Home, calm: Running) -> None:
    login(home, calm.base_url)
    ended = home.run("logout", "--endpoint", calm.base_url, "--json")
    assert (ended.status, ended.err) == (0, "")
    (said,) = events(ended)
    assert (said["event"], said["local_deleted"], said["remote_revoked"]) == (
        "logged_out",
        True,
        True,
    )


def test_a_login_that_nobody_can_read_goes_as_well_and_that_is_said(
    home: Home, calm: Running
) -> None:
    login(home, calm.base_url)
    (name,) = home.stored()
    next(home.path.rglob(name)).write_text(json.dumps({"key": "of another"}))
    ended = home.run("logout", "--endpoint", calm.base_url)
    assert ended.status == 0, ended
    assert "Logged out of" in ended.err
    assert "the server was not told" in ended.err
    assert home.stored() == {}


@pytest.mark.req("REV-06")
@pytest.mark.parametrize("everywhere", [False, True])
def test_nothing_is_left_although_the_server_takes_nothing_back(
    home: Home, serve: Serve, everywhere: bool
) -> None:
    running = serve("revoke-503")
    login(home, running.base_url)
    before = other_credentials(home)
    which = ("--all",) if everywhere else ("--endpoint", running.base_url)
    ended = home.run("logout", *which)
    assert (ended.status, ended.out) == (0, ""), ended
    assert "did not take its tokens back" in ended.err
    assert home.stored() == {}
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.req("REV-04", "REV-06")
@pytest.mark.parametrize("environ", [{}, PLAINTEXT])
def test_all_logins_go_and_each_is_taken_back_where_that_can_be(
    home: Home, calm: Running, serve: Serve, environ: dict[str, Any]
) -> None:
    with serving(Settings(approve="auto")) as gone:
        for words in (
            ("--endpoint", calm.base_url),
            ("--endpoint", calm.base_url, "--account", "work"),
            ("--endpoint", calm.base_url, "--scopes", "offline"),
            ("--endpoint", gone.base_url),
        ):
            assert home.run("login", *words, BROWSER=BROWSER, **environ).status == 0
    access = home.run("token", "--endpoint", calm.base_url, "--account", "work", **environ).out
    assert is_good(calm, access.strip())
    # Whatever this directory is configured for, it is about all of them.
    ended = home.run(
        "logout", "--all", FLYTE_ADMIN_ACCOUNT="else", FLYTE_ADMIN_CLIENTID="else", **environ
    )
    assert (ended.status, ended.out) == (0, ""), ended
    lines = sorted(line for line in ended.err.splitlines() if line.startswith("Logged out of "))
    assert len(lines) == 4
    assert sum("took its tokens back" in line for line in lines) == 3
    assert any("(account work)" in line for line in lines)
    assert not is_good(calm, access.strip())
    assert home.stored() == {}
    assert json.loads(home.run("accounts", "--json", **environ).out)["logins"] == []
    if environ:
        (kept,) = home.path.rglob("keyring_pass.cfg")
        assert "flyteauth" not in kept.read_text("utf-8").replace("[flyteauth]", "")
        assert access.strip() not in kept.read_text("utf-8")


def test_a_login_by_a_command_goes_with_the_rest(home: Home, calm: Running) -> None:
    """Nothing that is configured now could say what made it."""
    environ: dict[str, Any] = {
        "FLYTE_AUTH_TYPE": "ExternalCommand",
        "FLYTE_AUTH_COMMAND": "echo a-token-of-a-command",
        "FLYTE_ADMIN_TOKENSTORE": "file",
    }
    assert home.run("login", "--endpoint", calm.base_url, **environ).status == 0
    assert len(home.stored()) == 1
    ended = home.run("logout", "--all", "--json")
    assert ended.status == 0, ended
    (said,) = events(ended)
    assert (said["local_deleted"], said["remote_revoked"]) == (True, None)
    assert home.stored() == {}


def test_nothing_is_claimed_of_a_token_that_a_command_has_printed(home: Home) -> None:
    """Not even a server is there that could take it."""
    environ: dict[str, Any] = {
        "FLYTE_AUTH_TYPE": "ExternalCommand",
        "FLYTE_AUTH_COMMAND": "echo a-token-of-a-command",
    }
    ended = home.run("login", "--endpoint", "http://localhost:1", **environ)
    assert (ended.status, ended.out) == (0, "")
    assert "The command has given a token for localhost:1" in ended.err
    assert "run: flyteauth doctor" in ended.err
    for claim in ("Logged in", "renews itself"):
        assert claim not in ended.err


def test_what_cannot_be_read_stays_and_keeps_no_other_from_going(home: Home, calm: Running) -> None:
    login(home, calm.base_url)
    (there,) = (path for path in home.path.rglob("logins/*"))
    damaged = there.with_name("0" * 64)
    shutil.copy(there, damaged)
    damaged.write_bytes(b"no login")
    ended = home.run("logout", "--all")
    assert ended.status == 1
    assert "not logged out" in ended.err
    assert "Traceback" not in ended.err
    assert set(home.stored()) == {damaged.name}


def test_where_nobody_is_logged_in_all_is_nothing(home: Home) -> None:
    ended = home.run("logout", "--all")
    assert (ended.status, ended.out) == (0, "")
    assert ended.err == "No login is kept on this machine.\n"
    assert list(home.path.iterdir()) == []


def test_all_works_beside_a_configuration_that_is_broken(home: Home, calm: Running) -> None:
    login(home, calm.base_url)
    home.write(".flyte/config.yaml", "admin: [\n")
    ended = home.run("logout", "--all")
    assert ended.status == 0, ended
    assert home.stored() == {}
    assert os.fspath(home.path / ".flyte") in ended.err
