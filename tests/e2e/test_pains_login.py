"""Logging in where others' logins hang, spin or cannot come back. The rows are those of a table of
what users of such software suffer from, each with the test that it asks for.
"""

from __future__ import annotations

import http.client
import re
import signal
import socket
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest
import trustme

from flyteauth.devserver import visitor
from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings
from tests.integration.test_tls import HELLO, certified, tls_server

from .conftest import (
    BROWSER,
    DEADLINE,
    FLYTEAUTH,
    TOKEN,
    Ended,
    Home,
    Serve,
    Terminals,
    read_until,
    refused,
)
from .test_prompt import by_browser, page_at, redirect_of

SHOWN = "/oauth2/authorize?"
SOON = 5.0  # seconds; who waits for a person would wait for minutes


@pytest.fixture(scope="module")
def calm() -> Iterator[Running]:
    with serving(Settings(approve="auto")) as running:
        yield running


def redirect_port(url: str) -> int:
    (redirect_uri,) = parse_qs(urlsplit(url).query)["redirect_uri"]
    port = urlsplit(redirect_uri).port
    assert port is not None
    return port


def last_url(shown: str) -> str:
    return str(re.findall(r"http://\S+", shown)[-1])


# On a machine without a browser.


@pytest.mark.req("AZR-16")
def test_what_a_browser_elsewhere_ends_at_is_pasted_and_that_is_it(
    at_terminal: Terminals, calm: Running
) -> None:
    """Row 1. The listener is there, but nothing that the person's browser could reach."""
    terminal = by_browser(at_terminal, calm)
    redirect = redirect_of(page_at(terminal))
    began = time.monotonic()
    terminal.types(f"{redirect}\r")
    terminal.sees("Logged in to ")
    assert time.monotonic() - began < 1.0
    ended = terminal.ends()
    assert (ended.status, ended.out, ended.restored) == (0, "", True)


@pytest.mark.parametrize(
    ("variable", "place"),
    [
        ("SSH_CONNECTION", "an SSH session"),
        ("SSH_TTY", "an SSH session"),
        ("KUBERNETES_SERVICE_HOST", "a pod of Kubernetes"),
        ("CODESPACES", "a codespace"),
        ("COLAB_RELEASE_TAG", "a notebook on Colab"),
    ],
)
def test_away_from_a_display_a_code_is_chosen_unasked(
    home: Home, calm: Running, variable: str, place: str
) -> None:
    """Row 1."""
    environ: dict[str, Any] = {variable: "10.0.0.1 1 10.0.0.2 22"}
    ended = home.run("login", "--endpoint", calm.base_url, **environ)
    assert (ended.status, ended.out) == (0, ""), ended
    assert f"by device code, because this is {place} without a display." in ended.err
    assert "/activate?user_code=" in ended.err
    assert SHOWN not in ended.err


@pytest.mark.parametrize(
    ("name", "environ", "method"),
    [
        ("Pkce", {"SSH_CONNECTION": "x"}, "by browser"),
        ("DeviceFlow", {"DISPLAY": ":9", "BROWSER": BROWSER}, "by device code"),
    ],
)
def test_the_choice_can_be_pinned(
    home: Home, calm: Running, name: str, environ: dict[str, Any], method: str
) -> None:
    """Row 1."""
    path = home.write(
        ".flyte/config.yaml", f"admin: {{endpoint: {calm.base_url}, authType: {name}}}"
    )
    ended = home.run("login", FLYTE_ADMIN_LOGINTIMEOUT="1", **environ)
    assert f"{method}, because authType is {name} ({path}" in ended.err
    assert ended.status == (1 if name == "Pkce" else 0)  # nobody visits the page there


def test_without_a_code_to_be_had_the_address_is_shown_and_why(home: Home, serve: Serve) -> None:
    """Row 1."""
    running = serve("no-device")
    words = ("login", "--endpoint", running.base_url)
    with home.started(*words, SSH_CONNECTION="x") as process:
        shown = read_until(process.stderr, SHOWN)
        visitor.visit(last_url(shown))
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert "the server has no device authorization, although this is an SSH session" in shown


# Where nobody is.


