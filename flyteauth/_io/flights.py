"""Single flight: whoever needs the same work in this process waits for the same one."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar
from weakref import WeakSet

from .forks import in_forked_children
from .tasks import Abandoned, Work, start

T = TypeVar("T")


class Round:
    """What those who share some work hand on, when the one who was at it is cancelled."""

    __slots__ = ("begun",)

    def __init__(self) -> None:
        self.begun: float | None = None
        """When what they wait for was begun first, by a monotonic clock; None: it was not."""

    def elapsed(self, at: float) -> float:
        """The seconds until *at* since it was begun, which is now if it was not."""
        if self.begun is None:
            self.begun = at
        return at - self.begun


class Flights:
    """Work in progress, by key; across tasks, event loops and threads.

    What is over is let go at once, for its outcome may be a secret; those who joined it have it.
    """

    def __init__(self) -> None:
        self._forget()
        _LIVE.add(self)

    def _forget(self) -> None:
        # An eager task may be over, or join another flight, before start has returned.
        self._mutex = threading.RLock()
        self._works: dict[Hashable, Work[Any]] = {}
        self._rounds: dict[Hashable, Round] = {}  # of the works that are shared

    def join(
        self,
        key: Hashable,
        function: Callable[[], Coroutine[Any, Any, T]],
        *,
        optional: bool = False,
    ) -> Work[T]:
        """The work under *key*: the one in progress, or else *function*, started now as a task of
        its own that nobody's cancellation ends; unless it is *optional*, and everybody leaves.
        """
        with self._mutex:
            work = self._in_progress(key)
            if work is None:
                work = start(function, optional=optional)
                self._add(key, work)
            return work

    async def share(self, key: Hashable, function: Callable[[Round], Awaitable[T]]) -> T:
        """What *function* returns or raises, called here, or by whoever is at it under *key*.

        It ends when the one who called it is cancelled; then one of the waiting does it anew, in
        the same round: nobody's wait gets longer by that.
        """
        shared = Round()
        while True:
            with self._mutex:
                theirs = self._in_progress(key)
                if theirs is None:
                    ours: Work[T] = Work()
                    self._rounds[key] = shared
                    self._add(key, ours)
                    break
                shared = self._rounds[key]
            with suppress(Abandoned):
                outcome: T = await theirs.wait()
                return outcome
        try:
            value = await function(shared)
        except Exception as error:
            ours.settle(error=error)
            raise
        except BaseException:
            ours.settle(error=Abandoned())
            raise
        ours.settle(value)
        return value

    def _in_progress(self, key: Hashable) -> Work[Any] | None:
        work = self._works.get(key)
        return None if work is None or work.done else work

    def _add(self, key: Hashable, work: Work[Any]) -> None:
        self._works[key] = work
        work.when_done(partial(self._remove, key))

    def _remove(self, key: Hashable, work: Work[Any]) -> None:
        with self._mutex:
            if self._works.get(key) is work:  # and not its successor
                del self._works[key]
                self._rounds.pop(key, None)


_LIVE: Final = WeakSet[Flights]()
# What is in progress is the parent's.
in_forked_children(_LIVE, Flights._forget)  # noqa: SLF001
