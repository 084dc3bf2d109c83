"""What every test shares: how Hypothesis works here, and which requirements there are."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, configuration, settings

from .requirements import REQUIREMENTS

# Examples are found anew each time, or under CI always the same ones. Nothing is kept.
configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "flyteauth-hypothesis")
settings.register_profile(
    "flyteauth",
    database=None,
    deadline=None,
    derandomize="CI" in os.environ,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("flyteauth")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "servers: slow, so left to make test-servers")


def pytest_itemcollected(item: pytest.Item) -> None:
    """A test that names a requirement that does not exist is not collected."""
    for marker in item.iter_markers("req"):
        for name in marker.args:
            if name not in REQUIREMENTS:
                raise pytest.UsageError(f"{item.nodeid}: there is no requirement {name!r}")


# A shell starts background jobs with Ctrl-C and Ctrl-\ ignored, nohup adds the end of the terminal,
# and they hand that on; tests that send them would wait for ever.
for _name in ("SIGINT", "SIGQUIT", "SIGHUP"):
    _number = getattr(signal, _name, None)
    if _number is not None and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _name == "SIGINT" else signal.SIG_DFL)
