"""Many processes with one expired login: who refreshes, and who is still logged in afterwards?"""

from __future__ import annotations

import itertools
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import anyio

from ..logins import expired_login, temporary_home
from ..server import Server, serving
from ..table import BACKENDS, Measure, Row, exactly, known
from ..worker import Worker, outcomes, workers

TOKEN_LATENCY: Final = 0.1
HELD: Final = 1.0  # seconds that the others have been waiting when the holder is killed


def rows(*, quick: bool) -> Iterator[Row]:
    """A server that rotates refresh tokens, and ends a login when one is used twice."""
    for count, cold in ((8, False), (8, True), *([] if quick else [(64, False)])):
        yield _together(count, cold=cold)
    for count in (8, *([] if quick else [64])):
        yield _holder_killed(count)


def _together(count: int, *, cold: bool) -> Row:
    with serving(reuse_detection=True, grace=0.0) as server, temporary_home() as home:
        anyio.run(expired_login, server)
        server.set(token_latency=TOKEN_LATENCY)
        server.reset()
        made = _workers(count, server, home, cold=cold)
        with workers(made):
            begun = time.perf_counter()
            for worker in made:
                worker.go_on()
            heard, statuses = outcomes(made)
            wall = time.perf_counter() - begun
        start = "from the start of Python" if cold else "all ready before"
        return Row(
            f"{count} processes with one expired rotating token, {start}",
            "both",
            [
                *_verdict(server, heard, statuses, home),
                known("until the last is authorised", wall, "s"),
                known("a process waits for its headers", [h["seconds"] for h in heard], "s"),
            ],
            _failures(heard),
        )


def _holder_killed(count: int) -> Row:
    """The first process has taken the lock and sent its request, but to a gate that passes nothing
    on: the server has not seen a byte. The others wait for the lock; then it is killed.
    """
    with (
        serving(reuse_detection=True, grace=0.0) as server,
        temporary_home() as home,
        _Gate(server.port).open() as gate,
    ):

        async def prepare() -> None:
            where = f"http://localhost:{gate.port}/oauth2/token"
            await expired_login(server, token_endpoint=where)

        anyio.run(prepare)
        server.reset()
        holder, *others = made = _workers(count, server, home, cold=False)
        with workers(made):
            holder.go_on()
            if not gate.caught.wait(30):
                raise RuntimeError("the first process sent no request")
            for worker in others:
                worker.go_on()
            time.sleep(HELD)
            before = server.counts()["token"]
            killed = time.perf_counter()
            holder.kill()
            gate.passing = True
            heard, statuses = outcomes(others)
            wall = time.perf_counter() - killed
        return Row(
            f"{count} processes, and the one that refreshes is killed (-9) before its request "
            "reaches the server",
            "both",
            [
                exactly("token requests before the kill", before, 0),
                *_verdict(server, heard, statuses, home),
                known("from the kill until the last is authorised", wall, "s"),
            ],
            _failures(heard),
        )


def _workers(count: int, server: Server, home: Path, *, cold: bool) -> list[Worker]:
    arguments = {"endpoint": server.base_url, "auth_type": "Pkce", "token_store": "file"}
    backends = itertools.cycle(BACKENDS)
    return [
        Worker(home, arguments, f"{server.base_url}/resource", backend=next(backends), cold=cold)
        for _ in range(count)
    ]


def _verdict(
    server: Server, heard: list[dict[str, Any]], statuses: list[int], home: Path
) -> list[Measure]:
    prompts = sum(outcome["prompts"] for outcome in heard) + (home / "browser").exists()
    return [
        exactly("token requests", server.counts()["token"], 1),
        exactly("logins begun", server.logins() + prompts, 0),
        exactly("authorised", statuses.count(200), len(statuses)),
    ]


def _failures(heard: list[dict[str, Any]]) -> list[str]:
    said = sorted({outcome["failure"] for outcome in heard} - {""})
    return [f"failed: {failure}" for failure in said]


class _Gate:
    """Stands in front of a port. What the first connection sends is kept from it for ever; later
    ones pass once ``passing`` is set.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.caught = threading.Event()
        self.passing = False
        self._over = False

    @contextmanager
    def open(self) -> Iterator[_Gate]:
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over = True
            thread.join()
            self._listener.close()

    def _run(self) -> None:
        first: socket.socket | None = None
        while not self._over:
            if not select.select([self._listener], [], [], 0.05)[0]:
                continue
            connection, _ = self._listener.accept()
            if first is None:
                first = connection
                first.recv(65536)  # all of the request, or its beginning
                self.caught.set()
            elif self.passing:
                threading.Thread(target=self._pass, args=[connection], daemon=True).start()
            else:
                connection.close()
        if first is not None:
            first.close()

    def _pass(self, client: socket.socket) -> None:
        with (
            suppress(OSError),
            client,
            socket.create_connection(("127.0.0.1", self._target)) as server,
        ):
            while ready := select.select([client, server], [], [], 30)[0]:
                for source in ready:
                    data = source.recv(65536)
                    if not data:
                        return
                    (server if source is client else client).sendall(data)
