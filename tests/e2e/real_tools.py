"""The programs that people already run, each in an environment of its own, with flyteauth in it."""

from __future__ import annotations

from ..services import require


def python_of(tool: str) -> str:
    """The Python of the environment that *tool* is in."""
    return str(require(tool))


def program_of(tool: str, name: str) -> str:
    """A command of that environment."""
    return str(require(tool).with_name(name))
