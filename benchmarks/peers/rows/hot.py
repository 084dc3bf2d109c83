"""A call with a good token in hand, on a network that answers at once: what do credentials add?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from ...server import Server, serving
from ..comparison import Column, Comparison, Figure, first, turns
from ..environments import Environment
from ..peer import BLOCKING, Peer, login_at, started

ROUNDS: Final = 5
PAIRS: Final = 40  # in a round
LOOPS: Final = 50
OVER_REQUESTS: Final = (
    "those over requests are beside the point: a request of it costs about twice as much",
    "requests-oauthlib even spares it something, the look for a netrc file",
)
WAYS: Final = {"mocked": "over HTTP", "mocked_connect": "a unary call over Connect"}


def rows(found: list[Environment], *, quick: bool) -> Iterator[Comparison]:
    for which, what in WAYS.items():
        with (
            serving() as server,
            tempfile.TemporaryDirectory(prefix="flyteauth-bench-") as directory,
            started(found, Path(directory), able=partial(_can, which)) as peers,
        ):
            yield _compare(server, peers, which, what, 2 if quick else ROUNDS)


def _can(which: str, peer: Peer) -> bool:
    return which in peer.can


def _compare(server: Server, peers: list[Peer], which: str, what: str, rounds: int) -> Comparison:
    by_name = {peer.name: peer for peer in peers}
    added: dict[str, list[float]] = {name: [] for name in by_name}
    without: dict[str, list[float]] = {name: [] for name in by_name}
    for index in range(rounds):
        for name in turns(list(by_name), index):
            order = login_at(server)
            said = by_name[name].tell(
                "hot",
                which=which,
                pairs=PAIRS,
                loops=LOOPS,
                url=server.base_url + "/resource",
                **order,
            )
            # The quieter half of the pairs: what else the machine does only ever adds.
            pairs = sorted(zip(said["without"], said["with"], strict=True), key=sum)
            pairs = pairs[: len(pairs) // 2]
            without[name].append(sum(bare for bare, _ in pairs) / len(pairs))
            added[name].append(sum(with_it - bare for bare, with_it in pairs) / len(pairs))
    figures: dict[str, dict[str, Figure]] = {
        name: {
            "added": added[name],
            "without": without[name],
            "times that without": [
                (bare + more) / bare for bare, more in zip(without[name], added[name], strict=True)
            ],
        }
        for name in by_name
    }
    asynchronous = {name: each for name, each in figures.items() if name not in BLOCKING}
    return Comparison(
        f"hot {which}",
        f"a good token on a call, {what}, in µs of the processor",
        [Column("added", "µs"), Column("without", "µs"), Column("times that without")],
        figures,
        first(asynchronous, "added"),
        OVER_REQUESTS if BLOCKING & by_name.keys() else (),
    )
