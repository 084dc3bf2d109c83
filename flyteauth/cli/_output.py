"""How the commands write: tables and JSON on standard output, words on standard error."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TextIO

from ..errors import Error

if TYPE_CHECKING:
    from ..events import AuthEvent

COLOURS: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
CELL_MIN: Final = 10  # columns of a terminal; what is folded narrower than this cannot be read
GAP: Final = 2


def emit(value: object) -> None:
    """*value* as one line of JSON on standard output, at once: NDJSON if it happens again."""
    print(_json(value), flush=True)


def emit_event(event: AuthEvent) -> None:
    """The same for an event: an ``on_event`` hook."""
    from ..events import to_json

    emit(to_json(event))


def document(value: Mapping[str, object] | Sequence[object]) -> None:
    """*value* as indented JSON, for who asked for one document."""
    print(_json(value, indent=2), flush=True)


def _json(value: object, indent: int | None = None) -> str:
    """Letters as they are, as far as standard output can write them; whatever could steer a
    terminal, or cannot be seen there, in JSON's own escapes.
    """
    encoding = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "")
    text = json.dumps(value, ensure_ascii=encoding != "utf8", indent=indent)
    return "".join(x if x.isprintable() or x == "\n" else json.dumps(x)[1:-1] for x in text)


def add_output(parser: argparse.ArgumentParser, plain: str) -> None:
    """How to show what there is: in the *plain* way, or as JSON."""
    parser.add_argument(
        "-o", "--output", choices=[plain, "json"], default=plain, help=f"default: {plain}"
    )
    parser.add_argument(
        "--json",
        dest="output",
        action="store_const",
        const="json",
        help="the same as --output json",
    )


def failed(error: Error) -> dict[str, Any]:
    """What went wrong, for a program: the last line of NDJSON."""
    said = {"event": "failed", "error": type(error).__name__, "reason": error.reason}
    return {**said, "message": str(error)}


def say(text: str) -> None:
    """A line for the person, beside whatever standard output is for."""
    print(text, file=sys.stderr, flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """*rows* under the names of *columns*; all of it may come from a server, so a cell is cut.

    A terminal gets aligned columns that are folded to its width, or, where they would be too
    narrow to read, one row below the other. A program gets whole cells with tabs between them.
    """
    from ..errors import quote

    lines = [[quote(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        print("\n".join("\t".join(line) for line in [list(columns), *lines]))
        return
    widths = _fit([columns, *lines], shutil.get_terminal_size().columns)
    if widths is None:
        print("\n\n".join(_stacked(columns, line) for line in lines))
        return
    from tabulate import tabulate

    heads = [paint(name, "bold") for name in columns]
    plain = {"tablefmt": "plain", "disable_numparse": True}
    print(tabulate(lines, heads, maxcolwidths=widths, **plain))  # type: ignore[arg-type]


def _fit(lines: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """How wide each column may be; None where not all of them fit. The widest give first, but no
    word is broken: a name or an address has to be copied whole.
    """
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, cells)) for cells in columns]
    words = [max(len(word) for cell in cells for word in cell.split() or [""]) for cells in columns]
    room = width - GAP * (len(widths) - 1)
    while sum(widths) > room:
        spare = [at for at, word in enumerate(words) if widths[at] > max(word, CELL_MIN)]
        if not spare:
            return None
        widths[max(spare, key=lambda at: widths[at])] -= 1
    return widths


def _stacked(columns: Sequence[str], line: Sequence[str]) -> str:
    said = zip(columns, line, strict=True)
    return "\n".join(f"{paint(name, 'bold')}: {cell}" for name, cell in said if cell)


def coloured(stream: TextIO) -> bool:
    """Whether *stream* is a terminal that may show colours (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """*text* in one of COLOURS, if *stream* (standard output) shows colours."""
    if not coloured(stream or sys.stdout):
        return text
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def ask(question: str) -> bool:
    """Whether the person at the terminal says yes; only a clear yes is one."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        answer = sys.stdin.readline()
    except (OSError, UnicodeDecodeError):
        answer = ""
    if not answer:  # no key has ended the line that the question stands on
        print(file=sys.stderr, flush=True)
    return answer.strip().lower() in {"y", "yes"}
