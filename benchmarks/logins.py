"""Sessions and logins to measure with: temporary homes, and clocks that can be put forward."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import anyio

from flyteauth._identity import identity
from flyteauth._io.clock import SystemClock
from flyteauth._io.store.file import FileStore
from flyteauth._sansio.record import Record
from flyteauth.events import AuthEvent, BrowserNeeded, CodeNeeded
from flyteauth.session import Session

from .server import Server

TTL: Final = 1800.0  # of an access token, where a benchmark does not say otherwise


class Watcher:
    """A presenter that shows nothing and remembers everything."""

    def __init__(self) -> None:
        self.seen: list[AuthEvent] = []

    async def show(self, event: AuthEvent) -> None:
        self.seen.append(event)

    @property
    def prompts(self) -> int:
        return sum(isinstance(event, BrowserNeeded | CodeNeeded) for event in self.seen)


class LaterClock(SystemClock):
    """The system's clock, and as much later as it is told."""

    def __init__(self) -> None:
        self.later = 0.0
        super().__init__(
            wall=lambda: time.time() + self.later,
            monotonic=lambda: time.monotonic() + self.later,
        )


@contextmanager
def temporary_home(**environ: str) -> Iterator[Path]:
    """An empty home, also for what this process starts; nothing of Flyte's in the environment."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="flyteauth-bench-", ignore_cleanup_errors=True) as name:
        for variable in list(os.environ):
            if variable.startswith(("FLYTE", "UNION", "UCTL")) or "proxy" in variable.lower():
                del os.environ[variable]
        os.environ |= {"HOME": name, "FLYTEAUTH_HOME": f"{name}/flyteauth", **environ}
        try:
            yield Path(name)
        finally:
            os.environ.clear()
            os.environ |= before


def person(server: Server, **arguments: Any) -> Session:
    """A session of somebody who logs in, and keeps that in a file."""
    arguments = {
        "endpoint": server.base_url,
        "auth_type": "DeviceFlow",
        "token_store": "file",
        "presenter": Watcher(),
        **arguments,
    }
    return Session(**arguments)


async def log_in(server: Server, **arguments: Any) -> None:
    """A login, kept in the file store of this home."""
    async with person(server, **arguments) as session:
        await session.login()


class Kept:
    """The login that is kept for *session*."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._store = FileStore()
        self.path = Path(self._store.place) / hashlib.sha256(key.encode()).hexdigest()

    @classmethod
    async def of(cls, session: Session) -> Kept:
        return cls(identity(await session.settings()))

    def read(self) -> Record:
        record = self._store.load_sync(self._key)
        assert record is not None
        return record

    def write(self, record: Record) -> None:
        self._store.save_sync(self._key, record)

    def expire(self, **changes: Any) -> None:
        """Let the token have expired a moment ago; *changes* are made to the record, too."""
        record = self.read()
        age = time.time() - 1.0
        assert record.token.expires_at is not None
        lifetime = record.token.expires_at - record.token.obtained_at
        token = record.token.replace(expires_at=age, obtained_at=age - lifetime)
        self.write(record.replace(token=token, **changes))


async def expired_login(server: Server, **changes: Any) -> Kept:
    """A login whose token has expired, here and at the server."""
    async with person(server) as session:
        await session.login()
        kept = await Kept.of(session)
    server.advance(TTL + 1)
    kept.expire(**changes)
    return kept


async def settled(seconds: float = 1.6) -> None:
    """Idle connections are closed after that."""
    await anyio.sleep(seconds)
