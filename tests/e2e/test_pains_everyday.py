"""Everyday life with logins: several at once, keys that were copied badly, stores that are not
there, and errors that have to say something. Rows as in ``test_pains_login``.
"""

from __future__ import annotations

import json
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from flyteauth import errors
from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings

from .conftest import BROWSER, TOKEN, Home, Serve, login


@pytest.fixture(scope="module")
def calm() -> Iterator[Running]:
    with serving(Settings(approve="auto")) as running:
        yield running


# Several logins.


def test_logging_out_of_one_leaves_the_others_byte_for_byte(
    home: Home, calm: Running, serve: Serve
) -> None:
    """Row 29. The server takes back the tokens of that login, not the session of the browser."""
    other = serve()
    login(home, other.base_url)
    login(home, calm.base_url, "--account", "work")
    before = home.stored()
    login(home, calm.base_url)
    ended = home.run("logout", "--endpoint", calm.base_url)
    assert (ended.status, ended.out) == (0, ""), ended
    assert "took its tokens back" in ended.err
    assert home.stored() == before
    for words in (
        ("--endpoint", other.base_url),
        ("--endpoint", calm.base_url, "--account", "work"),
    ):
        assert home.run("whoami", *words).status == 0


@pytest.mark.req("REF-02")
def test_two_accounts_at_two_clusters_renew_side_by_side(home: Home, serve: Serve) -> None:
    """Row 30. Each shell says for itself whose login it uses."""
    planes = [serve(access_ttl=2.0), serve(access_ttl=2.0)]
    shells = [(plane, account) for plane in planes for account in ("work", "home")]
    for plane, account in shells:
        login(home, plane.base_url, "--account", account)
    time.sleep(2.0)  # until all of them have expired

    def token(shell: tuple[Running, str]) -> str:
        plane, account = shell
        ended = home.run("token", FLYTE_ADMIN_ENDPOINT=plane.base_url, FLYTE_ADMIN_ACCOUNT=account)
        assert (ended.status, ended.err) == (0, ""), ended
        assert TOKEN.fullmatch(ended.out)
        return ended.out.strip()

    with ThreadPoolExecutor(len(shells)) as pool:
        tokens = list(pool.map(token, shells))
    assert len(set(tokens)) == len(shells)
    for plane in planes:
        assert plane.plane.count(grant_type="refresh_token", status=200) == 2
        assert plane.plane.count(grant_type="refresh_token") == 2
        known = [plane.plane.access(token, time.time() - 2) is not None for token in tokens]
        assert known == [of is plane for of, _ in shells]


# Errors that say something.

WENT_WRONG: dict[str, tuple[tuple[str, ...], str, str]] = {
    "discovery-503": ((), "Unreachable", "503"),
    "no-device": (("--headless",), "MissingMetadata", "device"),
    "deny": ((), "OAuth2Error", "access_denied"),
    "code-expired": ((), "OAuth2Error", "invalid_grant"),
    "wrong-nonce": (("--scopes", "openid,offline"), "InvalidResponse", "ID token"),
    "token-html": ((), "InvalidResponse", "web page"),
    "huge-body": ((), "InvalidResponse", "large"),
}


@pytest.mark.req("ERR-01", "ERR-07")
@pytest.mark.parametrize("fault", WENT_WRONG)
def test_what_went_wrong_is_one_class_and_one_line(home: Home, serve: Serve, fault: str) -> None:
    """Row 32."""
    words, name, said = WENT_WRONG[fault]
    ended = home.run(
        "login", "--json", "--endpoint", serve(fault).base_url, *words, BROWSER=BROWSER
    )
    assert ended.status == 1, ended
    last = json.loads(ended.out.splitlines()[-1])
    assert (last["event"], last["error"]) == ("failed", name), last
    assert issubclass(getattr(errors, name), errors.Error)
    assert last["reason"]
    assert said in last["message"]
    assert ended.err == f"flyteauth: {last['message']}\n"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("token-no-expires-in", ()),
        ("token-string-expires-in", ()),
        ("empty-header-key", ()),
        ("poll-502-html", ("--headless",)),
    ],
)
def test_what_can_be_lived_with_is_no_error(
    home: Home, serve: Serve, fault: str, words: tuple[str, ...]
) -> None:
    """Row 32."""
    endpoint = ("--endpoint", serve(fault).base_url)
    ended = home.run("login", *endpoint, *words, BROWSER=BROWSER)
    assert (ended.status, ended.out) == (0, ""), ended
    assert home.run("whoami", *endpoint).out.startswith("alice")


@pytest.mark.parametrize(
    ("fault", "words", "status", "said"),
    [
        ("always-401", ("whoami",), 1, "the token is not valid"),
        ("apps-unimplemented", ("get", "api-key"), 1, "API key"),
    ],
)
def test_a_call_that_is_refused_is_one_line(
    home: Home, serve: Serve, fault: str, words: tuple[str, ...], status: int, said: str
) -> None:
    """Row 32."""
    endpoint = ("--endpoint", serve(fault).base_url)
    login(home, endpoint[1])
    home.run(*words, *endpoint).failed_with(status, said)


# Keys and secrets that were copied.


def key_of(plane: Running, **parts: str) -> str:
    endpoint, client_id, secret, org = b64decode(plane.api_key).decode().rsplit(":", 3)
    own = {"endpoint": endpoint, "client_id": client_id, "secret": secret, "org": org}
    return b64encode(":".join({**own, **parts}.values()).encode()).decode()


