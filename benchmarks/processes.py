"""What whole processes cost: their wall time, and the most memory that they had."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen


@frozen
class Usage:
    """Of one process, from its start to its end."""

    seconds: float
    peak_mb: float


class Processes:
    """Starts processes, one after the other."""

    def __init__(self, launcher: subprocess.Popen[str]) -> None:
        self._launcher = launcher

    def use(
        self,
        command: Sequence[str],
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Usage:
        """What *command* uses. What it prints is dropped; CalledProcessError if it fails."""
        variables = [
            f"{name}={value}"
            for name, value in (os.environ if environ is None else environ).items()
        ]
        parts = (command, variables, [str(cwd or Path.cwd())])
        assert self._launcher.stdin is not None
        assert self._launcher.stdout is not None
        self._launcher.stdin.write("\x1e".join("\x1f".join(part) for part in parts) + "\n")
        self._launcher.stdin.flush()
        seconds, peak, status = self._launcher.stdout.readline().split()
        if int(status):
            raise subprocess.CalledProcessError(int(status), list(command))
        # KiB, except on macOS, where it is bytes.
        return Usage(float(seconds), int(peak) / (1048576 if sys.platform == "darwin" else 1024))


@contextmanager
def processes() -> Iterator[Processes]:
    """What starts processes, until the end of the block."""
    launcher = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("launcher.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with launcher:
        yield Processes(launcher)
