"""A plugin of pytest that refuses to test anything but an installed flyteauth."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

import flyteauth


def pytest_configure(config: pytest.Config) -> None:
    """A checkout beside the tests, or installed as editable, would be imported instead."""
    installed = Path(sysconfig.get_path("purelib")).resolve()
    if not Path(flyteauth.__file__).resolve().is_relative_to(installed):
        raise pytest.UsageError(
            f"{flyteauth.__file__} is not in {installed}, the wheel is not tested"
        )
