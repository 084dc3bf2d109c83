"""A QR code in a terminal, for a telephone's camera."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

BORDERS: Final = (4, 2)  # ISO/IEC 18004 wants four modules; cameras make do with two

# Black on white whatever the terminal's own colours are: not every camera reads the inverse.
_ON: Final = "\x1b[30;107m"
_OFF: Final = "\x1b[0m"
_HALVES: Final = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}

Matrix = Sequence[Sequence[int]]


def matrix(text: str) -> Matrix | None:
    """The modules of the smallest QR code for *text*, 1 for a dark one; None if it is too long.

    Takes some milliseconds, and longer the first time.
    """
    import segno

    try:
        return tuple(map(tuple, segno.make(text, micro=False, boost_error=False).matrix))
    except segno.DataOverflowError:
        return None


def size(modules: Matrix, border: int) -> tuple[int, int]:
    """How many columns and rows of a terminal it takes."""
    side = len(modules) + 2 * border
    return side, (side + 1) // 2


def drawn(modules: Matrix, border: int) -> list[str]:
    """*modules* as lines, two to a character cell, each with its colours and without."""
    side = len(modules) + 2 * border
    blank, edge = (0,) * side, (0,) * border
    rows = [blank] * border + [(*edge, *row, *edge) for row in modules] + [blank] * border
    if side % 2:
        rows.append(blank)
    return [
        _ON + "".join(_HALVES[cell] for cell in zip(*pair, strict=True)) + _OFF
        for pair in zip(rows[::2], rows[1::2], strict=True)
    ]
