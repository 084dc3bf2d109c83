"""The programs that people already run, each in an environment of its own, with flyteauth in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_VARIABLES = {"flyte": "FLYTEAUTH_FLYTE_PYTHON", "flytekit": "FLYTEAUTH_FLYTEKIT_PYTHON"}


def python_of(tool: str) -> str:
    """The Python of the environment that *tool* is in; without one, the test is skipped by name."""
    variable = _VARIABLES[tool]
    if not (python := os.environ.get(variable)):
        pytest.skip(
            f"{tool} is not here: set {variable} to the Python of an environment that has it"
        )
    return python


def program_of(tool: str, name: str) -> str:
    """A command of that environment."""
    return str(Path(python_of(tool)).with_name(name))
