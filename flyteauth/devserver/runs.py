"""flyteidl2.workflow.RunService: runs are recorded, and never carried out. They stay queued."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from .calls import Call, identity_of
from .connect import ConnectError, Message, Reply, invalid, page, part, text, timestamp
from .filters import Fields, chosen
from .issued import AccessToken
from .projects import Projects
from .seed import Seed
from .shelves import Shelves
from .showcase import ORGANIZATION
from .tasks import Tasks

SERVICE: Final = "/flyteidl2.workflow.RunService"
RUNS_MAX: Final = 10_000

_KIND: Final = "run"
_ROOT_ACTION: Final = "a0"
_QUEUED: Final = ("ACTION_PHASE_QUEUED", "1")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.IGNORECASE)


class Runs:
    """Each is kept as RunDetails."""

    def __init__(self, shelves: Shelves, projects: Projects, tasks: Tasks, seed: Seed) -> None:
        self._shelves = shelves
        self._projects = projects
        self._tasks = tasks
        self._seed = seed
        self.calls: Final[Mapping[str, Call]] = {
            f"{SERVICE}/CreateRun": self._create,
            f"{SERVICE}/ListRuns": self._list,
            f"{SERVICE}/GetRunDetails": self._details,
        }

    def _create(self, message: Message, access: AccessToken | None, at: float) -> Reply:
        project, domain, name = self._identifier(message)
        self._projects.require(project, domain)
        key = _key(project, domain, name)
        if self._shelves.get(_KIND, key) is not None:
            raise ConnectError("already_exists", f"there is a run {name} already")
        if self._shelves.count(_KIND) >= RUNS_MAX:
            raise ConnectError("resource_exhausted", f"there are {RUNS_MAX} runs already")
        task_id = part(message, "taskId", "task_id")
        spec = self._tasks.find(task_id)["spec"] if task_id else {}
        spec = spec or part(message, "taskSpec", "task_spec")
        if not spec:
            raise invalid("task", "is missing: a run needs a taskId or a taskSpec")
        task_id = task_id or _renamed(part(part(spec, "taskTemplate", "task_template"), "id"))
        short_name = text(spec, "shortName", "short_name")
        action = {
            "id": {
                "run": {"org": ORGANIZATION, "project": project, "domain": domain, "name": name},
                "name": _ROOT_ACTION,
            },
            "metadata": {
                "executedBy": identity_of(access),
                "task": {"id": task_id, "shortName": short_name},
                "actionType": "ACTION_TYPE_TASK",
                "environmentName": text(part(spec, "environment"), "name"),
                "funtionName": short_name,  # so it is spelled in the proto
            },
            "status": {"phase": _QUEUED[0], "startTime": timestamp(at), "attempts": 1},
        }
        details = {
            "runSpec": part(message, "runSpec", "run_spec"),
            "action": {**action, "task": spec},
        }
        self._shelves.put_document(_KIND, key, details)
        return {"run": _run(details)}

    def _identifier(self, message: Message) -> tuple[str, str, str]:
        given = part(message, "runId", "run_id")
        name = text(given, "name")
        if not name:
            given = given or part(message, "projectId", "project_id")
            domain = text(given, "domain")
            project = text(given, "project") or text(given, "name")
            digest = self._seed.next("run").lower()
            return project, domain, "r" + re.sub("[^a-z0-9]", "", digest)[:19]
        if not _NAME.fullmatch(name):
            raise invalid("runId", "needs a name of 1 to 63 letters, digits or dashes")
        return text(given, "project"), text(given, "domain"), name

    def _list(self, message: Message, access: AccessToken | None, at: float) -> Reply:
        wanted = part(message, "projectId", "project_id")
        here = {"project": text(wanted, "name"), "domain": text(wanted, "domain")}
        found = [
            run
            for run in reversed(self._shelves.documents(_KIND))
            if all(value in {"", run["action"]["id"]["run"][key]} for key, value in here.items())
        ]
        request = part(message, "request")
        return page(
            "runs", [_run(run) for run in chosen(found, request, _fields, _FIELDS)], request
        )

    def _details(self, message: Message, access: AccessToken | None, at: float) -> Reply:
        given = part(message, "runId", "run_id")
        project, domain, name = (text(given, key) for key in ("project", "domain", "name"))
        details = self._shelves.document(_KIND, _key(project, domain, name))
        if details is None:
            raise ConnectError("not_found", f"there is no run {name[:100]!r}")
        return {"details": details}


def _key(*where: str) -> str:
    return json.dumps(where)


def _run(details: Reply) -> Reply:
    action = {key: details["action"][key] for key in ("id", "metadata", "status")}
    labels = part(part(details["runSpec"], "labels"), "values")
    return {"action": action, **({"labels": labels} if labels else {})}


def _renamed(identifier: Message) -> Reply:
    """A flyteidl2.core.Identifier as a TaskIdentifier."""
    names = ("org", "project", "domain", "name", "version")
    return {name: text(identifier, name) for name in names if text(identifier, name)}


_FIELDS: Final = (
    "name phase task_name task_version created_at updated_at created_by started_at".split()
)


def _fields(run: Reply) -> Fields:
    action: Any = run["action"]
    (who,) = action["metadata"]["executedBy"].values()
    at = action["status"]["startTime"]
    task = action["metadata"]["task"]["id"]
    labels = part(part(run["runSpec"], "labels"), "values")
    return {
        "name": action["id"]["run"]["name"],
        "phase": _QUEUED[1],
        "task_name": task.get("name", ""),
        "task_version": task.get("version", ""),
        "created_at": at,
        "updated_at": at,
        "started_at": at,
        "created_by": who["id"]["subject"],
        **{f"labels.{key}": str(value) for key, value in labels.items()},
    }
