from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import filelock
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from flyteauth._io.folder import home
from flyteauth._io.lock import Locks
from flyteauth._io.names import constant_length
from flyteauth._io.store import Store, file as file_module
from flyteauth._io.store.envelope import SIZE_MAX
from flyteauth._io.store.file import FileStore
from flyteauth._io.store.memory import MemoryStore
from flyteauth._sansio.errors import StoreError
from flyteauth._sansio.record import Record
from flyteauth._sansio.tokens import Token

from .stores import SHARED, STORES
from .writers import storm

pytestmark = pytest.mark.anyio

LIMIT = 20.0
CANARY = "canary-4711-secret"
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")


def record(access_token: str = CANARY, **more: Any) -> Record:
    token = Token(access_token, obtained_at=1000.0, expires_at=2000.0, refresh_token=CANARY)
    return Record(token, "https://auth.example.org/token", "flytectl", **more)


# What every store does: see stores.py.


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with STORES[request.param](tmp_path) as opened:
        yield opened


async def test_what_was_saved_is_loaded(store: Store) -> None:
    await store.probe()
    assert await store.load("a") is None
    saved = record(issuer="https://auth.example.org", subject="ada")
    await store.save("a", saved)
    assert await store.load("a") == saved
    assert await store.load("b") is None


async def test_saving_again_replaces_whole(store: Store) -> None:
    await store.save("a", record("x" * 10_000))
    await store.save("a", record("y"))
    assert await store.load("a") == record("y")


TEXTS = st.text(max_size=40)
MAYBE = st.none() | TEXTS
TOKENS = st.builds(
    Token,
    access_token=TEXTS,
    obtained_at=st.floats(0, 1e10),
    expires_at=st.none() | st.floats(0, 1e10),
    refresh_token=MAYBE,
)
RECORDS = st.builds(
    Record,
    token=TOKENS,
    token_endpoint=TEXTS,
    client_id=TEXTS,
    header=TEXTS,
    issuer=MAYBE,
    revocation_endpoint=MAYBE,
    authentication=MAYBE,
    subject=MAYBE,
    login=MAYBE,
    forced_at=st.none() | st.floats(0, 1e10),
)


@given(key=TEXTS, saved=RECORDS)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_record_comes_back_as_it_was(store: Store, key: str, saved: Record) -> None:
    await store.save(key, saved)
    assert await store.load(key) == saved
    await store.delete(key)
    assert await store.load(key) is None


async def test_a_probe_saves_nothing_that_can_be_loaded(store: Store) -> None:
    await store.probe()
    await store.probe()
    assert await store.load("probe") is None
    await store.save("a", record())
    await store.probe()
    assert await store.load("a") == record()


@pytest.mark.req("REF-06")
async def test_a_swap_replaces_what_it_was_told_to_and_nothing_else(store: Store) -> None:
    one, two, three = record("one"), record("two"), record("three")
    assert not await store.swap("a", one, two)
    assert await store.load("a") is None
    assert await store.swap("a", None, one)
    assert not await store.swap("a", None, two)
    assert not await store.swap("a", two, three)
    assert await store.load("a") == one
    assert await store.swap("a", one, two)
    assert await store.load("a") == two
    assert await store.load("b") is None
    await store.delete("a")
    assert not await store.swap("a", two, three)
    assert await store.swap("a", None, three)
    assert await store.load("a") == three


async def test_a_swap_compares_tokens_and_not_what_else_a_record_says(store: Store) -> None:
    await store.save("a", record(subject="ada"))
    assert await store.swap("a", record(subject=None, forced_at=1.0), record("new", login="x"))
    assert await store.load("a") == record("new", login="x")
    rotated = record("new")
    rotated = rotated.replace(token=rotated.token.replace(refresh_token="other"))
    assert not await store.swap("a", rotated, record("newer"))


