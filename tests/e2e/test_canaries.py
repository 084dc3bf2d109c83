"""No secret leaves a command where it does not belong, with every log level on DEBUG: whole lives of
logins, and each way in which they fail.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flyteauth.devserver.serve import Running

from .conftest import Home, Serve
from .watching import EVERYWHERE, Watched, canary, watching

Watch = Callable[..., tuple[Watched, Running]]


@pytest.fixture
def watch(home: Home, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """A control plane with these faults and settings, and a home to use it from."""

    def start(*faults: str, **settings: Any) -> tuple[Watched, Running]:
        running = serve(*faults, **settings)
        return watching(home, running, monkeypatch), running

    return start


# Lives.


@pytest.mark.req("SEC-01", "SEC-02", "SEC-03", "SEC-04", "COD-01")
def test_a_person_with_a_browser(watch: Watch) -> None:
    """Row 33."""
    watched, running = watch()
    home = watched.home
    (home.path / "proxy").write_text(proxy := canary(watched, "proxy token"))
    command = json.dumps(watched.program("command.py", str(home.path / "proxy")))
    environ: dict[str, Any] = {
        "FLYTE_AUTH_PROXY_COMMAND": command,
        "FLYTE_ADMIN_SCOPES": "openid offline all",
    }
    watched.run("login", "--json", **environ)
    for words in (
        "status --explain",
        "status --json",
        "whoami --json",
        "get project --json",
        "get api-key --json",
        "accounts --json",
        "doctor --json",
    ):
        watched.run(*words.split(), **environ)
    for words in ("token", "token --json --verify"):
        watched.run(*words.split(), shows=("access_token",), **environ)
    assert watched.run("exec", "--", *watched.program("tool.py"), **environ).out == "done\n"
    created = watched.run(
        "create",
        *("api-key", "--name", "canary", "--json"),
        shows=("new key", "new secret"),
        **environ,
    )
    key = json.loads(created.out)
    watched.witness.note("new key", key["api_key"])
    watched.witness.note("new secret", key["client_secret"])
    watched.run("get", "api-key", "canary", "--json", **environ)
    watched.run("delete", "api-key", "canary", "--yes", **environ)
    watched.run("logout", "--json", **environ)
    watched.run("token", status=4, **environ)
    assert {where for where, _, _ in watched.seen()} == EVERYWHERE
    assert any(
        "/oauth2/authorize" in text for where, text, _ in watched.seen() if where == "arguments"
    )
    watched.assert_tight(
        "access_token", "refresh_token", "id_token", "code", "code_verifier", "state", "new secret"
    )
    assert proxy not in str(running.plane.journal)


@pytest.mark.req("SEC-01", "SEC-02", "DEV-15")
def test_a_person_with_a_code(watch: Watch) -> None:
    """Row 33. Each token lasts a second, so that it is refreshed over and over."""
    watched, running = watch(access_ttl=1.0)
    watched.run("login", "--headless")
    watched.run("login", "--account", "work", "--no-wait", "--json")
    watched.run("status", "--explain", "--account", "work", status=4)
    watched.run("accounts")
    watched.run("login", "--account", "work", "--resume")
    time.sleep(1.0)  # until it has expired
    watched.run("token", shows=("access_token",))
    watched.run("whoami")
    watched.run("doctor")
    watched.run("logout", "--all")
    assert running.plane.count(grant_type="refresh_token") >= 1
    watched.assert_tight("access_token", "refresh_token", "device_code")


@pytest.mark.req("SEC-01", "SEC-02")
def test_a_person_with_several_tools(watch: Watch) -> None:
    """Each token lasts a second, so that it is refreshed, and written for all, over and over."""
    watched, running = watch(access_ttl=1.0)
    environ: dict[str, Any] = {
        "PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring",
        "FLYTE_ADMIN_SHAREDLOGINS": "flyte flytekit",
    }
    tools = ("--to", "flyte", "--to", "flytekit", "--to", "flytectl")
    watched.run("login", "--headless", **environ)
    watched.run("export", *tools, **environ)
    watched.run("import", "--json", **environ)
    time.sleep(1.0)  # until it has expired
    watched.run("token", shows=("access_token",), **environ)
    watched.run("import", "--from", "flytekit", **environ)
    watched.run("status", "--explain", **environ)
    watched.run("status", "--json", **environ)
    off = {**environ, "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}
    watched.run("import", status=1, **off)
    watched.run("logout", "--everywhere", "--json", **environ)
    watched.run("import", status=4, **environ)
    assert running.plane.count(grant_type="refresh_token") >= 1
    watched.assert_tight("access_token", "refresh_token", "device_code")


@pytest.mark.req("SEC-01", "SEC-04")
@pytest.mark.parametrize("kind", ["API key", "file", "variable"])
def test_a_service(watch: Watch, kind: str) -> None:
    """Row 33."""
    watched, running = watch()
    client_id, secret = running.plane.service_client
    environ: dict[str, Any] = {"FLYTE_API_KEY": running.plane.api_key}
    if kind != "API key":
        (watched.home.path / "secret").write_text(secret)
        place = f"clientSecretLocation: {watched.home.path}/secret"
        environ = {}
        if kind == "variable":
            place, environ = "clientSecretEnvVar: MY_SECRET", {"MY_SECRET": secret}
        watched.home.write(
            ".flyte/config.yaml",
            f"admin:\n  authType: ClientSecret\n  clientId: {client_id}\n  {place}\n",
        )
    watched.run("token", shows=("access_token",), **environ)
    if kind == "API key":
        for words in ("status --explain", "status --json", "whoami"):
            watched.run(*words.split(), **environ)
        watched.run("login", **environ)
        watched.run("logout", **environ)
    watched.run("doctor", "--json", **environ)
    watched.run("exec", "--", *watched.program("tool.py"), **environ)
    watched.assert_tight("access_token", "client secret", "API key")


@pytest.mark.req("SEC-04", "BRR-14")
def test_a_command_that_knows_the_token(watch: Watch) -> None:
    """Row 33. The control plane does not know that token, and says so."""
    watched, _ = watch()
    token = canary(watched, "token of a command")
    (watched.home.path / "token").write_text(token)
    command = json.dumps(watched.program("command.py", str(watched.home.path / "token")))
    environ: dict[str, Any] = {"FLYTE_AUTH_TYPE": "ExternalCommand", "FLYTE_AUTH_COMMAND": command}
    watched.run("login", "--json", **environ)
    assert watched.run("token", shows=("token of a command",), **environ).out == f"{token}\n"
    watched.run("status", "--explain", **environ)
    watched.run("doctor", "--json", status=1, **environ)
    watched.run("whoami", status=1, **environ)
    watched.run("exec", "--", *watched.program("tool.py"), **environ)
    watched.run("logout", **environ)
    watched.assert_tight("token of a command")


@pytest.mark.req("SEC-04")
def test_a_key_that_lies_about_is_no_business_of_a_child(watch: Watch) -> None:
    """Row 33. Neither the browser nor the external command needs what is in our environment."""
    watched, running = watch()
    environ: dict[str, Any] = {"FLYTE_API_KEY": running.api_key, "UNION_API_KEY": running.api_key}
    endpoint = ("--endpoint", running.base_url)
    watched.run("login", *endpoint, "--auth-type", "pkce", **environ)
    (watched.home.path / "token").write_text(canary(watched, "token of a command"))
    environ["FLYTE_AUTH_COMMAND"] = json.dumps(
        watched.program("command.py", str(watched.home.path / "token"))
    )
    watched.run("login", *endpoint, "--auth-type", "external-command", **environ)
    assert running.plane.count(path="/oauth2/authorize") == 1
    watched.assert_tight("API key", "access_token", "token of a command")


# What fails.


@pytest.mark.req("SEC-02", "CCG-04")
def test_a_secret_that_is_wrong_or_half_of_a_key(watch: Watch) -> None:
    watched, running = watch()
    *parts, _, org = b64decode(running.api_key).decode().split(":")
    wrong = canary(watched, "wrong secret")
    whole = b64encode(":".join([*parts, wrong, org]).encode()).decode()
    watched.witness.note("wrong key", whole)
    half = running.api_key[: len(running.api_key) // 2]
    watched.witness.note("half a key", half)
    for words in ("login --json", "token", "exec -- true", "doctor"):
        watched.run(*words.split(), status=1, FLYTE_API_KEY=whole)
    for words in ("token", "status --explain", "doctor --json"):
        watched.run(*words.split(), status=1, FLYTE_API_KEY=half)
    watched.assert_tight()


@pytest.mark.req("SEC-02", "ERR-05")
@pytest.mark.parametrize("faults", ["deny", "wrong-state", "code-expired", "wrong-nonce"])
def test_a_login_that_fails(watch: Watch, faults: str) -> None:
    watched, _ = watch(faults)
    watched.run(
        *("login", "--json", "--scopes", "openid offline all"),
        status=1,
        FLYTE_ADMIN_LOGINTIMEOUT="2",
    )
    watched.assert_tight("state")


RENEWALS = {
    "refresh-503": {"token": 1, "status --json": 0},
    "always-401": {"whoami": 1},
    "forgotten": {"token": 4, "exec -- true": 4},
}


@pytest.mark.req("SEC-02", "REF-07")
@pytest.mark.parametrize("fault", RENEWALS)
def test_a_login_that_cannot_be_renewed(watch: Watch, fault: str) -> None:
    faults = (fault,) if fault != "forgotten" else ()
    watched, _ = watch(*faults, access_ttl=1.0, refresh_ttl=1.0 if not faults else 60.0)
    watched.run("login", "--headless")
    time.sleep(1.0)  # until it has expired
    for words, status in RENEWALS[fault].items():
        watched.run(*words.split(), status=status)
    watched.assert_tight("access_token", "refresh_token")


@pytest.mark.req("SEC-02")
@pytest.mark.parametrize("how", ["cut", "other members"])
def test_a_stored_login_that_cannot_be_read(watch: Watch, how: str) -> None:
    watched, _ = watch()
    watched.run("login", "--headless")
    (path,) = (path for path in watched.home.path.rglob("logins/*") if path.is_file())
    text = path.read_text("utf-8")
    match how:
        case "cut":
            path.write_text(text[: len(text) * 2 // 3], "utf-8")
        case _:
            path.write_text(text.replace('"access_token"', '"another_token"'), "utf-8")
    watched.run("token", status=4)
    watched.run("status", "--explain", status=4)
    watched.run("accounts", "--json")
    watched.run("doctor", "--json")
    watched.run("logout")
    assert watched.home.stored() == {}
    watched.assert_tight("access_token", "refresh_token")


@contextmanager
def echo(prefix: bytes, end: bytes) -> Iterator[int]:
    """The port of a server that complains by repeating all that it was told."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    said = connection.recv(65536).replace(b"\r\n", b" ")
                    connection.sendall(prefix + said + end)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.req("SEC-02", "SEC-04")
