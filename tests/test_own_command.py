"""``flyteauth token`` as somebody's ExternalCommand: it is gone on with, and never asks itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from flyteauth._own_command import asked, asking, to_run, token_command
from flyteauth.config import Settings, resolve
from flyteauth.errors import ConfigError

ENDPOINT = "dns:///flyte.example.com"


@pytest.mark.parametrize(
    "program",
    [
        ["flyteauth"],
        ["/opt/venv/bin/flyteauth"],
        [r"C:\venv\Scripts\flyteauth.EXE"],
        ["/usr/bin/python3", "-P", "-m", "flyteauth"],
        ["python", "-m", "flyteauth"],
    ],
)
def test_our_command_is_known_by_its_program_and_read_like_our_options(program: list[str]) -> None:
    words = ["--account", "work", "token", "--verify", "--config=a.yaml", "--endpoint", "h"]
    ours = asked([*program, *words, "--insecure"])
    assert ours is not None
    assert ours.config == "a.yaml"
    assert ours.said == {"account": "work", "endpoint": "h", "insecure": True}
    assert ours.says_who


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["my-sso", "token"],
        ["flyteauth", "status"],
        ["flyteauth-not", "token"],
        ["python", "flyteauth", "token"],
        ["python", "-m", "another", "token"],
        ["python", "-m"],
        ["sh", "-c", "flyteauth token"],
    ],
)
def test_another_command_is_not_ours(command: list[str]) -> None:
    assert asked(command) is None


def test_the_command_for_tools_is_one_that_we_know_again() -> None:
    command = token_command("/somewhere/a.yaml", "--endpoint", "h")
    assert Path(command[0]).is_absolute()
    ours = asked(command)
    assert ours is not None
    assert (ours.config, ours.said) == ("/somewhere/a.yaml", {"endpoint": "h"})


# What is resolved where other programs ask us.


def written(path: Path, **admin: object) -> Path:
    path.write_text(yaml.safe_dump({"admin": admin, "task": {"project": path.stem}}), "utf-8")
    return path


def resolved(
    path: Path | None = None, environ: dict[str, str] | None = None, **given: object
) -> Settings:
    return resolve(given, environ=environ or {}, path=path, search=False)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return written(
        tmp_path / "ours.yaml",
        endpoint=ENDPOINT,
        authType="DeviceFlow",
        clientId="me",
        tokenStore="file",
    )


def test_a_tool_s_file_leads_to_the_one_that_says_how_to_log_in(tmp_path: Path, ours: Path) -> None:
    tool = written(tmp_path / "tool.yaml", endpoint=ENDPOINT, **asking(token_command(ours)))
    settings = resolved(tool)
    assert (settings.auth_type, settings.client_id) == ("DeviceFlow", "me")
    assert (settings.command, settings.disable_keyring) == (None, False)
    assert settings.project == "tool"  # what does not say who logs in is the tool's
    assert settings.config_file == tool
    assert settings.sources["client_id"] == f"{ours}: admin.clientId"
    assert settings.considered[-1].startswith(f"{ours}: used")


def test_arguments_go_before_both_files_and_the_environment_before_them(
    tmp_path: Path, ours: Path
) -> None:
    tool = written(tmp_path / "tool.yaml", endpoint=ENDPOINT, **asking(token_command(ours)))
    environ = {"FLYTE_ADMIN_CLIENTID": "environment", "FLYTE_ADMIN_ACCOUNT": "a"}
    settings = resolved(tool, environ, client_id="argument", auth_type="Pkce")
    assert (settings.client_id, settings.account) == ("argument", "a")
    assert (settings.auth_type, settings.token_store) == ("Pkce", "file")


def test_an_environment_that_asks_us_leads_there_too(tmp_path: Path, ours: Path) -> None:
    """What a tool has in its environment that ``flyteauth exec`` runs, and we in that tool."""
    command = token_command(ours, "--endpoint", "other.example.com", "--auth-type", "Pkce")
    environ = {"FLYTE_AUTH_TYPE": "ExternalCommand", "FLYTE_AUTH_COMMAND": json.dumps(command)}
    settings = resolved(environ=environ)
    assert (settings.auth_type, settings.client_id) == ("Pkce", "me")
    assert settings.endpoint is not None
    assert settings.endpoint.key == "other.example.com"
    assert settings.sources["endpoint"] == "environment variable FLYTE_AUTH_COMMAND"
    given = resolved(environ=environ, endpoint="given.example.com").endpoint
    assert given is not None
    assert given.key == "given.example.com"


def test_a_command_that_nobody_runs_leads_nowhere(tmp_path: Path, ours: Path) -> None:
    command = json.dumps(token_command(ours))
    file = written(tmp_path / "a.yaml", endpoint=ENDPOINT, clientId="another")
    environ = {"FLYTE_AUTH_COMMAND": command}
    assert resolved(file, environ).client_id == "another"
    assert resolved(file, {**environ, "FLYTE_AUTH_TYPE": "Pkce"}).client_id == "another"
    external = written(tmp_path / "b.yaml", endpoint=ENDPOINT, authType="ExternalCommand")
    assert resolved(external, environ).client_id == "me"


def test_a_tool_s_file_is_followed_whatever_authtype_goes_before_its_own(
    tmp_path: Path, ours: Path
) -> None:
    tool = written(tmp_path / "tool.yaml", endpoint=ENDPOINT, **asking(token_command(ours)))
    settings = resolved(tool, {"FLYTE_AUTH_TYPE": "Pkce"})
    assert (settings.auth_type, settings.client_id) == ("Pkce", "me")


def test_a_command_without_a_file_says_who_by_its_words(tmp_path: Path) -> None:
    command = ["flyteauth", "token", "--auth-type", "headless"]
    tool = written(
        tmp_path / "tool.yaml", endpoint=ENDPOINT, authType="ExternalCommand", command=command
    )
    settings = resolved(tool)
    assert (settings.auth_type, settings.command) == ("DeviceFlow", None)


def test_a_command_that_is_another_s_goes_on_as_it_is(tmp_path: Path) -> None:
    command = ["my-sso", "token"]
    ours = written(
        tmp_path / "ours.yaml", endpoint=ENDPOINT, authType="ExternalCommand", command=command
    )
    tool = written(tmp_path / "tool.yaml", endpoint=ENDPOINT, **asking(token_command(ours)))
    settings = resolved(tool)
    assert (settings.auth_type, settings.command) == ("ExternalCommand", tuple(command))


@pytest.mark.parametrize("words", [[], ["--verify"], ["--endpoint", ENDPOINT, "--json"]])
def test_a_command_of_ours_that_says_nobody_would_ask_itself(
    tmp_path: Path, words: list[str]
) -> None:
    command = ["flyteauth", "token", *words]
    tool = written(
        tmp_path / "tool.yaml", endpoint=ENDPOINT, authType="ExternalCommand", command=command
    )
    with pytest.raises(ConfigError, match="would ask itself; set authType") as caught:
        resolved(tool)
    assert str(tool) in str(caught.value)
    assert resolved(tool, auth_type="Pkce").auth_type == "Pkce"
    environ = {"FLYTE_AUTH_TYPE": "ExternalCommand", "FLYTE_AUTH_COMMAND": " ".join(command)}
    with pytest.raises(ConfigError, match="FLYTE_AUTH_COMMAND: this is flyteauth's own command"):
        resolved(environ=environ, endpoint=ENDPOINT)


def test_files_that_lead_to_each_other_lead_nowhere(tmp_path: Path) -> None:
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    for file, named in ((one, other), (other, one)):
        written(file, endpoint=ENDPOINT, **asking(token_command(named)))
    with pytest.raises(ConfigError, match="would ask itself"):
        resolved(one)
    written(one, endpoint=ENDPOINT, **asking(token_command(one)))
    with pytest.raises(ConfigError, match="would ask itself"):
        resolved(one)


def test_a_tool_is_not_given_the_token_of_another_control_plane(tmp_path: Path, ours: Path) -> None:
    elsewhere = written(
        tmp_path / "tool.yaml",
        endpoint="https://elsewhere.example.com",
        **asking(token_command(ours)),
    )
    with pytest.raises(ConfigError, match="another control plane .* run flyteauth create config"):
        resolved(elsewhere)
    same = written(
        tmp_path / "tool.yaml", endpoint="https://flyte.example.com/", **asking(token_command(ours))
    )
    assert resolved(same).client_id == "me"


def test_a_file_that_is_gone_is_an_error_that_names_it(tmp_path: Path) -> None:
    tool = written(
        tmp_path / "tool.yaml", endpoint=ENDPOINT, **asking(token_command(tmp_path / "gone.yaml"))
    )
    with pytest.raises(ConfigError, match=r"gone\.yaml: the file cannot be read"):
        resolved(tool)


def test_the_name_that_flytekit_finds_us_by_says_nothing_of_how_to_log_in(tmp_path: Path) -> None:
    file = written(tmp_path / "a.yaml", endpoint=ENDPOINT, authType="flyteauth")
    assert (resolved(file).auth_type, resolved(file).auth_type_given) == ("Pkce", False)
    assert resolved(file, {"FLYTE_AUTH_TYPE": "Flyteauth"}).auth_type == "Pkce"
    assert resolved(file, client_id="me", client_secret="s").auth_type == "ClientSecret"


def test_python_is_named_where_there_is_no_script(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = str(tmp_path / "python")
    monkeypatch.setattr(sys, "executable", python)
    assert token_command("a.yaml")[:5] == [python, "-P", "-m", "flyteauth", "token"]


# What a program that nobody is logged in for says.


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"endpoint": "dns:///h.example"}, "flyteauth login --endpoint dns:///h.example"),
        (
            {"endpoint": "h.example", "account": "my work", "auth_type": "Pkce"},
            "flyteauth login --endpoint h.example --account 'my work' --auth-type pkce",
        ),
        (
            {"endpoint": "localhost:1", "headless": True, "insecure": True},
            "flyteauth login --endpoint localhost:1 --auth-type headless --insecure",
        ),
        (
            {"endpoint": "h.example", "scopes": ["a", "b"], "shared_logins": ["flyte"]},
            "flyteauth login --endpoint h.example --scopes 'a b' --share flyte",
        ),
        ({"endpoint": "h.example", "scopes": []}, "flyteauth login --endpoint h.example"),
        (
            {"endpoint": "h.example", "client_id": "c", "client_secret": "canary"},
            "flyteauth login --endpoint h.example with clientId in its file, as the program says",
        ),
        (
            {"issuer": "https://issuer.example", "audience": "a"},
            "flyteauth login with issuer, audience in its file, as the program says",
        ),
    ],
)
def test_the_command_to_run_says_what_only_the_program_has_said(
    given: dict[str, object], line: str
) -> None:
    assert to_run(resolve(given, environ=None, search=False), "login") == line


def test_the_command_to_run_names_a_file_that_was_named(tmp_path: Path) -> None:
    file = tmp_path / "my config.yaml"
    file.write_text("admin:\n  endpoint: h.example\n  account: work\n", "utf-8")
    settings = resolve({}, environ={}, path=file, search=True)
    assert to_run(settings, "login") == f"flyteauth login --config '{file}'"
    found = resolve({}, environ={"FLYTECTL_CONFIG": str(file)}, search=True)
    assert to_run(found, "login", "--no-wait") == "flyteauth login --no-wait"
    both = resolve({"account": "b"}, environ={}, path=file, search=True)
    assert to_run(both, "doctor") == f"flyteauth doctor --config '{file}' --account b"