@pytest.mark.parametrize(("scheme", "end"), [("", "\r\n"), ("http://", ""), ("http://", "wrapped")])
def test_an_api_key_works_with_scheme_and_port_and_however_it_was_copied(
    home: Home, calm: Running, scheme: str, end: str
) -> None:
    """Row 35."""
    host = calm.base_url.removeprefix("http://")
    key = key_of(calm, endpoint=f"{scheme}{host}")
    if end == "wrapped":
        key = "\n  ".join(key[at : at + 40] for at in range(0, len(key), 40))
    else:
        key += end
    environ: dict[str, Any] = {} if scheme else {"FLYTE_ADMIN_INSECURE": "true"}
    ended = home.run("token", FLYTE_API_KEY=key, **environ)
    assert (ended.status, ended.err) == (0, ""), ended
    assert TOKEN.fullmatch(ended.out)


@pytest.mark.parametrize(
    "parts",
    [
        {"secret": "CANARY:with-a-colon"},
        {"client_id": "CANARY:with-a-colon"},
        {"endpoint": "ftp://CANARY"},
        {"secret": "CANARY\r\nInjected: header"},
    ],
    ids=str,
)
def test_an_api_key_that_cannot_be_split_fails_loudly_and_is_not_shown(
    home: Home, calm: Running, parts: dict[str, str]
) -> None:
    """Row 35."""
    before = len(calm.plane.journal)
    ended = home.run("token", FLYTE_API_KEY=key_of(calm, **parts))
    ended.failed_with(1, "FLYTE_API_KEY", "API key", "copy the whole key again")
    assert "CANARY" not in ended.err
    assert len(calm.plane.journal) == before


@pytest.mark.req("CCG-06")
@pytest.mark.parametrize("where", ["file", "variable"])
@pytest.mark.parametrize(("end", "works"), [("\r\n", True), ("\n\n", False)])
def test_a_secret_may_end_with_one_line_break_and_no_more(
    home: Home, calm: Running, where: str, end: str, works: bool
) -> None:
    """Row 35."""
    client_id, secret = calm.plane.service_client
    (home.path / "secret").write_bytes((secret + end).encode())
    place = f"clientSecretLocation: {home.path}/secret"
    environ: dict[str, Any] = {}
    if where == "variable":
        place, environ = "clientSecretEnvVar: MY_SECRET", {"MY_SECRET": secret + end}
    home.write(
        ".flyte/config.yaml",
        f"admin:\n  endpoint: {calm.base_url}\n  authType: ClientSecret\n"
        f"  clientId: {client_id}\n  {place}\n",
    )
    ended = home.run("token", **environ)
    if works:
        assert (ended.status, ended.err) == (0, ""), ended
        assert TOKEN.fullmatch(ended.out)
        return
    ended.failed_with(1, place.split()[0].rstrip(":"), "line break or a control character")
    assert secret not in ended.err


# Where logins are kept.


@pytest.mark.req("SEC-08")
def test_a_login_that_falls_back_to_a_file_says_so_once(home: Home, calm: Running) -> None:
    """Row 37."""
    words = ("--endpoint", calm.base_url)
    ended = home.run("login", *words, BROWSER=BROWSER)
    assert ended.status == 0, ended
    (said,) = (line for line in ended.err.splitlines() if "no keyring" in line)
    assert "readable by you alone" in said
    assert "tokenStore: file" in said
    for command in ("token", "whoami", "get project", "status"):
        after = home.run(*command.split(), *words)
        assert (after.status, after.err) == (0, ""), after
    assert "not encrypted" in home.run("status", *words).out
    (kept,) = (path for path in home.path.rglob("logins/*") if path.is_file())
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700


# Questions of scripts.


def test_a_script_learns_whether_it_is_logged_in_by_the_status_alone(
    home: Home, calm: Running
) -> None:
    """Row 41."""
    words = ("status", "--check", "--endpoint", calm.base_url)
    nobody = home.run(*words)
    assert (nobody.status, nobody.out, nobody.err) == (4, "", "")
    login(home, calm.base_url)
    ended = home.run(*words)
    assert (ended.status, ended.out, ended.err) == (0, "", "")
    assert home.run("logout", "--endpoint", calm.base_url).status == 0
    assert home.run(*words) == nobody


BAD_TOKENS: dict[str, tuple[dict[str, Any], int]] = {
    "unreachable": ({"FLYTE_ADMIN_ENDPOINT": "http://localhost:1"}, 1),
    "a key for nobody": ({"FLYTE_API_KEY": "bm90aGluZw=="}, 1),
    "no such command": (
        {"FLYTE_AUTH_TYPE": "ExternalCommand", "FLYTE_AUTH_COMMAND": "/nowhere/to/be/found"},
        1,
    ),
    "a command that fails": (
        {"FLYTE_AUTH_TYPE": "ExternalCommand", "FLYTE_AUTH_COMMAND": "sh -c 'echo no >&2; exit 9'"},
        1,
    ),
    "a command that prints a page": (
        {"FLYTE_AUTH_TYPE": "ExternalCommand", "FLYTE_AUTH_COMMAND": "echo '<html>no</html>'"},
        1,
    ),
    "a store that is not there": ({"FLYTE_ADMIN_TOKENSTORE": "redis://127.0.0.1:1/0"}, 1),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
def test_standard_output_has_a_token_or_nothing(home: Home, calm: Running, name: str) -> None:
    """Row 41. ``test_token`` has those that come from the server."""
    environ, status = BAD_TOKENS[name]
    ended = home.run("token", **{"FLYTE_ADMIN_ENDPOINT": calm.base_url, **environ})
    ended.failed_with(status)
