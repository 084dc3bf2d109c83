"""
Shows a login to the person at a terminal, and stays with them while it waits.

Everything goes to standard error, so that standard output stays the program's own. Where that is no
terminal, these are plain lines. No terminal, stopped, slow or gone, ends or delays a login.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TextIO

import anyio

from .._sansio.errors import escape
from ..events import AuthEvent, BrowserNeeded, CodeNeeded
from .presenter import Waiting
from .threads import run_in_daemon
from .wording import describe

if TYPE_CHECKING:
    from .keys import Typed
    from .layout import Screen
    from .qr import Matrix
    from .tty import Quiet

WRITE_DEADLINE: Final = 5.0
QR_DEADLINE: Final = 2.0
TICK: Final = 0.2  # seconds until it is seen that the time, the size or the job has changed
HINT_PATIENCE: Final = 1.0  # seconds for a device code, which is told of before pasting
BURST: Final = 65536  # bytes
ERASE: Final = "\r\x1b[K"
STILL: Final = "Waiting for you to log in; Ctrl-C to cancel."


class Terminal:
    """A presenter for *stream* (standard error), with *keyboard* (standard input) to paste at."""

    def __init__(self, stream: TextIO | None = None, keyboard: TextIO | None = None) -> None:
        from .tty import Output

        self._stream = stream
        self._keyboard = keyboard
        self._out = Output()
        self._drawn = ""  # the live line that stands there now
        self._stranded = self._code_shown = False
        self._is_apart = True  # what was said last ended with an empty line

    def is_attended(self) -> bool:
        """See Attending."""
        from .tty import in_foreground

        keys = self._keys
        return self._terminal is not None and keys is not None and in_foreground(keys)

    async def show(self, event: AuthEvent) -> None:
        """See Presenter."""
        if isinstance(event, BrowserNeeded):
            self._stranded, self._code_shown = not event.returns, False
        self._code_shown = self._code_shown or isinstance(event, CodeNeeded)
        terminal = self._terminal
        if terminal is None or sys.platform == "win32":
            await self._show_plainly(describe(event))
            return
        from .layout import laid_out

        modules = await _modules(event)
        if text := laid_out(event, self._screen(terminal), modules):
            asks = isinstance(event, BrowserNeeded | CodeNeeded)
            apart = "\n" if asks and not self._is_apart else ""
            self._is_apart = text.endswith("\n\n")
            await self._write(terminal, apart + text)

    async def attend(self, waiting: Waiting) -> None:
        """See Attending."""
        from .keys import Typed
        from .tty import Quiet, reopened

        terminal, keys = self._terminal, self._keys
        if terminal is None or sys.platform == "win32":
            await anyio.sleep_forever()
            return
        typed, quiet, ours = Typed(), None, -1
        if waiting.paste is not None and keys is not None:
            opened = reopened(keys, os.O_RDONLY)
            ours, quiet = os.dup(keys) if opened is None else opened, Quiet(keys)
        try:
            if not self._screen(terminal).moves:
                await self._write(terminal, f"{STILL}\n")
            await self._stay(waiting, terminal, typed, quiet, ours)
        finally:
            if self._drawn and self._out.write_now(terminal, ERASE.encode()):
                self._drawn = ""
            if quiet is not None:
                quiet.restore(forget=len(typed) > 0)
                os.close(ours)

    async def _stay(
        self, waiting: Waiting, terminal: int, typed: Typed, quiet: Quiet | None, keys: int
    ) -> None:
        """Show the time that is left, and read *keys* as long as they are ours to read."""
        from .layout import YELLOW, live, paste_hint
        from .tty import in_foreground

        accepted = hinted = False
        hint_at = waiting.time() + (0.0 if self._stranded else HINT_PATIENCE)
        while True:
            reading = quiet is not None and not typed.ended and quiet.keep()
            if reading and (self._code_shown or waiting.time() >= hint_at) and not hinted:
                hinted = True
                hint = paste_hint(self._screen(terminal), stranded=self._stranded)
                await self._write(terminal, hint)
            left = waiting.expires_at - waiting.time()
            screen = self._screen(terminal)
            if screen.moves and in_foreground(terminal):
                self._draw(terminal, live(screen, left, len(typed), accepted=accepted))
            ready = False
            with anyio.move_on_after(TICK):
                if not reading:
                    await anyio.sleep_forever()
                await self._readable(keys, typed)
                ready = not typed.ended
            if ready and quiet is not None:
                for line in typed.feed(_read(keys, typed)):
                    complaint = waiting.paste(line) if waiting.paste is not None else None
                    accepted = complaint is None
                    if complaint is not None:
                        said = screen.prose(escape(complaint))
                        await self._write(
                            terminal, "".join(f"{screen.paint(line, YELLOW)}\n" for line in said)
                        )
            if quiet is not None and typed.ended:
                quiet.restore()

    async def _readable(self, keys: int, typed: Typed) -> None:
        try:
            await anyio.wait_readable(keys)
        except (OSError, ValueError, NotImplementedError):  # not every loop watches a terminal
            typed.ended = True

    def _draw(self, terminal: int, line: str) -> None:
        if line != self._drawn and self._out.write_now(terminal, self._encoded(f"\r{line}\x1b[K")):
            self._drawn = line

    async def _write(self, terminal: int, text: str) -> None:
        """Write *text* where the live line is; it comes back with the next second."""
        erase, self._drawn = ERASE if self._drawn else "", ""
        with suppress(OSError, ValueError):
            await self._out.write(terminal, self._encoded(erase + text), WRITE_DEADLINE)

    async def _show_plainly(self, text: str) -> None:
        if text:
            # A closed or a stopped stream must not end a login; TimeoutError is an OSError.
            with suppress(OSError, ValueError):
                await run_in_daemon(self._print, text, deadline=WRITE_DEADLINE)

    def _print(self, text: str) -> None:
        stream = self._stream or sys.stderr
        stream.write(text + "\n")
        stream.flush()

    def _encoded(self, text: str) -> bytes:
        return text.encode(self._encoding, "backslashreplace")

    @property
    def _encoding(self) -> str:
        return getattr(self._stream or sys.stderr, "encoding", None) or "utf-8"

    @property
    def _terminal(self) -> int | None:
        from .tty import descriptor

        return descriptor(self._stream or sys.stderr)

    @property
    def _keys(self) -> int | None:
        from .tty import descriptor

        return descriptor(self._keyboard or sys.stdin)

    def _screen(self, terminal: int) -> Screen:
        from .layout import Screen
        from .tty import links, moves, size

        columns, rows = size(terminal)
        able = moves(os.environ)
        return Screen(
            columns=columns,
            rows=rows,
            moves=able,
            colours=able and not os.environ.get("NO_COLOR"),
            links=links(os.environ),
            unicode=self._encoding.lower().replace("_", "-") in {"utf-8", "utf8"},
        )


async def _modules(event: AuthEvent) -> Matrix | None:
    """The QR code for a device, made elsewhere: it takes some milliseconds."""
    if isinstance(event, CodeNeeded):
        from .qr import matrix

        with suppress(Exception):  # a login does without a picture
            return await run_in_daemon(
                matrix, event.url_with_code or event.url, deadline=QR_DEADLINE
            )
    return None


def _read(keys: int, typed: Typed) -> bytes:
    """What there is to read now, perhaps nothing."""
    try:
        data = os.read(keys, BURST)
    except BlockingIOError:
        return b""
    except OSError:
        data = b""
    typed.ended = typed.ended or not data  # hung up
    return data
