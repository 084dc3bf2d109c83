"""What a person types or pastes at a prompt that shows nothing of it: bytes to lines, purely."""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 65536  # bytes of a line; the rest of a longer one is dropped

# What is longer than any key's is none, however it comes: at once or byte by byte.
_SEQUENCE: Final = re.compile(rb"\x1b(?:\[[0-?]{0,24}[ -/]{0,4}[@-~]|O[@-~]|[^\[O])")
_BEGUN: Final = re.compile(rb"\x1b(?:\[[0-?]{0,24}[ -/]{0,4}|O)?\Z")  # the rest is still to come
_PASTE, _PASTED = b"\x1b[200~", b"\x1b[201~"

_ENTER: Final = b"\r\n"
_ERASE: Final = b"\x08\x7f"
_KILL: Final = b"\x15\x17"  # Ctrl-U, Ctrl-W
_END: Final = 4  # Ctrl-D


class Typed:
    """The line that is being typed.

    Knows backspace, Ctrl-U, Ctrl-D and bracketed paste, in which a line break ends nothing: a long
    address that was copied from a terminal may be full of them.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._left = b""
        self._pasting = False
        self.ended = False

    def __len__(self) -> int:
        """The characters of the line so far."""
        return sum(byte & 0xC0 != 0x80 for byte in self._line)

    def feed(self, data: bytes) -> list[str]:
        """The lines that *data* completes."""
        data, self._left = self._left + data, b""
        lines: list[str] = []
        place = 0
        while place < len(data) and not self.ended:
            if data[place] != 0x1B:
                end = data.find(b"\x1b", place)
                end = len(data) if end < 0 else end
                self._characters(data[place:end], lines)
                place = end
            elif sequence := _SEQUENCE.match(data, place):
                place = sequence.end()
                if sequence.group() in {_PASTE, _PASTED}:
                    self._pasting = sequence.group() == _PASTE
            elif _BEGUN.match(data, place):
                self._left = data[place:]
                break
            else:
                place += 1  # no sequence after all
        return lines

    def _characters(self, data: bytes, lines: list[str]) -> None:
        for byte in data:
            if byte in _ENTER:
                if self._line and not self._pasting:
                    lines.append(self._line.decode("utf-8", "replace"))
                    self._line.clear()
            elif byte in _ERASE:
                while self._line and self._line.pop() & 0xC0 == 0x80:
                    pass
            elif byte in _KILL:
                self._line.clear()
            elif byte == _END:
                self.ended = True
                return
            elif byte >= 0x20 and len(self._line) < LONGEST:
                self._line.append(byte)
