"""How a prompt looks on a terminal: events and a screen to text, purely."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Final

from attrs import frozen

from .._sansio.errors import escape
from ..events import AuthEvent, BrowserNeeded, CodeNeeded, LoggedIn, MethodChosen, Warned
from . import qr
from .letters import large
from .wording import chosen, describe, stranded, to_any_browser, to_browser

LINE_MAX: Final = 80  # columns of prose; longer lines are hard to read
ROOMY: Final = 48  # rows from which on a second way to log in is shown as large as the first
GAP: Final = 3  # columns between a QR code and what stands beside it
LINK_MAX: Final = 2000  # characters; some terminals take no longer ones for links

BOLD, GREEN, YELLOW = "1", "32", "33"
_UNSEEN: Final = re.compile(r"\x1b\[[\d;]*m|\x1b\]8;;[^\x1b]*\x1b\\")


@frozen
class Screen:
    """A terminal, and what it can show. ``moves``: it can rewrite a line."""

    columns: int
    rows: int
    moves: bool = True
    colours: bool = True
    links: bool = False
    unicode: bool = True

    def paint(self, text: str, *codes: str) -> str:
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if self.colours and codes else text

    def link(self, url: str) -> str:
        """*url* as it is, for the mouse of those who have no links, and a link for the others."""
        plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= LINK_MAX
        if not self.links or not plain:
            return escape(url)
        return f"\x1b]8;;{url}\x1b\\{url}\x1b]8;;\x1b\\"

    def prose(self, text: str, columns: int | None = None) -> list[str]:
        """*text* broken between words; a URL or a path in it stays whole."""
        width = min(columns or self.columns - 1, LINE_MAX)
        return textwrap.wrap(text, max(width, 10), break_long_words=False, break_on_hyphens=False)

    def height(self, lines: Iterable[str]) -> int:
        """The rows that *lines* take."""
        seen = (_UNSEEN.sub("", line) for line in lines)
        return sum(max(math.ceil(len(line) / self.columns), 1) for line in seen)


def laid_out(event: AuthEvent, screen: Screen, modules: qr.Matrix | None = None) -> str:
    """*event* for *screen*, as whole lines. *modules*: the QR code for its URL, if there is one.

    What waits for an answer ends with an empty line. The URL to open stands alone on its line,
    which only the terminal itself breaks, so that it can be copied in one piece.
    """
    match event:
        case MethodChosen():
            lines = [*screen.prose(chosen(event)), ""]
        case BrowserNeeded():
            lines = [*_browser(event, screen), ""]
        case CodeNeeded(alternative=True) if screen.rows < ROOMY:
            lines = [*_other_device(event, screen), ""]
        case CodeNeeded():
            lines = [*_device(event, screen, modules), ""]
        case LoggedIn(proven=True):
            mark = "✓ " if screen.unicode and screen.colours else ""
            first, *rest = screen.prose(mark + describe(event))
            lines = [first.replace(mark, screen.paint(mark, BOLD, GREEN), 1), *rest]
        case Warned():
            lines = [screen.paint(line, YELLOW) for line in screen.prose(describe(event))]
        case _:
            lines = screen.prose(describe(event))
    return "".join(f"{line}\n" for line in lines)


def _browser(event: BrowserNeeded, screen: Screen) -> list[str]:
    lines = [*screen.prose(to_browser(event)), "", screen.link(event.url)]
    return lines if event.returns else [*lines, "", *screen.prose(stranded(event))]


def _other_device(event: CodeNeeded, screen: Screen) -> list[str]:
    code = screen.paint(escape(event.user_code), BOLD)
    before = screen.prose(f"{to_any_browser(event)}:")
    return [*before, "", screen.link(event.url), "", f"and enter the code  {code}"]


def _device(event: CodeNeeded, screen: Screen, modules: qr.Matrix | None) -> list[str]:
    """With a QR code, if the screen holds it together with the URL and the live line."""
    complete = event.url_with_code
    has_code = complete is not None and complete != event.url
    shown = complete if complete is not None else event.url
    check = "check that it shows this code:" if has_code else "enter this code:"
    intro = screen.prose(f"{to_any_browser(event)}:")
    top = [*intro, "", screen.link(shown)]
    typing = _typing(event.url, screen) if has_code else []
    for size in ("large", "small"):  # the URL stays in sight, too, if it can
        told = ["", *screen.prose(f"and {check}"), "", *_code(event.user_code, screen, size=size)]
        if screen.height([shown, *told, *typing]) + 2 <= screen.rows:
            break
    plain = [*top, *told, *typing]
    if modules is None or not (screen.colours and screen.unicode):
        return plain

    # All of it, or else from the URL on: what is above it may leave the screen.
    for above, border in product(([*intro, "", shown], [shown]), qr.BORDERS):
        room = screen.rows - screen.height([*above, "", ""]) - 1
        columns, rows = qr.size(modules, border)
        beside = screen.columns - columns - GAP - 1
        image = qr.drawn(modules, border)
        if large(event.user_code, beside):
            scan = screen.prose(f"Scan this, or open the address above, and {check}", beside)
            side = [*scan, "", *_code(event.user_code, screen, beside)]
            alone = _typing(event.url, screen, alone=True) if has_code else []
            if len(event.url) <= beside and len(side) + len(alone) <= rows <= room:
                return [*top, "", *_beside(image, [*side, *alone])]
            if len(side) <= rows <= room - screen.height(typing[1:]) * has_code:
                return [*top, *typing[1:], "", *_beside(image, side)]
        if columns <= screen.columns and screen.height([*told, *typing]) + rows + 1 <= room:
            return [*plain, "", *image]
    return plain


def _typing(url: str, screen: Screen, *, alone: bool = False) -> list[str]:
    """The way without a link that holds the code."""
    line = "Or open {} and type the code."
    if not alone and len(line) + len(url) < screen.columns:
        return ["", line.format(screen.link(url))]
    return ["", "Or open", "", screen.link(url), "", "and type the code."]


def _code(
    user_code: str, screen: Screen, columns: int | None = None, *, size: str = "large"
) -> list[str]:
    """*user_code* as large as it can be, and as one word that can be copied."""
    columns = columns or screen.columns - 1
    plain = screen.paint(escape(user_code), BOLD)
    if size == "large" and screen.unicode and (rows := large(user_code, columns)):
        return [*(screen.paint(row, BOLD) for row in rows), "", plain]
    spaced = " ".join(user_code)
    if user_code.isascii() and user_code.isprintable() and len(spaced) <= columns:
        return [screen.paint(spaced, BOLD), "", plain]
    return [plain]


def _beside(left: Sequence[str], right: Sequence[str]) -> list[str]:
    """*right*, in the middle of the height of *left*, which has lines enough."""
    above = (len(left) - len(right)) // 2
    return [
        f"{line}{' ' * GAP}{right[number - above]}"
        if 0 <= number - above < len(right) and right[number - above]
        else line
        for number, line in enumerate(left)
    ]


def paste_hint(screen: Screen, *, stranded: bool) -> str:
    """What goes before the live line where something can be pasted."""
    what = (
        "Paste that address here"
        if stranded
        else "Or paste here the address at which your browser ended"
    )
    lines = screen.prose(f"{what}, and press Enter. It will not be shown.")
    return "".join(f"{line}\n" for line in [*lines, ""])


def live(screen: Screen, left: float, typed: int, *, accepted: bool) -> str:
    """The one line that says that the login waits: *left* seconds, *typed* characters so far."""
    dot = " · " if screen.unicode else " - "
    time = f"{remaining(left)} left" if left < math.inf else ""
    cancel = "Ctrl-C to cancel"
    waits = "Logging you in" if accepted else "Waiting for you to log in"
    if typed:
        ways: tuple[tuple[str, ...], ...] = (
            (f"{typed} characters pasted", "Enter to go on", time, cancel),
            (f"{typed} characters", "Enter to go on"),
            (f"{typed} characters",),
        )
    else:
        ways = ((waits, time, cancel), (waits.split(" ", maxsplit=1)[0], time, cancel), (time,))
    lines = [dot.join(filter(None, parts)) for parts in ways]
    fitting = (line for line in lines if len(line) < screen.columns)
    return next(fitting, lines[-1][: screen.columns - 1])


def remaining(left: float) -> str:
    """*left* seconds as a clock shows them."""
    seconds = max(math.ceil(left), 0)
    hours, minutes = divmod(seconds // 60, 60)
    clock = f"{minutes}:{seconds % 60:02}"
    return f"{hours}:{clock.zfill(5)}" if hours else clock
