"""The program around a peer, from outside; and the logins that peers are given."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from ..server import ROOT, Server
from .environments import Environment

DEADLINE: Final = 180.0
CLIENT: Final = "flytectl"  # public, of the embedded control plane
# Over requests, which costs several times as much by itself.
BLOCKING: Final = frozenset({"flytekit", "requests-oauthlib", "google-auth", "msal"})
SCOPES: Final = "all offline"


class Failed(Exception):
    """The program did not do what it was told: the harness is wrong, or the library is."""


class NoAnswer(Failed):
    """It had all the time that there was."""


class Peer:
    """A running program of one library."""

    def __init__(self, environment: Environment, home: Path) -> None:
        self.name = environment.name
        self.home = home
        self._process = subprocess.Popen(
            [str(environment.python), "-m", environment.module],
            cwd=ROOT,
            env=environ(home),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.can: frozenset[str] = frozenset(self.tell("can")["can"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def tell(self, do: str, *, patience: float = DEADLINE, **order: Any) -> dict[str, Any]:
        """What comes of an order. Raises Failed, and NoAnswer, after which it has ended."""
        self.begin(do, **order)
        return self.hear(patience)

    def begin(self, do: str, **order: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **order}) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:  # ValueError: after ``end`` it is closed
            raise Failed(f"the program of {self.name} has ended") from error

    def hear(self, patience: float = DEADLINE) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], patience)[0]:
            self.end()  # what it says later is no answer to anything
            raise NoAnswer(f"{self.name} did not answer within {patience:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"the program of {self.name} has ended")
        said: dict[str, Any] = json.loads(line)
        if "crash" in said:
            raise Failed(f"{self.name}: {said['crash']}")
        return said

    def peak(self) -> int:
        """The most memory that it had so far, in KiB; 0 where the system does not tell."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        except OSError:
            return 0
        return next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)

    def end(self) -> None:
        """End the program, if that has not been done before."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def environ(home: Path) -> dict[str, str]:
    """What a peer is started with: a home of its own, and a keyring that is a file in it."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "FLYTEAUTH_HOME": str(home / "flyteauth"),
        "PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring",
        "OAUTHLIB_INSECURE_TRANSPORT": "1",
        "DO_NOT_TRACK": "1",
        "NO_PROXY": "*",
    }


@contextmanager
def started(
    found: Sequence[Environment], homes: Path, *, able: Callable[[Peer], bool] = lambda _: True
) -> Iterator[list[Peer]]:
    """A program for each that is *able*, each in a home of its own; ended at the end."""
    peers: list[Peer] = []
    try:
        for each in found:
            home = homes / f"{each.name}-{time.monotonic_ns()}"
            home.mkdir(parents=True)
            peer = Peer(each, home)
            if able(peer):
                peers.append(peer)
            else:
                peer.end()
        yield peers
    finally:
        for peer in peers:
            peer.end()


def login_at(server: Server, **changes: Any) -> dict[str, Any]:
    """What an order says of a new login at *server*."""
    device = _post(f"{server.base_url}/oauth2/device_authorization", client_id=CLIENT, scope=SCOPES)
    server.advance(1.5)  # it approves by itself after the interval of a second
    token = _post(
        f"{server.base_url}/oauth2/token",
        grant_type="urn:ietf:params:oauth:grant-type:device_code",
        client_id=CLIENT,
        device_code=device["device_code"],
    )
    now = time.time()
    return {
        **where(server),
        "access_token": token["access_token"],
        "refresh_token": token["refresh_token"],
        "obtained_at": now,
        "expires_at": now + token["expires_in"],
        **changes,
    }


def where(server: Server) -> dict[str, Any]:
    """What an order says of *server*."""
    client_id, client_secret = server.service
    return {
        "endpoint": server.base_url,
        "token_endpoint": f"{server.base_url}/oauth2/token",
        "device_endpoint": f"{server.base_url}/oauth2/device_authorization",
        "authorization_endpoint": f"{server.base_url}/oauth2/authorize",
        "resource": f"{server.base_url}/resource",
        "client_id": CLIENT,
        "scope": SCOPES,
        "service_id": client_id,
        "service_secret": client_secret,
    }


def _post(url: str, **form: str) -> dict[str, Any]:
    data = urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(url, data, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
    return answer
