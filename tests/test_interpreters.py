"""The tests on every supported Python: what is looked for, and what is tested there."""

from __future__ import annotations

import os
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

import flyteauth

from . import interpreters, of_the_wheel
from .interpreters import ROOT, VERSIONS, copy_of_tests, interpreter, main

OURS = "{}.{}".format(*sys.version_info)


def test_the_oldest_is_the_one_that_the_package_requires() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["requires-python"] == f">={VERSIONS[0]}"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where an interpreter may be."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path


def put(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(0o755)


@pytest.mark.skipif(os.name != "posix", reason="shell scripts stand in for interpreters")
def test_an_interpreter_that_does_not_start_or_is_another_is_passed_over(path: Path) -> None:
    assert interpreter(OURS) is None
    put(path / f"python{OURS}", "echo 'not installed here' >&2; exit 127")
    put(path / "pyenv" / "versions" / f"{OURS}.1" / "bin" / "python", "echo 2.7")
    assert interpreter(OURS) is None
    good = path / "pyenv" / "versions" / f"{OURS}.0" / "bin" / "python"
    put(good, f'exec {sys.executable} "$@"')
    assert interpreter(OURS) == good
    put(path / f"python{OURS}", f'exec {sys.executable} "$@"')
    assert interpreter(OURS) == path / f"python{OURS}"


def test_what_is_missing_is_named_and_nothing_at_all_is_a_failure(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 1
    said = capsys.readouterr().out
    for version in VERSIONS:
        assert f"Python {version}: not here, so it was not tried\n" in said


def test_the_copy_has_all_that_tests_read_and_no_package(tmp_path: Path) -> None:
    copy = copy_of_tests(tmp_path / "copy")
    assert not (copy / "flyteauth").exists()
    assert (copy / "tests" / "conftest.py").exists()
    assert (copy / "docs" / "recipes.md").exists()
    assert list(copy.rglob("*.pyc")) == []


def test_only_an_installed_package_is_tested(
    monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    installed = Path(sysconfig.get_path("purelib")) / "flyteauth" / "__init__.py"
    monkeypatch.setattr(flyteauth, "__file__", str(installed))
    of_the_wheel.pytest_configure(pytestconfig)
    monkeypatch.setattr(flyteauth, "__file__", str(ROOT / "flyteauth" / "__init__.py"))
    with pytest.raises(pytest.UsageError, match="the wheel is not tested"):
        of_the_wheel.pytest_configure(pytestconfig)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_asyncio_is_on_the_loop_that_was_asked_for(
    anyio_backend: str, pytestconfig: pytest.Config
) -> None:
    import asyncio

    asked = pytestconfig.pluginmanager.has_plugin("tests.on_uvloop")
    assert type(asyncio.get_running_loop()).__module__.startswith("uvloop") == asked
    assert "tests.on_uvloop" in interpreters.ON_UVLOOP
