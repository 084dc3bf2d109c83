"""The figures beside the peers as a picture: SVG that needs nothing, for light and dark pages."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from attrs import frozen

from ..table import number
from .environments import OURS

WIDTH: Final = 520  # of a panel
NAMES: Final = 206  # for what stands before the bars
VALUES: Final = 106  # for what stands after them
BAR: Final = 13
STEP: Final = 20
HEAD: Final = 46
GAP: Final = 28
MARGIN: Final = 24
TOP: Final = 62
LOGARITHMIC: Final = 30.0  # from this ratio on, bars are as long as the logarithm

STYLE: Final = """\
svg { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
.page { fill: #ffffff } .ink { fill: #1f2328 } .soft { fill: #656d76 }
.ours { fill: #6f3fd6 } .other { fill: #b9c0ca }
.broken { fill: none; stroke: #b9c0ca; stroke-dasharray: 3 2 }
.spread { stroke: #1f2328; stroke-opacity: .55 }
.big { font-size: 17px; font-weight: 600 } .title { font-size: 13px; font-weight: 600 }
.strong { font-weight: 600 } .small { font-size: 11px }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } .ink { fill: #e6edf3 } .soft { fill: #8d96a0 }
.ours { fill: #a583ff } .other { fill: #4a525c }
.broken { stroke: #6e7681 } .spread { stroke: #e6edf3 }
}"""


@frozen
class Panel:
    """One column of one comparison, as bars; less is better unless ``more``."""

    key: str
    column: str
    title: str
    unit: str
    without: Sequence[str] = ()
    more: bool = False


PANELS: Final = (
    Panel(
        "import",
        "more than bare",
        "Importing what a client needs",
        "ms more than a bare Python",
        (f"{OURS}, import only", "flyte", "httpx-oauth"),  # which attach nothing to a call
    ),
    Panel(
        "commands",
        "wall",
        "A command with a stored login",
        "ms, whole process",
        ("flyteauth status", "flyteauth --help", "flyte --version", "flyte --help"),
    ),
    Panel(
        "hot mocked",
        "added",
        "Credentials in hand: what they add to a call",
        "µs over the same client without",
        ("flytekit", "requests-oauthlib", "google-auth", "msal"),
    ),
    Panel(
        "burst http",
        "as long as without and a round trip",
        "Many calls when the token expires, HTTP",
        "times the same calls without auth and one token request",
    ),
    Panel("burst connect", "wall", "The same over Connect, half of them streams", "seconds"),
    Panel("load", "p99, times without auth", "A steady load, tokens of 3 s", "times p99 without"),
    Panel(
        "processes",
        "logged in afterwards",
        "Processes with one expired login",
        "logged in afterwards; more is better",
        more=True,
    ),
    Panel(
        "cold",
        "round trips, one after the other",
        "From a client's secret to the first call",
        "round trips; only some ask where the token endpoint is",
        (
            f"{OURS}, Session.whoami",
            f"{OURS}, Session.whoami, discovered before",
            f"{OURS}, Connect, discovered before",
        ),
    ),
)


@frozen
class Bar:
    """What one library came to."""

    name: str
    value: float
    least: float
    most: float
    failed: int

    @property
    def kind(self) -> str:
        if self.failed:
            return "broken"
        return "ours" if self.name.partition(",")[0] == OURS else "other"


def plot(document: Mapping[str, Any]) -> str:
    """The picture of the rows in *document* that compare."""
    rows = {row["key"]: row for row in document["rows"] if "key" in row}
    panels = [
        (panel, bars) for panel in PANELS if (bars := _bars(panel, rows.get(panel.key))) != []
    ]
    placed = list(_placed(panels))
    height = max((y + _height(bars) for _, y, _, bars in placed), default=TOP) + MARGIN
    width = 2 * WIDTH + GAP + 2 * MARGIN
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="flyteauth beside its peers">'
    )
    parts = [
        opening,
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
        _text(MARGIN, 34, "flyteauth beside its peers", "ink big"),
        _text(MARGIN, 52, document["machine"], "soft small"),
    ]
    for x, y, panel, bars in placed:
        parts.extend(_panel(x, y, panel, bars))
    return "\n".join([*parts, "</svg>", ""])


def _bars(panel: Panel, row: Mapping[str, Any] | None) -> list[Bar]:
    bars = []
    for name, figures in ({} if row is None else row["figures"]).items():
        samples = figures.get(panel.column)
        if isinstance(samples, list) and name not in panel.without:
            failed = max(figures.get("failed", [0]))
            bars.append(
                Bar(name, statistics.median(samples), min(samples), max(samples), int(failed))
            )
    return sorted(bars, key=lambda bar: (bar.failed > 0, -bar.value if panel.more else bar.value))


def _height(bars: Sequence[Bar]) -> int:
    return HEAD + STEP * len(bars)


def _placed(
    panels: Sequence[tuple[Panel, list[Bar]]],
) -> Iterator[tuple[int, int, Panel, list[Bar]]]:
    """Where each panel goes: into the column that is shorter so far."""
    heights = [TOP, TOP]
    for panel, bars in panels:
        column = heights.index(min(heights))
        yield MARGIN + column * (WIDTH + GAP), heights[column], panel, bars
        heights[column] += _height(bars) + GAP


def _panel(x: int, y: int, panel: Panel, bars: Sequence[Bar]) -> Iterator[str]:
    yield _text(x, y + 16, panel.title, "ink title")
    values = [value for bar in bars for value in (bar.value, bar.least, bar.most) if value > 0]
    low, high = min(values, default=1.0), max(values, default=1.0)
    logarithmic = high / low > LOGARITHMIC and not panel.more
    scale = f"{panel.unit}, logarithmic" if logarithmic else panel.unit
    yield _text(x, y + 32, scale, "soft small")
    room = WIDTH - NAMES - VALUES

    def length(value: float) -> float:
        if value <= 0:
            return 0.0
        if logarithmic:
            # The least has some length, too.
            return room * (0.06 + 0.94 * math.log(value / low) / math.log(high / low))
        return room * value / high

    for index, bar in enumerate(bars):
        top = y + HEAD + STEP * index
        middle, left = top + BAR / 2, x + NAMES
        mine = bar.kind == "ours"
        label = "ink strong" if mine else "ink"
        yield _text(left - 8, middle + 4, bar.name, label, anchor="end")
        yield (
            f'<rect class="{bar.kind}" x="{left}" y="{top}" rx="2" height="{BAR}" '
            f'width="{max(length(bar.value), 1.5):.1f}"/>'
        )
        if bar.most > bar.least:
            ends = [left + length(value) for value in (bar.least, bar.most)]
            yield (
                f'<line class="spread" x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" '
                f'y1="{middle}" y2="{middle}"/>'
            )
        said = number(bar.value) + (f", {bar.failed} failed" if bar.failed else "")
        end = left + max(length(bar.value), length(bar.most))
        yield _text(end + 6, middle + 4, said, "ink small" if mine else "soft small")


def _text(x: float, y: float, text: str, kind: str, *, anchor: str = "start") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )
