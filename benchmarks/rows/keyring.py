"""A keyring that never answers: is there a login all the same, and does the process end?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from .. import fresh
from ..server import ROOT, serving
from ..table import Row, at_most, exactly, known, on_both

# The keyring has 5 s to be read and 30 s to be written, a person may have to unlock it; then the
# login itself, whose device code is asked for after a second.
LOGIN_DEADLINE: Final = 5.0 + 30.0 + 5.0
EXIT_DEADLINE: Final = 2.0


def rows(*, quick: bool) -> Iterator[Row]:
    yield from on_both(_row)


def _row(backend: str) -> Row:
    with serving() as server, TemporaryDirectory(prefix="flyteauth-bench-") as directory:
        home = Path(directory)
        order = {"server": vars(server), "backend": backend}
        said, total, exit_seconds = fresh.run(
            "keyring",
            home,
            order,
            PYTHON_KEYRING_BACKEND="benchmarks.keyrings.Hanging",
            PYTHONPATH=str(ROOT),
        )
        kept = [place for place in said["places"] if place.startswith(str(home))]
    return Row(
        "a login with a keyring that never answers",
        backend,
        [
            exactly("logins kept in a file", len(kept), 1),
            at_most("until the login is done", said["login"], LOGIN_DEADLINE, "s"),
            at_most(
                "from the last word to the end of the process", exit_seconds, EXIT_DEADLINE, "s"
            ),
            known("headers after the login", said["headers"] - said["login"], "s"),
            known("the whole process", total, "s"),
        ],
        [f"said: {text.replace(str(home), '~')}" for text in said["warnings"]],
    )
