"""A login by device code, with a server that has its moods: who gets through, and how?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Final

from ..comparison import Comparison
from ..environments import Environment
from ..functional import KEY, Bench, tried, word
from ..peer import Failed, NoAnswer, where

PATIENCE: Final = 60.0
SOON: Final = 15.0
ABLE: Final = 4  # all that have such a login, for they mostly wait

CASES: Final[dict[str, tuple[Sequence[str], Mapping[str, Any]]]] = {
    "pending three times": (["pending", "pending", "pending", "good"], {}),
    "slow_down": (["slow_down", "pending", "good"], {}),
    "connection dropped at a poll": (["dropped", "good"], {}),
    "no answer at a poll": (["hang", "good"], {}),
    "503 with a page, twice": (["503", "503", "good"], {}),
    "429, twice": (["429", "429", "good"], {}),
    "never approved, expires_in 3": (["pending"], {"expires_in": 3}),
    "no interval": (["pending", "good"], {"interval": None}),
    'interval "2"': (["pending", "good"], {"interval": "2"}),
    "interval 0, expires_in 3": (["pending"], {"interval": 0, "expires_in": 3}),
    "no expires_in": (["pending", "good"], {"expires_in": None}),
    "access_denied": (["access_denied"], {}),
}
QUICK: Final = ("slow_down", "503 with a page, twice", "interval 0, expires_in 3")


def rows(found: list[Environment], *, quick: bool) -> Iterator[Comparison]:
    yield tried(
        "device",
        "logins by device code, interval 1 s unless said",
        found,
        {
            name: partial(_case, name, SOON if quick else PATIENCE)
            for name in (QUICK if quick else CASES)
        },
        able=lambda can: "device" in can,
        at_once=ABLE,
        notes=["seconds between polls, as the server saw them, and what came of it", KEY],
    )


def _case(name: str, patience: float, bench: Bench) -> str:
    polls, device = CASES[name]
    bench.server.set(polls=polls, device={"interval": 1, **device}, counts=True)
    with bench.peer() as peer:
        try:
            said = peer.tell("device", patience=patience, **where(bench.server))
            came = word(said)
        except NoAnswer:
            came = f"no end in {patience:.0f} s"
        except Failed as error:
            came = f"failed: {error}"[:60]
    at = bench.server.set()["polled"]
    gaps = [f"{later - earlier:.1f}" for earlier, later in pairwise(at)]
    between = " ".join(gaps) if len(gaps) <= 6 else f"{len(at)} polls"
    return f"{between}, {came}" if between else came
