"""The calls that need a token."""

from __future__ import annotations

from typing import Any

import pytest

from .harness import LIST_APPS, LIST_PROJECTS, LIST_TASKS, USER_INFO, Peer, body, reply

CALLS = (USER_INFO, LIST_PROJECTS, LIST_TASKS, LIST_APPS)
JSON = ("content-type", "application/json")


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def token(peer: Peer) -> str:
    return str(peer.login()["access_token"])


@pytest.mark.parametrize("path", CALLS)
class TestProtection:
    def test_without_a_token_nothing_is_called_invalid(self, peer: Peer, path: str) -> None:
        response = peer.call(path)
        assert response.status == 401
        assert body(response)["code"] == "unauthenticated"
        assert response.header("www-authenticate") == 'Bearer realm="flyteauth"'

    def test_a_token_that_is_not_good_is_called_invalid(self, peer: Peer, path: str) -> None:
        response = peer.call(path, "unknown")
        assert response.status == 401
        assert body(response)["code"] == "unauthenticated"
        assert 'error="invalid_token"' in (response.header("www-authenticate") or "")

    @pytest.mark.parametrize("name", ["authorization", "Authorization", "flyte-authorization"])
    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
    def test_both_headers_are_read(
        self, peer: Peer, token: str, path: str, name: str, scheme: str
    ) -> None:
        headers = (JSON, (name, f"{scheme} {token}"))
        assert peer.send("POST", path, headers, b"{}").status == 200

    def test_one_good_token_is_enough(self, peer: Peer, token: str, path: str) -> None:
        headers = (
            JSON,
            ("authorization", "Bearer old"),
            ("flyte-authorization", f"Bearer {token}"),
        )
        assert peer.send("POST", path, headers, b"{}").status == 200

    @pytest.mark.parametrize(
        "header",
        [
            ("x-authorization", "Bearer {}"),
            ("cookie", "token={}"),
            ("authorization", "Basic {}"),
            ("authorization", "{}"),
        ],
    )
    def test_nothing_else_is_read(
        self, peer: Peer, token: str, path: str, header: tuple[str, str]
    ) -> None:
        headers = (JSON, (header[0], header[1].format(token)))
        assert peer.send("POST", path, headers, b"{}").status == 401
        assert peer.send("POST", f"{path}?access_token={token}", (JSON,), b"{}").status == 401

    @pytest.mark.parametrize("kind", ["refresh_token"])
    def test_only_access_tokens_open(self, peer: Peer, path: str, kind: str) -> None:
        assert peer.call(path, peer.login()[kind]).status == 401

    def test_a_body_that_is_no_message_is_refused(self, peer: Peer, token: str, path: str) -> None:
        headers = (JSON, ("authorization", f"Bearer {token}"))
        response = peer.send("POST", path, headers, b"")
        assert response.status == 400
        assert body(response)["code"] == "invalid_argument"

    def test_another_encoding_is_refused(self, peer: Peer, token: str, path: str) -> None:
        headers = (("content-type", "application/proto"), ("authorization", f"Bearer {token}"))
        assert peer.send("POST", path, headers).status == 415

    def test_get_is_not_allowed(self, peer: Peer, token: str, path: str) -> None:
        assert peer.get(path, authorization=f"Bearer {token}").status == 405


@pytest.mark.parametrize("path", [LIST_PROJECTS, LIST_TASKS, LIST_APPS])
def test_a_token_without_the_scope_all_is_forbidden(peer: Peer, path: str) -> None:
    token = peer.login(scope="openid")["access_token"]
    response = peer.call(path, token)
    assert response.status == 403
    assert body(response)["code"] == "permission_denied"
    assert 'error="insufficient_scope"' in (response.header("www-authenticate") or "")
    assert peer.call(USER_INFO, token).status == 200


def test_user_info_names_the_user(peer: Peer, token: str) -> None:
    assert reply(peer.call(USER_INFO, token)) == {
        "subject": "alice",
        "name": "Alice",
        "preferredUsername": "alice",
        "email": "alice@example.com",
    }


