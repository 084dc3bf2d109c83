"""
What it costs to import flyteauth: ``python benchmarks/imports.py``.

Whole processes, started alternately in pairs, so that whatever else the machine does meets both
of a pair. The figures are medians: of the differences, or of the ratios, of the pairs.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import time

PAIRS = 21
PACKAGE_MS = 10.0
SESSION_RATIO = 1.3

BARE = "pass"
PACKAGE = "import flyteauth"
SESSION = "import flyteauth; flyteauth.Session"
HTTPX = "import httpx"


def seconds(program: str) -> float:
    """How long a Python with *program* takes, from its start to its end."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - begun


def pairs(first: str, second: str, count: int) -> list[tuple[float, float]]:
    """Times of *first* and *second*, one after the other, and in turns which goes first."""
    for program in (first, second):  # byte code is written, files are in memory
        seconds(program)
    measured = []
    for index in range(count):
        if index % 2:
            after = seconds(second)
            measured.append((seconds(first), after))
        else:
            measured.append((seconds(first), seconds(second)))
    return measured


def heaviest(program: str, count: int) -> list[tuple[float, float, str]]:
    """The modules that cost most by themselves: own ms, ms with what they import, name."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program],
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.findall(r"import time:\s+(\d+) \|\s+(\d+) \|\s+(\S+)", run.stderr)
    costs = [(int(own) / 1000, int(total) / 1000, name) for own, total, name in found]
    return sorted(costs, reverse=True)[:count]


def machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {cores} cores"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="What it costs to import flyteauth.")
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N")
    parser.add_argument("--modules", type=int, default=0, metavar="N", help="the heaviest modules")
    options = parser.parse_args()

    package = pairs(BARE, PACKAGE, options.pairs)
    session = pairs(HTTPX, SESSION, options.pairs)
    cost = statistics.median(with_it - bare for bare, with_it in package) * 1000
    ratio = statistics.median(ours / theirs for theirs, ours in session)
    httpx, ours = (statistics.median(column) * 1000 for column in zip(*session, strict=True))

    print(f"{machine()}; medians of {options.pairs} pairs\n")
    print("                                        measured     target")
    print(f"{PACKAGE:36}  {cost:7.1f} ms  ≤ {PACKAGE_MS:4.0f} ms   over bare Python")
    print(f"{SESSION:36}  {ratio:7.2f} x   ≤ {SESSION_RATIO:4.1f} x    {HTTPX}")
    print(f"\nwhole processes: {ours:.0f} ms, {HTTPX} {httpx:.0f} ms")
    if options.modules:
        print("\n   own ms  with imports")
        for own, total, name in heaviest(SESSION, options.modules):
            print(f"{own:9.1f} {total:13.1f}  {name}")
    return 0 if cost <= PACKAGE_MS and ratio <= SESSION_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