@pytest.mark.req("REF-06")
async def test_of_many_threads_one_swaps_in_each_generation(store: Store) -> None:
    """Each on an event loop of its own, of either kind."""
    count, generations = 6, 5
    barrier = threading.Barrier(count, timeout=LIMIT)
    wins: list[tuple[int, int]] = []
    errors: list[BaseException] = []

    async def compete(number: int) -> None:
        for generation in range(generations):
            old = await store.load("a")
            barrier.wait()
            if await store.swap("a", old, record(f"{generation}-{number}")):
                wins.append((generation, number))
            barrier.wait()
        await store.aclose()

    def run(number: int) -> None:
        try:
            anyio.run(compete, number, backend=("asyncio", "trio")[number % 2])
        except BaseException as error:  # noqa: BLE001  # whatever it is, the test fails
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await anyio.to_thread.run_sync(thread.join, 2 * LIMIT)
    assert not errors
    assert [generation for generation, _ in wins] == list(range(generations))
    generation, number = wins[-1]
    assert await store.load("a") == record(f"{generation}-{number}")


async def nothing() -> str:
    return "done"


async def is_taken(store: Store, key: str = "a") -> bool:
    try:
        await store.exclusively(key, nothing, deadline=0.02)
    except StoreError as error:
        if error.reason != "busy":
            raise
        return True
    return False


@pytest.mark.req("REF-06")
async def test_exclusively_lets_one_in_and_everybody_read_and_write(store: Store) -> None:
    async def inside() -> bool:
        taken = await is_taken(store)
        assert not await is_taken(store, "b")
        assert await store.swap("a", None, record("one"))
        assert await store.load("a") == record("one")
        await store.save("a", record("two"))
        await store.delete("a")
        return taken

    assert await store.exclusively("a", inside, deadline=LIMIT)
    assert not await is_taken(store)


async def test_exclusively_returns_what_the_function_does_and_raises_it(store: Store) -> None:
    async def fail() -> None:
        raise KeyError("x")

    assert await store.exclusively("a", nothing, deadline=LIMIT) == "done"
    with pytest.raises(KeyError):
        await store.exclusively("a", fail, deadline=LIMIT)
    assert not await is_taken(store)


async def test_exclusively_ends_with_a_cancellation(store: Store) -> None:
    inside = anyio.Event()

    async def work() -> None:
        inside.set()
        await anyio.sleep_forever()

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:
            group.start_soon(partial(store.exclusively, "a", work, deadline=LIMIT))
            await inside.wait()
            assert await is_taken(store)
            group.cancel_scope.cancel()
        while await is_taken(store):
            pass


async def test_who_is_cancelled_while_waiting_for_a_turn_takes_none(store: Store) -> None:
    async def inside() -> None:
        with anyio.move_on_after(0.05) as scope:
            await store.exclusively("a", nothing, deadline=LIMIT)
        assert scope.cancelled_caught

    with anyio.fail_after(LIMIT):
        await store.exclusively("a", inside, deadline=LIMIT)
        while await is_taken(store):
            pass


async def test_tasks_and_event_loops_take_turns(store: Store) -> None:
    inside, most, turns, mutex = [0], [0], [0], threading.Lock()

    async def work() -> None:
        with mutex:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        await anyio.sleep(0.002)
        with mutex:
            inside[0] -= 1
            turns[0] += 1

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(partial(store.exclusively, "a", work, deadline=LIMIT))
        await store.aclose()

    def run(backend: str) -> None:
        anyio.run(main, backend=backend)

    async with anyio.create_task_group() as threads:
        for backend in ("asyncio", "trio"):
            threads.start_soon(anyio.to_thread.run_sync, run, backend)
        await main()
    assert (inside, most, turns) == ([0], [1], [9])


async def test_a_store_has_a_slot_of_its_own(store: Store) -> None:
    assert store.slot == store.slot
    assert isinstance(hash(store.slot), int)
    assert store.slot not in {MemoryStore().slot, FileStore(Path("elsewhere")).slot}


