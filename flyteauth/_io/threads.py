"""
Blocking calls that may never return: locked keyrings, hanging launchers, dead network mounts.

A worker thread of the event loop would keep the process from exiting for as long as the call
hangs. A daemon thread does not; its outcome comes back through the loop's own token.

anyio is imported where it is needed: whoever reads a file without an event loop pays nothing.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Generic, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LOOK: Final = 0.01  # how often a caller looks whether an abandoned call has returned


class DaemonCall(Generic[T]):
    """A blocking call that runs on a daemon thread from now on; any task may wait for it."""

    def __init__(self, function: Callable[[], T], name: str = "call") -> None:
        import anyio.lowlevel

        self._function = function
        self._done = anyio.Event()
        self._token = anyio.lowlevel.current_token()
        self._value: list[T] = []
        self._error: BaseException | None = None
        try:
            threading.Thread(target=self._run, name=f"flyteauth {name}", daemon=True).start()
        except RuntimeError as error:
            if "shutdown" not in str(error):
                raise
            # Python 3.12.0 and 3.12.1 start no thread any more once the main one has ended; what
            # has to be stored before the process exits is stored here, where nobody else waits.
            self._run()

    def _run(self) -> None:
        try:
            self._value.append(self._function())
        except BaseException as error:  # noqa: BLE001  # whatever it is, the caller gets it
            self._error = error
        # Not anyio.from_thread.run_sync: that waits for the loop, for ever if it ends just now.
        loop: Any = self._token.native_token
        post = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            post(self._done.set)

    async def result(self, deadline: float) -> T:
        """What the call returns or raises; TimeoutError after *deadline* seconds."""
        import anyio

        with anyio.move_on_after(deadline):
            await self._done.wait()
        if self._error is not None:
            raise self._error
        if not self._value:
            raise TimeoutError(f"no answer within {deadline:g} s")
        return self._value[0]


async def run_in_daemon(
    function: Callable[[*Ts], T],
    *args: *Ts,
    deadline: float,
) -> T:
    """*function* of *args*, called on a daemon thread.

    Raises TimeoutError after *deadline* seconds. Then, and after a cancellation, the thread goes
    on alone: it can neither be stopped, nor does it keep the process from exiting. Whoever calls
    what has hung once should remember that, and not pile up threads: see Breaker.
    """
    import anyio.lowlevel

    await anyio.lowlevel.checkpoint_if_cancelled()
    return await DaemonCall(partial(function, *args), _name(function)).result(deadline)


class Breaker:
    """Blocking calls to one place that may hang, such as a keyring or a directory.

    While a call hangs no other is begun: one thread that is stuck is enough.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._left: list[tuple[threading.Event, float]] = []  # ended, and when it should have

    async def call(self, function: Callable[[*Ts], T], *args: *Ts, deadline: float) -> T:
        """What *function* of *args* returns or raises, called on a daemon thread.

        Raises TimeoutError after *deadline* seconds, and from then on at once until the call
        that hangs has returned. After a cancellation the next caller waits until the call that
        was left alone has returned, or is late as well.
        """
        import anyio.lowlevel

        await anyio.lowlevel.checkpoint_if_cancelled()
        due = time.monotonic() + deadline
        while (late := self._late()) is not None:
            if time.monotonic() >= min(late, due):
                raise TimeoutError("an earlier call hangs")
            await anyio.sleep(LOOK)
        ended = threading.Event()

        def run() -> T:
            try:
                return function(*args)
            finally:
                ended.set()

        call = DaemonCall(run, _name(function))
        try:
            return await call.result(due - time.monotonic())
        except BaseException:
            if not ended.is_set():
                self._left.append((ended, due))
            raise

    def call_sync(self, function: Callable[[*Ts], T], *args: *Ts, deadline: float) -> T:
        """The same for programs without an event loop."""
        due = time.monotonic() + deadline
        while (late := self._late()) is not None:
            if time.monotonic() >= min(late, due):
                raise TimeoutError("an earlier call hangs")
            time.sleep(LOOK)
        ended = threading.Event()
        values: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                values.append(function(*args))
            except BaseException as error:  # noqa: BLE001  # whatever it is, the caller gets it
                errors.append(error)
            finally:
                ended.set()

        name = f"flyteauth {_name(function)}"
        threading.Thread(target=run, name=name, daemon=True).start()
        try:
            ended.wait(due - time.monotonic())
        finally:
            if not ended.is_set():
                self._left.append((ended, due))
        for error in errors:
            raise error
        if not values:
            raise TimeoutError(f"no answer within {deadline:g} s")
        return values[0]

    def _late(self) -> float | None:
        """When the first of the calls that were left alone, and go on, should have ended."""
        if self._pid != os.getpid():  # the threads stayed with the parent
            self._pid, self._left = os.getpid(), []
        self._left = [left for left in self._left if not left[0].is_set()]
        return min((due for _, due in self._left), default=None)


def _name(function: Callable[..., object]) -> str:
    return getattr(function, "__name__", "call")
