"""What a check found."""

from __future__ import annotations

from typing import Final, Literal

from attrs import field, frozen

from .._sansio.errors import bounded
from ..errors import Error

State = Literal["ok", "warn", "fail", "skip"]

# Commands that advice names; which login is meant, the command line adds.
LOGIN_AGAIN: Final = "run: flyteauth login"
RESUME: Final = "flyteauth login --resume"


@frozen
class Finding:
    """What the check ``name`` found, in a sentence; ``fix`` says what to do, if anything.

    "warn" is what a login works in spite of, "skip" what does not matter here or cannot be known.
    """

    name: str
    state: State
    text: str = field(converter=bounded)
    fix: str = field(default="", converter=bounded)


def of_error(name: str, error: Error, state: State = "fail") -> Finding:
    """The finding that *error* is: each of ours ends with what to do."""
    text, separator, fix = str(error).rpartition("; ")
    return Finding(name, state, text, fix) if separator else Finding(name, state, fix)
