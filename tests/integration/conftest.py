from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and nothing of ours or of Flyte's in the environment."""
    import os

    for name in list(os.environ):
        if name.startswith(("FLYTE", "UNION", "UCTL", "XDG_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FLYTEAUTH_HOME", str(tmp_path / "flyteauth"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def running() -> Iterator[Running]:
    """A control plane that lets every login through."""
    with serving(Settings(approve="auto", access_ttl=3600.0)) as running:
        yield running