@pytest.mark.parametrize(
    "words",
    [("token",), ("get", "project"), ("whoami",), ("exec", "--", "true")],
    ids=" ".join,
)
def test_a_job_does_not_wait_for_a_person(
    home: Home, calm: Running, words: tuple[str, ...]
) -> None:
    """Row 8. Nothing is listened at either: the port of the redirect is taken, and nobody minds."""
    before = len(calm.plane.journal)
    opened = home.path / "opened"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environ: dict[str, Any] = {
            "FLYTE_ADMIN_ENDPOINT": calm.base_url,
            "FLYTE_ADMIN_REDIRECTURI": f"http://localhost:{taken.getsockname()[1]}/callback",
            "BROWSER": f"touch {opened}",
            "DISPLAY": ":9",
        }
        ended = home.run(*words, deadline=SOON, **environ)
    ended.failed_with(4, "not logged in", "run: flyteauth login", "FLYTE_API_KEY")
    assert not opened.exists()
    paths = {entry.path for entry in calm.plane.journal[before:]}
    assert not paths & {"/oauth2/authorize", "/oauth2/device_authorization"}


def test_a_task_of_flyte_s_asks_nobody_to_log_in(home: Home, calm: Running) -> None:
    """Row 8."""
    opened = home.path / "opened"
    environ: dict[str, Any] = {
        "FLYTE_INTERNAL_EXECUTION_ID": "a1",
        "BROWSER": f"touch {opened}",
    }
    ended = home.run("login", "--endpoint", calm.base_url, deadline=SOON, **environ)
    ended.failed_with(3, "a task of Flyte's", "set FLYTE_API_KEY")
    assert not opened.exists()
    # Whoever is there can still be asked.
    environ = {"BROWSER": BROWSER, "FLYTE_INTERNAL_EXECUTION_ID": "a1"}
    words = ("login", "--endpoint", calm.base_url)
    assert home.at_terminal([FLYTEAUTH, *words], environ).status == 0


def test_a_secret_that_is_refused_does_not_become_a_browser(home: Home, calm: Running) -> None:
    """Row 8."""
    opened = home.path / "opened"
    host, client_id, _, org = b64decode(calm.api_key).decode().rsplit(":", 3)
    key = b64encode(f"{host}:{client_id}:wrong-secret:{org}".encode()).decode()
    for words in (("login",), ("token",), ("get", "project")):
        environ: dict[str, Any] = {
            "FLYTE_API_KEY": key,
            "BROWSER": f"touch {opened}",
            "DISPLAY": ":9",
        }
        ended = home.run(*words, deadline=SOON, **environ)
        assert (ended.status, ended.out) == (1, ""), ended
        assert "invalid_client" in ended.err.splitlines()[-1]
    assert not opened.exists()


# Where a login ends otherwise.


def failing(home: Home, serve: Serve, how: str) -> tuple[Ended, int]:
    """A login in the browser that comes to nothing, and the port that it listened at."""
    faults = ("wrong-state",) if how == "wrong state" else ()
    running = serve(*faults, approve="page")
    environ: dict[str, Any] = {"BROWSER": "true %s"}
    if how in {"wrong state", "closed tab"}:
        environ["FLYTE_ADMIN_LOGINTIMEOUT"] = "1.5"
    with home.started("login", "--endpoint", running.base_url, **environ) as process:
        shown = read_until(process.stderr, SHOWN)
        url = last_url(shown)
        match how:
            case "deny":
                visitor.visit(url, "deny")
            case "wrong state":
                visitor.visit(url)
            case "Ctrl-C":
                process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SOON)
    return Ended(process.returncode, out, err), redirect_port(url)


@pytest.mark.req("CBK-16")
@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("deny", 1, "access_denied"),
        ("closed tab", 1, "nobody logged in within 2 s; log in again"),
        ("wrong state", 1, "an answer to another login was ignored"),
        ("Ctrl-C", 130, "interrupted"),
    ],
)
def test_a_login_that_comes_to_nothing_ends_and_frees_its_port(
    home: Home, serve: Serve, how: str, status: int, said: str
) -> None:
    """Row 9."""
    ended, port = failing(home, serve, how)
    assert (ended.status, ended.out) == (status, ""), ended
    assert said in ended.err.splitlines()[-1]
    assert ended.err.splitlines()[-1].startswith("flyteauth: ")
    assert "Traceback" not in ended.err
    assert refused(port)
    with socket.create_server(("127.0.0.1", port)):
        pass
    assert home.stored() == {}


