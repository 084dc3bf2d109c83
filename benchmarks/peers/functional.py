"""What no clock is needed for: the same case for each library, and a word for what came of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from ..server import Server, serving
from .comparison import Column, Comparison
from .environments import Environment
from .peer import Peer

AT_ONCE: Final = 3

Case = Callable[["Bench"], str]


class Bench:
    """A library that is tried, with a server and a home of its own."""

    def __init__(self, environment: Environment, server: Server, home: Path) -> None:
        self.environment = environment
        self.server = server
        self._homes = home
        self._number = 0
        self.home = home
        self.new_home()

    @property
    def name(self) -> str:
        return self.environment.name

    def new_home(self) -> None:
        """Nothing is stored any more."""
        self._number += 1
        self.home = self._homes / str(self._number)
        self.home.mkdir(parents=True)

    def peer(self) -> Peer:
        return Peer(self.environment, self.home)


def tried(
    key: str,
    title: str,
    found: Sequence[Environment],
    cases: Mapping[str, Case],
    *,
    able: Callable[[frozenset[str]], bool],
    settings: Mapping[str, Any] | None = None,
    at_once: int = AT_ONCE,
    notes: Sequence[str] = (),
) -> Comparison:
    """A row for each case, with a word for each library that is *able*; *at_once* of them are
    tried.
    """

    def words(environment: Environment) -> dict[str, str]:
        with (
            serving(**(settings or {})) as server,
            tempfile.TemporaryDirectory(
                prefix="flyteauth-bench-", ignore_cleanup_errors=True
            ) as directory,
        ):
            bench = Bench(environment, server, Path(directory))
            with bench.peer() as peer:
                if not able(peer.can):
                    return {}
            said = {}
            for name, case in cases.items():
                bench.new_home()
                said[name] = case(bench)
            return said

    with ThreadPoolExecutor(at_once) as pool:
        by_peer = dict(zip([each.name for each in found], pool.map(words, found), strict=True))
    columns = [Column(name) for name, said in by_peer.items() if said]
    figures = {case: {name: said[case] for name, said in by_peer.items() if said} for case in cases}
    return Comparison(key, title, columns, figures, (), notes)


def word(said: Mapping[str, Any]) -> str:
    """What came of a call."""
    match said["kind"]:
        case "answered":
            return "ok" if said.get("status", 200) == 200 else str(said["status"])
        case "login":
            return "login asked"
        case "typed":
            return f"T {said['error']}"
        case "http":
            return f"H {said['error']}"
        case _:
            return f"leak {said['error']}"


KEY: Final = (
    "ok: taken; T: a typed error of the library; H: one of the HTTP library below it; leak: an "
    "exception of nobody's; login asked: a person would have to come"
)
