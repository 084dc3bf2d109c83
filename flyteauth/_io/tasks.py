"""
Work that goes on when whoever asked for it goes away.

A request whose reply must not be lost (redeeming a code, spending a rotating refresh token) runs
in a task of its own, and callers only wait for it. A shielded scope would not do: asyncio's own
``cancel()`` pierces it. Nor would a task group: the caller that opened it would have to stay.

The work belongs to the event loop that it was started on. Anybody may wait for it, from any task
of any loop.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, TypeVarTuple, cast

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# How often a waiter looks whether the work's event loop is still there.
LOOK: Final = 1.0


class Abandoned(RuntimeError):
    """The work ended before it was done: its event loop did, or nobody wanted it any more."""


class _Crowd:
    """Those who wait on one event loop."""

    __slots__ = ("event", "size")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.size = 0


class Work(Generic[T]):
    """Something that is being done, for any number of waiters.

    Where it is ``optional``, it ends when the last of its waiters has left, and on ``cancel``.
    """

    def __init__(self, *, optional: bool = False) -> None:
        self._optional = optional
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False
        self._lock = threading.Lock()
        self._loop = anyio.lowlevel.current_token().native_token
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._waiters: dict[object, _Crowd] = {}  # by the event loop that they wait on
        self._callbacks: list[Callable[[Work[T]], object]] = []

    @property
    def done(self) -> bool:
        return bool(self._value) or self._error is not None

    async def wait(self) -> T:
        """What the work returns, or raises. To cancel a waiter does nothing to the work."""
        if self.done:
            await anyio.lowlevel.checkpoint()
        else:
            await self._wait(anyio.lowlevel.current_token().native_token)
        if self._error is not None:
            raise _fresh(self._error)
        return self._value[0]

    async def _wait(self, loop: object) -> None:
        with self._lock:
            crowd = self._waiters.get(loop)
            if crowd is None:
                crowd = self._waiters[loop] = _Crowd()
            crowd.size += 1
        try:
            while not self.done:
                if loop is self._loop:  # which cannot end before its own waiters do
                    await crowd.event.wait()
                    return
                if _is_closed(self._loop):
                    self.settle(error=_abandoned())
                with anyio.move_on_after(LOOK):
                    await crowd.event.wait()
        finally:
            with self._lock:
                crowd.size -= 1
                alone = not self.done and not any(each.size for each in self._waiters.values())
            if alone:
                self.cancel()

    def when_done(self, callback: Callable[[Work[T]], object]) -> None:
        """Call *callback*, which must not block, with this work once it is done: at once if it is
        already, or else before its waiters are told, in whatever thread it ends.
        """
        with self._lock:
            if not self.done:
                self._callbacks.append(callback)
                return
        callback(self)

    @property
    def waiting(self) -> int:
        """How many wait just now."""
        with self._lock:  # whoever comes from another loop adds to them
            return sum(crowd.size for crowd in self._waiters.values())

    def cancel(self) -> None:
        """End the work if it is optional; whoever still waits gets Abandoned. From any thread."""
        if self._optional and not self.done:
            with suppress(RuntimeError):
                _call_soon(self._loop, self._cancel)

    def _cancel(self) -> None:
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    def settle(self, *values: T, error: BaseException | None = None) -> None:
        _unfinished.discard(self)
        with self._lock:
            if self.done:
                return
            self._value.extend(values)
            self._error = error
            waiters = list(self._waiters.items())
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)
        for loop, crowd in waiters:
            # A loop that has ended has no waiters any more.
            with suppress(RuntimeError):
                _call_soon(loop, crowd.event.set)  # one call, however many wait

    async def _run(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> None:
        try:
            with anyio.CancelScope() as self._scope:
                if self._cancelled:
                    self._scope.cancel()
                value = await function(*args)
            if self._scope.cancelled_caught:
                self.settle(error=Abandoned("nobody waited for it any more"))
                return
        except Exception as error:  # noqa: BLE001  # whatever it is, the waiters get it
            # Without this frame, which would tie a knot of work, error and traceback.
            traceback = error.__traceback__
            self.settle(error=error.with_traceback(traceback and traceback.tb_next))
        except BaseException:
            self.settle(error=_abandoned())
            raise
        else:
            self.settle(value)


def start(
    function: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts, optional: bool = False
) -> Work[T]:
    """Run *function* of *args* as a task of its own on this event loop, from now on.

    It sees none of the caller's context variables. It ends with its event loop at the latest:
    then whoever waits gets Abandoned.
    """
    work: Work[T] = Work(optional=optional)
    _unfinished.add(work)
    if (loop := _asyncio_loop(work._loop)) is not None:  # noqa: SLF001
        task = loop.create_task(
            work._run(function, *args),  # noqa: SLF001
            name=f"flyteauth {getattr(function, '__name__', 'work')}",
            context=Context(),
        )
        _tasks.add(task)  # the loop itself holds its tasks weakly
        task.add_done_callback(_tasks.discard)
        # A task that is cancelled before its first step never sees the cancellation.
        task.add_done_callback(lambda _: work.settle(error=_abandoned()))
    else:
        import trio

        trio.lowlevel.spawn_system_task(work._run, function, *args)  # noqa: SLF001
    return work


async def finish(seconds: float) -> None:
    """Give what runs on this event loop so many seconds to end."""
    loop = anyio.lowlevel.current_token().native_token
    with anyio.move_on_after(seconds):
        for work in list(_unfinished):
            if work._loop is loop:  # noqa: SLF001
                with suppress(Exception):  # its waiters are told, not we
                    await work.wait()


_tasks: set[asyncio.Task[None]] = set()
_unfinished: set[Work[Any]] = set()


def _asyncio_loop(loop: object) -> asyncio.AbstractEventLoop | None:
    return cast("asyncio.AbstractEventLoop", loop) if hasattr(loop, "create_task") else None


def _call_soon(loop: Any, function: Callable[[], object]) -> None:
    """Call *function* on *loop*, from anywhere; RuntimeError if it has ended."""
    if (asyncio_loop := _asyncio_loop(loop)) is not None:
        asyncio_loop.call_soon_threadsafe(function)
    else:
        loop.run_sync_soon(function)


def _is_closed(loop: object) -> bool:
    """Whether an asyncio loop was closed over its tasks. trio.run never ends before them."""
    return (asyncio_loop := _asyncio_loop(loop)) is not None and asyncio_loop.is_closed()


def _abandoned() -> Abandoned:
    return Abandoned("the event loop ended before the work on it did")


def _fresh(error: BaseException) -> BaseException:
    """*error* for one waiter: raising it adds to a traceback that is its own."""
    try:
        twin = copy.copy(error)
    except Exception:  # noqa: BLE001  # an exception may need more than its args to be made
        twin = error
    if type(twin) is not type(error):
        twin = error
    twin.__cause__ = error.__cause__
    twin.__suppress_context__ = error.__suppress_context__
    return twin.with_traceback(error.__traceback__)
