"""``create config --for``: a tool asks us for tokens, we know how to log in, and nobody asks in
circles.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from flyteauth.devserver.serve import Running

from .conftest import BROWSER, FLYTEAUTH, TOKEN, Ended, Home, login
from .test_create_config import FILE, create, written

OURS = ".flyte/config.flyteauth.yaml"
ENDPOINT = "https://flyte.example.com"


def command(home: Home, name: str = FILE) -> list[str]:
    words = admin(home, name)["command"]
    assert isinstance(words, list)
    return words


def admin(home: Home, name: str = FILE) -> dict[str, Any]:
    document = written(home, name)
    assert isinstance(document, dict)
    section: dict[str, Any] = document["admin"]
    return section


def as_a_tool(home: Home, folder: Path) -> Ended:
    """What a tool does: it runs the command, from wherever it happens to be."""
    words = shlex.join(command(home))
    return home.program(["/bin/sh", "-c", f"cd {shlex.quote(str(folder))} && exec {words}"], {})


# What is written.


@pytest.mark.parametrize("tool", ["flyte", "flytekit"])
def test_a_tool_s_file_has_what_it_reads_and_ours_how_to_log_in(home: Home, tool: str) -> None:
    words = ("--auth-type", "headless", "--client-id", "me", "--project", "p", "--for", tool)
    ended = create(home, "--endpoint", ENDPOINT, *words)
    assert (ended.status, ended.out) == (0, "")
    assert ended.err.endswith("Next: flyteauth login\n")
    ours = home.path / OURS
    assert written(home, OURS) == {
        "admin": {
            "authType": "DeviceFlow",
            "endpoint": "dns:///flyte.example.com",
            "clientId": "me",
        }
    }
    assert written(home) == {
        "admin": {
            "endpoint": "dns:///flyte.example.com",
            "authType": "ExternalCommand",
            "command": [FLYTEAUTH, "token", "--verify", "--config", str(ours)],
            "disableKeyring": True,
        },
        "image": {"builder": "local"},
        "task": {"project": "p"},
    }


def test_flytectl_gets_no_key_that_it_would_refuse(home: Home) -> None:
    words = ("--endpoint", ENDPOINT, "--project", "p", "--for", "flytectl", "-o", "ctl.yaml")
    assert create(home, *words).status == 0
    assert written(home, "ctl.yaml") == {
        "admin": {
            "endpoint": "dns:///flyte.example.com",
            "authType": "ExternalCommand",
            "command": command(home, "ctl.yaml"),
        }
    }
    assert create(home, "-o", "ctl.yaml", "--domain", "d", "--force").status == 0
    assert set(admin(home, "ctl.yaml")) == {"endpoint", "authType", "command"}


def test_what_both_need_to_reach_the_server_is_in_both_files(home: Home, calm: Running) -> None:
    home.write("ca.pem", "")
    old = "admin: {endpoint: dns:///old.example.com, rpcRetries: 7, httpProxyURL: http://proxy:3128}\n"
    home.write(FILE, f"{old}storage: {{type: s3}}\n")
    words = ("--endpoint", "localhost:8080", "--insecure", "--for", "flyte", "--force")
    ended = create(home, *words)
    assert ended.status == 0, ended
    both = {
        "endpoint": "dns:///localhost:8080",
        "insecure": True,
        "httpProxyURL": "http://proxy:3128",
    }
    assert written(home, OURS) == {"admin": both}
    assert admin(home) == {**both, "rpcRetries": 7, **dict(list(admin(home).items())[-3:])}
    assert written(home) == {"admin": admin(home), "storage": {"type": "s3"}}
    assert "without TLS flyte sends no token" in ended.err


def test_what_is_changed_later_goes_where_it_belongs_and_both_old_files_are_kept(
    home: Home,
) -> None:
    assert (
        create(home, "--endpoint", ENDPOINT, "--auth-type", "headless", "--for", "flyte").status
        == 0
    )
    before = {name: (home.path / name).read_bytes() for name in (FILE, OURS)}
    refused = create(home, "--client-id", "another")
    refused.failed_with(3, "add --force", "admin.clientId: another")
    assert create(home, "--client-id", "another", "--domain", "d", "--force").status == 0
    assert admin(home, OURS)["clientId"] == "another"
    assert admin(home, OURS)["authType"] == "DeviceFlow"
    assert "clientId" not in admin(home)
    assert admin(home)["authType"] == "ExternalCommand"
    for name, data in before.items():
        assert (home.path / f"{name}.bak").read_bytes() == data
    assert create(home, "--endpoint", "https://moved.example.com", "--force").status == 0
    assert admin(home)["endpoint"] == admin(home, OURS)["endpoint"] == "dns:///moved.example.com"
    again = create(home, "--for", "flyte", "--force")
    assert again.err.count("says so already") == 2


def test_a_configuration_that_was_ours_alone_is_divided(home: Home) -> None:
    secret = "admin: {endpoint: dns:///h.example.com, clientId: ci, clientSecretEnvVar: CI, tokenStore: file}\n"
    home.write(FILE, secret)
    assert create(home, "--for", "flyte", "--force").status == 0
    assert admin(home, OURS) == yaml.safe_load(secret)["admin"]
    assert set(admin(home)) == {"endpoint", "authType", "command", "disableKeyring"}


def test_a_service_behind_a_tool_becomes_a_login_by_browser_again(home: Home) -> None:
    words = ("--auth-type", "client-secret", "--client-id", "ci", "--client-secret-env-var", "CI")
    assert create(home, "--endpoint", ENDPOINT, *words, "--for", "flyte").status == 0
    assert admin(home, OURS)["authType"] == "ClientSecret"
    assert create(home, "--endpoint", ENDPOINT, "--force").status == 0
    assert admin(home, OURS) == {"endpoint": "dns:///flyte.example.com"}
    assert admin(home)["authType"] == "ExternalCommand"


@pytest.mark.parametrize("auth_type", ["none", "Passthrough"])
def test_where_there_is_no_token_there_is_nothing_to_ask_for(home: Home, auth_type: str) -> None:
    ended = create(home, "--endpoint", ENDPOINT, "--auth-type", auth_type, "--for", "flyte")
    ended.failed_with(2, "argument --for", "leave out --for")
    assert not (home.path / FILE).exists()


# How it works.


def test_the_tool_s_command_prints_the_token_of_a_login_that_was_made_beside_its_file(
    home: Home, calm: Running, tmp_path: Path
) -> None:
    assert create(home, "--endpoint", calm.base_url, "--for", "flytekit").status == 0
    nobody = as_a_tool(home, tmp_path)
    nobody.failed_with(4, "run: flyteauth login --config")
    ended = home.run("login", BROWSER=BROWSER)
    assert ended.status == 0, ended
    token = home.run("token")
    assert TOKEN.fullmatch(token.out)
    printed = as_a_tool(home, tmp_path)
    assert (printed.status, printed.out, printed.err) == (0, token.out, "")
    assert home.run("status", "--check").status == 0
    assert home.run("logout").status == 0
    as_a_tool(home, tmp_path).failed_with(4)


def test_a_tool_that_we_run_where_its_file_is_asks_us_once_and_not_in_circles(
    home: Home, calm: Running
) -> None:
    """``exec`` reads the two files, and so does whoever uses us within."""
    assert create(home, "--endpoint", calm.base_url, "--for", "flytekit").status == 0
    login(home, calm.base_url)
    outside = home.run("token").out
    inside = home.run("exec", "--", FLYTEAUTH, "token")
    assert (inside.status, inside.out, inside.err) == (0, outside, "")


# Nobody asks in circles: each of these would start processes without end.

WRAPPED = f"exec {shlex.quote(FLYTEAUTH)} token"
CIRCLES = {
    "itself": [FLYTEAUTH, "token"],
    "itself, by its module": [sys.executable, "-m", "flyteauth", "token", "--verify"],
    "a shell around it": ["/bin/sh", "-c", WRAPPED],
    "another shell around that": ["/bin/sh", "-c", f"exec /bin/sh -c {shlex.quote(WRAPPED)}"],
}


@pytest.mark.parametrize("name", CIRCLES)
@pytest.mark.parametrize("told", ["by a file", "by the environment"])
def test_a_command_that_comes_back_to_us_is_an_error_and_no_chain_of_processes(
    home: Home, calm: Running, name: str, told: str
) -> None:
    argv = CIRCLES[name]
    environ = {"FLYTE_ADMIN_ENDPOINT": calm.base_url}
    if told == "by a file":
        file = {"admin": {"authType": "ExternalCommand", "command": argv}}
        home.write(FILE, yaml.safe_dump(file))
    else:
        environ |= {"FLYTE_AUTH_TYPE": "ExternalCommand", "FLYTE_AUTH_COMMAND": json.dumps(argv)}
    begun = time.monotonic()
    ended = home.program([FLYTEAUTH, "token"], environ)
    assert ended.status == 1, ended
    assert ended.out == ""
    assert "itself" in ended.err
    assert ended.err.count("\n") == 1
    assert time.monotonic() - begun < 20.0  # not the deadline of a command


def test_a_command_within_another_one_is_no_circle(home: Home, calm: Running) -> None:
    """One that gets its token from another login of ours, by a command of its own."""
    home.write(
        "inner.yaml",
        yaml.safe_dump(
            {
                "admin": {
                    "endpoint": calm.base_url,
                    "authType": "ExternalCommand",
                    "command": ["echo", "inner-token"],
                }
            }
        ),
    )
    script = (
        f"exec {shlex.quote(FLYTEAUTH)} token --config {shlex.quote(str(home.path / 'inner.yaml'))}"
    )
    home.write(
        FILE,
        yaml.safe_dump(
            {
                "admin": {
                    "endpoint": calm.base_url,
                    "authType": "ExternalCommand",
                    "command": ["/bin/sh", "-c", script],
                }
            }
        ),
    )
    ended = home.run("token")
    assert (ended.status, ended.out, ended.err) == (0, "inner-token\n", "")


def test_a_proxy_s_command_that_comes_back_to_us_does_so_once(home: Home, calm: Running) -> None:
    login(home, calm.base_url)
    script = f"echo >>{home.path}/runs; exec {shlex.quote(FLYTEAUTH)} token --verify"
    proxy = json.dumps(["/bin/sh", "-c", script])
    environ = {"FLYTE_ADMIN_ENDPOINT": calm.base_url, "FLYTE_AUTH_PROXY_COMMAND": proxy}
    ended = home.program([FLYTEAUTH, "whoami"], environ)
    assert ended.status in {0, 1}, ended
    assert (home.path / "runs").read_text() == "\n"
