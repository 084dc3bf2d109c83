"""What outlives a restart: a second control plane with what a first one has left."""

from __future__ import annotations

from typing import Any

import pytest

from flyteauth.devserver.model import ControlPlane, Settings
from flyteauth.devserver.shelves import Shelves, Thing

from .harness import BASE, SEED, Peer, reply
from .test_tasks import SPEC, identifier

CREATE = "/cloudidl.identity.AppsService/Create"
APP = {
    "clientId": "my-ci-key",
    "grantTypes": ["CLIENT_CREDENTIALS"],
    "tokenEndpointAuthMethod": "CLIENT_SECRET_BASIC",
}


class Restarted(Peer):
    """A peer whose control plane was stopped, and started with what it had written down."""

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[tuple[str, str], Thing] = {}
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        self.plane = ControlPlane(
            Settings(base_url=BASE, approve="auto"),
            SEED,
            shelves=Shelves(self.written.values(), recording=True),
            start=self.starts,
        )

    def restart(self) -> None:
        for thing in self.plane.shelves.changes():
            self.written.pop((thing.kind, thing.key), None)
            if thing.value is not None:
                self.written[thing.kind, thing.key] = thing
        self.start()


@pytest.fixture
def peer() -> Restarted:
    return Restarted()


def refreshed(peer: Peer, token: str) -> dict[str, Any]:
    form = {"grant_type": "refresh_token", "client_id": "flytectl", "refresh_token": token}
    return dict(reply(peer.token(**form)))


def test_a_login_goes_on_after_a_restart(peer: Restarted) -> None:
    tokens = peer.login()
    peer.restart()
    assert not peer.good(str(tokens["access_token"]))
    renewed = refreshed(peer, str(tokens["refresh_token"]))
    assert peer.good(renewed["access_token"])
    assert renewed["refresh_token"] not in {tokens["refresh_token"], tokens["access_token"]}
    peer.restart()
    assert refreshed(peer, renewed["refresh_token"])["refresh_token"] != renewed["refresh_token"]


def test_a_refresh_token_that_was_used_before_the_restart_ends_the_login(peer: Restarted) -> None:
    first = str(peer.login()["refresh_token"])
    second = refreshed(peer, first)["refresh_token"]
    peer.restart()
    form = {"grant_type": "refresh_token", "client_id": "flytectl"}
    assert peer.token(**form, refresh_token=first).status == 400
    peer.restart()
    assert peer.token(**form, refresh_token=second).status == 400


def test_a_login_that_was_revoked_stays_so(peer: Restarted) -> None:
    token = str(peer.login()["refresh_token"])
    assert peer.post("/oauth2/revoke", {"token": token, "client_id": "flytectl"}).status == 200
    peer.restart()
    form = {"grant_type": "refresh_token", "client_id": "flytectl", "refresh_token": token}
    assert peer.token(**form).status == 400


def test_what_has_expired_is_forgotten_on_the_shelf_too(peer: Restarted) -> None:
    peer.login()
    peer.restart()
    assert peer.plane.shelves.count("login") == 1
    peer.at += 48 * 3600.0
    peer.get("/")
    assert peer.plane.shelves.count("login") == 0
    peer.restart()
    assert peer.plane.shelves.count("login") == 0


def test_api_keys_tasks_and_uploads_are_still_there(peer: Restarted) -> None:
    token = str(peer.login()["access_token"])
    secret = reply(peer.call(CREATE, token, APP))["app"]["clientSecret"]
    deploy = "/flyteidl2.task.TaskService/DeployTask"
    reply(peer.call(deploy, token, {"taskId": identifier(), "spec": SPEC}))
    inputs = {"projectId": {"name": "churn", "domain": "staging"}, "inputs": {}}
    reply(peer.call("/flyteidl2.dataproxy.DataProxyService/UploadInputs", token, inputs))
    uploads = peer.plane.uploads.names()
    assert uploads
    peer.restart()
    form = {"grant_type": "client_credentials", "client_id": "my-ci-key", "client_secret": secret}
    token = str(reply(peer.token(**form))["access_token"])
    details = "/flyteidl2.task.TaskService/GetTaskDetails"
    assert reply(peer.call(details, token, {"taskId": identifier()}))["details"]["spec"] == SPEC
    assert peer.plane.uploads.names() == uploads


def test_a_key_that_was_deleted_stays_so_and_the_service_keeps_its_secret(peer: Restarted) -> None:
    token = str(peer.login()["access_token"])
    before = peer.plane.api_key
    reply(peer.call(CREATE, token, APP))
    peer.restart()
    token = str(peer.login()["access_token"])
    reply(peer.call("/cloudidl.identity.AppsService/Delete", token, {"clientId": "my-ci-key"}))
    peer.restart()
    token = str(peer.login()["access_token"])
    listed = reply(peer.call("/cloudidl.identity.AppsService/List", token))["apps"]
    assert [app["clientId"] for app in listed] == ["demo-ci"]
    assert peer.plane.api_key == before


def test_no_secret_comes_again_after_a_restart(peer: Restarted) -> None:
    seen: set[str] = set()
    for _ in range(4):
        tokens = {str(value) for name, value in peer.login().items() if name.endswith("_token")}
        assert not tokens & seen
        seen |= tokens
        peer.restart()


def test_a_change_is_told_once_and_only_the_last_of_several() -> None:
    shelves = Shelves([Thing("a", "old", b"1")], recording=True)
    assert shelves.changes() == []
    shelves.put("a", "x", b"1")
    shelves.put("a", "x", b"2")
    shelves.drop("a", "old")
    shelves.drop("a", "never was")
    assert shelves.changes() == [Thing("a", "x", b"2"), Thing("a", "old", None)]
    assert shelves.changes() == []
    assert (shelves.keys("a"), shelves.get("a", "x"), shelves.get("a", "old")) == (
        ("x",),
        b"2",
        None,
    )


def test_what_nobody_asks_for_is_not_remembered() -> None:
    shelves = Shelves()
    shelves.put("a", "x", b"1")
    assert shelves.changes() == []
    assert "1" not in repr(Thing("a", "x", b"secret 1"))
    assert repr(shelves) == "Shelves(a: 1)"
