"""flyteidl2.workflow.RunService."""

from __future__ import annotations

from typing import Any

import pytest

from .harness import Peer, body, reply
from .test_tasks import PROJECT_ID, SPEC, WHERE, Deployer, identifier

SERVICE = "/flyteidl2.workflow.RunService"


class Runner(Deployer):
    def run(self, method: str, **message: Any) -> Any:
        return self.peer.call(f"{SERVICE}/{method}", self.token, message)

    def create(self, **message: Any) -> dict[str, Any]:
        wanted = {"projectId": PROJECT_ID, "taskSpec": SPEC, **message}
        run: dict[str, Any] = reply(self.run("CreateRun", **wanted))["run"]
        return run

    def names(self, **request: Any) -> list[str]:
        listed = reply(self.run("ListRuns", projectId=PROJECT_ID, request=request))
        return [run["action"]["id"]["run"]["name"] for run in listed.get("runs", [])]


@pytest.fixture
def runner() -> Runner:
    return Runner()


def test_a_run_of_what_came_with_it_is_queued_under_a_name_of_its_own(runner: Runner) -> None:
    one, two = runner.create(), runner.create()
    names = [run["action"]["id"]["run"]["name"] for run in (one, two)]
    assert len({*names}) == 2
    assert all(name.isalnum() and name.islower() and len(name) == 20 for name in names)
    assert one["action"]["id"] == {
        "run": {"org": "flyteauth", **WHERE, "name": names[0]},
        "name": "a0",
    }
    assert one["action"]["status"]["phase"] == "ACTION_PHASE_QUEUED"
    assert one["action"]["metadata"]["task"]["id"] == {"name": "mine.run"}
    assert runner.names() == names[::-1]


def test_its_details_are_what_it_was_created_with(runner: Runner) -> None:
    spec = {"labels": {"values": {"team": "robots"}}, "envs": {"values": []}}
    run = runner.create(runId={**WHERE, "name": "mine"}, runSpec=spec)
    assert run["labels"] == {"team": "robots"}
    details = reply(runner.run("GetRunDetails", runId={**WHERE, "name": "mine"}))["details"]
    assert details["runSpec"] == spec
    assert details["action"]["task"] == SPEC


def test_a_run_of_a_deployed_task_has_its_specification(runner: Runner) -> None:
    runner.deploy()
    run = runner.create(taskId=identifier(), taskSpec=None)
    assert run["action"]["metadata"]["task"]["id"] == identifier()
    name = run["action"]["id"]["run"]["name"]
    details = reply(runner.run("GetRunDetails", runId={**WHERE, "name": name}))["details"]
    assert details["action"]["task"] == SPEC


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ({"field": "phase", "values": ["1"]}, True),
        ({"field": "phase", "values": ["5"]}, False),
        ({"field": "task_name", "values": ["mine.run"]}, True),
        ({"field": "created_by", "values": ["alice"]}, True),
        ({"field": "created_by", "values": ["bob"]}, False),
        ({"field": "labels.team", "values": ["robots"]}, True),
        ({"function": "EXISTS", "field": "labels.team"}, True),
        ({"function": "EXISTS", "field": "labels.other"}, False),
    ],
)
def test_filters(runner: Runner, wanted: object, there: bool) -> None:
    runner.create(
        runId={**WHERE, "name": "mine"}, runSpec={"labels": {"values": {"team": "robots"}}}
    )
    assert runner.names(filters=[wanted]) == (["mine"] if there else [])


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"projectId": {"name": "nothing", "domain": "staging"}}, "not_found"),
        ({"projectId": {"name": "churn", "domain": "nothing"}}, "not_found"),
        ({"projectId": None}, "not_found"),
        ({"taskSpec": None}, "invalid_argument"),
        ({"taskSpec": None, "taskId": identifier()}, "not_found"),
        ({"runId": {**WHERE, "name": "a/b"}}, "invalid_argument"),
        ({"runId": "mine"}, "invalid_argument"),
    ],
)
def test_what_cannot_run_is_said(runner: Runner, changed: dict[str, Any], code: str) -> None:
    wanted = {"projectId": PROJECT_ID, "taskSpec": SPEC, **changed}
    assert body(runner.run("CreateRun", **wanted))["code"] == code
    assert runner.names() == []


def test_a_name_is_given_once(runner: Runner) -> None:
    wanted = {"runId": {**WHERE, "name": "mine"}, "taskSpec": SPEC}
    assert runner.run("CreateRun", **wanted).status == 200
    assert body(runner.run("CreateRun", **wanted))["code"] == "already_exists"
    unknown = runner.run("GetRunDetails", runId={**WHERE, "name": "other"})
    assert body(unknown)["code"] == "not_found"


def test_a_service_that_runs_something_is_named_as_one() -> None:
    runner = Runner()
    client_id, secret = runner.peer.plane.service_client
    form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
    runner.token = str(reply(runner.peer.token(**form))["access_token"])
    who = runner.create()["action"]["metadata"]["executedBy"]
    assert who == {"application": {"id": {"subject": client_id}}}
    assert runner.names(filters=[{"field": "created_by", "values": [client_id]}]) != []


def test_a_run_needs_a_token() -> None:
    for method in ("CreateRun", "ListRuns", "GetRunDetails"):
        assert Peer().call(f"{SERVICE}/{method}").status == 401
