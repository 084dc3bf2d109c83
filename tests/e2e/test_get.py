"""``flyteauth get`` and ``whoami``: what they list, where they look, and how they fail."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Sequence

import pytest

from flyteauth.cli import _output
from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings

from .conftest import (
    BROWSER,
    DEADLINE,
    FLYTEAUTH,
    Ended,
    Home,
    Serve,
    _everything_from,
    login,
)

KINDS = ("project", "task", "app", "api-key")


def seen(home: Home, columns: int, *words: str, **environ: str) -> str:
    """What a person sees of a command whose output is a terminal that is *columns* wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [FLYTEAUTH, *words],
        cwd=home.path,
        env=home.environ(TERM="xterm-256color", **environ),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        try:
            shown = _everything_from(ours, process).decode().replace("\r\n", "\n")
        finally:
            process.kill()
            os.close(ours)
        assert process.wait(DEADLINE) == 0, shown
    return shown


# What is listed.


@pytest.mark.parametrize(
    ("words", "heads", "row"),
    [
        (("project",), "PROJECT NAME DOMAINS DESCRIPTION", "flytesnacks"),
        (("projects",), "PROJECT NAME DOMAINS DESCRIPTION", "churn"),
        (("task",), "TASK VERSION PROJECT DOMAIN DEPLOYED", "hello_world.main"),
        (("tasks",), "TASK VERSION PROJECT DOMAIN DEPLOYED", "ml.train"),
        (("app",), "APP STATUS PROJECT DOMAIN URL", "hello-fastapi"),
        (("apps",), "APP STATUS PROJECT DOMAIN URL", "churn-dashboard"),
        (("api-key",), "API-KEY CLIENT-ID CREATED", "demo-ci"),
        (("api-keys",), "API-KEY CLIENT-ID CREATED", "demo-ci"),
    ],
)
def test_each_kind_is_a_table_with_tabs_for_programs(
    logged_in: Home, words: tuple[str, ...], heads: str, row: str
) -> None:
    ended = logged_in.run("get", *words)
    assert (ended.status, ended.err) == (0, "")
    first, *rows = ended.out.splitlines()
    assert first.replace(" ", "-").split("\t") == heads.split()
    assert row in [line.split("\t")[0] for line in rows]
    assert {line.count("\t") for line in rows} == {first.count("\t")}


@pytest.mark.parametrize("kind", KINDS)
def test_json_is_one_array(logged_in: Home, kind: str) -> None:
    ended = logged_in.run("get", kind, "--output", "json")
    assert (ended.status, ended.err) == (0, "")
    items = json.loads(ended.out)
    assert len(items) >= 1
    assert all("name" in item for item in items)
    assert logged_in.run("get", kind, "--json") == ended


def test_without_a_project_those_of_all_projects_are_listed(logged_in: Home) -> None:
    def places(*words: str) -> set[tuple[str, str]]:
        items = json.loads(logged_in.run("get", "task", "--json", *words).out)
        return {(item["project"], item["domain"]) for item in items}

    assert places() > {("churn", "staging"), ("flytesnacks", "development")}
    assert {project for project, _ in places("--project", "churn")} == {"churn"}
    assert {domain for _, domain in places("--domain", "staging")} == {"staging"}
    assert places("--project", "churn", "--domain", "staging") == {("churn", "staging")}
    configured = logged_in.path / ".flyte/config.yaml"
    with configured.open("a", encoding="utf-8") as file:
        file.write("task:\n  project: churn\n  domain: production\n")
    assert places() == {("churn", "production")}
    assert places("--project", "flytesnacks") == {("flytesnacks", "production")}


