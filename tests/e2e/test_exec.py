"""``flyteauth exec``, ``run`` and ``deploy``: a tool gets our login, and nothing stays behind."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from flyteauth.devserver.serve import Running

from .conftest import (
    BROWSER,
    DEADLINE,
    FLYTEAUTH,
    TOKEN,
    Ended,
    Home,
    Serve,
    login,
    read_until,
)

CANARY = "s3cr3t-canary"

# What any Flyte tool does with what it is given, as JSON.
TOOL = """\
import json, os, pathlib, stat, subprocess, sys
config = os.environ["FLYTECTL_CONFIG"]
command = json.loads(os.environ.get("FLYTE_AUTH_COMMAND", "[]"))
tokens = [
    subprocess.run(argv, capture_output=True, text=True)
    for argv in (command, os.environ.get("FLYTE_CREDENTIALS_COMMAND", "").split(","))
    if argv and argv[0]
]
folder = os.path.dirname(config)
print(json.dumps({
    "argv": sys.argv[1:],
    "environ": dict(os.environ),
    "config": pathlib.Path(config).read_text(),
    "command": command,
    "tokens": [(x.returncode, x.stdout, x.stderr) for x in tokens],
    "modes": {name: stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode)
              for name in [".", *os.listdir(folder)]},
}))
sys.exit(7)
"""
# Each signal leaves a byte, however close the next one follows.
WAITING = """\
import os, select, signal, sys
reading, writing = os.pipe()
os.set_blocking(writing, False)
signal.set_wakeup_fd(writing)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, frame: None)
if "apart" in sys.argv:
    os.setpgid(0, 0)
print("ready", flush=True)
heard = os.read(reading, 1)
while select.select([reading], [], [], 0.5)[0]:
    heard += os.read(reading, 100)
print([signal.Signals(number).name for number in heard], flush=True)
sys.exit(5)
"""


@pytest.fixture(scope="module")
def template(calm: Running, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with a configuration and a login, and with tools in it."""
    home = Home(tmp_path_factory.mktemp("template"))
    home.write(
        ".flyte/config.yaml",
        f"admin:\n  endpoint: {calm.base_url}\nimage:\n  builder: remote\ntask:\n  project: p\n",
    )
    login(home, calm.base_url)
    tools(home)
    return home


def tools(home: Home) -> None:
    home.write("tool.py", TOOL)
    home.write("waiting.py", WAITING)
    for name in ("tool", "flyte"):
        path = home.write(f"bin/{name}", f"#!{sys.executable}\n{TOOL}")
        path.chmod(0o755)
    (home.path / "tmp").mkdir()


@pytest.fixture
def logged_in(home: Home, template: Home) -> Iterator[Home]:
    shutil.copytree(template.path, home.path, dirs_exist_ok=True)
    yield home
    assert list((home.path / "tmp").iterdir()) == []  # whatever happened


def run(home: Home, *words: str, **environ: str) -> Ended:
    return home.program([FLYTEAUTH, *words], {"TMPDIR": str(home.path / "tmp"), **environ})


def told(ended: Ended) -> dict[str, Any]:
    """What TOOL says; that its two ways to a token worked."""
    assert ended.status == 7, ended
    said: dict[str, Any] = json.loads(ended.out)
    for status, out, err in said["tokens"]:
        assert (status, err) == (0, "")
        assert TOKEN.fullmatch(out)
    return said


# What a tool is given.


def test_a_tool_gets_tokens_by_command_and_none_in_its_environment(
    logged_in: Home, calm: Running
) -> None:
    ended = run(logged_in, "exec", "--", sys.executable, "tool.py", "--endpoint", "its own", "--")
    said = told(ended)
    assert ended.err == ""
    assert said["argv"] == ["--endpoint", "its own", "--"]
    (_, token, _), (_, again, _) = said["tokens"]
    assert token == again == logged_in.run("token").out
    assert token.strip() not in str(said["environ"]) + said["config"]

    environ = said["environ"]
    dns = f"dns:///{calm.base_url.removeprefix('http://')}"
    assert environ["FLYTE_AUTH_TYPE"] == environ["FLYTE_CREDENTIALS_AUTH_MODE"] == "ExternalCommand"
    assert environ["FLYTE_ADMIN_ENDPOINT"] == environ["FLYTE_PLATFORM_URL"] == dns
    assert environ["FLYTECTL_CONFIG"] == environ["UCTL_CONFIG"] == environ["UNION_CONFIG"]
    assert said["command"][:3] == [FLYTEAUTH, "token", "--verify"]
    assert yaml.safe_load(said["config"]) == {
        "admin": {
            "endpoint": dns,
            "insecure": True,
            "authType": "ExternalCommand",
            "command": said["command"],
            "disableKeyring": True,
        },
        "image": {"builder": "remote"},
        "task": {"project": "p"},
    }
    assert said["modes"] == {".": 0o700, "config.yaml": 0o600, "login.yaml": 0o600}


