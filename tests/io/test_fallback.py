from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from flyteauth._io.lock import Locks
from flyteauth._io.store import Store, fallback as fallback_module, keyring as keyring_module
from flyteauth._io.store.fallback import NOWHERE, Fallback
from flyteauth._io.store.file import FileStore
from flyteauth._io.store.keyring import KeyringStore
from flyteauth._sansio.errors import StoreError
from flyteauth._sansio.record import Record
from flyteauth._sansio.tokens import Token

from .rings import CANARY, HangingRing, LockedRing, MemoryRing, OddRing, ShortRing

pytestmark = pytest.mark.anyio

LIMIT = 20.0


def record(access_token: str = CANARY, **more: Any) -> Record:
    token = Token(access_token, obtained_at=1000.0, expires_at=2000.0, refresh_token=CANARY)
    return Record(token, "https://auth.example.org/token", "flytectl", **more)


class Setting:
    """A keyring and a directory, what is said to a person, and stores made for them."""

    def __init__(self, directory: Path, ring: MemoryRing | None = None) -> None:
        self.directory = directory
        self.ring = ring or LockedRing()
        self.said: list[str] = []
        self.unlock()

    def lock(self) -> None:
        self.ring.locked = True  # type: ignore[attr-defined]

    def unlock(self) -> None:
        self.ring.locked = False  # type: ignore[attr-defined]

    @property
    def files(self) -> FileStore:
        return FileStore(self.directory / "logins")

    @property
    def keyring(self) -> KeyringStore:
        locks = Locks(self.directory / "locks")
        return KeyringStore(files=self.files, locks=locks, backend=self.ring)

    async def warn(self, text: str) -> None:
        assert CANARY not in text
        self.said.append(text)

    def store(self) -> Fallback:
        """As another process would make it."""
        return Fallback(self.keyring, self.files, self.warn)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHON_KEYRING_BACKEND", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "FLYTEAUTH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(keyring_module, "_process", keyring_module._Process())
    monkeypatch.setattr(fallback_module, "_announced", set())


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


async def refuses(reason: str, act: Callable[..., Any], *args: object) -> StoreError:
    with pytest.raises(StoreError) as caught:
        await act(*args)
    assert caught.value.reason == reason, caught.value
    assert CANARY not in str(caught.value)
    return caught.value


# With a keyring that works.


async def test_a_login_goes_to_the_keyring_and_a_mark_to_the_file(setting: Setting) -> None:
    store = setting.store()
    await store.probe()
    assert store.place.startswith("the keyring (")
    await store.save("a", record())
    assert await setting.keyring.load("a") == record()
    assert await setting.files.look("a") == "keyring"
    assert await setting.store().load("a") == record()
    assert setting.said == []


async def test_a_login_in_the_file_moves_to_the_keyring(setting: Setting) -> None:
    await setting.files.save("a", record("old"))
    store = setting.store()
    assert await store.load("a") == record("old")
    assert store.place == setting.files.place
    assert setting.ring.calls == []  # whoever has a file need not look for a keyring
    await store.probe()
    await store.save("a", record("new"))
    assert store.place.startswith("the keyring (")
    assert await setting.files.look("a") == "keyring"
    assert await setting.store().load("a") == record("new")


async def test_a_login_without_a_mark_is_found(setting: Setting) -> None:
    """The directory may be new, or not ours to write."""
    await setting.keyring.save("a", record())
    store = setting.store()
    assert await store.load("a") == record()
    assert store.place.startswith("the keyring (")
    assert await store.swap("a", record(), record("new"))
    assert await setting.files.look("a") == "keyring"


async def test_a_refresh_goes_where_the_login_is(setting: Setting) -> None:
    await setting.store().save("a", record("old"))
    assert not await setting.store().swap("a", record("other"), record("new"))
    assert not await setting.store().swap("a", None, record("new"))
    assert await setting.store().swap("a", record("old"), record("new"))
    assert await setting.keyring.load("a") == record("new")
    assert await setting.files.look("a") == "keyring"
    await setting.files.save("b", record("old"))
    assert await setting.store().swap("b", record("old"), record("new"))
    assert await setting.files.look("b") == record("new")
    assert await setting.keyring.load("b") is None


