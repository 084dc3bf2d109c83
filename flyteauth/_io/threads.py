"""
Blocking calls that may never return: locked keyrings, hanging launchers, dead network mounts.

A worker thread of the event loop would keep the process from exiting for as long as the call
hangs. A daemon thread does not; its outcome comes back through the loop's own token.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar, TypeVarTuple

import anyio
import anyio.lowlevel

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class DaemonCall(Generic[T]):
    """A blocking call that runs on a daemon thread from now on; any task may wait for it."""

    def __init__(self, function: Callable[[], T], name: str = "call") -> None:
        self._function = function
        self._done = anyio.Event()
        self._token = anyio.lowlevel.current_token()
        self._value: list[T] = []
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name=f"flyteauth {name}", daemon=True).start()

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
    what has hung once should remember that, and not pile up threads.
    """
    await anyio.lowlevel.checkpoint_if_cancelled()
    name = getattr(function, "__name__", "call")
    return await DaemonCall(partial(function, *args), name).result(deadline)
