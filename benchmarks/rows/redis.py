"""A fleet that shares a token in Redis: who asks for it, and what if Redis is gone?"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.io.valkey import Valkey, valkey

from ..logins import temporary_home
from ..server import Server, serving
from ..table import BACKENDS, Row, at_most, exactly, known
from ..worker import Worker, outcomes, workers

HOSTS: Final = 4
WORKERS: Final = 16  # on each host
TOKEN_LATENCY: Final = 0.1


def rows(*, quick: bool) -> Iterator[Row]:
    """Hosts are homes: nothing but Redis and the server is common to them."""
    each = 4 if quick else WORKERS
    with (
        serving() as server,
        tempfile.TemporaryDirectory(prefix="flyteauth-bench-") as directory,
        valkey(Path(directory)) as store,
        temporary_home() as home,
    ):
        server.set(token_latency=TOKEN_LATENCY)
        yield _fleet(server, store, home, each, down=False)
        store.kill()
        yield _fleet(server, store, home, each, down=True)


def _fleet(server: Server, store: Valkey, home: Path, each: int, *, down: bool) -> Row:
    arguments = {"api_key": server.api_key, "token_store": store.url}
    resource = f"{server.base_url}/resource"
    backends = itertools.cycle(BACKENDS)
    made = []
    for host in range(HOSTS):
        own = home / f"{'down' if down else 'up'}-{host}"
        own.mkdir()
        made += [Worker(own, arguments, resource, backend=next(backends)) for _ in range(each)]
    server.reset()
    with workers(made):
        for worker in made:
            worker.go_on()
        heard, statuses = outcomes(made)
    requests, count = server.counts()["token"], len(made)
    waits = [outcome["seconds"] for outcome in heard]
    authorised = exactly("authorised", statuses.count(200), count)
    if not down:
        return Row(
            f"{HOSTS} hosts with {each} workers each and one API key, sharing Redis",
            "both",
            [
                exactly("token requests", requests, 1),
                authorised,
                known("a worker waits for its headers", waits, "s"),
            ],
            _said(heard),
        )
    said = sum(any("goes on alone" in text for text in h["warnings"]) for h in heard)
    return Row(
        "the same with Redis stopped",
        "both",
        [
            authorised,
            exactly("workers that say that they go on alone", said, count),
            at_most("token requests", requests, count),
            known("a worker waits for its headers", waits, "s"),
        ],
        _said(heard),
    )


def _said(heard: list[dict[str, Any]]) -> list[str]:
    failures = sorted({f"failed: {h['failure']}" for h in heard if h["failure"]})
    return failures + sorted({f"said: {text}" for h in heard for text in h["warnings"]})
