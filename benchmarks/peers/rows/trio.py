"""Calls on trio, and the same on asyncio: which library works where?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from ...logins import TTL
from ...table import exactly
from ..comparison import Comparison
from ..environments import ON_TRIO, OURS, Environment
from ..functional import Bench, tried
from ..peer import Failed, NoAnswer, login_at

PATIENCE: Final = 20.0
TOKEN_LATENCY: Final = 0.05
GOOD: Final = "ok, in "

# Calls at once, and whether the token has expired.
CASES: Final = {"a good token": (1, False), "expired": (1, True), "expired, 50 at once": (50, True)}


def rows(found: list[Environment], *, quick: bool) -> Iterator[Comparison]:
    cases = {
        f"{name}, on {backend}": partial(_case, backend, *case)
        for name, case in CASES.items()
        for backend in ("trio", "asyncio")
    }
    compared = tried(
        "trio",
        "calls by clients of httpx on trio, beside asyncio",
        [each for each in found if each.name in ON_TRIO],
        cases,
        able=lambda can: bool(can & {"login", "cold"}),
        at_once=1,  # some of them are timed
    )
    ours = [str(each.get(OURS, GOOD)) for each in compared.figures.values()]
    yield Comparison(
        compared.key,
        compared.name,
        compared.columns,
        compared.figures,
        [exactly(f"{OURS}: cases that fail", sum(GOOD not in said for said in ours), 0)],
        [
            f"a token request takes {1000 * TOKEN_LATENCY:.0f} ms",
            "httpx-auth asks for a token by client credentials, and so it has never a good one",
            "httpx-oauth makes token requests and no more, so there is nothing to share",
        ],
    )


def _case(backend: str, calls: int, expired: bool, bench: Bench) -> str:
    if calls > 1 and bench.name == "httpx-oauth":
        return "-"
    server = bench.server
    server.set(token_latency=0.0)
    order: dict[str, Any] = login_at(server)
    if expired:
        server.advance(TTL + 1)
        order["expires_at"] = order["obtained_at"] - 1
    server.set(token_latency=TOKEN_LATENCY)
    with bench.peer() as peer:
        which = "login" if "login" in peer.can else "cold"
        server.reset()
        try:
            said = peer.tell(
                "together",
                patience=PATIENCE,
                backend=backend,
                which=which,
                calls=calls,
                url=order["resource"],
                **order,
            )
        except NoAnswer:
            return f"no end in {PATIENCE:.0f} s"
        except Failed as error:
            return f"failed: {error}"[:60]
    return f"{_seen(said['seen'])}{1000 * said['seconds']:.0f} ms{_asked(server.counts()['token'])}"


def _seen(seen: Mapping[str, int]) -> str:
    if set(seen) == {"ok"}:
        return GOOD
    return ", ".join(f"{count} {what}" for what, count in sorted(seen.items())) + ", in "


def _asked(requests: int) -> str:
    return "" if requests <= 1 else f", {requests} token requests"