@pytest.mark.parametrize("variable", ["FLYTE_API_KEY", "UNION_API_KEY"])
def test_an_api_key_is_kept_from_the_environment_of_a_tool(
    logged_in: Home, calm: Running, variable: str
) -> None:
    said = told(run(logged_in, "exec", "--", "bin/tool", **{variable: calm.api_key}))
    assert len(said["tokens"]) == 2
    _, secret = calm.plane.service_client
    assert variable not in said["environ"]
    assert calm.api_key not in str(said)
    assert secret not in str(said)
    assert said["modes"]["secret"] == 0o600


def test_a_secret_from_the_environment_is_kept_from_that_of_a_tool(
    logged_in: Home, calm: Running
) -> None:
    client_id, secret = calm.plane.service_client
    logged_in.write(
        ".flyte/config.yaml",
        f"admin:\n  endpoint: {calm.base_url}\n  authType: ClientSecret\n"
        f"  clientId: {client_id}\n  clientSecretEnvVar: CI_SECRET\n",
    )
    others = {"EAGER_API_KEY": CANARY, "FLYTE_CREDENTIALS_CLIENT_SECRET": CANARY}
    said = told(run(logged_in, "exec", "--", "bin/tool", CI_SECRET=secret, **others))
    assert len(said["tokens"]) == 2
    assert secret not in str(said)
    assert CANARY not in str(said)


@pytest.mark.parametrize("form", ["{}", "Bearer {}", '{{"access_token": "{}"}}'])
def test_what_a_command_prints_goes_through_us_in_whatever_form_it_is(
    logged_in: Home, calm: Running, form: str
) -> None:
    token = logged_in.run("token").out
    printer = logged_in.write("print_token.sh", f"#!/bin/sh\necho '{form.format(token.strip())}'\n")
    printer.chmod(0o755)
    logged_in.write(
        ".flyte/config.yaml",
        f"admin:\n  endpoint: {calm.base_url}\n  authType: ExternalCommand\n"
        f"  command: ['{printer}']\n",
    )
    said = told(run(logged_in, "exec", "--", "bin/tool"))
    assert str(printer) not in said["command"]
    assert said["command"][1:3] == ["token", "--verify"]
    assert [out for _, out, _ in said["tokens"]] == [token, token]


def test_a_command_that_asks_us_by_another_configuration_is_no_circle(
    logged_in: Home, calm: Running
) -> None:
    token = logged_in.run("token").out
    endpoint = f"admin:\n  endpoint: {calm.base_url}\n  authType: ExternalCommand\n"
    logged_in.write("inner.yaml", f"{endpoint}  command: [echo, {token.strip()}]\n")
    wrapper = logged_in.write(
        "wrapper.sh", f"#!/bin/sh\nexec {FLYTEAUTH} --config {logged_in.path}/inner.yaml token\n"
    )
    wrapper.chmod(0o755)
    logged_in.write(".flyte/config.yaml", f"{endpoint}  command: ['{wrapper}']\n")
    said = told(run(logged_in, "exec", "--", "bin/tool"))
    assert [(status, out) for status, out, _ in said["tokens"]] == [(0, token), (0, token)]


