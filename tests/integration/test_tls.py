"""
A control plane behind TLS with a certificate of a private authority, over real sockets: one
setting covers everything that is sent, and without it nothing is sent at all.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
import trustme

from flyteauth._io.store.memory import MemoryStore
from flyteauth.devserver.model import ControlPlane
from flyteauth.devserver.settings import Settings
from flyteauth.errors import ConfigError, InvalidResponse, Unreachable
from flyteauth.events import AuthEvent, CodeNeeded, Warned
from flyteauth.session import Session
from tests.io.server import Connection, Server
from tests.io.wire import parse_request, write_response

from .plane import HastyClock

pytestmark = pytest.mark.anyio

LIMIT = 20.0
HELLO = b"\x16"  # the first octet of TLS (RFC 8446 §5.1)
PROJECTS = "/flyteidl2.project.ProjectService/ListProjects"
METADATA = "/flyteidl2.auth.AuthMetadataService/GetOAuth2Metadata"
CLIENT = "/flyteidl2.auth.AuthMetadataService/GetPublicClientConfig"
USER_INFO = "/flyteidl2.auth.IdentityService/UserInfo"


class TlsServer(Server):
    """A control plane at ``https://localhost:port``; notes how each connection begins."""

    def __init__(self, tls: ssl.SSLContext | None, **settings: Any) -> None:
        self.first: list[bytes] = []
        self.clock = HastyClock()
        self._one_at_a_time = threading.Lock()
        super().__init__(self._answer, tls)
        self.base_url = f"https://localhost:{self.port}"
        given = {"approve": "auto", "faults": {"flyte1-only"}, **settings}
        self.plane = ControlPlane(Settings(base_url=self.base_url, **given), b"an unchanging seed")

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    @property
    def paths(self) -> set[str]:
        return {entry.path for entry in self.plane.journal}

    def _serve(self, raw: socket.socket) -> None:
        self.first.append(raw.recv(1, socket.MSG_PEEK))
        super()._serve(raw)

    def _answer(self, connection: Connection) -> None:
        while raw := connection.read_request():
            with self._one_at_a_time:
                response = self.plane.handle(parse_request(raw, self.base_url), self.clock.time())
            connection.send(write_response(response))


@contextmanager
def tls_server(context: ssl.SSLContext | None, **settings: Any) -> Iterator[TlsServer]:
    server = TlsServer(context, **settings)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def certified(authority: trustme.CA, name: str = "localhost") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[TlsServer]:
    with tls_server(certified(authority)) as server:
        yield server


class Watcher:
    """Sees what a person would see."""

    def __init__(self) -> None:
        self.seen: list[AuthEvent] = []

    async def show(self, event: AuthEvent) -> None:
        self.seen.append(event)

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.seen if isinstance(event, Warned)]


def session_at(server: TlsServer, **arguments: Any) -> Session:
    given = {
        "presenter": Watcher(),
        "store": MemoryStore(),
        "clock": server.clock,
        "endpoint": f"dns:///{server.host}",
        "auth_type": "DeviceFlow",
        **arguments,
    }
    if "api_key" in given:
        del given["endpoint"], given["auth_type"]
    return Session(**given)


async def assert_refused(server: TlsServer, **arguments: Any) -> Unreachable:
    """Not a byte of a request leaves, and nothing is tried without TLS."""
    with anyio.fail_after(LIMIT):
        async with session_at(server, **arguments) as session:
            with pytest.raises(Unreachable) as refused:
                await session.login()
    assert server.all_closed()
    assert server.requests == []
    assert server.first
    assert set(server.first) == {HELLO}
    return refused.value


# Trust.


@pytest.mark.req("META-05")
@pytest.mark.parametrize("auth_type", ["DeviceFlow", "Pkce", "ClientSecret"])
async def test_a_private_authority_is_not_trusted_and_the_error_says_what_to_set(
    server: TlsServer, auth_type: str
) -> None:
    arguments: dict[str, Any] = {"auth_type": auth_type}
    if auth_type == "ClientSecret":
        arguments = {"api_key": server.plane.api_key}
    error = await assert_refused(server, **arguments)
    assert error.reason == "tls"
    assert not error.sent
    assert server.host in str(error)
    assert "caCertFilePath" in str(error)
    assert "\n" not in str(error)
    assert len(server.first) <= 2  # both questions of discovery; neither is asked again


@pytest.mark.req("META-05")
@pytest.mark.parametrize("faults", [{"flyte1-only"}, set()])
async def test_one_ca_file_is_enough_for_everything(
    authority: trustme.CA, ca_file: Path, faults: set[str]
) -> None:
    watcher = Watcher()
    with tls_server(certified(authority), faults=faults) as server, anyio.fail_after(LIMIT):
        arguments: dict[str, Any] = {"ca_cert_file_path": ca_file, "presenter": watcher}
        async with session_at(server, **arguments) as session:
            token = await session.login()
            assert token is not None
            assert (await session.call(PROJECTS, {}))["projects"]
            session.reject(token.access_token)
            assert (await session.call(PROJECTS, {}))["projects"]
            assert await session.token() != token
            who = await session.whoami()
            assert who is not None
            assert who.subject
            outcome = await session.logout()
        assert outcome.remote_revoked is True
        assert server.paths >= {
            METADATA,
            CLIENT,
            "/oauth2/device_authorization",
            "/oauth2/token",
            "/oauth2/revoke",
            PROJECTS,
            USER_INFO,
        }
        assert server.plane.count(grant_type="refresh_token", status=200) == 1
        assert set(server.first) == {HELLO}
    shown = [event for event in watcher.seen if isinstance(event, CodeNeeded)]
    assert [urlsplit(event.url).scheme for event in shown] == ["https"]
    assert watcher.warnings == []


