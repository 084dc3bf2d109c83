"""Who is measured, at which versions; each in an environment of its own, made when it is needed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attrs import field, frozen

from ..server import ROOT

OURS: Final = "flyteauth"
DEADLINE: Final = 1200.0  # seconds for pip, which may have to build

# flytekit and flyte keep logins in a keyring; this one needs no desktop.
_KEYRING: Final = "keyrings.alt==5.0.2"
_CONNECT: Final = ("connectrpc==0.10.1", "flyteidl2==2.0.51", "pyqwest==0.12.0")
_HTTPX: Final = "httpx==0.28.1"
_REQUESTS: Final = "requests==2.34.2"
_TRIO: Final = "trio==0.35.0"
_GOOGLE: Final = ("google-auth==2.62.2", "aiohttp==3.14.5", _REQUESTS)

PINNED: Final[dict[str, tuple[str, ...]]] = {
    OURS: ("--editable", ".[connect]", _HTTPX, _TRIO, *_CONNECT),
    "flyte": ("flyte==2.12.1", _KEYRING, _TRIO),
    "flytekit": ("flytekit==1.16.31", _KEYRING),
    "authlib": ("authlib==1.9.9", _HTTPX, _TRIO),
    "httpx-auth": ("httpx-auth==0.23.1", _HTTPX, _TRIO),
    "httpx-oauth": ("httpx-oauth==0.17.0", _HTTPX, _TRIO),
    "msal": ("msal==1.39.0", "msal-extensions==1.3.1", _REQUESTS),
    "google-auth": _GOOGLE,
    "google-auth-aio": _GOOGLE,
    "requests-oauthlib": ("requests-oauthlib==2.0.0", "oauthlib==4.0.1", _REQUESTS),
    "mcp": ("mcp==2.3.0", _TRIO),
}

# Whose clients are httpx's, which knows both backends.
ON_TRIO: Final = frozenset(name for name, pinned in PINNED.items() if _TRIO in pinned)


@frozen
class Environment:
    """A peer's own Python, with the peer in it."""

    name: str
    python: Path = field(converter=Path)

    @property
    def module(self) -> str:
        """The program that adapts it to the benchmarks."""
        return f"{__package__}.adapters.{self.name.replace('-', '_')}"

    def script(self, name: str) -> str:
        """The path of a command that is installed with it."""
        return str(self.python.with_name(name))


class Missing(Exception):
    """An environment that cannot be made, and why."""


def environment(name: str) -> Environment:
    """The environment of *name*. Raises Missing."""
    pinned = PINNED[name]
    place = ROOT / f".venv-bench-{name}"
    python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    ready = place / ".ready"
    wanted = _digest(pinned)
    if not ready.exists() or ready.read_text(encoding="utf-8") != wanted:
        print(f"(making the environment of {name})", flush=True)
        if not python.exists():
            _run(sys.executable, "-m", "venv", str(place))
        _run(str(python), *"-m pip install --quiet --disable-pip-version-check".split(), *pinned)
        ready.write_text(wanted, encoding="utf-8")
    return Environment(name, python)


def environments(names: Sequence[str]) -> tuple[list[Environment], list[str]]:
    """Those of *names* that there are or that can be made, and why others cannot."""
    made, missing = [], []
    for name in names:
        try:
            made.append(environment(name))
        except Missing as error:
            missing.append(f"{name} is left out: {error}")
    return made, missing


def _digest(pinned: Sequence[str]) -> str:
    """What the environment depends on; an editable one on its requirements, too."""
    text = "\n".join((sys.version, *pinned))
    if "--editable" in pinned:
        text += (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def _run(*command: str) -> None:
    try:
        done = subprocess.run(
            command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(str(error)) from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise Missing(said[-1])
