"""Authorization servers of other makes, each as a process of its own on a free port of loopback."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from attrs import field, frozen

from tests.services import require

DEADLINE: Final = 60.0  # a cold start on a busy machine
STOP_GRACE: Final = 5.0
NODE: Final = Path(__file__).with_name("node")
CLIENT_SECRET: Final = "a:b/c+d%e&f=g h"


@frozen
class Server:
    """A server that answers. What is asked of it here goes beside the session, without cookies."""

    issuer: str
    process: subprocess.Popen[bytes] = field(repr=False)
    log: Path = field(repr=False)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return httpx.get(f"{self.issuer}{path}", trust_env=False, timeout=DEADLINE, **more)

    def post(self, path: str, form: Mapping[str, str]) -> httpx.Response:
        url = f"{self.issuer}{path}"
        return httpx.post(url, data=dict(form), trust_env=False, timeout=DEADLINE)


class Node(Server):
    """One of those in ``node``, which keep a journal, and whose time can pass at once."""

    def passes(self, seconds: float) -> float:
        """So many seconds pass, at once; how many have, since it was started."""
        passed = self.get("/-/pass", params={"seconds": seconds}).raise_for_status().json()
        return float(passed)

    def journal(self) -> list[Any]:
        entries: list[Any] = self.get("/-/journal").raise_for_status().json()
        return entries

    def then(self, *answers: Mapping[str, object]) -> None:
        """What the next token requests are answered by: ``status``, ``headers`` and ``body``."""
        url = f"{self.issuer}/-/then"
        httpx.post(url, json=answers, trust_env=False, timeout=DEADLINE).raise_for_status()


@contextmanager
def node(script: str, folder: Path) -> Iterator[Node]:
    """The server of a script in ``node``, which takes a port of its own and prints its issuer."""
    argv = [str(require("node")), str(NODE / script)]
    with speaking(argv, folder, CLIENT_SECRET=CLIENT_SECRET) as server:
        yield Node(server.issuer, server.process, server.log)


@contextmanager
def speaking(argv: Sequence[str], folder: Path, **environ: str) -> Iterator[Server]:
    """A server that takes a port of its own, and prints its issuer when it can be asked."""
    with started(argv, folder, environ, talks=True) as (process, log):
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], DEADLINE)
        line = process.stdout.readline() if ready else b""
        assert line, log.read_text("utf-8")
        yield Server(json.loads(line)["issuer"], process, log)


@contextmanager
def listening(argv: Sequence[str], port: int, folder: Path, **environ: str) -> Iterator[Server]:
    """A server that listens at *port* some time after it was started."""
    with started(argv, folder, environ) as (process, log):
        deadline = time.monotonic() + DEADLINE
        while not _answers(port):
            assert process.poll() is None, log.read_text("utf-8")
            assert time.monotonic() < deadline, log.read_text("utf-8")
            time.sleep(0.02)
        yield Server(f"http://127.0.0.1:{port}", process, log)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), DEADLINE).close()
    except ConnectionRefusedError:
        return False
    return True


@contextmanager
def started(
    argv: Sequence[str], folder: Path, environ: Mapping[str, str], *, talks: bool = False
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """*argv* in *folder*, which is all the home that it has, until the end of the block; and the
    file that it complains in. Whoever reads what it says on standard output says that it *talks*.
    """
    log = folder / "log"
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env={**kept, "HOME": str(folder), **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else stderr,
            stderr=stderr,
        )
    with process:
        try:
            yield process, log
        finally:
            process.terminate()
            try:
                process.wait(STOP_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