@pytest.mark.parametrize("name", sorted(SHARED))
async def test_two_objects_of_a_shared_store_see_the_same(name: str, tmp_path: Path) -> None:
    async with STORES[name](tmp_path) as one, STORES[name](tmp_path) as other:
        assert one.slot == other.slot
        await one.save("a", record("one"))
        assert await other.swap("a", record("one"), record("two"))
        assert not await one.swap("a", record("one"), record("three"))
        assert await one.load("a") == record("two")
        assert await one.exclusively("a", partial(is_taken, other), deadline=LIMIT)
        assert not await is_taken(other)


async def test_it_may_be_closed_again_and_again(store: Store) -> None:
    await store.save("a", record())
    await store.aclose()
    assert await store.load("a") == record()
    await store.aclose()
    await store.aclose()


@pytest.mark.req("SEC-07")
@pytest.mark.parametrize(
    "keys", [("a", "A"), ("a/b", "a.b"), ("../x", "x"), ("é", "e\u0301"), ("", " "), ("a\0", "a")]
)
async def test_keys_are_kept_apart(store: Store, keys: tuple[str, str]) -> None:
    for key in keys:
        await store.save(key, record(f"token-of-{keys.index(key)}"))
    for key in keys:
        assert await store.load(key) == record(f"token-of-{keys.index(key)}")


async def test_deleting_is_for_one_key_and_may_be_repeated(store: Store) -> None:
    await store.delete("a")
    await store.save("a", record("a"))
    await store.save("b", record("b"))
    await store.delete("a")
    await store.delete("a")
    assert await store.load("a") is None
    assert await store.load("b") == record("b")


@pytest.mark.req("SEC-10")
@pytest.mark.parametrize("size", [2_600, 20_000, 200_000])
async def test_a_big_token_is_kept_whole(store: Store, size: int) -> None:
    big = record("x" * size)
    await store.save("a", big)
    assert await store.load("a") == big


async def test_several_tasks_may_use_it_at_once(store: Store) -> None:
    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(store.save, "a", record(f"t{number}"))
            group.start_soon(store.load, "a")
    loaded = await store.load("a")
    assert loaded is not None
    assert loaded.token.access_token in {f"t{number}" for number in range(10)}


@pytest.mark.req("SEC-01")
async def test_it_shows_no_secret(store: Store) -> None:
    await store.save("a", record())
    for shown in (repr(store), str(store), store.place, store.name, repr(await store.load("a"))):
        assert CANARY not in shown


async def test_it_says_what_and_where_it_is(store: Store) -> None:
    assert store.name in STORES
    assert store.place


# Files.


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "logins"


@pytest.fixture
def files(directory: Path) -> FileStore:
    return FileStore(directory)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def the_file(directory: Path) -> Path:
    (path,) = the_files(directory)
    return path


def the_files(directory: Path) -> list[Path]:
    """All but lock files, which stay and are empty."""
    paths = list(directory.iterdir())
    assert all(path.stat().st_size == 0 for path in paths if path.suffix == ".lock")
    return [path for path in paths if path.suffix != ".lock"]


def refuses(reason: str, act: Callable[..., object], *args: object) -> StoreError:
    with pytest.raises(StoreError) as caught:
        act(*args)
    assert caught.value.reason == reason, caught.value
    assert CANARY not in str(caught.value)
    return caught.value


@posix
@pytest.mark.req("SEC-05")
def test_files_are_private_from_the_start(files: FileStore, directory: Path) -> None:
    before = os.umask(0)
    try:
        files.save_sync("a", record())
    finally:
        os.umask(before)
    assert mode(directory) == 0o700
    assert mode(the_file(directory)) == 0o600
    assert mode(directory.parent) == 0o700


@posix
@pytest.mark.req("SEC-05")
def test_a_strict_umask_does_not_lock_us_out(files: FileStore, directory: Path) -> None:
    directory.mkdir(parents=True)
    before = os.umask(0o777)
    try:
        files.save_sync("a", record())
    finally:
        os.umask(before)
    assert mode(the_file(directory)) == 0o600


