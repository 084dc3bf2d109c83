"""Which program listens at a port, as far as this user may know."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Final

from .._sansio.errors import quote
from .threads import run_in_daemon

DEADLINE: Final = 2.0
NAME_MAX: Final = 40


async def holder(port: int) -> str | None:
    """``find_holder`` off the event loop; None if it does not come to an end in time."""
    try:
        return await run_in_daemon(find_holder, port, deadline=DEADLINE)
    except TimeoutError:
        return None


def find_holder(port: int) -> str | None:
    """Who listens at *port* of this machine, like "nginx (process 1234)"; None if that cannot be
    known, for it may be another user's. Blocks; it looks through the processes of the machine.
    """
    import psutil

    try:
        process_id = _listener(port)
        if process_id is None:
            return None
        if process_id == os.getpid():
            return f"this program (process {process_id})"
        return f"{quote(psutil.Process(process_id).name(), NAME_MAX)} (process {process_id})"
    except (psutil.Error, OSError, RuntimeError, ValueError):  # gone, denied, or not told here
        return None


def _listener(port: int) -> int | None:
    import psutil

    try:
        found: Iterable[Any] = psutil.net_connections("tcp")
    except psutil.AccessDenied:  # macOS tells each user of their own processes only
        return next((its.pid for its in psutil.process_iter() if _listens(its, port)), None)
    return next((its.pid for its in found if _is_listener(its, port)), None)


def _listens(process: Any, port: int) -> bool:
    import psutil

    try:
        return any(_is_listener(its, port) for its in process.net_connections("tcp"))
    except psutil.Error:
        return False


def _is_listener(connection: Any, port: int) -> bool:
    return bool(connection.status == "LISTEN" and connection.laddr.port == port)
