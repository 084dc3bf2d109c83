"""Small things worth remembering: read if that is possible, written if that is possible."""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from flyteauth._io import notes as notes_module
from flyteauth._io.notes import Notes

pytestmark = pytest.mark.anyio

BOUND = 20.0
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "notes"


@pytest.fixture
def notes(directory: Path) -> Notes:
    return Notes(directory)


def the_file(directory: Path) -> Path:
    (path,) = directory.iterdir()
    return path


def is_there(path: Path) -> bool:
    return path.exists()


def modes(directory: Path) -> list[int]:
    return [stat.S_IMODE(path.stat().st_mode) for path in (directory, the_file(directory))]


async def test_a_note_is_read_by_whoever_looks(notes: Notes, directory: Path) -> None:
    assert await notes.read("a") is None
    await notes.write("a", {"at": 1.5})
    assert await Notes(directory).read("a") == {"at": 1.5}
    assert await notes.read("b") is None
    await notes.write("a", {"at": 2})
    assert await notes.read("a") == {"at": 2}
    await notes.remove("a")
    await notes.remove("a")
    assert await notes.read("a") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(name=st.text(), value=st.dictionaries(st.text(), JSON, max_size=3))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_is_written_comes_back(
    notes: Notes, name: str, value: dict[str, Any]
) -> None:
    await notes.write(name, value)
    assert await notes.read(name) == value


@posix
@pytest.mark.req("SEC-05")
async def test_notes_are_ours_alone(notes: Notes, directory: Path) -> None:
    before = os.umask(0)
    try:
        await notes.write("a", {})
    finally:
        os.umask(before)
    assert modes(directory) == [0o700, 0o600]


@pytest.mark.parametrize("name", ["../../a", "/etc/a", "a\0", "https://example.org/a?b", "x" * 999])
async def test_a_name_may_be_anything(notes: Notes, directory: Path, name: str) -> None:
    await notes.write(name, {"x": 1})
    assert the_file(directory).parent == directory
    assert await notes.read(name) == {"x": 1}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"x":"' + b"y" * 1024 * 1024 + b'"}',
    ],
)
async def test_what_is_no_note_is_none_and_may_be_replaced(
    notes: Notes, directory: Path, content: bytes
) -> None:
    await notes.write("a", {"x": 1})
    path = the_file(directory)
    path.write_bytes(content)
    assert await notes.read("a") is None
    assert path.read_bytes() == content
    await notes.write("a", {"x": 2})
    assert await notes.read("a") == {"x": 2}


async def test_a_note_that_is_too_large_is_not_written(notes: Notes, directory: Path) -> None:
    await notes.write("a", {"x": "y" * notes_module.SIZE_MAX})
    assert not is_there(directory)


@posix
@pytest.mark.req("SEC-05")
@pytest.mark.parametrize("what", ["symlink", "pipe", "directory"])
async def test_what_is_no_file_is_none(notes: Notes, directory: Path, what: str) -> None:
    await notes.write("a", {"x": 1})
    path = the_file(directory)
    if what == "symlink":
        path.rename(directory / "elsewhere")
        path.symlink_to(directory / "elsewhere")
    else:
        path.unlink()
        make = os.mkfifo if what == "pipe" else os.mkdir
        make(path)
    with anyio.fail_after(BOUND):
        assert await notes.read("a") is None
        await notes.write("a", {"x": 2})
    assert await notes.read("a") == (None if what == "directory" else {"x": 2})


@posix
@pytest.mark.req("SEC-05")
async def test_what_belongs_to_somebody_else_is_none(
    notes: Notes, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await notes.write("a", {"x": 1})
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert await notes.read("a") is None
    await notes.write("a", {"x": 2})
    monkeypatch.undo()
    assert await notes.read("a") == {"x": 1}


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EIO])
async def test_a_place_that_cannot_be_used_is_no_reason_to_fail(
    notes: Notes, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> int:
        raise OSError(number, os.strerror(number))

    await notes.write("a", {"x": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        assert await notes.read("a") is None
        await notes.write("a", {"x": 2})
        await notes.remove("a")
    assert await notes.read("a") == {"x": 1}


async def test_a_place_that_cannot_be_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    notes = Notes(tmp_path / "file" / "notes")
    await notes.write("a", {"x": 1})
    assert await notes.read("a") is None
    await notes.remove("a")


@pytest.mark.parametrize("call", ["read", "write", "remove"])
async def test_a_place_that_hangs_is_left_alone(
    notes: Notes, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, entered = threading.Event(), list[int]()

    def hang(*args: object) -> None:
        entered.append(1)
        go.wait(BOUND)

    monkeypatch.setattr(notes, f"_{call}", hang)
    monkeypatch.setattr(notes_module, "DEADLINE", 0.02)
    calls: dict[str, Callable[[], Any]] = {
        "read": lambda: notes.read("a"),
        "write": lambda: notes.write("a", {}),
        "remove": lambda: notes.remove("a"),
    }
    with anyio.fail_after(BOUND):
        for _ in range(3):
            assert await calls[call]() is None
        assert await notes.read("a") is None
    assert entered == [1]
    go.set()


async def test_a_cancellation_is_obeyed(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(notes, "_read", lambda name: go.wait(BOUND))
    monkeypatch.setattr(notes_module, "DEADLINE", BOUND)
    with anyio.move_on_after(0.01) as scope:
        await notes.read("a")
    assert scope.cancelled_caught
    go.set()


async def test_what_no_json_can_say_is_a_mistake_of_the_caller(notes: Notes) -> None:
    with pytest.raises(TypeError):
        await notes.write("a", {"x": object()})
