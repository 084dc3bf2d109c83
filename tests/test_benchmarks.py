"""How the benchmarks show what they measured. What they measure is not tested here."""

from __future__ import annotations

import json
import threading
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from benchmarks.peers.comparison import Column, Comparison, first, turns
from benchmarks.peers.environments import OURS, PINNED
from benchmarks.peers.plot import PANELS, plot
from benchmarks.peers.rows.imports import NEEDED
from benchmarks.readme import table
from benchmarks.server import ROOT
from benchmarks.table import BACKENDS, on_both

ADAPTERS = ROOT / "benchmarks" / "peers" / "adapters"

FIGURES = {OURS: {"wall": [9.0, 11.0, 10.0]}, "flyte": {"wall": [29.0, 31.0, 30.0]}}


def compared(key: str = "commands", column: str = "wall") -> dict[str, Any]:
    figures = {name: {column: each["wall"]} for name, each in FIGURES.items()}
    comparison = Comparison(key, "a question", [Column(column, "ms", decides=True)], figures)
    # As it is after it was written and read.
    row: dict[str, Any] = json.loads(json.dumps(comparison.as_dict()))
    return row


def document(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"machine": "a machine <of 2 cores> & more", "rows": list(rows)}


def test_a_library_that_is_slower_is_shown_as_a_multiple_of_ours() -> None:
    comparison = Comparison("key", "name", [Column("wall", "ms", decides=True)], FIGURES)
    _, titles, ours, theirs = comparison.lines()
    assert titles.split() == ["wall,", "ms", "x", "ours"]
    assert ours.split() == [OURS, "10", "(9", "to", "11)"]
    assert theirs.split() == ["flyte", "30", "(29", "to", "31)", "3"]


@pytest.mark.parametrize(
    ("ours", "theirs", "good"),
    [
        ([10.0, 10.0, 10.0], [30.0, 29.0, 31.0], True),  # the first
        ([31.0, 31.0, 31.0], [30.0, 29.0, 31.0], True),  # within the spread of the first
        ([32.0, 32.0, 32.0], [30.0, 29.0, 31.0], False),
    ],
)
def test_ours_has_to_be_the_first_or_within_the_spread_of_the_first(
    ours: list[float], theirs: list[float], good: bool
) -> None:
    figures = {OURS: {"wall": ours}, "flyte": {"wall": theirs}, "mcp": {"wall": [99.0]}}
    (measure,) = first(figures, "wall")
    assert "flyte" in measure.what
    assert measure.good is good


def test_which_library_comes_first_alternates_from_round_to_round() -> None:
    assert [list(turns("ab", index)) for index in (0, 1)] == [["a", "b"], ["b", "a"]]


def test_the_picture_is_well_formed_whatever_was_measured() -> None:
    everything = [compared(panel.key, panel.column) for panel in PANELS]
    for rows in ([], everything[:1], everything):
        picture = plot(document(*rows))
        texts = [element.text for element in ET.fromstring(picture).iter() if element.text]
        assert "a machine <of 2 cores> & more" in texts
        assert texts.count(OURS) == len(rows)


def test_the_table_has_the_medians_of_each_and_ours_stand_out() -> None:
    lines = list(table(document(compared())))
    assert lines[0] == f"| | **{OURS}** |"  # flyte's figure has another name there
    assert any("**10 ms**" in line for line in lines)


def test_a_figure_of_another_http_library_is_not_beside_those_of_httpx() -> None:
    figures = {OURS: {"added": [5.0]}, "flyte": {"added": [7.0]}, "msal": {"added": [27.0]}}
    row = Comparison("hot mocked", "a question", [Column("added", "µs")], figures).as_dict()
    titles, _, line, *_ = table(document(row))
    assert titles == f"| | **{OURS}** | flyte |"
    assert line.endswith("| **5 µs** | 7 µs |")


def test_every_library_is_imported_in_one_row_and_has_an_adapter_of_its_name() -> None:
    assert set(NEEDED) == set(PINNED)
    for name in PINNED:
        assert (ADAPTERS / f"{name.replace('-', '_')}.py").is_file()


def test_what_is_asked_of_both_backends_is_asked_at_once_and_comes_in_order() -> None:
    together = threading.Barrier(len(BACKENDS))

    def row(backend: str) -> str:
        together.wait(timeout=30)
        return backend

    assert tuple(on_both(row)) == BACKENDS
