"""A child that stands in our place: our streams, our signals, its exit status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Final

_FROM_TERMINAL: Final = ("SIGINT", "SIGQUIT", "SIGHUP")
"""A terminal sends these to all that is in front of it, so the child gets them without us."""
_SIGNALS: Final = (*_FROM_TERMINAL, "SIGTERM", "SIGUSR1", "SIGUSR2")


def run_child(
    words: Sequence[str],
    environ: AbstractContextManager[Mapping[str, str]],
    could_not: Callable[[OSError], int],
) -> int:
    """Run *words* in *environ* to the end; signals that only we get are passed on, and none keeps
    *environ* from being cleaned up. The result is the exit status as in a shell: 128 and the
    number of the signal that ended it, if one did; or that of *could_not*, if it could not be
    started.
    """
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        if child is None:
            early.append(number)
        elif not _comes_from_terminal(number):
            child.send_signal(number)

    with _handling(pass_on), environ as variables:
        if early:
            return 128 + early[0]
        try:
            child = subprocess.Popen(words, env=variables)  # noqa: S603  it is what the user asked for
        except OSError as error:
            return could_not(error)
        for number in early:
            child.send_signal(number)
        status = child.wait()
    return 128 - status if status < 0 else status


@contextmanager
def _handling(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """*handler* for the signals that nobody has told us to ignore: a child must ignore them, too,
    and does so if we do.
    """
    before: dict[int, Any] = {}
    try:
        for name in _SIGNALS:
            number = getattr(signal, name, None)
            if number is None or signal.getsignal(number) == signal.SIG_IGN:
                continue
            with suppress(ValueError):  # not in the main thread
                before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)


def _comes_from_terminal(number: int) -> bool:
    """Whether the child has this signal already: we are what a terminal has in front."""
    if sys.platform == "win32":
        return True
    if signal.Signals(number).name not in _FROM_TERMINAL:
        return False
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
