"""
Many processes that write one login, and are killed at any moment: is it ever torn?

Run it with numbers of your own::

    python -m tests.io.writers /tmp/some/new/directory 16 1000 200
"""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
import time
from pathlib import Path

from attrs import frozen

from flyteauth._io.store.file import FileStore
from flyteauth._sansio.record import Record
from flyteauth._sansio.tokens import Token

SIZE = 20_000
KEY = "a"

WRITER = """
import os, sys
from pathlib import Path
from flyteauth._io.store.file import FileStore
from flyteauth._sansio.errors import StoreError
from flyteauth._sansio.record import Record
from flyteauth._sansio.tokens import Token
directory, name, first, count, size = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
store = FileStore(directory)
for number in range(first, count):
    text = f"{name}-{number}-" + "x" * size
    record = Record(Token(text, obtained_at=0.0, refresh_token=text), "https://a/", name)
    while True:
        try:
            if number % 2:
                store.save_sync("a", record)
            else:
                store.swap_sync("a", store.load_sync("a"), record)
            break
        except StoreError as error:  # on a machine that is too busy for so many
            if error.reason != "busy":
                raise
            os.write(2, b"!")
    os.write(1, b".")
"""


@frozen
class Outcome:
    """What came of it; that nothing was torn is what it took to get here."""

    written: int
    killed: int
    reads: int
    seconds: float


class Writer:
    """A process that writes so many records, and may be started again where it was killed."""

    def __init__(self, directory: Path, name: str, writes: int) -> None:
        self._arguments = [str(directory), name]
        self._writes = writes
        self._written = 0
        self.start()

    def start(self) -> None:
        numbers = [str(self._written), str(self._writes), str(SIZE)]
        command = [sys.executable, "-c", WRITER, *self._arguments, *numbers]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)

    @property
    def written(self) -> int:
        if (said := self.process.stdout) is not None and not said.closed:
            self._written += len(said.read() or b"")
        return self._written

    def kill(self) -> bool:
        """Whether it was still at it."""
        if self.process.poll() is not None:
            return False
        self.process.kill()
        self.end()
        return True

    def end(self) -> int:
        status = self.process.wait()
        _ = self.written
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


def storm(directory: Path, processes: int, writes: int, kills: int) -> Outcome:
    """Let *processes* write *writes* times each, kill one *kills* times at most and start it
    again where it was, and read all the while.

    Raises what a reader gets, if anybody does, and AssertionError if anything else is wrong.
    """
    started = time.monotonic()
    store, killed, reads = FileStore(directory), 0, 0
    writers = [Writer(directory, f"w{number}", writes) for number in range(processes)]
    try:
        while any(writer.process.poll() is None for writer in writers):
            check(store)
            reads += 1
            written = sum(writer.written for writer in writers)
            at_it = [writer for writer in writers if 0 < writer.written < writes]
            if killed < kills and at_it and written * kills >= killed * processes * writes:
                time.sleep(random.random() * 0.005)
                victim = random.choice(at_it)
                if victim.kill():
                    killed += 1
                    check(store)
                    victim.start()
        statuses = [writer.end() for writer in writers]
    finally:
        for writer in writers:
            writer.process.kill()
            writer.process.wait()
    assert statuses == [0] * processes
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    store.save_sync(KEY, Record(Token("last", obtained_at=0.0), "https://a/", "last"))
    assert not list(directory.glob(".*.tmp"))
    return Outcome(
        sum(writer.written for writer in writers), killed, reads, time.monotonic() - started
    )


def check(store: FileStore) -> None:
    record = store.load_sync(KEY)
    if record is not None:
        text = record.token.access_token
        assert text.startswith(f"{record.client_id}-")
        assert text.endswith("x" * SIZE)
        assert record.token.refresh_token == text


if __name__ == "__main__":
    print(storm(Path(sys.argv[1]), *map(int, sys.argv[2:])))
