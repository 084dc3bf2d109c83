"""``authType: flyteauth``: a session as flytekit's authenticator, from any number of threads."""

from __future__ import annotations

import gc
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from flyteauth import SyncSession
from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings
from flyteauth.errors import ConfigError, InteractionRequired, ReauthRequired, Unreachable
from flyteauth.integrations.flytekit import Authenticator, authenticator
from tests.e2e.conftest import BROWSER

GRANTS = "/oauth2/token"


@define
class Config:
    """What flytekit's PlatformConfig says, with its defaults."""

    endpoint: str
    insecure: bool = True
    insecure_skip_verify: bool = False
    ca_cert_file_path: str | None = None
    client_id: str | None = None
    client_credentials_secret: str | None = None
    scopes: list[str] = field(factory=list)
    audience: str | None = None
    http_proxy_url: str | None = None
    proxy_command: list[str] | None = None


@define
class Told:
    """flytekit's ClientConfig."""

    token_endpoint: str = ""
    authorization_endpoint: str = ""
    device_authorization_endpoint: str | None = None
    redirect_uri: str = ""
    client_id: str = ""
    scopes: list[str] = field(factory=list)
    header_key: str | None = None
    audience: str | None = None


class Store:
    """Tells what the control plane says, as over flytekit's channel."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self.asked = 0

    def get_client_config(self) -> Told:
        self.asked += 1
        server = self._get("/.well-known/oauth-authorization-server")
        public = self._get("/config/v1/flyte_client")
        return Told(
            server["token_endpoint"],
            server["authorization_endpoint"],
            server["device_authorization_endpoint"],
            public["redirect_uri"],
            public["client_id"],
            public["scopes"],
            public["authorization_metadata_key"],
            public.get("audience"),
        )

    def _get(self, path: str) -> dict[str, Any]:
        request = urllib.request.Request(
            self._base_url + path, headers={"Accept": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            document: dict[str, Any] = json.load(response)
        return document


class Status:
    """The code of a gRPC error."""

    def __init__(self, name: str) -> None:
        self.name = name


class RpcError(Exception):
    """An error as gRPC raises it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"status {name}, details with a token")
        self._status = Status(name)

    def code(self) -> Status:
        return self._status


class Failing:
    """A channel on which nothing can be asked."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def get_client_config(self) -> Told:
        raise self._error


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(*faults: str, **settings: Any) -> Running:
            settings = {"approve": "auto", "faults": frozenset(faults), **settings}
            return stack.enter_context(serving(Settings(**settings)))

        yield start


def log_in(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The login of this machine, made by somebody else."""
    monkeypatch.setenv("BROWSER", BROWSER)
    with SyncSession(
        endpoint=running.base_url,
        auth_type="Pkce",
        redirect_uri="http://localhost/callback",
        disable_keyring=True,
    ) as session:
        session.login()


def kit(running: Running, **config: Any) -> Authenticator:
    return authenticator(
        Config(running.base_url.removeprefix("http://"), **config), Store(running.base_url)
    )


