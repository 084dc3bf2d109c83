"""``flyteauth token``: the token alone on standard output, or one line that says why not."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flyteauth import _verified
from flyteauth.cli import main
from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings

from .conftest import BROWSER, FLYTEAUTH, TOKEN, Ended, Home, Serve, login

USER_INFO = "/flyteidl2.auth.IdentityService/UserInfo"


def calls(running: Running) -> int:
    return running.plane.count(path=USER_INFO)


def refreshes(running: Running) -> int:
    return running.plane.count(grant_type="refresh_token")


def stored_file(home: Home) -> Path:
    (name,) = home.stored()
    (path,) = (path for path in home.path.rglob(name) if path.parent.name == "logins")
    return path


def stored(home: Home) -> Mapping[str, Any]:
    kept: Mapping[str, Any] = json.loads(stored_file(home).read_text(encoding="utf-8"))
    return kept


def token_in(home: Home) -> str:
    return str(stored(home)["record"]["token"]["access_token"])


def change(home: Home, **members: object) -> None:
    """Give the stored token other *members*, as time would."""
    kept = json.loads(json.dumps(stored(home)))
    kept["record"]["token"].update(members)
    stored_file(home).write_text(json.dumps(kept), encoding="utf-8")


def age(home: Home, left: float = 20.0) -> str:
    """Leave the stored token *left* seconds of its half hour."""
    at = time.time()
    change(home, expires_at=at + left, obtained_at=at + left - 1800.0)
    return token_in(home)


def forget_discovery(home: Home) -> None:
    for folder in home.path.rglob("notes"):
        for path in folder.iterdir():
            path.unlink()


@pytest.fixture
def running(serve: Serve) -> Running:
    return serve()


@pytest.fixture
def logged_in(home: Home, running: Running) -> Home:
    login(home, running.base_url)
    return home


@pytest.fixture
def away(home: Home) -> tuple[Home, str]:
    """A home with a login, and the endpoint of a control plane that does not run any more."""
    with serving(Settings(approve="auto")) as running:
        login(home, running.base_url)
    return home, running.base_url


# A good token.


def test_a_good_token_is_printed_and_nobody_is_asked(away: tuple[Home, str]) -> None:
    home, endpoint = away
    before = home.stored()
    ended = home.run("token", "--endpoint", endpoint)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == f"{token_in(home)}\n"
    assert TOKEN.fullmatch(ended.out)
    assert home.stored() == before


def test_the_endpoint_may_come_from_a_file_or_the_environment(away: tuple[Home, str]) -> None:
    home, endpoint = away
    file = home.write("c.yaml", f"admin:\n  endpoint: {endpoint}\n")
    ways: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (("token",), {"FLYTE_ADMIN_ENDPOINT": endpoint}),
        (("token",), {"FLYTECTL_CONFIG": str(file)}),
        (("token", "--config", str(file)), {}),
        (("--config", str(file), "token"), {}),
    ]
    for words, environ in ways:
        ended = home.run(*words, **environ)
        assert (ended.status, ended.out, ended.err) == (0, f"{token_in(home)}\n", "")


def test_json_has_what_a_call_needs(away: tuple[Home, str]) -> None:
    home, endpoint = away
    ended = home.run("token", "--json", "--endpoint", endpoint)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.count("\n") == 1
    record = stored(home)["record"]
    assert json.loads(ended.out) == {
        "access_token": record["token"]["access_token"],
        "token_type": "Bearer",
        "expires_at": record["token"]["expires_at"],
        "header": "authorization",
        "endpoint": endpoint,
    }


def test_json_names_the_header_that_the_control_plane_takes(home: Home, serve: Serve) -> None:
    running = serve("custom-header-key", "flyte1-only")
    login(home, running.base_url, "--auth-type", "headless")
    words = ("token", "--json", "--endpoint", running.base_url)
    for more in ((), ("--verify",)):
        ended = home.run(*words, *more)
        assert (ended.status, ended.err) == (0, "")
        assert json.loads(ended.out)["header"] == "flyte-authorization"


# A token that is about to end.


@pytest.mark.req("CLK-06")
def test_an_ageing_token_is_refreshed_first(logged_in: Home, running: Running) -> None:
    old = age(logged_in)
    ended = logged_in.run("token", "--endpoint", running.base_url)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.strip() == token_in(logged_in) != old
    assert refreshes(running) == 1
    assert logged_in.run("token", "--endpoint", running.base_url) == ended
    assert refreshes(running) == 1


@pytest.mark.req("REF-08", "REF-09")
@pytest.mark.parametrize("how", [(), ("--json",), ("--verify",)])
def test_an_ageing_token_that_cannot_be_refreshed_now_will_do(
    away: tuple[Home, str], how: tuple[str, ...]
) -> None:
    home, endpoint = away
    old = age(home)
    before = home.stored()
    ended = home.run("token", "--endpoint", endpoint, *how)
    assert ended.status == 0, ended
    assert (json.loads(ended.out)["access_token"] if how == ("--json",) else ended.out[:-1]) == old
    assert ended.err.startswith("flyteauth: the token is about to end, and ")
    assert ended.err.count("\n") == 1
    assert "it is kept" in ended.err
    assert home.stored() == before


@pytest.mark.req("REF-08")
def test_an_ageing_token_survives_a_server_that_is_busy(home: Home, serve: Serve) -> None:
    running = serve("refresh-503")
    login(home, running.base_url)
    old = age(home)
    ended = home.run("token", "--endpoint", running.base_url)
    assert (ended.status, ended.out) == (0, f"{old}\n")
    assert "status 503" in ended.err


def test_an_expired_token_is_not_printed_whatever_the_network_does(
    away: tuple[Home, str],
) -> None:
    home, endpoint = away
    age(home, left=-1.0)
    home.run("token", "--endpoint", endpoint).failed_with(1, "cannot be renewed now")
    home.run("token", "--verify", "--endpoint", endpoint).failed_with(1, "cannot be renewed now")


def test_a_token_that_ends_while_it_is_renewed_is_not_printed(
    away: tuple[Home, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    home, endpoint = away
    age(home)
    for name in os.environ:
        monkeypatch.delenv(name)
    for name, value in home.environ().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(home.path)
    monkeypatch.setattr("flyteauth.cli.token.will_do", lambda *_: False)
    status = main(["token", "--endpoint", endpoint])
    Ended(status, *capfd.readouterr()).failed_with(1, "cannot be renewed now")


@pytest.mark.req("REF-07")
def test_an_ageing_token_of_a_login_that_is_over_is_no_token(
    logged_in: Home, running: Running
) -> None:
    age(logged_in)
    change(logged_in, refresh_token="revoked")
    words = ("token", "--endpoint", running.base_url)
    logged_in.run(*words).failed_with(4, "flyteauth login")
    assert logged_in.stored() == {}


def test_an_ageing_token_without_a_refresh_token_is_used_to_its_end(
    logged_in: Home, running: Running
) -> None:
    old = age(logged_in)
    change(logged_in, refresh_token=None)
    ended = logged_in.run("token", "--endpoint", running.base_url)
    assert (ended.status, ended.out, ended.err) == (0, f"{old}\n", "")


# Asking the server.


@pytest.mark.req("BRR-07")
def test_verify_asks_once(logged_in: Home, running: Running) -> None:
    before = calls(running)
    ended = logged_in.run("token", "--verify", "--endpoint", running.base_url)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == f"{token_in(logged_in)}\n"
    assert calls(running) - before == 1
    assert refreshes(running) == 0


def test_commands_that_verify_one_after_the_other_ask_once(
    logged_in: Home,
    running: Running,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """For a tool whose calls were refused at once, and that runs us for each of them."""
    for name, value in logged_in.environ().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_verified, "LATELY", 60.0)
    monkeypatch.chdir(logged_in.path)
    before = calls(running)
    for _ in range(3):
        assert main(["token", "--verify", "--endpoint", running.base_url]) == 0
    assert capsys.readouterr().out == f"{token_in(logged_in)}\n" * 3
    assert calls(running) - before == 1


@pytest.mark.req("BRR-07")
def test_verify_renews_what_the_server_refuses_once(home: Home, serve: Serve) -> None:
    running = serve("always-401")
    login(home, running.base_url)
    old, before = token_in(home), calls(running)
    ended = home.run("token", "--verify", "--endpoint", running.base_url)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.strip() == token_in(home) != old
    assert calls(running) - before == 1
    assert refreshes(running) == 1


def test_verify_of_an_ageing_token_renews_it_once(logged_in: Home, running: Running) -> None:
    old, before = age(logged_in), calls(running)
    ended = logged_in.run("token", "--verify", "--endpoint", running.base_url)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.strip() == token_in(logged_in) != old
    assert (calls(running) - before, refreshes(running)) == (1, 1)


def test_verify_of_a_good_token_works_offline(away: tuple[Home, str]) -> None:
    home, endpoint = away
    for _ in range(2):  # with what is known of the server, and without
        ended = home.run("token", "--verify", "--endpoint", endpoint)
        assert (ended.status, ended.out) == (0, f"{token_in(home)}\n")
        assert ended.err.startswith("flyteauth: the token could not be verified: ")
        assert ended.err.count("\n") == 1
        forget_discovery(home)


def test_a_token_that_is_refused_and_cannot_be_renewed_now_is_not_printed(
    home: Home, serve: Serve
) -> None:
    running = serve("always-401", "refresh-503")
    login(home, running.base_url)
    before = home.stored()
    words = ("token", "--verify", "--endpoint", running.base_url)
    home.run(*words).failed_with(1, "cannot be renewed now")
    assert home.stored() == before


# No login.


@pytest.mark.req("REF-12")
@pytest.mark.parametrize("how", [(), ("--json",), ("--verify",), ("--interactive",)])
def test_without_a_login_there_is_no_token(
    home: Home, running: Running, how: tuple[str, ...]
) -> None:
    """Nor a question, where nobody is at a terminal."""
    opened = home.path / "opened"
    words = ("token", "--endpoint", running.base_url, *how)
    ended = home.run(*words, BROWSER=f"touch {opened}")
    ended.failed_with(4, "not logged in", "flyteauth login")
    assert not opened.exists()
    assert home.stored() == {}


def test_interactive_logs_in_whoever_is_at_a_terminal(home: Home, running: Running) -> None:
    words = (FLYTEAUTH, "token", "--interactive", "--endpoint", running.base_url)
    ended = home.at_terminal(words, {"BROWSER": BROWSER})
    assert ended.status == 0, ended
    assert ended.out == f"{token_in(home)}\n"
    assert running.plane.count(path="/oauth2/authorize") == 1


def test_a_corrupt_login_is_said_to_be_so_and_stays(logged_in: Home, running: Running) -> None:
    stored_file(logged_in).write_text("{", encoding="utf-8")
    before = logged_in.stored()
    ended = logged_in.run("token", "--endpoint", running.base_url)
    assert (ended.status, ended.out) == (4, "")
    assert "does not hold a login that can be read" in ended.err
    assert "not logged in" in ended.err
    assert logged_in.stored() == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs another user")
def test_a_login_that_belongs_to_somebody_else_is_not_used(
    logged_in: Home, running: Running
) -> None:
    os.chown(stored_file(logged_in), 12345, -1)
    ended = logged_in.run("token", "--endpoint", running.base_url)
    assert (ended.status, ended.out) == (4, "")
    assert "belongs to another user" in ended.err


# Where nobody logs in.


def test_a_control_plane_without_tokens_has_none_to_print(home: Home, serve: Serve) -> None:
    endpoint = serve("no-auth").base_url
    for words in (("token",), ("token", "--verify"), ("token", "--auth-type", "none")):
        ended = home.run(*words, "--endpoint", endpoint)
        ended.failed_with(1, "the control plane wants no token")


@pytest.mark.parametrize("store", ["memory", "file"])
def test_a_service_gets_its_token_by_its_secret(home: Home, running: Running, store: str) -> None:
    environ: dict[str, Any] = {
        "FLYTE_API_KEY": running.plane.api_key,
        "FLYTE_ADMIN_TOKENSTORE": store,
    }
    first, second = home.run("token", **environ), home.run("token", **environ)
    assert (first.status, first.err) == (second.status, second.err) == (0, "")
    assert TOKEN.fullmatch(first.out)
    assert (first.out == second.out) == (store == "file")
    wanted = 1 if store == "file" else 2
    assert running.plane.count(grant_type="client_credentials") == wanted
    ended = home.run("token", "--json", **environ)
    assert json.loads(ended.out)["header"] == "authorization"
    assert json.loads(ended.out)["endpoint"] == running.base_url


def test_a_command_is_asked_for_its_token(home: Home, running: Running) -> None:
    words = ("token", "--endpoint", running.base_url, "--auth-type", "external-command")
    ended = home.run(*words, FLYTE_AUTH_COMMAND="echo one-token-of-a-command")
    assert (ended.status, ended.out, ended.err) == (0, "one-token-of-a-command\n", "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_configuration_may_come_through_a_pipe(away: tuple[Home, str]) -> None:
    home, endpoint = away
    script = f"printf 'admin:\\n  endpoint: {endpoint}\\n' | \"$0\" --config /dev/stdin token"
    ended = home.program(["/bin/sh", "-c", script, FLYTEAUTH], {})
    assert (ended.status, ended.out, ended.err) == (0, f"{token_in(home)}\n", "")
