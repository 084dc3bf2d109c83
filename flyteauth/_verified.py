"""
That a control plane has just taken a token, as one process tells the next.

A tool that begins with many calls at once has all of them refused, and then runs ``flyteauth token
--verify`` for each, one after the other. Only the first of them has anything to ask.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any, Final

LATELY: Final = 2.0  # seconds; for as long, a token that is taken back is not noticed either


def name(key: str) -> str:
    """The name of the note for the login under *key*."""
    return f"verified {key}"


def note(access_token: str) -> dict[str, str]:
    """What to note besides the time. It neither tells the token nor, without it, two from one."""
    salt = os.urandom(16).hex()
    return {"salt": salt, "token": _salted(access_token, salt)}


def is_so(noted: Mapping[str, Any], access_token: str, at: float) -> bool:
    """Whether *noted* is about that token, and not long ago."""
    since, salt = noted.get("at"), noted.get("salt")
    if not isinstance(since, int | float) or not isinstance(salt, str):
        return False
    return noted.get("token") == _salted(access_token, salt) and 0.0 <= at - since < LATELY


def _salted(access_token: str, salt: str) -> str:
    return hashlib.sha256(f"{salt} {access_token}".encode("utf-8", "surrogatepass")).hexdigest()
