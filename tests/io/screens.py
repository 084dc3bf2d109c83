"""What a person sees of the bytes that a terminal gets, by a terminal in memory."""

from __future__ import annotations

import pyte
from attrs import frozen


@frozen
class Seen:
    """A terminal's screen, and what has left it at the top."""

    screen: pyte.HistoryScreen

    @property
    def lines(self) -> list[str]:
        above = ["".join(row[x].data for x in range(self.screen.columns)) for row in self._above]
        return [line.rstrip() for line in [*above, *self.screen.display]]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).rstrip() + "\n"

    @property
    def prose(self) -> str:
        """The same with all line breaks and indents undone."""
        return " ".join(self.text.split())

    @property
    def _above(self) -> list[dict[int, pyte.screens.Char]]:
        return list(self.screen.history.top)

    def dark(self, line: int, column: int) -> tuple[bool, bool] | None:
        """Whether the upper and the lower half of a cell of a QR code are dark; None outside."""
        rows = [*self._above, *(self.screen.buffer[y] for y in range(self.screen.lines))]
        cell = rows[line][column]
        if (cell.fg, cell.bg) != ("black", "brightwhite"):
            return None
        return {" ": (False, False), "▀": (True, False), "▄": (False, True), "█": (True, True)}[
            cell.data
        ]

    def qr(self) -> list[list[int]]:
        """The modules of the one QR code there is, with its quiet zone; empty if there is none."""
        found: list[list[int]] = []
        for line in range(len(self.lines)):
            cells = [self.dark(line, column) for column in range(self.screen.columns)]
            halves = [cell for cell in cells if cell is not None]
            if halves:
                found += [[int(half[part]) for half in halves] for part in (0, 1)]
        return found


def seen(data: str | bytes, columns: int, rows: int) -> Seen:
    """What *data* looks like; a string as a terminal's driver hands it on."""
    if isinstance(data, str):
        data = data.replace("\n", "\r\n").encode()
    screen = pyte.HistoryScreen(columns, rows, history=500, ratio=0.5)
    pyte.ByteStream(screen).feed(data)
    return Seen(screen)
