"""Getting what the tests need from outside: quietly, only where that may be, and never silently."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from . import services
from .services import ROOT, SERVICES, Environment, NodePackages, Program, main, require, run


class Apt:
    """What apt-get would do, and what it was asked for."""

    def __init__(self, bin_folder: Path, *, knows: bool = True) -> None:
        self.bin_folder = bin_folder
        self.knows = knows
        self.asked: list[str] = []

    def __call__(self, argv: Sequence[str]) -> bool:
        self.asked.append(argv[1])
        if argv[1] == "update":
            self.knows = True
        elif self.knows:
            put(self.bin_folder / "chromium")
        return self.knows


def put(path: Path) -> None:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(services, "SERVICES", {"chromium": SERVICES["chromium"]})
    return tmp_path


def test_what_is_there_is_named_and_nothing_is_installed(
    bin_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(bin_folder / "chromium")
    apt = Apt(bin_folder)
    assert main(apt) == 0
    assert apt.asked == []
    assert capsys.readouterr().out.startswith(f"chromium: {bin_folder}/chromium (")
    assert require("chromium") == bin_folder / "chromium"


@pytest.mark.parametrize(("knows", "asked"), [(True, 1), (False, 3)])
def test_what_is_missing_is_installed(bin_folder: Path, knows: bool, asked: int) -> None:
    put(bin_folder / "apt-get")
    apt = Apt(bin_folder, knows=knows)
    assert main(apt) == 0
    assert apt.asked == ["install", "update", "install"][:asked]
    assert require("chromium").name == "chromium"


@pytest.mark.parametrize(
    ("apt_get", "user", "why"),
    [(False, 0, "there is no apt-get"), (True, 1000, "only root"), (True, 0, "apt-get failed")],
)
def test_where_it_cannot_be_installed_that_is_said(
    bin_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    apt_get: bool,
    user: int,
    why: str,
) -> None:
    if apt_get:
        put(bin_folder / "apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert main(lambda _: False) == 0
    assert why in capsys.readouterr().out
    with pytest.raises(pytest.skip.Exception, match="chromium is missing"):
        require("chromium")
    monkeypatch.setenv("CI", "true")
    assert main(lambda _: False) == 1
    with pytest.raises(pytest.fail.Exception, match="chromium is missing"):
        require("chromium")


def test_a_program_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run([sys.executable, "-c", ""])
    assert not run([sys.executable, "-c", "raise SystemExit(1)"])
    monkeypatch.setattr(services, "DEADLINE", 0.05)
    cat = shutil.which("cat")
    assert cat is not None
    assert not run(["sh", "-c", f"exec {cat} /dev/zero"])


def test_each_service_names_its_packages() -> None:
    for name, service in SERVICES.items():
        assert service.purpose
        match service:
            case Program():
                assert service.names
                assert name in service.packages
            case Environment():
                assert service.group == name
            case NodePackages():
                assert (service.folder / "package-lock.json").is_file()
            case _:
                pytest.fail(f"{name} is of an unknown kind")


def test_the_documents_name_the_versions_of_the_servers_that_are_run() -> None:
    table = (ROOT / "docs" / "servers.md").read_text("utf-8")
    node = json.loads((ROOT / "tests/servers/node/package.json").read_text("utf-8"))
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    pinned = [*groups["nanoidp"], *groups["canaille"]]
    versions = [*node["dependencies"].values(), *(pin.partition("==")[2] for pin in pinned)]
    assert len(versions) == 4
    for version in versions:
        assert f"| {version} |" in table


PROJECT = """
[project]
dependencies = ["anyio"]

[dependency-groups]
tool = ["tool==1"]
"""


def test_an_environment_is_made_once_and_again_when_it_is_to_be_another(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text(PROJECT)
    environment = Environment("tool", "to be tried", tmp_path)
    ran: list[str] = []

    def made(argv: Sequence[str]) -> bool:
        ran.append(argv[-1])
        (tmp_path / ".venv-tool").mkdir(exist_ok=True)
        return True

    assert environment.path() is None
    assert environment.install(made) == ""
    assert environment.path() == str(tmp_path / ".venv-tool" / "bin" / "python")
    assert ran[-1] == f"{project}:tool"
    (tmp_path / ".venv-tool" / "old").touch()
    project.write_text(PROJECT.replace("tool==1", "tool==2"))
    assert environment.path() is None
    assert environment.install(made) == ""
    assert environment.path() is not None
    assert not (tmp_path / ".venv-tool" / "old").exists()


def test_an_environment_that_could_not_be_made_is_none(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    environment = Environment("tool", "to be tried", tmp_path)
    assert "failed" in environment.install(lambda argv: "--group" not in argv)
    assert environment.path() is None


def test_packages_of_npm_are_installed_once_and_again_when_their_lock_file_changes(
    bin_folder: Path,
) -> None:
    for program in ("node", "npm"):
        put(bin_folder / program)
    lock_file = bin_folder / "package-lock.json"
    lock_file.write_text("{}")
    packages = NodePackages(bin_folder, "to be tried")

    def made(argv: Sequence[str]) -> bool:
        (Path(argv[argv.index("--prefix") + 1]) / "node_modules").mkdir(exist_ok=True)
        return True

    assert packages.path() is None
    assert packages.install(lambda _: False) == "npm ci failed"
    assert packages.path() is None
    assert packages.install(made) == ""
    assert packages.path() == str(bin_folder / "node")
    lock_file.write_text('{"lockfileVersion": 3}')
    assert packages.path() is None
    (bin_folder / "npm").unlink()
    assert packages.install(made) == "there is no npm"
