"""What happens to a login, told to a program: NDJSON on standard output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import Error
from ._output import emit, failed


def presenting(*, json: bool) -> dict[str, Any]:
    """Arguments of Session: who shows the events."""
    if not json:
        return {}
    from ._events import Events

    return {"presenter": Events()}


@contextmanager
def told(*, json: bool) -> Iterator[None]:
    """With *json*, an error is the last line of standard output as well."""
    try:
        yield
    except Error as error:
        if json:
            emit(failed(error))
        raise
