"""A steady load while tokens live three seconds: what does a refresh cost those who call?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ...rows.load import BUSY, SATURATED
from ...server import Server, serving
from ..comparison import Column, Comparison, Figure, first, turns
from ..environments import OURS, Environment
from ..peer import Failed, Peer, login_at, started

ROUNDS: Final = 5
RATE: Final = 200
SECONDS: Final = 6.0
WARM_UP: Final = 1.0  # seconds: everything is imported and connected, and no more than that
TOKEN_TTL: Final = 3
TOKEN_LATENCY: Final = 0.2
MARGIN: Final = 1.0  # for those who can be told; their own are longer than the token lives
PATIENCE: Final = 36.0  # seconds, which is six times as long as it should take
ASYNC: Final = (
    *("flyteauth", "flyte", "authlib", "httpx-auth", "mcp"),
    *("google-auth", "google-auth-aio"),
)

Way = tuple[Peer, str, str]
"""Who, and its clients without and with credentials."""


def rows(found: list[Environment], *, quick: bool) -> Iterator[Comparison]:
    rounds, seconds = (2, 5.0) if quick else (ROUNDS, SECONDS)
    taking_part = [each for each in found if each.name in ASYNC]
    with (
        serving(access_ttl=TOKEN_TTL) as server,
        tempfile.TemporaryDirectory(prefix="flyteauth-bench-") as directory,
        started(taking_part, Path(directory), able=lambda peer: "bare" in peer.can) as peers,
    ):
        server.set(token_latency=TOKEN_LATENCY, resource_latency=0.005)
        yield _compare(server, peers, rounds, seconds)


def _compare(server: Server, peers: list[Peer], rounds: int, seconds: float) -> Comparison:
    ways: dict[str, Way] = {}
    for peer in peers:
        ways[peer.name] = (peer, "bare", "login" if "login" in peer.can else "cold")
        if "login_connect" in peer.can:
            ways[f"{peer.name}, Connect"] = (peer, "bare_connect", "login_connect")
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    notes = [
        f"a refresh takes {1000 * TOKEN_LATENCY:.0f} ms",
        f"authlib, httpx-auth and both of google-auth are told to begin it {MARGIN:g} s early",
    ]
    for index in range(rounds):
        for name in turns(list(ways), index):
            if name not in ways:
                continue
            try:
                seen[name].append(_round(server, ways[name], seconds))
            except Failed as error:
                notes.append(f"{name}: {error}")
                del ways[name]  # it may still be at it
    figures: dict[str, dict[str, Figure]] = {
        name: {column: [one[column] for one in each] for column in each[0]}
        for name, each in seen.items()
        if each
    }
    if any(max(map(float, each["p50 without auth"])) > 1000 * BUSY for each in figures.values()):
        notes.append(SATURATED)
    working = {name: each for name, each in figures.items() if not any(each["failed"])}
    working.pop(f"{OURS}, Connect", None)
    return Comparison(
        "load",
        f"{RATE} calls a second for {seconds:.0f} s, tokens that live {TOKEN_TTL} s",
        [
            Column("p99, times without auth", "x", decides=True),
            Column("p50 without auth", "ms"),
            Column("p99 without auth", "ms"),
            Column("p50", "ms"),
            Column("p99", "ms"),
            Column("max", "ms"),
            Column("later than 100 ms"),
            Column("failed"),
            Column("401s"),
            Column("token requests"),
        ],
        figures,
        first(working, "p99, times without auth"),
        notes,
    )


def _round(server: Server, way: Way, seconds: float) -> dict[str, float]:
    """Half of the load without credentials comes before that with them, and half after it: the
    slowest hundredth is what the rest of the machine disturbs most.
    """
    peer, bare, which = way
    order: dict[str, Any] = {**login_at(server), "margin": MARGIN}
    open_url, url = (f"{server.base_url}/{name}" for name in ("open", "resource"))
    # The one with credentials first, so that its token has expired for certain when it goes on: in
    # the middle of a refresh nobody wants to begin.
    for name, place in ((which, url), (bare, open_url)):
        peer.tell("open", which=name, **order)
        _load(peer, name, place, WARM_UP)
    before = _load(peer, bare, open_url, seconds / 2)
    peer.tell("call", which=which, url=url)  # the token of before has expired
    server.reset()
    ours = _load(peer, which, url, seconds)
    counts = server.counts()
    after = _load(peer, bare, open_url, seconds / 2)
    without = {name: (before[name] + after[name]) / 2 for name in ("p50", "p99")}
    return {
        "p99, times without auth": ours["p99"] / without["p99"],
        **{f"{name} without auth": 1000 * value for name, value in without.items()},
        **{name: 1000 * ours[name] for name in ("p50", "p99", "max")},
        "later than 100 ms": ours["late"],
        "failed": ours["failed"],
        "401s": counts["resource 401"] + counts["call 401"],
        "token requests": counts["token"],
    }


def _load(peer: Peer, which: str, url: str, seconds: float) -> dict[str, float]:
    said = peer.tell("load", which=which, url=url, rate=RATE, seconds=seconds, patience=PATIENCE)
    return {name: float(value) for name, value in said.items()}
