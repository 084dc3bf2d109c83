"""
One event loop on a thread of its own, for whoever has none.

Synchronous programs call async functions through it; so does a notebook, whose own loop runs
already. It starts on first use, serves any number of threads, and ends with the process: its
thread is a daemon, so nothing that hangs in it can keep the process from exiting. A forked child
starts its own.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from contextvars import Context
from typing import Final, TypeVar, TypeVarTuple

import anyio
from anyio.from_thread import BlockingPortal

from . import tasks

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# How long an interrupted call may tidy up, and an exiting process wait: for what is being sent (a
# lost reply is a spent token), and for connections to close.
TIDY_UP: Final = 2.0
FINISH: Final = 3.0

# Ctrl-C ends a wait that it meets. One that comes just before is seen only after the wait, and on
# Windows every one: so no wait is long.
TICK: Final = 0.2


class _Portal:
    def __init__(self) -> None:
        self._opened: Future[BlockingPortal] = Future()
        self.thread = threading.Thread(target=self._run, name="flyteauth portal", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            Context().run(anyio.run, self._main)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the callers get it
            if not self._opened.done():
                self._opened.set_exception(error)

    async def _main(self) -> None:
        async with BlockingPortal() as portal:
            self._opened.set_result(portal)
            await portal.sleep_until_stopped()

    def start(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> Future[T]:
        return self._opened.result().start_task_soon(function, *args)

    def stop(self) -> None:
        with suppress(RuntimeError):
            self.start(self._opened.result().stop, True)  # anyio's signature
        self.thread.join(TIDY_UP)


_lock = threading.Lock()
_portal: _Portal | None = None
_registered = False  # a forked child inherits that too
_exiting = False
_forgotten: list[_Portal] = []


def call(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Await *function* of *args* on the portal's event loop, and return its result.

    Ctrl-C cancels the work, lets it tidy up, and goes on to the caller.
    """
    portal = _running()
    if portal.thread is threading.current_thread():
        raise RuntimeError(
            "a blocking call from flyteauth's own event loop would wait for itself; "
            "await the async function instead"
        )
    ended, interrupted = threading.Event(), threading.Event()
    scopes: list[anyio.CancelScope] = []
    exits: list[BaseException] = []

    async def work() -> T | None:
        try:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                if interrupted.is_set():
                    scope.cancel()
                return await function(*args)
        except (KeyboardInterrupt, SystemExit) as error:
            exits.append(error)  # meant for the caller: the portal is not to end by it
        finally:
            ended.set()
        return None

    async def cancel() -> None:
        for scope in scopes:
            scope.cancel()

    try:
        # Ctrl-C may come at any point of this, also before the future is ours to cancel.
        future = portal.start(work)
        while not future.done():
            wait((future,), TICK)
    except BaseException:
        interrupted.set()
        with suppress(RuntimeError):
            portal.start(cancel)
        ended.wait(TIDY_UP)
        raise
    if exits:
        raise exits[0]
    try:
        return future.result()  # type: ignore[return-value]  # None only with an exit
    except CancelledError:
        if _exiting:
            raise SystemExit from None  # ends a daemon thread without a word
        raise RuntimeError("the work was cancelled from within") from None


def _running() -> _Portal:
    global _portal  # noqa: PLW0603  # there is one in a process
    with _lock:
        _at_exit()
        if _portal is None or not _portal.thread.is_alive():
            _portal = _Portal()
        return _portal


def _at_exit() -> None:
    global _registered  # noqa: PLW0603  # as above
    if _registered:
        return
    _registered = True
    atexit.register(_stop)
    # Only before Python shuts its threads down can work still start one, as for writing a file.
    with suppress(AttributeError, RuntimeError):
        threading._register_atexit(_finish)  # type: ignore[attr-defined]  # noqa: SLF001


def _finish() -> None:
    """Let what is on its way arrive, but not for ever."""
    if _portal is not None and _portal.thread.is_alive():
        with suppress(RuntimeError):
            wait((_portal.start(tasks.finish, FINISH),), FINISH + 1.0)


def _stop() -> None:
    global _exiting  # noqa: PLW0603  # as above
    _exiting = True
    if _portal is not None and _portal.thread.is_alive():
        _portal.stop()


def _forget() -> None:
    """In a forked child: the thread is gone, and its event loop must not be touched.

    Not even by the garbage collector, which would disturb the parent's loop by closing it.
    """
    global _lock, _portal  # noqa: PLW0603  # as above
    _lock = threading.Lock()
    if _portal is not None:
        _forgotten.append(_portal)
        _portal = None


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget)
