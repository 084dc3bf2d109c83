"""The integration of the flyte SDK where there is no flyte, or nothing that it could do."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from flyteauth import Session, SyncSession
from flyteauth.errors import ConfigError
from flyteauth.integrations.flyte import (
    auth_metadata,
    client_config,
    external_command,
    installed,
    passthrough,
)

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