@posix
@pytest.mark.req("SEC-05")
def test_looser_modes_are_tightened_before_reading_and_writing(
    files: FileStore, directory: Path
) -> None:
    files.save_sync("a", record())
    path = the_file(directory)
    path.chmod(0o644)
    directory.chmod(0o755)
    assert files.load_sync("a") == record()
    assert (mode(directory), mode(path)) == (0o700, 0o600)
    directory.chmod(0o777)
    files.save_sync("b", record())
    assert mode(directory) == 0o700


@posix
@pytest.mark.req("SEC-05")
@pytest.mark.parametrize("what", ["directory", "file"])
def test_what_belongs_to_somebody_else_is_refused(
    files: FileStore, directory: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.save_sync("a", record())
    inode = (directory if what == "directory" else the_file(directory)).stat().st_ino
    for name in ("fstat", "stat"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, with_foreign_owner(real, inode))
    for act in (partial_load(files), partial_save(files)):
        error = refuses("denied", act)
        assert "belongs to another user" in str(error)
    monkeypatch.undo()
    assert files.load_sync("a") == record()


def with_foreign_owner(real: Callable[..., os.stat_result], inode: int) -> Callable[..., object]:
    def fake(*args: Any, **options: Any) -> os.stat_result:
        status = real(*args, **options)
        if status.st_ino != inode:
            return status
        return os.stat_result((*status[:4], os.geteuid() + 1, *status[5:10]))

    return fake


def partial_load(files: FileStore) -> Callable[[], object]:
    return lambda: files.load_sync("a")


def partial_save(files: FileStore) -> Callable[[], object]:
    return lambda: files.save_sync("a", record("new"))


@posix
@pytest.mark.req("SEC-05")
def test_a_symlink_in_place_of_the_file_is_not_followed(
    files: FileStore, directory: Path, tmp_path: Path
) -> None:
    files.save_sync("a", record())
    path = the_file(directory)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    refuses("denied", files.load_sync, "a")
    files.save_sync("a", record("new"))  # the link itself is replaced
    assert not path.is_symlink()
    assert elsewhere.read_bytes() == before
    assert files.load_sync("a") == record("new")


@posix
@pytest.mark.req("SEC-05")
@pytest.mark.parametrize("dangling", [False, True])
def test_a_symlink_in_place_of_the_directory_is_not_followed(
    files: FileStore, directory: Path, tmp_path: Path, dangling: bool
) -> None:
    elsewhere = tmp_path / "elsewhere"
    if not dangling:
        elsewhere.mkdir()
    directory.parent.mkdir()
    directory.symlink_to(elsewhere)
    for act in (partial_save(files), files.probe_sync):
        refuses("denied", act)
    if not dangling:
        refuses("denied", files.load_sync, "a")
        assert not list(elsewhere.iterdir())


@posix
def test_a_pipe_in_place_of_the_file_does_not_hang(files: FileStore, directory: Path) -> None:
    files.save_sync("a", record())
    path = the_file(directory)
    path.unlink()
    os.mkfifo(path)
    refuses("denied", files.load_sync, "a")
    path.unlink()
    path.mkdir()
    refuses("denied", files.load_sync, "a")


@pytest.mark.req("SEC-11", "SEC-07")
def test_the_file_knows_its_key_and_its_name_comes_from_the_key_alone(
    files: FileStore, directory: Path
) -> None:
    files.save_sync("key", record("one"))
    name = the_file(directory).name
    files.save_sync("key", record("two"))
    assert the_file(directory).name == name
    assert json.loads(the_file(directory).read_bytes())["key"] == "key"
    (directory / name).rename(directory / constant_length("other"))
    refuses("corrupt", files.load_sync, "other")


@pytest.mark.req("SEC-09")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"key": "a"}',
        b'{"key": "a", "record": null}',
        b'{"key": "a", "record": {"version": 1}}',
        b'{"key": "a", "record": {"version": 99, "token": "canary-4711-secret"}}',
        b"[" * 100_000,
        b" " * (SIZE_MAX + 1),
    ],
)
def test_a_damaged_file_is_corrupt_and_stays(
    files: FileStore, directory: Path, content: bytes
) -> None:
    files.save_sync("a", record())
    path = the_file(directory)
    path.write_bytes(content)
    refuses("corrupt", files.load_sync, "a")
    assert path.read_bytes() == content
    files.save_sync("a", record())
    assert files.load_sync("a") == record()


