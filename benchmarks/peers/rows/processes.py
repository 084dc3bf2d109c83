"""Eight processes with one stored login whose token has expired: who is logged in afterwards?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from ...logins import TTL
from ...server import Server, serving
from ...table import Measure, exactly
from ..comparison import Column, Comparison, Figure, turns
from ..environments import OURS, Environment
from ..peer import Peer, login_at

ROUNDS: Final = 5
PROCESSES: Final = 8
TOKEN_LATENCY: Final = 0.1


def rows(found: list[Environment], *, quick: bool) -> Iterator[Comparison]:
    with (
        serving(reuse_detection=True, grace=0.0) as server,
        tempfile.TemporaryDirectory(prefix="flyteauth-bench-") as directory,
    ):
        server.set(token_latency=TOKEN_LATENCY)
        seen: dict[str, list[dict[str, float]]] = {}
        rounds, count = (1, 4) if quick else (ROUNDS, PROCESSES)
        keeping = [each for each in found if _keeps(each, Path(directory))]
        for index in range(rounds):
            for environment in turns(keeping, index):
                home = Path(directory) / f"{environment.name}-{index}"
                home.mkdir()
                one = _round(server, environment, home, count)
                seen.setdefault(environment.name, []).append(one)
    figures: dict[str, dict[str, Figure]] = {
        name: {column: [one[column] for one in each] for column in each[0]}
        for name, each in seen.items()
    }
    yield Comparison(
        "processes",
        f"{count} processes, one stored login with an expired rotating token",
        [
            Column("logged in afterwards"),
            Column("token requests"),
            Column("the next process is logged in"),
            Column("wall", "s"),
        ],
        figures,
        list(_targets(figures, count)),
        ["a server that ends a login when a refresh token is used twice"],
    )


def _targets(figures: dict[str, dict[str, Figure]], count: int) -> Iterator[Measure]:
    if OURS in figures:
        ours = figures[OURS]
        yield exactly(f"{OURS}: logged in afterwards, at least", _least(ours, "logged in"), count)
        yield exactly(f"{OURS}: token requests, at most", -_least(ours, "token", -1), 1)


def _least(figures: dict[str, Figure], column: str, sign: float = 1) -> float:
    """The least sample of the column that begins so; with -1, minus the greatest."""
    figure = next(each for name, each in figures.items() if name.startswith(column))
    assert not isinstance(figure, str)
    return min(sign * sample for sample in figure)


def _keeps(environment: Environment, home: Path) -> bool:
    with Peer(environment, home) as peer:
        return "kept" in peer.can


def _round(server: Server, environment: Environment, home: Path, count: int) -> dict[str, float]:
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(environment, home)) for _ in range(count)]
        order: dict[str, Any] = login_at(server)
        server.advance(TTL + 1)
        order["expires_at"] = order["obtained_at"] - 1
        peers[0].tell("keep", **order)
        for peer in peers:
            peer.begin("open", which="kept", **order)
        for peer in peers:
            peer.hear()
        server.reset()
        url = f"{server.base_url}/resource"
        for peer in peers:
            peer.begin("call", which="kept", url=url)
        heard = [peer.hear() for peer in peers]
        requests = server.counts()["token"]
        again = [peer.tell("call", which="kept", url=url) for peer in peers]
        with Peer(environment, home) as later:
            later.tell("open", which="kept", **order)
            last = later.tell("call", which="kept", url=url)
    return {
        "logged in afterwards": sum(_good(said) for said in again),
        "token requests": requests,
        "the next process is logged in": float(_good(last)),
        "wall": max(said["seconds"] for said in heard),
    }


def _good(said: dict[str, Any]) -> bool:
    return said.get("status") == 200
