"""Inputs worth keeping: a file for each target, in which each line is one, as Python writes it."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

DIRECTORY = Path(__file__).parent / "corpus"
SIZE_MAX = 1000
COUNT_MAX = 60


def inputs(target: str) -> list[bytes]:
    """What is kept for *target*; nothing for a new one."""
    path = DIRECTORY / f"{target}.txt"
    lines = path.read_text("ascii").splitlines() if path.exists() else []
    return [ast.literal_eval(line) for line in lines]


def keep(target: str, found: Iterable[bytes]) -> int:
    """Add what is *found*, the shortest first, as far as there is room; how many were added."""
    known = inputs(target)
    fitting = {data for data in found if len(data) < SIZE_MAX} - set(known)
    added = sorted(fitting, key=lambda data: (len(data), data))[: max(0, COUNT_MAX - len(known))]
    lines = "".join(f"{data!r}\n" for data in sorted([*known, *added]))
    DIRECTORY.mkdir(exist_ok=True)
    (DIRECTORY / f"{target}.txt").write_text(lines, "ascii")
    return len(added)
