"""What is stored, found without an event loop: the same as a session finds."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from flyteauth import _stored
from flyteauth._identity import Key, identity, key_of, parse_key
from flyteauth._io.folder import home
from flyteauth._io.store import Store, keyring as keyring_module
from flyteauth._io.store.fallback import NOWHERE, Elsewhere
from flyteauth._io.store.file import FileStore
from flyteauth._io.store.keyring import KeyringStore
from flyteauth._io.store.memory import MemoryStore
from flyteauth._io.store.ring import Ring
from flyteauth._sansio.record import Record
from flyteauth._sansio.token import Token
from flyteauth._stored import Known, configured, known, look
from flyteauth._vault import Vault
from flyteauth.config import Settings, resolve
from flyteauth.errors import ConfigError, StoreError
from flyteauth.events import AuthEvent

from .io.rings import CANARY, HangingRing, LockedRing, MemoryRing

R = TypeVar("R", bound=MemoryRing)

ENDPOINT = "flyte.example.com"
STORES = ("auto", "file", "keyring")


def settings(store: str = "auto", **more: Any) -> Settings:
    named = {} if store == "auto" else {"token_store": store}
    return resolve({"endpoint": ENDPOINT, **named, **more}, environ=None, search=False)


KEY = identity(settings())


def record(access_token: str = CANARY) -> Record:
    return Record(Token(access_token, 1.0, 2.0, CANARY), "https://as.example/token", "flytectl")


@pytest.fixture(autouse=True)
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LockedRing:
    """The keyring of this test; unlocked, for now."""
    for name in list(os.environ):
        if name.startswith(("FLYTE", "UNION", "UCTL")):
            monkeypatch.delenv(name)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("FLYTEAUTH_HOME", str(tmp_path / "flyteauth"))
    monkeypatch.chdir(tmp_path)
    return use(LockedRing(), monkeypatch, locked=False)


def use(ring: R, monkeypatch: pytest.MonkeyPatch, *, locked: bool = True) -> R:
    ring.locked = locked  # type: ignore[attr-defined]
    found: dict[bool, Ring | StoreError] = {named: Ring(ring) for named in (False, True)}
    monkeypatch.setattr(keyring_module, "_process", keyring_module._Process(found=found))
    return ring


def path() -> Path:
    return FileStore()._path(KEY)


def in_keyring(which: Record) -> None:
    anyio.run(KeyringStore().save, KEY, which)


def write(text: str, mode: int = 0o600) -> None:
    FileStore().save_sync(KEY, record())
    path().write_text(text, encoding="utf-8")
    path().chmod(mode)


def nothing(ring: MemoryRing) -> None:
    del ring


def in_file(ring: MemoryRing) -> None:
    FileStore().save_sync(KEY, record())


def in_the_keyring_alone(ring: MemoryRing) -> None:
    in_keyring(record())


def marked(ring: MemoryRing) -> None:
    in_keyring(record())
    FileStore().mark_sync(KEY, "keyring")


def in_both(ring: MemoryRing) -> None:
    in_keyring(record("old"))
    FileStore().save_sync(KEY, record())


def marked_and_locked(ring: Any) -> None:
    marked(ring)
    ring.locked = True


def locked(ring: Any) -> None:
    ring.locked = True


def in_file_and_locked(ring: Any) -> None:
    in_file(ring)
    ring.locked = True


def nowhere(ring: MemoryRing) -> None:
    in_keyring(record("old"))
    FileStore().mark_sync(KEY, NOWHERE)


def of_another_version(ring: MemoryRing) -> None:
    FileStore().mark_sync(KEY, "cloud")


def corrupt(ring: MemoryRing) -> None:
    in_keyring(record("old"))
    write("{")


def of_another_key(ring: MemoryRing) -> None:
    write(json.dumps({"key": "x", "record": json.loads(record().dump())}))


def damaged_in_the_keyring(ring: MemoryRing) -> None:
    marked(ring)
    for name in ring.items:
        ring.items[name] = "{"


def unreadable(ring: MemoryRing) -> None:
    FileStore().save_sync(KEY, record())
    path().unlink()
    path().mkdir()


def unreadable_but_in_the_keyring(ring: MemoryRing) -> None:
    in_keyring(record())
    unreadable(ring)


SITUATIONS: list[Callable[[Any], None]] = [
    nothing,
    in_file,
    in_the_keyring_alone,
    marked,
    in_both,
    marked_and_locked,
    locked,
    in_file_and_locked,
    nowhere,
    of_another_version,
    corrupt,
    of_another_key,
    damaged_in_the_keyring,
    unreadable,
    unreadable_but_in_the_keyring,
]


async def ignore(event: AuthEvent) -> None:
    del event


def by_session(which: Settings) -> tuple[Record | None, str, str, str]:
    """What the store says that a session would have."""
    store: Store = Vault(which, ignore)._store
    try:
        found, error = anyio.run(store.load, KEY), None
    except StoreError as raised:
        found, error = None, raised
    return found, store.place, str(error or ""), type(error).__name__


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("store", STORES)
def test_what_is_found_is_what_a_session_finds(
    store: str, situation: Callable[[Any], None], ring: LockedRing
) -> None:
    situation(ring)
    expected = by_session(settings(store))
    kept = look(settings(store))
    assert (kept.record, kept.place, str(kept.error or ""), type(kept.error).__name__) == expected
    assert CANARY not in repr(kept)
    assert CANARY not in str(kept.error)


def test_a_login_out_of_reach_is_no_missing_login(ring: LockedRing) -> None:
    marked_and_locked(ring)
    kept = look(settings())
    assert kept.record is None
    assert isinstance(kept.error, Elsewhere)
    assert kept.error.reason == "locked"


def test_a_record_in_a_file_needs_no_keyring(ring: LockedRing) -> None:
    in_file(ring)
    assert look(settings()).record == record()
    assert ring.calls == []


def test_a_keyring_that_was_asked_for_by_name_is_the_one_that_is_read(
    ring: LockedRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_keyring(record())
    missing = StoreError("there is no keyring", reason="missing")
    found: dict[bool, Ring | StoreError] = {True: Ring(ring), False: missing}
    monkeypatch.setattr(keyring_module, "_process", keyring_module._Process(found=found))
    assert look(settings("keyring")).record == record()
    assert look(settings()).record is None


def test_a_keyring_that_hangs_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring_module, "DEADLINE", 0.05)
    FileStore().mark_sync(KEY, "keyring")
    hanging = use(HangingRing(), monkeypatch)
    try:
        kept = look(settings())
        assert kept.error is not None
        assert kept.error.reason == "timeout"
        assert "does not answer" in str(look(settings("keyring")).error)
    finally:
        hanging.go.set()


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({"token_store": "memory"}, MemoryStore.place),
        ({"command": "x", "auth_type": "ExternalCommand"}, MemoryStore.place),
        ({"token_store": "redis://u:canary@127.0.0.1:1/0"}, "127.0.0.1"),
        ({"auth_type": "NoAuth"}, "nowhere"),
        ({"auth_type": "Passthrough"}, "nowhere"),
    ],
)
def test_only_this_machine_is_asked(more: dict[str, Any], place: str, ring: LockedRing) -> None:
    in_both(ring)
    kept = look(settings(**more))
    assert (kept.record, kept.error) == (None, None)
    assert place in kept.place
    assert "canary" not in kept.place


def test_an_account_has_a_login_of_its_own(ring: LockedRing) -> None:
    in_both(ring)
    assert look(settings(account="work")).record is None


# All that there is.


def test_without_any_file_nothing_is_known_and_nothing_is_made() -> None:
    assert known() == []
    assert not home().exists()


def test_all_logins_are_known(ring: LockedRing) -> None:
    files = FileStore()
    in_both(ring)
    work = identity(settings(account="work"))
    anyio.run(KeyringStore().save, work, record("work"))
    files.mark_sync(work, "keyring")
    files.mark_sync(f"left behind by {work}", "keyring")
    files.mark_sync(identity(settings(account="gone")), NOWHERE)
    (home() / "logins" / ".0123-abc.tmp").write_text("x")
    logins = {each.key.account: each for each in known()}
    assert logins.keys() == {None, "work"}
    assert logins[None].kept == look(settings())
    assert logins["work"].kept == look(settings(account="work"))
    assert logins["work"].key.text == work
    assert logins["work"].kept.place.startswith("the keyring (")


def test_what_cannot_be_read_does_not_hide_the_rest(ring: LockedRing) -> None:
    in_file(ring)
    files = FileStore()
    damaged = files._path(identity(settings(account="damaged")))
    damaged.write_text("{")
    damaged.chmod(0o600)
    swapped = files._path(identity(settings(account="swapped")))
    swapped.write_bytes(path().read_bytes())
    swapped.chmod(0o600)
    old = identity(settings(account="old"))
    files.save_sync(old, record())
    text = files._path(old).read_text().replace('"version":1', '"version":9')
    files._path(old).write_text(text)
    marked_away = identity(settings(account="locked"))
    files.mark_sync(marked_away, "keyring")
    ring.locked = True
    logins = known()
    assert [each.key.kind for each in logins].count("unknown") == 2
    assert all(each.kept.error for each in logins if each.key.kind == "unknown")
    rest = {each.key.account: each.kept for each in logins if each.key.kind != "unknown"}
    assert rest.keys() == {None, "old", "locked"}
    assert rest[None].record == record()
    assert rest["old"].error is not None
    assert rest["old"].error.reason == "corrupt"
    assert isinstance(rest["locked"].error, Elsewhere)
    assert CANARY not in repr(logins)


def test_a_directory_that_cannot_be_listed_is_an_error() -> None:
    home().mkdir(mode=0o700)
    (home() / "logins").write_text("")
    with pytest.raises(StoreError) as caught:
        known()
    assert caught.value.reason == "denied"


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs SIGALRM")
def test_files_that_do_not_answer_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stored, "DEADLINE", 0.05)
    monkeypatch.setattr(FileStore, "look_sync", lambda *_: signal.pause())
    monkeypatch.setattr(FileStore, "keys_sync", lambda *_: signal.pause())
    kept = look(settings("file"))
    assert kept.error is not None
    assert kept.error.reason == "timeout"
    with pytest.raises(StoreError, match="does not answer"):
        known()


# Keys.


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"account": "work", "scopes": ["b", "a"], "audience": "x", "client_id": "me"},
        {"issuer": "https://as.example"},
        {"endpoint": "http://localhost:8080"},
        {"auth_type": "ExternalCommand", "command": ["x", CANARY]},
        {"client_id": "me", "client_secret": CANARY},
    ],
)
def test_a_key_can_be_read_back(more: dict[str, Any]) -> None:
    which = settings(**more)
    key = parse_key(identity(which))
    assert key == key_of(which)
    assert key is not None
    assert key.text == identity(which)
    assert CANARY not in key.text


def test_the_order_of_scopes_makes_no_other_login() -> None:
    assert identity(settings(scopes=["b", "a"])) == identity(settings(scopes=["a", "b"]))
    assert identity(settings(scopes=[])) != identity(settings())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "left behind by []",
        "{}",
        "[]",
        "[" * 100_000,
        json.dumps([None] * 7),
        json.dumps([None, None, "person", None, "all", None, None]),
        json.dumps([None, None, "person", None, [1], None, None]),
        json.dumps([1, None, "person", None, None, None, None]),
        json.dumps([None, None, "person", None, None, None, None, None]),
    ],
)
def test_what_is_no_key_is_none(text: str) -> None:
    assert parse_key(text) is None


def test_a_login_names_its_key() -> None:
    key = Key("h", None, "person", None, ("a",), None, None)
    assert parse_key(key.text) == key
    assert Known(key, look(settings())).key is key


# Settings.


def test_settings_are_those_of_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYTE_ADMIN_ENDPOINT", "env.example")
    assert configured({"account": "a"}).endpoint == settings(endpoint="env.example").endpoint
    file = tmp_path / "c.yaml"
    file.write_text("admin:\n  account: file\n")
    assert configured({"account": None}, file).account == "file"
    monkeypatch.delenv("FLYTE_ADMIN_ENDPOINT")
    with pytest.raises(ConfigError, match="no endpoint"):
        configured({}, file)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_file_that_never_answers_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_stored, "READ_DEADLINE", 0.05)
    os.mkfifo(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="ordinary files"):
        configured({"endpoint": ENDPOINT}, tmp_path / "c.yaml")
