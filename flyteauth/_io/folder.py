"""
A directory that is ours alone, 0700, with files 0600 that are replaced whole or not at all.

Everything happens relative to the opened directory, and no symbolic link is followed: what is
checked is what is used. Windows has neither, nor modes; there the user's profile is private.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from .._sansio.errors import StoreError

LEFTOVER_AGE: Final = 600.0  # a temporary file that old belongs to a writer that was killed

_FULL: Final = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_SAFE: Final = (
    getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
)
_NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)  # a FIFO must not block
_READ: Final = os.O_RDONLY | _NONBLOCK | _SAFE
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE
_SHARE: Final = os.O_RDWR | os.O_CREAT | _NONBLOCK | _SAFE


def home() -> Path:
    """Where flyteauth keeps its files: ``$FLYTEAUTH_HOME``, or the system's place for them."""
    if named := os.environ.get("FLYTEAUTH_HOME"):
        return Path(os.path.expanduser(named)).absolute()  # noqa: PTH111  # never raises
    from platformdirs import user_data_path

    return user_data_path("flyteauth", appauthor=False)


class Folder:
    """An open directory that is ours alone."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self._path = path
        self._descriptor = descriptor  # None on Windows, where directories cannot be opened

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[Folder]:
        if sys.platform == "win32":
            if not stat.S_ISDIR(path.stat().st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            yield cls(path, None)
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _SAFE)
        try:
            _claim(descriptor, 0o700, path)
            yield cls(path, descriptor)
        finally:
            os.close(descriptor)

    @classmethod
    @contextmanager
    def made(cls, path: Path) -> Iterator[Folder]:
        """The directory, made with its parents if it is not there."""
        for each in reversed((path, *path.parents)):
            if not each.exists():
                with suppress(FileExistsError):
                    each.mkdir(mode=0o700)
        with cls.opened(path) as folder:
            yield folder

    def _at(self, name: str) -> str | Path:
        return name if self._descriptor is not None else self._path / name

    def read(self, name: str, limit: int) -> bytes:
        """What the file *name* holds, but not more than *limit* bytes and one."""
        descriptor = os.open(self._at(name), _READ, dir_fd=self._descriptor)
        try:
            self._claim_file(descriptor, name)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(limit + 1)
        finally:
            os.close(descriptor)

    def write(self, name: str, data: bytes) -> None:
        """Replace the file *name*: whoever reads meanwhile, or after a crash, sees old or new."""
        self._check_owner(name)
        temporary = self.write_temporary(name, data)
        try:
            self._replace(temporary, name)
        except BaseException:
            with suppress(OSError):
                self.remove(temporary)
            raise
        self.sync()

    def write_temporary(self, name: str, data: bytes) -> str:
        """A new file with *data* in it, on the disk; its name."""
        temporary = f"{_prefix(name)}{os.urandom(8).hex()}.tmp"
        descriptor = os.open(self._at(temporary), _CREATE, 0o600, dir_fd=self._descriptor)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if sys.platform != "win32":
                    os.fchmod(descriptor, 0o600)  # whatever the umask says
                file.write(data)
                file.flush()
                os.fsync(descriptor)
        except BaseException:
            with suppress(OSError):
                self.remove(temporary)
            raise
        return temporary

    def names(self) -> list[str]:
        """What is in the directory, in no order."""
        return os.listdir(  # noqa: PTH208  # Path has no dir_fd
            self._path if self._descriptor is None else self._descriptor
        )

    def open_shared(self, name: str) -> int:
        """A descriptor of the file *name*, to read and write it in place; made if missing."""
        descriptor = os.open(self._at(name), _SHARE, 0o600, dir_fd=self._descriptor)
        try:
            self._claim_file(descriptor, name)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def holds(self, name: str, descriptor: int) -> bool:
        """Whether what is open as *descriptor* is still the file *name*."""
        try:
            status = os.stat(  # Path has no dir_fd
                self._at(name), dir_fd=self._descriptor, follow_symlinks=False
            )
        except FileNotFoundError:
            return False
        return os.path.samestat(status, os.fstat(descriptor))

    def remove(self, name: str) -> None:
        os.unlink(self._at(name), dir_fd=self._descriptor)  # Path has no dir_fd

    def sync(self) -> None:
        """Make a rename or a removal last; not every file system can."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.fsync(self._descriptor)

    def sweep(self, only_writer_of: str | None = None) -> None:
        """Remove what killed writers left behind: it holds secrets.

        What was to become the file *only_writer_of* goes whatever its age.
        """
        with suppress(OSError):
            for name in self.names():
                if name.startswith(".") and name.endswith(".tmp"):
                    status = os.stat(  # Path has no dir_fd
                        self._at(name), dir_fd=self._descriptor, follow_symlinks=False
                    )
                    ours = only_writer_of is not None and name.startswith(_prefix(only_writer_of))
                    if ours or status.st_mtime < time.time() - LEFTOVER_AGE:
                        self.remove(name)

    def _claim_file(self, descriptor: int, name: str) -> None:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise denied(self._path / name, "is not a file")
        _claim(descriptor, 0o600, self._path / name)

    def _check_owner(self, name: str) -> None:
        if sys.platform != "win32":
            with suppress(FileNotFoundError):
                status = os.stat(  # Path has no dir_fd
                    name, dir_fd=self._descriptor, follow_symlinks=False
                )
                if status.st_uid != os.geteuid():
                    raise denied(self._path / name, "belongs to another user")

    def _replace(self, source: str, target: str) -> None:
        if sys.platform != "win32":
            os.rename(source, target, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
            return
        for pause in (0.01, 0.05, 0.25):  # while somebody reads the old file
            with suppress(PermissionError):
                os.replace(self._at(source), self._at(target))  # noqa: PTH105  # as above
                return
            time.sleep(pause)
        os.replace(self._at(source), self._at(target))  # noqa: PTH105  # as above


def _prefix(name: str) -> str:
    return f".{name[:16]}-"


def _claim(descriptor: int, mode: int, path: Path) -> None:
    """Make sure that what is open is ours, and nobody else's to read (SEC-05)."""
    if sys.platform == "win32":
        return
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        raise denied(path, "belongs to another user")
    if status.st_mode & 0o077:
        os.fchmod(descriptor, mode)
        if os.fstat(descriptor).st_mode & 0o077:
            raise denied(path, "is on a file system without permissions")


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Turn what the file system says into a StoreError."""
    try:
        yield
    except OSError as error:
        said = (error.strerror or "input/output error").lower()
        if error.errno in _FULL:
            raise StoreError(
                f"{path} cannot be written: {said}; make room, and try again", reason="full"
            ) from None
        raise denied(path, f"cannot be used ({said})") from None


def denied(path: Path, why: str) -> StoreError:
    return StoreError(
        f"{path} {why}; make it yours alone, or set FLYTEAUTH_HOME to another directory",
        reason="denied",
    )


def no_answer(path: Path) -> StoreError:
    return StoreError(
        f"{path} does not answer; check its file system, or set FLYTEAUTH_HOME", reason="timeout"
    )
