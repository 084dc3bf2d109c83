"""
The figures beside those of others, from what ``make bench`` has written.

``docs/figures.json`` is ``benchmarks/results.json`` of the run that the documents show. A measure
that is not ours names the ``peer`` that it is of; measures of one row that are about the same
stand beside each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

FIGURES: Final = Path(__file__).parents[2] / "docs" / "figures.json"
OURS: Final = "flyteauth"
NONE: Final = "There are no figures yet: `make bench` takes them."


def comparison(path: Path = FIGURES) -> str:
    """The rows in which somebody else was measured, too."""
    return _of(path, _compared)


def targets(path: Path = FIGURES) -> str:
    """All that was measured of ours, with what was wanted and whether that was met."""
    return _of(path, _measured)


def _of(path: Path, lines: Any) -> str:
    if not path.exists():
        return NONE
    document = json.loads(path.read_text("utf-8"))
    table = list(lines(document["rows"]))
    if not table:
        return NONE
    short = " Short rounds." if document.get("quick") else ""
    return "\n".join([*table, "", f"{document['at'][:10]}, {document['machine']}.{short}"])


def _compared(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        for measure in row["measures"]:
            found.setdefault(f"{_name(row)}: {measure['what']}", {})[_whose(measure)] = measure
    found = {what: by for what, by in found.items() if set(by) - {OURS}}
    if not found:
        return
    whose = list(dict.fromkeys([OURS, *(name for by in found.values() for name in by)]))
    yield f"| | {' | '.join(whose)} |"
    yield f"|---|{'---|' * len(whose)}"
    for what, by in found.items():
        yield f"| {what} | {' | '.join(_cell(by, name) for name in whose)} |"


def _cell(by: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """A figure and its spread, and of somebody else also how many times ours it is."""
    if name not in by:
        return "–"
    value, spread = _shown(by[name]), _spread(by[name])
    ours = by[OURS]["value"] if OURS in by else 0
    times = f"{_number(by[name]['value'] / ours)} ×" if ours and name != OURS else ""
    beside = ", ".join(filter(None, (times, spread)))
    return f"{value} ({beside})" if beside else value


def _measured(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    yield "| | measured | target | |"
    yield "|---|---|---|---|"
    for row in rows:
        for measure in row["measures"]:
            if _whose(measure) == OURS:
                spread = _spread(measure)
                shown = f"{_shown(measure)}{spread and f' ({spread})'}"
                sign = {"==": "=", "<=": "≤", ">=": "≥"}.get(measure["comparison"] or "", "")
                target = f"{sign} {_number(measure['target'])}" if sign else ""
                verdict = ("met" if _good(measure) else "**missed**") if sign else ""
                yield f"| {_name(row)}: {measure['what']} | {shown} | {target} | {verdict} |"


def _good(measure: Mapping[str, Any]) -> bool:
    value, target = measure["value"], measure["target"]
    met = {"==": value == target, "<=": value <= target, ">=": value >= target}
    return bool(met[measure["comparison"]])


def _name(row: Mapping[str, Any]) -> str:
    return ", ".join(filter(None, (row["name"], row["backend"])))


def _whose(measure: Mapping[str, Any]) -> str:
    return str(measure.get("peer") or OURS)


def _shown(measure: Mapping[str, Any]) -> str:
    return f"{_number(measure['value'])} {measure['unit']}".rstrip()


def _spread(measure: Mapping[str, Any]) -> str:
    samples = measure.get("samples") or ()
    return f"{_number(min(samples))} to {_number(max(samples))}" if len(samples) > 1 else ""


def _number(value: float) -> str:
    if value == int(value):
        return str(int(value))
    return (
        f"{value:.2f}"
        if abs(value) < 10
        else f"{value:.1f}"
        if abs(value) < 100
        else f"{value:.0f}"
    )
