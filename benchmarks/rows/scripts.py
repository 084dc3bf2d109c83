"""What has a script of its own: the cost of an import, and of our auth on a request of httpx."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..table import Row, exactly

HERE: Final = Path(__file__).resolve().parent.parent.parent
SCRIPTS: Final = {"imports": 7, "httpx_auth": 60}  # and the pairs where time is short


def rows(*, quick: bool) -> Iterator[Row]:
    """Each as it is run by hand, with its own table."""
    for name, pairs in SCRIPTS.items():
        options = ["--pairs", str(pairs)] if quick else []
        run = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *options],
            check=False,
            cwd=HERE,
            stdout=subprocess.PIPE,
            text=True,
        )
        yield Row(name, "", [exactly("status", run.returncode, 0)], run.stdout.splitlines())
