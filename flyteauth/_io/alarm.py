"""Blocking calls with a deadline, where there is neither an event loop nor a need for threads."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def call(function: Callable[[*Ts], T], *args: *Ts, deadline: float) -> T:
    """What *function* of *args* returns or raises; TimeoutError after *deadline* seconds.

    The main thread has the system's alarm clock for that; where there is none the call happens on
    a daemon thread, which goes on alone if it hangs.
    """
    if sys.platform != "win32":
        try:
            before = signal.signal(signal.SIGALRM, _ring)
        except ValueError:  # not in the main thread
            pass
        else:
            signal.setitimer(signal.ITIMER_REAL, deadline)
            try:
                return function(*args)
            except _Late:
                raise TimeoutError(f"no answer within {deadline:g} s") from None
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0.0)
                signal.signal(signal.SIGALRM, before)
    from .threads import Breaker

    return Breaker().call_sync(function, *args, deadline=deadline)


class _Late(BaseException):
    """No Exception, and no OSError: whatever the call makes of those, it is not meant to see it."""


def _ring(*_: object) -> None:
    raise _Late