@pytest.mark.parametrize(
    ("kind", "name"),
    [("project", "churn"), ("task", "ml.train"), ("app", "hello-fastapi"), ("api-key", "demo-ci")],
)
def test_one_can_be_asked_for_by_its_name(logged_in: Home, kind: str, name: str) -> None:
    ended = logged_in.run("get", kind, name)
    assert (ended.status, ended.err) == (0, "")
    assert {line.split("\t")[0] for line in ended.out.splitlines()[1:]} == {name}
    assert name in {
        item.get("id") or item["name"]
        for item in json.loads(logged_in.run("get", kind, name, "--output", "json").out)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_is_not_there_is_a_failure(logged_in: Home, kind: str) -> None:
    logged_in.run("get", kind, "no\x1bsuch").failed_with(1, "no\\x1bsuch", f"flyteauth get {kind}")


def test_a_limit_says_that_there_is_more(logged_in: Home) -> None:
    ended = logged_in.run("get", "task", "--limit", "2")
    assert ended.status == 0
    assert len(ended.out.splitlines()) == 3
    assert "--limit" in ended.err
    everything = logged_in.run("get", "project", "--limit", "1000")
    assert everything.err == ""
    for wrong in ("0", "-1", "some"):
        ended = logged_in.run("get", "task", "--limit", wrong)
        assert ended.status == 2
        assert f"'{wrong}' is not a number of rows; write 1 or more" in ended.err


def test_nothing_is_said_in_words_and_not_in_the_output(logged_in: Home) -> None:
    words = ("get", "task", "--project", "churn", "--domain", "no-such-domain")
    ended = logged_in.run(*words)
    assert (ended.status, ended.out) == (0, "")
    where = "in project churn and domain no-such-domain at localhost:"
    assert ended.err.startswith(f"There are no tasks {where}")
    logged_in.run(*words, "a.task").failed_with(1, f"no task named a.task {where}")
    ended = logged_in.run("get", "app", FLYTE_TASK_PROJECT="no-such-project")
    assert ended.err.startswith("There are no apps in project no-such-project at localhost:")
    assert json.loads(logged_in.run(*words, "--output", "json").out) == []


# What a person sees.


def test_a_table_fits_the_terminal_and_breaks_no_word(logged_in: Home) -> None:
    wide = seen(logged_in, 200, "get", "project")
    assert "Which customers are about to leave" in wide
    assert "\x1b[1mPROJECT\x1b[0m" in wide
    folded = seen(logged_in, 80, "get", "project", NO_COLOR="1")
    assert "\x1b" not in folded
    assert max(map(len, folded.splitlines())) <= 80
    assert "demand-forecast" in folded
    assert "Which customers are about to leave" not in folded
    narrow = seen(logged_in, 40, "get", "app", "--limit", "1", NO_COLOR="1")
    assert "APP: hello-fastapi\n" in narrow
    assert "URL: https://hello-fastapi.development.apps.example.com\n" in narrow


def test_what_a_server_says_cannot_steer_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nasty = "a\x1b]0;owned\x07\u202e\tb\nc"
    for isatty in (False, True):
        monkeypatch.setattr("sys.stdout.isatty", lambda answer=isatty: answer)
        monkeypatch.setenv("NO_COLOR", "1")
        _output.table(["NAME", "OTHER"], [[nasty, "x"]])
        _output.emit({"name": nasty})
        _output.document([nasty])
        out = capsys.readouterr().out
        assert not {"\x1b", "\x07", "\u202e"} & set(out)
        assert "\\u202e" in out
        assert json.loads(out.splitlines()[-2]) == nasty


# Who is asked, and where.


@pytest.mark.parametrize("words", [("get", "project"), ("get", "app"), ("create", "api-key", "--name", "k")])  # fmt: skip
def test_a_command_logs_in_by_itself_where_a_person_is_there(
    home: Home, serve: Serve, words: Sequence[str]
) -> None:
    running = serve()
    argv = (FLYTEAUTH, *words, "--endpoint", running.base_url)
    ended = home.at_terminal(argv, {"BROWSER": BROWSER})
    assert ended.status == 0, ended
    assert "/oauth2/authorize?" in ended.err
    assert "/oauth2/authorize?" not in ended.out
    assert running.plane.count(path="/oauth2/authorize") == 1


@pytest.mark.parametrize(
    "words",
    [*[("get", kind) for kind in KINDS], ("whoami",), ("create", "api-key", "--name", "k")],
)
def test_where_nobody_is_there_the_answer_is_that_there_is_no_login(
    home: Home, calm: Running, words: Sequence[str]
) -> None:
    opened = home.path / "opened"
    ended = home.run(*words, "--endpoint", calm.base_url, BROWSER=f"touch {opened}", deadline=10)
    ended.failed_with(4, "not logged in", "flyteauth login")
    assert not opened.exists()


@pytest.mark.parametrize("variable", ["FLYTE_API_KEY", "UNION_API_KEY"])
def test_an_api_key_in_the_environment_is_all_that_is_needed(
    home: Home, calm: Running, variable: str
) -> None:
    ended = home.program([FLYTEAUTH, "get", "project"], {variable: calm.api_key})
    assert (ended.status, ended.err) == (0, "")
    assert "flytesnacks" in ended.out
    assert home.stored() == {}


@pytest.mark.parametrize("variable", ["FLYTECTL_CONFIG", "UCTL_CONFIG", "UNION_CONFIG"])
def test_the_configuration_is_where_the_environment_says(
    logged_in: Home, calm: Running, variable: str
) -> None:
    (logged_in.path / ".flyte/config.yaml").unlink()
    path = logged_in.write("elsewhere/my.yaml", f"admin:\n  endpoint: {calm.base_url}\n")
    assert logged_in.run("whoami").status == 1
    ended = logged_in.program([FLYTEAUTH, "whoami"], {variable: "~/elsewhere/my.yaml"})
    assert (ended.status, ended.err) == (0, "")
    ended = logged_in.program([FLYTEAUTH, "whoami"], {variable: f"{path}.not"})
    ended.failed_with(1, variable, "no file")


@pytest.mark.parametrize("place", [".union/config.yaml", ".flyte/config.yaml"])
def test_the_configuration_is_in_the_home_directory(home: Home, calm: Running, place: str) -> None:
    home.write(place, f"admin:\n  endpoint: {calm.base_url}\n")
    (home.path / "work").mkdir()
    argv = ["sh", "-c", f"cd work && exec {FLYTEAUTH} whoami"]
    home.program(argv, {}).failed_with(4, "not logged in")


# Options before and after the command.


def test_options_may_stand_before_the_command(home: Home, calm: Running) -> None:
    login(home, calm.base_url)
    path = home.write("my.yaml", f"admin:\n  endpoint: {calm.base_url}\n")
    away = home.write("away.yaml", "admin:\n  endpoint: http://localhost:9\n")
    whoami = home.run("whoami", "--endpoint", calm.base_url)
    assert whoami.status == 0, whoami
    assert home.run("--endpoint", calm.base_url, "whoami") == whoami
    assert home.run("--config", str(path), "whoami") == whoami
    assert home.run("whoami", "--config", str(path)) == whoami
    # What stands after the command wins.
    assert home.run("--config", str(away), "whoami", "--config", str(path)) == whoami
    assert home.run("--endpoint", "localhost:9", "whoami", "--endpoint", calm.base_url) == whoami
    ended = home.run("--endpoint", calm.base_url, "--account", "other", "whoami")
    ended.failed_with(4, "not logged in")
    home.run("--config", "~/none.yaml", "get", "project").failed_with(1, str(home.path))


# Who.


def test_whoami_asks_the_control_plane(logged_in: Home, calm: Running) -> None:
    where = calm.base_url.removeprefix("http://")
    assert logged_in.run("whoami") == Ended(0, f"alice (Alice, alice@example.com) at {where}\n", "")
    assert json.loads(logged_in.run("whoami", "--json").out) == {
        "server": where,
        "subject": "alice",
        "name": "Alice",
        "preferred_username": "alice",
        "email": "alice@example.com",
    }
    ended = logged_in.run("whoami", FLYTE_API_KEY=calm.api_key)
    assert ended.status == 0
    assert ended.out.startswith("demo-ci")


def test_whoami_where_nobody_has_to_be_anybody(home: Home, serve: Serve) -> None:
    running = serve("no-auth")
    ended = home.run("whoami", "--endpoint", running.base_url)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("anonymous")


# Failures.


@pytest.mark.parametrize("words", [*[("get", kind) for kind in KINDS], ("whoami",)])
def test_a_control_plane_that_is_gone_is_one_line(home: Home, words: Sequence[str]) -> None:
    with serving(Settings(approve="auto")) as running:
        login(home, running.base_url)
    ended = home.run(*words, "--endpoint", running.base_url)
    ended.failed_with(1, running.base_url.removeprefix("http://"), "try again")


def test_a_broken_configuration_is_one_line_that_names_the_place(home: Home) -> None:
    path = home.write(".flyte/config.yaml", "admin:\n  endpoint: [\n")
    home.run("get", "project").failed_with(1, f"{path}, line 3", "not YAML")


def test_a_reader_that_has_gone_is_no_traceback(logged_in: Home) -> None:
    for words in (["get", "task", "--json"], ["completion", "bash"]):
        reading, writing = os.pipe()
        os.close(reading)
        process = subprocess.run(
            [FLYTEAUTH, *words],
            cwd=logged_in.path,
            env=logged_in.environ(),
            stdout=writing,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            timeout=DEADLINE,
            check=False,
        )
        os.close(writing)
        assert (process.returncode, process.stderr) == (1, b"")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_traceback(logged_in: Home, closed: str) -> None:
    argv = ["sh", "-c", f"exec {FLYTEAUTH} get project {closed}"]
    ended = logged_in.program(argv, {})
    assert "Traceback" not in ended.err
    assert ended.status == (1 if ">&-" in re.sub("2>&-", "", closed) else 0)
    if closed == ">&-":
        ended.failed_with(1, "cannot write to standard output")


def test_a_question_that_nobody_can_answer_is_none(logged_in: Home) -> None:
    argv = ["sh", "-c", f"exec {FLYTEAUTH} delete api-key demo-ci <&-"]
    logged_in.program(argv, {}).failed_with(3, "--yes")
