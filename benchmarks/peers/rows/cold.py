"""From a client's id and secret to the first authorised call: in how many round trips?"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from attrs import evolve

from ...server import Server, serving
from ...table import Measure, at_most
from ..comparison import Column, Comparison, Figure, first, turns
from ..environments import OURS, Environment
from ..peer import Failed, Peer, started, where

ROUNDS: Final = 7
LATENCIES: Final = (0.0, 0.3)
TOLD: Final = ", told the token endpoint"  # as most others have to be
DISCOVERING: Final = ("flyte, Connect", "msal")
WAYS: Final = {
    "cold": "",
    "cold_connect": ", Connect",
    "cold_own": ", Session.whoami",
    "cold_told": TOLD,
}
TRIPS: Final = "round trips, one after the other"
SLACK: Final = 0.2  # of a round trip: a slope is measured, not counted


def rows(found: list[Environment], *, quick: bool) -> Iterator[Comparison]:
    able = WAYS.keys()
    with (
        serving() as server,
        tempfile.TemporaryDirectory(prefix="flyteauth-bench-") as directory,
        started(found, Path(directory), able=lambda peer: bool(able & peer.can)) as peers,
    ):
        yield _compare(server, peers, 2 if quick else ROUNDS)


def _compare(server: Server, peers: list[Peer], rounds: int) -> Comparison:
    ways: dict[str, tuple[Peer, str, dict[str, Any]]] = {}
    for peer in peers:
        for which, suffix in WAYS.items():
            if which in peer.can:
                ways[peer.name + suffix] = (peer, which, {"forget": True})
                if peer.name == OURS and suffix != TOLD:
                    again = f"{peer.name}{suffix}, discovered before"
                    ways[again] = (peer, which, {"forget": False})
    walls: dict[str, dict[float, list[float]]] = {
        label: {latency: [] for latency in LATENCIES} for label in ways
    }
    requests: dict[str, list[float]] = {label: [] for label in ways}
    connections: dict[str, list[float]] = {label: [] for label in ways}
    notes = []
    for index in range(-1, rounds):
        for latency in turns(LATENCIES, index):
            server.set(latency=latency)
            for label in turns(list(ways), index):
                if label not in walls:
                    continue
                peer, which, changes = ways[label]
                server.reset()
                try:
                    said = peer.tell(
                        "cold_call",
                        which=which,
                        url=f"{server.base_url}/resource",
                        **where(server),
                        **changes,
                    )
                except Failed as error:
                    notes.append(str(error))
                    del walls[label]
                    continue
                if index < 0:
                    continue
                seen = server.set()
                walls[label][latency].append(said["seconds"])
                requests[label].append(sum(seen["counts"].values()))
                connections[label].append(seen["connections"])
    server.set(latency=0.0)
    low, high = LATENCIES
    figures: dict[str, dict[str, Figure]] = {
        label: {
            TRIPS: [(slow - statistics.median(each[low])) / (high - low) for slow in each[high]],
            "requests": requests[label],
            "connections": connections[label],
            "wall on a network without latency": [1000 * seconds for seconds in each[low]],
        }
        for label, each in walls.items()
    }
    return Comparison(
        "cold",
        "from a client's id and secret to the first authorised call",
        [
            Column(TRIPS, decides=True),
            Column("requests"),
            Column("connections"),
            Column("wall on a network without latency", "ms"),
        ],
        figures,
        [*_targets(figures), *_places(figures)],
        [
            *notes,
            (
                "round trips are the slope of the wall time over a latency of each answer; only "
                "flyteauth, flyte's Connect and msal ask where the token endpoint is"
            ),
        ],
    )


def _targets(figures: dict[str, dict[str, Figure]]) -> Iterator[Measure]:
    for suffix, trips in (("", 3), (", discovered before", 2)):
        for way in WAYS.values():
            label = f"{OURS}{way}{suffix}"
            if label not in figures:
                continue
            found, held = (figures[label][name] for name in (TRIPS, "connections"))
            assert not isinstance(found, str)
            assert not isinstance(held, str)
            yield at_most(f"{label}: round trips", found, (2 if way == TOLD else trips) + SLACK)
            yield at_most(f"{label}: connections to one host", held, 1)


def _places(figures: dict[str, dict[str, Figure]]) -> Iterator[Measure]:
    """Who is told where the token endpoint is needs a round trip less: like with like."""
    told = {
        name: each
        for name, each in figures.items()
        if not name.startswith(OURS) and name not in DISCOVERING
    }
    asking = {name: each for name, each in figures.items() if name in DISCOVERING}
    for ours, others, who in ((f"{OURS}{TOLD}", told, "told"), (OURS, asking, "asking")):
        if ours in figures:
            for measure in first({**others, OURS: figures[ours]}, TRIPS):
                yield evolve(
                    measure, what=f"those {who} where the token endpoint is: {measure.what}"
                )
