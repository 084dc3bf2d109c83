"""Bad replies to a refresh: a typed error, a leak, a login, or no end at all?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

from ...logins import TTL
from ...replies import ALTERED, FIXED, NO_REPLIES
from ...table import Measure, exactly
from ..comparison import Comparison
from ..environments import OURS, Environment
from ..functional import AT_ONCE, KEY, Bench, tried, word
from ..peer import Failed, NoAnswer, login_at

PATIENCE: Final = 170.0  # seconds: more than any of them has promised to wait for a reply
NO_END: Final = 30.0  # for one that does not end, and fills the memory of whoever reads it
QUICK: Final = ("HTML, 200", "a JSON array", "expires_in NaN", "307", "invalid_grant")
LARGE: Final = ("10 MB", "gzip bomb, 50 MB")
SOON: Final = 8.0
ENDLESS: Final = "endless"
WAITING: Final = "hang"


def rows(found: list[Environment], *, quick: bool) -> Iterator[Comparison]:
    names = QUICK if quick else (*ALTERED, *FIXED, *NO_REPLIES)
    title = "what becomes of a bad reply of the token endpoint"

    def compare(names: Sequence[str], at_once: int) -> Comparison:
        cases = {name: partial(_case, name, SOON if quick else PATIENCE) for name in names}
        return tried("replies", title, found, cases, able=_able, at_once=at_once)

    compared = compare([name for name in names if name != WAITING], AT_ONCE)
    figures = {**compared.figures}
    if WAITING in names:  # nobody does anything meanwhile, so all may at once
        figures |= compare([WAITING], len(found)).figures
    ours = [each.get(OURS, "") for each in figures.values()]
    leaks = sum(str(said).startswith(("leak", "H ", "no end", "login")) for said in ours)
    measures: list[Measure] = [exactly(f"{OURS}: leaks, hangs and logins", leaks, 0)]
    notes = [
        KEY,
        "httpx-auth and msal ask for a token by client credentials, the others refresh one",
    ]
    yield Comparison("replies", title, compared.columns, figures, measures, notes)


def _able(can: frozenset[str]) -> bool:
    return bool(can & {"login", "cold"})


def _case(name: str, patience: float, bench: Bench) -> str:
    server = bench.server
    patience = min(patience, NO_END) if name == ENDLESS else patience
    with bench.peer() as peer:
        order: dict[str, Any] = login_at(server)
        which = "login" if "login" in peer.can else "cold"
        server.advance(TTL + 1)
        order["expires_at"] = order["obtained_at"] - 1
        server.set(reply=name, replies=1_000_000, counts=True)
        try:
            peer.tell("open", which=which, **order)
            before = peer.peak()
            said = peer.tell("call", which=which, url=order["resource"], patience=patience)
        except NoAnswer:
            return f"no end in {patience:.0f} s"
        except Failed as error:
            return f"failed: {error}"[:60]
        finally:
            server.set(replies=0)
        parts = [word(said)]
        if server.counts()["/elsewhere"]:
            parts.append("redirect followed")
        if name in LARGE:
            parts.append(f"+{(peer.peak() - before) / 1024:.0f} MB")
        if said["seconds"] > SOON:
            parts.append(f"{said['seconds']:.0f} s")
        return ", ".join(parts)
