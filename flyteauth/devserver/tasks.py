"""flyteidl2.task.TaskService."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from .calls import Call, identity_of
from .connect import ConnectError, Message, Reply, invalid, items, page, part, text, timestamp
from .filters import Fields, chosen
from .issued import AccessToken
from .projects import Projects
from .shelves import Shelves
from .showcase import ORGANIZATION, tasks

SERVICE: Final = "/flyteidl2.task.TaskService"
TASKS_MAX: Final = 10_000

_KIND: Final = "task"
_WHERE: Final = ("project", "domain", "name", "version")
_NAME_MAX: Final = 300


class Tasks:
    """What was deployed, and what was there from the beginning; a task is a TaskDetails."""

    def __init__(self, shelves: Shelves, projects: Projects) -> None:
        self._shelves = shelves
        self._projects = projects
        self.calls: Final[Mapping[str, Call]] = {
            f"{SERVICE}/ListTasks": self._list,
            f"{SERVICE}/GetTaskDetails": self._details,
            f"{SERVICE}/DeployTask": self._deploy,
            f"{SERVICE}/ListVersions": self._versions,
        }

    def find(self, identifier: Message) -> Reply:
        """The task with that TaskIdentifier; raises ConnectError."""
        wanted = [text(identifier, name) for name in _WHERE]
        for task in self._all():
            if [task["taskId"][name] for name in _WHERE] == wanted:
                return task
        raise ConnectError("not_found", f"there is no task {wanted[2][:100]!r} of that version")

    def _all(self) -> list[Reply]:
        """From the oldest to the youngest."""
        return [*tasks(), *self._shelves.documents(_KIND)]

    def _list(self, message: Message, access: AccessToken | None, at: float) -> Reply:
        wanted = part(message, "projectId", "project_id")
        newest = {
            tuple(task["taskId"][name] for name in _WHERE[:3]): task
            for task in self._all()
            if _is_in(task, wanted)
        }
        request = part(message, "request")
        found = chosen(newest.values(), request, _fields, _FIELDS)
        for known in items(message, "knownFilters", "known_filters"):
            if isinstance(known, dict) and (who := text(known, "deployedBy", "deployed_by")):
                found = [task for task in found if _fields(task)["deployed_by"] == who]
        shown = [{key: task[key] for key in ("taskId", "metadata")} for task in found]
        reply = page("tasks", shown, request)
        if newest:
            reply["metadata"] = {"total": len(newest), "filteredTotal": len(shown)}
        return reply

    def _details(self, message: Message, access: AccessToken | None, at: float) -> Reply:
        return {"details": self.find(part(message, "taskId", "task_id"))}

    def _deploy(self, message: Message, access: AccessToken | None, at: float) -> Reply:
        """Deploying the same once more changes nothing; something else takes a new version."""
        given = part(message, "taskId", "task_id")
        identifier = {name: text(given, name) for name in _WHERE}
        if not all(0 < len(value) <= _NAME_MAX for value in identifier.values()):
            raise invalid("taskId", f"needs {', '.join(_WHERE)}")
        self._projects.require(identifier["project"], identifier["domain"])
        spec = part(message, "spec")
        key = json.dumps(list(identifier.values()))
        if (there := self._shelves.document(_KIND, key)) is not None:
            if there["spec"] != spec:
                raise ConnectError("already_exists", "this version was deployed as something else")
            return {}
        if self._shelves.count(_KIND) >= TASKS_MAX:
            raise ConnectError("resource_exhausted", f"there are {TASKS_MAX} tasks already")
        metadata = {
            "deployedBy": identity_of(access),
            "shortName": text(spec, "shortName", "short_name") or identifier["name"],
            "deployedAt": timestamp(at),
            "environmentName": text(part(spec, "environment"), "name"),
        }
        task = {"taskId": {"org": ORGANIZATION, **identifier}, "metadata": metadata, "spec": spec}
        self._shelves.put_document(_KIND, key, task)
        return {}

    def _versions(self, message: Message, access: AccessToken | None, at: float) -> Reply:
        given = part(message, "taskName", "task_name")
        wanted = [text(given, name) for name in _WHERE[:3]]
        versions = [
            {
                "version": task["taskId"]["version"],
                "deployedAt": task["metadata"]["deployedAt"],
                "deployedBy": task["metadata"]["deployedBy"],
            }
            for task in reversed(self._all())
            if [task["taskId"][name] for name in _WHERE[:3]] == wanted
        ]
        return page("versions", versions, part(message, "request"))


_FIELDS: Final = ("name", "version", "created_at", "deployed_at", "deployed_by", "environment")


def _fields(task: Reply) -> Fields:
    identifier, metadata = task["taskId"], task["metadata"]
    (who,) = metadata["deployedBy"].values()
    return {
        "name": identifier["name"],
        "version": identifier["version"],
        "created_at": metadata["deployedAt"],
        "deployed_at": metadata["deployedAt"],
        "deployed_by": who["id"]["subject"],
        "environment": metadata["environmentName"],
    }


def _is_in(task: Reply, wanted: Message) -> bool:
    """Whether the task is in a project and domain; everywhere, where the request does not say."""
    here = {"name": task["taskId"]["project"], "domain": task["taskId"]["domain"]}
    return all(wanted.get(key) in (None, "", value) for key, value in here.items())
