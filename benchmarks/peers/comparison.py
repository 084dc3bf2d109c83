"""How figures of several libraries are shown beside each other, and when ours is the first."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from attrs import asdict, field, frozen

from ..table import Measure, number
from .environments import OURS

T = TypeVar("T")

Figure = Sequence[float] | str
"""What a figure is the median of, or a word."""


@frozen
class Column:
    """A figure. What ``decides`` is also shown as a multiple of ours; less is better."""

    name: str
    unit: str = ""
    decides: bool = False


@frozen
class Comparison:
    """One question to all libraries. ``figures`` are by library and column."""

    key: str
    name: str
    columns: Sequence[Column]
    figures: Mapping[str, Mapping[str, Figure]]
    measures: Sequence[Measure] = ()
    notes: Sequence[str] = field(factory=tuple)
    backend: str = ""

    @property
    def good(self) -> bool:
        return all(measure.good for measure in self.measures)

    def lines(self) -> Iterator[str]:
        yield self.name
        titles = [""]
        for column in self.columns:
            titles.append(f"{column.name}, {column.unit}" if column.unit else column.name)
            if column.decides:
                titles.append("x ours")
        table = [titles]
        for peer, figures in self.figures.items():
            cells = [peer]
            for column in self.columns:
                cells.append(cell(figures.get(column.name, "")))
                if column.decides:
                    cells.append(self._multiple(column.name, peer))
            table.append(cells)
        widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
        for cells in table:
            first, *others = (text.ljust(width) for text, width in zip(cells, widths, strict=True))
            yield f"  {'  '.join((first, *others))}".rstrip()
        for measure in self.measures:
            verdict = "ok" if measure.good else "MISSED"
            value = f"{number(measure.value)} {measure.unit}".rstrip()
            yield f"  {measure.what}: {value} ({measure.wanted}) {verdict}"
        for note in self.notes:
            yield f"  {note}"

    def _multiple(self, column: str, peer: str) -> str:
        theirs, ours = (self.figures.get(name, {}).get(column, "") for name in (peer, OURS))
        if peer == OURS or isinstance(theirs, str) or isinstance(ours, str):
            return ""
        return f"{number(multiple(theirs, ours))}"

    def as_dict(self) -> dict[str, Any]:
        figures = {
            peer: {
                name: figure if isinstance(figure, str) else list(figure)
                for name, figure in each.items()
            }
            for peer, each in self.figures.items()
        }
        return {**asdict(self), "figures": figures, "good": self.good}


def cell(figure: Figure) -> str:
    """The median, and between what the samples lie."""
    if isinstance(figure, str):
        return figure
    least, most, median = min(figure), max(figure), statistics.median(figure)
    spread = "" if least == most else f" ({number(least)} to {number(most)})"
    return f"{number(median)}{spread}"


def multiple(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """How many times ours theirs is: the median of the rounds, where both had the same ones."""
    if len(theirs) == len(ours) and all(ours):
        return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
    return statistics.median(theirs) / (statistics.median(ours) or float("nan"))


def first(figures: Mapping[str, Mapping[str, Figure]], column: str) -> list[Measure]:
    """That ours is the first in *column*, or within the spread of the one that is."""
    found: dict[str, Sequence[float]] = {}
    for peer, each in figures.items():
        if not isinstance(figure := each[column], str):
            found[peer] = figure
    ours = found.pop(OURS, ())
    if not found or not ours:
        return []
    peer = min(found, key=lambda name: statistics.median(found[name]))
    best = statistics.median(found[peer])
    what = f"{column}: ours beside the best of the others, {peer}"
    return [Measure(what, statistics.median(ours) / best, "x", "<=", max(found[peer]) / best)]


def turns(names: Sequence[T], round_: int) -> Sequence[T]:
    """A B, B A: whatever else the machine does meets all."""
    return names if round_ % 2 == 0 else names[::-1]