async def test_a_first_login_may_be_swapped_in(setting: Setting) -> None:
    assert await setting.store().swap("a", None, record())
    assert await setting.keyring.load("a") == record()
    assert not await setting.store().swap("a", None, record("new"))


async def test_a_refresh_in_the_keyring_writes_no_mark_again(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = setting.store()
    await store.save("a", record("old"))
    marked: list[object] = []
    monkeypatch.setattr(FileStore, "mark_sync", lambda *args: marked.append(args))
    assert await store.swap("a", record("old"), record("new"))
    await store.save("a", record("newer"))
    assert marked == []


async def test_logging_out_leaves_nothing(setting: Setting) -> None:
    await setting.store().save("a", record())
    await setting.store().delete("a")
    assert setting.ring.items == {}
    assert await setting.files.look("a") is None
    await setting.store().delete("a")
    assert await setting.store().load("a") is None


# Without one.


@pytest.mark.req("SEC-08")
async def test_a_login_goes_to_the_file_and_that_is_said_once(setting: Setting) -> None:
    setting.lock()
    for _ in range(2):
        store = setting.store()
        await store.probe()
        await store.save("a", record())
        assert store.place == setting.files.place
    assert await setting.files.look("a") == record()
    (said,) = setting.said
    assert said.startswith("the keyring (tests.io.rings.LockedRing) is locked (")
    assert f"kept in {setting.files.place}, readable by you alone" in said
    assert "token_store" in said
    assert "\n" not in said
    setting.ring.calls.clear()
    assert await setting.store().load("a") == record()
    assert setting.ring.calls == []


async def test_what_failed_a_probe_is_not_asked_again(setting: Setting) -> None:
    setting.lock()
    store = setting.store()
    await store.probe()
    setting.ring.calls.clear()
    await store.probe()
    await store.save("a", record())
    assert await store.swap("a", record(), record("new"))
    assert await store.swap("b", None, record())
    assert setting.ring.calls == []


@pytest.mark.req("SEC-08")
async def test_nothing_is_said_to_be_kept_that_is_not(setting: Setting, tmp_path: Path) -> None:
    setting.lock()
    (tmp_path / "logins").write_text("in the way")
    store = setting.store()
    await refuses("denied", store.probe)
    await refuses("denied", store.save, "a", record())
    assert setting.said == []


async def test_without_a_login_an_unusable_keyring_is_silent(setting: Setting) -> None:
    setting.lock()
    store = setting.store()
    assert await store.load("a") is None
    await store.delete("a")
    assert setting.said == []
    assert not (setting.directory / "logins").exists()


@pytest.mark.req("SEC-08")
async def test_a_system_without_a_keyring_falls_back(setting: Setting) -> None:
    files = setting.files
    store = Fallback(KeyringStore(files=files), files, setting.warn)
    assert store.place == f"the keyring or {files.place}"
    assert await store.load("a") is None
    await store.probe()
    await store.save("a", record())
    assert await Fallback(KeyringStore(), files, setting.warn).load("a") == record()
    (said,) = setting.said
    assert "no keyring of the system can be used here" in said
    assert "is used only with tokenStore: keyring" in said
    assert 'tokenStore: file, or in Python token_store="file"' in said


@pytest.mark.req("SEC-10")
@pytest.mark.parametrize("fails", ["set", "hang"])
async def test_a_keyring_that_fails_the_save_itself_is_fallen_back_from(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = HangingRing() if fails == "hang" else MemoryRing()
    if isinstance(ring, HangingRing):
        ring.go.set()
    setting = Setting(tmp_path, ring)
    store = setting.store()
    await store.probe()
    await store.save("a", record("old"))
    if isinstance(ring, HangingRing):
        ring.go.clear()
        monkeypatch.setattr(keyring_module, "PATIENCE", 0.05)
    else:
        full = OSError(28, "No space left on device")
        monkeypatch.setattr(ring, "set_password", OddRing(lambda text: full).set_password)
    await store.save("a", record("new"))
    assert store.place == setting.files.place
    assert await setting.files.look("a") == record("new")
    (said,) = setting.said
    assert ("does not answer" if fails == "hang" else "no space left") in said
    assert await setting.store().load("a") == record("new")
    if isinstance(ring, HangingRing):
        ring.go.set()
        await idle()
    assert await setting.keyring.load("a") in {record("old"), record("new")}
    assert await setting.store().load("a") == record("new")


async def idle() -> None:
    """Until no call hangs in the keyring any more."""
    import threading

    with anyio.fail_after(LIMIT):
        portal = "flyteauth portal"  # of another test, for the whole process
        while any(  # noqa: ASYNC110
            "flyteauth" in thread.name and thread.name != portal for thread in threading.enumerate()
        ):
            await anyio.sleep(0.01)


# A keyring that works now and then.


@pytest.mark.req("SEC-09")
async def test_a_marked_login_in_a_locked_keyring_is_an_error(setting: Setting) -> None:
    await setting.store().save("a", record())
    setting.lock()
    store = setting.store()
    error = await refuses("locked", store.load, "a")
    assert str(error).startswith("your login cannot be read: the keyring (")
    assert "unlock it" in str(error)
    await refuses("locked", store.swap, "a", record(), record("new"))
    await refuses("locked", store.delete, "a")
    assert store.place.startswith("the keyring (")
    setting.unlock()
    assert await setting.store().load("a") == record()


async def test_a_new_login_in_the_file_counts_and_an_old_one_never_comes_back(
    setting: Setting,
) -> None:
    await setting.store().save("a", record("old"))
    setting.lock()
    store = setting.store()
    await store.probe()
    await store.save("a", record("new"))
    setting.unlock()
    assert await setting.store().load("a") == record("new")
    setting.lock()
    await setting.store().delete("a")  # the keyring has the old one, and cannot be reached
    setting.unlock()
    assert await setting.keyring.load("a") == record("old")
    assert await setting.store().load("a") is None
    assert await setting.files.look("a") == NOWHERE
    assert not await setting.store().swap("a", record("old"), record("newer"))
    # The next login tidies up.
    await setting.store().save("a", record("newest"))
    assert await setting.store().load("a") == record("newest")
    await setting.store().delete("a")
    assert setting.ring.items == {}
    assert await setting.files.look("a") is None


async def test_a_login_may_be_swapped_in_where_an_old_one_is_hidden(setting: Setting) -> None:
    await setting.keyring.save("a", record("old"))
    await setting.files.mark("a", NOWHERE)
    assert await setting.store().load("a") is None
    assert await setting.store().swap("a", None, record("new"))
    assert await setting.store().load("a") == record("new")


@pytest.mark.parametrize("marked", [True, False])
async def test_a_refresh_that_the_keyring_cannot_take_goes_to_the_file(
    marked: bool, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old refresh token is spent: without the new one the login would be lost."""
    await setting.keyring.save("a", record("old"))
    if marked:
        await setting.files.mark("a", "keyring")
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(setting.ring, "set_password", OddRing(lambda text: full).set_password)
    store = setting.store()
    assert not await store.swap("a", record("other"), record("new"))
    assert setting.said == []
    assert await store.swap("a", record("old"), record("new"))
    assert store.place == setting.files.place
    assert len(setting.said) == 1
    assert await setting.store().load("a") == record("new")
    assert not await setting.store().swap("a", record("old"), record("newer"))


async def test_a_refresh_that_was_kept_after_all_is_not_kept_twice(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await setting.store().save("a", record("old"))
    real = KeyringStore.swap

    async def swap(self: KeyringStore, *args: Any) -> bool:
        assert await real(self, *args)
        raise StoreError("late", reason="timeout")

    monkeypatch.setattr(KeyringStore, "swap", swap)
    assert await setting.store().swap("a", record("old"), record("new"))
    assert await setting.files.look("a") == "keyring"
    assert setting.said == []


async def test_a_refresh_that_lost_a_race_in_the_keyring_does_not_win_it_in_the_file(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await setting.store().save("a", record("old"))
    real = KeyringStore.swap

    async def swap(self: KeyringStore, key: str, old: Record | None, new: Record) -> bool:
        assert await real(self, key, old, record("of another process"))
        raise StoreError("late", reason="timeout")

    monkeypatch.setattr(KeyringStore, "swap", swap)
    assert not await setting.store().swap("a", record("old"), record("new"))
    assert await setting.store().load("a") == record("of another process")


async def test_a_first_login_is_swapped_into_the_file_where_the_keyring_is_locked(
    setting: Setting,
) -> None:
    setting.lock()
    assert await setting.store().swap("a", None, record())
    assert await setting.files.look("a") == record()
    assert len(setting.said) == 1


async def test_a_refresh_of_what_is_nowhere_loses(setting: Setting) -> None:
    setting.lock()
    assert not await setting.store().swap("a", record("old"), record("new"))
    assert setting.said == []
    assert await setting.files.look("a") is None


async def test_a_refresh_of_an_unmarked_login_in_a_keyring_that_was_locked_is_an_error(
    setting: Setting, unwritable: Callable[[], None]
) -> None:
    """Nobody may take it for one that somebody else has ended."""
    unwritable()
    await setting.keyring.save("a", record("old"))
    store = setting.store()
    assert await store.load("a") == record("old")
    setting.lock()
    await refuses("locked", store.swap, "a", record("old"), record("new"))


# Files that cannot be used.


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forbid() -> None:
        def fail(*args: object) -> None:
            raise StoreError("read-only; try again", reason="denied")

        for name in ("save_sync", "mark_sync", "swap_sync"):
            monkeypatch.setattr(FileStore, name, fail)

    return forbid


async def test_without_a_mark_the_keyring_is_enough(
    setting: Setting, unwritable: Callable[[], None]
) -> None:
    unwritable()
    store = setting.store()
    await store.probe()
    await store.save("a", record())
    assert await setting.store().load("a") == record()
    assert await setting.store().swap("a", record(), record("new"))
    await setting.store().delete("a")
    assert await setting.store().load("a") is None


async def test_an_old_record_that_would_count_must_be_marked(
    setting: Setting, unwritable: Callable[[], None]
) -> None:
    await setting.files.save("a", record("old"))
    unwritable()
    await refuses("denied", setting.store().save, "a", record("new"))


async def test_a_directory_that_cannot_be_read_need_not_keep_anybody_from_the_keyring(
    setting: Setting, tmp_path: Path
) -> None:
    (tmp_path / "logins").write_text("in the way")
    store = setting.store()
    await refuses("denied", store.load, "a")
    await store.save("a", record())
    assert await setting.store().load("a") == record()
    assert await setting.store().swap("a", record(), record("new"))
    assert await setting.store().load("a") == record("new")
    await refuses("denied", setting.store().delete, "a")
    assert await setting.keyring.load("a") is None


@pytest.mark.req("SEC-09")
async def test_a_damaged_file_hides_what_is_older(setting: Setting) -> None:
    await setting.keyring.save("a", record("old"))
    await setting.files.save("a", record("new"))
    (path,) = [path for path in (setting.directory / "logins").iterdir() if not path.suffix]
    path.write_text("{")
    await refuses("corrupt", setting.store().load, "a")
    await refuses("corrupt", setting.store().swap, "a", record("old"), record("newer"))
    assert path.read_text() == "{"
    await setting.store().save("a", record("newest"))
    assert await setting.store().load("a") == record("newest")


@pytest.mark.req("SEC-09")
async def test_a_damaged_item_is_corrupt_with_and_without_a_mark(setting: Setting) -> None:
    await setting.keyring.save("a", record())
    (name,) = setting.ring.items
    setting.ring.items[name] = "{"
    await refuses("corrupt", setting.store().load, "a")
    await setting.files.mark("a", "keyring")
    await refuses("corrupt", setting.store().load, "a")


async def test_a_mark_of_another_store_is_an_error(setting: Setting) -> None:
    await setting.files.mark("a", "elsewhere")
    error = await refuses("corrupt", setting.store().load, "a")
    assert "elsewhere" in str(error)
    await refuses("corrupt", setting.store().swap, "a", record(), record("new"))


# Crashes.


@pytest.mark.req("SEC-06")
@pytest.mark.parametrize("before", ["nothing", "file", "keyring", "hidden"])
@pytest.mark.parametrize("act", ["save", "swap", "delete"])
async def test_a_process_killed_between_two_stores_leaves_old_or_new(
    before: str, act: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    lived, dies_at = False, -1
    while not lived:
        dies_at += 1
        setting = Setting(tmp_path / str(dies_at), ShortRing())
        old: Record | None = record("o" * 3000)
        if before == "file":
            await setting.files.save("a", record("o" * 3000))
        elif before == "keyring":
            await setting.store().save("a", record("o" * 3000))
        elif before == "hidden":
            await setting.keyring.save("a", record("stale"))
            await setting.files.mark("a", NOWHERE)
        if before in {"nothing", "hidden"}:
            old = None
        store, count = setting.store(), 0
        with monkeypatch.context() as patch:
            for kind, name in [
                (kind, name)
                for kind in (FileStore, KeyringStore)
                for name in ("look", "save", "swap", "delete", "mark", "load")
                if hasattr(kind, name)
            ]:
                real = getattr(kind, name)

                async def step(*args: Any, real: Any = real, limit: int = dies_at) -> Any:
                    nonlocal count
                    if count == limit:
                        raise Killed
                    count += 1
                    return await real(*args)

                patch.setattr(kind, name, step)
            new: Record | None = record("n" * 3000)
            try:
                if act == "save":
                    assert new is not None
                    await store.save("a", new)
                elif act == "swap":
                    assert new is not None
                    assert await store.swap("a", old, new)
                else:
                    new = None
                    await store.delete("a")
                lived = True
            except Killed:
                pass
        there = await setting.store().load("a")
        assert there == new if lived else there in (old, new)
    assert dies_at >= 2


# What a person is told.


async def test_a_probe_that_takes_long_says_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = HangingRing()
    setting = Setting(tmp_path, ring)
    told = anyio.Event()

    async def warn(text: str) -> None:
        setting.said.append(text)
        ring.go.set()  # and the person unlocks it
        told.set()

    monkeypatch.setattr(fallback_module, "REMIND_AFTER", 0.02)
    store = Fallback(setting.keyring, setting.files, warn)
    with anyio.fail_after(LIMIT):
        await store.probe()
    assert told.is_set()
    (said,) = setting.said
    assert said.startswith("waiting for the keyring (")
    await store.save("a", record())
    assert await setting.keyring.load("a") == record()
    assert len(setting.said) == 1


async def test_a_probe_may_be_cancelled(tmp_path: Path) -> None:
    ring = HangingRing()
    setting = Setting(tmp_path, ring)
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:
            group.start_soon(setting.store().probe)
            while not ring.came.is_set():  # noqa: ASYNC110  # a thread sets it
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
    assert setting.said == []
    ring.go.set()
    await idle()


# A store like others.


async def test_it_is_a_store_and_takes_turns_with_files(setting: Setting) -> None:
    store: Store = setting.store()
    assert store.name == "auto"
    assert store.slot == setting.store().slot != setting.files.slot
    assert CANARY not in repr(store)

    async def within() -> None:
        await refuses("busy", lambda: setting.files.exclusively("a", within, deadline=0.02))

    await store.exclusively("a", within, deadline=LIMIT)
    await store.aclose()
