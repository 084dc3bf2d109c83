"""
One process among many that have the same login: ``python -m benchmarks.worker``.

It is told what to do in a line of JSON, says that it is ready, and goes on with each line that it
is given: it gets headers, and says how that went; then it uses them, and says how that went.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from .server import ROOT

DEADLINE: Final = 120.0


def _say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def status(url: str, headers: Mapping[str, str]) -> int:
    """What *url* says to *headers* (blocking)."""
    request = urllib.request.Request(url, headers=dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as response:
            answered: int = response.status
    except urllib.error.HTTPError as error:
        return error.code
    return answered


def main() -> None:
    order = json.loads(sys.stdin.readline())
    if order["cold"]:
        _say(ready=True)
        sys.stdin.readline()
    import anyio

    from flyteauth.errors import Error
    from flyteauth.events import BrowserNeeded, CodeNeeded, Warned
    from flyteauth.session import Session

    seen: list[Any] = []

    async def work() -> None:
        async with Session(on_event=seen.append, **order["arguments"]) as session:
            await session.settings()
            if not order["cold"]:
                # A host has a processor for this; here all wait for the same two.
                for library in ("coredis", "httpx", "keyring", "truststore"):
                    import_module(library)
                _say(ready=True)
                # Nothing else has to go on here meanwhile.
                sys.stdin.readline()
            headers: Mapping[str, str] = {}
            failure = ""
            begun = time.perf_counter()
            try:
                headers = await session.headers()
            except Error as error:
                failure = f"{type(error).__name__}: {error}"
            _say(
                seconds=time.perf_counter() - begun,
                failure=failure,
                prompts=sum(isinstance(event, BrowserNeeded | CodeNeeded) for event in seen),
                warnings=[event.message for event in seen if isinstance(event, Warned)],
            )
            sys.stdin.readline()
            _say(status=status(order["resource"], headers) if headers else 0)

    anyio.run(work, backend=order["backend"])


class Worker:
    """Such a process, from outside."""

    def __init__(
        self,
        home: Path,
        arguments: Mapping[str, Any],
        resource: str,
        *,
        backend: str,
        cold: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "FLYTEAUTH_HOME": str(home / "flyteauth"),
                "BROWSER": f"touch {home}/browser",
                **(environ or {}),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._tell(
            json.dumps(
                {
                    "arguments": dict(arguments),
                    "resource": resource,
                    "backend": backend,
                    "cold": cold,
                }
            )
        )

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def go_on(self) -> None:
        self._tell("go")

    def hear(self) -> dict[str, Any]:
        """The next thing that it says."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.process.stderr.read())
        heard: dict[str, Any] = json.loads(line)
        return heard

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@contextmanager
def workers(made: Sequence[Worker]) -> Iterator[Sequence[Worker]]:
    """*made*, once they are ready; ended at the end of the block."""
    try:
        for worker in made:
            worker.hear()
        yield made
    finally:
        for worker in made:
            if worker.process.returncode is None:
                worker.end()


def outcomes(made: Sequence[Worker]) -> tuple[list[dict[str, Any]], list[int]]:
    """How it went for each that was told to go on, and then, when all have headers, whether those
    are taken.
    """
    heard = [worker.hear() for worker in made]
    for worker in made:
        worker.go_on()
    return heard, [worker.hear()["status"] for worker in made]


if __name__ == "__main__":
    main()
