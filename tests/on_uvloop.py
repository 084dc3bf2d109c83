"""A plugin of pytest that has asyncio run on uvloop, in this process: ``-p tests.on_uvloop``."""

from __future__ import annotations

import asyncio

import pytest
import uvloop  # type: ignore[import-not-found, unused-ignore]  # only where the tests run on it


def pytest_configure(config: pytest.Config) -> None:
    """Every new event loop comes from the policy, whoever asks for it."""
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
