"""
A lock that all processes of a machine respect: one file each, locked by the operating system.

The system frees the lock of a process that is killed, whatever kills it. The lock belongs to the
open file, so a forked child, which inherits that, closes it first thing. Lock files stay: to
remove one is a race.

A file system may hang, so it is a daemon thread that tries again and again. A cancellation is
obeyed at once; the thread notices it at its next try, and lets go of what it has.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Final, Generic, TypeVar

from .._sansio.errors import StoreError
from .folder import Folder, explaining, no_answer
from .threads import Breaker, DaemonCall, run_in_daemon

T = TypeVar("T")

DEADLINE: Final = 5.0  # for the file system to answer
IMPORT_DEADLINE: Final = 30.0
GRACE: Final = 1.0  # how much longer than it should a thread that waits may take to say so
PAUSES: Final = (0.005, 0.05)  # between tries, the first and the longest
BRIEF_PAUSES: Final = (0.0002, 0.002)  # where nobody holds the lock for longer than a write

_NAME: Final = re.compile(r"[\w.-]+", re.ASCII)


class Once(Generic[T]):
    """*function*, and whether it was called: before that, an error is of the lock, not its own."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self._function = function
        self.called = False

    async def __call__(self) -> T:
        self.called = True
        return await self._function()


class Locks:
    """Locks by name, as files of *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._breaker = Breaker()

    def __repr__(self) -> str:
        return f"Locks({str(self._directory)!r})"

    async def exclusively(
        self,
        name: str,
        function: Callable[[], Awaitable[T]],
        *,
        deadline: float,
        waiting: Callable[[], Awaitable[object]] | None = None,
    ) -> T:
        """What *function* returns or raises, while no other process, thread or task is in here
        for *name*. *waiting* is called once if somebody else is.

        StoreError if there was no turn: "busy" after *deadline* seconds, "denied", "full" or
        "timeout" if nothing can be locked here. *function* was not called then.
        """
        turn = _Turn(self._directory, _file_name(name))
        awaits = True
        try:
            await self._wait_for(turn, deadline, waiting)
            return await function()
        except GeneratorExit:  # the event loop has gone: nothing can be awaited any more
            awaits = False
            raise
        finally:
            ending = turn.start_ending()
            if awaits and ending is not None:
                await _wait_out(ending)

    async def _wait_for(
        self, turn: _Turn, deadline: float, waiting: Callable[[], Awaitable[object]] | None
    ) -> None:
        due = time.monotonic() + deadline
        try:
            if "filelock" not in sys.modules:  # on a busy machine this alone may take seconds
                await run_in_daemon(import_module, "filelock", deadline=IMPORT_DEADLINE)
            if await self._breaker.call(turn.take, deadline=DEADLINE):
                return
            if waiting is not None:
                await waiting()
            left = max(due - time.monotonic(), 0.0)
            if left and await self._breaker.call(turn.take, left, PAUSES, deadline=left + GRACE):
                return
        except TimeoutError:
            raise no_answer(self._directory) from None
        raise turn.busy()

    @contextmanager
    def held(self, name: str, deadline: float) -> Iterator[None]:
        """The same lock for code that may block; not for an event loop."""
        turn = _Turn(self._directory, _file_name(name))
        try:
            if not turn.take(deadline, BRIEF_PAUSES):
                raise turn.busy()
            yield
        finally:
            turn.end()


class _Turn:
    """One caller's turn at a lock: taken on one thread, ended on any.

    If it ends while it is being taken, whoever takes it lets go. There is no mutex here, which
    a finalizer might wait for in vain: an element leaves a deque once only.
    """

    def __init__(self, directory: Path, file_name: str) -> None:
        self._directory = directory
        self._file_name = file_name
        self._over = False
        self._holds: deque[_Hold] = deque()

    def take(self, patience: float = 0.0, pauses: tuple[float, float] = PAUSES) -> bool:
        """Whether the lock is ours now, after trying for *patience* seconds, or once."""
        path = self._directory / self._file_name
        due = time.monotonic() + patience
        with explaining(path):
            hold = self._take(due, _pauses(*pauses))
        if hold is None:
            return False
        self._holds.append(hold)
        if self._over:
            self.end()
        return True

    def _take(self, due: float, pauses: Iterator[float]) -> _Hold | None:
        for last in (False, False, True):
            try:
                with Folder.made(self._directory) as folder:
                    while True:
                        hold = _Hold(_open_files.add(lambda: folder.open_shared(self._file_name)))
                        ours = False
                        try:
                            # A lock on a file that was removed meanwhile guards nothing.
                            ours = self._try(hold.descriptor, due, pauses) and folder.holds(
                                self._file_name, hold.descriptor
                            )
                        finally:
                            if not ours:
                                hold.release()
                        if ours:
                            return hold
                        if time.monotonic() >= due or self._over:
                            return None
            except FileNotFoundError:  # a probe that made the directory has removed it
                if last:
                    raise
        return None

    def _try(self, descriptor: int, due: float, pauses: Iterator[float]) -> bool:
        from filelock import lock_descriptor

        while not lock_descriptor(descriptor, blocking=False):
            left = due - time.monotonic()
            if left <= 0 or self._over:
                return False
            time.sleep(min(next(pauses), left))
        return True

    def start_ending(self) -> DaemonCall[None] | None:
        """Let go if there is something to let go, without blocking the event loop."""
        self._over = True
        if not any(hold.is_ours for hold in self._holds):
            return None
        try:
            return DaemonCall(self.end, "unlock")
        except RuntimeError:  # no event loop any more, or no more threads
            self.end()
            return None

    def end(self) -> None:
        self._over = True
        with suppress(IndexError):
            self._holds.pop().release()

    def busy(self) -> StoreError:
        return StoreError(
            f"another process holds {self._directory / self._file_name} and does not let go; "
            "end it, or try again later",
            reason="busy",
        )


class _Hold:
    """An open lock file of this process; closed, it is unlocked."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._pid = os.getpid()

    @property
    def is_ours(self) -> bool:
        """Whether this is no copy in a forked child, which has closed the file already."""
        return self._pid == os.getpid()

    def release(self) -> None:
        if not self.is_ours:
            return
        from filelock import unlock_descriptor

        # Closing would not be enough while another process has a copy of the descriptor.
        with suppress(OSError):
            unlock_descriptor(self.descriptor)
        _open_files.close(self.descriptor)


