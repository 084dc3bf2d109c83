"""Single flight: whoever needs the same work in this process waits for the same one."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from contextlib import suppress
from typing import Any, TypeVar

from .tasks import Abandoned, Work, start

T = TypeVar("T")


class Flights:
    """Work in progress, by key; across tasks, event loops and threads."""

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._mutex = threading.Lock()
        self._works: dict[Hashable, Work[Any]] = {}

    def join(self, key: Hashable, function: Callable[[], Coroutine[Any, Any, T]]) -> Work[T]:
        """The work under *key*: the one in progress, or else *function*, started now."""
        with self._mutex:
            work = self._works.get(key)
            if work is None or work.done:
                for gone in [other for other, its in self._works.items() if its.done]:
                    del self._works[gone]
                work = self._works[key] = start(function)
            return work


class Rounds:
    """The same for work that its first caller does itself, and that ends when that one is
    cancelled: then one of the waiting does it anew.
    """

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._mutex = threading.Lock()
        self._rounds: dict[Hashable, Work[Any]] = {}

    async def run(self, key: Hashable, function: Callable[[], Awaitable[T]]) -> T:
        """What *function* returns or raises: ours, or that of whoever is at it under *key*."""
        while True:
            with self._mutex:
                theirs = self._rounds.get(key)
                if theirs is None:
                    ours: Work[T] = Work()
                    self._rounds[key] = ours
                    break
            with suppress(Abandoned):
                outcome: T = await theirs.wait()
                return outcome
        try:
            value = await function()
        except Exception as error:
            self._leave(key)
            ours.settle(error=error)
            raise
        except BaseException:
            self._leave(key)
            ours.settle(error=Abandoned())
            raise
        self._leave(key)
        ours.settle(value)
        return value

    def _leave(self, key: Hashable) -> None:
        with self._mutex:
            self._rounds.pop(key, None)  # it is gone already in a child that was forked meanwhile
