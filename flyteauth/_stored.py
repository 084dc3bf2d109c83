"""
What is configured and stored, for commands that need neither an event loop nor a server.

The stores that a session uses are asked, and decide, as they do there. Only how they wait differs:
a call blocks, and has a deadline of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple, cast

from ._identity import Key as Key, identity, parse_key, store_kind  # noqa: PLC0414
from ._io import alarm
from ._io.folder import no_answer
from ._io.store.fallback import Fallback
from ._io.store.file import DEADLINE, FileStore
from ._sansio.errors import StoreError
from ._sansio.record import Record
from ._sansio.value import Value
from .config import READ_DEADLINE, Settings, resolve, unanswered

if TYPE_CHECKING:
    from ._io.store import Store
    from ._io.store.keyring import KeyringStore
    from ._sansio.token import Token

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

NOWHERE: Final = "nowhere"
_UNKNOWN: Final = Key(None, None, "unknown", None, None, None, None)


class Kept(Value):
    """The record, or None; where it is, or would be, in words; and why it cannot be read."""

    record: Record | None
    place: str
    error: StoreError | None = None


class Known(Value):
    """A login that this machine's files know of. Where not even a key can be read, the ``kind`` of
    the key is "unknown", and nothing else is in it.
    """

    key: Key
    kept: Kept


def configured(arguments: Mapping[str, Any], path: str | Path | None = None) -> Settings:
    """The settings that Session.from_config would have. Raises ConfigError."""
    settings = settings_of(arguments, os.environ, path)
    settings.require_server()
    return settings


def settings_of(
    arguments: Mapping[str, Any], environ: Mapping[str, str], path: str | Path | None
) -> Settings:
    """The same, with or without an endpoint."""

    def read() -> Settings:
        return resolve(arguments, environ=environ, path=path, search=True)

    try:
        return alarm.call(read, deadline=READ_DEADLINE)
    except TimeoutError:
        raise unanswered() from None


def look(settings: Settings) -> Kept:
    """What a session with *settings* would find stored, good or not. What only the process itself
    or a server could say is not asked: then there is no record.
    """
    if settings.auth_type in {"NoAuth", "Passthrough"}:  # what is stored is not for them
        return Kept(None, NOWHERE)
    match store_kind(settings):
        case "memory":
            from ._io.store.memory import MemoryStore

            return Kept(None, MemoryStore.place)
        case "shared":
            from ._io.store.redis import RedisStore

            assert settings.token_store is not None
            return Kept(None, RedisStore(settings.token_store, ca_file=settings.ca_file).place)
        case "file":
            return _load(_Files(), identity(settings))
        case "keyring":
            return _load(_Keyring(named=True), identity(settings))
        case "auto":
            return _load(_either(), identity(settings))


def verified(settings: Settings, token: Token, at: float) -> bool:
    """Whether a session has just verified that *token* of the login that *settings* ask for."""
    from . import _verified
    from ._io.folder import home
    from ._io.notes import Notes

    try:
        noted = alarm.call(
            Notes(home() / "notes").read_sync, _verified.name(identity(settings)), deadline=DEADLINE
        )
    except (TimeoutError, StoreError):
        return False
    return _verified.is_so(noted or {}, token.access_token, at)


def known() -> list[Known]:
    """All logins that the files of this machine know of: records, and marks that say where they
    are. Raises StoreError if there is no telling.
    """
    files = _Files()
    try:
        keys, failures = alarm.call(files.keys_sync, deadline=DEADLINE)
    except TimeoutError:
        raise no_answer(Path(files.place)) from None
    logins = [Known(_UNKNOWN, Kept(None, files.place, failure)) for failure in failures]
    for text in keys:
        if (key := parse_key(text)) is None:  # what reminds of something left in a keyring
            continue
        kept = _load(_either(), text)
        if kept.record is not None or kept.error is not None:
            logins.append(Known(key, kept))
    return logins


def _load(store: _Readable, key: str) -> Kept:
    try:
        record = _at_once(store.load(key))
    except StoreError as error:
        return Kept(None, store.place, error)
    return Kept(record, store.place)


def _at_once(loading: Coroutine[Any, Any, T]) -> T:
    """What *loading* returns, which never waits for an event loop, because the stores below do
    not.
    """
    try:
        loading.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise RuntimeError("a store has waited for an event loop")


class _Files(FileStore):
    async def _in_thread(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        try:
            return alarm.call(function, *args, deadline=DEADLINE)
        except TimeoutError:
            raise no_answer(self._directory) from None


class _Keyring:
    """As much of the keyring store as it takes to read, imported when it is asked."""

    name = "keyring"

    def __init__(self, *, named: bool = False) -> None:
        self._named = named
        self._found: KeyringStore | None = None

    @property
    def place(self) -> str:
        return self._store.place

    @property
    def _store(self) -> KeyringStore:
        if self._found is None:
            from ._io.store.keyring import KeyringStore

            self._found = KeyringStore(named=self._named)
        return self._found

    async def load(self, key: str) -> Record | None:
        return self._store.load_sync(key)


_Readable = _Files | _Keyring | Fallback


def _either() -> Fallback:
    return Fallback(cast("Store", _Keyring()), _Files(), _ignore)


async def _ignore(warning: str) -> None:
    """Nothing is said of a store that is only read."""
    del warning
