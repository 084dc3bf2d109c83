from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from flyteauth._io.store import Store, file as file_module
from flyteauth._io.store.file import FileStore, home
from flyteauth._io.store.memory import MemoryStore
from flyteauth._sansio.errors import StoreError
from flyteauth._sansio.record import Record
from flyteauth._sansio.tokens import Token

pytestmark = pytest.mark.anyio

LIMIT = 20.0
CANARY = "canary-4711-secret"
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")


def record(access_token: str = CANARY, **more: Any) -> Record:
    token = Token(access_token, obtained_at=1000.0, expires_at=2000.0, refresh_token=CANARY)
    return Record(token, "https://auth.example.org/token", "flytectl", **more)


# What every store does. A new store joins by its maker here.


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    makers: dict[str, Callable[[], Store]] = {
        "memory": MemoryStore,
        "file": lambda: FileStore(tmp_path / "logins"),
    }
    return makers[request.param]()


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
async def test_a_big_token_is_kept_whole(store: Store) -> None:
    big = record("x" * 200_000)
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
    assert store.name in {"memory", "file"}
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
    (path,) = directory.iterdir()
    return path


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
    (directory / name).rename(directory / file_module._name("other"))
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
        b" " * (file_module.SIZE_MAX + 1),
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
    assert len(list(directory.iterdir())) == 1  # no temporary file is left


def test_a_login_beyond_the_limit_is_not_written(files: FileStore) -> None:
    files.save_sync("a", record("old"))
    refuses("full", files.save_sync, "a", record("x" * file_module.SIZE_MAX))
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
    assert files._hanging is not None
    go.set()
    assert files._hanging.wait(LIMIT)
    monkeypatch.setattr(file_module, "DEADLINE", LIMIT)
    await files.save("a", record())


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


# Several processes.

WRITER = """
import sys
from pathlib import Path
from flyteauth._io.store.file import FileStore
from flyteauth._sansio.record import Record
from flyteauth._sansio.tokens import Token
store = FileStore(Path(sys.argv[1]))
print("ready", flush=True)
for number in range(int(sys.argv[3])):
    token = Token(f"{sys.argv[2]}-{number}-" + "x" * 20_000, obtained_at=float(number))
    store.save_sync("a", Record(token, "https://a/", sys.argv[2]))
"""


def writer(directory: Path, name: str, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITER, str(directory), name, str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def end(process: subprocess.Popen[bytes]) -> int:
    with process:
        return process.wait(LIMIT)


@posix
@pytest.mark.req("SEC-06")
def test_a_killed_writer_leaves_old_or_new(files: FileStore, directory: Path) -> None:
    files.save_sync("a", record("first"))
    for _ in range(5):
        process = writer(directory, "w", 1_000_000)
        before = files.load_sync("a")
        while files.load_sync("a") == before:
            pass
        process.send_signal(signal.SIGKILL)
        end(process)
        loaded = files.load_sync("a")
        assert loaded is not None
        assert loaded.token.access_token.endswith("x" * 20_000)
        files.save_sync("a", record("again"))


@pytest.mark.req("SEC-06")
def test_four_writers_never_tear_a_record(files: FileStore, directory: Path) -> None:
    writers = [writer(directory, f"w{number}", 100) for number in range(4)]
    while any(process.poll() is None for process in writers):
        loaded = files.load_sync("a")
        if loaded is not None:
            assert loaded.token.access_token.startswith(f"{loaded.client_id}-")
            assert loaded.token.access_token.endswith("x" * 20_000)
    assert [end(process) for process in writers] == [0] * 4
    assert len(list(directory.iterdir())) == 1


def test_reading_needs_neither_event_loop_nor_http(directory: Path) -> None:
    code = (
        "import sys; from flyteauth._io.store.file import FileStore; from pathlib import Path; "
        "FileStore(Path(sys.argv[1])).load_sync('a'); "
        "print([m for m in ('anyio', 'httpx', 'asyncio', 'trio', 'ssl') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(directory)]
    shown = subprocess.run(command, capture_output=True, check=True, timeout=LIMIT)
    assert shown.stdout.decode().strip() == "[]"


def is_a_store(store: Store) -> Awaitable[None]:
    """Both are stores, says the type checker."""
    return store.probe()


ALL: list[Store] = [MemoryStore(), FileStore(Path("unused"))]
