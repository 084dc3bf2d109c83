"""The integration of the flyte SDK where there is no flyte, or nothing that it could do."""

from __future__ import annotations

import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest

from flyteauth import Session, SyncSession
from flyteauth._own_command import asked
from flyteauth.errors import ConfigError
from flyteauth.integrations.flyte import (
    auth_metadata,
    client_config,
    external_command,
    installed,
    passthrough,
)

pytestmark = pytest.mark.anyio

ENDPOINT = "dns:///flyte.example.com"


@pytest.fixture
def without_flyte(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flyte", "flyte.remote", "flyte.remote._client.auth"):
        monkeypatch.setitem(sys.modules, name, None)


def test_the_arguments_of_init_are_what_the_session_is_configured_by() -> None:
    given: dict[str, Any] = {"org": "acme", "project": "p", "domain": "d"}
    with SyncSession(endpoint="https://flyte.example.com:8443/", **given) as session:
        assert passthrough(session.settings()) == {
            "endpoint": "dns:///flyte.example.com:8443",
            "auth_type": "Passthrough",
            **given,
        }
    with SyncSession(endpoint=ENDPOINT, insecure_skip_verify=True) as session:
        assert passthrough(session.settings())["insecure_skip_verify"] is True


def test_without_tls_flyte_sends_no_credentials_so_nothing_is_promised() -> None:
    session = Session(endpoint="http://localhost:8080")
    with pytest.raises(ConfigError, match="no credentials without TLS"):
        external_command(session).__enter__()
    with SyncSession(of=session) as blocking, pytest.raises(ConfigError, match="without TLS"):
        passthrough(blocking.settings())


def test_flyte_needs_an_endpoint() -> None:
    with SyncSession(issuer="https://as.example.com", client_id="me") as session:
        settings = session.settings()
    with pytest.raises(ConfigError, match="pass endpoint="):
        passthrough(settings)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are made."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def modes(*paths: Path) -> list[int]:
    return [stat.S_IMODE(path.stat().st_mode) for path in paths]


async def test_what_a_command_needs_is_private_and_gone_afterwards(folder: Path) -> None:
    secret = "s3cr3t-canary"
    async with Session(endpoint=ENDPOINT, client_id="me", client_secret=secret) as session:
        async with external_command(session) as arguments:
            assert arguments["auth_type"] == "ExternalCommand"
            assert arguments["disable_keyring"] is True
            assert secret not in str(arguments)
            ours = asked(arguments["command"])
            assert ours is not None
            assert ours.config is not None
            there = Path(ours.config)
            assert there.is_relative_to(folder)
            assert modes(there, there.parent) == [0o600, 0o700]
        assert left_in(folder) == []


async def test_a_cancelled_program_leaves_nothing_of_it(folder: Path) -> None:
    session = Session(endpoint=ENDPOINT, client_id="me", client_secret="s")
    with anyio.CancelScope() as scope:
        async with external_command(session):
            assert left_in(folder) != []
            scope.cancel()
            await anyio.sleep_forever()
    assert left_in(folder) == []
    entering = anyio.CancelScope()
    with entering:
        entering.cancel()
        async with external_command(session):
            pytest.fail("it was entered")
    assert entering.cancelled_caught
    assert left_in(folder) == []


async def test_the_same_is_said_to_an_async_program(anyio_backend: str) -> None:
    async with Session(endpoint="http://localhost:8080") as session:
        for entered in (external_command(session), installed(session)):
            with pytest.raises(ConfigError, match="without TLS"):
                await entered.__aenter__()


@pytest.mark.usefixtures("without_flyte")
def test_where_flyte_is_not_installed_that_is_said() -> None:
    session = Session(endpoint=ENDPOINT)
    with SyncSession(of=session) as blocking:
        settings = blocking.settings()
    with pytest.raises(ConfigError, match="flyte is not installed here"):
        client_config(settings)
    with pytest.raises(ConfigError, match="flyte is not installed here"):
        installed(session).__enter__()


def test_a_control_plane_that_wants_no_token_needs_no_scope() -> None:
    session = Session(endpoint=ENDPOINT, auth_type="NoAuth")
    with auth_metadata(session):
        pass