def test_a_tool_uses_the_login_that_was_asked_for(logged_in: Home, serve: Serve) -> None:
    """Not that of a file in the working directory, nor of the environment."""
    other = serve()
    away = {"FLYTE_ADMIN_ENDPOINT": "http://localhost:9", "FLYTE_ADMIN_CLIENTID": "away"}
    login(logged_in, other.base_url, "--account", "second")
    words = ("--endpoint", other.base_url, "exec", "--account", "second", "--", "bin/tool")
    said = told(run(logged_in, *words))
    (_, token, _), _ = said["tokens"]
    found = logged_in.run("token", "--endpoint", other.base_url, "--account", "second")
    assert token == found.out
    assert f"dns:///{other.base_url.removeprefix('http://')}" in said["config"]
    ended = run(logged_in, *words, **away)
    ended.failed_with(4, "not logged in")  # the environment names another client


def test_what_runs_in_a_tool_finds_the_login_as_well(logged_in: Home) -> None:
    ended = run(logged_in, "exec", "--", FLYTEAUTH, "whoami")
    assert ended.status == 0, ended
    assert ended.out.startswith("alice")


def test_where_no_token_is_wanted_a_tool_is_just_run(logged_in: Home, serve: Serve) -> None:
    running = serve("no-auth")
    said = told(run(logged_in, "exec", "--endpoint", running.base_url, "--", "bin/tool"))
    assert said["tokens"] == []
    assert not {"FLYTE_AUTH_TYPE", "FLYTE_AUTH_COMMAND"} & said["environ"].keys()
    assert "authType" not in said["config"]
    assert said["modes"] == {".": 0o700, "config.yaml": 0o600}


# flyte.


@pytest.mark.parametrize("command", ["run", "deploy"])
def test_run_and_deploy_are_those_of_flyte_with_all_their_words(
    logged_in: Home, command: str
) -> None:
    path = f"{logged_in.path}/bin:{os.environ['PATH']}"
    words = ["--project", "p", "my_script.py", "my_workflow", "--config", "its own", "--", "-x"]
    said = told(run(logged_in, command, *words, PATH=path))
    assert said["argv"] == [command, *words]
    shutil.move(logged_in.path / ".flyte/config.yaml", logged_in.path / "my-config.yaml")
    said = told(run(logged_in, "--config", "~/my-config.yaml", command, "a.py", PATH=path))
    assert said["argv"] == [command, "a.py"]
    assert len(said["tokens"]) == 2


def test_without_flyte_there_is_a_line_on_how_to_get_it(logged_in: Home) -> None:
    ended = run(logged_in, "run", "a.py", "main", PATH=str(logged_in.path))
    ended.failed_with(127, "pip install flyte")
    ended = run(logged_in, "run", "--help", PATH=str(logged_in.path))
    assert (ended.status, ended.err) == (0, "")
    assert "flyteauth" in ended.out


# Streams, signals and statuses.


def test_streams_are_the_tool_s(logged_in: Home) -> None:
    script = f"echo in | {FLYTEAUTH} exec -- sh -c 'cat; echo err >&2; exit 3'"
    ended = logged_in.program(["sh", "-c", script], {"TMPDIR": str(logged_in.path / "tmp")})
    assert ended == Ended(3, "in\n", "err\n")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["no-such-tool"], 127, "no-such-tool"),
        (["./no-such-tool"], 127, "no-such-tool"),
        (["./tool.py"], 126, "permission denied"),
        (["bin"], 127, "bin"),
        (["./bin"], 126, "cannot be run"),
        (["./broken"], 127, "broken"),
        (["./empty"], 126, "exec format error"),
    ],
)
def test_what_cannot_be_run(logged_in: Home, words: list[str], status: int, said: str) -> None:
    logged_in.write("broken", "#!/no/such/interpreter\n").chmod(0o755)
    logged_in.write("empty", "\x00").chmod(0o755)
    run(logged_in, "exec", "--", *words).failed_with(status, said)


def test_a_command_that_is_not_there_costs_no_login(home: Home, serve: Serve) -> None:
    running = serve()
    argv = (FLYTEAUTH, "exec", "--endpoint", running.base_url, "--", "no-such-tool")
    assert home.at_terminal(argv, {"BROWSER": BROWSER}).status == 127
    assert running.plane.count() == 0


def test_nothing_to_run_is_a_usage_error(logged_in: Home) -> None:
    for words in ((), ("--",)):
        ended = run(logged_in, "exec", *words)
        assert ended.status == 2
        assert "COMMAND" in ended.err


