"""
The few control-plane calls that people check a login with::

    for project in remote.Project.listall(): ...
    async for task in remote.Task.listall(project="flytesnacks", domain="development"): ...
    key = await remote.ApiKey.create("my-ci-key")  # or .result(), where there is no event loop
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from attrs import frozen

from ._api_keys import ApiKey as ApiKey, CreatedApiKey as CreatedApiKey  # noqa: PLC0414
from ._default import auth_metadata as auth_metadata  # noqa: PLC0414  # as in flyte
from ._procedures import (
    LIST_APPS,
    LIST_PROJECTS,
    LIST_TASKS,
    PAGE,
    Call as Call,  # noqa: PLC0414
    Json,
    Listing as Listing,  # noqa: PLC0414
    chosen,
    message,
    messages,
    text,
    word,
)
from .errors import ConfigError
from .session import Session

T = TypeVar("T")


@frozen
class Project:
    """A project of the control plane, and the names of its domains."""

    id: str
    name: str
    description: str = ""
    domains: tuple[str, ...] = ()

    @classmethod
    def listall(cls, *, session: Session | None = None) -> Listing[Project]:
        """All active projects."""

        async def fetch(token: str) -> tuple[list[Project], str]:
            reply = await chosen(session).call(
                LIST_PROJECTS,
                {"limit": PAGE, "filters": "eq(state, 0)", "token": token},
            )
            page = message(reply, "projects")
            return [cls._parse(item) for item in messages(page, "projects")], text(page, "token")

        return Listing(fetch)

    @classmethod
    def _parse(cls, item: Json) -> Project:
        return cls(
            id=text(item, "id"),
            name=text(item, "name"),
            description=text(item, "description"),
            domains=tuple(text(domain, "id") for domain in messages(item, "domains")),
        )


@frozen
class Task:
    """A registered task: its newest version. ``deployed_at`` is in RFC 3339, or empty."""

    name: str
    version: str
    project: str
    domain: str
    short_name: str = ""
    environment: str = ""
    deployed_at: str = ""

    @classmethod
    def listall(
        cls,
        project: str | None = None,
        domain: str | None = None,
        *,
        session: Session | None = None,
    ) -> Listing[Task]:
        """All tasks of *project* in *domain*; both default to those of the configuration."""
        where = _Place(session, project, domain, member="projectId")
        return _in_project(LIST_TASKS, where, "tasks", cls._parse)

    @classmethod
    def _parse(cls, item: Json) -> Task:
        task_id, metadata = message(item, "taskId"), message(item, "metadata")
        return cls(
            name=text(task_id, "name"),
            version=text(task_id, "version"),
            project=text(task_id, "project"),
            domain=text(task_id, "domain"),
            short_name=text(metadata, "shortName"),
            environment=text(metadata, "environmentName"),
            deployed_at=text(metadata, "deployedAt"),
        )


@frozen
class App:
    """A deployed app. ``status``, such as "active", and ``url`` are empty where not known."""

    name: str
    project: str
    domain: str
    status: str = ""
    url: str = ""

    @classmethod
    def listall(
        cls,
        project: str | None = None,
        domain: str | None = None,
        *,
        session: Session | None = None,
    ) -> Listing[App]:
        """All apps of *project* in *domain*; both default to those of the configuration."""
        where = _Place(session, project, domain, member="project")
        return _in_project(LIST_APPS, where, "apps", cls._parse)

    @classmethod
    def _parse(cls, item: Json) -> App:
        app_id, status = message(message(item, "metadata"), "id"), message(item, "status")
        conditions = messages(status, "conditions")
        latest = conditions[-1] if conditions else {}
        return cls(
            name=text(app_id, "name"),
            project=text(app_id, "project"),
            domain=text(app_id, "domain"),
            status=word(latest, "deploymentStatus", "DEPLOYMENT_STATUS_"),
            url=text(message(status, "ingress"), "publicUrl"),
        )


@frozen
class _Place:
    """A project and a domain, and the member of a request that names them."""

    session: Session | None
    project: str | None
    domain: str | None
    member: str

    async def identifier(self, session: Session) -> Json:
        """flyteidl2.common.ProjectIdentifier."""
        settings = await session.settings()
        name, domain = self.project or settings.project, self.domain or settings.domain
        if not name or not domain:
            missing = "project" if not name else "domain"
            raise ConfigError(
                f"no {missing} is set; pass {missing}=, or set task.{missing} in the configuration",
                reason=missing,
            )
        organization = {"organization": settings.org} if settings.org else {}
        return {"name": name, "domain": domain, **organization}


def _in_project(
    procedure: str, where: _Place, items: str, parse: Callable[[Json], T]
) -> Listing[T]:
    """What *procedure* lists under *items* of its reply."""

    async def fetch(token: str) -> tuple[list[T], str]:
        session = chosen(where.session)
        request = {"limit": PAGE, "token": token}
        identifier = await where.identifier(session)
        reply = await session.call(procedure, {where.member: identifier, "request": request})
        return [parse(item) for item in messages(reply, items)], text(reply, "token")

    return Listing(fetch)
