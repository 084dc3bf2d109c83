"""What is called on the control plane beside logging in, and how the replies are read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

from attrs import field, frozen

from ._default import current_session
from .errors import InvalidResponse
from .session import Session, in_portal

T = TypeVar("T")

PAGE: Final = 100
PAGES_MAX: Final = 10_000

LIST_PROJECTS: Final = "/flyteidl2.project.ProjectService/ListProjects"
LIST_TASKS: Final = "/flyteidl2.task.TaskService/ListTasks"
LIST_APPS: Final = "/flyteidl2.app.AppService/List"
API_KEYS: Final = "/cloudidl.identity.AppsService"  # Union's; an app is an OAuth client there

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


class Call(Generic[T]):
    """One call, made when it is awaited, or by ``result`` where there is no event loop."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work

    def __await__(self) -> Generator[Any, Any, T]:
        return self._work.__await__()

    def result(self) -> T:
        """What the call returns; blocks until then."""
        return in_portal(self._run)

    async def _run(self) -> T:
        return await self._work


def chosen(session: Session | None) -> Session:
    return session if session is not None else current_session()


# The control plane's replies are not trusted either: a member of a wrong type is its fault.


def message(body: Json, name: str) -> Json:
    return _typed(body, name, dict, {})  # type: ignore[no-any-return]


def messages(body: Json, name: str) -> list[Json]:
    items = _typed(body, name, list, [])
    if not all(isinstance(item, dict) for item in items):
        raise malformed(name)
    return items  # type: ignore[no-any-return]


def text(body: Json, name: str) -> str:
    return _typed(body, name, str, "")  # type: ignore[no-any-return]


def word(body: Json, name: str, prefix: str) -> str:
    """A value of an enum, which JSON writes as a name, or as a number if it has none."""
    value = body.get(name)
    if isinstance(value, int):
        return str(value)
    return text(body, name).removeprefix(prefix).lower()


def _typed(body: Json, name: str, kind: type, default: Any) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise malformed(name)
    return value


def malformed(name: str) -> InvalidResponse:
    return InvalidResponse(
        f"the control plane's answer has a malformed {name!r}; report this to whoever runs it",
        reason="malformed",
    )
