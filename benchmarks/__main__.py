"""
All rows, one after the other: ``python -m benchmarks [--only NAME] [--peers] [--quick]``.

Each row prints its measures with their targets, and the spread of what a figure is the median of;
those called ``peers/…`` compare us with other libraries, each in an environment of its own, which
is made when it is needed. The status is 1 if a target is missed. ``benchmarks/results.json`` has
the figures, and ``benchmarks/results.svg`` shows those beside the peers.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from .peers.comparison import Comparison
from .peers.environments import PINNED, environments
from .peers.plot import plot
from .table import Row, machine

RESULTS: Final = Path(__file__).with_name("results.json")
PLOT: Final = Path(__file__).with_name("results.svg")

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
    "steps",
    "peers/imports",
    "peers/commands",
    "peers/hot",
    "peers/burst",
    "peers/load",
    "peers/processes",
    "peers/cold",
    "peers/device",
    "peers/trio",
    "peers/replies",
    "peers/refreshes",
)


def _module(name: str) -> ModuleType:
    package, _, row = name.rpartition("/")
    place = ".peers.rows" if package else ".rows"
    return import_module(f"{place}.{row}", __package__)


def _rows(name: str, *, quick: bool, names: Sequence[str]) -> Iterator[Row | Comparison]:
    """Of the peers, those of *names*."""
    function: Callable[..., Iterator[Row | Comparison]] = _module(name).rows
    if not name.startswith("peers/"):
        yield from function(quick=quick)
        return
    found, missing = environments(names)
    for line in missing:
        print(line, flush=True)
    yield from function(found, quick=quick)


def _missed(row: Row | Comparison) -> list[str]:
    name = f"{row.name}{row.backend and f', {row.backend}'}"
    return [f"{name}: {measure.what}" for measure in row.measures if not measure.good]


def _write(document: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps(document, indent=1), encoding="utf-8")
    if any("key" in row for row in document["rows"]):
        PLOT.write_text(plot(document), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME", help="some rows")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--peers", action="store_true", help="only the rows beside the peers")
    parser.add_argument(
        "--peer", action="append", choices=PINNED, metavar="NAME", help="some of the peers"
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    options = parser.parse_args()
    if options.list:
        for name in NAMES:
            about = _module(name).__doc__ or ""
            print(f"{name:16}  {about.strip().splitlines()[0]}")
        return 0
    logging.disable(logging.INFO)
    # What was started ends also when this is told to; both event loops know what Ctrl-C means.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))

    where = machine()
    print(f"{where}\n", flush=True)
    document: dict[str, Any] = {
        "machine": where,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": options.quick,
        "peers": {name: PINNED[name] for name in options.peer or PINNED},
        "rows": [],
        "broken": [],
    }
    missed: list[str] = []
    default = [name for name in NAMES if name.startswith("peers/") or not options.peers]
    for name in options.only or default:
        begun = time.perf_counter()
        try:
            for row in _rows(name, quick=options.quick, names=options.peer or list(PINNED)):
                document["rows"].append(row.as_dict())
                missed += _missed(row)
                print("\n".join(row.lines()), end="\n\n", flush=True)
        except Exception as error:  # noqa: BLE001  # an hour of others' figures is not lost with it
            traceback.print_exc()
            document["broken"].append(name)
            missed.append(f"{name}: broken off by {type(error).__name__}")
        _write(document)
        print(f"({name}: {time.perf_counter() - begun:.0f} s)\n", flush=True)

    for line in missed:
        print(f"MISSED  {line}")
    print(f"{len(document['rows'])} rows, {len(missed)} targets missed; figures in {RESULTS.name}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
