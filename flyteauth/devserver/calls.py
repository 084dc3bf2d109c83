"""
The calls that need a token: Connect's unary protocol in JSON, and what they list.

Message shapes are those of flyteidl2, written as its JSON mapping does: camelCase, empty fields
left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qs

from .._sansio.http import Headers, Request, Response
from .identity import profile, subject_of
from .issued import AccessToken
from .messages import Target, json_response, parse_json

PAGE: Final = 100
PAGE_MAX: Final = 1000

Message = Mapping[str, Any]

_STATUS: Final = {
    "invalid_argument": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "failed_precondition": 400,
    "not_found": 404,
    "already_exists": 409,
    "resource_exhausted": 429,
    "unimplemented": 501,
    "unavailable": 503,
}


class ConnectError(Exception):
    """An error of the Connect protocol: a code and a message."""

    def __init__(self, code: str, message: str, headers: Headers = ()) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.headers = headers

    def response(self) -> Response:
        message = {"code": self.code, "message": self.message}
        return json_response(_STATUS[self.code], message, self.headers)


def read_message(request: Request, target: Target) -> Message | Response:
    """The request message of a unary call; or what refuses one in another encoding."""
    if (request.header("connect-protocol-version") or "1") != "1":
        raise ConnectError("invalid_argument", "connect-protocol-version must be 1")
    if request.method in {"GET", "HEAD"}:
        query = parse_qs(target.query, keep_blank_values=True)
        encoding = query.get("encoding", ["json"])[0]
        body = query.get("message", ["{}"])[0].encode(errors="replace")
        if encoding != "json" or "base64" in query or "compression" in query:
            raise ConnectError("invalid_argument", "only encoding=json is supported")
    else:
        content_type = (request.header("content-type") or "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            return Response(415, (("accept-post", "application/json"),))
        if (request.header("content-encoding") or "identity").lower() != "identity":
            raise ConnectError("unimplemented", "compressed requests are not supported")
        body = request.body
    message = parse_json(body)
    if message is None:
        raise ConnectError("invalid_argument", "the request is not a JSON object")
    return message


def user_info(access: AccessToken | None) -> dict[str, Any]:
    """flyteidl2.auth.UserInfoResponse."""
    if access is None:
        return {"subject": "anonymous", "name": "Anonymous"}
    if access.family is None:
        return {"subject": access.subject, "name": access.subject}
    known = profile(access.subject)
    return {
        "subject": subject_of(access.subject),
        "name": known["name"],
        "preferredUsername": known["preferred_username"],
        "email": known["email"],
    }


# What there is to list. Fixed, so that a test can count on it.

ORGANIZATION: Final = "flyteauth"
DOMAINS: Final = ("development", "staging", "production")
PROJECTS: Final = {
    "flytesnacks": "Examples to try things out",
    "churn": "Which customers are about to leave",
    "demand-forecast": "What will be sold next week",
    "document-search": "Embeddings and retrieval",
}
_TASKS: Final = {
    "flytesnacks": ("hello_world.main", "hello_world.greet", "ml.train", "ml.evaluate"),
    "churn": ("features.build", "model.train", "model.evaluate", "model.publish"),
    "demand-forecast": ("ingest.sales", "ingest.weather", "forecast.run"),
    "document-search": ("index.chunk", "index.embed", "search.answer"),
}
_APPS: Final = {
    "flytesnacks": ("hello-fastapi",),
    "churn": ("churn-dashboard",),
    "demand-forecast": (),
    "document-search": ("search-api", "search-ui"),
}
# Production has only what was promoted.
_PROMOTED: Final = 2
_DEPLOYED_AT: Final = "2025-06-02T09:30:00Z"


def list_projects(message: Message) -> dict[str, Any]:
    """flyteidl2.project.ProjectService/ListProjects."""
    domains = [{"id": domain, "name": domain.capitalize()} for domain in DOMAINS]
    projects = [
        {"id": name, "name": name, "domains": domains, "description": text, "org": ORGANIZATION}
        for name, text in PROJECTS.items()
    ]
    return {"projects": _page("projects", projects, message)}


def list_tasks(message: Message) -> dict[str, Any]:
    """flyteidl2.task.TaskService/ListTasks."""
    wanted = part(message, "projectId", "project_id")
    tasks = [_task(*where, name) for where, name in _entities(_TASKS, wanted)]
    reply = _page("tasks", tasks, part(message, "request"))
    if tasks:
        reply["metadata"] = {"total": len(tasks), "filteredTotal": len(tasks)}
    return reply


def list_apps(message: Message) -> dict[str, Any]:
    """flyteidl2.app.AppService/List."""
    wanted = part(message, "project")
    apps = [_app(*where, name) for where, name in _entities(_APPS, wanted)]
    return _page("apps", apps, part(message, "request"))


LISTS: Final[Mapping[str, Callable[[Message], dict[str, Any]]]] = {
    "/flyteidl2.project.ProjectService/ListProjects": list_projects,
    "/flyteidl2.task.TaskService/ListTasks": list_tasks,
    "/flyteidl2.app.AppService/List": list_apps,
}


def _entities(
    catalogue: Mapping[str, Sequence[str]], wanted: Message
) -> Iterable[tuple[tuple[str, str], str]]:
    """What there is in a project and domain; everywhere, where the request does not say."""
    for project, names in catalogue.items():
        for domain in DOMAINS:
            here = {"name": project, "domain": domain}
            if all(wanted.get(key) in (None, "", value) for key, value in here.items()):
                kept = names[:_PROMOTED] if domain == "production" else names
                yield from (((project, domain), name) for name in kept)


def _task(project: str, domain: str, name: str) -> dict[str, Any]:
    environment, _, short_name = name.partition(".")
    version = hashlib.sha256(f"{project}/{domain}/{name}".encode()).hexdigest()[:12]
    return {
        "taskId": {
            "org": ORGANIZATION,
            "project": project,
            "domain": domain,
            "name": name,
            "version": version,
        },
        "metadata": {
            "deployedBy": {"user": {"id": {"subject": "alice"}}},
            "shortName": short_name,
            "deployedAt": _DEPLOYED_AT,
            "environmentName": environment,
        },
    }


def _app(project: str, domain: str, name: str) -> dict[str, Any]:
    identifier = {"org": ORGANIZATION, "project": project, "domain": domain, "name": name}
    active = {"lastTransitionTime": _DEPLOYED_AT, "deploymentStatus": "DEPLOYMENT_STATUS_ACTIVE"}
    return {
        "metadata": {"id": identifier, "revision": "1"},
        "spec": {"desiredState": "DESIRED_STATE_ACTIVE", "profile": {"type": "FastAPI"}},
        "status": {
            "currentReplicas": 1,
            "ingress": {"publicUrl": f"https://{name}.{domain}.apps.example.com"},
            "createdAt": _DEPLOYED_AT,
            "conditions": [active],
        },
    }


def part(message: Message, *names: str) -> Message:
    """A message within a message; JSON may spell a field either way, and null is absent."""
    for name in names:
        part = message.get(name)
        if part is not None:
            if not isinstance(part, dict):
                raise ConnectError("invalid_argument", f"{name} is not a message")
            return part
    return {}


def _page(name: str, entities: Sequence[object], request: Message) -> dict[str, Any]:
    """The page that ``limit`` and ``token`` ask for, and the token of the next one."""
    limit = min(number(request, "limit") or PAGE, PAGE_MAX)
    start = number(request, "token")
    shown = entities[start : start + limit]
    reply: dict[str, Any] = {}
    if shown:
        reply[name] = list(shown)
    if start + limit < len(entities):
        reply["token"] = str(start + limit)
    return reply


def number(request: Message, name: str) -> int:
    """A number that is not negative; JSON may write it as text, and absent is zero."""
    value = request.get(name)
    if value is None or value == "":
        return 0
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32:
        return value
    raise ConnectError("invalid_argument", f"{name} is not valid")
