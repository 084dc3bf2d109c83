"""The heart beat of an event loop, through everything that takes time: does it ever stop?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .. import fresh
from ..logins import temporary_home
from ..server import ROOT, serving
from ..table import BACKENDS, Row, at_most, known

BEAT: Final = 0.02
GAP_MS: Final = 100.0
IDLE: Final = 2.0


def rows(*, quick: bool) -> Iterator[Row]:
    """In fresh processes, with a keyring that takes half a second for each call. The longest gap of
    each process and phase counts; the median is over processes.
    """
    for backend in BACKENDS:
        found: dict[str, list[float]] = {}
        for _ in range(1 if quick else 5):
            with serving() as server, temporary_home() as home:
                order = {
                    "server": vars(server),
                    "base_url": server.base_url,
                    "backend": backend,
                    "beat": BEAT,
                    "idle": IDLE,
                }
                said, _, _ = fresh.run(
                    "heartbeat",
                    home,
                    order,
                    PYTHON_KEYRING_BACKEND="benchmarks.keyrings.Slow",
                    PYTHONPATH=str(ROOT),
                )
            for phase, gap in said["gaps"].items():
                found.setdefault(phase, []).append(1000 * gap)
        idle = found.pop("idle")
        yield Row(
            f"the longest gap of a heart beat of {1000 * BEAT:.0f} ms",
            backend,
            [
                *(at_most(phase, gaps, GAP_MS, "ms") for phase, gaps in found.items()),
                known(f"idle, for {IDLE:.0f} s", idle, "ms"),
            ],
        )