def test_a_password_of_a_proxy(watch: Watch) -> None:
    watched, _ = watch()
    password = canary(watched, "password")
    watched.witness.note("credentials", b64encode(f"me:{password}".encode()).decode())
    with echo(b"HTTP/1.1 407 Nobody knows ", b"\r\ncontent-length: 0\r\n\r\n") as port:
        url = f"http://me:{password}@127.0.0.1:{port}"
        environ: dict[str, Any] = {
            "FLYTE_ADMIN_HTTPPROXYURL": url,
            "FLYTE_ADMIN_ENDPOINT": "https://flyte.example.com",
        }
        for words in ("login --json", "token", "doctor"):
            watched.run(*words.split(), status=1, **environ)
        watched.run("status", "--explain", status=4, **environ)
        # One that is set for all programs goes to the children as well, but is not shown either.
        watched.run("doctor", "--json", status=1, FLYTE_ADMIN_ENDPOINT="https://flyte.example.com", HTTPS_PROXY=url)  # fmt: skip
    watched.assert_tight()


@pytest.mark.req("SEC-02", "SEC-04")
def test_a_password_of_a_store(watch: Watch) -> None:
    watched, _ = watch()
    password = canary(watched, "password")
    with echo(b"-ERR you said ", b"\r\n") as port:
        environ: dict[str, Any] = {
            "FLYTE_ADMIN_TOKENSTORE": f"redis://me:{password}@127.0.0.1:{port}/0"
        }
        for words in ("login", "token", "status --explain", "doctor --json", "logout"):
            watched.run(*words.split(), status=1, **environ)
        watched.run("accounts", **environ)
    watched.assert_tight()


