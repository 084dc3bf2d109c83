"""Each fault does what its line says, and nothing does it unasked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from flyteauth.devserver.model import FAULTS, Settings

from .harness import (
    BASE,
    LIST_PROJECTS,
    USER_INFO,
    Peer,
    Person,
    answer,
    authorization_url,
    body,
    error,
    reply,
)
from .test_authorization import claims
from .test_discovery import CLIENT, EXACT, METADATA

WELL_KNOWN = "/.well-known/oauth-authorization-server"
LIST_KEYS = "/cloudidl.identity.AppsService/List"
DISCOVERY = (METADATA, CLIENT, "/config/v1/flyte_client", WELL_KNOWN)

CHECKS: dict[str, Callable[[], None]] = {}


def check(test: Callable[[], None]) -> Callable[[], None]:
    CHECKS[test.__name__.replace("_", "-")] = test
    return test


def discovered(peer: Peer) -> list[Any]:
    paths = (*DISCOVERY, "/.well-known/openid-configuration")
    return [peer.get(path, **EXACT) for path in paths]


def expires_in(peer: Peer) -> list[object]:
    return [tokens.get("expires_in") for tokens in (peer.login(), peer.service())]


@check
def html_discovery() -> None:
    for response in discovered(Peer("html-discovery")):
        assert response.status == 200
        assert b"<html" in response.body
    assert b"<html" in Peer("html-discovery").call(METADATA).body


@check
def login_redirect() -> None:
    peer = Peer("login-redirect")
    for response in (*discovered(peer), peer.call(LIST_PROJECTS), peer.call(USER_INFO)):
        assert response.status == 302
        assert response.header("location") == "https://login.example.com/oauth2/start"


@check
def discovery_503() -> None:
    for response in discovered(Peer("discovery-503")):
        assert response.status == 503
        assert response.header("retry-after") == "1"


@check
def no_auth() -> None:
    peer = Peer("no-auth")
    for path in (METADATA, CLIENT):
        response = peer.call(path)
        assert response.status == 501
        assert body(response)["code"] == "unimplemented"
    for path in ("/config/v1/flyte_client", WELL_KNOWN, "/.well-known/openid-configuration"):
        assert peer.get(path, **EXACT).status == 404
    assert peer.token(grant_type="client_credentials").status == 404
    assert peer.get("/activate").status == 404
    assert reply(peer.call(LIST_PROJECTS))["projects"]["projects"]
    assert reply(peer.call(USER_INFO))["subject"] == "anonymous"


@check
def flyte1_only() -> None:
    peer = Peer("flyte1-only")
    assert peer.call(METADATA).status == peer.call(CLIENT).status == 404
    assert reply(peer.get("/config/v1/flyte_client", **EXACT))["client_id"] == "flytectl"
    assert reply(peer.get(WELL_KNOWN, **EXACT))["token_endpoint"]


@check
def no_device() -> None:
    peer = Peer("no-device")
    assert reply(peer.call(METADATA))["deviceAuthorizationEndpoint"] == ""
    assert reply(peer.get(WELL_KNOWN, **EXACT))["device_authorization_endpoint"] == ""
    assert peer.post("/oauth2/device_authorization", {"client_id": "flytectl"}).status == 404


@check
def empty_header_key() -> None:
    peer = Peer("empty-header-key")
    assert reply(peer.call(CLIENT))["authorizationMetadataKey"] == ""
    assert peer.good(peer.login()["access_token"])


@check
def custom_header_key() -> None:
    peer = Peer("custom-header-key")
    assert reply(peer.call(CLIENT))["authorizationMetadataKey"] == "flyte-authorization"
    token = peer.login()["access_token"]
    assert peer.call(USER_INFO, token).status == 401
    headers = (("content-type", "application/json"), ("flyte-authorization", f"Bearer {token}"))
    assert peer.send("POST", USER_INFO, headers, b"{}").status == 200


@check
def deny() -> None:
    peer = Peer("deny")
    assert answer(peer.authorize())["error"] == "access_denied"
    device = peer.device()
    peer.at += 1
    assert error(peer.poll(device["device_code"])) == "access_denied"
    page = Peer("deny", approve="page")
    person = Person(page)
    consent = person.log_in(person.open(authorization_url()))
    assert answer(person.submit(consent, "allow").response)["error"] == "access_denied"


@check
def wrong_iss() -> None:
    assert answer(Peer("wrong-iss").authorize())["iss"] == "https://attacker.example"


@check
def missing_iss() -> None:
    peer = Peer("missing-iss")
    assert "iss" not in answer(peer.authorize())
    found = reply(peer.get(WELL_KNOWN, **EXACT))
    assert found["authorization_response_iss_parameter_supported"] is True


@check
def wrong_state() -> None:
    assert answer(Peer("wrong-state").authorize(state="mine"))["state"] != "mine"


@check
def wrong_nonce() -> None:
    tokens = Peer("wrong-nonce").login(scope="openid", nonce="mine")
    assert claims(tokens["id_token"])["nonce"] != "mine"


@check
def code_expired() -> None:
    peer = Peer("code-expired")
    assert error(peer.redeem(peer.code())) == "invalid_grant"


@check
def refresh_503() -> None:
    peer = Peer("refresh-503")
    tokens = peer.login()
    for _ in range(3):
        response = peer.refresh(tokens["refresh_token"])
        assert response.status == 503
        assert response.header("retry-after") == "1"
        assert b"<html" in response.body


@check
def refresh_503_once() -> None:
    peer = Peer("refresh-503-once")
    tokens = peer.login()
    assert peer.refresh(tokens["refresh_token"]).status == 503
    assert reply(peer.refresh(tokens["refresh_token"]))["access_token"]


@check
def refresh_no_rotation_field() -> None:
    peer = Peer("refresh-no-rotation-field")
    tokens = peer.login()
    for _ in range(3):
        assert "refresh_token" not in reply(peer.refresh(tokens["refresh_token"]))


@check
def no_refresh_token() -> None:
    peer = Peer("no-refresh-token")
    assert "refresh_token" not in peer.login()


@check
def token_no_expires_in() -> None:
    assert expires_in(Peer("token-no-expires-in")) == [None, None]


@check
def token_string_expires_in() -> None:
    assert expires_in(Peer("token-string-expires-in")) == ["1800", "1800"]


@check
def token_html() -> None:
    response = Peer("token-html").token(grant_type="client_credentials")
    assert response.status == 200
    assert b"<html" in response.body


@check
def huge_body() -> None:
    peer = Peer("huge-body")
    response = peer.redeem(peer.code())
    assert len(response.body) > 10_000_000
    assert json.loads(response.body)["access_token"]


@check
def escape_codes() -> None:
    peer = Peer("escape-codes")
    assert "\x1b[31m" in body(peer.redeem("x"))["error_description"]
    assert "\x1b[31m" in answer(peer.authorize(scope="nonsense"))["error_description"]
    assert b"\x1b" not in peer.redeem("x").body  # JSON escapes it


@check
def no_interval() -> None:
    assert "interval" not in Peer("no-interval").device()


@check
def poll_slow_down() -> None:
    peer = Peer("poll-slow-down", approve="page")
    device = peer.device()
    said = []
    for wait in (1, 6, 6, 11):
        peer.at += wait
        said.append(error(peer.poll(device["device_code"])))
    assert said == ["slow_down", "authorization_pending"] * 2


@check
def poll_429() -> None:
    peer = Peer("poll-429")
    code = peer.device()["device_code"]
    peer.at += 1
    refused = peer.poll(code)
    assert refused.status == 429
    assert refused.header("retry-after") == "1"
    peer.at += 1
    assert reply(peer.poll(code))


@check
def poll_502_html() -> None:
    peer = Peer("poll-502-html")
    code = peer.device()["device_code"]
    peer.at += 1
    refused = peer.poll(code)
    assert refused.status == 502
    assert b"<html" in refused.body
    assert reply(peer.poll(code))
    assert error(peer.poll("unknown")) == "invalid_grant"


@check
def always_401() -> None:
    peer = Peer("always-401")
    response = peer.call(USER_INFO, peer.login()["access_token"])
    assert response.status == 401
    assert "invalid_token" in (response.header("www-authenticate") or "")


@check
def revoke_503() -> None:
    peer = Peer("revoke-503")
    tokens = peer.login()
    response = peer.revoke(tokens["refresh_token"])
    assert response.status == 503
    assert response.header("retry-after") == "1"
    assert peer.good(tokens["access_token"])


@check
def apps_unimplemented() -> None:
    peer = Peer("apps-unimplemented")
    response = peer.call(LIST_KEYS, peer.login()["access_token"])
    assert response.status == 501
    assert body(response)["code"] == "unimplemented"
    assert peer.call(LIST_KEYS).status == 401
    other = Peer()
    assert "apps" in reply(other.call(LIST_KEYS, other.login()["access_token"]))


@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_does_what_it_says(name: str) -> None:
    CHECKS[name]()


def test_no_check_is_for_a_fault_that_is_gone() -> None:
    assert CHECKS.keys() == FAULTS.keys()


def test_each_fault_has_a_short_name_and_one_line() -> None:
    for name, text in FAULTS.items():
        assert name.replace("-", "").isalnum()
        assert len(name) <= 25
        assert "\n" not in text
        assert len(text) <= 70


def test_an_unknown_fault_is_named_with_the_valid_ones() -> None:
    with pytest.raises(
        ValueError, match=r"unknown fault 'nope'; valid are .*always-401.*token-html"
    ):
        Settings(faults=frozenset({"nope", "deny"}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("access_ttl", 0),
        ("access_ttl", 0.5),
        ("access_ttl", float("nan")),
        ("access_ttl", float("inf")),
        ("refresh_ttl", 0),
        ("refresh_ttl", -1),
        ("grace", -1),
        ("grace", float("nan")),
        ("device_interval", 0),
        ("device_ttl", 0),
        ("code_ttl", 0),
        ("approve", "never"),
        ("base_url", "localhost:8080"),
        ("base_url", "http://localhost:8080/"),
        ("base_url", "http://localhost:8080/x"),
        ("base_url", "ftp://localhost"),
        ("issuer", "http://localhost?x"),
        ("issuer", "http://user@localhost"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Settings(**{name: value})


def test_the_issuer_is_the_base_url_unless_set() -> None:
    assert Settings(base_url=BASE).issuer == BASE
    assert Settings(base_url=BASE, issuer="https://as.example/t").issuer == "https://as.example/t"
