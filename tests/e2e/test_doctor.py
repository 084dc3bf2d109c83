"""``flyteauth doctor``: each thing that can be wrong is a finding, and the last line is what to do."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import sys
import time
from base64 import b64decode, b64encode
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import trustme
from attrs import field, frozen

from flyteauth.devserver.serve import Running
from tests.integration.test_tls import certified, tls_server
from tests.io.server import answering, reply, serve as serve_bytes, silent

from .conftest import BROWSER, FLYTEAUTH, Ended, Home, Serve, login

CANARY = "canary-4711-secret"
# There is none in the homes of these tests.
ONLY_THE_KEYRING = "works, with 1 warning: keyring"
NOT_WANTED: dict[str, Any] = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}


@frozen
class Diagnosis:
    ended: Ended
    findings: dict[str, dict[str, str]] = field(repr=False)
    next: str

    @property
    def states(self) -> dict[str, str]:
        return {name: finding["state"] for name, finding in self.findings.items()}

    def is_wrong(self, name: str, *words: str, state: str = "fail") -> None:
        finding = self.findings[name]
        assert finding["state"] == state, finding
        for word in words:
            assert word in f"{finding['text']}; {finding['fix']}", finding
        assert finding["fix"], finding


def examined(home: Home, *words: str, **environ: Any) -> Diagnosis:
    ended = home.run("doctor", "--json", *words, **environ)
    assert ended.err == "", ended
    document: dict[str, Any] = json.loads(ended.out)
    findings = {finding["name"]: finding for finding in document["findings"]}
    assert ended.status == any(finding["state"] == "fail" for finding in findings.values())
    assert CANARY not in ended.out
    return Diagnosis(ended, findings, document["next"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Where all is well.


def test_everything_works_and_nothing_was_done_for_it(home: Home, calm: Running) -> None:
    opened = home.path / "opened"
    login(home, calm.base_url)
    before, tokens = home.stored(), calm.plane.count(path="/oauth2/token")
    found = examined(home, "--endpoint", calm.base_url, BROWSER=f"touch {opened}")
    assert found.ended.status == 0
    assert found.next == ONLY_THE_KEYRING
    assert found.states == {
        **dict.fromkeys(found.states, "ok"),
        "TLS": "skip",
        "keyring": "warn",
    }
    assert "Flyte 2" in found.findings["login server"]["text"]
    assert "alice" in found.findings["login"]["text"]
    assert found.findings["access"]["text"] == "the control plane takes us for alice"
    assert not opened.exists()
    assert home.stored() == before
    assert calm.plane.count(path="/oauth2/token") == tokens
    assert calm.plane.count(path="/oauth2/device_authorization") == 0


def test_whoever_is_not_logged_in_is_told_the_line_to_run(home: Home, calm: Running) -> None:
    found = examined(home, "--endpoint", calm.base_url, "--account", "work")
    assert found.ended.status == 0
    found.is_wrong("login", found.next, state="warn")
    assert found.states["access"] == "skip"
    assert found.next == f"run: flyteauth login --endpoint {calm.base_url} --account work"


def test_a_service_needs_no_login(home: Home, calm: Running) -> None:
    found = examined(home, FLYTE_API_KEY=calm.api_key)
    assert (found.ended.status, found.next) == (0, "everything works")
    assert "needs none" in found.findings["login"]["text"]
    assert "takes us for demo-ci" in found.findings["access"]["text"]
    assert calm.api_key not in found.ended.out
    assert "FLYTE_API_KEY" in found.findings["environment"]["text"]


def test_keys_that_nobody_reads_are_pointed_out(home: Home, calm: Running) -> None:
    home.write(
        ".flyte/config.yaml",
        f"admin:\n  endpoint: {calm.base_url}\n  authTpye: Pkce\n  clientSecret: c4nary\n",
    )
    found = examined(home)
    words = ("admin.authTpye", "did you mean authType?", "a client secret in the file is not read")
    found.is_wrong("configuration", *words, state="warn")
    assert "c4nary" not in found.ended.out
    explained = home.run("status", "--explain")
    shown = " ".join(explained.out.split())
    for word in (*words, "Keys in the configuration that nobody reads"):
        assert word in shown
    assert "c4nary" not in shown
    home.write(".flyte/config.yaml", f"admin:\n  endpont: {calm.base_url}\n")
    examined(home).is_wrong("configuration", "no endpoint", "admin.endpont", "mean endpoint?")


def test_an_api_key_that_goes_before_another_control_plane_is_pointed_out(
    home: Home, calm: Running
) -> None:
    other = {"FLYTE_ADMIN_ENDPOINT": "other.example.com"}
    found = examined(home, FLYTE_API_KEY=calm.api_key, **other)
    assert found.ended.status == 0
    found.is_wrong("endpoint", "other.example.com", "FLYTE_ADMIN_ENDPOINT", state="warn")


def test_a_control_plane_without_logins_needs_none(home: Home, serve: Serve) -> None:
    running = serve("no-auth")
    found = examined(home, "--endpoint", running.base_url)
    assert (found.ended.status, found.next) == (0, ONLY_THE_KEYRING)
    assert "wants no login" in found.findings["login server"]["text"]
    assert found.states["access"] == "skip"


def test_flyte_1_is_told_apart(home: Home, serve: Serve) -> None:
    running = serve("flyte1-only")
    found = examined(home, "--endpoint", running.base_url)
    assert "Flyte 1" in found.findings["login server"]["text"]
    login(home, running.base_url)
    found = examined(home, "--endpoint", running.base_url)
    assert (found.ended.status, found.next) == (0, ONLY_THE_KEYRING)
    assert found.states["access"] == "ok"


# The configuration.


def test_without_an_endpoint_the_rest_is_left_out(home: Home) -> None:
    found = examined(home)
    found.is_wrong("configuration", "no configuration file")
    assert found.next.startswith("run: flyteauth create config --endpoint ")
    assert set(found.states.values()) <= {"fail", "skip", "ok", "warn"}
    for name in ("connection", "TLS", "login server", "login"):
        assert found.findings[name]["state"] == "skip"


def test_a_configuration_that_is_broken_is_the_first_thing_to_do(home: Home) -> None:
    home.write(".flyte/config.yaml", "admin: [\n")
    found = examined(home)
    found.is_wrong("configuration", "config.yaml", "not YAML")
    assert found.next.startswith("first: ")


def test_a_variable_that_is_misspelt_is_pointed_at(home: Home, calm: Running) -> None:
    found = examined(home, "--endpoint", calm.base_url, FLYTE_ADMIN_ENDPOIN=CANARY)
    found.is_wrong("environment", "FLYTE_ADMIN_ENDPOIN", state="warn")


def test_the_last_line_counts_the_warnings_and_is_the_same_for_a_person(
    home: Home, calm: Running
) -> None:
    words = ("--endpoint", calm.base_url)
    login(home, calm.base_url)
    (home.path / ".unionai").mkdir()
    found = examined(home, *words)
    assert found.next == "works, with 2 warnings: keyring, leftover"
    ended = home.run("doctor", *words)
    assert (ended.status, ended.out.splitlines()[-1]) == (0, found.next)


def test_what_an_older_client_has_left_behind_is_mentioned(home: Home, calm: Running) -> None:
    (home.path / ".unionai").mkdir()
    found = examined(home, "--endpoint", calm.base_url)
    found.is_wrong("leftover", "rm -r ~/.unionai", state="warn")


# The way to the control plane.


def test_a_host_that_does_not_answer(home: Home) -> None:
    port = free_port()
    found = examined(home, "--endpoint", f"http://localhost:{port}")
    found.is_wrong("connection", "localhost", f"port {port}", "refused")
    assert found.next.startswith("first: check the port")


def test_a_name_that_nobody_knows(home: Home) -> None:
    found = examined(home, "--endpoint", "nowhere.invalid")
    found.is_wrong("connection", "nowhere.invalid", "not known")
    assert found.next.startswith("first: check how the endpoint is spelled")


def test_a_server_that_says_nothing_has_a_deadline(home: Home) -> None:
    with serve_bytes(silent) as server:
        begun = time.monotonic()
        found = examined(home, "--endpoint", f"http://localhost:{server.port}")
        assert time.monotonic() - begun < 20
    found.is_wrong("login server", "not answer")
    assert found.findings["connection"]["state"] == "ok"


def test_a_web_page_in_between_is_named_by_its_status_and_title(home: Home, serve: Serve) -> None:
    running = serve("html-discovery")
    where = running.base_url.removeprefix("http://")
    found = examined(home, "--endpoint", running.base_url)
    found.is_wrong("login server", f"between you and {where}", "status 200", "title ")
    assert found.next.startswith("first: check the endpoint")


def test_the_title_of_a_page_steers_no_terminal(home: Home) -> None:
    page = b"<!doctype html><title>Sign \x1b[31min\n &amp; out</title>"
    answer = reply(page, status="401 Unauthorized", headers=("content-type: text/html",))
    with serve_bytes(answering(answer)) as server:
        ended = home.run("doctor", "--endpoint", f"http://localhost:{server.port}")
    assert ended.status == 1
    assert "\x1b" not in ended.out
    assert "status 401" in " ".join(ended.out.split())


def test_a_login_page_that_discovery_is_sent_to(home: Home, serve: Serve) -> None:
    running = serve("login-redirect")
    found = examined(home, "--endpoint", running.base_url)
    found.is_wrong("login server", "redirect")


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_a_clock_that_is_wrong(home: Home, ahead: float) -> None:
    date = formatdate(time.time() - ahead, usegmt=True)
    headers = ("content-type: application/json", f"date: {date}")
    with serve_bytes(answering(reply(headers=headers))) as server:
        found = examined(home, "--endpoint", f"http://localhost:{server.port}")
    found.is_wrong("clock", "ahead of" if ahead > 0 else "behind", "60 min", state="warn")
    assert found.ended.status == 0


def test_a_proxy_is_named_without_its_password(home: Home) -> None:
    port = free_port()
    proxy = f"http://me:{CANARY}@127.0.0.1:{port}"
    found = examined(home, "--endpoint", "flyte.example.com", HTTPS_PROXY=proxy)
    found.is_wrong("connection", "the proxy 127.0.0.1", f"port {port}")
    found.is_wrong("proxy", f"127.0.0.1:{port}", "NO_PROXY")


# TLS.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(organization_name="Example Corp")


@pytest.mark.req("META-05")
def test_a_private_authority_is_named_with_the_setting_to_use(
    home: Home, authority: trustme.CA
) -> None:
    with tls_server(certified(authority)) as server:
        found = examined(home, "--endpoint", f"https://{server.host}")
    found.is_wrong("TLS", "localhost", "Example Corp", "caCertFilePath", "--ca-cert FILE")
    assert "caCertFilePath" in found.next


@pytest.mark.req("META-05")
def test_a_login_names_host_and_issuer_and_the_setting_as_well(
    home: Home, authority: trustme.CA
) -> None:
    with tls_server(certified(authority)) as server:
        ended = home.run("login", "--endpoint", f"https://{server.host}", BROWSER=BROWSER)
        ended.failed_with(1, server.host, "Example Corp", "caCertFilePath")


@pytest.mark.req("META-05")
def test_with_the_ca_file_it_is_trusted(home: Home, authority: trustme.CA, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    with tls_server(certified(authority)) as server:
        words = ("--endpoint", f"https://{server.host}")
        found = examined(home, *words, "--ca-cert", str(ca_file))
        assert found.findings["TLS"]["state"] == "ok"
        assert "Example Corp" in found.findings["TLS"]["text"]
        assert re.search(r"\d+ days left", found.findings["TLS"]["text"])
        assert found.findings["login server"]["state"] == "ok"
        unchecked = examined(home, *words, FLYTE_ADMIN_INSECURESKIPVERIFY="true")
        unchecked.is_wrong("TLS", "insecureSkipVerify", "caCertFilePath", state="warn")


def test_another_name_and_an_inspecting_proxy_are_told_apart(home: Home) -> None:
    with tls_server(certified(trustme.CA(organization_name="Zscaler Inc."))) as server:
        found = examined(home, "--endpoint", f"https://{server.host}")
        found.is_wrong("TLS", "zscaler", "looks into TLS", "caCertFilePath")


def test_a_server_without_tls(home: Home, calm: Running) -> None:
    port = calm.base_url.rpartition(":")[2]
    found = examined(home, "--endpoint", f"https://localhost:{port}")
    assert found.findings["TLS"]["state"] == "skip"
    found.is_wrong("login server", "no TLS is spoken")


# What a login needs here.


def test_a_redirect_port_that_is_taken_names_who_has_it(home: Home, calm: Running) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environ: dict[str, Any] = {"FLYTE_ADMIN_REDIRECTURI": f"http://localhost:{port}/callback"}
        found = examined(home, "--endpoint", calm.base_url, BROWSER="true", **environ)
    found.is_wrong("redirect port", str(port), f"process {os.getpid()}", state="warn")
    assert found.ended.status == 0


HANGING = """\
import threading
from keyring.backend import KeyringBackend


