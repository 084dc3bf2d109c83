"""
The few control-plane calls that people check a login with::

    for project in remote.Project.listall(): ...
    async for task in remote.Task.listall(project="flytesnacks", domain="development"): ...
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

from attrs import field, frozen

from ._default import auth_metadata as auth_metadata, current_session  # noqa: PLC0414  # as in flyte
from .errors import ConfigError, InvalidResponse
from .session import Session, in_portal

T = TypeVar("T")

PAGE: Final = 100
PAGES_MAX: Final = 10_000

Json = Mapping[str, Any]


@frozen
class Listing(Generic[T]):
    """Everything of a kind, fetched page by page as it is iterated, with ``for`` or ``async for``.

    Iterating raises the errors of ``Session.call``.
    """

    _fetch: Callable[[str], Any] = field(repr=False)

    async def __aiter__(self) -> AsyncIterator[T]:
        token = ""
        for _ in range(PAGES_MAX):
            items, following = await self._fetch(token)
            for item in items:
                yield item
            if not following or following == token:
                return
            token = following

    def __iter__(self) -> Iterator[T]:
        token = ""
        for _ in range(PAGES_MAX):
            items, following = in_portal(self._fetch, token)
            yield from items
            if not following or following == token:
                return
            token = following


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
            reply = await _session(session).call(
                "/flyteidl2.project.ProjectService/ListProjects",
                {"limit": PAGE, "filters": "eq(state, 0)", "token": token},
            )
            page = _object(reply, "projects")
            return [cls._parse(item) for item in _list(page, "projects")], _text(page, "token")

        return Listing(fetch)

    @classmethod
    def _parse(cls, item: Json) -> Project:
        return cls(
            id=_text(item, "id"),
            name=_text(item, "name"),
            description=_text(item, "description"),
            domains=tuple(_text(domain, "id") for domain in _list(item, "domains")),
        )


@frozen
class Task:
    """A registered task: its newest version."""

    name: str
    version: str
    project: str
    domain: str

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
        return _in_project("/flyteidl2.task.TaskService/ListTasks", where, "tasks", cls._parse)

    @classmethod
    def _parse(cls, item: Json) -> Task:
        task_id = _object(item, "taskId")
        return cls(
            name=_text(task_id, "name"),
            version=_text(task_id, "version"),
            project=_text(task_id, "project"),
            domain=_text(task_id, "domain"),
        )


@frozen
class App:
    """A deployed app."""

    name: str
    project: str
    domain: str

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
        return _in_project("/flyteidl2.app.AppService/List", where, "apps", cls._parse)

    @classmethod
    def _parse(cls, item: Json) -> App:
        app_id = _object(_object(item, "metadata"), "id")
        return cls(
            name=_text(app_id, "name"),
            project=_text(app_id, "project"),
            domain=_text(app_id, "domain"),
        )


def _session(session: Session | None) -> Session:
    return session if session is not None else current_session()


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
        session = _session(where.session)
        request = {"limit": PAGE, "token": token}
        identifier = await where.identifier(session)
        reply = await session.call(procedure, {where.member: identifier, "request": request})
        return [parse(item) for item in _list(reply, items)], _text(reply, "token")

    return Listing(fetch)


# The control plane's replies are not trusted either: a member of a wrong type is its fault.


def _object(body: Json, name: str) -> Json:
    return _typed(body, name, dict, {})  # type: ignore[no-any-return]


def _list(body: Json, name: str) -> list[Json]:
    items = _typed(body, name, list, [])
    if not all(isinstance(item, dict) for item in items):
        raise _malformed(name)
    return items  # type: ignore[no-any-return]


def _text(body: Json, name: str) -> str:
    return _typed(body, name, str, "")  # type: ignore[no-any-return]


def _typed(body: Json, name: str, kind: type, default: Any) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise _malformed(name)
    return value


def _malformed(name: str) -> InvalidResponse:
    return InvalidResponse(
        f"the control plane's answer has a malformed {name!r}; report this to whoever runs it",
        reason="malformed",
    )
