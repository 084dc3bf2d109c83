"""``flyteauth devserver``: what whoever checks from outside may rely on."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import stat
from pathlib import Path

import pytest

from flyteauth.cli import main
from flyteauth.devserver.settings import FAULTS
from flyteauth.devserver.visitor import Answer, visit

from .conftest import BROWSER, TOKEN, Home, Start, lines, login, port_of, read_until, refused


def test_the_ready_line_says_where_everything_is(devserver: Start) -> None:
    server = devserver()
    assert list(server.ready) == [
        "endpoint",
        "issuer",
        "ca_file",
        "config_file",
        "api_key",
        "pid",
    ]
    assert re.fullmatch("dns:///localhost:[0-9]+", server.ready["endpoint"])
    assert server.ready["issuer"] == f"http://localhost:{server.port}"
    assert server.port != port_of(server.ready["endpoint"])
    authority = Path(server.ready["ca_file"])
    assert authority.read_text("ascii").startswith("-----BEGIN CERTIFICATE-----")
    assert server.ready["pid"] == server.process.pid
    config = Path(server.ready["config_file"])
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert "authType: DeviceFlow" in config.read_text("utf-8")
    assert f"caCertFilePath: {json.dumps(str(authority))}" in config.read_text("utf-8")


@pytest.mark.req("DEV-10")
def test_its_configuration_is_complete_and_its_api_key_works_alone(
    home: Home, devserver: Start
) -> None:
    server = devserver("--approve", "auto")
    config = str(server.ready["config_file"])

    ended = home.run("--config", config, "login")
    assert ended.status == 0, ended
    assert f"\n{server.endpoint}/activate?user_code=" in ended.err
    ended = home.run("--config", config, "token")
    assert (ended.status, ended.err) == (0, "")
    assert TOKEN.fullmatch(ended.out)

    ended = home.run("token", FLYTE_API_KEY=str(server.ready["api_key"]))
    assert (ended.status, ended.err) == (0, "")
    assert TOKEN.fullmatch(ended.out)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly_whoever_is_still_connected(
    devserver: Start, number: signal.Signals
) -> None:
    server = devserver()
    config = Path(server.ready["config_file"])
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    try:
        connection.request("GET", "/")
        reply = connection.getresponse()
        assert (reply.status, reply.will_close) == (200, False)
        reply.read()
        os.kill(server.ready["pid"], number)
        out, err = server.process.communicate(timeout=10)
    finally:
        connection.close()
    assert (server.process.returncode, out, err) == (0, "", "")
    assert refused(server.port)
    assert not config.exists()
    ports = (server.port, port_of(server.ready["endpoint"]))
    assert refused(ports[1])
    again = devserver("--oauth-port", str(ports[0]), "--port", str(ports[1]))
    assert (again.port, port_of(again.ready["endpoint"])) == ports


def test_what_a_killed_one_has_left_goes_when_the_next_one_starts(devserver: Start) -> None:
    alive, killed = devserver(), devserver()
    killed.process.kill()
    assert killed.process.wait(10) == -signal.SIGKILL
    devserver()
    assert not Path(killed.ready["config_file"]).parent.exists()
    assert Path(alive.ready["config_file"]).exists()


def test_the_faults_can_be_listed_and_any_other_name_is_refused(home: Home) -> None:
    ended = home.run("devserver", "--fault", "list")
    assert (ended.status, ended.err) == (0, "")
    assert [line.split()[0] for line in ended.out.splitlines()] == list(FAULTS)
    home.run("devserver", "--fault", "no-such-fault").failed_with(2, "no-such-fault", "no-auth")


def test_a_port_that_is_taken_is_one_line(home: Home, devserver: Start) -> None:
    server = devserver()
    taken = str(server.port)
    home.run("devserver", "--port", taken).failed_with(1, taken, "--port")
    home.run("devserver", "--oauth-port", taken).failed_with(1, taken, "--port")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "65536"], "--port"),
        (["--approve", "perhaps"], "--approve"),
        (["--access-ttl", "0"], "access_ttl"),
        (["--access-ttl", "soon"], "--access-ttl"),
        (["--grace", "-1"], "grace"),
    ],
)
def test_a_wrong_option_is_a_usage_error(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = main(["devserver", *words])
    except SystemExit as error:
        status = error.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert said in err


@pytest.mark.req("SEC-03", "SEC-04")
def test_the_log_has_one_line_per_request_and_no_secret(home: Home, devserver: Start) -> None:
    log = home.path / "log.jsonl"
    server = devserver("--approve", "auto", "--log", str(log))
    login(home, server.endpoint, "--auth-type", "pkce")
    token = home.run("token", "--endpoint", server.endpoint).out.strip()
    assert home.run("logout", "--endpoint", server.endpoint).status == 0

    entries = lines(log)
    assert all(
        list(entry) == ["at", "method", "path", "grant_type", "status", "credential"]
        for entry in entries
    )
    kinds = {
        (entry["method"], entry["path"], entry["grant_type"], entry["status"], entry["credential"])
        for entry in entries
    }
    assert ("GET", "/oauth2/authorize", None, 302, None) in kinds
    assert ("POST", "/oauth2/token", "authorization_code", 200, None) in kinds
    identity = "/flyteidl2.auth.IdentityService/UserInfo"
    assert ("POST", identity, None, 200, "authorization") in kinds
    assert ("POST", "/oauth2/revoke", None, 200, None) in kinds
    text = log.read_text("utf-8")
    assert token not in text
    assert "code=" not in text
    assert "?" not in text
    server.stop()
    assert log.read_text("utf-8") == text


def test_by_default_a_person_decides_on_the_page(home: Home, devserver: Start) -> None:
    server = devserver()
    words = ("login", "--endpoint", server.endpoint, "--auth-type", "headless")
    decisions: list[tuple[Answer, int]] = [("allow", 0), ("deny", 1)]
    for answer, status in decisions:
        with home.started(*words) as process:
            shown = read_until(process.stderr, "/activate?")
            visit(shown.splitlines()[-1], answer)
            out, err = process.communicate(timeout=20)
            assert (process.returncode, out) == (status, ""), err


def test_a_browser_that_answers_no_page_logs_nobody_in(home: Home, devserver: Start) -> None:
    server = devserver()
    ended = home.run(
        "login",
        "--endpoint",
        server.endpoint,
        "--auth-type",
        "pkce",
        BROWSER=BROWSER,
        FLYTE_ADMIN_LOGINTIMEOUT="1",
    )
    assert ended.status == 1
    assert "nobody logged in within 1 s" in ended.err
    assert home.stored() == {}
