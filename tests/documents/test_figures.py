"""Figures of ours beside those of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.table import Measure, Row, at_most, exactly

from .figures import NONE, comparison, targets


def written(path: Path, *rows: dict[str, Any], quick: bool = False) -> Path:
    document = {
        "machine": "CPython on a machine",
        "at": "2026-11-28T10:00:00+00:00",
        "quick": quick,
        "rows": rows,
    }
    path.write_text(json.dumps(document), "utf-8")
    return path


def test_without_figures_it_says_how_to_take_them(tmp_path: Path) -> None:
    assert comparison(tmp_path / "figures.json") == targets(tmp_path / "figures.json") == NONE


def test_what_was_measured_of_others_too_is_compared(tmp_path: Path) -> None:
    figures = {
        "flyteauth": {"more than bare": [20.0, 21.0]},
        "mcp, client.auth": {"more than bare": [525.0]},
    }
    path = written(tmp_path / "figures.json", {"key": "import", "figures": figures, "measures": []})
    assert comparison(path).splitlines() == [
        "| | **flyteauth** | mcp |",
        "|---|---:|---:|",
        "| import, more than a bare Python | **20.50 ms** | 525 ms |",
        "",
        "Medians of one run, in turns, against one server.",
        "",
        "2026-11-28, CPython on a machine.",
    ]


def test_targets_are_said_to_be_met_or_missed(tmp_path: Path) -> None:
    measures = [
        exactly("requests", 1, 1),
        at_most("pause", 12.5, 10, "ms"),
        Measure("known", 3.0),
    ]
    row = Row("burst", "trio", measures).as_dict()
    path = written(tmp_path / "figures.json", row, quick=True)
    assert targets(path).splitlines() == [
        "| | measured | target | |",
        "|---|---|---|---|",
        "| burst, trio: requests | 1 | = 1 | met |",
        "| burst, trio: pause | 12.5 ms | ≤ 10 | **missed** |",
        "| burst, trio: known | 3 |  |  |",
        "",
        "2026-11-28, CPython on a machine. Short rounds.",
    ]
    assert comparison(path) == NONE
