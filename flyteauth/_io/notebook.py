"""
Shows a login in the cell of a notebook: Jupyter, Colab, VS Code.

One output, a card, tells how things stand and is updated in its place; in the end it says who is
logged in, and holds neither link nor code any more, for notebooks are kept and passed on. It
carries its own style and loads nothing. Front ends without HTML get the same in plain text.

IPython finds the cell by itself, also from another thread, such as the one that runs
``flyteauth.init``: a kernel hands what a thread displays to the cell that runs, and updates go by
the card's id.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from contextlib import suppress
from html import escape as markup
from importlib import import_module
from typing import Final

import anyio
from attrs import frozen

from .._sansio.errors import escape
from ..events import AuthEvent, BrowserNeeded, CodeNeeded, LoggedIn, MethodChosen
from .layout import remaining
from .presenter import Waiting
from .wording import chosen, describe

# Colours that read on a light and on a dark page; the text has the page's own.
_CARD: Final = (
    "border-left:4px solid {};padding:.5em 1em;margin:.25em 0;max-width:44em;"
    "font-family:system-ui,sans-serif;line-height:1.5;overflow-wrap:anywhere"
)
_ASKS, _DONE, _OVER, _WARNS = "#5b7fd6", "#2e9b62", "#8a8a94", "#c78a1b"
_CODE: Final = (
    "font-size:1.9em;font-weight:600;letter-spacing:.08em;padding:.1em .35em;"
    "border:1px solid currentColor;border-radius:.25em;user-select:all"
)
_BUTTON: Final = (
    "display:inline-block;padding:.3em .9em;border-radius:.3em;background:#3d63c2;color:#fff;"
    "text-decoration:none;font-weight:600"
)


@frozen
class _Card:
    html: str
    text: str


class Notebook:
    """A presenter for the cell that runs."""

    def __init__(self) -> None:
        self._id = ""
        self._method = ""
        self._asked: list[BrowserNeeded | CodeNeeded] = []

    def is_attended(self) -> bool:
        """See Attending. Nothing can be pasted into a cell's output."""
        return True

    async def show(self, event: AuthEvent) -> None:
        """See Presenter."""
        match event:
            case MethodChosen():
                self._begin(chosen(event))
            case BrowserNeeded():
                self._begin(self._method)
                self._ask(event)
            case CodeNeeded(alternative=alternative):
                if not alternative:
                    self._begin(self._method)
                self._ask(event)
            case LoggedIn() if self._id:
                self._update(_said(describe(event), _DONE))
                self._begin("")
            case _:
                if text := describe(event):
                    _display(_said(text, _DONE if isinstance(event, LoggedIn) else _WARNS))

    async def attend(self, waiting: Waiting) -> None:
        """See Attending."""
        try:
            while True:
                left = waiting.expires_at - waiting.time()
                state = "Waiting for you to log in"
                if left < math.inf:
                    state += f" · {remaining(left)} left"
                self._update(_prompt(self._method, self._asked, state))
                await anyio.sleep(1.0 if left == math.inf else max(left % 1, 0.05))
        finally:
            self._update(_said("This login does not wait for you any more.", _OVER))

    def _begin(self, method: str) -> None:
        self._id, self._method, self._asked = "", method, []

    def _ask(self, event: BrowserNeeded | CodeNeeded) -> None:
        self._asked.append(event)
        self._update(_prompt(self._method, self._asked, ""))

    def _update(self, card: _Card) -> None:
        if self._id:
            _display(card, self._id, update=True)
        else:
            self._id = f"flyteauth-{uuid.uuid4()}"
            _display(card, self._id)


def _prompt(method: str, asked: Sequence[BrowserNeeded | CodeNeeded], state: str) -> _Card:
    lines = [f"<div>{markup(method)}</div>"] if method else []
    texts = [method] if method else []
    for event in asked:
        lines += _browser(event) if isinstance(event, BrowserNeeded) else _device(event)
        texts.append(describe(event))
    if state:
        lines.append(f'<div role="status" style="opacity:.75">{markup(state)}</div>')
        texts.append(state)
    return _Card(_framed("".join(lines), _ASKS), "\n\n".join(texts))


def _browser(event: BrowserNeeded) -> list[str]:
    lines = [f'<div style="margin:.5em 0">{_link(event.url, "Log in", _BUTTON)}</div>']
    if not event.returns:
        why = f" ({markup(escape(event.obstacle.rstrip('.')))})" if event.obstacle else ""
        lines.append(f"<div>Your browser cannot come back here by itself{why}.</div>")
    return lines


def _device(event: CodeNeeded) -> list[str]:
    complete = event.url_with_code or event.url
    before = "Or on any device: open" if event.alternative else "Open"
    code = markup(escape(event.user_code))
    check = "enter" if complete == event.url else "check, or enter,"
    return [
        f"<div>{before} {_link(complete, event.url, '')} and {check} the code</div>",
        f'<div style="margin:.6em 0"><code style="{_CODE}">{code}</code></div>',
    ]


def _link(url: str, text: str, style: str) -> str:
    """A link, if *url* is one for a browser."""
    shown = markup(escape(text))
    if not url.lower().startswith(("https://", "http://")):
        return shown
    return (
        f'<a href="{markup(escape(url))}" target="_blank" rel="noopener noreferrer" '
        f'style="{style}">{shown}</a>'
    )


def _said(text: str, colour: str) -> _Card:
    return _Card(_framed(markup(text), colour), text)


def _framed(html: str, colour: str) -> str:
    return f'<div style="{_CARD.format(colour)}">{html}</div>'


def _display(card: _Card, display_id: str | None = None, *, update: bool = False) -> None:
    """Hand *card* to the front end. A kernel that cannot show it does not end a login."""
    data = {"text/html": card.html, "text/plain": card.text}
    with suppress(Exception):
        display = import_module("IPython.display").display
        if display_id is None:
            display(data, raw=True)
        else:
            display(data, raw=True, display_id=display_id, update=update)
