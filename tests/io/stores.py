"""
Every store there is, for the tests that all of them must pass (``test_store.py``).

To let another store in, add an entry to ``STORES``: a function of a temporary directory that
opens an empty store for one test, as an asynchronous context manager, and closes it again.
``SHARED`` names those that several store objects, made one after another for the same directory,
must see the same records in. A function may call ``pytest.skip`` where its store cannot be.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from flyteauth._io.lock import Locks
from flyteauth._io.store import Store
from flyteauth._io.store.fallback import Fallback
from flyteauth._io.store.file import FileStore
from flyteauth._io.store.keyring import KeyringStore
from flyteauth._io.store.memory import MemoryStore
from flyteauth._io.store.redis import RedisStore

from . import rings
from .valkey import shared_for


@asynccontextmanager
async def memory(directory: Path) -> AsyncIterator[Store]:
    store = MemoryStore()
    yield store
    await store.aclose()


@asynccontextmanager
async def file(directory: Path) -> AsyncIterator[Store]:
    store = FileStore(directory / "logins")
    yield store
    await store.aclose()


@asynccontextmanager
async def redis(directory: Path) -> AsyncIterator[Store]:
    store = RedisStore(shared_for(directory).url, deadline=10.0)
    yield store
    await store.aclose()


def in_keyring(directory: Path, make: Callable[[Path], Any]) -> KeyringStore:
    logins = directory / "logins"
    ring = rings.shared_for(directory, make)
    return KeyringStore(files=FileStore(logins), locks=Locks(logins), backend=ring)


def keyring(
    make: Callable[[Path], Any],
) -> Callable[[Path], AbstractAsyncContextManager[KeyringStore]]:
    @asynccontextmanager
    async def opened(directory: Path) -> AsyncIterator[KeyringStore]:
        store = in_keyring(directory, make)
        yield store
        await store.aclose()

    return opened


def automatic(
    make: Callable[[Path], Any],
) -> Callable[[Path], AbstractAsyncContextManager[Fallback]]:
    async def warn(text: str) -> None:
        pass

    @asynccontextmanager
    async def opened(directory: Path) -> AsyncIterator[Fallback]:
        store = Fallback(in_keyring(directory, make), FileStore(directory / "logins"), warn)
        yield store
        await store.aclose()

    return opened


STORES: dict[str, Callable[[Path], AbstractAsyncContextManager[Store]]] = {
    "memory": memory,
    "file": file,
    "redis": redis,
    "keyring": keyring(rings.memory),
    "keyring of short items": keyring(rings.short),
    "keyring of plain text": keyring(rings.plain_text),
    "auto": automatic(rings.memory),
    "auto without a keyring": automatic(rings.locked),
}

SHARED = set(STORES) - {"memory"}
