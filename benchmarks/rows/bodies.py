"""Bodies without an end, and bodies that grow: what do they cost a client that refreshes?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from .. import fresh
from ..server import serving
from ..table import Row, at_most, exactly, on_both

MEMORY_MB: Final = 5.0
DEADLINE: Final = 150.0  # of a refresh with its retries

BODIES: Final = {
    "an endless body, 64 KiB every 10 ms": "endless",
    "50 MB of gzip in 50 KB": "bomb",
    "a body of a byte every 100 ms": "drip",
}


def rows(*, quick: bool) -> Iterator[Row]:
    """Each in a fresh process, which has refreshed once before."""
    for what, name in BODIES.items():
        if not (quick and name == "drip"):
            yield from on_both(partial(_row, what, name, 1 if quick or name == "drip" else 5))


def _row(what: str, name: str, rounds: int, backend: str) -> Row:
    heard = []
    for _ in range(rounds):
        with serving() as server, TemporaryDirectory(prefix="flyteauth-bench-") as home:
            order = {
                "server": vars(server),
                "backend": backend,
                "token_endpoint": f"{server.base_url}/fault/{name}/token",
            }
            said, _, _ = fresh.run("body", Path(home), order)
            heard.append(said)
    typed = sum(one["said"].startswith("Unreachable: ") for one in heard)
    return Row(
        f"the token endpoint answers with {what}",
        backend,
        [
            exactly("rounds that end in a typed error", typed, rounds),
            at_most("until the error", [one["seconds"] for one in heard], DEADLINE, "s"),
            at_most(
                "peak memory beyond what was in use", [h["grown"] for h in heard], MEMORY_MB, "MB"
            ),
        ],
        sorted({one["said"].replace(server.base_url, "") for one in heard[-1:]}),
    )
