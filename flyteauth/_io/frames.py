"""
What a traceback keeps: the variables of each function that the exception went through. Whoever
keeps the exception keeps them alive, and some error reporters show them; there are secrets among
them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from functools import wraps
from types import FrameType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_PACKAGE = __name__.partition(".")[0]


def clearing(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """*function*, whose exceptions tell where they come from, but not with what variables."""

    @wraps(function)
    async def cleared(*args: P.args, **named: P.kwargs) -> T:
        try:
            return await function(*args, **named)
        except BaseException as error:
            with suppress(Exception):  # whatever others have made of it, it is what is raised
                clear(error)
            raise

    return cleared


def clear(error: BaseException) -> None:
    """Forget the variables of those functions of ours that ended with *error*, or with an exception
    that led to it. Those of others are theirs.
    """
    for one in chain(error):
        traceback = one.__traceback__
        while traceback is not None:
            frame = traceback.tb_frame
            if _is_ours(frame) and _ended(frame):
                with suppress(RuntimeError):  # it goes on after all
                    frame.clear()
            traceback = traceback.tb_next


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name.partition(".")[0] == _PACKAGE


def _ended(frame: FrameType) -> bool:
    """Whether *frame* is over. One that only waits must be left alone: before Python 3.13, clearing
    it would end its coroutine.

    Only a frame that is over owns its code; until then the coroutine or the interpreter does.
    """
    return any(one is frame.f_code for one in gc.get_referents(frame))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """*error* and all that led to it, suppressed or not; what is nearer comes first."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        cause = waiting.pop(0)
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [cause.__cause__, cause.__context__]
        if isinstance(cause, BaseExceptionGroup):
            waiting += cause.exceptions
