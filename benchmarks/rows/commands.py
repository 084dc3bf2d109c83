"""What a command costs as a whole process: a stored token, and the help, beside a bare Python."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from flyteauth._identity import identity
from flyteauth._io.store.file import FileStore
from flyteauth._sansio.record import Record
from flyteauth._sansio.token import Token
from flyteauth.config import resolve

from ..table import Row, at_most, known

PAIRS: Final = 41
TOKEN_RATIO: Final = 6.0
HELP_RATIO: Final = 8.0
ENDPOINT: Final = "dns:///flyte.example.com"
CONFIG: Final = f"""\
admin:
  endpoint: {ENDPOINT}
image:
  builder: local
task:
  domain: development
  project: flytesnacks
"""

BARE: Final = (sys.executable, "-c", "pass")
COMMAND: Final = str(Path(sys.executable).with_name("flyteauth"))


def rows(*, quick: bool) -> Iterator[Row]:
    pairs = 7 if quick else PAIRS
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        environ = {"HOME": str(home), "PATH": os.environ.get("PATH", "")}
        environ |= {"FLYTEAUTH_HOME": str(home / "flyteauth")} if os.name == "nt" else {}
        _log_in(home, environ)
        given = _ratios(home, environ, ("token", "--endpoint", ENDPOINT), pairs)
        (home / ".flyte").mkdir()
        (home / ".flyte" / "config.yaml").write_text(CONFIG, encoding="utf-8")
        from_file = _ratios(home, environ, ("token",), pairs)
        told = _ratios(home, environ, ("--help",), pairs)
    yield Row(
        "commands",
        "",
        [
            at_most("token, endpoint in a file", from_file, TOKEN_RATIO, "x"),
            at_most("token, endpoint in an argument", given, TOKEN_RATIO, "x"),
            at_most("--help", told, HELP_RATIO, "x"),
            known("bare Python", _bare(home.parent, environ, pairs), "ms"),
        ],
        ["ratios to python -c pass, whole processes, started alternately"],
    )


def _log_in(home: Path, environ: Mapping[str, str]) -> None:
    """A login in files, where the command is going to look for it."""
    logins = subprocess.run(
        [sys.executable, "-c", "from flyteauth._io.folder import home; print(home() / 'logins')"],
        check=True,
        env=environ,
        cwd=home,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.strip()
    settings = resolve({"endpoint": ENDPOINT}, environ=None, search=False)
    now = time.time()
    token = Token("a" * 900, now, now + 7 * 86400.0, "r" * 64, None, ("all", "offline"))
    record = Record(token, "https://auth.example.com/token", "flytectl", login="0" * 16)
    FileStore(Path(logins)).save_sync(identity(settings), record)


def _ratios(
    home: Path, environ: Mapping[str, str], words: Sequence[str], pairs: int
) -> list[float]:
    command = (COMMAND, *words)
    for each in (BARE, command):  # byte code is written, files are in memory
        _seconds(each, home, environ)
    ratios = []
    for index in range(pairs):
        if index % 2:
            ours = _seconds(command, home, environ)
            ratios.append(ours / _seconds(BARE, home, environ))
        else:
            bare = _seconds(BARE, home, environ)
            ratios.append(_seconds(command, home, environ) / bare)
    return ratios


def _bare(home: Path, environ: Mapping[str, str], count: int) -> list[float]:
    return [_seconds(BARE, home, environ) * 1000 for _ in range(count)]


def _seconds(command: Sequence[str], home: Path, environ: Mapping[str, str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, env=environ, cwd=home, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun
