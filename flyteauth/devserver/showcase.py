"""What there is to list before anybody has deployed anything; fixed, for tests to count on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from .connect import Message, Reply, page, part, text

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
_DEPLOYED_BY: Final = {
    "user": {
        "id": {"subject": "alice"},
        "spec": {"firstName": "Alice", "email": "alice@example.com"},
    }
}


def tasks() -> list[Reply]:
    """flyteidl2.task.TaskDetails."""
    return [_task(*where, name) for where, name in _everywhere(_TASKS)]


def _task(project: str, domain: str, name: str) -> Reply:
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
            "deployedBy": _DEPLOYED_BY,
            "shortName": short_name,
            "deployedAt": _DEPLOYED_AT,
            "environmentName": environment,
        },
        "spec": {
            "taskTemplate": {
                "id": {
                    "resourceType": "TASK",
                    "org": ORGANIZATION,
                    "project": project,
                    "domain": domain,
                    "name": name,
                    "version": version,
                },
                "type": "python",
                "interface": {"inputs": {}, "outputs": {}},
            },
            "shortName": short_name,
            "environment": {"name": environment},
        },
    }


def list_apps(message: Message) -> Reply:
    """flyteidl2.app.AppService/List."""
    wanted = part(message, "project")
    here = {"project": text(wanted, "name"), "domain": text(wanted, "domain")}
    apps = [
        app
        for app in _apps()
        if all(value in {"", app["metadata"]["id"][key]} for key, value in here.items())
    ]
    return page("apps", apps, part(message, "request"))


def get_app(message: Message) -> Reply | None:
    """flyteidl2.app.AppService/Get; None if there is no such app."""
    wanted = part(message, "appId", "app_id")
    keys = ("project", "domain", "name")
    for app in _apps():
        if all(text(wanted, key) == app["metadata"]["id"][key] for key in keys):
            return {"app": app}
    return None


def _apps() -> list[Reply]:
    return [_app(*where, name) for where, name in _everywhere(_APPS)]


def _app(project: str, domain: str, name: str) -> Reply:
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


def _everywhere(
    catalogue: Mapping[str, Sequence[str]],
) -> Iterable[tuple[tuple[str, str], str]]:
    for project, names in catalogue.items():
        for domain in DOMAINS:
            kept = names[:_PROMOTED] if domain == "production" else names
            yield from (((project, domain), name) for name in kept)