@pytest.mark.req("SEC-09")
def test_a_truncated_file_is_corrupt_and_stays(files: FileStore, directory: Path) -> None:
    files.save_sync("a", record())
    path = the_file(directory)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        refuses("corrupt", files.load_sync, "a")
        assert len(path.read_bytes()) == size


@pytest.mark.req("SEC-06")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "rename"])
@posix
def test_a_full_disk_leaves_the_old_record(
    files: FileStore, directory: Path, number: int, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.save_sync("a", record("old"))

    def full(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        refuses("full", files.save_sync, "a", record("new"))
        if call == "fsync":
            refuses("full", files.probe_sync)
    assert files.load_sync("a") == record("old")
    assert len(the_files(directory)) == 1  # no temporary file is left


@pytest.mark.req("SEC-06")
@posix
def test_what_is_saved_is_on_the_disk_before_it_has_its_name_and_so_is_the_name(
    files: FileStore, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.save_sync("a", record("old"))
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def syncing(descriptor: int) -> None:
        done.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def renaming(*args: Any, **options: Any) -> None:
        done.append("rename")
        rename(*args, **options)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "rename", renaming)
    files.save_sync("a", record("new"))
    assert done == ["file", "rename", "directory"]
    done.clear()
    files.delete_sync("a")
    assert done[-1] == "directory"


def test_a_login_beyond_the_limit_is_not_written(files: FileStore) -> None:
    files.save_sync("a", record("old"))
    refuses("full", files.save_sync, "a", record("x" * SIZE_MAX))
    assert files.load_sync("a") == record("old")


def test_a_file_in_place_of_the_directory_is_refused(files: FileStore, directory: Path) -> None:
    directory.parent.mkdir()
    directory.write_text("not a directory")
    for act in (partial_load(files), partial_save(files), files.probe_sync):
        refuses("denied", act)
    assert directory.read_text() == "not a directory"


def test_a_home_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nonexistent").write_text("in the way")
    files = FileStore(tmp_path / "nonexistent" / "home" / "logins")
    refuses("denied", files.probe_sync)
    refuses("denied", partial_save(files))


@posix
@pytest.mark.skipif(sys.platform != "win32" and os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    files = FileStore(tmp_path / "logins")
    refuses("denied", files.probe_sync)
    tmp_path.chmod(0o700)


@posix
@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM, errno.EIO])
def test_what_the_system_refuses_is_denied(
    files: FileStore, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    for act in (partial_load(files), partial_save(files), files.probe_sync):
        error = refuses("denied", act)
        assert os.strerror(number).lower() in str(error)


@pytest.mark.parametrize("existing", ["nothing", "parent", "directory", "record"])
def test_a_probe_leaves_nothing_behind(
    files: FileStore, directory: Path, tmp_path: Path, existing: str
) -> None:
    if existing == "parent":
        directory.parent.mkdir()
    elif existing == "directory":
        directory.mkdir(parents=True)
    elif existing == "record":
        files.save_sync("a", record())
    before = sorted(tmp_path.rglob("*"))
    files.probe_sync()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_probe_that_removes_its_directory_does_not_disturb_a_save(directory: Path) -> None:
    saver, prober = FileStore(directory), FileStore(directory)
    over = threading.Event()

    def probe() -> None:
        while not over.is_set():
            prober.probe_sync()

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        for number in range(30):
            saver.save_sync("a", record(f"t{number}"))
            assert saver.load_sync("a") == record(f"t{number}")
            saver.delete_sync("a")
    finally:
        over.set()
        thread.join(LIMIT)


def test_what_a_killed_writer_left_is_swept_after_a_while(
    files: FileStore, directory: Path
) -> None:
    files.save_sync("a", record())
    old, new = directory / ".old.tmp", directory / ".new.tmp"
    for path in (old, new):
        path.write_text(CANARY)
    os.utime(old, (0, 0))
    files.save_sync("a", record())
    assert not old.exists()
    assert new.exists()


def test_the_home_is_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYTEAUTH_HOME", str(tmp_path))
    assert home() == tmp_path
    assert FileStore().place == str(tmp_path / "logins")
    monkeypatch.setenv("FLYTEAUTH_HOME", "~/x")
    monkeypatch.setenv("HOME", str(tmp_path))
    if sys.platform != "win32":
        assert home() == tmp_path / "x"
    monkeypatch.delenv("FLYTEAUTH_HOME")
    assert "flyteauth" in home().parts


# Off the event loop.


async def test_a_file_system_that_hangs_ends_at_the_deadline(
    files: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, entered = threading.Event(), []

    def hang(key: str) -> None:
        entered.append(key)
        go.wait(LIMIT)

    monkeypatch.setattr(files, "load_sync", hang)
    monkeypatch.setattr(file_module, "DEADLINE", 0.02)
    for key in ("a", "b", "c"):
        with pytest.raises(StoreError) as caught:
            await files.load(key)
        assert caught.value.reason == "timeout"
    assert entered == ["a"]  # one thread that hangs is enough
    go.set()
    monkeypatch.setattr(file_module, "DEADLINE", LIMIT)
    with anyio.fail_after(LIMIT):
        while True:
            try:
                return await files.save("a", record())
            except StoreError:
                await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("reason", ["corrupt", "denied"])
async def test_errors_come_back_from_the_thread(
    files: FileStore, directory: Path, reason: str
) -> None:
    await files.save("a", record())
    path = the_file(directory)
    path.unlink()
    if reason == "corrupt":
        path.write_text("{")
    else:
        path.mkdir()
    with pytest.raises(StoreError) as caught:
        await files.load("a")
    assert caught.value.reason == reason


async def test_a_cancelled_call_lets_go_at_once(
    files: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    monkeypatch.setattr(files, "load_sync", lambda key: go.wait(LIMIT))
    with anyio.move_on_after(0.01) as scope:
        await files.load("a")
    assert scope.cancelled_caught
    go.set()


# Marks, and swaps over what is not a record.


async def test_a_mark_says_where_else_the_record_is(files: FileStore, directory: Path) -> None:
    assert await files.look("a") is None
    await files.mark("a", "keyring")
    assert await files.look("a") == "keyring"
    assert await files.load("a") is None
    assert json.loads(the_file(directory).read_bytes()) == {"key": "a", "kept_in": "keyring"}
    await files.save("a", record())
    assert await files.look("a") == await files.load("a") == record()
    await files.mark("a", "keyring")
    assert not await files.swap("a", record(), record("new"))
    assert await files.swap("a", None, record("new"))
    assert await files.look("a") == record("new")
    await files.mark("a", "keyring")
    await files.delete("a")
    assert await files.look("a") is None
    assert not the_files(directory)


@pytest.mark.parametrize(
    "content", ['{"key": "b", "kept_in": "x"}', '{"key": "a", "kept_in": 1}', '{"kept_in": "x"}']
)
def test_a_damaged_mark_is_corrupt(files: FileStore, directory: Path, content: str) -> None:
    files.mark_sync("a", "keyring")
    the_file(directory).write_text(content)
    refuses("corrupt", files.look_sync, "a")


@pytest.mark.req("SEC-09")
async def test_a_swap_leaves_what_it_cannot_read(files: FileStore, directory: Path) -> None:
    await files.save("a", record())
    the_file(directory).write_text("{")
    assert not await files.swap("a", None, record("new"))
    assert not await files.swap("a", record(), record("new"))
    assert the_file(directory).read_text() == "{"
    the_file(directory).unlink()
    (directory / constant_length("a")).mkdir()
    with pytest.raises(StoreError) as caught:
        await files.swap("a", None, record("new"))
    assert caught.value.reason == "denied"


# Locks.


@pytest.mark.req("REF-15")
@pytest.mark.parametrize("call", ["save", "swap", "mark", "delete"])
async def test_where_nothing_can_be_locked_logins_are_kept_all_the_same(
    files: FileStore, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, *, blocking: bool) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    await files.save("a", record())
    monkeypatch.setattr(filelock, "lock_descriptor", refuse)
    with pytest.raises(StoreError) as caught:
        await files.exclusively("a", nothing, deadline=LIMIT)
    assert caught.value.reason == "denied"
    if call == "save":
        await files.save("a", record("new"))
    elif call == "swap":
        assert await files.swap("a", record(), record("new"))
    elif call == "mark":
        await files.mark("a", "keyring")
    else:
        await files.delete("a")
    expected = {"save": record("new"), "swap": record("new"), "mark": "keyring", "delete": None}
    assert await files.look("a") == expected[call]


@pytest.mark.req("SEC-06")
def test_a_writer_that_finds_no_turn_changes_nothing(
    files: FileStore, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.save_sync("a", record())
    monkeypatch.setattr(file_module, "WRITE_WAIT", 0.02)
    with Locks(directory).held(f"{constant_length('a')}.write", LIMIT):
        refuses("busy", files.save_sync, "a", record("new"))
        refuses("busy", files.swap_sync, "a", record(), record("new"))
        refuses("busy", files.mark_sync, "a", "keyring")
        refuses("busy", files.delete_sync, "a")
        assert files.load_sync("a") == record()  # whoever reads needs no turn
        files.save_sync("b", record())
    files.save_sync("a", record("new"))


def test_where_nothing_is_kept_deleting_makes_nothing(files: FileStore, tmp_path: Path) -> None:
    files.delete_sync("a")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_writer_of_the_same_login_left_goes_at_once(
    files: FileStore, directory: Path
) -> None:
    files.save_sync("a", record())
    left = directory / f".{constant_length('a')[:16]}-0123.tmp"
    other = directory / f".{constant_length('b')[:16]}-0123.tmp"
    for path in (left, other):
        path.write_text(CANARY)
    files.save_sync("a", record())
    assert not left.exists()
    assert other.exists()


# Several processes.


@posix
@pytest.mark.req("SEC-06")
def test_writers_that_are_killed_at_any_moment_tear_nothing(directory: Path) -> None:
    outcome = storm(directory, processes=6, writes=20, kills=6)
    assert outcome.killed
    assert outcome.reads


SWAPPER = """
import sys
from pathlib import Path
from flyteauth._io.store.file import FileStore
from flyteauth._sansio.record import Record
from flyteauth._sansio.tokens import Token
store = FileStore(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    while True:
        old = store.load_sync("a")
        count = int(old.token.access_token) if old else 0
        token = Token(str(count + 1), obtained_at=0.0)
        if store.swap_sync("a", old, Record(token, "https://a/", "a")):
            break
"""


@pytest.mark.req("SEC-06", "REF-06")
def test_processes_that_count_together_lose_no_count(files: FileStore, directory: Path) -> None:
    command = [sys.executable, "-c", SWAPPER, str(directory), "25"]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            for _ in range(4)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
        for process in processes:
            process.wait(LIMIT)
        assert [process.returncode for process in processes] == [0] * 4
    counted = files.load_sync("a")
    assert counted is not None
    assert counted.token.access_token == "100"


def test_reading_needs_neither_event_loop_nor_http(directory: Path) -> None:
    code = (
        "import sys; from flyteauth._io.store.file import FileStore; from pathlib import Path; "
        "FileStore(Path(sys.argv[1])).load_sync('a'); "
        "print([m for m in ('anyio', 'httpx', 'asyncio', 'trio', 'ssl') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(directory)]
    shown = subprocess.run(command, capture_output=True, check=True, timeout=LIMIT)
    assert shown.stdout.decode().strip() == "[]"


ALL: list[Store] = [MemoryStore(), FileStore(Path("unused"))]  # says the type checker
