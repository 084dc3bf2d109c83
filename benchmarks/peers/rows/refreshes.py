"""A refresh that goes wrong once, with a server that is well again after it: what does it cost?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from ...logins import TTL
from ...replies import LATE
from ...table import exactly
from ..comparison import Comparison
from ..environments import OURS, Environment
from ..functional import Bench, tried, word
from ..peer import Failed, NoAnswer, login_at

ONCE: Final = ("503 HTML", "dropped", "HTML, 200", "302", "hang")
PATIENCE: Final = 60.0
NO_ROTATION: Final = {"faults": ["refresh-no-rotation-field"]}


def rows(found: list[Environment], *, quick: bool) -> Iterator[Comparison]:
    names = ONCE[:2] if quick else ONCE
    cases = {f"{name}, once": partial(_once, name) for name in names}
    title = "what one failed or interrupted refresh costs"
    notes = ["this call (cancelled: and the next one); then the first one of another process"]
    compared = tried(
        "refreshes",
        title,
        found,
        {**cases, "cancelled meanwhile": _cancelled},
        able=lambda can: "kept" in can,
        notes=notes,
    )
    kept = tried(
        "refreshes without rotation",
        title,
        found,
        {"no refresh_token in the answer, twice": _twice},
        able=lambda can: "kept" in can,
        settings=NO_ROTATION,
    )
    figures = {**compared.figures, **kept.figures}
    lost = sum(not str(each.get(OURS, "ok")).endswith("ok") for each in figures.values())
    yield Comparison(
        "refreshes",
        title,
        compared.columns,
        figures,
        [exactly(f"{OURS}: stored logins lost", lost, 0)],
        notes,
    )


def _expired(bench: Bench) -> dict[str, Any]:
    """A stored login whose token has expired."""
    order: dict[str, Any] = login_at(bench.server)
    bench.server.advance(TTL + 1)
    order["expires_at"] = order["obtained_at"] - 1
    with bench.peer() as peer:
        peer.tell("keep", **order)
    return order


def _call(bench: Bench, order: dict[str, Any]) -> str:
    """What becomes of a call in another process."""
    with bench.peer() as peer:
        try:
            peer.tell("open", which="kept", **order)
            return word(peer.tell("call", which="kept", url=order["resource"], patience=PATIENCE))
        except NoAnswer:
            return f"no end in {PATIENCE:.0f} s"
        except Failed as error:
            return f"failed: {error}"[:60]


def _once(name: str, bench: Bench) -> str:
    order = _expired(bench)
    parts = []
    with bench.peer() as peer:
        try:
            peer.tell("open", which="kept", **order)
            bench.server.set(reply=name, replies=1)
            said = peer.tell("call", which="kept", url=order["resource"], patience=PATIENCE)
            parts.append(word(said))
        except NoAnswer:
            parts.append(f"no end in {PATIENCE:.0f} s")
        except Failed as error:
            parts.append(f"failed: {error}"[:60])
        finally:
            bench.server.set(replies=0)
    return "; ".join([*parts, _call(bench, order)])


def _cancelled(bench: Bench) -> str:
    order = _expired(bench)
    parts = []
    with bench.peer() as peer:
        peer.tell("open", which="kept", **order)
        bench.server.set(reply="late", replies=1)
        try:
            for changes in ({"cancel_after": LATE / 2}, {}):
                said = peer.tell(
                    "call", which="kept", url=order["resource"], patience=PATIENCE, **changes
                )
                parts.append("cancelled" if said.get("error") == "TimeoutError" else word(said))
        finally:
            bench.server.set(replies=0)
    return "; ".join([*parts, _call(bench, order)])


def _twice(bench: Bench) -> str:
    """Two refreshes, in two processes."""
    order = _expired(bench)
    first = _call(bench, order)
    bench.server.advance(TTL + 1)
    return "; ".join([first, _call(bench, order)])
