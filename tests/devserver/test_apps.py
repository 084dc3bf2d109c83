"""API keys: what people create, what a service can do with it, and that it ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from flyteauth._sansio.http import Response
from flyteauth.devserver.apps import APPS_MAX
from flyteauth.devserver.clients import SERVICE_CLIENT_ID

from .harness import (
    REDIRECT_URI,
    USER_INFO,
    Peer,
    basic,
    body,
    error,
    reply,
)

SERVICE = "/cloudidl.identity.AppsService"
REDIRECT = "http://localhost:8080/authorization-code/callback"
CREATE = {
    "clientId": "my-ci-key",
    "clientName": "My CI key",
    "redirectUris": [REDIRECT],
    "responseTypes": ["CODE"],
    "grantTypes": ["CLIENT_CREDENTIALS", "AUTHORIZATION_CODE"],
    "tokenEndpointAuthMethod": "CLIENT_SECRET_BASIC",
    "consentMethod": "CONSENT_METHOD_REQUIRED",
}


class Manager:
    """A person who manages API keys."""

    def __init__(self, *faults: str) -> None:
        self.peer = Peer(*faults)
        self.token = str(self.peer.login()["access_token"])

    def call(self, method: str, message: object = None) -> Response:
        return self.peer.call(f"{SERVICE}/{method}", self.token, message)

    def create(self, **changes: object) -> dict[str, Any]:
        return dict(reply(self.call("Create", {**CREATE, **changes}))["app"])

    def listed(self) -> list[str]:
        return [app["clientId"] for app in reply(self.call("List")).get("apps", [])]

    def grant(self, client_id: str, secret: str) -> Response:
        return self.peer.token(basic(client_id, secret), grant_type="client_credentials")


@pytest.fixture
def manager() -> Manager:
    return Manager()


def code(response: Response, status: int) -> str:
    assert response.status == status, response.body
    return str(body(response)["code"])


def code_for(peer: Peer, **client: str) -> str:
    """An authorization code for an app with a redirect_uri of its own."""
    location = peer.authorize(**client).header("location") or ""
    assert location.startswith(f"{REDIRECT}?code="), location
    return location.partition("?code=")[2].partition("&")[0]


def test_what_is_created_is_said_back_with_a_secret(manager: Manager) -> None:
    app = manager.create()
    secret = app.pop("clientSecret")
    assert len(secret) >= 16
    assert ":" not in secret
    assert app == {
        "clientId": "my-ci-key",
        "clientIdIssuedAt": "1970-01-01T00:16:40Z",
        "clientName": "My CI key",
        "redirectUris": [REDIRECT],
        "responseTypes": ["CODE"],
        "grantTypes": ["AUTHORIZATION_CODE", "CLIENT_CREDENTIALS"],
        "tokenEndpointAuthMethod": "CLIENT_SECRET_BASIC",
    }
    assert reply(manager.call("Get", {"clientId": "my-ci-key"}))["app"] == app
    listed = reply(manager.call("List"))["apps"]
    assert app in listed
    assert secret not in str(listed)


def test_each_app_has_a_secret_of_its_own(manager: Manager) -> None:
    secrets = {manager.create(clientId=f"key-{n}")["clientSecret"] for n in range(5)}
    assert len(secrets) == 5
    assert manager.peer.plane.service_client[1] not in secrets


def test_the_other_spelling_and_the_numbers_mean_the_same(manager: Manager) -> None:
    manager.create(clientId="one")
    spelled = {
        "client_id": "two",
        "client_name": "My CI key",
        "redirect_uris": [REDIRECT],
        "response_types": [0],
        "grant_types": [3, 0],
        "token_endpoint_auth_method": 2,
        "consent_method": 1,
    }
    assert manager.call("Create", spelled).status == 200
    one, two = (
        reply(manager.call("Get", {field: name}))["app"]
        for field, name in (("clientId", "one"), ("client_id", "two"))
    )
    assert {**one, "clientId": ""} == {**two, "clientId": ""}


def test_a_new_app_is_a_client_at_once_in_both_ways(manager: Manager) -> None:
    secret = manager.create()["clientSecret"]
    tokens = reply(manager.grant("my-ci-key", secret))
    assert "refresh_token" not in tokens
    assert body(manager.peer.call(USER_INFO, tokens["access_token"]))["subject"] == "my-ci-key"
    form = {"client_id": "my-ci-key", "client_secret": secret}
    posted = reply(manager.peer.token(grant_type="client_credentials", **form))
    assert manager.peer.good(posted["access_token"])


def test_a_wrong_secret_opens_nothing(manager: Manager) -> None:
    manager.create()
    assert error(manager.grant("my-ci-key", "wrong")) == "invalid_client"
    assert error(manager.grant("my-ci-key", "")) == "invalid_client"
    public = manager.peer.token(grant_type="client_credentials", client_id="my-ci-key")
    assert error(public) == "invalid_client"


def test_deleting_ends_the_secret_and_every_token(manager: Manager) -> None:
    secret = manager.create()["clientSecret"]
    tokens = [reply(manager.grant("my-ci-key", secret))["access_token"] for _ in range(3)]
    assert reply(manager.call("Delete", {"clientId": "my-ci-key"})) == {}
    assert error(manager.grant("my-ci-key", secret)) == "invalid_client"
    assert not any(map(manager.peer.good, tokens))
    assert code(manager.call("Get", {"clientId": "my-ci-key"}), 404) == "not_found"
    assert manager.peer.good(manager.token)


def test_a_successor_of_the_same_name_inherits_nothing(manager: Manager) -> None:
    peer, old = manager.peer, manager.create(grantTypes=[0, 3, 4, 5])["clientSecret"]
    access_token = reply(manager.grant("my-ci-key", old))["access_token"]
    authenticated = basic("my-ci-key", old)
    client = {"client_id": "my-ci-key", "redirect_uri": REDIRECT}
    codes = [code_for(peer, **client) for _ in range(2)]
    form = {"client_id": "my-ci-key", "client_secret": old}
    family = reply(peer.redeem(codes[0], **form, redirect_uri=REDIRECT))
    device = reply(peer.post("/oauth2/device_authorization", {}, authenticated))
    assert manager.call("Delete", {"clientId": "my-ci-key"}).status == 200
    new = manager.create(grantTypes=[0, 3, 4, 5])["clientSecret"]
    assert new != old
    assert not peer.good(access_token)
    assert error(manager.grant("my-ci-key", old)) == "invalid_client"
    form["client_secret"] = new
    assert error(peer.redeem(codes[1], **form, redirect_uri=REDIRECT)) == "invalid_grant"
    assert error(peer.refresh(family["refresh_token"], **form)) == "invalid_grant"
    assert not peer.good(family["access_token"])
    assert error(peer.poll(device["device_code"], **form)) == "invalid_grant"


def test_an_app_may_send_people_to_its_own_address_only(manager: Manager) -> None:
    secret = manager.create()["clientSecret"]
    peer = manager.peer
    refused = peer.authorize(client_id="my-ci-key", redirect_uri=REDIRECT_URI)
    assert refused.status == 400
    assert refused.header("location") is None
    value = code_for(peer, client_id="my-ci-key", redirect_uri=REDIRECT)
    form = {"client_id": "my-ci-key", "client_secret": secret, "redirect_uri": REDIRECT}
    tokens = reply(peer.redeem(value, **form))
    assert "refresh_token" not in tokens  # for a grant that the app does not have
    assert body(peer.call(USER_INFO, tokens["access_token"]))["subject"] == "alice"


def test_an_app_without_the_grant_cannot_use_it(manager: Manager) -> None:
    secret = manager.create(grantTypes=["AUTHORIZATION_CODE"])["clientSecret"]
    assert error(manager.grant("my-ci-key", secret)) == "unauthorized_client"


def test_a_public_app_has_no_secret(manager: Manager) -> None:
    app = manager.create(grantTypes=[0], tokenEndpointAuthMethod="NONE")  # noqa: S106
    assert "clientSecret" not in app
    assert "tokenEndpointAuthMethod" not in app
    client = {"client_id": "my-ci-key", "redirect_uri": REDIRECT}
    assert reply(manager.peer.redeem(code_for(manager.peer, **client), **client))


@pytest.mark.parametrize("taken", ["my-ci-key", SERVICE_CLIENT_ID, "flytectl", "flyte-cli"])
def test_a_name_that_is_taken_stays_with_its_owner(manager: Manager, taken: str) -> None:
    secret = manager.create()["clientSecret"]
    assert code(manager.call("Create", {**CREATE, "clientId": taken}), 409) == "already_exists"
    assert manager.grant("my-ci-key", secret).status == 200
    assert manager.peer.service()
    assert manager.peer.login()


def test_the_service_client_is_listed_and_stays(manager: Manager) -> None:
    assert manager.listed() == [SERVICE_CLIENT_ID]
    app = reply(manager.call("Get", {"clientId": SERVICE_CLIENT_ID}))["app"]
    assert app["grantTypes"] == ["CLIENT_CREDENTIALS"]
    assert "clientSecret" not in app
    deleted = manager.call("Delete", {"clientId": SERVICE_CLIENT_ID})
    assert code(deleted, 400) == "failed_precondition"
    assert manager.peer.service()


@pytest.mark.parametrize("client_id", ["nobody", "", "flytectl", "MY-CI-KEY"])
def test_what_is_no_app_is_not_found(manager: Manager, client_id: str) -> None:
    manager.create()
    for method in ("Get", "Delete"):
        assert code(manager.call(method, {"clientId": client_id}), 404) == "not_found"
    assert manager.peer.login()


@pytest.mark.parametrize(
    "changes",
    [
        {"clientId": ""},
        {"clientId": None},
        {"clientId": "a:b"},
        {"clientId": "-a"},
        {"clientId": "a b"},
        {"clientId": "a\n"},
        {"clientId": "ä"},
        {"clientId": "x" * 64},
        {"clientId": 5},
        {"clientName": "x" * 101},
        {"clientName": "a\x1b[31m"},
        {"grantTypes": []},
        {"grantTypes": ["PASSWORD"]},
        {"grantTypes": ["IMPLICIT"]},
        {"grantTypes": ["NOTHING"]},
        {"grantTypes": [6]},
        {"grantTypes": [-1]},
        {"grantTypes": [True]},
        {"grantTypes": "CLIENT_CREDENTIALS"},
        {"tokenEndpointAuthMethod": "NONE"},
        {"tokenEndpointAuthMethod": 3},
        {"tokenEndpointAuthMethod": []},
        {"responseTypes": ["TOKEN"]},
        {"redirectUris": ["javascript:alert(1)"]},
        {"redirectUris": ["http://localhost/#x"]},
        {"redirectUris": [5]},
        {"redirectUris": [REDIRECT] * 11},
        {"redirectUris": REDIRECT},
    ],
)
def test_what_no_app_can_be_is_refused(manager: Manager, changes: dict[str, object]) -> None:
    response = manager.call("Create", {**CREATE, **changes})
    assert code(response, 400) == "invalid_argument"
    assert manager.listed() == [SERVICE_CLIENT_ID]


def test_a_service_may_not_manage_keys(manager: Manager) -> None:
    secret = manager.create()["clientSecret"]
    for token in (
        manager.peer.service()["access_token"],
        reply(manager.grant("my-ci-key", secret))["access_token"],
    ):
        for method in ("Create", "Get", "List", "Delete"):
            refused = manager.peer.call(f"{SERVICE}/{method}", token, CREATE)
            assert code(refused, 403) == "permission_denied"
    assert "my-ci-key" in manager.listed()


def test_the_scope_all_and_a_token_are_needed(manager: Manager) -> None:
    narrow = manager.peer.login(scope="openid")["access_token"]
    for method in ("Create", "Get", "List", "Delete"):
        path = f"{SERVICE}/{method}"
        assert code(manager.peer.call(path, narrow, CREATE), 403) == "permission_denied"
        assert code(manager.peer.call(path, None, CREATE), 401) == "unauthenticated"
    assert manager.listed() == [SERVICE_CLIENT_ID]


def test_where_nobody_is_known_there_are_no_keys() -> None:
    peer = Peer("no-auth")
    assert code(peer.call(f"{SERVICE}/List"), 501) == "unimplemented"


def test_there_is_an_end_to_apps(manager: Manager) -> None:
    for n in range(APPS_MAX - 1):  # one is there already
        manager.create(clientId=f"key-{n}")
    full = manager.call("Create", {**CREATE, "clientId": "one-more"})
    assert code(full, 429) == "resource_exhausted"
    assert manager.call("Delete", {"clientId": "key-0"}).status == 200
    assert manager.create(clientId="one-more")


@pytest.mark.parametrize("message", [{"request": 1}, {"request": {"limit": -1}}])
def test_a_wrong_page_is_refused(manager: Manager, message: object) -> None:
    assert code(manager.call("List", message), 400) == "invalid_argument"


@given(
    names=st.sets(st.from_regex(r"[0-9A-Za-z][0-9A-Za-z._-]{0,5}", fullmatch=True), max_size=8),
    gone=st.sets(st.integers(0, 7)),
    limit=st.sampled_from([0, 1, 2, 3, 100, "2"]),
)
def test_no_page_misses_an_app_while_others_are_deleted(
    names: set[str], gone: set[int], limit: object
) -> None:
    manager = Manager()
    for name in names - {SERVICE_CLIENT_ID}:
        manager.create(clientId=name)
    doomed = [name for index, name in enumerate(sorted(names)) if index in gone]
    seen: list[str] = []
    token = ""
    while True:
        page = reply(manager.call("List", {"request": {"limit": limit, "token": token}}))
        seen += [app["clientId"] for app in page.get("apps", [])]
        assert len(seen) == len(set(seen))
        if doomed:
            manager.call("Delete", {"clientId": doomed.pop()})
        token = page.get("token", "")
        if not token:
            break
    assert seen == sorted(seen)
    assert set(manager.listed()) <= set(seen) <= names | {SERVICE_CLIENT_ID}


leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(width=16)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3), max_leaves=5)


@given(
    method=st.sampled_from(["Create", "Get", "List", "Delete"]),
    changes=st.dictionaries(st.sampled_from([*CREATE, "request", "client_id"]), values),
)
def test_any_message_is_answered(method: str, changes: dict[str, object]) -> None:
    manager = Manager()
    response = manager.call(method, {**CREATE, **changes})
    assert response.status in {200, 400, 404, 409}
    assert body(response) is not None
    if response.status == 200 and method == "Create":
        assert manager.grant(SERVICE_CLIENT_ID, "wrong").status == 401
