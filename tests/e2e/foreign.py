"""Flyte's own tools, for the tests that need the real ones."""

from __future__ import annotations

import os
from typing import Final

import pytest

_VARIABLES: Final = {
    "flyte": "FLYTEAUTH_FLYTE_PYTHON",
    "flytekit": "FLYTEAUTH_FLYTEKIT_PYTHON",
}


def python_of(tool: str) -> str:
    """A Python that has *tool*, or else the test is skipped."""
    variable = _VARIABLES[tool]
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{tool} is missing; set {variable} to a Python that has it")
    return python
