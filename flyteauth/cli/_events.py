"""A presenter for programs."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from .._io.threads import run_in_daemon
from ..events import AuthEvent
from ._output import emit_event

WRITE_DEADLINE: Final = 5.0  # seconds


class Events:
    """Writes each event as one line of JSON. A reader that has gone must not end a login."""

    async def show(self, event: AuthEvent) -> None:
        with suppress(OSError, ValueError):  # TimeoutError is an OSError
            await run_in_daemon(emit_event, event, deadline=WRITE_DEADLINE)