@pytest.mark.req("META-05")
async def test_a_ca_file_is_enough_for_an_api_key(server: TlsServer, ca_file: Path) -> None:
    arguments: dict[str, Any] = {"api_key": server.plane.api_key, "ca_cert_file_path": ca_file}
    async with session_at(server, **arguments) as session:
        assert (await session.call(PROJECTS, {}))["projects"]


@pytest.mark.req("META-05")
async def test_a_ca_file_in_the_configuration_counts(
    server: TlsServer, ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_id, secret = server.plane.service_client
    monkeypatch.setenv("THE_SECRET", secret)
    config = tmp_path / "config.yaml"
    config.write_text(
        f"admin:\n  endpoint: dns:///{server.host}\n  authType: ClientSecret\n"
        f"  clientId: {client_id}\n  clientSecretEnvVar: THE_SECRET\n"
        f"  caCertFilePath: {ca_file}\n"
    )
    async with Session.from_config(config) as session:
        assert (await session.call(PROJECTS, {}))["projects"]


async def test_what_ssl_cert_file_names_is_trusted_as_well(
    server: TlsServer, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    async with session_at(server) as session:
        assert await session.login()


@pytest.mark.req("META-05")
async def test_a_certificate_of_another_authority_is_not_trusted(
    server: TlsServer, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    error = await assert_refused(server, ca_cert_file_path=other)
    assert error.reason == "tls"


@pytest.mark.req("META-05")
async def test_a_certificate_for_another_name_is_not_accepted(
    authority: trustme.CA, ca_file: Path
) -> None:
    with tls_server(certified(authority, "other.example")) as server:
        error = await assert_refused(server, ca_cert_file_path=ca_file)
        assert error.reason == "tls"
        assert server.host in str(error)


@pytest.mark.parametrize("content", [None, "", "no certificate\n", "directory"])
async def test_a_ca_file_that_cannot_be_used_is_named_and_nothing_is_sent(
    server: TlsServer, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "broken.pem"
    if content == "directory":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match="broken.pem") as error:
        async with session_at(server, ca_cert_file_path=path) as session:
            await session.login()
    assert "\n" not in str(error.value)
    assert server.accepted == 0


# Without verification.


@pytest.mark.req("META-05")
async def test_skipping_verification_works_and_says_so(server: TlsServer) -> None:
    watcher = Watcher()
    async with session_at(server, insecure_skip_verify=True, presenter=watcher) as session:
        assert await session.login()
        assert (await session.call(PROJECTS, {}))["projects"]
    assert len(watcher.warnings) == 1
    assert "insecureSkipVerify" in watcher.warnings[0]
    assert "caCertFilePath" in watcher.warnings[0]


@pytest.mark.req("IDT-03")
async def test_an_id_token_over_an_unverified_connection_is_not_believed(
    server: TlsServer, ca_file: Path
) -> None:
    scopes = ["openid", "all", "offline"]
    async with session_at(server, insecure_skip_verify=True, scopes=scopes) as session:
        with pytest.raises(InvalidResponse) as error:
            await session.login()
        assert error.value.reason == "id_token.signature"
    async with session_at(server, ca_cert_file_path=ca_file, scopes=scopes) as session:
        assert await session.login()


@pytest.mark.req("IDT-03")
async def test_a_login_with_an_id_token_is_not_refreshed_unverified_and_is_kept(
    server: TlsServer, ca_file: Path
) -> None:
    given: dict[str, Any] = {"scopes": ["openid", "all", "offline"], "store": MemoryStore()}
    async with session_at(server, ca_cert_file_path=ca_file, **given) as session:
        assert await session.login()
    async with session_at(server, insecure_skip_verify=True, **given) as session:
        with pytest.raises(Unreachable, match=r"verify TLS.*; it is kept$") as error:
            await session.renew()
        assert error.value.reason == "id_token.signature"
        assert error.value.retry_after is None
    assert server.plane.count(grant_type="refresh_token") == 0
    async with session_at(server, ca_cert_file_path=ca_file, **given) as session:
        assert await session.renew()


@pytest.mark.req("META-05")
async def test_a_ca_file_beats_skipping(server: TlsServer, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    await assert_refused(server, ca_cert_file_path=other, insecure_skip_verify=True)


@pytest.mark.req("META-05", "BRR-02")
async def test_a_server_without_tls_is_never_spoken_to_in_plain_http() -> None:
    with tls_server(None) as server:

        def hang_up(connection: Connection) -> None:
            connection.sock.recv(65536)
            connection.sock.shutdown(socket.SHUT_RDWR)

        server.script = hang_up
        await assert_refused(server)
