"""
What the tests need from outside Python. ``python -m tests.services`` gets what is missing, where
it may (as root, with apt-get), and says what there is. A test asks with ``require("chromium")``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

DEADLINE: Final = 300.0  # seconds for one run of apt-get
_STOP_GRACE: Final = 20.0


@frozen
class Service:
    """A program, under any of these names, and the Debian packages that bring it."""

    names: tuple[str, ...]
    packages: tuple[str, ...]
    purpose: str

    def path(self) -> str | None:
        return next(filter(None, map(shutil.which, self.names)), None)


SERVICES: Final[Mapping[str, Service]] = {
    "chromium": Service(
        names=("chromium", "chromium-browser", "google-chrome"),
        # Without a font there is nothing to look at in a screenshot.
        packages=("chromium", "fonts-dejavu-core"),
        purpose="to log in as a person does, with a browser",
    ),
}


def require(name: str) -> Path:
    """The program of that service. Without it the test is skipped, and fails under CI."""
    import pytest

    path = SERVICES[name].path()
    if path is None:
        refuse = pytest.fail if under_ci(os.environ) else pytest.skip
        refuse(f"{name} is missing; run: python -m tests.services")
    return Path(path)


def under_ci(environ: Mapping[str, str]) -> bool:
    return environ.get("CI", "").lower() in {"1", "true"}


Run = Callable[[Sequence[str]], bool]


def install(service: Service, run: Run) -> str:
    """Install *service*; what kept it from that, or nothing."""
    if shutil.which("apt-get") is None:
        return "there is no apt-get"
    if os.geteuid() != 0:
        return "only root may install it"
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *service.packages]
    # The lists of packages may be missing or old, and are only fetched where they are.
    if run(command) or (run(["apt-get", "update", "-q"]) and run(command)):
        return "" if service.path() else "its package did not bring it"
    return "apt-get failed"


def run(argv: Sequence[str]) -> bool:
    """Run *argv* quietly; whether it ended well within DEADLINE."""
    process = subprocess.Popen(
        argv,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return process.wait(DEADLINE) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            process.terminate()  # gently first, for it may be writing to the system
            try:
                process.wait(_STOP_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main(run: Run = run) -> int:
    """One line for each service; 1 if one is missing under CI, where its tests would fail."""
    missing = False
    for name, service in SERVICES.items():
        problem = "" if service.path() else install(service, run)
        missing = missing or bool(problem)
        state = f"missing, {problem}; its tests are skipped" if problem else service.path()
        print(f"{name}: {state} ({service.purpose})")
    return 1 if missing and under_ci(os.environ) else 0


if __name__ == "__main__":
    sys.exit(main())
