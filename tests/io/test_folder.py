"""A directory that is ours alone. What goes wrong with its files is in test_store.py."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from flyteauth._io.folder import Folder, explaining, home, no_answer
from flyteauth._sansio.errors import StoreError

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")


def test_the_home_is_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYTEAUTH_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.setenv("FLYTEAUTH_HOME", "~/x")
    monkeypatch.setenv("HOME", str(tmp_path))
    if sys.platform != "win32":
        assert home() == tmp_path / "x"
    monkeypatch.delenv("FLYTEAUTH_HOME")
    assert "flyteauth" in home().parts


def test_what_is_written_is_read_up_to_a_limit(tmp_path: Path) -> None:
    with Folder.made(tmp_path / "a" / "b") as folder:
        folder.write("file", b"12345")
        assert folder.read("file", 5) == b"12345"
        assert folder.read("file", 3) == b"1234"  # one more, which says that there is more
        folder.remove("file")
        with pytest.raises(FileNotFoundError):
            folder.read("file", 5)


@posix
@pytest.mark.req("SEC-05")
def test_all_that_is_made_is_ours_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Folder.made(tmp_path / "a" / "b") as folder:
            os.close(folder.open_shared("shared"))
            folder.write("file", b"")
    finally:
        os.umask(before)
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@posix
@pytest.mark.req("SEC-05")
def test_no_symbolic_link_is_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    with Folder.made(tmp_path / "ours") as folder:
        (tmp_path / "ours" / "link").symlink_to(elsewhere)
        for use in (folder.open_shared, lambda name: folder.read(name, 1)):
            with pytest.raises(OSError) as caught:
                use("link")
            assert caught.value.errno in {errno.ELOOP, errno.EMLINK}
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    with pytest.raises(OSError), Folder.opened(tmp_path / "link"):
        pass
    assert not elsewhere.exists()


def test_a_shared_file_is_opened_and_never_replaced(tmp_path: Path) -> None:
    with Folder.made(tmp_path / "ours") as folder:
        one, other = folder.open_shared("file"), folder.open_shared("file")
        try:
            assert folder.holds("file", one)
            assert folder.holds("file", other)
            assert os.path.samestat(os.fstat(one), os.fstat(other))
            if sys.platform != "win32":
                folder.remove("file")
                assert not folder.holds("file", one)
                os.close(folder.open_shared("file"))
                assert not folder.holds("file", one)
        finally:
            os.close(one)
            os.close(other)


@posix
def test_a_replacement_that_fails_leaves_the_old_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Folder.made(tmp_path / "ours") as folder:
        folder.write("file", b"old")
        for call in ("fsync", "rename"):
            with monkeypatch.context() as patch:
                patch.setattr(os, call, refuse)
                with pytest.raises(OSError):
                    folder.write("file", b"new")
        assert folder.read("file", 9) == b"old"
    assert [path.name for path in (tmp_path / "ours").iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "full"), (errno.EROFS, "denied"), (errno.ENOENT, "denied")],
)
def test_what_the_file_system_says_becomes_one_line_with_advice(
    tmp_path: Path, number: int, reason: str
) -> None:
    with pytest.raises(StoreError) as caught, explaining(tmp_path):
        raise OSError(number, os.strerror(number))
    assert caught.value.reason == reason
    assert str(tmp_path) in str(caught.value)
    assert os.strerror(number).lower() in str(caught.value)
    assert no_answer(tmp_path).reason == "timeout"
