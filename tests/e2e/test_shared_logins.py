"""``flyteauth import`` and ``export``, ``login --share`` and ``logout --everywhere``: with a real
keyring, and with what the real tools read and write there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flyteauth.devserver.serve import Running

from ..io.rings import plain_text
from ..services import require
from .conftest import BROWSER, Ended, Home, Serve
from .foreign import expire, refreshed, with_backend

PLAINTEXT: dict[str, Any] = {"PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring"}
USED = "refresh_token"

# What each tool runs to find and to keep its login; the endpoint is as its configuration has it.
_FLYTE = """
from flyte._utils import sanitize_endpoint
from flyte.config import Config
from flyte.remote._client.auth._keyring import Credentials, KeyringStore, strip_scheme
endpoint = "https://" + strip_scheme(sanitize_endpoint(Config.auto(sys.argv[1]).platform.endpoint))
"""
_FLYTEKIT = """
from flytekit.clients.auth.keyring import Credentials, KeyringStore
from flytekit.configuration import Config
endpoint = Config.auto(config_file=sys.argv[1]).platform.endpoint
"""
_COMMON = """
if len(sys.argv) > 2:
    access_token, refresh_token = sys.argv[2:]
    KeyringStore.store(Credentials(
        access_token=access_token, refresh_token=refresh_token, for_endpoint=endpoint
    ))
found = KeyringStore.retrieve(endpoint)
print(json.dumps(found and [found.access_token, found.refresh_token]))
"""
PROGRAMS = {"flyte": _FLYTE, "flytekit": _FLYTEKIT}

Pair = list[str] | None


def real(home: Home, tool: str, *words: str) -> Pair:
    """What the real *tool* finds in the keyring, after it has kept *words*."""
    program = f"import json, sys\n{PROGRAMS[tool]}{_COMMON}"
    config = str(home.path / ".flyte/config.yaml")
    environ = {
        **PLAINTEXT,
        "DO_NOT_TRACK": "1",
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": str(with_backend(home)),
    }
    argv = [str(require(tool)), "-c", program, config, *words]
    ended = home.program(argv, environ, deadline=120.0)
    assert ended.status == 0, ended
    found: Pair = json.loads(ended.out.splitlines()[-1])
    return found


def configured(home: Home, running: Running, spelling: str = "{}", more: str = "") -> None:
    endpoint = spelling.format(running.base_url).replace("dns:///http://", "dns:///")
    home.write(".flyte/config.yaml", f"admin:\n  endpoint: {endpoint}\n  insecure: true\n{more}")


def run(home: Home, *words: str, status: int = 0) -> Ended:
    ended = home.run(*words, BROWSER=BROWSER, **PLAINTEXT)
    assert ended.status == status, ended
    assert "Traceback" not in ended.err
    return ended


def events(ended: Ended) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ended.out.splitlines()]


def token(home: Home) -> str:
    return run(home, "token").out.strip()


# With the real ones.


@pytest.mark.parametrize("spelling", ["{}", "dns:///{}"])
@pytest.mark.parametrize("tool", ["flyte", "flytekit"])
def test_the_real_tool_has_the_login_that_we_export_and_none_after_logout_everywhere(
    home: Home, serve: Serve, tool: str, spelling: str
) -> None:
    configured(home, serve(), spelling)
    require(tool)
    run(home, "login")
    assert real(home, tool) is None
    run(home, "export", "--to", tool)
    found = real(home, tool)
    assert found is not None
    assert found[0] == token(home)
    assert found[1]
    run(home, "logout", "--everywhere")
    assert real(home, tool) is None


@pytest.mark.parametrize("spelling", ["{}", "dns:///{}"])
@pytest.mark.parametrize("tool", ["flyte", "flytekit"])
def test_the_login_that_the_real_tool_has_kept_becomes_ours(
    home: Home, serve: Serve, tmp_path: Path, tool: str, spelling: str
) -> None:
    running = serve()
    access_token, refresh_token = logged_in_elsewhere(running, tmp_path)
    configured(home, running, spelling)
    assert real(home, tool, access_token, refresh_token) == [access_token, refresh_token]
    told = events(run(home, "import", "--json"))
    assert [event["tool"] for event in told if event["event"] == "imported"] == [tool]
    assert token(home) == access_token
    run(home, "whoami")


@pytest.mark.parametrize("tool", ["flyte", "flytekit"])
def test_what_the_real_tool_has_kept_after_a_refresh_is_taken_over(
    home: Home, serve: Serve, tool: str
) -> None:
    """Row 4: neither of the two spends what the other has spent."""
    running = serve()
    configured(home, running, more=f"  sharedLogins: [{tool}]\n")
    require(tool)
    run(home, "login")
    found = real(home, tool)
    assert found is not None
    fresh = refreshed(running, found[1])
    real(home, tool, *fresh)
    run(home, "token", "--verify")
    expire(running, found[0])
    run(home, "whoami")  # which is refused once; --verify would believe what was so a moment ago
    assert run(home, "token").out.strip() == fresh[0]
    assert running.plane.count(grant_type=USED) == 1
    expire(running, fresh[0])
    run(home, "whoami")
    again = run(home, "token").out.strip()
    assert (real(home, tool) or [""])[0] == again
    assert running.plane.count(grant_type=USED, status=200) == 2
    assert running.plane.count(grant_type=USED, status=400) == 0


def logged_in_elsewhere(running: Running, directory: Path) -> list[str]:
    """A login that is nobody's yet: access token and refresh token."""
    (directory / "elsewhere").mkdir()
    elsewhere = Home(directory / "elsewhere")
    configured(elsewhere, running)
    run(elsewhere, "login")
    run(elsewhere, "export", "--to", "flyte")
    return pair_in(elsewhere, running)


