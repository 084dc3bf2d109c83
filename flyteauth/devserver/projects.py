"""flyteidl2.project.ProjectService."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from .calls import Call
from .connect import ConnectError, Message, Reply, invalid, member, page, part, text
from .filters import in_order, parse_expression
from .issued import AccessToken
from .shelves import Shelves
from .showcase import DOMAINS, ORGANIZATION, PROJECTS

SERVICE: Final = "/flyteidl2.project.ProjectService"
PROJECTS_MAX: Final = 1000

_KIND: Final = "project"
_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_TEXT_MAX: Final = 1000
# In the order of their numbers. What is active, the default, is left out.
_STATES: Final = (
    "PROJECT_STATE_ACTIVE",
    "PROJECT_STATE_ARCHIVED",
    "PROJECT_STATE_SYSTEM_GENERATED",
    "PROJECT_STATE_SYSTEM_ARCHIVED",
)


class Projects:
    """The projects there are."""

    def __init__(self, shelves: Shelves) -> None:
        self._shelves = shelves
        for name, description in PROJECTS.items():
            if shelves.get(_KIND, name) is None:
                self._put({"id": name, "name": name, "description": description})
        self.calls: Final[Mapping[str, Call]] = {
            f"{SERVICE}/ListProjects": self._list,
            f"{SERVICE}/GetProject": self._get,
            f"{SERVICE}/CreateProject": self._create,
            f"{SERVICE}/UpdateProject": self._update,
        }

    def require(self, project: str, domain: str) -> None:
        """Raise ConnectError unless there is that project, and that domain in it."""
        self._found(project)
        if domain not in DOMAINS:
            raise ConnectError("not_found", f"there is no domain {domain[:40]!r} in {project}")

    def _list(self, message: Message, access: AccessToken | None, at: float) -> Reply:
        wanted = parse_expression(text(message, "filters"))
        shown = [
            _shown(project)
            for project in self._shelves.documents(_KIND)
            if all(_field(project, name) == value for name, value in wanted.items())
        ]
        shown = in_order(shown, message, _field)
        return {"projects": page("projects", shown, message)}

    def _get(self, message: Message, access: AccessToken | None, at: float) -> Reply:
        return {"project": _shown(self._found(text(message, "id")))}

    def _create(self, message: Message, access: AccessToken | None, at: float) -> Reply:
        project = _project(part(message, "project"))
        if self._shelves.get(_KIND, project["id"]) is not None:
            raise ConnectError("already_exists", f"there is a project {project['id']} already")
        if self._shelves.count(_KIND) >= PROJECTS_MAX:
            raise ConnectError("resource_exhausted", f"there are {PROJECTS_MAX} projects already")
        self._put(project)
        return {}

    def _update(self, message: Message, access: AccessToken | None, at: float) -> Reply:
        project = _project(part(message, "project"))
        self._found(project["id"])
        self._put(project)
        return {}

    def _put(self, project: Reply) -> None:
        self._shelves.put_document(_KIND, project["id"], project)

    def _found(self, name: str) -> Reply:
        project: Reply | None = self._shelves.document(_KIND, name)
        if project is None:
            raise ConnectError("not_found", f"there is no project {name[:40]!r}")
        return project


def _project(message: Message) -> Reply:
    """What is kept of flyteidl2.project.Project."""
    name = text(message, "id")
    if not _ID.fullmatch(name):
        raise invalid("id", "needs 1 to 63 small letters, digits or dashes")
    project: Reply = {"id": name, "name": text(message, "name") or name}
    project["description"] = text(message, "description")
    if any(len(value) > _TEXT_MAX for value in project.values()):
        raise invalid("project", f"has a text of more than {_TEXT_MAX} characters")
    if labels := part(message, "labels"):
        project["labels"] = labels
    state = member(message, "state") or _STATES[0]
    if state not in _STATES:
        raise invalid("state", f"must be one of {', '.join(_STATES)}")
    if state != _STATES[0]:
        project["state"] = state
    return project


def _shown(project: Reply) -> Reply:
    domains = [{"id": domain, "name": domain.capitalize()} for domain in DOMAINS]
    return {**project, "domains": domains, "org": ORGANIZATION}


def _field(project: Reply, name: str) -> str:
    if name == "state":
        return str(_STATES.index(project.get("state", _STATES[0])))
    value = project.get({"identifier": "id"}.get(name, name))
    return value if isinstance(value, str) else ""
