"""A control plane whose texts are endless: what people see of them is cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.io.server import Connection, Server, reply, serve

from .conftest import BROWSER, Ended, Home

ENDLESS = "x" * 200_000
CUT = "x" * 299 + "…"
SHOWN_MAX = 4000
DEVICE = {"device_code": "d", "user_code": "ABCD", "expires_in": 60, "interval": 1}
TOKEN = {"access_token": "a", "token_type": "bearer", "expires_in": 3600, "refresh_token": "r"}


@contextmanager
def control_plane(**changed: dict[str, Any]) -> Iterator[Server]:
    """One that answers at once, with the members *changed* in the answers of those names."""

    def script(connection: Connection) -> None:
        url = f"http://localhost:{server.port}"
        answers: dict[str, dict[str, Any]] = {
            "GetOAuth2Metadata": {
                "issuer": url,
                "tokenEndpoint": f"{url}/token",
                "deviceAuthorizationEndpoint": f"{url}/device",
                "authorizationEndpoint": f"{url}/authorize",
            },
            "GetPublicClientConfig": {"clientId": "cli", "scopes": ["all"]},
            "UserInfo": {"subject": "alice"},
            "device": {**DEVICE, "verification_uri": f"{url}/verify"},
            "token": TOKEN,
        }
        while asked := connection.read_request():
            name = asked.split(b" ", 2)[1].decode().rpartition("/")[2]
            if name in answers:
                body = json.dumps({**answers[name], **changed.get(name, {})})
                connection.send(reply(body.encode()))
            else:
                connection.send(reply(b'{"code":"unimplemented"}', status="404 Not Found"))

    with serve(script) as server:
        yield server


def endpoint(server: Server) -> str:
    return f"http://localhost:{server.port}"


def bearable(ended: Ended) -> Ended:
    assert len(ended.out) + len(ended.err) < SHOWN_MAX
    return ended


@pytest.mark.req("ERR-01")
def test_the_names_of_a_person_are_cut_wherever_they_are_shown(home: Home) -> None:
    names = {"subject": ENDLESS, "name": ENDLESS, "preferredUsername": ENDLESS, "email": ENDLESS}
    with control_plane(UserInfo=names) as server:
        at = ("--endpoint", endpoint(server))
        assert CUT in bearable(home.run("login", "--headless", *at)).err
        commands = [["whoami", *at], ["whoami", "--json", *at], ["status", *at]]
        for words in (*commands, ["accounts"], ["accounts", "--json"]):
            assert CUT in bearable(home.run(*words)).out, words


@pytest.mark.req("ERR-01", "DEV-12")
def test_an_endless_address_is_refused_and_not_cut(home: Home) -> None:
    with control_plane(device={"verification_uri": f"https://as.example/{ENDLESS}"}) as server:
        ended = bearable(home.run("login", "--headless", "--endpoint", endpoint(server)))
    assert ended.status == 1
    assert "no usable verification_uri" in ended.err


@pytest.mark.req("ERR-01")
def test_no_browser_is_sent_to_an_endless_address(home: Home) -> None:
    with control_plane(GetPublicClientConfig={"clientId": ENDLESS}) as server:
        ended = bearable(home.run("login", "--endpoint", endpoint(server), BROWSER=BROWSER))
    assert ended.status == 1
    assert "characters, too many for a browser" in ended.err


@pytest.mark.req("ERR-01")
def test_what_a_server_lists_is_cut(home: Home) -> None:
    home.write("secret", "s3cret")
    lists = {"tokenEndpointAuthMethodsSupported": [ENDLESS]}
    with control_plane(GetOAuth2Metadata=lists) as server:
        config = home.write(
            "config.yaml",
            f"admin:\n  endpoint: {endpoint(server)}\n  authType: ClientSecret\n  clientId: cli\n"
            f"  clientSecretLocation: {home.path / 'secret'}\n",
        )
        ended = bearable(home.run("token", "--config", str(config)))
    assert ended.status == 1
    assert f"it lists {'x' * 299}…" in ended.err


@pytest.mark.req("ERR-01")
def test_an_issuer_that_a_server_names_is_cut(home: Home) -> None:
    issuer = f"https://as.example/{ENDLESS}"
    with control_plane(GetOAuth2Metadata={"issuer": issuer}) as server:
        ended = bearable(home.run("doctor", "--endpoint", endpoint(server)))
    assert f"{issuer[:299]}… logs in" in " ".join(ended.out.split())
