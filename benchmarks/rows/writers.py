"""Sixteen processes write one login, and are killed at any moment: is the file ever torn?"""

from __future__ import annotations

from collections.abc import Iterator

from tests.io.writers import storm

from ..logins import temporary_home
from ..table import Row, at_most, exactly, known


def rows(*, quick: bool) -> Iterator[Row]:
    """Whoever reads a file that is not whole ends this with an exception."""
    processes, writes, kills = (4, 50, 10) if quick else (16, 1000, 200)
    with temporary_home() as home:
        try:
            outcome = storm(home / "logins", processes, writes, kills)
        except Exception as error:  # noqa: BLE001  # whatever a reader gets
            yield Row("writers", "", [exactly("readings of a torn file", 1, 0)], [repr(error)])
            return
    yield Row(
        f"{processes} writers with {writes} writes each, killed (-9) at random",
        "",
        [
            exactly("readings of a torn file", 0, 0),
            exactly("killed", outcome.killed, kills),
            at_most(
                "writes that were lost with their writer",
                processes * writes - outcome.written,
                kills,
            ),
            known("readings", outcome.reads),
            known("seconds", outcome.seconds, "s"),
        ],
    )
