"""
The tests on every Python that we support, against the built wheel.

``python -m tests.interpreters`` builds the wheel once, gives each interpreter that is here an
environment with the wheel and what the tests need, and runs the tests from a copy that has no
``flyteauth`` beside it: first on asyncio and trio, then those of asyncio again on uvloop. What is
said after ``--`` goes to pytest; ``--only 3.12`` leaves the others out.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
VERSIONS: Final = ("3.11", "3.12", "3.13")
# All that the tests read, and nothing that Python could import as flyteauth.
READ_BY_TESTS: Final = (
    "CHANGELOG.md",
    "Makefile",
    "README.md",
    "benchmarks",
    "docs",
    "pyproject.toml",
    "tests",
)
# A test that runs on several event loops has the loop in its name.
ON_UVLOOP: Final = ("-p", "tests.on_uvloop", "-k", "asyncio")
_NOTHING: Final = 5  # what pytest says where no test was selected
_PIP: Final = ("-m", "pip", "--quiet", "--disable-pip-version-check")


def candidates(version: str) -> Iterator[Path]:
    """Where an interpreter of that version might be."""
    if (found := shutil.which(f"python{version}")) is not None:
        yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)


def interpreter(version: str) -> Path | None:
    """An interpreter of that version which starts. (pyenv has a python3.12 that may not.)"""
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    for path in candidates(version):
        try:
            told = subprocess.run(
                [path, "-c", ask], check=False, capture_output=True, text=True, timeout=30
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if told.stdout.strip() == version:
            return path
    return None


def environment(version: str, python: Path, wheel: Path) -> Path:
    """The Python of an environment with *wheel*, kept from one run to the next."""
    folder = ROOT / f".venv-{version}"
    made_of = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamp, own = folder / "made_of", folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text("utf-8") != made_of:
        shutil.rmtree(folder, ignore_errors=True)
        _run(python, "-m", "venv", str(folder))
        _run(own, *_PIP, "install", "--upgrade", "pip>=25.1")  # which knows of groups
        groups = ("--group", f"{ROOT / 'pyproject.toml'}:dev", "uvloop>=0.21")
        _run(own, *_PIP, "install", f"{wheel}[all]", *groups)
        stamp.write_text(made_of, "utf-8")
    _run(own, *_PIP, "install", "--force-reinstall", "--no-deps", str(wheel))
    return own


def copy_of_tests(folder: Path) -> Path:
    """The tests and what they read, in *folder*; the tools that they run stay where they are."""
    folder.mkdir()
    for tool in ROOT.glob(".venv-*"):
        if tool.name.removeprefix(".venv-") not in VERSIONS:
            (folder / tool.name).symlink_to(tool)
    for name in READ_BY_TESTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def _run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True)


def main(argv: Sequence[str] | None = None) -> int:
    """1 if a test failed, or if there is no interpreter at all."""
    parser = argparse.ArgumentParser(prog="tests.interpreters", description=__doc__)
    parser.add_argument("--only", action="append", choices=VERSIONS, metavar="VERSION")
    parser.add_argument("pytest", nargs="*", help="after --: arguments of pytest")
    given = parser.parse_args(argv)
    found = {version: interpreter(version) for version in given.only or VERSIONS}
    here = {version: python for version, python in found.items() if python is not None}
    outcomes = _outcomes(here, given.pytest) if here else {}
    print()
    for run, outcome in outcomes.items():
        print(f"{run}: {outcome}")
    for version in found.keys() - here.keys():
        print(f"Python {version}: not here, so it was not tried")
    return 0 if outcomes and "FAILED" not in outcomes.values() else 1


def _outcomes(here: Mapping[str, Path], words: Sequence[str]) -> dict[str, str]:
    outcomes: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="flyteauth-wheel-") as name:
        folder = Path(name)
        _run(sys.executable, *_PIP, "wheel", "--no-deps", "--wheel-dir", folder, ROOT)
        (wheel,) = folder.glob("flyteauth-*.whl")
        copy = copy_of_tests(folder / "copy")
        for version, python in here.items():
            own = environment(version, python, wheel)
            pytest: tuple[str | Path, ...] = (
                own,
                "-m",
                "pytest",
                "-p",
                "tests.of_the_wheel",
                *words,
            )
            runs: Mapping[str, Sequence[str]] = {"asyncio and trio": (), "uvloop": ON_UVLOOP}
            for loops, more in runs.items():
                print(f"\n== Python {version}, {loops}", flush=True)
                status = subprocess.run((*pytest, *more), check=False, cwd=copy).returncode
                said = {0: "passed", _NOTHING: "nothing to run" if more else "FAILED"}
                outcomes[f"Python {version}, {loops}"] = said.get(status, "FAILED")
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