def pair_in(home: Home, running: Running) -> list[str]:
    """What lies in the keyring for flyte."""
    text = ring_of(home).get_password(running.base_url.partition("://")[2], "tokens")
    return list(json.loads(text).values())


def ring_of(home: Home) -> Any:
    return plain_text(home.path / ".local/share/python_keyring")


# Without them.


def test_a_login_is_shared_exported_imported_and_forgotten_in_words(
    home: Home, serve: Serve
) -> None:
    running = serve()
    configured(home, running)
    said = run(home, "login", "--share", "flyte", "--share", "flytectl")
    for tool in ("flyte", "flytectl"):
        assert f"for {tool}, too." in said.err
    access_token, _ = pair_in(home, running)
    assert access_token == token(home)

    said = run(home, "export", "--to", "flytekit")
    assert said.out == ""
    assert f"under {running.base_url} for flytekit, too." in said.err
    assert "set admin.sharedLogins to [flytekit]" in said.err

    said = run(home, "import", "--from", "flytekit")
    assert said.out == ""
    assert f"Took over the login of flytekit to {running.base_url[7:]}" in said.err
    assert f"Logged in to {running.base_url[7:]} as alice." in said.err
    assert token(home) == access_token

    said = run(home, "logout", "--everywhere")
    assert said.out == ""
    for tool in ("flyte", "flytekit", "flytectl"):
        assert f"The login of {tool} to {running.base_url[7:]} is gone from the keyring" in said.err
    assert said.err.count("the server took its tokens back") == 4
    assert access_token not in said.err
    ended = run(home, "import", status=4)
    ended.failed_with(4, "no other tool keeps a login", "run: flyteauth login")


def test_a_login_that_would_be_taken_over_is_told_of_and_left_where_it_is(
    home: Home, serve: Serve, tmp_path: Path
) -> None:
    running = serve()
    access_token, refresh_token = logged_in_elsewhere(running, tmp_path)
    where, ring = running.base_url.partition("://")[2], ring_of(home)
    ring.set_password(
        where,
        "tokens",
        json.dumps({"access_token": access_token, "refresh_token": refresh_token}),
    )
    configured(home, running)
    assert run(home, "status", status=4).out.startswith(f"Not logged in to {where}.")

    configured(home, running, more="  sharedLogins: [flyte]\n")
    before, asked = Path(ring.file_path).read_bytes(), len(running.plane.journal)
    ended = run(home, "status", status=4)
    first, *rest = ended.out.splitlines()
    assert first == f"Not logged in to {where}; flyte has a login that may be taken over."
    said = " ".join(" ".join(rest).split())
    assert "shared flyte has a login in the keyring (" in said
    assert f"under {where}: the first use takes it over" in said
    assert rest[-1] == "run: flyteauth login"
    run(home, "status", "--check", status=4)  # for it may have been revoked
    document = json.loads(run(home, "status", "--json", status=4).out)
    assert (document["authorised"], document["logged_in"]) == (False, False)
    assert (document["taken_over_from"], document["next"]) == ("flyte", "flyteauth login")
    assert "the first use takes it over" in run(home, "status", "--explain", status=4).out
    assert len(running.plane.journal) == asked
    found = json.loads(run(home, "doctor", "--json").out)
    (login,) = (each for each in found["findings"] if each["name"] == "login")
    assert (login["state"], "flyte has a login" in login["text"]) == ("warn", True)
    assert home.stored() == {}
    assert Path(ring.file_path).read_bytes() == before

    assert token(home) == access_token
    run(home, "status", "--check")
    assert "shared" not in run(home, "status").out
    assert json.loads(run(home, "status", "--json").out)["taken_over_from"] is None


