"""Who shows a login to the person, and whether a person is there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from attrs import field, frozen

from ..events import AuthEvent


def person_present() -> bool:
    """Whether somebody is there to be asked: at a terminal, or in a notebook."""
    for stream in (sys.stdin, sys.stderr):
        try:
            if stream is None or not stream.isatty():
                break
        except (OSError, ValueError):  # closed
            break
    else:
        return True
    return notebook_shell() is not None


def notebook_shell() -> Any | None:
    """The shell of the notebook that this process is the kernel of: Jupyter, Colab, VS Code."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if hasattr(shell, "kernel") else None


def default() -> Presenter:
    """The presenter for where this program runs."""
    if notebook_shell() is not None:
        from .notebook import Notebook

        return Notebook()
    from .terminal import Terminal

    return Terminal()


class Presenter(Protocol):
    """Whatever shows events to the person who logs in."""

    async def show(self, event: AuthEvent) -> None:
        """Show one event; must not block the event loop."""
        ...


@frozen
class Waiting:
    """A login that waits for a person, until ``expires_at`` by the clock ``time`` (POSIX seconds).

    ``paste``, if there is something to paste, takes what the person pasted: the address where their
    browser ended, or the code in it. It returns a line that says what is wrong with it, or None if
    the login goes on with it.
    """

    expires_at: float
    time: Callable[[], float]
    paste: Callable[[str], str | None] | None = field(default=None, repr=False)


@runtime_checkable
class Attending(Presenter, Protocol):
    """A presenter that can stay with the person while a login waits for them."""

    def is_attended(self) -> bool:
        """Whether a person is looking, and can answer."""
        ...

    async def attend(self, waiting: Waiting) -> None:
        """Show that the login waits, and take what is pasted, until cancelled; the terminal, or
        whatever it is, is then as it was. Must not block the event loop.
        """
        ...


class Silent:
    """Shows nothing: whoever embeds the session has its own way, through ``on_event``."""

    async def show(self, event: AuthEvent) -> None:
        del event
