"""A thousand calls at the moment when the token has expired: token requests, failures, time."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from ...logins import TTL
from ...server import Server, serving
from ..comparison import Column, Comparison, Figure, first, turns
from ..environments import Environment
from ..peer import BLOCKING, Failed, Peer, login_at, started

ROUNDS: Final = 5
CALLS: Final = 1000
TOKEN_LATENCY: Final = 0.05
RESOURCE_LATENCY: Final = 0.005
AT_ONCE: Final = {"http": CALLS, "threads": 100, "connect": 32}


def rows(found: list[Environment], *, quick: bool) -> Iterator[Comparison]:
    rounds, calls = (2, 200) if quick else (ROUNDS, CALLS)
    for over in ("http", "connect"):
        with (
            serving() as server,
            tempfile.TemporaryDirectory(prefix="flyteauth-bench-") as directory,
            started(found, Path(directory), able=partial(_takes_part, over=over)) as peers,
        ):
            server.set(token_latency=TOKEN_LATENCY, resource_latency=RESOURCE_LATENCY)
            yield _compare(server, peers, over, rounds, calls)


def _takes_part(peer: Peer, over: str) -> bool:
    return _which(peer, over) != ""


def _which(peer: Peer, over: str) -> str:
    """The client that has a token to renew; or else one that has none yet."""
    if over == "connect":
        return "login_connect" if "login_connect" in peer.can else ""
    if "bare" not in peer.can:
        return ""
    return "login" if "login" in peer.can else "cold"


def _compare(server: Server, peers: list[Peer], over: str, rounds: int, calls: int) -> Comparison:
    by_name = {peer.name: peer for peer in peers}
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in by_name}
    notes = []
    for index in range(-1, rounds):
        for name in turns(list(by_name), index):
            if name not in seen:
                continue
            # The first round imports, and opens what is kept open.
            number = calls if index >= 0 else 50
            try:
                one = _round(server, by_name[name], over, number, index)
            except Failed as error:
                notes.append(str(error))
                del seen[name]
                continue
            if index >= 0:
                seen[name].append(one)
    figures: dict[str, dict[str, Figure]] = {
        name: {column: [one[column] for one in each] for column in each[0]}
        for name, each in seen.items()
    }
    working = {
        name: each
        for name, each in figures.items()
        if not any(each["failed"]) and name not in BLOCKING
    }
    for name, peer in by_name.items():
        if _which(peer, over) == "cold":
            notes.append(f"{name} has no token yet, instead of an expired one")
    return Comparison(
        f"burst {over}",
        f"{calls} calls when the token has expired, "
        + ("httpx or requests" if over == "http" else "Connect, half unary, half streams"),
        [
            Column("token requests"),
            Column("failed"),
            Column("401s"),
            Column("as long as without and a round trip", "x", decides=True),
            Column("wall", "s"),
            Column("without auth", "s"),
        ],
        figures,
        first(working, "as long as without and a round trip"),
        notes,
    )


def _round(server: Server, peer: Peer, over: str, calls: int, index: int) -> dict[str, float]:
    which = _which(peer, over)
    bare = "bare" if over == "http" else "bare_connect"
    blocks = peer.name in BLOCKING
    at_once = AT_ONCE["threads" if blocks else over]
    order: dict[str, Any] = login_at(server)
    server.advance(TTL + 1)
    order["expires_at"] = order["obtained_at"] - 1
    for name in (bare, which):
        peer.tell("open", which=name, **order)
    server.reset()
    said = {
        name: peer.tell(
            "burst",
            which=name,
            url=f"{server.base_url}/{'open' if name == bare else 'resource'}",
            calls=calls,
            at_once=at_once,
        )
        for name in turns((bare, which), index)
    }
    counts: Counter[str] = server.counts()
    control, burst = said[bare]["seconds"], said[which]["seconds"]
    return {
        "token requests": counts["token"],
        "failed": calls - said[which]["seen"].get("ok", 0),
        "401s": counts["resource 401"] + counts["call 401"],
        "as long as without and a round trip": burst / (control + TOKEN_LATENCY),
        "wall": burst,
        "without auth": control,
    }