def test_where_nothing_is_to_be_taken_over_status_says_so(home: Home, serve: Serve) -> None:
    configured(home, serve(), more="  sharedLogins: [flyte, flytekit]\n")
    ended = run(home, "status", status=4)
    assert "shared    flyte or flytekit has no login to take over" in ended.out
    assert ended.out.splitlines()[-1] == "run: flyteauth login"
    off: dict[str, Any] = {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}
    ended = home.run("status", **off)
    assert ended.status == 4
    assert "a login to take over cannot be told: " in " ".join(ended.out.split())


def test_programs_get_lines_of_json(home: Home, serve: Serve) -> None:
    running = serve()
    configured(home, running, more="  sharedLogins: [flyte]\n")
    run(home, "login")
    (exported,) = events(run(home, "export", "--to", "flyte", "--json"))
    assert (exported["event"], exported["tool"]) == ("exported", "flyte")
    names = [event["event"] for event in events(run(home, "import", "--json"))]
    assert names == ["imported", "logged_in", "exported"]
    logged_out, forgotten = events(run(home, "logout", "--everywhere", "--json"))
    assert (logged_out["event"], logged_out["local_deleted"]) == ("logged_out", True)
    assert (forgotten["event"], forgotten["remote_revoked"]) == ("forgotten", True)
    ended = run(home, "import", "--json", status=4)
    assert events(ended)[-1]["reason"] == "not_logged_in"


@pytest.mark.parametrize(
    "words",
    [
        ("import", "--from", "kubectl"),
        ("export",),
        ("export", "--to", "flytctl"),
        ("login", "--share", "kubectl"),
        ("logout", "--all", "--everywhere"),
    ],
)
def test_what_cannot_be_understood_is_said_in_two_lines(home: Home, words: tuple[str, ...]) -> None:
    ended = run(home, *words, status=2)
    assert ended.err.count("\n") == 2
    assert ended.out == ""


def test_a_login_in_two_steps_is_shared_as_it_was_begun(home: Home, serve: Serve) -> None:
    running = serve()
    configured(home, running)
    begun = run(home, "login", "--no-wait", "--share", "flyte", "--json")
    go_on = events(begun)[-1]["go_on"]
    assert go_on == ["flyteauth", "login", "--resume", "--share", "flyte"]
    run(home, *go_on[1:])
    assert pair_in(home, running)[0] == token(home)


def test_without_a_keyring_each_command_says_so(home: Home, serve: Serve) -> None:
    running = serve()
    configured(home, running)
    off: dict[str, Any] = {
        "BROWSER": BROWSER,
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
    }
    ended = home.run("login", "--share", "flyte", **off)
    assert ended.status == 0
    assert "flyte does not get the new login" in ended.err
    home.run("export", "--to", "flyte", **off).failed_with(1, "switched off")
    ended = home.run("import", **off)
    assert ended.status == 1
    assert ended.err.endswith("start one, or name one in PYTHON_KEYRING_BACKEND\n")
    ended = home.run("logout", "--everywhere", **off)
    assert ended.status == 1
    assert "Logged out of" in ended.err
    assert "may still be there" in ended.err


def test_a_tool_that_runs_with_our_login_shares_it_as_we_do(home: Home, serve: Serve) -> None:
    """What ``exec`` hands over spells the endpoint in another way."""
    running = serve()
    more = "  sharedLogins: [flytekit]\n  tokenStore: file\n"
    configured(home, running, "dns:///{}", more)
    run(home, "login")
    expire(running, token(home))
    program = (
        "import json, os, subprocess\n"
        'subprocess.run(json.loads(os.environ["FLYTE_AUTH_COMMAND"]), check=True)'
    )
    address = running.base_url.partition("://")[2]
    before = ring_of(home).get_password(address, "refresh_token")
    run(home, "exec", "--", "python", "-c", program)
    after = ring_of(home).get_password(address, "refresh_token")
    assert before != after
    assert running.plane.count(grant_type=USED, status=400) == 0
