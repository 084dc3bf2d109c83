"""
What the tests need from outside, and the tools that people already run, each in an environment of
its own. ``python -m tests.services`` gets what is missing, where it may (Debian's packages as root,
with apt-get), and says what there is. A test asks with ``require("chromium")``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, cast

from attrs import frozen

DEADLINE: Final = 300.0  # seconds for one run of apt-get or pip
ROOT: Final = Path(__file__).parents[1]
_STOP_GRACE: Final = 20.0


Run = Callable[[Sequence[str]], bool]


class Service(Protocol):
    """Something that tests need."""

    @property
    def purpose(self) -> str: ...

    def path(self) -> str | None:
        """Where it is, if it is there."""

    def install(self, run: Run) -> str:
        """Install it; what kept it from that, or nothing."""


@frozen
class Program:
    """A program, under any of these names, and the Debian packages that bring it."""

    names: tuple[str, ...]
    packages: tuple[str, ...]
    purpose: str

    def path(self) -> str | None:
        return next(filter(None, map(shutil.which, self.names)), None)

    def install(self, run: Run) -> str:
        if shutil.which("apt-get") is None:
            return "there is no apt-get"
        if os.geteuid() != 0:
            return "only root may install it"
        command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *self.packages]
        # The lists of packages may be missing or old, and are only fetched where they are.
        if run(command) or (run(["apt-get", "update", "-q"]) and run(command)):
            return "" if self.path() else "its package did not bring it"
        return "apt-get failed"


@frozen
class Environment:
    """A virtual environment with this checkout and a dependency group of pyproject.toml; its path
    is that of its Python.
    """

    group: str
    purpose: str
    root: Path = ROOT
    newest: bool = False
    """Whether it has the newest releases of what the group pins."""

    def path(self) -> str | None:
        if python := os.environ.get(f"FLYTEAUTH_TEST_{self.group.upper()}"):  # see compat
            return python
        try:
            made_of = json.loads((self._folder / "made_of.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return str(self._python) if made_of == self._wanted() else None

    def install(self, run: Run) -> str:
        shutil.rmtree(self._folder, ignore_errors=True)
        pip = [str(self._python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        steps = (
            [sys.executable, "-m", "venv", str(self._folder)],
            [*pip, "--upgrade", "pip>=25.1"],  # which knows of groups
            [*pip, "--editable", str(self.root), *self._packages()],
        )
        for step in steps:
            if not run(step):
                return f"{Path(step[0]).name} {step[2]} failed"
        (self._folder / "made_of.json").write_text(json.dumps(self._wanted()), "utf-8")
        return ""

    def _packages(self) -> Sequence[str]:
        if not self.newest:
            return ("--group", f"{self._project}:{self.group}")
        return [str(name).partition("==")[0] for name in cast("list[object]", self._wanted()[0])]

    @property
    def _folder(self) -> Path:
        return self.root / f".venv-{'newest-' if self.newest else ''}{self.group}"

    @property
    def _python(self) -> Path:
        return self._folder / "bin" / "python"

    @property
    def _project(self) -> Path:
        return self.root / "pyproject.toml"

    def _wanted(self) -> list[object]:
        """All that it is made of: with another of it, it has to be made anew."""
        project = tomllib.loads(self._project.read_text("utf-8"))
        ours = project["project"]
        return [
            project["dependency-groups"][self.group],
            ours["dependencies"],
            ours.get("entry-points", {}),
        ]


@frozen
class NodePackages:
    """The packages of npm that the lock file in *folder* names; their path is that of Node."""

    folder: Path
    purpose: str

    def path(self) -> str | None:
        try:
            made_of = self._made_of.read_text("utf-8")
        except OSError:
            return None
        return shutil.which("node") if made_of == self._wanted() else None

    def install(self, run: Run) -> str:
        for program in ("node", "npm"):
            if shutil.which(program) is None:
                return f"there is no {program}"
        # No package may run anything of its own while it is installed.
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
        if not run(["npm", "ci", "--prefix", str(self.folder), *options]):
            return "npm ci failed"
        self._made_of.write_text(self._wanted(), "utf-8")
        return ""

    @property
    def _made_of(self) -> Path:
        return self.folder / "node_modules" / "made_of.json"

    def _wanted(self) -> str:
        return (self.folder / "package-lock.json").read_text("utf-8")


SERVICES: Final[Mapping[str, Service]] = {
    "chromium": Program(
        names=("chromium", "chromium-browser", "google-chrome"),
        # Without a font there is nothing to look at in a screenshot.
        packages=("chromium", "fonts-dejavu-core"),
        purpose="to log in as a person does, with a browser",
    ),
    "flyte": Environment("flyte", "to be used by the real flyte, its SDK and its command line"),
    "flytekit": Environment("flytekit", "to be used by the real flytekit, over gRPC"),
    "node": NodePackages(
        ROOT / "tests" / "servers" / "node",
        "authorization servers to log in at: oidc-provider and oauth2-mock-server",
    ),
    "nanoidp": Environment("nanoidp", "an authorization server to log in at"),
    "canaille": Environment("canaille", "an authorization server to log in at"),
    "gnome-keyring": Program(
        names=("gnome-keyring-daemon",),
        packages=("gnome-keyring", "dbus", "dbus-daemon", "dbus-bin"),
        purpose="a Secret Service to keep logins in",
    ),
    "redis-server": Program(
        names=("redis-server",),
        packages=("redis-server",),
        purpose="to share logins by, as by Valkey",
    ),
}


def require(name: str) -> Path:
    """The program of that service. Without it the test is skipped, and fails under CI."""
    import pytest

    path = SERVICES[name].path()
    if path is None:
        refuse = pytest.fail if under_ci(os.environ) else pytest.skip
        refuse(f"{name} is missing; run: python -m tests.services")
    return Path(path)


def under_ci(environ: Mapping[str, str]) -> bool:
    return environ.get("CI", "").lower() in {"1", "true"}


def run(argv: Sequence[str]) -> bool:
    """Run *argv* quietly; whether it ended well within DEADLINE."""
    process = subprocess.Popen(
        argv,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return process.wait(DEADLINE) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            process.terminate()  # gently first, for it may be writing to the system
            try:
                process.wait(_STOP_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main(run: Run = run) -> int:
    """One line for each service; 1 if one is missing under CI, where its tests would fail."""
    missing = False
    for name, service in SERVICES.items():
        problem = "" if service.path() else service.install(run)
        missing = missing or bool(problem)
        state = f"missing, {problem}; its tests are skipped" if problem else service.path()
        print(f"{name}: {state} ({service.purpose})")
    return 1 if missing and under_ci(os.environ) else 0


if __name__ == "__main__":
    sys.exit(main())
