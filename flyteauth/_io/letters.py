"""Large letters for a code that is read from across the desk and typed on a telephone."""

from __future__ import annotations

from functools import cache
from typing import Final

# Five by seven, drawn so that 0 and O, 1 and I, 5 and S, 8 and B are told apart.
_GLYPHS: Final = (
    (
        "ABCDEFGHI",
        """
 ###  ####   #### ####  ##### #####  #### #   #  ###
#   # #   # #     #   # #     #     #     #   #   #
#   # #   # #     #   # #     #     #     #   #   #
##### ####  #     #   # ####  ####  #  ## #####   #
#   # #   # #     #   # #     #     #   # #   #   #
#   # #   # #     #   # #     #     #   # #   #   #
#   # ####   #### ####  ##### #      #### #   #  ###
""",
    ),
    (
        "JKLMNOPQR",
        """
  ### #   # #     #   # #   #  ###  ####   ###  ####
   #  #  #  #     ## ## ##  # #   # #   # #   # #   #
   #  # #   #     # # # # # # #   # #   # #   # #   #
   #  ##    #     # # # # # # #   # ####  #   # ####
   #  # #   #     #   # #  ## #   # #     # # # # #
#  #  #  #  #     #   # #   # #   # #     #  #  #  #
 ##   #   # ##### #   # #   #  ###  #      ## # #   #
""",
    ),
    (
        "STUVWXYZ-",
        """
 #### ##### #   # #   # #   # #   # #   # #####
#       #   #   # #   # #   # #   # #   #     #
#       #   #   # #   # #   #  # #   # #     #
 ###    #   #   # #   # # # #   #     #     #   ####
    #   #   #   # #   # # # #  # #    #    #
    #   #   #   #  # #  ## ## #   #   #   #
####    #    ###    #   #   # #   #   #   #####
""",
    ),
    (
        "0123456789",
        """
 ###    #    ###  ####     #  #####  ###  #####  ###   ###
#   #  ##   #   #     #   ##  #     #         # #   # #   #
#  ## # #       #     #  # #  #     #        #  #   # #   #
# # #   #      #   ###  #  #  ####  ####    #    ###   ####
##  #   #     #       # #####     # #   #   #   #   #     #
#   #   #    #        #    #      # #   #   #   #   #     #
 ###  ##### ##### ####     #  ####   ###    #    ###   ###
""",
    ),
)
WIDTH: Final = 5
_HALVES: Final = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


def large(code: str, columns: int) -> list[str] | None:
    """*code* in letters four rows high: on one line, or the parts between its hyphens below each
    other, if they fit in *columns*; None if it does not fit, or has letters that are not drawn.
    """
    glyphs = _glyphs()
    if not code or not set(code) <= glyphs.keys():
        return None
    head, *tail = code.split("-")
    parts = [f"{part}-" for part in (head, *tail)]
    parts[-1] = parts[-1][:-1]
    for lines in ([code], parts):
        if all(lines) and max(map(len, lines)) * (WIDTH + 1) - 1 <= columns:
            return [row for line in lines for row in [*_line(line), ""]][:-1]
    return None


def _line(text: str) -> list[str]:
    rows = [" ".join(_glyphs()[letter][row] for letter in text) for row in range(7)]
    rows.append(" " * len(rows[0]))
    return [
        "".join(_HALVES[above == "#", below == "#"] for above, below in zip(*pair, strict=True))
        for pair in zip(rows[::2], rows[1::2], strict=True)
    ]


@cache
def _glyphs() -> dict[str, tuple[str, ...]]:
    glyphs = {}
    for letters, drawing in _GLYPHS:
        rows = drawing.strip("\n").split("\n")
        for number, letter in enumerate(letters):
            start = number * (WIDTH + 1)
            glyphs[letter] = tuple(row[start : start + WIDTH].ljust(WIDTH) for row in rows)
    return glyphs
