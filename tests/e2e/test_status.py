"""``flyteauth status``: the truth, from files and keyring alone, and why it is so."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen

from flyteauth.cli import main
from flyteauth.cli._lines import short
from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings

from .conftest import BROWSER, Ended, Home, Serve, login, refused

CANARY = "canary-4711-secret"
API_KEY = b64encode(f"key.example.com:key-client:{CANARY}:key-org".encode()).decode()
PLAINTEXT: dict[str, Any] = {"PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring"}


@pytest.fixture
def logged_in(home: Home, somebody: Home) -> Home:
    shutil.copytree(somebody.path, home.path, dirs_exist_ok=True)
    return home


def explained(home: Home, *words: str, **environ: Any) -> dict[str, Any]:
    ended = home.run("status", *words, "--json", **environ)
    assert ended.err == "", ended
    assert CANARY not in ended.out
    document: dict[str, Any] = json.loads(ended.out)
    return document


# Whether somebody is logged in.


def test_who_is_logged_in_where_and_for_how_long(logged_in: Home, calm: Running) -> None:
    ended = logged_in.run("status", "--endpoint", calm.base_url)
    assert (ended.status, ended.err) == (0, "")
    first, *rest = ended.out.splitlines()
    assert first == f"Logged in to {calm.base_url.removeprefix('http://')} as alice."
    said = dict(line.split(maxsplit=1) for line in rest)
    assert said["endpoint"] == calm.base_url
    assert said["authType"] == "Pkce, the default"
    assert "ends in 30 min; renews itself" in said["token"]
    assert "~/" in ended.out
    assert str(logged_in.path) not in ended.out
    assert all(len(line) <= 80 for line in ended.out.splitlines())


@pytest.mark.req("SEC-08")
def test_a_login_in_a_file_is_said_to_be_unencrypted(logged_in: Home, calm: Running) -> None:
    """Once when it is made, and here from then on."""
    ended = logged_in.run("status", "--endpoint", calm.base_url)
    assert "not encrypted, in files only you can read: no keyring" in ended.out
    ended = logged_in.run("status", "--endpoint", calm.base_url, FLYTE_ADMIN_TOKENSTORE="file")
    assert "not encrypted, in files only you can read, as configured" in ended.out


@pytest.mark.req("SEC-08")
def test_keyring_means_keyring_or_an_error(home: Home, calm: Running) -> None:
    environ: dict[str, Any] = {"FLYTE_ADMIN_TOKENSTORE": "keyring"}
    off: dict[str, Any] = {**environ, "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    words = ("--endpoint", calm.base_url)
    ended = home.run("login", *words, BROWSER=BROWSER, **off)
    assert ended.status == 1
    assert "keyring" in ended.err.splitlines()[-1]
    assert home.stored() == {}
    assert home.run("status", *words, **off).status == 1

    named: dict[str, Any] = {**environ, **PLAINTEXT}
    assert home.run("login", *words, BROWSER=BROWSER, **named).status == 0
    ended = home.run("status", *words, **named)
    assert ended.status == 0, ended
    assert "keyring" in ended.out
    assert "not encrypted" in ended.out


def test_nobody_is_logged_in(home: Home, calm: Running) -> None:
    ended = home.run("status", "--endpoint", calm.base_url)
    assert (ended.status, ended.err) == (4, "")
    assert ended.out.startswith("Not logged in to ")
    assert ended.out.splitlines()[-1] == f"run: flyteauth login --endpoint {calm.base_url}"


@pytest.mark.parametrize(
    ("faults", "status"), [((), 0), (("no-refresh-token",), 4)], ids=["renews", "is over"]
)
def test_a_token_that_has_expired_counts_if_it_renews_itself(
    home: Home, serve: Serve, faults: tuple[str, ...], status: int
) -> None:
    running = serve(*faults, access_ttl=1.0)
    login(home, running.base_url)
    time.sleep(1.1)  # until it has expired
    words = ("--endpoint", running.base_url)
    check = home.run("status", *words, "--check")
    assert (check.status, check.out, check.err) == (status, "", "")
    told = home.run("status", *words)
    assert told.status == status
    assert ("is over" in told.out.splitlines()[0]) == bool(status)
    requests = len(running.plane.journal)
    home.run("status", *words, "--explain")
    assert len(running.plane.journal) == requests


def test_check_says_nothing_whether_somebody_is_logged_in_or_not(
    logged_in: Home, calm: Running
) -> None:
    ended = logged_in.run("status", "--check", "--endpoint", calm.base_url)
    assert (ended.status, ended.out, ended.err) == (0, "", "")
    ended = logged_in.run("status", "--check", "--endpoint", "else.example.com")
    assert (ended.status, ended.out, ended.err) == (4, "", "")
    assert logged_in.run("status", "--check", FLYTE_API_KEY=API_KEY).status == 0
    environ: dict[str, Any] = {
        "FLYTE_AUTH_TYPE": "ExternalCommand",
        "FLYTE_AUTH_COMMAND": f"echo {CANARY}",
    }
    ended = logged_in.run("status", "--check", "--endpoint", "else.example.com", **environ)
    assert (ended.status, ended.out, ended.err) == (0, "", "")


def test_questions_go_together(home: Home, calm: Running) -> None:
    words = ("status", "--endpoint", calm.base_url)
    document = json.loads(home.run(*words, "--explain", "--json").out)
    assert document == json.loads(home.run(*words, "--json").out)


@pytest.mark.parametrize("option", ["--json", "--explain"])
def test_whoever_only_checks_asks_for_nothing_to_read(home: Home, option: str) -> None:
    ended = home.run("status", "--check", option, "--endpoint", "flyte.example.com")
    assert (ended.status, ended.out) == (2, "")
    assert f"--check: not allowed with argument {option}" in ended.err


def test_what_is_wrong_is_no_answer(home: Home) -> None:
    home.run("status", "--check").failed_with(1, "endpoint")
    home.run("status").failed_with(1, "endpoint")
    ended = home.run("status", "--json")
    assert ended.status == 1
    assert json.loads(ended.out)["reason"] == "endpoint"


def test_without_an_endpoint_it_is_still_shown_where_it_was_looked_for(home: Home) -> None:
    ended = home.run("status", "--explain")
    assert ended.status == 1
    assert "~/.union/config.yaml: not there" in ended.out
    assert ended.err.count("\n") == 1


def test_a_store_that_cannot_be_asked_is_an_error_and_not_a_logout(home: Home) -> None:
    words = ("status", "--endpoint", "flyte.example.com")
    environ: dict[str, Any] = {"FLYTE_ADMIN_TOKENSTORE": f"redis://me:{CANARY}@127.0.0.1:1/0"}
    for option in ((), ("--check",)):
        home.run(*words, *option, **environ).failed_with(1, "redis at 127.0.0.1:1/0")
    ended = home.run(*words, "--explain", **environ)
    assert ended.status == 1
    assert CANARY not in ended.out + ended.err


def test_neither_an_event_loop_nor_http_is_imported(logged_in: Home, calm: Running) -> None:
    code = (
        "import sys; from flyteauth.cli import main; main(sys.argv[1:]); "
        "print(sorted({'anyio', 'asyncio', 'httpx', 'attrs', 'keyring'} & sys.modules.keys()))"
    )
    words = ("status", "--endpoint", calm.base_url)
    ended = logged_in.program([sys.executable, "-c", code, *words], {})
    assert ended.out.splitlines()[-1] == "[]", ended


# Why.

FILE = """\
admin:
  endpoint: dns:///file.example.com
  authType: DeviceFlow
  clientId: file-client
