"""Temporary folders. What a process leaves that was killed, the next one removes."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from filelock import lock_descriptor

PREFIX: Final = "flyteauth-devserver-"
# The sign of life: a file that is locked as long as the folder's process lives, which the system
# sees to. A process ID would be none, for another process may have got it.
ALIVE: Final = "alive"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for this user alone, which is gone when the context ends."""
    _sweep(tempfile.gettempdir())
    # The lock goes last: nobody else is to remove the folder meanwhile.
    with ExitStack() as lock, tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        _give_sign(Path(name), lock)
        yield Path(name)


def _give_sign(folder: Path, lock: ExitStack) -> None:
    """Without one, where files cannot be locked, the folder stays until somebody removes it by
    hand; and on Windows, where an open file can be neither renamed nor removed.
    """
    if sys.platform == "win32":
        return
    begun = folder / f"{ALIVE}.new"
    descriptor = os.open(begun, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    lock.callback(os.close, descriptor)
    with suppress(OSError):
        if lock_descriptor(descriptor, blocking=False):
            begun.rename(folder / ALIVE)  # so that nobody ever sees it unlocked in our lifetime


def _sweep(directory: str) -> None:
    """Remove the folders of this user that have a sign which nobody holds."""
    if sys.platform == "win32":
        return
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                with suppress(OSError):
                    _remove_if_dead(entry)


def _remove_if_dead(entry: os.DirEntry[str]) -> None:
    status = entry.stat(follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return
    sign = Path(entry.path) / ALIVE
    descriptor = os.open(sign, os.O_RDWR | os.O_NOFOLLOW)
    try:
        is_dead = lock_descriptor(descriptor, blocking=False)
        # Another process may have been quicker, and the name may be of something else by now.
        if is_dead and os.path.samestat(sign.lstat(), os.fstat(descriptor)):
            shutil.rmtree(entry.path, ignore_errors=True)
    finally:
        os.close(descriptor)
