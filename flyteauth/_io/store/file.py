"""
A store of files: one file per record, 0600 in a directory 0700, replaced whole or not at all.

The blocking methods (``load_sync`` and so on) do the work, for programs without an event loop;
the others call them on a daemon thread, because a file system may hang.

Everything happens relative to the opened directory, and no symbolic link is followed: what is
checked is what is used. Windows has neither, nor modes; there the user's profile is private.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple

from ..._sansio.errors import StoreError
from ..._sansio.record import Record, load_record

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

DEADLINE: Final = 5.0
SIZE_MAX: Final = 4 * 1024 * 1024
LEFTOVER_AGE: Final = 600.0  # a temporary file that old belongs to a writer that was killed

_FULL: Final = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_SAFE: Final = (
    getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
)
_READ: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _SAFE  # a FIFO must not block
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE


def home() -> Path:
    """Where flyteauth keeps its files: ``$FLYTEAUTH_HOME``, or the system's place for them."""
    if named := os.environ.get("FLYTEAUTH_HOME"):
        return Path(os.path.expanduser(named)).absolute()  # noqa: PTH111  # never raises
    from platformdirs import user_data_path

    return user_data_path("flyteauth", appauthor=False)


class FileStore:
    """Records as files of *directory*, by default ``logins`` in ``home()``."""

    name = "file"

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or home() / "logins"
        self._hanging: threading.Event | None = None

    def __repr__(self) -> str:
        return f"FileStore({str(self._directory)!r})"

    @property
    def place(self) -> str:
        return str(self._directory)

    async def probe(self) -> None:
        await self._in_thread(self.probe_sync)

    async def load(self, key: str) -> Record | None:
        return await self._in_thread(self.load_sync, key)

    async def save(self, key: str, record: Record) -> None:
        await self._in_thread(self.save_sync, key, record)

    async def delete(self, key: str) -> None:
        await self._in_thread(self.delete_sync, key)

    async def _in_thread(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        from ..threads import run_in_daemon

        if self._hanging is not None and not self._hanging.is_set():
            raise self._timeout()  # one thread that hangs is enough
        ended = threading.Event()

        def run() -> T:
            try:
                return function(*args)
            finally:
                ended.set()

        try:
            return await run_in_daemon(run, deadline=DEADLINE)
        except TimeoutError:
            self._hanging = ended
            raise self._timeout() from None

    def _timeout(self) -> StoreError:
        return StoreError(
            f"{self.place} does not answer; check its file system, or set FLYTEAUTH_HOME",
            reason="timeout",
        )

    # The same without an event loop.

    def load_sync(self, key: str) -> Record | None:
        """See Store.load."""
        path = self._directory / _name(key)
        with _explaining(path):
            try:
                with _Folder.opened(self._directory) as folder:
                    data = folder.read(path.name)
            except FileNotFoundError:
                return None
        return _parse(key, data, path)

    def save_sync(self, key: str, record: Record) -> None:
        """See Store.save."""
        path = self._directory / _name(key)
        text = json.dumps({"key": key, "record": json.loads(record.dump())})
        if len(text) > SIZE_MAX:
            raise StoreError(f"the login is too large for {path}", reason="full")
        with _explaining(path):
            for last in (False, False, True):
                try:
                    with self._made() as folder:
                        folder.sweep()
                        folder.write(path.name, text.encode())
                    return
                except FileNotFoundError:  # a probe that made the directory has removed it
                    if last:
                        raise

    def delete_sync(self, key: str) -> None:
        """See Store.delete."""
        path = self._directory / _name(key)
        gone = suppress(FileNotFoundError)
        with _explaining(path), gone, _Folder.opened(self._directory) as folder:
            folder.remove(path.name)
            folder.sync()

    def probe_sync(self) -> None:
        """See Store.probe. Leaves nothing behind, not even the directory."""
        missing = []
        try:
            with _explaining(self._directory):
                parents = (self._directory, *self._directory.parents)
                missing = [path for path in parents if not path.exists()]
                with self._made() as folder:
                    folder.remove(folder.write_temporary("probe", b" " * 4096))
        finally:
            with suppress(OSError):  # somebody else may have begun to use it
                for path in missing:
                    path.rmdir()

    @contextmanager
    def _made(self) -> Iterator[_Folder]:
        """The directory, made if it is not there."""
        for path in reversed((self._directory, *self._directory.parents)):
            if not path.exists():
                with suppress(FileExistsError):
                    path.mkdir(mode=0o700)
        with _Folder.opened(self._directory) as folder:
            yield folder


class _Folder:
    """An open directory that is ours alone."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self._path = path
        self._descriptor = descriptor  # None on Windows, where directories cannot be opened

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[_Folder]:
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

    def _at(self, name: str) -> str | Path:
        return name if self._descriptor is not None else self._path / name

    def read(self, name: str) -> bytes:
        descriptor = os.open(self._at(name), _READ, dir_fd=self._descriptor)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _denied(self._path / name, "is not a file")
            _claim(descriptor, 0o600, self._path / name)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(SIZE_MAX + 1)
        finally:
            os.close(descriptor)
        if len(data) > SIZE_MAX:
            raise _corrupt(self._path / name)
        return data

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
        temporary = f".{name[:16]}-{os.urandom(8).hex()}.tmp"
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

    def remove(self, name: str) -> None:
        os.unlink(self._at(name), dir_fd=self._descriptor)  # Path has no dir_fd

    def sync(self) -> None:
        """Make a rename or a removal last; not every file system can."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.fsync(self._descriptor)

    def sweep(self) -> None:
        """Remove what killed writers left behind: it holds secrets."""
        with suppress(OSError):
            where = self._path if self._descriptor is None else self._descriptor
            for name in os.listdir(where):  # noqa: PTH208  # Path has no dir_fd
                if name.startswith(".") and name.endswith(".tmp"):
                    status = os.stat(  # the same
                        self._at(name), dir_fd=self._descriptor, follow_symlinks=False
                    )
                    if status.st_mtime < time.time() - LEFTOVER_AGE:
                        self.remove(name)

    def _check_owner(self, name: str) -> None:
        if sys.platform != "win32":
            with suppress(FileNotFoundError):
                status = os.stat(  # Path has no dir_fd
                    name, dir_fd=self._descriptor, follow_symlinks=False
                )
                if status.st_uid != os.geteuid():
                    raise _denied(self._path / name, "belongs to another user")

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


def _claim(descriptor: int, mode: int, path: Path) -> None:
    """Make sure that what is open is ours, and nobody else's to read (SEC-05)."""
    if sys.platform == "win32":
        return
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        raise _denied(path, "belongs to another user")
    if status.st_mode & 0o077:
        os.fchmod(descriptor, mode)
        if os.fstat(descriptor).st_mode & 0o077:
            raise _denied(path, "is on a file system without permissions")


def _name(key: str) -> str:
    """A file name of constant length that no file system objects to; a key holds no secret."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _parse(key: str, data: bytes, path: Path) -> Record:
    try:
        saved = json.loads(data)
        known, record = saved["key"], saved["record"]
    except (ValueError, RecursionError, KeyError, TypeError):
        known, record = None, None
    if known != key:
        raise _corrupt(path)
    return load_record(json.dumps(record))


def _corrupt(path: Path) -> StoreError:
    return StoreError(
        f"{path} does not hold a login that can be read; log in again", reason="corrupt"
    )


def _denied(path: Path, why: str) -> StoreError:
    return StoreError(
        f"{path} {why}; make it yours alone, or set FLYTEAUTH_HOME to another directory",
        reason="denied",
    )


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Turn what the file system says into a StoreError."""
    try:
        yield
    except OSError as error:
        said = (error.strerror or "input/output error").lower()
        if error.errno in _FULL:
            raise StoreError(
                f"{path} cannot be written: {said}; make room, and try again", reason="full"
            ) from None
        raise _denied(path, f"cannot be used ({said})") from None
