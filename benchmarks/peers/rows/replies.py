"""Bad replies to a refresh: a typed error, a leak, a login, or no end at all?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from ...logins import TTL
from ...replies import ALTERED, FIXED, NO_REPLIES
from ...table import Measure, exactly
from ..comparison import Comparison
from ..environments import OURS, Environment
from ..functional import KEY, Bench, tried, word
from ..peer import Failed, NoAnswer, login_at

PATIENCE: Final = 170.0  # seconds: more than any of them has promised
QUICK: Final = ("HTML, 200", "a JSON array", "expires_in NaN", "307", "invalid_grant")
LARGE: Final = ("10 MB", "gzip bomb, 50 MB")
SOON: Final = 8.0


def rows(found: list[Environment], *, quick: bool) -> Iterator[Comparison]:
    names = QUICK if quick else (*ALTERED, *FIXED, *NO_REPLIES)
    compared = tried(
        "replies",
        "what becomes of a bad reply of the token endpoint",
        found,
        {name: partial(_case, name, SOON if quick else PATIENCE) for name in names},
        able=lambda can: bool(can & {"login", "cold"}),
        notes=[
            KEY,
            "httpx-auth and msal ask for a token by client credentials, the others refresh one",
        ],
    )
    ours = [each.get(OURS, "") for each in compared.figures.values()]
    leaks = sum(str(said).startswith(("leak", "H ", "no end", "login")) for said in ours)
    measures: list[Measure] = [exactly(f"{OURS}: leaks, hangs and logins", leaks, 0)]
    yield Comparison(
        compared.key, compared.name, compared.columns, compared.figures, measures, compared.notes
    )


def _case(name: str, patience: float, bench: Bench) -> str:
    server = bench.server
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