def test_without_a_login_nothing_is_run(home: Home, calm: Running) -> None:
    ended = home.run("exec", "--endpoint", calm.base_url, "--", "touch", "it-ran")
    ended.failed_with(4, "flyteauth login")
    assert not (home.path / "it-ran").exists()


def test_a_person_is_asked_to_log_in_first(home: Home, serve: Serve) -> None:
    running = serve()
    tools(home)
    argv = (FLYTEAUTH, "exec", "--endpoint", running.base_url, "--", "bin/tool")
    ended = home.at_terminal(argv, {"BROWSER": BROWSER})
    assert len(told(ended)["tokens"]) == 2
    assert "/oauth2/authorize?" in ended.err


@pytest.mark.parametrize(
    "environ", [{"FLYTE_ADMIN_TOKENSTORE": "memory"}, {"FLYTEAUTH_HOME": "/dev/null/none"}]
)
def test_a_login_that_no_other_process_can_use_is_refused(
    home: Home, calm: Running, environ: dict[str, str]
) -> None:
    argv = (FLYTEAUTH, "exec", "--endpoint", calm.base_url, "--", "touch", "it-ran")
    ended = home.at_terminal(argv, {"BROWSER": BROWSER, **environ})
    assert ended.status == 1, ended
    assert "no tool can use it" in ended.err
    assert not (home.path / "it-ran").exists()


def test_a_tool_that_is_killed_leaves_nothing_behind(logged_in: Home) -> None:
    assert run(logged_in, "exec", "--", "sh", "-c", "kill -9 $$").status == 137
    assert run(logged_in, "exec", "--", "sh", "-c", "kill -SEGV $$").status == 139


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_to_us_reaches_the_tool_once_and_is_waited_for(logged_in: Home, name: str) -> None:
    words = ("exec", "--", sys.executable, "waiting.py")
    with logged_in.started(*words, TMPDIR=str(logged_in.path / "tmp")) as process:
        read_until(process.stdout, "ready")
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out, err) == (5, f"['{name}']\n", "")


def test_a_tool_that_does_not_care_for_signals_ends_by_them(logged_in: Home) -> None:
    words = ("exec", "--", "sh", "-c", "echo ready; exec sleep 60")
    with logged_in.started(*words, TMPDIR=str(logged_in.path / "tmp")) as process:
        read_until(process.stdout, "ready")
        process.terminate()
        assert process.wait(DEADLINE) == 128 + signal.SIGTERM


def test_a_signal_that_we_were_told_to_ignore_is_ignored_by_the_tool(logged_in: Home) -> None:
    script = f"trap '' HUP; exec {FLYTEAUTH} exec -- sh -c 'kill -HUP $$; echo alive'"
    ended = logged_in.program(["sh", "-c", script], {"TMPDIR": str(logged_in.path / "tmp")})
    assert ended == Ended(0, "alive\n", "")


