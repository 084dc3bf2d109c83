"""``flyteauth get``: what there is at the control plane."""

from __future__ import annotations

import argparse
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from attrs import asdict, frozen

from ..errors import FlowError, quote
from . import _session
from ._output import add_output, document, say, table

if TYPE_CHECKING:
    from ..config import Settings
    from ..session import Session

LIMIT: Final = 100

Listed = AsyncIterator[Any]


@frozen
class _Kind:
    """Something that can be listed: its columns, and what stands in them."""

    name: str
    plural: str
    columns: Sequence[str]
    row: Callable[[Any], Sequence[str]]
    listed: Callable[[Session, argparse.Namespace], Listed]
    identifier: Callable[[Any], str] | None
    """What a NAME is compared with; None if only the one of that name is listed then."""
    in_project: bool = False

    def is_named(self, item: object, name: str) -> bool:
        return self.identifier is None or self.identifier(item) == name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    for kind in _KINDS:
        of_kind = kinds.add_parser(
            kind.name,
            aliases=[kind.plural.replace(" ", "-").lower()],
            help=f"list the {kind.plural}, or show one",
            description=f"List the {kind.plural} of the control plane, or show one of them.",
        )
        of_kind.add_argument("name", nargs="?", metavar="NAME", help="only this one")
        if kind.in_project:
            of_kind.add_argument(
                "--project", metavar="NAME", help="default: the configured one, else all"
            )
            of_kind.add_argument(
                "--domain", metavar="NAME", help="default: the configured one, else all"
            )
        add_output(of_kind, "table")
        of_kind.add_argument(
            "--limit", type=_positive, metavar="N", default=LIMIT, help=f"default: {LIMIT}"
        )
        _session.add_arguments(of_kind)
        of_kind.set_defaults(kind=kind)


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows; write 1 or more")
    return number


def main(options: argparse.Namespace) -> int:
    kind: _Kind = options.kind

    async def get(session: Session) -> tuple[list[Any], Settings]:
        found: list[Any] = []
        async for item in kind.listed(session, options):
            if options.name is not None and not kind.is_named(item, options.name):
                continue
            found.append(item)
            if options.name is None and len(found) > options.limit:
                break
        return found, await session.settings()

    items, settings = _session.run(options, get, interactive=True)
    where = _where(kind, options, settings)
    if options.name is not None and not items:
        raise FlowError(
            f"there is no {kind.name} named {quote(options.name, 100)} {where}; "
            f"list them with: flyteauth get {kind.name}",
            reason="not_found",
        )
    shown = items if options.name is not None else items[: options.limit]
    if options.output == "json":
        document([asdict(item) for item in shown])
    elif shown:
        table(kind.columns, [kind.row(item) for item in shown])
    if not shown:
        say(f"There are no {kind.plural} {where}.")
    elif len(shown) < len(items):
        say(f"Only the first {options.limit} are shown; --limit N shows more.")
    return 0


# What is listed.


def _projects(session: Session, options: argparse.Namespace) -> Listed:
    from ..remote import Project

    return aiter(Project.listall(session=session))


async def _tasks(session: Session, options: argparse.Namespace) -> Listed:
    from ..remote import Task

    async for project, domain in _places(session, options):
        async for task in Task.listall(project, domain, session=session):
            yield task


async def _apps(session: Session, options: argparse.Namespace) -> Listed:
    from ..remote import App

    async for project, domain in _places(session, options):
        async for app in App.listall(project, domain, session=session):
            yield app


async def _api_keys(session: Session, options: argparse.Namespace) -> Listed:
    from ..remote import ApiKey

    if options.name is not None:
        yield await ApiKey.get(options.name, session=session)
        return
    async for key in ApiKey.listall(session=session):
        yield key


async def _places(session: Session, options: argparse.Namespace) -> AsyncIterator[tuple[str, str]]:
    """Each project with each of its domains, as far as neither is said or configured."""
    from ..remote import Project

    settings = await session.settings()
    project, domain = _chosen(options, settings)
    if project and domain:
        yield project, domain
        return
    async for each in Project.listall(session=session):
        if project in {None, each.id}:
            for name in each.domains:
                if domain in {None, name}:
                    yield each.id, name


def _chosen(options: argparse.Namespace, settings: Settings) -> tuple[str | None, str | None]:
    """The project and the domain that were asked for, here or by configuration."""
    return options.project or settings.project, options.domain or settings.domain


def _where(kind: _Kind, options: argparse.Namespace, settings: Settings) -> str:
    """Where was looked, in words."""
    at = f"at {'' if settings.endpoint is None else settings.endpoint.key}"
    if not kind.in_project:
        return at
    names = zip(("project", "domain"), _chosen(options, settings), strict=True)
    said = " and ".join(f"{what} {quote(name, 100)}" for what, name in names if name)
    return f"in {said} {at}" if said else at


def _date(at: float | None) -> str:
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


_KINDS: Final = (
    _Kind(
        "project",
        "projects",
        ("PROJECT", "NAME", "DOMAINS", "DESCRIPTION"),
        lambda x: (x.id, x.name, ", ".join(x.domains), x.description),
        _projects,
        lambda x: x.id,
    ),
    _Kind(
        "task",
        "tasks",
        ("TASK", "VERSION", "PROJECT", "DOMAIN", "DEPLOYED"),
        lambda x: (x.name, x.version, x.project, x.domain, x.deployed_at),
        _tasks,
        lambda x: x.name,
        in_project=True,
    ),
    _Kind(
        "app",
        "apps",
        ("APP", "STATUS", "PROJECT", "DOMAIN", "URL"),
        lambda x: (x.name, x.status, x.project, x.domain, x.url),
        _apps,
        lambda x: x.name,
        in_project=True,
    ),
    _Kind(
        "api-key",
        "API keys",
        ("API KEY", "CLIENT ID", "CREATED"),
        lambda x: (x.name, x.client_id, _date(x.created_at)),
        _api_keys,
        None,  # the server finds it by its name and by its client id
    ),
)