def call(running: Running, pair: tuple[str, str] | None) -> int:
    """The status of a call with that metadata."""
    headers = {} if pair is None else dict([pair])
    request = urllib.request.Request(f"{running.base_url}/me", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@pytest.fixture(autouse=True)
def without_a_keyring(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")


def test_the_login_of_this_machine_goes_into_the_server_s_header(
    serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve("custom-header-key")
    log_in(running, monkeypatch)
    ours = kit(running)
    pair = ours.fetch_grpc_call_auth_metadata()
    assert pair is not None
    assert pair[0] == "flyte-authorization"
    assert pair[1].startswith("Bearer ")
    assert call(running, pair) == 200
    assert ours.fetch_grpc_call_auth_metadata() == pair
    assert running.plane.count(path=GRANTS) == 1


@pytest.mark.req("REF-02")
def test_threads_that_are_refused_get_one_new_token(
    serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve()
    log_in(running, monkeypatch)
    ours, count = kit(running), 20
    start = threading.Barrier(count)

    def refused() -> tuple[object, object]:
        before = ours.fetch_grpc_call_auth_metadata()
        start.wait(10)
        ours.refresh_credentials()
        return before, ours.fetch_grpc_call_auth_metadata()

    with ThreadPoolExecutor(count) as pool:
        pairs = [future.result() for future in [pool.submit(refused) for _ in range(count)]]
    (before,), (after,) = map(set, zip(*pairs, strict=True))
    assert before != after
    assert running.plane.count(grant_type="refresh_token") == 1
    assert isinstance(after, tuple)
    assert call(running, after) == 200


def test_a_refusal_of_what_is_not_sent_any_more_renews_nothing(
    serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve()
    log_in(running, monkeypatch)
    ours = kit(running)
    ours.fetch_grpc_call_auth_metadata()
    with ThreadPoolExecutor(1) as other:
        other.submit(ours.fetch_grpc_call_auth_metadata).result()
        ours.refresh_credentials()
        other.submit(ours.refresh_credentials).result()
    assert running.plane.count(grant_type="refresh_token") == 1


def test_a_service_logs_in_by_its_secret(serve: Callable[..., Running]) -> None:
    running = serve()
    client_id, secret = running.plane.service_client
    ours = kit(running, client_id=client_id, client_credentials_secret=secret, scopes=["all"])
    assert call(running, ours.fetch_grpc_call_auth_metadata()) == 200
    assert running.plane.count(grant_type="client_credentials") == 1
    assert secret not in repr(ours.__dict__)


def test_threads_that_make_an_authenticator_each_share_one_as_long_as_it_is_in_use(
    serve: Callable[..., Running],
) -> None:
    running = serve()
    client_id, secret = running.plane.service_client
    service = {"client_id": client_id, "client_credentials_secret": secret}
    start = threading.Barrier(20)

    def first_call() -> object:
        start.wait(10)
        ours = kit(running, **service)
        return ours, ours.fetch_grpc_call_auth_metadata()

    with ThreadPoolExecutor(20) as pool:
        made = [future.result() for future in [pool.submit(first_call) for _ in range(20)]]
    assert len(set(made)) == 1
    assert running.plane.count(grant_type="client_credentials") == 1
    assert kit(running) is not kit(running, **service)


def test_without_a_login_and_a_person_the_call_fails_and_says_what_to_do(
    serve: Callable[..., Running],
) -> None:
    running = serve()
    ours = kit(running)
    for _ in range(4):  # as often as flytekit tries
        with pytest.raises(InteractionRequired, match="run: flyteauth login"):
            ours.fetch_grpc_call_auth_metadata()


def test_flytekit_s_own_retries_of_one_call_do_not_ask_the_server_again(
    serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve("refresh-503")
    log_in(running, monkeypatch)
    ours = kit(running)
    assert ours.fetch_grpc_call_auth_metadata() is not None
    with pytest.raises(Unreachable, match="it is kept, try again"):
        ours.refresh_credentials()
    asked = running.plane.count(grant_type="refresh_token")
    for _ in range(3):
        with pytest.raises(Unreachable, match="it is kept, try again"):
            ours.fetch_grpc_call_auth_metadata()
    assert running.plane.count(grant_type="refresh_token") == asked


def test_a_login_that_is_over_is_said_and_no_browser_is_opened(
    serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve()
    log_in(running, monkeypatch)
    ours = kit(running)
    assert ours.fetch_grpc_call_auth_metadata() is not None
    with SyncSession(endpoint=running.base_url, disable_keyring=True) as session:
        session.logout()
    logins = running.plane.count(path="/oauth2/authorize")
    with pytest.raises((ReauthRequired, InteractionRequired)):
        ours.refresh_credentials()
    assert running.plane.count(path="/oauth2/authorize") == logins


def test_a_control_plane_without_authentication_wants_no_metadata() -> None:
    ours = authenticator(Config("localhost:1"), Failing(RpcError("UNIMPLEMENTED")))
    assert ours.fetch_grpc_call_auth_metadata() is None
    ours.refresh_credentials()
    assert ours.fetch_grpc_call_auth_metadata() is None


@pytest.mark.parametrize(
    ("endpoint", "error", "why"),
    [
        ("localhost:2", RpcError("UNAVAILABLE"), "UNAVAILABLE"),
        ("localhost:3", OSError("a token"), "OSError"),
    ],
)
def test_a_channel_that_does_not_work_is_no_end_of_a_login(
    endpoint: str, error: Exception, why: str
) -> None:
    ours = authenticator(Config(endpoint), Failing(error))
    with pytest.raises(Unreachable, match=why) as caught:
        ours.fetch_grpc_call_auth_metadata()
    assert "token" not in str(caught.value)


def test_what_must_agree_with_the_issuer_is_asked_where_the_issuer_is_named(
    serve: Callable[..., Running], home: Path
) -> None:
    """What flytekit is told over gRPC has no issuer in it."""
    running = serve()
    file = home / ".flyte" / "config.yaml"
    file.parent.mkdir()
    admin = f"admin:\n  endpoint: {running.base_url}\n  verifyIssuer: true\n"
    file.write_text(admin, encoding="utf-8")
    client_id, secret = running.plane.service_client
    config = Config(
        running.base_url.removeprefix("http://"),
        client_id=client_id,
        client_credentials_secret=secret,
    )
    ours = authenticator(config, Failing(RpcError("UNAVAILABLE")))
    assert call(running, ours.fetch_grpc_call_auth_metadata()) == 200
    assert running.plane.count(path="/flyteidl2.auth.AuthMetadataService/GetOAuth2Metadata") == 1


def test_a_token_does_not_go_unencrypted_to_another_machine() -> None:
    ours = authenticator(Config("flyte.example.com:81"), Failing(RpcError("UNAVAILABLE")))
    with pytest.raises(ConfigError, match="would travel unencrypted"):
        ours.fetch_grpc_call_auth_metadata()


def test_what_flytekit_does_not_know_is_read_where_it_is_about_the_same_endpoint(
    serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    running = serve()
    file = home / ".flyte" / "config.yaml"
    file.parent.mkdir()
    admin = "admin:\n  authType: flyteauth\n  disableKeyring: true\n  account: work\n"
    file.write_text(f"{admin}  endpoint: {running.base_url}\n", encoding="utf-8")
    log_in(running, monkeypatch)  # not that account's
    with pytest.raises(InteractionRequired, match="run: flyteauth login"):
        kit(running).fetch_grpc_call_auth_metadata()
    gc.collect()  # the error has held on to what it came from
    file.write_text(f"{admin}  endpoint: dns:///elsewhere.example.com\n", encoding="utf-8")
    assert call(running, kit(running).fetch_grpc_call_auth_metadata()) == 200
