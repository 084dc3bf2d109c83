"""flyteidl2.project.ProjectService."""

from __future__ import annotations

from typing import Any

import pytest

from .harness import LIST_PROJECTS, Peer, body, reply

SERVICE = "/flyteidl2.project.ProjectService"
BUILT_IN = ["flytesnacks", "churn", "demand-forecast", "document-search"]


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def token(peer: Peer) -> str:
    return str(peer.login()["access_token"])


def listed(peer: Peer, token: str, **message: Any) -> list[str]:
    page = reply(peer.call(LIST_PROJECTS, token, message))["projects"]
    return [project["id"] for project in page.get("projects", [])]


def test_what_was_created_is_there_with_its_domains(peer: Peer, token: str) -> None:
    wanted = {"id": "robots", "name": "Robots", "description": "Walk", "labels": {"values": {}}}
    assert reply(peer.call(f"{SERVICE}/CreateProject", token, {"project": wanted})) == {}
    got = reply(peer.call(f"{SERVICE}/GetProject", token, {"id": "robots"}))["project"]
    assert {**got, "domains": None} == {
        "id": "robots",
        "name": "Robots",
        "description": "Walk",
        "labels": {"values": {}},
        "domains": None,
        "org": "flyteauth",
    }
    assert [domain["id"] for domain in got["domains"]] == ["development", "staging", "production"]
    assert listed(peer, token) == [*BUILT_IN, "robots"]


def test_an_archived_project_is_listed_only_where_it_is_asked_for(peer: Peer, token: str) -> None:
    archived = {"id": "churn", "state": "PROJECT_STATE_ARCHIVED"}
    assert reply(peer.call(f"{SERVICE}/UpdateProject", token, {"project": archived})) == {}
    active = [name for name in BUILT_IN if name != "churn"]
    assert listed(peer, token, filters="eq(state, 0)") == active
    assert listed(peer, token, filters="eq(state, 1)") == ["churn"]
    assert listed(peer, token, filters="eq(state, 0)+eq(identifier, flytesnacks)") == [
        "flytesnacks"
    ]
    assert listed(peer, token) == BUILT_IN


@pytest.mark.parametrize("direction", ["ASCENDING", "DESCENDING", None])
def test_they_come_in_the_order_that_is_asked_for(
    peer: Peer, token: str, direction: str | None
) -> None:
    sort = {"key": "id", **({"direction": direction} if direction else {})}
    expected = sorted(BUILT_IN, reverse=direction != "ASCENDING")  # 0, the default, is descending
    assert listed(peer, token, sortBy=sort) == expected


@pytest.mark.parametrize(
    ("method", "message", "code"),
    [
        ("CreateProject", {"project": {"id": "churn"}}, "already_exists"),
        ("CreateProject", {"project": {"id": "Not Good"}}, "invalid_argument"),
        ("CreateProject", {"project": {"id": "x" * 64}}, "invalid_argument"),
        ("CreateProject", {}, "invalid_argument"),
        ("CreateProject", {"project": {"id": "x", "state": "ASLEEP"}}, "invalid_argument"),
        ("CreateProject", {"project": {"id": "x", "description": "y" * 1001}}, "invalid_argument"),
        ("CreateProject", {"project": {"id": 5}}, "invalid_argument"),
        ("UpdateProject", {"project": {"id": "nothing"}}, "not_found"),
        ("GetProject", {"id": "nothing"}, "not_found"),
        ("GetProject", {"id": ["churn"]}, "invalid_argument"),
        ("ListProjects", {"filters": "drop(table)"}, "invalid_argument"),
        ("ListProjects", {"filters": "eq(state"}, "invalid_argument"),
    ],
)
def test_what_cannot_be_is_said(
    peer: Peer, token: str, method: str, message: dict[str, Any], code: str
) -> None:
    assert body(peer.call(f"{SERVICE}/{method}", token, message))["code"] == code
    assert listed(peer, token) == BUILT_IN