def test_projects_have_the_shape_of_the_proto(peer: Peer, token: str) -> None:
    projects = reply(peer.call(LIST_PROJECTS, token))["projects"]
    assert projects.keys() == {"projects"}  # an empty token is left out
    first = projects["projects"][0]
    assert first["id"] == first["name"] == "flytesnacks"
    assert [domain["id"] for domain in first["domains"]] == ["development", "staging", "production"]


def test_tasks_belong_to_a_project_and_a_domain(peer: Peer, token: str) -> None:
    where = {"name": "churn", "domain": "staging", "organization": ""}
    tasks = reply(peer.call(LIST_TASKS, token, {"projectId": where}))["tasks"]
    assert len(tasks) == 4
    for task in tasks:
        identifier = task["taskId"]
        assert (identifier["project"], identifier["domain"]) == ("churn", "staging")
        assert identifier["name"]
        assert identifier["version"]
        assert task["metadata"]["deployedAt"]
    same = reply(peer.call(LIST_TASKS, token, {"project_id": where}))["tasks"]
    assert same == tasks


def test_an_unknown_project_has_nothing(peer: Peer, token: str) -> None:
    where = {"name": "nothing", "domain": "staging"}
    assert reply(peer.call(LIST_TASKS, token, {"projectId": where})) == {}
    assert reply(peer.call(LIST_APPS, token, {"project": where})) == {}


def test_apps_belong_to_a_project_and_a_domain(peer: Peer, token: str) -> None:
    where = {"name": "document-search", "domain": "development"}
    apps = reply(peer.call(LIST_APPS, token, {"project": where}))["apps"]
    assert [app["metadata"]["id"]["name"] for app in apps] == ["search-api", "search-ui"]
    assert all(app["status"]["ingress"]["publicUrl"].startswith("https://") for app in apps)


@pytest.mark.parametrize("limit", [1, 2, 3, 100, "2"])
def test_pages_together_are_the_whole_list(peer: Peer, token: str, limit: object) -> None:
    whole = reply(peer.call(LIST_PROJECTS, token))["projects"]["projects"]
    seen: list[Any] = []
    message = {"limit": limit}
    while True:
        page = reply(peer.call(LIST_PROJECTS, token, message))["projects"]
        assert len(page["projects"]) <= int(str(limit))
        seen += page["projects"]
        if "token" not in page:
            break
        message = {"limit": limit, "token": page["token"]}
    assert seen == whole


@pytest.mark.parametrize(
    "message",
    [
        {"limit": -1},
        {"limit": "x"},
        {"limit": 1.5},
        {"limit": True},
        {"limit": 2**40},
        {"token": "x"},
        {"token": "9" * 5000},
        {"token": "\u0663"},
        {"limit": []},
    ],
)
def test_a_wrong_page_is_refused(peer: Peer, token: str, message: object) -> None:
    for path, sent in ((LIST_PROJECTS, message), (LIST_TASKS, {"request": message})):
        response = peer.call(path, token, sent)
        assert response.status == 400
        assert body(response)["code"] == "invalid_argument"


@pytest.mark.parametrize("part", [1, "x", []])
def test_a_part_that_is_no_message_is_refused(peer: Peer, token: str, part: object) -> None:
    assert peer.call(LIST_TASKS, token, {"projectId": part}).status == 400
    assert peer.call(LIST_APPS, token, {"project": part}).status == 400


def test_a_strange_filter_matches_nothing(peer: Peer, token: str) -> None:
    assert reply(peer.call(LIST_TASKS, token, {"projectId": {"name": ["churn"]}})) == {}


def test_a_token_beyond_the_end_gives_an_empty_page(peer: Peer, token: str) -> None:
    assert reply(peer.call(LIST_PROJECTS, token, {"token": "1000"})) == {"projects": {}}


def test_unknown_methods_are_not_found(peer: Peer, token: str) -> None:
    assert peer.call("/flyteidl2.project.ProjectService/Nothing", token).status == 404