# Behind a private authority.


@pytest.mark.req("META-05")
@pytest.mark.parametrize("way", ["--ca-cert", "caCertFilePath", "SSL_CERT_FILE"])
def test_one_setting_is_enough_for_everything_that_is_sent(
    home: Home, tmp_path: Path, way: str
) -> None:
    """Row 13."""
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    environ: dict[str, Any] = {"SSL_CERT_FILE": str(ca_file)} if way == "SSL_CERT_FILE" else {}
    words = ("--ca-cert", str(ca_file)) if way == "--ca-cert" else ()
    with tls_server(certified(authority)) as server:
        admin = f"endpoint: dns:///{server.host}, authType: DeviceFlow"
        if way == "caCertFilePath":
            admin += f", caCertFilePath: {ca_file}"
        home.write(".flyte/config.yaml", f"admin: {{{admin}}}")
        for command in ("login", "whoami", "token", "logout"):
            ended = home.run(command, *words, **environ)
            assert ended.status == 0, ended
        assert server.first
        assert set(server.first) == {HELLO}
        wanted = ("device_authorization", "token", "revoke", "UserInfo", "OAuth2Metadata")
        assert all(any(part in path for path in server.paths) for part in wanted), server.paths


# Where the listener is.


@pytest.mark.req("CBK-01")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_browser_comes_back_by_either_family(home: Home, calm: Running, address: str) -> None:
    """Row 18."""
    with home.started(
        "login", "--endpoint", calm.base_url, "--no-browser", BROWSER="true"
    ) as process:
        redirect = redirect_of(last_url(read_until(process.stderr, SHOWN)))
        port = urlsplit(redirect).port
        if address == "::1" and not _has_ipv6():
            pytest.skip("no IPv6 here")
        connection = http.client.HTTPConnection(address, port, timeout=DEADLINE)
        target = redirect.partition("/callback")[2]
        connection.request("GET", f"/callback{target}", headers={"Host": f"localhost:{port}"})
        assert connection.getresponse().status == 200
        connection.close()
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert TOKEN.fullmatch(home.run("token", "--endpoint", calm.base_url).out)


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def listened_at(pid: int) -> set[str]:
    """Every address at which that process listens."""
    found = psutil.Process(pid).net_connections(kind="inet")
    return {each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN}


def test_nothing_beyond_this_machine_is_listened_at(home: Home, calm: Running) -> None:
    """Row 19."""
    with home.started(
        "login", "--endpoint", calm.base_url, "--no-browser", BROWSER="true"
    ) as process:
        read_until(process.stderr, SHOWN)
        addresses = listened_at(process.pid)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE)
    assert "127.0.0.1" in addresses
    assert addresses <= {"127.0.0.1", "::1"}


def test_a_published_port_works_by_opting_in_and_is_warned_of(home: Home, calm: Running) -> None:
    """Row 19. What comes without this login's state is turned away there as well."""
    home.write(
        ".flyte/config.yaml", f"admin: {{endpoint: {calm.base_url}, callbackBind: 0.0.0.0}}\n"
    )
    with home.started("login", "--no-browser", BROWSER="true") as process:
        shown = read_until(process.stderr, SHOWN)
        redirect = redirect_of(last_url(shown))
        port = redirect_port(last_url(shown))
        addresses = listened_at(process.pid)
        # As from a port that a container publishes: by an address that is not this listener's own.
        connection = http.client.HTTPConnection("127.0.0.2", port, timeout=DEADLINE)
        statuses = []
        for target in ("/callback?code=stray&state=stray", redirect.partition(str(port))[2]):
            connection.request("GET", target, headers={"Host": f"localhost:{port}"})
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
            connection.close()
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert "0.0.0.0" in addresses
    assert statuses == [400, 200]
    assert urlsplit(redirect).hostname == "localhost"
    assert f"anybody on the network of 0.0.0.0 can reach port {port}" in shown
    assert "leave out callbackBind" in shown