class _OpenFiles:
    """The open lock files of this process, which a forked child closes.

    A fork waits for a file that is being opened, but not for ever: opening may hang.
    """

    PATIENCE: Final = 0.25

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork,
                after_in_child=self._after_fork_in_child,
            )

    def _forget(self) -> None:
        self._mutex = threading.Lock()
        self._locked_for_fork = False
        self._descriptors: set[int] = set()

    def add(self, opening: Callable[[], int]) -> int:
        with self._brief_mutex():
            descriptor = opening()
            self._descriptors.add(descriptor)
        return descriptor

    def close(self, descriptor: int) -> None:
        self._descriptors.discard(descriptor)  # first: its number is free for others then
        with suppress(OSError):
            os.close(descriptor)

    @contextmanager
    def _brief_mutex(self) -> Iterator[None]:
        locked = self._mutex.acquire(timeout=self.PATIENCE)
        try:
            yield
        finally:
            if locked:
                self._mutex.release()

    def _before_fork(self) -> None:
        self._locked_for_fork = self._mutex.acquire(timeout=self.PATIENCE)

    def _after_fork(self) -> None:
        if self._locked_for_fork:
            self._locked_for_fork = False
            self._mutex.release()

    def _after_fork_in_child(self) -> None:
        descriptors = self._descriptors
        self._forget()
        for descriptor in descriptors:
            with suppress(OSError):
                os.close(descriptor)


_open_files: Final = _OpenFiles()


async def _wait_out(ending: DaemonCall[None]) -> None:
    """Wait until the lock is free, even if cancelled; its thread goes on whatever happens."""
    import anyio

    with anyio.CancelScope(shield=True), suppress(TimeoutError):
        await ending.result(1.0)


def _pauses(first: float, longest: float) -> Iterator[float]:
    """Ever longer pauses, of random length, so that waiters do not keep step."""
    pause = first
    while True:
        yield pause * (1 + os.urandom(1)[0] / 255) / 2
        pause = min(pause * 1.5, longest)


def _file_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} cannot name a lock")
    return f"{name}.lock"
