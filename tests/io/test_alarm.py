"""Deadlines without an event loop: by the alarm clock of the main thread, or by a daemon thread."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flyteauth._io import alarm
from flyteauth._io.threads import Breaker

BOUND = 20.0

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs SIGALRM")


def here(act: Callable[[], Any]) -> Any:
    return act()


def elsewhere(act: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(act).result(BOUND)


anywhere = pytest.mark.parametrize("where", [here, elsewhere])


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """A named pipe that nobody writes to: opening it hangs."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    yield path
    for thread in threading.enumerate():
        if thread.name.startswith("flyteauth read"):
            with path.open("wb"):  # lets it go
                pass
            thread.join(BOUND)


def read_from(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # what a deadline is must not be mistaken for this
        return b"cannot be read"


@anywhere
def test_what_the_call_does_is_what_comes_of_it(where: Callable[[Callable[[], Any]], Any]) -> None:
    assert where(lambda: alarm.call(divmod, 7, 2, deadline=BOUND)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        where(lambda: alarm.call(divmod, 7, 0, deadline=BOUND))


@anywhere
def test_a_call_that_hangs_has_a_deadline(
    where: Callable[[Callable[[], Any]], Any], pipe: Path
) -> None:
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer within 0.05 s"):
        where(lambda: alarm.call(read_from, pipe, deadline=0.05))
    assert time.monotonic() - begun < BOUND


def test_in_the_main_thread_no_other_is_begun_and_the_clock_is_left_as_it_was() -> None:
    before = signal.getsignal(signal.SIGALRM)
    assert alarm.call(threading.current_thread, deadline=BOUND) is threading.main_thread()
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_while_a_call_hangs_no_other_is_begun() -> None:
    breaker, released = Breaker(), threading.Event()
    with pytest.raises(TimeoutError, match="no answer"):
        breaker.call_sync(released.wait, deadline=0.05)
    with pytest.raises(TimeoutError, match="an earlier call hangs"):
        breaker.call_sync(list, deadline=BOUND)
    released.set()
    for thread in threading.enumerate():
        if thread.name == "flyteauth wait":
            thread.join(BOUND)
    assert breaker.call_sync(list, deadline=BOUND) == []
