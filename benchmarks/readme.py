"""The comparison table of the README, from the figures; ``make docs`` puts it there."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import frozen

from .peers.environments import OURS, PINNED
from .peers.peer import BLOCKING
from .peers.rows.cold import TOLD, TRIPS
from .table import number

NONE: Final = ""


@frozen
class Line:
    """One line of the table: a column of a comparison, and how a library's figure reads.

    ``ways`` are the names under which a library has more than one figure, best first; those in
    ``without`` have one that is not of this.
    """

    what: str
    key: str
    column: str
    form: str = "{}"
    ways: tuple[str, ...] = ("",)
    without: frozenset[str] = frozenset()


LINES: Final = (
    Line("import, more than a bare Python", "import", "more than bare", "{} ms"),
    Line("stored token, as a whole process", "commands", "wall", "{} ms"),
    Line(
        "what credentials add to a call of httpx",
        "hot mocked",
        "added",
        "{} µs",
        without=BLOCKING,  # they are over requests
    ),
    Line("1,000 calls when the token expires: token requests", "burst http", "token requests"),
    Line("… of them failed", "burst http", "failed"),
    Line("… time, beside the ideal", "burst http", "as long as without and a round trip", "{} x"),
    Line("the same over Connect: token requests", "burst connect", "token requests"),
    Line("… of them failed", "burst connect", "failed"),
    Line(
        "200 calls/s, tokens of 3 s: p99, beside no auth", "load", "p99, times without auth", "{} x"
    ),
    Line("8 processes, one expired login: still logged in", "processes", "logged in afterwards"),
    Line(
        "cold start, told the token endpoint: round trips",
        "cold",
        TRIPS,
        ways=(TOLD, ""),
        without=frozenset({"msal"}),  # it always asks
    ),
    Line(
        "cold start, asking for it: round trips",
        "cold",
        TRIPS,
        ways=(", Connect", ""),
        without=frozenset({"flytekit", "authlib", "httpx-auth", "requests-oauthlib"}),
    ),
)

# Under what other name a figure of a library stands.
ALIASES: Final = {
    ("commands", "flyte"): "flyte whoami",
    ("commands", "flytekit"): "flytekit, its keyring store",
    ("import", "flyte"): "flyte, session",
    ("import", "flytekit"): "flytekit, auth_helper",
    ("import", "authlib"): "authlib, httpx_client",
    ("import", "mcp"): "mcp, client.auth",
}


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the table, in Markdown."""
    rows = {row["key"]: row["figures"] for row in document["rows"] if "key" in row}
    lines = [line for line in LINES if line.key in rows]
    peers = [peer for peer in PINNED if any(_cell(rows, line, peer) != NONE for line in lines)]
    yield f"| | {' | '.join(f'**{peer}**' if peer == OURS else peer for peer in peers)} |"
    yield f"|---|{'---:|' * len(peers)}"
    for line in lines:
        cells = [_cell(rows, line, peer) for peer in peers]
        marked = [
            f"**{text}**" if peer == OURS and text != NONE else text
            for peer, text in zip(peers, cells, strict=True)
        ]
        yield f"| {line.what} | {' | '.join(marked)} |"
    yield ""
    yield "Medians of one run, in turns, against one server."


def _cell(rows: Mapping[str, Any], line: Line, peer: str) -> str:
    for way in line.ways if peer not in line.without else ():
        name = ALIASES.get((line.key, peer), peer) + way
        samples = rows[line.key].get(name, {}).get(line.column)
        if isinstance(samples, list):
            return line.form.format(number(statistics.median(samples)))
    return NONE
