"""What a row of the benchmarks comes to: measures with their targets, and how they are shown."""

from __future__ import annotations

import gc
import os
import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from attrs import asdict, field, frozen

T = TypeVar("T")

BACKENDS: Final[tuple[Literal["asyncio"], Literal["trio"]]] = ("asyncio", "trio")

Comparison = Literal["==", "<=", ">="]
_COMPARE: Final[dict[Comparison, Callable[[float, float], bool]]] = {
    "==": lambda value, target: value == target,
    "<=": lambda value, target: value <= target,
    ">=": lambda value, target: value >= target,
}


@frozen
class Measure:
    """One figure. Without a target it is only to be known.

    ``samples`` are what the value is the median of, where it is one.
    """

    what: str
    value: float
    unit: str = ""
    comparison: Comparison | None = None
    target: float = 0.0
    samples: Sequence[float] = ()

    @property
    def good(self) -> bool:
        return self.comparison is None or _COMPARE[self.comparison](self.value, self.target)

    @property
    def spread(self) -> str:
        """The least and the greatest sample."""
        if len(self.samples) < 2:
            return ""
        return f"{number(min(self.samples))} to {number(max(self.samples))}"

    @property
    def wanted(self) -> str:
        if self.comparison is None:
            return ""
        sign = {"==": "=", "<=": "≤", ">=": "≥"}[self.comparison]
        return f"{sign} {number(self.target)}"


@frozen
class Row:
    """One row of the table: its measures on one backend, or where there is none to speak of."""

    name: str
    backend: str
    measures: Sequence[Measure]
    notes: Sequence[str] = field(factory=tuple)

    @property
    def good(self) -> bool:
        return all(measure.good for measure in self.measures)

    def lines(self) -> Iterator[str]:
        yield f"{self.name}{self.backend and f', {self.backend}'}"
        width = max(len(measure.what) for measure in self.measures)
        for measure in self.measures:
            verdict = "" if measure.comparison is None else "ok" if measure.good else "MISSED"
            value = f"{number(measure.value)} {measure.unit}".rstrip()
            yield (
                f"  {measure.what:{width}}  {value:>12}  {measure.wanted:>9}  "
                f"{measure.spread:>18}  {verdict}"
            ).rstrip()
        for note in self.notes:
            yield f"  {note}"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "good": self.good}


def number(value: float) -> str:
    if value == int(value) and abs(value) < 1e9:
        return str(int(value))
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"


def exactly(what: str, value: float, target: float, unit: str = "") -> Measure:
    return Measure(what, value, unit, "==", target)


def at_most(what: str, samples: Sequence[float] | float, target: float, unit: str = "") -> Measure:
    """The median of *samples* must not exceed *target*."""
    if isinstance(samples, int | float):
        return Measure(what, samples, unit, "<=", target)
    return Measure(what, statistics.median(samples), unit, "<=", target, tuple(samples))


def known(what: str, samples: Sequence[float] | float, unit: str = "") -> Measure:
    """A figure without a target."""
    if isinstance(samples, int | float):
        return Measure(what, samples, unit)
    return Measure(what, statistics.median(samples), unit, samples=tuple(samples))


def on_both(row: Callable[[str], T]) -> Iterator[T]:
    """*row* of each backend, both at once: for what waits and cannot be hurried, on fresh homes
    and servers, where nothing is compared with anything.
    """
    with ThreadPoolExecutor(len(BACKENDS)) as pool:
        yield from pool.map(row, BACKENDS)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@contextmanager
def no_collection() -> Iterator[None]:
    """The collector's pauses fall between the samples."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _processor() -> str:
    """What it calls itself, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def machine() -> str:
    """Where the figures were taken, and what else went on there."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("anyio", "trio", "httpx"))
    return (
        f"{platform.python_implementation()} {platform.python_version()}, {libraries}; "
        f"{platform.system()} {platform.release()}, {_processor()}, {cores} cores{load}"
    )
