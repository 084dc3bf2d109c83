"""One fault during a refresh: is the login kept, and does the error say when to go on?"""

from __future__ import annotations

import re
import socket
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
from attrs import define

from flyteauth._io.transport import HttpxTransport
from flyteauth.errors import Error, Unreachable
from flyteauth.session import Session

from ..logins import Kept, Watcher, person, temporary_home
from ..server import Server, serving
from ..table import Row, exactly, known, on_both
from ..worker import status

NOWHERE: Final = "login.invalid"  # never resolved (RFC 6761 §6.4), and nobody is asked here
QUICK_DEADLINE: Final = 3.0  # for a request, in place of 30 s

FAULTS: Final = (
    "timeout",
    "DNS",
    "500",
    "502 HTML",
    "503",
    "429 for 2 s",
    "429 for 5 min",
    "TLS",
    "captive portal",
)
SLOW_FAULTS: Final = ("429 for 2 min",)  # what is waited for, as long as a refresh may take
_WHEN: Final = re.compile(r"try again in \d+ (s|min|h|days)$")


@define
class Case:
    """A login whose next refresh meets a fault, and what came of that."""

    name: str
    session: Session
    kept: Kept
    watcher: Watcher
    error: Error | None = None
    seconds: float = 0.0
    unchanged: bool = False
    goes_on: bool | None = None
    """After the fault was mended, where it can be."""


def rows(*, quick: bool) -> Iterator[Row]:
    """All faults at once, each with a login of its own."""

    def meet(backend: str) -> tuple[str, list[Case]]:
        with serving() as server:
            return backend, anyio.run(_all, server, home, quick, backend=backend)

    with (
        temporary_home() as outer,
        temporary_home(BROWSER=f"touch {outer}/browser") as home,
        _unresolved(NOWHERE),
    ):
        met = list(on_both(meet))
        opened = (outer / "browser").exists()
    for backend, cases in met:
        for case in cases:
            yield _row(case, backend, opened=opened)


def _row(case: Case, backend: str, *, opened: bool) -> Row:
    error = case.error
    when = error.retry_after if isinstance(error, Unreachable) else None
    measures = [
        exactly("Unreachable", isinstance(error, Unreachable), 1),
        exactly("the stored login is the same, byte for byte", case.unchanged, 1),
        exactly("browsers opened, codes shown", case.watcher.prompts + opened, 0),
        exactly("the text says when to try again", _WHEN.search(str(error)) is not None, 1),
        exactly("retry_after is set", when is not None, 1),
        known("retry_after", when or 0.0, "s"),
        known("until the error", case.seconds, "s"),
    ]
    if case.goes_on is not None:
        measures.append(exactly("goes on once the server is well", case.goes_on, 1))
    return Row(f"a refresh that meets: {case.name}", backend, measures, [str(error)])


async def _all(server: Server, home: Path, quick: bool) -> list[Case]:
    cases: list[Case] = []
    names = FAULTS if quick else FAULTS + SLOW_FAULTS

    async def prepare(name: str) -> None:
        watcher = Watcher()
        async with _session(server, home, name, watcher, quick=False) as session:
            await session.login()
            kept = await Kept.of(session)
        watcher.seen.clear()
        path = f"/fault/{urllib.parse.quote('hang' if name == 'timeout' else name)}/token"
        where = {
            "DNS": f"https://{NOWHERE}/oauth2/token",
            "TLS": f"{server.tls_url}/oauth2/token",
        }.get(name, server.base_url + path)
        kept.expire(token_endpoint=where)
        cases.append(Case(name, _session(server, home, name, watcher, quick=quick), kept, watcher))

    async def meet(case: Case) -> None:
        before, begun = case.kept.path.read_bytes(), time.perf_counter()
        try:
            await case.session.headers()
        except Error as error:
            case.error = error
        case.seconds = time.perf_counter() - begun
        case.unchanged = case.kept.path.read_bytes() == before

    async def go_on(case: Case) -> None:
        if case.name not in {"DNS", "TLS"}:
            headers = await case.session.headers()
            case.goes_on = status(f"{server.base_url}/resource", headers) == 200

    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(prepare, name)
    for step in (meet, go_on):
        async with anyio.create_task_group() as group:
            for case in cases:
                group.start_soon(step, case)
        server.set(mended=True)
    for case in cases:
        await case.session.aclose()
    return sorted(cases, key=lambda case: names.index(case.name))


def _session(server: Server, home: Path, name: str, watcher: Watcher, *, quick: bool) -> Session:
    """A session that may ask a person, so that it is its own decision if it does not."""
    arguments: dict[str, Any] = {"account": name, "presenter": watcher}
    arguments["interactive"] = lambda: True
    if quick:
        arguments["transport"] = HttpxTransport(deadline=QUICK_DEADLINE, plain_host="localhost")
        arguments["directory"] = home / "flyteauth"
    return person(server, **arguments)


@contextmanager
def _unresolved(name: str) -> Iterator[None]:
    """What a resolver says to a name that there is not, without asking any."""
    real: Any = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        if host in {name, name.encode()}:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **options)

    socket.getaddrinfo = look_up
    try:
        yield
    finally:
        socket.getaddrinfo = real
