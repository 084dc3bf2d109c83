"""A terminal, handled so that neither it nor the event loop ever waits for the other.

It is opened once more by its name: the description that our streams have is shared with the shell,
which would be surprised to find it non-blocking, and other code of this process may watch it.
"""

from __future__ import annotations

import os
import select
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, TextIO

import anyio

from .threads import Breaker

BUSY: Final = 0.05  # seconds until another task of ours has written

# Terminals that show a link instead of the sequence that makes one, by $TERM_PROGRAM.
_LINKING: Final = frozenset(
    "iTerm.app WezTerm vscode ghostty Hyper Tabby rio WarpTerminal mintty".split()
)


def descriptor(stream: TextIO | None) -> int | None:
    """The descriptor of a *stream* that is a terminal; None for anything else."""
    try:
        if stream is None or not stream.isatty():
            return None
        number = stream.fileno()
    except (OSError, ValueError):  # closed, or not a file
        return None
    return number if os.isatty(number) else None


def in_foreground(terminal: int) -> bool:
    """Whether *terminal* is ours to read and to draw on, and not a shell's or another job's."""
    if sys.platform == "win32":  # no job control
        return True
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False


def size(terminal: int) -> tuple[int, int]:
    """Columns and rows; what the environment says, or 80 by 24, if the terminal does not know."""
    with suppress(OSError):
        columns, rows = os.get_terminal_size(terminal)
        if columns and rows:
            return columns, rows
    columns, rows = shutil.get_terminal_size()
    return max(columns, 1), max(rows, 1)


def moves(environ: Mapping[str, str]) -> bool:
    """Whether the terminal understands escape sequences at all."""
    return environ.get("TERM", "dumb") != "dumb"


def links(environ: Mapping[str, str]) -> bool:
    """Whether the terminal makes links of OSC 8; known ones only, others may show rubbish."""
    if not moves(environ) or {"TMUX", "STY"} & environ.keys():
        return False
    term = environ.get("TERM", "")
    if term.startswith(("screen", "tmux")):
        return False
    vte = environ.get("VTE_VERSION", "")
    konsole = environ.get("KONSOLE_VERSION", "")
    return (
        environ.get("TERM_PROGRAM") in _LINKING
        or bool({"KITTY_WINDOW_ID", "WT_SESSION", "ALACRITTY_WINDOW_ID"} & environ.keys())
        or term in {"xterm-kitty", "xterm-ghostty", "foot", "foot-extra", "alacritty"}
        or (vte.isdecimal() and int(vte) >= 5000)
        or (konsole.isdecimal() and int(konsole) >= 201200)
    )


def reopened(terminal: int, flags: int) -> int | None:
    """A non-blocking description of our own of the same terminal. None if it is not ours to open:
    after ``su`` it still belongs to somebody else.
    """
    flags |= os.O_NONBLOCK | os.O_NOCTTY
    for name in (os.ttyname, "/proc/self/fd/{}".format):  # the first is another container's
        with suppress(OSError):
            return os.open(name(terminal), flags)
    return None


class Output:
    """What is on its way to a terminal: whole, in order, and late if the terminal has stopped."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._breaker = Breaker()

    async def write(self, terminal: int, data: bytes, deadline: float) -> None:
        """Write *data*; after *deadline* seconds the rest is left for the next time."""
        self._waiting += data
        ours = reopened(terminal, os.O_WRONLY)
        if ours is None:
            everything, self._waiting = bytes(self._waiting), bytearray()
            with suppress(OSError):
                await self._breaker.call(_write_all, terminal, everything, deadline=deadline)
            return
        try:
            with anyio.move_on_after(deadline):
                while not self._push(ours):
                    try:
                        await anyio.wait_writable(ours)
                    except anyio.BusyResourceError:
                        await anyio.sleep(BUSY)
        finally:
            os.close(ours)

    def write_now(self, terminal: int, data: bytes) -> bool:
        """Write *data* if the terminal takes it at once, and nothing more important waits."""
        if self._waiting:
            return False
        ours = reopened(terminal, os.O_WRONLY)
        try:
            if ours is None:
                ready = select.select([], [terminal], [], 0)[1]
                return bool(ready) and os.write(terminal, data) == len(data)
            return os.write(ours, data) == len(data)
        except (OSError, ValueError):
            return False
        finally:
            if ours is not None:
                os.close(ours)

    def _push(self, ours: int) -> bool:
        """Whether all is written; what a dead terminal does not take is lost."""
        while self._waiting:
            try:
                del self._waiting[: os.write(ours, self._waiting)]
            except BlockingIOError:
                return False
            except OSError:
                self._waiting.clear()
        return True


def _write_all(terminal: int, data: bytes) -> None:
    while data:
        data = data[os.write(terminal, data) :]


class Quiet:
    """A terminal that hands over each key at once and shows none of them; Ctrl-C still works.

    ``keep`` makes it so again after a shell has set it otherwise (Ctrl-Z, ``fg``), and
    ``restore`` leaves it exactly as it was, unless it belongs to another job by then.
    """

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._before: list[Any] | None = None

    def keep(self) -> bool:
        """Whether it is so: not while another job has the terminal, nor if that is gone."""
        import termios

        if not in_foreground(self._terminal):
            return False
        try:
            now = termios.tcgetattr(self._terminal)
            quiet = [*now[:6], [*now[6]]]
            quiet[3] &= ~(termios.ICANON | termios.ECHO)
            quiet[6][termios.VMIN], quiet[6][termios.VTIME] = 1, 0
            if now == quiet:
                return True
            self._before = now
            # Not after what is still to be written: a stopped terminal would stop us.
            termios.tcsetattr(self._terminal, termios.TCSANOW, quiet)
        except termios.error:
            return False
        return True

    def restore(self, *, forget: bool = False) -> None:
        """*forget* drops what was typed and not read: half a paste is no command for a shell."""
        if self._before is None or not in_foreground(self._terminal):
            return
        import termios

        with suppress(termios.error):
            if forget:
                termios.tcflush(self._terminal, termios.TCIFLUSH)
            termios.tcsetattr(self._terminal, termios.TCSANOW, self._before)
        self._before = None
