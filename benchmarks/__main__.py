"""
All rows, one after the other: ``python -m benchmarks [--only NAME] [--quick]``.

Each row prints its measures with their targets, and the spread of what a figure is the median of.
The status is 1 if a target is missed. ``benchmarks/results.json`` has the figures.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Final

from .table import Row, machine

RESULTS: Final = Path(__file__).with_name("results.json")

# What each is about is the first line of its module.
NAMES: Final = (
    "processes",
    "redis",
    "failing",
    "faults",
    "cancelled",
    "bodies",
    "keyring",
    "writers",
    "burst",
    "connect",
    "headers",
    "load",
    "heartbeat",
    "commands",
    "fleet",
    "scripts",
)


def _rows(name: str, *, quick: bool) -> Iterator[Row]:
    function: Callable[..., Iterator[Row]] = import_module(f".rows.{name}", __package__).rows
    return function(quick=quick)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME", help="some rows")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    options = parser.parse_args()
    if options.list:
        for name in NAMES:
            about = import_module(f".rows.{name}", __package__).__doc__ or ""
            print(f"{name:10}  {about.strip().splitlines()[0]}")
        return 0
    logging.disable(logging.INFO)
    # What was started ends also when this is told to; both event loops know what Ctrl-C means.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))

    where = machine()
    print(f"{where}\n", flush=True)
    results: list[Row] = []
    for name in options.only or NAMES:
        begun = time.perf_counter()
        for row in _rows(name, quick=options.quick):
            results.append(row)
            print("\n".join(row.lines()), end="\n\n", flush=True)
        print(f"({name}: {time.perf_counter() - begun:.0f} s)\n", flush=True)

    missed = [
        f"{row.name}{row.backend and f', {row.backend}'}: {measure.what}"
        for row in results
        for measure in row.measures
        if not measure.good
    ]
    document = {
        "machine": where,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": options.quick,
        "rows": [row.as_dict() for row in results],
    }
    RESULTS.write_text(json.dumps(document, indent=1), encoding="utf-8")
    for line in missed:
        print(f"MISSED  {line}")
    print(f"{len(results)} rows, {len(missed)} targets missed; figures in {RESULTS.name}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
