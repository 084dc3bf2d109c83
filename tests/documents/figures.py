"""
The figures beside those of others, from what ``make bench`` has written.

``docs/figures.json`` is ``benchmarks/results.json`` of the run that the documents show.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

FIGURES: Final = Path(__file__).parents[2] / "docs" / "figures.json"
NONE: Final = "There are no figures yet: `make bench` takes them."


def comparison(path: Path = FIGURES) -> str:
    """The figures of ours and of others, as far as others were measured."""
    from benchmarks.readme import table

    return _of(path, lambda document: table(document) if _has_peers(document) else ())


def targets(path: Path = FIGURES) -> str:
    """All that was measured of ours, with what was wanted and whether that was met."""
    return _of(path, lambda document: _measured(document["rows"]))


def _of(path: Path, lines: Any) -> str:
    if not path.exists():
        return NONE
    document = json.loads(path.read_text("utf-8"))
    found = list(lines(document))
    if not found:
        return NONE
    short = " Short rounds." if document.get("quick") else ""
    return "\n".join([*found, "", f"{document['at'][:10]}, {document['machine']}.{short}"])


def _has_peers(document: Mapping[str, Any]) -> bool:
    return any("key" in row for row in document["rows"])


def _measured(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    yield "| | measured | target | |"
    yield "|---|---|---|---|"
    for row in rows:
        for measure in row["measures"]:
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
