"""The folder of ``--data``: what a control plane keeps, in SQLite, so that a restart goes on.

Everything in it is for its owner alone: there are secrets among what is kept.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from .shelves import Thing

VERSION: Final = 1
LOCK_WAIT: Final = 2.0  # seconds

_META: Final = "meta"


class DataError(Exception):
    """The folder cannot be used; the message is one line that says what to do."""


class Data:
    """An open folder; no other process can open it meanwhile. All calls block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "state.db"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self._database = _opened(path)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise DataError(
                    f"{path} cannot be opened ({error}); choose another --data"
                ) from None
            raise DataError(
                f"{folder} is in use by another control plane; stop that one, or choose another "
                "--data"
            ) from None
        except sqlite3.DatabaseError as error:
            raise DataError(f"{path} is not ours ({error}); choose another --data") from None
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise DataError(
                f"{error.filename or folder}: {reason}; check the path, or choose another --data"
            ) from None

    def close(self) -> None:
        self._database.close()

    def things(self) -> list[Thing]:
        """All that is kept, in the order in which it came."""
        rows = self._database.execute(
            "SELECT kind, key, value FROM thing WHERE kind != ? ORDER BY rowid", (_META,)
        )
        return [Thing(*row) for row in rows]

    def keep(self, things: Iterable[Thing]) -> None:
        """Write down what has changed, all of it or nothing. Raises DataError."""
        try:
            with self._database:
                for thing in things:
                    self._write(thing)
        except sqlite3.OperationalError as error:
            raise DataError(
                f"{self.folder / 'state.db'} cannot be written ({error}); make room, and look "
                "whether it was done all the same: then it is written with the next change"
            ) from None

    def _write(self, thing: Thing) -> None:
        if thing.value is None:
            self._database.execute(
                "DELETE FROM thing WHERE kind = ? AND key = ?", (thing.kind, thing.key)
            )
            return
        self._database.execute(
            "INSERT INTO thing (kind, key, value) VALUES (?, ?, ?) "
            "ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value",
            (thing.kind, thing.key, thing.value),
        )

    # What the server itself keeps, beside the control plane.

    def note(self, name: str) -> bytes | None:
        row = self._database.execute(
            "SELECT value FROM thing WHERE kind = ? AND key = ?", (_META, name)
        ).fetchone()
        return None if row is None else bytes(row[0])

    def keep_note(self, name: str, value: bytes) -> None:
        self.keep([Thing(_META, name, value)])


def _opened(path: Path) -> sqlite3.Connection:
    # Calls come from worker threads, one at a time.
    database = sqlite3.connect(path, timeout=LOCK_WAIT, check_same_thread=False)
    try:
        # The lock is held until the database is closed, or the process ends.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        with database:
            database.execute("BEGIN EXCLUSIVE")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version not in {0, VERSION}:
                raise sqlite3.DatabaseError(f"version {version} instead of {VERSION}")  # noqa: TRY301
            database.execute(
                "CREATE TABLE IF NOT EXISTS thing (kind TEXT NOT NULL, key TEXT NOT NULL, "
                "value BLOB NOT NULL, UNIQUE (kind, key))"
            )
            database.execute(f"PRAGMA user_version = {VERSION}")
    except BaseException:
        with suppress(sqlite3.Error):
            database.close()
        raise
    return database