@contextmanager
def in_front_of_a_terminal(home: Home, *tool: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """``flyteauth exec`` with a terminal of its own, whose other end is the descriptor."""
    ours, theirs = pty.openpty()
    # The first terminal that the leader of a new session opens is its own.
    script = f"exec {FLYTEAUTH} exec -- {sys.executable} {' '.join(tool)} <{os.ttyname(theirs)}"
    with subprocess.Popen(
        ["sh", "-c", script],
        cwd=home.path,
        env=home.environ(TMPDIR=str(home.path / "tmp")),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            read_until(process.stdout, "ready")
            yield process, ours
        finally:
            process.kill()
            os.close(ours)


def test_ctrl_c_reaches_the_tool_and_is_waited_for(logged_in: Home) -> None:
    with in_front_of_a_terminal(logged_in, "waiting.py") as (process, terminal):
        os.write(terminal, b"\x03")
        out, _ = process.communicate(timeout=DEADLINE)
        assert (process.returncode, out) == (5, "['SIGINT']\n")


def test_ctrl_c_comes_from_the_terminal_and_not_from_us_as_well(logged_in: Home) -> None:
    """The terminal does not reach a tool in a group of its own: it hears what we pass on."""
    with in_front_of_a_terminal(logged_in, "waiting.py", "apart") as (process, terminal):
        os.write(terminal, b"\x03")
        process.terminate()
        out, _ = process.communicate(timeout=DEADLINE)
        assert (process.returncode, out) == (5, "['SIGTERM']\n")


def test_what_is_handed_over_is_gone_with_the_tool(logged_in: Home) -> None:
    """``logged_in`` looks, here as everywhere."""
    slow = logged_in.write("bin/slow", "#!/bin/sh\necho ready\nexec sleep 60\n")
    slow.chmod(0o755)
    with logged_in.started("exec", "--", str(slow), TMPDIR=str(logged_in.path / "tmp")) as process:
        read_until(process.stdout, "ready")
        (folder,) = Path(logged_in.path / "tmp").iterdir()
        assert folder.name.startswith("flyteauth-exec-")
        process.send_signal(signal.SIGHUP)
        assert process.wait(DEADLINE) == 128 + signal.SIGHUP


def test_what_a_killed_process_has_handed_over_goes_with_the_next_one(
    logged_in: Home, calm: Running
) -> None:
    folder = logged_in.path / "tmp"
    environ = {"TMPDIR": str(folder), "FLYTE_API_KEY": calm.api_key}
    words = ("exec", "--", "sh", "-c")
    with logged_in.started(*words, "echo ready; exec sleep 60", **environ) as alive:
        read_until(alive.stdout, "ready")
        with logged_in.started(*words, "kill -KILL $PPID", **environ) as killed:
            assert killed.wait(DEADLINE) == -signal.SIGKILL
        (left,) = folder.glob(f"flyteauth-exec-{killed.pid}-*")
        assert (left / "secret").exists()
        # What only looks like it.
        kept = logged_in.write("kept/secret", "mine").parent
        link = folder / f"flyteauth-exec-{killed.pid}-link"
        link.symlink_to(kept)
        file = folder / f"flyteauth-exec-{killed.pid}-file"
        file.touch()
        other = folder / f"flyteauth-exec-{killed.pid}"
        other.mkdir()
        (of_living,) = folder.glob(f"flyteauth-exec-{alive.pid}-*")

        assert run(logged_in, "exec", "--", "true") == Ended(0, "", "")
        assert set(folder.iterdir()) == {of_living, link, file, other}
        assert (kept / "secret").exists()
        alive.terminate()
        assert alive.wait(DEADLINE) == 128 + signal.SIGTERM
    link.unlink()
    file.unlink()
    other.rmdir()


def test_what_flyte_will_not_send_is_said_before_it_begins(home: Home, serve: Serve) -> None:
    """It would only be refused, and say nothing of why."""
    running = serve("custom-header-key")
    tools(home)
    login(home, running.base_url)
    words = ("exec", "--endpoint", running.base_url, "--")
    ended = run(home, *words, "bin/flyte")
    assert ended.err == (
        "flyteauth: without TLS flyte sends no token, whoever it is from; flytekit does\n"
        "flyteauth: this control plane takes tokens from flyte-authorization, and flyte sends "
        "those of a command in authorization; in a program, use "
        "flyteauth.integrations.flyte.installed\n"
    )
    assert "flyte-authorization" in run(home, *words, "sh", "-c", "exec bin/flyte").err
    for other in (["bin/tool"], [FLYTEAUTH, "whoami"], ["ls", ".flyte", "flyte.yaml", "flyte-x"]):
        assert "flyte-authorization" not in run(home, *words, *other).err


def test_a_tool_gets_a_login_that_is_in_the_keyring(home: Home, calm: Running) -> None:
    """The tool is told to keep its hands off the keyring; our own command is not."""
    tools(home)
    keyring = {"PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring"}
    home.write(".flyte/config.yaml", f"admin:\n  endpoint: {calm.base_url}\n")
    entered = run(home, "login", "--auth-type", "pkce", BROWSER=BROWSER, **keyring)
    assert entered.status == 0, entered
    assert [path.name for path in home.path.rglob("keyring_pass.cfg")] == ["keyring_pass.cfg"]
    ended = run(home, "exec", "--", sys.executable, "tool.py", **keyring)
    said = told(ended)
    assert said["environ"]["FLYTE_ADMIN_DISABLEKEYRING"] == "true"
    assert len(said["tokens"]) == 2
    for status, out, err in said["tokens"]:
        assert (status, err) == (0, "")
        assert TOKEN.fullmatch(out)
