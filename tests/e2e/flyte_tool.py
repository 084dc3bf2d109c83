"""The real ``flyte`` in a home of its own, and a control plane with TLS for it."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from attrs import frozen

from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings

from ..services import require
from .conftest import BROWSER, Ended, Home

PROJECTS = "/flyteidl2.project.ProjectService/ListProjects"
DEADLINE = 90.0  # seconds for one command: importing flyte alone may take some, under load


@contextmanager
def plane(*faults: str, **settings: Any) -> Iterator[Running]:
    """A control plane that serves calls over TLS, and tells clients of a redirect port that is
    free.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"approve": "auto", "faults": frozenset(faults), **settings}
    redirect_uri = f"http://localhost:{port}/callback"
    with serving(Settings(redirect_uri=redirect_uri, **settings), tls=True) as running:
        yield running


def grants(running: Running) -> Counter[str]:
    """The token requests, by the last part of their grant."""
    found = (entry.grant_type for entry in running.plane.journal)
    return Counter(grant.rpartition(":")[2] for grant in found if grant is not None)


def calls(running: Running, path: str = PROJECTS) -> Counter[tuple[int, str | None]]:
    """How the calls of *path* ended, and which header brought a token."""
    entries = [entry for entry in running.plane.journal if entry.path == path]
    return Counter((entry.status, entry.credential) for entry in entries)


@frozen
class Tool:
    """``flyte`` and ``flyteauth`` of one environment, in the working directory of one home."""

    home: Home
    running: Running

    def configure(self, *, name: str = ".flyte/config.yaml", **admin: object) -> Path:
        """Write what ``flyteauth devserver`` would, with *admin* on top."""
        document = {
            "admin": {
                "endpoint": self.running.endpoint,
                "caCertFilePath": str(self.running.ca_file),
                **admin,
            },
            "image": {"builder": "local"},
            "task": {"project": "flytesnacks", "domain": "development"},
        }
        return self.home.write(name, yaml.safe_dump(document))

    def __call__(self, *words: str, program: str = "flyte", **environ: str) -> Ended:
        """Run a program of the environment that the real flyte is in."""
        argv = [str(self.bin / program), *words]
        return self.home.program(argv, self.environ(**environ), DEADLINE)

    def flyteauth(self, *words: str, **environ: str) -> Ended:
        return self(*words, program="flyteauth", **environ)

    def good(self, *words: str, program: str = "flyte", **environ: str) -> str:
        """The same, and what it prints; it must have ended well."""
        ended = self(*words, program=program, **environ)
        assert ended.status == 0, (words, ended)
        return ended.out + ended.err

    @property
    def bin(self) -> Path:
        return require("flyte").parent

    def environ(self, **more: str) -> dict[str, str]:
        return {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "DO_NOT_TRACK": "1",
            "NO_COLOR": "1",
            "COLUMNS": "200",
            "BROWSER": f"{BROWSER} &",  # flyte waits on its event loop for one in the foreground
            "PYTHONWARNINGS": "default",  # flyte is not free of them
            **more,
        }

    # What the control plane has seen.

    def grants(self) -> Counter[str]:
        return grants(self.running)

    def calls(self, path: str = PROJECTS) -> Counter[tuple[int, str | None]]:
        return calls(self.running, path)

    def pages(self) -> int:
        """How often a browser was at the login page."""
        return self.running.plane.count(path="/oauth2/authorize")
