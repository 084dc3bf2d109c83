"""What is typed wrongly, and what helps: one or two lines, and help that fits a terminal."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from flyteauth.cli import _parser
from flyteauth.cli._again import in_words_of
from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings

from .conftest import BROWSER, Home

# Every command, with the words after which its help is asked for.
COMMANDS = [
    (),
    *[(name,) for name in _parser.COMMANDS],
    ("create", "config"),
    ("create", "login"),
    ("create", "api-key"),
    *[("get", kind) for kind in ("project", "task", "app", "api-key")],
    ("delete", "api-key"),
]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--endpoint", "e"), "COMMAND"),
        (("logni",), "did you mean login?"),
        (("staus",), "did you mean status?"),
        (("frobnicate",), "choose from login, "),
        (("get",), "KIND"),
        (("get", "projcet"), "did you mean project?"),
        (("get", "task", "--outptu", "json"), "did you mean --output?"),
        (("login", "--hedless"), "did you mean --headless?"),
        (("login", "--acount=x"), "--acount is not known; did you mean --account?"),
        (("status", "--frobnicate"), "the option --frobnicate is not known"),
        (("get", "task", "-o", "jsn"), "did you mean json?"),
        (("create", "confg"), "did you mean config?"),
        (("create", "config", "--project"), "--project"),
        (("delete", "api-key"), "NAME"),
        (("whoami", "bob"), "bob"),
        (("--cofnig", "x", "whoami"), "did you mean --config?"),
        (("--json", "whoami"), "after a command"),
        (("who\x1b[31mami",), "\\x1b"),
    ],
)
def test_a_typing_mistake_is_two_lines(home: Home, words: Sequence[str], said: str) -> None:
    ended = home.run(*words)
    assert (ended.status, ended.out) == (2, "")
    usage, error = ended.err.splitlines()
    assert usage.startswith("usage: flyteauth")
    assert "--help" in usage
    assert said in error
    assert "\x1b" not in ended.err


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (("logni",), "flyteauth [OPTION …] COMMAND …; help: flyteauth --help"),
        (("login", "-x"), "flyteauth login [OPTION …]; help: flyteauth login --help"),
        (("get",), "flyteauth get [OPTION …] KIND …; help: flyteauth get --help"),
        (
            ("get", "task", "-x"),
            "flyteauth get task [OPTION …] [NAME]; help: flyteauth get task --help",
        ),
        (
            ("delete", "api-key"),
            "flyteauth delete api-key [OPTION …] NAME; help: flyteauth delete api-key --help",
        ),
        (
            ("completion",),
            "flyteauth completion [OPTION …] {bash,zsh,fish}; help: flyteauth completion --help",
        ),
    ],
)
def test_the_usage_is_that_of_the_command_that_was_meant(
    home: Home, words: Sequence[str], usage: str
) -> None:
    assert home.run(*words).err.splitlines()[0] == f"usage: {usage}"


def test_without_a_word_the_commands_are_listed(home: Home) -> None:
    ended = home.run()
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == home.run("--help").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("login", "--auth-type", "bogus"), "argument --auth-type: "),
        (("token", "--endpoint", "ht!tp"), "argument --endpoint: "),
        (("whoami", "--endpoint", "e", "--ca-cert", "no.pem"), "argument --ca-cert: "),
    ],
)
def test_a_wrong_argument_is_named_as_it_was_typed(
    home: Home, words: Sequence[str], said: str
) -> None:
    home.run(*words).failed_with(2, said)


@pytest.mark.parametrize(
    "words",
    [
        ("whoami",),
        ("get", "project"),
        ("delete", "api-key", "a", "--yes"),
        ("create", "api-key", "--name", "a"),
        ("import",),
        ("export", "--to", "flyte"),
    ],
)
def test_an_endpoint_that_is_missing_is_asked_for_by_what_can_be_typed(
    home: Home, words: Sequence[str]
) -> None:
    environ: dict[str, Any] = {
        "FLYTE_AUTH_TYPE": "ExternalCommand",
        "FLYTE_AUTH_COMMAND": "echo a-token-of-a-command",
    }
    home.write(".flyte/config.yaml", "admin:\n  issuer: https://issuer.example.com\n")
    ended = home.run(*words, **environ)
    ended.failed_with(1, "pass --endpoint, or set admin.endpoint")
    assert "endpoint=" not in ended.err


def test_what_only_a_program_can_pass_is_no_advice_here() -> None:
    text = "no client_id is configured; set admin.clientId, or pass client_id="
    assert in_words_of(None, text) == "no client_id is configured; set admin.clientId"


def test_without_any_configuration_the_option_is_named_as_well(home: Home) -> None:
    home.run("whoami").failed_with(1, "FLYTE_ADMIN_ENDPOINT", "or the option --endpoint")


@pytest.mark.parametrize("command", ["token", "whoami"])
def test_what_to_run_is_the_login_that_was_meant(home: Home, command: str) -> None:
    with serving(Settings()) as running:
        words = ("--endpoint", running.base_url, "--account", "my work")
        ended = home.run(command, *words)
        said = f"run: flyteauth login --endpoint {running.base_url} --account 'my work', or"
        ended.failed_with(4, said)


@pytest.mark.parametrize(
    "begin",
    [
        "init(endpoint={endpoint!r})",
        "init_from_config('my config.yaml')",
    ],
)
def test_what_a_program_says_to_run_is_what_it_takes(home: Home, calm: Running, begin: str) -> None:
    text = f"admin:\n  endpoint: {calm.base_url}\n  account: work\n"
    home.write("my config.yaml", text)
    program = f"import flyteauth; flyteauth.{begin.format(endpoint=calm.base_url)}; print('in')"
    ended = home.program([sys.executable, "-c", program], {})
    assert ended.status != 0
    line = ended.err.rpartition("; run: ")[2].partition(", or set ")[0]
    assert line.startswith("flyteauth login ")
    logged_in = home.run(*shlex.split(line)[1:], BROWSER=BROWSER)
    assert logged_in.status == 0, logged_in
    assert home.program([sys.executable, "-c", program], {}).out == "in\n"


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_has_help_that_fits(home: Home, words: Sequence[str]) -> None:
    ended = home.run(*words, "--help", COLUMNS="80", PATH=str(home.path))
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("usage: flyteauth")
    assert max(map(len, ended.out.splitlines())) <= 100
    assert "==SUPPRESS==" not in ended.out


def test_the_module_is_the_command(home: Home) -> None:
    ended = home.program([sys.executable, "-m", "flyteauth", "--version"], {})
    assert ended == home.run("--version")
