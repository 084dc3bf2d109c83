"""flyteidl2.task.TaskService."""

from __future__ import annotations

from typing import Any

import pytest

from .harness import LIST_TASKS, START, Peer, body, reply

SERVICE = "/flyteidl2.task.TaskService"
WHERE = {"project": "churn", "domain": "staging"}
PROJECT_ID = {"name": "churn", "domain": "staging"}
SPEC = {
    "taskTemplate": {"type": "python", "id": {"name": "mine.run"}},
    "shortName": "run",
    "environment": {"name": "mine"},
}


def identifier(name: str = "mine.run", version: str = "v1", **more: str) -> dict[str, str]:
    return {**WHERE, "name": name, "version": version, **more}


class Deployer:
    def __init__(self) -> None:
        self.peer = Peer()
        self.token = str(self.peer.login()["access_token"])

    def call(self, method: str, **message: Any) -> Any:
        return self.peer.call(f"{SERVICE}/{method}", self.token, message)

    def deploy(self, spec: object = SPEC, **named: str) -> None:
        assert reply(self.call("DeployTask", taskId=identifier(**named), spec=spec)) == {}

    def names(self, **request: Any) -> list[str]:
        listed = reply(self.call("ListTasks", projectId=PROJECT_ID, request=request))
        return [task["taskId"]["name"] for task in listed.get("tasks", [])]


@pytest.fixture
def deployer() -> Deployer:
    return Deployer()


def test_what_was_deployed_is_there_as_it_was(deployer: Deployer) -> None:
    deployer.deploy()
    details = reply(deployer.call("GetTaskDetails", taskId=identifier()))["details"]
    assert details["spec"] == SPEC
    assert details["taskId"] == {"org": "flyteauth", **identifier()}
    assert details["metadata"]["deployedAt"] == "1970-01-01T00:16:40Z"
    assert details["metadata"]["deployedBy"]["user"]["id"] == {"subject": "alice"}
    assert (details["metadata"]["shortName"], details["metadata"]["environmentName"]) == (
        "run",
        "mine",
    )
    assert deployer.names()[-1] == "mine.run"


def test_what_is_listed_is_the_newest_version_and_all_have_a_history(deployer: Deployer) -> None:
    for number in (1, 2, 3):
        deployer.peer.at = START + number
        deployer.deploy(version=f"v{number}")
    (task,) = reply(
        deployer.call(
            "ListTasks",
            projectId=PROJECT_ID,
            request={"filters": [{"field": "name", "values": ["mine.run"]}]},
        )
    )["tasks"]
    assert task["taskId"]["version"] == "v3"
    assert "spec" not in task
    name = {key: value for key, value in identifier().items() if key != "version"}
    versions = reply(deployer.call("ListVersions", taskName=name))["versions"]
    assert [version["version"] for version in versions] == ["v3", "v2", "v1"]


def test_a_built_in_task_has_details_as_well(deployer: Deployer) -> None:
    (task, *_) = reply(deployer.call("ListTasks", projectId=PROJECT_ID))["tasks"]
    details = reply(deployer.call("GetTaskDetails", taskId=task["taskId"]))["details"]
    assert details["spec"]["taskTemplate"]["interface"] == {"inputs": {}, "outputs": {}}


def test_the_same_may_come_again_but_nothing_else_under_its_version(deployer: Deployer) -> None:
    deployer.deploy()
    deployer.deploy()
    other = deployer.call("DeployTask", taskId=identifier(), spec={**SPEC, "shortName": "other"})
    assert (other.status, body(other)["code"]) == (409, "already_exists")
    assert reply(deployer.call("GetTaskDetails", taskId=identifier()))["details"]["spec"] == SPEC


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"field": "name", "values": ["model.train"]}, ["model.train"]),
        ({"function": "CONTAINS", "field": "name", "values": ["model."]}, 3),
        ({"function": "ENDS_WITH", "field": "name", "values": ["train"]}, ["model.train"]),
        ({"function": "NOT_EQUAL", "field": "name", "values": ["model.train"]}, 3),
        ({"function": "VALUE_IN", "field": "name", "values": ["model.train", "x"]}, 1),
        ({"function": "VALUE_NOT_IN", "field": "name", "values": ["model.train", "x"]}, 3),
        ({"function": "GREATER_THAN", "field": "created_at", "values": ["2030"]}, []),
        ({"function": "LESS_THAN", "field": "created_at", "values": ["2030"]}, 4),
        ({"function": "EXISTS", "field": "labels.x"}, []),
        ({"function": "NOT_EXISTS", "field": "labels.x"}, 4),
        ({"field": "environment", "values": ["features"]}, ["features.build"]),
    ],
)
def test_filters(deployer: Deployer, wanted: object, names: list[str] | int) -> None:
    found = deployer.names(filters=[wanted])
    assert found == names if isinstance(names, list) else len(found) == names


@pytest.mark.parametrize(
    "filters",
    [
        [{"field": "secret", "values": ["x"]}],
        [{"field": "name"}],
        [{"function": "LIKE", "field": "name", "values": ["x"]}],
        ["name=x"],
        "name=x",
        [{"field": ["name"], "values": ["x"]}],
    ],
)
def test_a_filter_that_is_none_is_refused(deployer: Deployer, filters: object) -> None:
    response = deployer.call("ListTasks", request={"filters": filters})
    assert body(response)["code"] == "invalid_argument"


def test_the_order_is_what_is_asked_for(deployer: Deployer) -> None:
    ascending = deployer.names(sortBy={"key": "name", "direction": "ASCENDING"})
    assert ascending == sorted(ascending)
    assert deployer.names(sortBy={"key": "name"}) == ascending[::-1]


def test_who_deployed_it_can_be_asked_for(deployer: Deployer) -> None:
    deployer.token = str(deployer.peer.login()["access_token"])
    deployer.deploy()
    known = [{"deployedBy": "alice"}, {"isEntrypoint": True}]
    listed = reply(deployer.call("ListTasks", projectId=PROJECT_ID, knownFilters=known))
    assert len(listed["tasks"]) == 5
    nobody = deployer.call("ListTasks", projectId=PROJECT_ID, knownFilters=[{"deployedBy": "bob"}])
    assert "tasks" not in reply(nobody)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"project": "nothing"}, "not_found"),
        ({"domain": "nothing"}, "not_found"),
        ({"version": ""}, "invalid_argument"),
        ({"name": "x" * 301}, "invalid_argument"),
    ],
)
def test_a_task_needs_a_place_and_a_name(
    deployer: Deployer, changed: dict[str, str], code: str
) -> None:
    response = deployer.call("DeployTask", taskId={**identifier(), **changed}, spec=SPEC)
    assert body(response)["code"] == code


def test_an_unknown_version_is_not_found(deployer: Deployer) -> None:
    assert body(deployer.call("GetTaskDetails", taskId=identifier()))["code"] == "not_found"
    assert reply(deployer.call("ListVersions", taskName=identifier())) == {}


def test_everybody_is_asked_for_a_token(deployer: Deployer) -> None:
    for method in ("DeployTask", "GetTaskDetails", "ListVersions"):
        assert deployer.peer.call(f"{SERVICE}/{method}").status == 401
    assert deployer.peer.call(LIST_TASKS).status == 401
