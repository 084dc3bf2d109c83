"""What must not go on in a forked child as it was in the parent: locks, threads and connections."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def in_forked_children(living: Iterable[T], renew: Callable[[T], object]) -> None:
    """Call *renew* with each of those that are *living* when a process is forked, in the child."""

    def after() -> None:
        for each in list(living):
            renew(each)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=after)