@pytest.mark.req("SEC-02")
def test_a_secret_in_a_place_where_it_does_not_belong(watch: Watch) -> None:
    watched, _ = watch()
    secret = canary(watched, "misplaced")
    misplaced: list[dict[str, Any]] = [
        {"FLYTE_ADMIN_ENDPOINT": f"https://me:{secret}@example.com"},
        {"FLYTE_AUTH_TYPE": secret},
        {"FLYTE_API_KEY": secret},
        {"FLYTE_ADMIN_TOKENSTORE": f"redis//me:{secret}@localhost"},
        {"FLYTE_ADMIN_HTTPPROXYURL": f"http//me:{secret}@localhost"},
    ]
    for environ in misplaced:
        for words in ("status --explain", "doctor --json"):
            watched.run(*words.split(), status=1, **environ)
    watched.run("token", status=1, **misplaced[0])
    watched.assert_tight()


# That the net has no hole.

PLANTS = {
    ("log", "access_token"): """
loads = json.loads
def leaky(text, *rest, **more):
    if "access_token" in str(text):
        logging.getLogger("httpx").debug("got %s", text)
    return loads(text, *rest, **more)
json.loads = leaky
""",
    ("standard error", "refresh_token"): """
loads = json.loads
def leaky(text, *rest, **more):
    if "refresh_token" in str(text):
        print(text, file=sys.stderr)
    return loads(text, *rest, **more)
json.loads = leaky
""",
    ("standard output", "access_token"): """
loads = json.loads
def leaky(text, *rest, **more):
    print(text)
    return loads(text, *rest, **more)
json.loads = leaky
""",
    ("arguments of a child", "API key"): """
import subprocess
class Leaky(subprocess.Popen):
    def __init__(self, argv, **more):
        super().__init__([*argv, os.environ.get("FLYTE_API_KEY", "allow")][:4], **more)
subprocess.Popen = Leaky
""",
    ("environment of a child", "API key"): """
import subprocess
class Leaky(subprocess.Popen):
    def __init__(self, argv, *, env=None, **more):
        super().__init__(argv, env={**os.environ, **(env or {})}, **more)
subprocess.Popen = Leaky
""",
}


@pytest.mark.parametrize("leak", PLANTS, ids=" in ".join)
def test_a_leak_is_found(watch: Watch, leak: tuple[str, str]) -> None:
    watched, running = watch()
    watched.plant(PLANTS[leak])
    environ: dict[str, Any] = {"FLYTE_API_KEY": running.api_key} if leak[1] == "API key" else {}
    words = ("exec", "--", *watched.program("command.py", "tool.py"))
    if not environ:
        words = ("login", "--headless")
    watched.run(*words, **environ)
    assert leak in watched.leaks()
    with pytest.raises(AssertionError):
        watched.assert_tight()
    # What a child gets, it shows by itself as well.
    if "child" in leak[0]:
        assert (leak[0].partition(" of ")[0], "API key") in watched.leaks()
