"""Our commands as another command line has them: with its words before ours, and our options."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from flyteauth.cli._parser import COMMANDS
from flyteauth.integrations import flyte_cli

Run = Callable[..., Result]


@click.group(commands=[flyte_cli.login, flyte_cli.logout, flyte_cli.auth])
@click.option("--endpoint")
@click.option("--insecure", is_flag=True, default=None)
@click.option("--auth-type")
@click.option("-c", "--config", "config_file")
@click.option("-of", "--output-format", default="table")
def flyte(**_: object) -> None:
    """The options of flyte's own command line that are about whom to talk to."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in ("HOME", "XDG_DATA_HOME", "FLYTEAUTH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(flyte, list(words))

    return invoke


def said(result: Result) -> dict[str, object]:
    document = json.loads(result.stdout)
    assert isinstance(document, dict)
    return document


def test_the_commands_are_listed_with_what_they_do(run: Run) -> None:
    shown = run("--help").output
    for name in ("login", "logout"):
        assert COMMANDS[name][:40] in shown.lower()
    inside = run("auth", "--help").output
    for name in (
        "status",
        "token",
        "whoami",
        "accounts",
        "doctor",
        "login",
        "logout",
        "import",
        "export",
    ):
        assert f"  {name} " in inside


def test_their_options_are_ours(run: Run) -> None:
    shown = run("login", "--help").output
    assert "flyte login [OPTIONS]" in shown
    for option in ("--headless", "--no-browser", "--scopes SCOPE", "--account LABEL", "--resume"):
        assert option in shown
    assert "--check" in run("auth", "status", "--help").output
    assert "--verify" in run("auth", "token", "--help").output


def test_what_stands_before_a_command_means_there_what_it_means_to_flyte(run: Run) -> None:
    words = ("--endpoint", "http://flyte.example.com", "--auth-type", "device_flow", "-of", "json")
    result = run(*words, "auth", "status")
    assert result.exit_code == 4
    told = said(result)
    # flyte speaks TLS whatever the scheme is.
    assert (told["endpoint"], told["auth_type"]) == ("https://flyte.example.com", "DeviceFlow")
    plain = said(run("--insecure", "--endpoint", "localhost:1", "-of", "json", "auth", "status"))
    assert plain["endpoint"] == "http://localhost:1"


def test_what_stands_after_it_goes_before_that(run: Run) -> None:
    before = ("--endpoint", "one.example.com", "--auth-type", "pkce")
    after = ("--endpoint=other.example.com", "--auth-type", "headless", "--json", "--account", "a")
    told = said(run(*before, "auth", "status", *after))
    assert (told["endpoint"], told["auth_type"]) == ("https://other.example.com", "DeviceFlow")
    assert told["account"] == "a"


def test_a_configuration_that_flyte_was_told_of_is_ours_as_well(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("admin: {endpoint: dns:///a.example.com}\n", encoding="utf-8")
    told = said(run("-c", "a.yaml", "-of", "json", "auth", "status"))
    assert told["endpoint"] == "https://a.example.com"
    assert told["config_file"] == str(tmp_path / "a.yaml")


def test_a_command_without_json_is_not_given_what_it_does_not_know(run: Run) -> None:
    result = run("-of", "json", "--endpoint", "flyte.example.com", "auth", "logout", "--help")
    assert result.exit_code == 0
    words = ("-of", "json-raw", "--endpoint", "flyte.example.com", "auth", "status", "--check")
    checked = run(*words)
    assert (checked.exit_code, checked.output) == (4, "")


def test_the_exit_status_and_the_complaints_are_ours(run: Run) -> None:
    failed = run("--endpoint", "flyte.example.com", "auth", "status", "--check")
    assert (failed.exit_code, failed.stdout, failed.stderr) == (4, "", "")
    failed = run("auth", "status", "--check")
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert failed.stderr.startswith("flyteauth: no endpoint")
    wrong = run("login", "--headless", "--auth-type", "pkce")
    assert wrong.exit_code == 2
    assert "not allowed with argument --auth-type" in wrong.stderr
    unknown = run("login", "--nonsense")
    assert unknown.exit_code == 2
    assert "--nonsense" in unknown.stderr


def test_a_login_can_be_taken_over_and_handed_out_as_with_our_own_command(run: Run) -> None:
    assert "--from [flyte|flytekit|flytectl]" in run("auth", "import", "--help").output
    assert "--to [flyte|flytekit|flytectl]" in run("auth", "export", "--help").output
    for words in (["import", "--from", "kubectl"], ["export", "--to", "flyt"], ["export"]):
        wrong = run("--endpoint", "flyte.example.com", "auth", *words)
        assert wrong.exit_code == 2, wrong
        assert len(wrong.stderr.splitlines()) == 2
    # Each word of them arrives, and so does what stands before.
    refused = run("auth", "export", "--to", "flyte", "--to", "flytectl", "--endpoint", "h..")
    assert "argument --endpoint" in refused.stderr
    in_json = run("-of", "json", "--auth-type", "none", "--endpoint", "h", "auth", "import")
    assert in_json.exit_code == 1
    assert said(in_json)["reason"] == "auth_type"


def test_headless_is_a_word_against_flyte_s_auth_type(run: Run) -> None:
    result = run("--auth-type", "pkce", "--endpoint", "h..", "login", "--headless")
    assert "not allowed" not in result.stderr
    assert "argument --endpoint" in result.stderr


def test_an_option_that_is_said_twice_arrives_twice(run: Run) -> None:
    good = run("login", "--endpoint", "h..", "--scopes", "a", "--scopes", "b")
    assert "argument --endpoint" in good.stderr
    bad = run("login", "--endpoint", "h..", "--scopes", "a", "--scopes", 'b"')
    assert "argument --scopes: one of these is not a scope" in bad.stderr
