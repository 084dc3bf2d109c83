"""``python -m tests.fuzz.one TARGET ARGUMENTS``: libFuzzer with that target, which ends us."""

from __future__ import annotations

import shlex
import sys

import atheris


def main() -> None:
    with atheris.instrument_imports(include=["flyteauth", "h11"]):
        from tests.fuzz.targets import TARGETS
    name, *arguments = sys.argv[1:]
    program = (
        f"{shlex.quote(sys.executable)} -m tests.fuzz.one {name}"  # to merge, it runs us again
    )
    atheris.Setup([program, *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
