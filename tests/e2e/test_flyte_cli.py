"""The real ``flyte`` command: it has our commands, and our tokens where its file says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings

from ..services import require
from .conftest import BROWSER, TOKEN, Ended, Home
from .flyte_tool import DEADLINE, PROJECTS, calls, grants
from .foreign import with_backend


@pytest.fixture
def running() -> Iterator[Running]:
    with serving(Settings(approve="auto"), tls=True) as running:
        yield running


def program(name: str) -> str:
    """Of the environment that the real flyte is in."""
    return str(require("flyte").with_name(name))


def flyte(home: Home, *words: str, **environ: str) -> Ended:
    environ = {"DO_NOT_TRACK": "1", "COLUMNS": "100", "PYTHONWARNINGS": "default", **environ}
    return home.program([program("flyte"), *words], environ, DEADLINE)


def configured(home: Home, running: Running) -> None:
    """By our command in that environment, so that flyte asks the one there."""
    ours = program("flyteauth")
    words = ("--endpoint", running.endpoint, "--ca-cert", str(running.ca_file), "--for", "flyte")
    ended = home.program([ours, "create", "config", *words], {})
    assert ended.status == 0, ended


def test_our_commands_stand_in_its_help_beside_its_own(home: Home) -> None:
    shown = flyte(home, "--help")
    assert shown.status == 0, shown
    for words in ("login", "Log in, and keep the login", "logout", "auth", "whoami"):
        assert words in shown.out
    options = flyte(home, "login", "--help").out
    assert "Usage: flyte login [OPTIONS]" in options
    for option in ("--headless", "--no-browser", "--account", "--resume"):
        assert option in options
    group = flyte(home, "auth", "--help").out
    for name in ("status", "token", "whoami", "accounts", "doctor", "import", "export"):
        assert name in group


def test_a_login_through_flyte_is_the_one_that_flyte_then_uses(
    home: Home, running: Running
) -> None:
    configured(home, running)
    nobody = flyte(home, "auth", "status")
    assert nobody.status == 4, nobody
    ended = flyte(home, "login", BROWSER=BROWSER)
    assert (ended.status, ended.out) == (0, ""), ended
    assert "Logged in to" in ended.err
    for _ in range(2):
        listed = flyte(home, "get", "project")
        assert listed.status == 0, listed
        assert "flytesnacks" in listed.out
    assert calls(running) == {(401, None): 2, (200, "authorization"): 2}
    assert grants(running) == {"authorization_code": 1}
    assert '"alice"' in flyte(home, "whoami").out
    token = flyte(home, "auth", "token")
    assert TOKEN.fullmatch(token.out), token
    assert token.out == home.run("token").out  # it is the same login for whoever asks
    assert flyte(home, "auth", "status", "--check").status == 0


def test_a_login_that_flyte_gets_is_the_one_that_comes_back(home: Home, running: Running) -> None:
    configured(home, running)
    keyring = {"PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring"}
    keyring["PYTHONPATH"] = str(with_backend(home))
    assert flyte(home, "login", BROWSER=BROWSER, **keyring).status == 0
    exported = flyte(home, "auth", "export", "--to", "flyte", **keyring)
    assert (exported.status, exported.out) == (0, ""), exported
    assert "for flyte, too." in exported.err
    imported = flyte(home, "auth", "import", "--from", "flyte", **keyring)
    assert imported.status == 0, imported
    assert "Took over the login of flyte to" in imported.err


def test_a_logout_through_flyte_leaves_nothing_that_flyte_could_use(
    home: Home, running: Running
) -> None:
    configured(home, running)
    assert flyte(home, "login", BROWSER=BROWSER).status == 0
    assert flyte(home, "get", "project").status == 0
    ended = flyte(home, "logout")
    assert ended.status == 0, ended
    assert home.stored() == {}
    failed = flyte(home, "get", "project", BROWSER="false")
    assert failed.status != 0
    assert "flyteauth login" in failed.out + failed.err
    paths = Counter(entry.path for entry in running.plane.journal)
    assert paths["/oauth2/authorize"] == 1


def test_what_stands_on_its_command_line_before_ours_counts(home: Home, running: Running) -> None:
    words = ("--endpoint", running.endpoint, "--auth-type", "headless")
    ended = flyte(home, *words, "login", "--ca-cert", str(running.ca_file))
    assert ended.status == 0, ended
    assert grants(running) == {"device_code": 1}
    status = flyte(home, "-of", "json", *words, "auth", "status")
    assert status.status == 0, status
    assert '"auth_type": "DeviceFlow"' in status.out


def test_exec_gives_the_same_to_a_flyte_that_is_not_configured_for_us(
    home: Home, running: Running
) -> None:
    words = ("--endpoint", running.endpoint, "--ca-cert", str(running.ca_file))
    ours = program("flyteauth")
    assert home.program([ours, "login", *words], {"BROWSER": BROWSER}).status == 0
    environ = {"DO_NOT_TRACK": "1", "PYTHONWARNINGS": "default"}
    tool = program("flyte")
    ended = home.program([ours, "exec", *words, "--", tool, "get", "project"], environ, DEADLINE)
    assert ended.status == 0, ended
    assert "flytesnacks" in ended.out
    assert [e.status for e in running.plane.journal if e.path == PROJECTS] == [401, 200]