class Ring(KeyringBackend):
    priority = 9

    def get_password(self, service, name):
        threading.Event().wait(60)

    set_password = delete_password = get_password
"""


def test_a_keyring_that_hangs_is_a_finding_in_time(home: Home, calm: Running) -> None:
    home.write("modules/hanging.py", HANGING)
    environ: dict[str, Any] = {
        "PYTHON_KEYRING_BACKEND": "hanging.Ring",
        "PYTHONPATH": str(home.path / "modules"),
    }
    begun = time.monotonic()
    found = examined(home, "--endpoint", calm.base_url, **environ)
    assert time.monotonic() - begun < 20
    found.is_wrong("keyring", "does not answer", state="warn")


def test_a_keyring_in_plain_text_is_said_to_be_that(home: Home, calm: Running) -> None:
    environ: dict[str, Any] = {"PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring"}
    found = examined(home, "--endpoint", calm.base_url, **environ)
    found.is_wrong("keyring", "not encrypted", "PlaintextKeyring", state="warn")
    assert not list(home.path.rglob("keyring_pass.cfg"))


def test_a_keyring_that_is_used_on_demand_only_is_named(home: Home, calm: Running) -> None:
    found = examined(home, "--endpoint", calm.base_url)
    found.is_wrong("keyring", "PlaintextKeyring is used only with tokenStore", state="warn")
    assert "set tokenStore to keyring" in found.findings["keyring"]["fix"]


def test_a_keyring_that_is_named_and_missing_is_a_failure(home: Home, calm: Running) -> None:
    environ: dict[str, Any] = {"FLYTE_ADMIN_TOKENSTORE": "keyring", **NOT_WANTED}
    examined(home, "--endpoint", calm.base_url, **environ).is_wrong("keyring", "switched off")


def test_a_home_that_cannot_be_written(home: Home, calm: Running) -> None:
    found = examined(home, "--endpoint", calm.base_url, FLYTEAUTH_HOME="/dev/null/none")
    for name in ("files", "lock"):
        found.is_wrong(name, "/dev/null/none", "FLYTEAUTH_HOME")
    assert "FLYTEAUTH_HOME" in found.next


def test_a_login_that_is_damaged(home: Home, calm: Running) -> None:
    login(home, calm.base_url)
    (there,) = home.path.rglob("logins/*")
    there.write_bytes(b"no login")
    found = examined(home, "--endpoint", calm.base_url)
    found.is_wrong("login", "can be read", "log in", state="warn")
    assert found.next == f"run: flyteauth login --endpoint {calm.base_url}"


def test_a_login_that_was_begun(home: Home, serve: Serve) -> None:
    running = serve(approve="page")
    words = ("--endpoint", running.base_url, "--account", "work")
    assert home.run("login", *words, "--no-wait").status == 0
    command = f"run: flyteauth login --resume --endpoint {running.base_url} --account work"
    examined(home, *words).is_wrong("begun login", command, state="warn")


# Whether a call is let in.


def test_an_api_key_with_a_wrong_secret(home: Home, calm: Running) -> None:
    *parts, _, org = b64decode(calm.api_key).decode().split(":")
    key = b64encode(":".join([*parts, CANARY, org]).encode()).decode()
    found = examined(home, FLYTE_API_KEY=key)
    found.is_wrong("access", "invalid_client")
    assert found.next == "first: check clientId and the client secret"
    assert found.states["login"] == "ok"
    assert key not in found.ended.out


@pytest.mark.parametrize(
    ("command", "said", "following"),
    [
        (["/nope"], "cannot be run", "first: install it"),
        (["sh", "-c", "exit 3"], "status 3", "first: run the command"),
        (
            ["echo", "nobodys-token"],
            "unauthenticated",
            "first: check what the command of admin.command prints",
        ),
    ],
    ids=["missing", "fails", "prints another's token"],
)
def test_a_command_that_brings_no_good_token(
    home: Home, calm: Running, command: list[str], said: str, following: str
) -> None:
    environ: dict[str, Any] = {
        "FLYTE_AUTH_TYPE": "ExternalCommand",
        "FLYTE_AUTH_COMMAND": shlex.join(command),
    }
    found = examined(home, "--endpoint", calm.base_url, **environ)
    found.is_wrong("access", said)
    assert found.next.startswith(following)
    assert found.states["login"] == "ok"


def test_a_control_plane_that_does_not_say_who_we_are(home: Home) -> None:
    environ: dict[str, Any] = {
        "FLYTE_AUTH_TYPE": "ExternalCommand",
        "FLYTE_AUTH_COMMAND": "echo a-token",
    }
    with serve_bytes(answering(reply(status="404 Not Found"))) as server:
        found = examined(home, "--endpoint", f"http://localhost:{server.port}", **environ)
    assert found.states["access"] == "ok"
    assert "does not say whom it is of" in found.findings["access"]["text"]


def test_a_header_that_flyte_has_no_token_for_is_named(home: Home, serve: Serve) -> None:
    running = serve("custom-header-key")
    login(home, running.base_url)
    found = examined(home, "--endpoint", running.base_url)
    found.is_wrong("access", "flyte-authorization", "integrations.flyte.installed", state="warn")
    assert found.ended.status == 0


def test_a_login_that_the_control_plane_refuses(home: Home, serve: Serve) -> None:
    running = serve("always-401")
    login(home, running.base_url)
    found = examined(home, "--endpoint", running.base_url)
    found.is_wrong("access", "unauthenticated", "it does not take this login, though that is new")
    assert found.next == "first: ask whoever runs the control plane"
    # Its token was renewed just now, so nothing says any more how old the login is.
    found = examined(home, "--endpoint", running.base_url)
    found.is_wrong("access", "unauthenticated", "log in again, or if you just have, ask")
    assert found.next == f"run: flyteauth login --endpoint {running.base_url}"


def test_a_login_that_was_revoked_is_to_be_made_again(home: Home, serve: Serve) -> None:
    """It looks good from here; that it is over only its renewal tells."""
    running = serve(access_ttl=1.0, refresh_ttl=0.5)
    login(home, running.base_url)
    time.sleep(1.1)  # until both tokens have expired
    found = examined(home, "--endpoint", running.base_url)
    command = f"run: flyteauth login --endpoint {running.base_url}"
    found.is_wrong("access", "is over", command)
    assert found.next == command


# How it looks.


def test_it_is_readable_on_eighty_columns_and_coloured_on_a_terminal_only(
    home: Home, calm: Running
) -> None:
    words = [FLYTEAUTH, "doctor", "--endpoint", calm.base_url]
    plain = home.program(words, {})
    assert (plain.status, plain.err) == (0, "")
    assert all(len(line) <= 80 for line in plain.out.splitlines())
    assert "\x1b" not in plain.out
    assert plain.out.startswith("ok    configuration")
    assert plain.out.splitlines()[-1].startswith("run: flyteauth login")

    script = [sys.executable, "-c", TERMINAL, *words]
    shown = home.program(script, {"TERM": "xterm", "COLUMNS": "80"}).out
    assert "\x1b[32m✓\x1b[0m  configuration" in shown
    assert "\x1b[33m!\x1b[0m" in shown
    seen = re.sub(r"\x1b\[\d*m", "", shown)
    assert all(len(line) <= 80 for line in seen.splitlines())
    shown = home.program(script, {"TERM": "xterm", "NO_COLOR": "1"}).out
    assert "\x1b" not in shown
    assert "✓  configuration" in shown


# Runs a command with a terminal for its standard output.
TERMINAL = "import pty, sys; pty.spawn(sys.argv[1:])"
