"""
``python -m tests.fuzz [--seconds N] [--keep] [TARGET ...]``: look for inputs that break a target.

Each target has *N* seconds, in a process of its own. What breaks one is written to a folder, and
named in one line. With --keep, inputs that reach further than those of the corpus are added to it.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from . import corpus
from .targets import TARGETS

WORDS = Path(__file__).parent / "words.dict"
BROKEN = Path(".artifacts/fuzz")
INPUT_MAX = 4096  # bytes
INPUT_SECONDS = 5  # for one input
MEMORY_MAX = 1024  # MB


@frozen
class Round:
    """How it went: executions, coverage before and after, and what went wrong, if anything."""

    executions: int
    before: int
    after: int
    broken: str


def fuzz(name: str, seconds: int, grown: Path) -> Round:
    """Look for *seconds*; inputs that reach further are put into the folder *grown*."""
    BROKEN.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        known = _folder(Path(directory) / "known", corpus.inputs(name))
        done = _run(
            name,
            f"-max_total_time={seconds}",
            f"-dict={WORDS}",
            f"-max_len={INPUT_MAX}",
            f"-timeout={INPUT_SECONDS}",
            f"-rss_limit_mb={MEMORY_MAX}",
            f"-artifact_prefix={BROKEN}/{name}-",
            "-print_final_stats=1",
            str(grown),
            str(known),
        )
    said = done.stdout
    covered = [int(number) for number in re.findall(r"\bcov: (\d+)", said)]
    executed = re.findall(r"number_of_executed_units: (\d+)|^#(\d+)\t", said, re.MULTILINE)
    return Round(
        executions=max((int(number) for pair in executed for number in pair if number), default=0),
        before=covered[0] if covered else 0,
        after=covered[-1] if covered else 0,
        broken=why(said, done.returncode) if done.returncode else "",
    )


def merged(name: str, grown: Path) -> list[bytes]:
    """Of the inputs in *grown*, those that reach further than the corpus."""
    with tempfile.TemporaryDirectory() as directory:
        into = _folder(Path(directory) / "into", corpus.inputs(name))
        before = set(into.iterdir())
        _run(name, "-merge=1", str(into), str(grown))
        return [path.read_bytes() for path in into.iterdir() if path not in before]


def _run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz.one", name, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="backslashreplace",
        check=False,
    )


def _folder(path: Path, contents: Iterable[bytes]) -> Path:
    path.mkdir()
    for number, data in enumerate(contents):
        (path / str(number)).write_bytes(data)
    return path


def why(said: str, status: int) -> str:
    """What was raised, where, and the file with the input."""
    raised = re.findall(r"^(\w+(?:\.\w+)*(?:Error|Exception|Warning)\b.*)", said, re.MULTILINE)
    stopped = re.findall(r"^==\d+== ?ERROR: (.*)", said, re.MULTILINE)
    line = re.findall(r'^  File "([^"]*", line \d+)', said, re.MULTILINE)
    written = re.findall(r"Test unit written to (.*)", said)
    what = [*raised[-1:], *stopped[-1:], f"exit status {status}"][0]
    where = f" ({line[-1].replace(chr(34), '')})" if raised and line else ""
    return " ".join([what + where, *written[-1:]])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    given = parser.parse_args()
    if unknown := set(given.targets) - TARGETS.keys():
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not there; run: make fuzz, on Linux", file=sys.stderr)
        return 2
    broken = 0
    for name in given.targets or TARGETS:
        with tempfile.TemporaryDirectory() as directory:
            done = fuzz(name, given.seconds, Path(directory))
            added = corpus.keep(name, merged(name, Path(directory))) if given.keep else 0
        kept = f", {added} inputs kept" if given.keep else ""
        print(
            f"{name:18} {done.executions:>9} executions, coverage {done.before} to {done.after}"
            f"{kept}{': ' if done.broken else ''}{done.broken}",
            flush=True,
        )
        broken += bool(done.broken)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