"""
HOME = "{home}/.flyte/config.yaml: "


@frozen
class Case:
    """What is given, and what each setting comes to: its value, its source, and what lost."""

    expected: dict[str, tuple[str, str, list[str]]]
    words: tuple[str, ...] = ()
    environ: dict[str, Any] = field(factory=dict)
    file: str = FILE


KEY = "API key from environment variable FLYTE_API_KEY"
PRECEDENCE = {
    "the file alone": Case(
        {
            "endpoint": ("https://file.example.com", f"{HOME}admin.endpoint", []),
            "auth_type": ("DeviceFlow", f"{HOME}admin.authType", []),
            "client_id": ("file-client", f"{HOME}admin.clientId", []),
        }
    ),
    "the environment goes before the file": Case(
        {
            "endpoint": (
                "https://env.example.com",
                "environment variable FLYTE_ADMIN_ENDPOINT",
                [f"{HOME}admin.endpoint"],
            ),
            "auth_type": (
                "Pkce",
                "environment variable FLYTE_AUTH_TYPE",
                [f"{HOME}admin.authType"],
            ),
        },
        environ={"FLYTE_ADMIN_ENDPOINT": "env.example.com", "FLYTE_AUTH_TYPE": "Pkce"},
    ),
    "an API key goes before environment and file": Case(
        {
            "endpoint": (
                "https://key.example.com",
                KEY,
                ["environment variable FLYTE_ADMIN_ENDPOINT", f"{HOME}admin.endpoint"],
            ),
            "auth_type": ("ClientSecret", KEY, [f"{HOME}admin.authType"]),
            "client_id": ("key-client", KEY, [f"{HOME}admin.clientId"]),
            "org": ("key-org", KEY, []),
        },
        environ={"FLYTE_ADMIN_ENDPOINT": "env.example.com", "FLYTE_API_KEY": API_KEY},
    ),
    "an option goes before an API key": Case(
        {
            "endpoint": (
                "https://key.example.com:8443",
                "--endpoint",
                [KEY, f"{HOME}admin.endpoint"],
            ),
            "auth_type": ("ClientSecret", KEY, [f"{HOME}admin.authType"]),
        },
        words=("--endpoint", "key.example.com:8443"),
        environ={"FLYTE_API_KEY": API_KEY},
    ),
    "an authType that is said leaves the API key alone": Case(
        {
            "endpoint": ("https://file.example.com", f"{HOME}admin.endpoint", []),
            "auth_type": ("Pkce", "--auth-type", [f"{HOME}admin.authType"]),
        },
        words=("--auth-type", "pkce"),
        environ={"FLYTE_API_KEY": API_KEY},
    ),
    "a client secret makes it ClientSecret": Case(
        {
            "auth_type": (
                "ClientSecret",
                f"{HOME}admin.clientSecretEnvVar",
                [f"{HOME}admin.authType"],
            ),
            "client_secret": (
                "in the environment variable MY_SECRET",
                f"{HOME}admin.clientSecretEnvVar",
                [],
            ),
        },
        environ={"MY_SECRET": CANARY},
        file=f"{FILE}  clientSecretEnvVar: MY_SECRET\n",
    ),
}


@pytest.mark.req("ERR-07")
@pytest.mark.parametrize("name", PRECEDENCE)
def test_every_value_says_where_it_came_from_and_what_it_won_over(home: Home, name: str) -> None:
    case = PRECEDENCE[name]
    home.write(".flyte/config.yaml", case.file)
    settings = {
        each["name"]: each for each in explained(home, *case.words, **case.environ)["settings"]
    }
    for setting, (value, source, over) in case.expected.items():
        placed = [text.format(home=home.path) for text in (source, *over)]
        assert settings[setting] == {
            "name": setting,
            "value": value,
            "source": placed[0],
            "over": placed[1:],
        }


VARIABLES = {
    "FLYTE_ADMIN_ENDPOINT": ("lost", "--endpoint"),
    "FLYTE_ADMIN_CLIENTID": ("used", "client_id"),
    "FLYTE_ADMIN_SCOPES": ("ignored", "empty"),
    "FLYTE_ADMIN_ENDPOIN": ("ignored", "no setting"),
    "FLYTE_ADMIN_AUTHTYPE": ("lost", "--auth-type"),
    "FLYTE_API_KEY": ("ignored", "--auth-type"),
    "UNION_API_KEY": ("ignored", "--auth-type"),
    "FLYTECTL_CONFIG": ("lost", ".flyte/config.yaml"),
    "SSL_CERT_DIR": ("used", "certificates"),
}


def test_variables_that_are_set_and_do_nothing_say_why(home: Home) -> None:
    home.write(".flyte/config.yaml", FILE)
    environ = dict.fromkeys(VARIABLES, "x") | {
        "FLYTE_API_KEY": API_KEY,
        "UNION_API_KEY": API_KEY,
        "FLYTE_ADMIN_SCOPES": "",
        "FLYTE_ADMIN_AUTHTYPE": "Pkce",
        "FLYTE_INTERNAL_IMAGE": "of no interest",
    }
    words = ("--endpoint", "said.example.com", "--auth-type", "headless")
    found = {each["name"]: each for each in explained(home, *words, **environ)["variables"]}
    for name, (state, why) in VARIABLES.items():
        assert found[name]["state"] == state, found[name]
        assert why in found[name]["why"], found[name]
    assert "FLYTE_INTERNAL_IMAGE" not in found


def test_every_file_that_was_looked_at_is_named_once(home: Home) -> None:
    home.write("config.yaml", "pipelines: []\n")
    home.write(".flyte/config.yaml", FILE)
    files = explained(home)["files"]
    assert files == [
        f"{home.path}/config.yaml: passed over, nothing in it is Flyte's",
        f"{home.path}/.flyte/config.yaml: used",
    ]


@pytest.mark.req("SEC-02")
def test_no_secret_is_explained(home: Home) -> None:
    home.write("secret.txt", CANARY)
    home.write(
        ".flyte/config.yaml",
        f"{FILE}  httpProxyURL: http://me:{CANARY}@proxy.example.com:3128\n"
        f"  tokenStore: redis://me:{CANARY}@127.0.0.1:1/0\n"
        f"  proxyCommand: [print-token, --password, {CANARY}]\n"
        f"  clientSecretLocation: {home.path}/secret.txt\n"
        f"  extraParameters: {{token: {{hint: {CANARY}}}}}\n",
    )
    ended = home.run("status", "--explain")
    assert CANARY not in ended.out + ended.err
    for shown in ("http://proxy.example.com:3128", "print-token and 2 words", "token: hint"):
        assert shown in ended.out
    ended = home.run("status", "--explain", FLYTE_API_KEY=API_KEY)
    assert CANARY not in ended.out + ended.err
    assert API_KEY not in ended.out
    assert "API key " in ended.out


def stores(home: Home, endpoint: str, **environ: Any) -> list[tuple[bool, str]]:
    found = explained(home, "--endpoint", endpoint, **environ)["stores"]
    return [(each["used"], each["text"]) for each in found]


@pytest.mark.req("SEC-08")
def test_every_store_that_was_looked_at_says_what_it_has(logged_in: Home, calm: Running) -> None:
    (files, keyring) = stores(logged_in, calm.base_url)
    assert (files[0], keyring[0]) == (True, False)
    assert files[1].endswith("logins: has the login")
    ((used, text),) = stores(logged_in, calm.base_url, FLYTE_ADMIN_TOKENSTORE="file")
    assert used
    assert text.endswith("logins: has the login")
    assert logged_in.run("logout", "--endpoint", calm.base_url).status == 0
    login(logged_in, calm.base_url)
    environ: dict[str, Any] = dict(PLAINTEXT)
    assert (
        logged_in.run("login", "--endpoint", calm.base_url, BROWSER=BROWSER, **environ).status == 0
    )
    (files, keyring) = stores(logged_in, calm.base_url, **environ)
    assert (files[0], keyring[0]) == (False, True)
    assert "the login is in the keyring" in files[1]
    assert "keyrings.alt" in keyring[1]


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize("there", [True, False], ids=["logged in", "nobody"])
def test_a_keyring_that_cannot_be_used_is_said_to_be_that(
    home: Home, somebody: Home, calm: Running, *, there: bool
) -> None:
    environ: dict[str, Any] = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    if there:
        shutil.copytree(somebody.path, home.path, dirs_exist_ok=True)
    _, (used, text) = stores(home, calm.base_url, **environ)
    assert not used
    assert text.startswith("the keyring: the keyring is switched off")
    _, (used, text) = stores(home, calm.base_url, **PLAINTEXT)
    assert not used
    assert text.endswith("is newer" if there else "nothing")


def test_a_login_that_was_begun_and_a_leftover_are_mentioned(home: Home, serve: Serve) -> None:
    running = serve(approve="page")
    words = ("--endpoint", running.base_url, "--account", "work")
    assert home.run("login", *words, "--no-wait").status == 0
    (home.path / ".unionai").mkdir()
    facts = "\n".join(explained(home, *words)["facts"])
    resume = f"flyteauth login --resume --endpoint {running.base_url} --account work"
    assert facts.splitlines()[-2].endswith(f": {resume}")
    shown = home.run("status", *words, "--explain").out
    assert resume in " ".join(shown.split())
    assert "~/.unionai is there" in facts


def test_status_says_how_to_finish_a_login_that_was_begun(home: Home, serve: Serve) -> None:
    running = serve(approve="page")
    words = ("--endpoint", running.base_url)
    assert home.run("login", *words, "--no-wait").status == 0
    resume = f"flyteauth login --resume --endpoint {running.base_url}"
    ended = home.run("status", *words)
    assert (ended.status, ended.err) == (4, "")
    assert f"{running.base_url.removeprefix('http://')} yet: a login was begun." in ended.out
    assert "its code lasts 10 min more" in ended.out
    assert ended.out.endswith(f"\nrun: {resume}\n")
    assert json.loads(home.run("status", *words, "--json").out)["next"] == resume
    assert home.run("status", *words, "--check").out == ""
    other = home.run("status", *words, "--account", "other")
    assert "begun" not in other.out
    assert "--resume" not in other.out
    (begun,) = home.path.rglob("pending/*")
    begun.write_bytes(b"no login")
    assert "--resume" not in home.run("status", *words).out


def test_what_is_shown_fits_a_terminal_and_has_colour_only_there(
    logged_in: Home, calm: Running
) -> None:
    flyteauth = str(Path(sys.executable).with_name("flyteauth"))
    words = [flyteauth, "status", "--explain", "--endpoint", calm.base_url]
    assert "\x1b" not in logged_in.program(words, {}).out
    assert all(len(line) <= 80 for line in logged_in.program(words, {}).out.splitlines())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/x/locks", "~/locks"),
        ("in /x/locks, or /x/logins", "in ~/locks, or ~/logins"),
        ("file:/x/locks 'x' '/x/y'", "file:~/locks 'x' '~/y'"),
        ("/proc/x/locks", "/proc/x/locks"),
        ("/a-/x/locks", "/a-/x/locks"),
        ("~/x/locks ./x/locks", "~/x/locks ./x/locks"),
        ("/xy/locks", "/xy/locks"),
    ],
)
def test_the_home_directory_is_a_tilde_only_where_a_path_begins(
    text: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/x")
    assert short(text) == shown


def test_a_configuration_that_never_answers_has_a_deadline(
    home: Home, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flyteauth._stored.READ_DEADLINE", 0.2)
    os.mkfifo(home.path / "secret")
    home.write("config.yaml", f"{FILE}  clientSecretLocation: {home.path}/secret\n")
    monkeypatch.chdir(home.path)
    status = main(["status", "--config", "config.yaml"])
    Ended(status, *capfd.readouterr()).failed_with(1, "ordinary files")


def test_no_socket_is_opened(logged_in: Home, calm: Running) -> None:
    """The control plane may be gone: what is stored is what is asked."""
    with serving(Settings(approve="auto")) as gone:
        login(logged_in, gone.base_url)
    assert refused(int(gone.base_url.rpartition(":")[2]))
    assert logged_in.run("status", "--endpoint", gone.base_url).status == 0
