"""Commands that are watched: what they print and log, and what others see of them and of their
children.

Each is a process whose Python notes all logs, what it starts and with which environment, and its
own arguments as the system shows them to everybody. So do its children: the browser, the external
command, the tool. The secrets are whatever passes the control plane's door.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define, field

from flyteauth.devserver.serve import Running

from ..test_secrets import Witness
from .conftest import FLYTEAUTH, Ended, Home

SITE = """\
import json, logging, os, sys

notes = os.open(os.path.join(os.environ["CANARY_NOTES"], str(os.getpid())),
                os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

def note(where, text):
    os.write(notes, (json.dumps([where, text]) + "\\n").encode())

def arguments(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        note("arguments", file.read().replace(b"\\0", b" ").decode())

def hook(event, values):
    if event == "subprocess.Popen":
        _, argv, _, environ = values
    elif event in ("os.exec", "os.posix_spawn"):
        _, argv, environ = values
    elif event == "os.system":
        argv, environ = values[0], None
    else:
        return
    note("arguments of a child", repr(argv))
    note("environment of a child", f"{argv[0]} {dict(os.environ if environ is None else environ)}")
    arguments("self")

class Everything(logging.Handler):
    def emit(self, record):
        note("log", self.format(record) + repr(record.args))

sys.addaudithook(hook)
logging.basicConfig(level=1, handlers=[Everything()])
logging.captureWarnings(True)
arguments("self")
if os.getppid() != int(os.environ["CANARY_TESTER"]):
    arguments(os.getppid())
    note("environment", repr(dict(os.environ)))
"""
BROWSER = """\
import sys
from flyteauth.devserver.visitor import visit
visit(*sys.argv[1:])
"""
COMMAND = """\
import pathlib, sys
print(pathlib.Path(sys.argv[1]).read_text())
"""
# Any Flyte tool: it asks for a token, and shows none.
TOOL = """\
import json, os, subprocess
asked = subprocess.run(json.loads(os.environ["FLYTE_AUTH_COMMAND"]), capture_output=True, text=True)
assert asked.returncode == 0 and len(asked.stdout) > 20, asked.stderr
print("done")
"""
SEEN_BY_ALL = ("state", "nonce")  # the URL to open is made to be seen (RFC 6749 §4.1.1)
EVERYWHERE = {
    "standard output",
    "standard error",
    "log",
    "arguments",
    "arguments of a child",
    "environment of a child",
    "environment",
}


class Door(Witness):
    """A secret keeps its first name: an access token is no other thing when it is revoked."""

    def note(self, name: str, value: str) -> None:
        super().note(self.secrets.get(value, name), value)


@define
class Watched:
    """A home where every process is watched."""

    home: Home
    witness: Door
    endpoint: str
    ended: list[Ended] = field(factory=list)
    _seen: list[tuple[str, str, tuple[str, ...]]] = field(factory=list)

    @property
    def notes(self) -> Path:
        return self.home.path / "notes"

    def program(self, name: str, *words: str) -> list[str]:
        return [sys.executable, str(self.home.path / name), *words]

    def plant(self, code: str) -> None:
        """A bug, in every process."""
        with (self.home.path / "site/sitecustomize.py").open("a") as file:
            file.write(code)

    def run(
        self, *words: str, status: int = 0, shows: tuple[str, ...] = (), **environ: str
    ) -> Ended:
        """``flyteauth`` with *words*; *shows* is what its standard output is for."""
        own = {
            "BROWSER": f"{' '.join(self.program('browser.py'))} %s",
            "FLYTE_ADMIN_ENDPOINT": self.endpoint,
            "PYTHONDEVMODE": "1",
            "PYTHONPATH": str(self.home.path / "site"),
            "CANARY_NOTES": str(self.notes),
            "CANARY_TESTER": str(os.getpid()),
        }
        ended = self.home.program([FLYTEAUTH, *words], {**own, **environ})
        assert ended.status == status, ended
        assert "Traceback" not in ended.err, ended
        assert "Exception ignored" not in ended.err, ended
        may = SEEN_BY_ALL if "login" in words else ()
        self._seen.append(("standard output", ended.out, (*shows, *may)))
        self._seen.append(("standard error", ended.err, may))
        self.ended.append(ended)
        return ended

    def seen(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Where, what, and what may be in it."""
        yield from self._seen
        for path in self.notes.iterdir():
            for line in path.read_text("utf-8").splitlines():
                where, text = json.loads(line)
                yield where, text, SEEN_BY_ALL if where.startswith("arguments") else ()

    def leaks(self) -> set[tuple[str, str]]:
        """Each place where a secret is, with the secret's name."""
        found = ((where, self.witness.found_in(text, but)) for where, text, but in self.seen())
        return {(where, name) for where, names in found for name in names}

    def shown(self) -> list[str]:
        """The beginning of each text that a secret is in."""
        return [text[:200] for _, text, but in self.seen() if self.witness.found_in(text, but)]

    def assert_tight(self, *secrets: str) -> None:
        """No secret is anywhere; and there was all of it, *secrets* among them, to look for."""
        assert set(secrets) <= set(self.witness.secrets.values())
        assert {"standard error", "log", "arguments"} <= {where for where, _, _ in self.seen()}
        assert self.leaks() == set(), self.shown()


def watching(home: Home, running: Running, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """*home*, where every process is watched, and *running* with a witness at its door."""
    witness = Door(running.plane)
    monkeypatch.setattr(running.plane, "handle", witness.handle)
    home.write("site/sitecustomize.py", SITE)
    for name, code in (("browser.py", BROWSER), ("command.py", COMMAND), ("tool.py", TOOL)):
        home.write(name, code)
    (home.path / "notes").mkdir()
    return Watched(home, witness, running.base_url)


def canary(watched: Watched, name: str) -> str:
    value = f"CANARY-{secrets.token_hex(12)}"
    watched.witness.note(name, value)
    return value
