"""
That a control plane has just taken a token, as one process tells the next.

A tool that begins with many calls at once has all of them refused, and then runs ``flyteauth token
--verify`` for each, one after the other. Only the first of them has anything to ask.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

LATELY: Final = 2.0  # seconds; for as long, a token that is taken back is not noticed either


def name(key: str) -> str:
    """The name of the note for the login under *key*."""
    return f"verified {key}"


def note(access_token: str) -> dict[str, str]:
    """What to note besides the time; it does not tell the token."""
    return {"token": hashlib.sha256(access_token.encode()).hexdigest()}


def is_so(noted: Mapping[str, Any], access_token: str, at: float) -> bool:
    """Whether *noted* is about that token, and not long ago."""
    since = noted.get("at")
    if not isinstance(since, int | float) or noted.get("token") != note(access_token)["token"]:
        return False
    return 0.0 <= at - since < LATELY
