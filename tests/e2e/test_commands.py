"""``flyteauth login``, ``token`` and ``logout``, as processes that share nothing but a home."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from attrs import frozen

from flyteauth.cli import main
from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings

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
    refused,
)

DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
DEVICE_AUTHORIZATION = "/oauth2/device_authorization"


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def refreshes(running: Running) -> int:
    return running.plane.count(grant_type="refresh_token")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Logging in.


@pytest.mark.req("AZR-14", "COD-04", "REV-04", "REV-06")
def test_a_login_in_the_browser_lasts_from_process_to_process_until_logout(
    home: Home, serve: Serve
) -> None:
    running = serve()
    endpoint = ("--endpoint", running.base_url)
    said = login(home, running.base_url).err
    assert "/oauth2/authorize?" in said
    assert "Logged in to " in said

    first, second = home.run("token", *endpoint), home.run("token", *endpoint)
    assert first == second
    assert (first.status, first.err) == (0, "")
    assert TOKEN.fullmatch(first.out)
    assert running.plane.access(first.out.strip(), time.time()) is not None
    assert running.plane.count(path="/oauth2/authorize") == 1
    assert running.plane.count(path="/oauth2/token") == 1

    ended = home.run("logout", *endpoint)
    assert (ended.status, ended.out) == (0, "")
    assert "took its tokens back" in ended.err
    assert home.stored() == {}
    assert running.plane.access(first.out.strip(), time.time()) is None
    home.run("token", *endpoint).failed_with(4, "not logged in", "flyteauth login")
    ended = home.run("logout", *endpoint)
    assert ended.status == 0
    assert "There was no login" in ended.err


def test_the_browser_comes_back_to_where_the_control_plane_says(home: Home, serve: Serve) -> None:
    """That is one fixed port for every Flyte, so no two runs of this test may meet there."""
    running = serve()
    _wait_for_port(53593)
    ended = home.run(
        "login", "--endpoint", running.base_url, BROWSER=BROWSER, FLYTE_ADMIN_REDIRECTURI=""
    )
    assert ended.status == 0, ended
    assert "redirect_uri=http%3A%2F%2Flocalhost%3A53593%2Fcallback" in ended.err


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while not refused(port) and time.monotonic() < deadline:
        time.sleep(0.1)


@pytest.mark.req("DEV-10", "DEV-14")
def test_a_device_login_opens_no_browser(home: Home, serve: Serve) -> None:
    running = serve()
    opened = home.path / "opened"
    ended = home.run(
        "login",
        "--endpoint",
        running.base_url,
        "--auth-type",
        "headless",
        BROWSER=f"touch {opened}",
    )
    assert (ended.status, ended.out) == (0, "")
    assert re.search(
        r"^http://localhost:\d+/activate\?user_code=[A-Z-]{9}$", ended.err, re.MULTILINE
    )
    assert not opened.exists()
    assert running.plane.count(grant_type=DEVICE) == 1
    # The login belongs to the person, whatever flow it was made by.
    assert home.run("token", "--endpoint", running.base_url).status == 0


@pytest.mark.req("AZR-16")
def test_the_address_to_open_stands_on_one_line_however_narrow_the_terminal(
    home: Home, serve: Serve
) -> None:
    running = serve()
    words = (FLYTEAUTH, "login", "--endpoint", running.base_url)
    ended = home.at_terminal(words, {"BROWSER": BROWSER}, columns=40)
    assert ended.status == 0, ended
    (address,) = (line for line in ended.err.splitlines() if "/oauth2/authorize?" in line)
    query = parse_qs(urlsplit(address).query, strict_parsing=True)
    assert query["code_challenge_method"] == ["S256"]


@pytest.mark.req("SEC-08")
def test_a_login_that_cannot_be_kept_fails_before_anybody_is_asked(
    home: Home, serve: Serve
) -> None:
    running = serve()
    ended = home.run(
        "login", "--endpoint", running.base_url, BROWSER=BROWSER, FLYTEAUTH_HOME="/dev/null/none"
    )
    ended.failed_with(1, "/dev/null/none", "FLYTEAUTH_HOME")
    assert running.plane.count(path="/oauth2/authorize") == 0


def test_the_version_is_told(home: Home) -> None:
    ended = home.run("--version")
    assert ended.status == 0
    assert re.fullmatch(r"flyteauth \d+\.\d+\S*\n", ended.out)


@pytest.mark.req("CCG-06", "SEC-08")
def test_a_secret_from_a_file_may_end_with_a_line_break(home: Home, serve: Serve) -> None:
    running = serve()
    client_id, secret = running.plane.service_client
    (home.path / "secret.txt").write_bytes(secret.encode() + b"\r\n")
    home.write(
        ".flyte/config.yaml",
        f"admin:\n  endpoint: {running.base_url}\n  authType: ClientSecret\n"
        f"  clientId: {client_id}\n  clientSecretLocation: {home.path}/secret.txt\n",
    )
    ended = home.run("token")
    assert (ended.status, ended.err) == (0, "")
    assert TOKEN.fullmatch(ended.out)
    assert home.stored() == {}


# Staying logged in.


@pytest.mark.req("REF-02", "REF-04", "REF-12")
def test_an_expired_token_is_refreshed_once_by_whichever_process_needs_it(
    home: Home, serve: Serve
) -> None:
    running = serve(access_ttl=1.0)
    login(home, running.base_url)
    tokens = set()
    for generation in range(1, 4):
        time.sleep(1.0)  # until it has expired
        ended = home.run("token", "--endpoint", running.base_url)
        assert (ended.status, ended.err) == (0, ""), ended
        assert TOKEN.fullmatch(ended.out)
        tokens.add(ended.out)
        assert refreshes(running) == generation
    assert len(tokens) == 3
    assert running.plane.count(grant_type="authorization_code") == 1
    assert running.plane.count(grant_type="refresh_token", status=200) == 3


@frozen
class Expired:
    """A home where a token has expired, of a control plane that does not run any more."""

    home: Home
    endpoint: str

    def copied_to(self, home: Home) -> dict[str, bytes]:
        shutil.copytree(self.home.path, home.path, dirs_exist_ok=True)
        stored = home.stored()
        assert len(stored) == 1
        return stored

    @property
    def port(self) -> int:
        return port_of(self.endpoint)


@pytest.fixture(scope="module")
def expired(tmp_path_factory: pytest.TempPathFactory) -> Expired:
    home = Home(tmp_path_factory.mktemp("expired"))
    with serving(Settings(approve="auto", access_ttl=1.0)) as running:
        login(home, running.base_url)
    time.sleep(1.0)  # until it has expired
    return Expired(home, running.base_url)


@pytest.mark.req("REF-09", "REF-08", "REF-12")
@pytest.mark.parametrize("fault", ["refresh-503", "token-html", None])
def test_a_refresh_that_fails_for_now_costs_nothing(
    home: Home, serve: Serve, expired: Expired, fault: str | None
) -> None:
    stored, opened = expired.copied_to(home), home.path / "opened"
    if fault is not None:
        serve(fault, port=expired.port)
    ended = home.run("token", "--endpoint", expired.endpoint, BROWSER=f"touch {opened}")
    ended.failed_with(1)
    assert home.stored() == stored
    assert not opened.exists()


@pytest.mark.req("REF-07", "REF-10", "REF-12")
def test_a_login_that_the_server_forgot_is_over_and_no_browser_opens(
    home: Home, serve: Serve, expired: Expired
) -> None:
    opened = home.path / "opened"
    expired.copied_to(home)
    serve(port=expired.port)
    ended = home.run("token", "--endpoint", expired.endpoint, BROWSER=f"touch {opened}")
    ended.failed_with(4, "flyteauth login")
    assert not opened.exists()
    assert home.stored() == {}


@pytest.mark.req("REV-06")
def test_logout_works_offline(home: Home, expired: Expired) -> None:
    expired.copied_to(home)
    ended = home.run("logout", "--endpoint", expired.endpoint)
    assert (ended.status, ended.out) == (0, "")
    assert "on this machine" in ended.err
    assert home.stored() == {}


# Nobody is asked who did not ask for it.


@pytest.mark.req("REF-12")
def test_token_never_asks_not_even_at_a_terminal(home: Home, serve: Serve) -> None:
    running = serve()
    opened = home.path / "opened"
    for how in ("pkce", "headless"):
        words = (FLYTEAUTH, "token", "--endpoint", running.base_url, "--auth-type", how)
        home.at_terminal(words, {"BROWSER": f"touch {opened}"}).failed_with(4, "flyteauth login")
    assert not opened.exists()
    assert running.plane.count(path=DEVICE_AUTHORIZATION) == 0
    assert home.stored() == {}


def test_an_anonymous_control_plane_wants_no_login_and_keeps_no_file(
    home: Home, serve: Serve
) -> None:
    running = serve("no-auth")
    opened = home.path / "opened"
    ended = home.run("login", "--endpoint", running.base_url, BROWSER=f"touch {opened}")
    assert (ended.status, ended.out) == (0, "")
    assert "wants no login" in ended.err
    home.run("token", "--endpoint", running.base_url).failed_with(1, "wants no token")
    assert home.run("logout", "--endpoint", running.base_url).status == 0
    assert not opened.exists()
    assert list(home.path.iterdir()) == []


# Bad input and bad servers: one line, the right status, nothing lost.


@pytest.fixture
def logged_in(home: Home, somebody: Home) -> Iterator[Home]:
    """A copy of that home; the login in it must outlive the test, byte for byte."""
    shutil.copytree(somebody.path, home.path, dirs_exist_ok=True)
    before = home.stored()
    assert len(before) == 1
    yield home
    assert home.stored() == before


def _no_secret_file(home: Home) -> list[str]:
    text = (
        "admin:\n  endpoint: localhost\n  authType: ClientSecret\n"
        "  clientId: me\n  clientSecretLocation: /nowhere/secret.txt\n"
    )
    return ["--config", str(home.write("c.yaml", text)), "token"]


def _config(text: str, *command: str) -> Callable[[Home], list[str]]:
    return lambda home: ["--config", str(home.write("c.yaml", text)), *(command or ("token",))]


def _words(*words: str) -> Callable[[Home], list[str]]:
    return lambda home: list(words)


BAD_INPUT: dict[str, tuple[Callable[[Home], list[str]], list[str]]] = {
    "broken YAML": (_config("admin: {endpoint: [\n"), ["c.yaml", "YAML"]),
    "a tab in YAML": (_config("admin:\n\tendpoint: x\n"), ["c.yaml", "YAML"]),
    "not a mapping": (_config("- admin\n"), ["c.yaml"]),
    "unknown authType": (
        _config("admin:\n  endpoint: localhost\n  authType: Pcke\n"),
        ["c.yaml", "admin.authType", "Pkce"],
    ),
    "unknown --auth-type": (
        _words("login", "--endpoint", "localhost", "--auth-type", "pcke"),
        ["argument --auth-type", "Pkce"],
    ),
    "no secret file": (_no_secret_file, ["admin.clientSecretLocation", "/nowhere/secret.txt"]),
    "secret variable not set": (
        _config(
            "admin:\n  endpoint: localhost\n  authType: ClientSecret\n"
            "  clientId: me\n  clientSecretEnvVar: MY_SECRET\n"
        ),
        ["admin.clientSecretEnvVar", "MY_SECRET"],
    ),
    "no such configuration": (_words("--config", "nowhere.yaml", "token"), ["nowhere.yaml"]),
    "a directory as configuration": (_words("--config", ".", "token"), ["directory"]),
    "no endpoint": (_words("token"), ["endpoint", "FLYTE_ADMIN_ENDPOINT"]),
    "scheme cut": (_words("token", "--endpoint", "http:/localhost:1"), ["argument --endpoint"]),
    "scheme misspelt": (
        _words("token", "--endpoint", "htps://example.com"),
        ["argument --endpoint"],
    ),
    "space inside": (_words("token", "--endpoint", "example .com"), ["argument --endpoint"]),
    "port that is none": (_words("token", "--endpoint", "localhost:port"), ["argument --endpoint"]),
    "no such CA file": (
        _words("token", "--endpoint", "localhost", "--ca-cert", "nowhere.pem"),
        ["argument --ca-cert", "nowhere.pem"],
    ),
}


@pytest.mark.req("ERR-07", "SEC-09")
@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_line_that_says_what_to_do(
    logged_in: Home,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    make, words = BAD_INPUT[name]
    arguments = make(logged_in)
    for variable in os.environ:
        monkeypatch.delenv(variable)
    for variable, value in logged_in.environ().items():
        monkeypatch.setenv(variable, value)
    monkeypatch.chdir(logged_in.path)
    status = main(arguments)  # a process for each would take long
    ended = Ended(status, *capfd.readouterr())
    typed = ended.err.startswith("flyteauth: argument ")
    ended.failed_with(2 if typed else 1, *words)


def test_bad_input_is_the_same_for_the_command_itself(logged_in: Home) -> None:
    for name in ("broken YAML", "no secret file"):
        make, words = BAD_INPUT[name]
        logged_in.run(*make(logged_in)).failed_with(1, *words)


@pytest.mark.req("ERR-07", "SEC-02")
def test_half_an_api_key_is_refused_without_showing_it(logged_in: Home, calm: Running) -> None:
    key = calm.api_key
    ended = logged_in.run("token", FLYTE_API_KEY=key[: len(key) // 2])
    ended.failed_with(1, "FLYTE_API_KEY", "API key")
    assert key[:12] not in ended.err
    _, secret = calm.plane.service_client
    assert secret[:8] not in ended.err


@pytest.mark.req("CCG-04", "SEC-02")
def test_a_secret_that_is_wrong_is_not_shown(logged_in: Home, calm: Running) -> None:
    *parts, _, org = b64decode(calm.api_key).decode().split(":")
    key = b64encode(":".join([*parts, "CANARY-not-the-secret", org]).encode()).decode()
    ended = logged_in.run("token", FLYTE_API_KEY=key)
    ended.failed_with(1, "invalid_client", "secret")
    assert "CANARY" not in ended.err
    assert key not in ended.err


FAULTS: dict[str, tuple[str, str]] = {
    "html-discovery": ("pkce", "looks like a web console"),
    "deny": ("pkce", "access_denied"),
    "code-expired": ("pkce", "invalid_grant"),
    "wrong-iss": ("pkce", "another authorization server"),
    "missing-iss flyte1-only": ("pkce", "which authorization server"),
    "token-html": ("pkce", "a web page"),
    "escape-codes deny": ("headless", "access_denied"),
    "no-device": ("headless", "device"),
    "login-redirect": ("headless", "login"),
}


@pytest.mark.req("ERR-01", "ERR-05", "ERR-07", "REF-14")
@pytest.mark.parametrize("faults", FAULTS)
def test_a_login_that_fails_leaves_the_login_that_was_there(
    home: Home, serve: Serve, expired: Expired, faults: str
) -> None:
    how, said = FAULTS[faults]
    before = expired.copied_to(home)
    serve(*faults.split(), port=expired.port)
    ended = home.run("login", "--endpoint", expired.endpoint, "--auth-type", how, BROWSER=BROWSER)
    assert (ended.status, ended.out) == (1, ""), ended
    *shown, problem = ended.err.splitlines()
    assert problem.startswith("flyteauth: ")
    assert said in problem
    assert not any(line.startswith(("Traceback", "  File")) for line in shown)
    assert sum(line.startswith("flyteauth") for line in shown) <= 1  # where logins are kept
    assert "\x1b" not in ended.err
    assert "<html" not in ended.err.lower()
    assert home.stored() == before


def test_a_host_that_cannot_be_reached_is_one_line(logged_in: Home) -> None:
    endpoint = f"http://localhost:{free_port()}"
    for command in ("login", "token"):
        ended = logged_in.run(command, "--endpoint", endpoint, BROWSER=BROWSER)
        ended.failed_with(1, endpoint.removeprefix("http://"), "try again")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("logni",),
        ("token", "--end", "x"),
        ("token", "--endpiont", "x"),
        ("login", "--auth-type"),
        ("--config",),
    ],
)
def test_a_typing_mistake_is_a_usage_error(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert err.startswith("usage: flyteauth")


# Signals and closed streams.


@pytest.mark.req("CBK-16", "DEV-14")
@pytest.mark.parametrize(
    ("how", "shown"), [("pkce", "/oauth2/authorize?"), ("headless", "/activate?")]
)
def test_an_interrupted_login_says_so_and_leaves_nothing_behind(
    logged_in: Home, serve: Serve, how: str, shown: str
) -> None:
    running = serve(approve="page")
    words = ("login", "--endpoint", running.base_url, "--auth-type", how)
    with logged_in.started(*words, BROWSER="true") as process:
        address = read_until(process.stderr, shown).splitlines()[-1]
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith("flyteauth: interrupted")
    assert "Traceback" not in err
    assert err.count("flyteauth:") == 1
    if how == "pkce":
        (redirect_uri,) = parse_qs(urlsplit(address).query)["redirect_uri"]
        with socket.socket() as listener:  # without SO_REUSEADDR: nobody is there at all
            listener.bind(("127.0.0.1", port_of(redirect_uri)))


def closed(home: Home, redirection: str, *words: str, **environ: str) -> Ended:
    """A command of a shell, with one of its streams closed."""
    script = f'exec "$0" "$@" {redirection}'
    return home.program(["/bin/sh", "-c", script, FLYTEAUTH, *words], environ)


@pytest.mark.parametrize("command", ["token", "--help"])
def test_a_reader_that_has_gone_is_no_traceback(home: Home, calm: Running, command: str) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        process = subprocess.run(
            [FLYTEAUTH, command],
            env=home.environ(FLYTE_API_KEY=calm.api_key),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    finally:
        os.close(theirs)
    assert (process.returncode, process.stderr) == (1, "")


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_a_token_that_cannot_be_written_is_one_line(
    home: Home, calm: Running, redirection: str
) -> None:
    if redirection.endswith("full") and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    ended = closed(home, redirection, "token", FLYTE_API_KEY=calm.api_key)
    ended.failed_with(1, "standard output")


def test_closed_streams_do_not_disturb_a_login(home: Home, calm: Running) -> None:
    endpoint = ("--endpoint", calm.base_url)
    for redirection in ("<&-", ">&-", "2>&-"):
        ended = closed(home, redirection, "login", *endpoint, BROWSER=BROWSER)
        assert (ended.status, ended.out) == (0, ""), (redirection, ended)
    ended = closed(home, "<&- 2>&-", "token", *endpoint)
    assert (ended.status, ended.err) == (0, "")
    assert TOKEN.fullmatch(ended.out)


def test_an_error_goes_to_standard_error_or_nowhere(home: Home) -> None:
    ended = closed(home, "2>&-", "token")
    assert (ended.status, ended.out, ended.err) == (1, "", "")


@pytest.mark.req("SEC-05")
def test_a_login_that_could_not_replace_what_is_there_fails_before_anybody_is_asked(
    home: Home, serve: Serve
) -> None:
    plane = serve()
    assert home.run("login", "--endpoint", plane.base_url, BROWSER=BROWSER).status == 0
    (path,) = (path for path in home.path.rglob("logins/*"))
    path.unlink()
    path.mkdir()
    opened = home.path / "opened"
    ended = home.run("login", "--endpoint", plane.base_url, BROWSER=f"touch {opened}")
    assert ended.status == 1
    assert "is not a file" in ended.err or "is a directory" in ended.err
    assert not opened.exists()
