"""Reports for a person: lines that fit their terminal, and steer it nowhere."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from typing import Final

WIDTH_MAX: Final = 100  # columns; longer lines are hard to read
WIDTH: Final = 80  # where nobody says how wide it is


def short(text: str) -> str:
    """*text* on one line that no terminal is steered by, and with ~ for the home directory."""
    from ..errors import escape

    home = os.path.expanduser("~")  # noqa: PTH111  # pathlib raises without a home
    if len(home) < 2:
        return escape(text)
    # Where a path begins, for the same names may stand within another one.
    beginning = rf"(?<![\w./~-]){re.escape(home + os.sep)}"
    return escape(re.sub(beginning, lambda _: f"~{os.sep}", text))


def wrapped(text: str, first: str, rest: str) -> list[str]:
    """*text* as ``short`` has it, in lines after *first* and *rest*; a path in it stays whole."""
    columns = WIDTH
    if sys.stdout.isatty():
        columns = min(shutil.get_terminal_size().columns, WIDTH_MAX)
    lines = textwrap.wrap(
        short(text),
        max(columns, len(rest) + 20),
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines or [first.rstrip()]
