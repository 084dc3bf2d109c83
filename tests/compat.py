"""
The newest releases of Flyte's tools, tried with our tests of them: ``python -m tests.compat``.

What is pinned for the tests is what is known to work; this says what has become of it since. It
prints which versions it found, and what failed with them, and its status is 1 if anything did.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from attrs import evolve

from .services import ROOT, SERVICES, Environment, run

DEADLINE: Final = 1800.0  # seconds for the tests of one tool
TESTS: Final[Mapping[str, tuple[str, ...]]] = {
    "flyte": (
        "tests/e2e/test_flyte_commands.py",
        "tests/e2e/test_flyte_cli.py",
        "tests/e2e/test_flyte_sdk.py",
        "tests/e2e/test_pains_flyte.py",
        "tests/e2e/test_shared_logins.py",
    ),
    "flytekit": ("tests/e2e/test_flytekit_client.py",),
}


def main() -> int:
    failed = False
    for name, paths in TESTS.items():
        pinned = SERVICES[name]
        assert isinstance(pinned, Environment)
        environment = evolve(pinned, newest=True)
        if problem := environment.install(run):
            print(f"{name}: the newest release cannot be installed ({problem})")
            failed = True
            continue
        python = environment.path()
        assert python is not None
        print(f"{name} {_version(python, name)} …", flush=True)
        status, lines = _tested(paths, {f"FLYTEAUTH_TEST_{name.upper()}": python})
        print("\n".join(f"  {line}" for line in lines), flush=True)
        failed = failed or status != 0
    return 1 if failed else 0


def _version(python: str, name: str) -> str:
    program = f"from importlib.metadata import version; print(version({name!r}))"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _tested(paths: tuple[str, ...], environ: Mapping[str, str]) -> tuple[int, list[str]]:
    """The status, and the lines that say which tests failed, and how many did not."""
    argv = [sys.executable, "-m", "pytest", *paths, "-q", "-n", "2", "--no-header", "--tb=no"]
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    told = re.compile(r"(FAILED|ERROR) |.* in [0-9.]+s")
    return done.returncode, [line for line in done.stdout.splitlines() if told.match(line)]


if __name__ == "__main__":
    sys.exit(main())
