"""Temporary folders: gone with their process, or with the next one after it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from flyteauth.devserver import folders
from flyteauth.devserver.folders import ALIVE, PREFIX, temporary_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing is removed there")

DEADLINE = 20.0
HOLD = (
    "import sys\n"
    "from flyteauth.devserver.folders import temporary_folder\n"
    "with temporary_folder() as folder:\n"
    "    (folder / 'key.pem').touch()\n"
    "    print(folder, flush=True)\n"
    "    sys.stdin.read()\n"
)

Begin = Callable[[], tuple[subprocess.Popen[str], Path]]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made, here and in other processes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts processes, each of which holds a folder until its standard input ends."""
    with ExitStack() as stack:

        def started() -> tuple[subprocess.Popen[str], Path]:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", HOLD],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            return process, Path(process.stdout.readline().strip())

        yield started


def killed(begin: Begin) -> Path:
    process, folder = begin()
    process.kill()
    assert process.wait(DEADLINE) == -signal.SIGKILL
    assert (folder / "key.pem").exists()
    return folder


def test_a_folder_is_its_owner_s_alone_and_goes_with_the_context(directory: Path) -> None:
    with temporary_folder() as folder:
        assert folder.parent == directory
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / ALIVE).stat().st_mode & 0o777 == 0o600
        (folder / "ca.pem").touch()
    assert list(directory.iterdir()) == []


def test_what_a_killed_process_has_left_goes_with_the_next_one(begin: Begin) -> None:
    left = killed(begin)
    with temporary_folder() as folder:
        assert not left.exists()
        assert folder.exists()


def test_the_folder_of_a_living_process_stays(begin: Begin) -> None:
    process, theirs = begin()
    left = killed(begin)
    with temporary_folder() as ours, temporary_folder():
        assert not left.exists()
        assert (theirs / "key.pem").exists()
        assert ours.exists()
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert not theirs.exists()


def test_what_only_looks_like_one_stays(begin: Begin, directory: Path) -> None:
    left = killed(begin)
    kept = directory / "kept"
    (kept / "mine").mkdir(parents=True)
    (kept / ALIVE).touch()
    link = directory / f"{PREFIX}link"
    link.symlink_to(kept)
    file = directory / f"{PREFIX}file"
    file.touch()
    being_made = directory / f"{PREFIX}making"
    being_made.mkdir()
    (being_made / f"{ALIVE}.new").touch()
    elsewhere = directory / f"{PREFIX}elsewhere"
    elsewhere.mkdir()
    (elsewhere / ALIVE).symlink_to(kept / ALIVE)
    other = directory / "flyteauth-exec-1-abc"
    other.mkdir()
    (other / ALIVE).touch()
    with temporary_folder():
        assert not left.exists()
    assert set(directory.iterdir()) == {kept, link, file, being_made, elsewhere, other}
    assert {path.name for path in kept.iterdir()} == {"mine", ALIVE}


def test_what_is_another_user_s_stays(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    left = killed(begin)
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: 2**31 - 7)
        with temporary_folder():
            assert (left / "key.pem").exists()
    with temporary_folder():
        assert not left.exists()


def test_where_nothing_can_be_locked_no_folder_is_taken_for_dead(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, *, blocking: bool) -> bool:
        raise OSError(38, "Function not implemented")

    with monkeypatch.context() as patched:
        patched.setattr(folders, "lock_descriptor", refuse)
        stack = ExitStack()
        folder = stack.enter_context(temporary_folder())
    with stack, temporary_folder():
        assert folder.exists()
    assert list(directory.iterdir()) == []


def test_folders_that_come_and_go_at_once_leave_each_other_alone(directory: Path) -> None:
    def come_and_go(name: int) -> None:
        for _ in range(50):
            with temporary_folder() as folder:
                (folder / "ca.pem").write_text(str(name), "utf-8")
                with temporary_folder():
                    assert (folder / "ca.pem").read_text("utf-8") == str(name)
                assert (folder / ALIVE).exists()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(come_and_go, range(8)))
    assert list(directory.iterdir()) == []
