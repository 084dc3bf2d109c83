from __future__ import annotations

import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, strategies as st
from keyring.errors import (
    InitError,
    KeyringError,
    KeyringLocked,
    NoKeyringError,
    PasswordDeleteError,
    PasswordSetError,
)

from flyteauth._io.lock import Locks
from flyteauth._io.store import Store, keyring as keyring_module, ring as ring_module
from flyteauth._io.store.envelope import SIZE_MAX
from flyteauth._io.store.file import FileStore
from flyteauth._io.store.items import Found, Items
from flyteauth._io.store.keyring import KeyringStore
from flyteauth._io.store.ring import Damaged, Ring
from flyteauth._sansio.errors import StoreError
from flyteauth._sansio.record import Record
from flyteauth._sansio.tokens import Token

from .rings import (
    CANARY,
    CuttingRing,
    HangingRing,
    Killed,
    LockedRing,
    MemoryRing,
    OddRing,
    ReplacingRing,
    ShortRing,
    StrippingRing,
)

pytestmark = pytest.mark.anyio

LIMIT = 20.0
PLAINTEXT = "keyrings.alt.file.PlaintextKeyring"


def record(access_token: str = CANARY, **more: Any) -> Record:
    token = Token(access_token, obtained_at=1000.0, expires_at=2000.0, refresh_token=CANARY)
    return Record(token, "https://auth.example.org/token", "flytectl", **more)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing known about keyrings, and none on this system."""
    for name in ("PYTHON_KEYRING_BACKEND", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("FLYTEAUTH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(keyring_module, "_process", keyring_module._Process())
    return tmp_path


@pytest.fixture(params=[MemoryRing, ReplacingRing, ShortRing, CuttingRing, StrippingRing])
def ring(request: pytest.FixtureRequest) -> MemoryRing:
    made: MemoryRing = request.param()
    return made


async def refuses(reason: str, act: Callable[..., Any], *args: object) -> StoreError:
    with pytest.raises(StoreError) as caught:
        await act(*args)
    assert caught.value.reason == reason, caught.value
    assert CANARY not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__context__ is None or isinstance(caught.value.__context__, StoreError)
    return caught.value


# What lies in it.


@pytest.mark.req("SEC-10")
@pytest.mark.parametrize("size", [1, 500, 1100, 2000, 20_000, 200_000])
async def test_a_login_of_any_size_comes_back_whole(ring: MemoryRing, size: int) -> None:
    store = KeyringStore(backend=ring)
    await store.probe()
    big = record(f"{CANARY}." + "x." * size, subject="Ada  L ")
    await store.save("a", big)
    assert await KeyringStore(backend=ring).load("a") == big


@pytest.mark.req("SEC-10")
async def test_an_item_that_is_cut_is_found_out_and_split(ring: MemoryRing) -> None:
    await KeyringStore(backend=ring).save("a", record("x" * 5000))  # without a probe before
    pieces = len(ring.items)
    whole = isinstance(ring, ReplacingRing | StrippingRing) or type(ring) is MemoryRing
    assert pieces == 1 if whole and not isinstance(ring, ShortRing) else pieces > 4
    assert all(len(text) <= 1200 for text in ring.items.values()) or pieces == 1


@pytest.mark.req("SEC-10")
async def test_what_no_keyring_can_hold_is_refused(ring: MemoryRing) -> None:
    store = KeyringStore(backend=ring)
    await store.save("a", record("old"))
    await refuses("full", store.save, "a", record("x" * SIZE_MAX))
    assert await store.load("a") == record("old")


async def test_one_item_one_read_and_no_write_of_what_is_there() -> None:
    ring = MemoryRing()
    store = KeyringStore(backend=ring)
    await store.save("a", record("x" * 20_000))
    assert len(ring.items) == 1
    ring.calls.clear()
    assert await store.load("a") == record("x" * 20_000)
    assert [verb for verb, _ in ring.calls] == ["get"]
    ring.calls.clear()
    await store.save("a", record("x" * 20_000))
    assert await store.swap("a", record("x" * 20_000), record("x" * 20_000))
    assert {verb for verb, _ in ring.calls} == {"get"}


async def test_each_item_is_read_once_where_there_are_several() -> None:
    ring = ShortRing()
    store = KeyringStore(backend=ring)
    await store.save("a", record("x" * 20_000))
    ring.calls.clear()
    await store.load("a")
    assert len(ring.calls) == len(set(ring.calls)) == len(ring.items) > 15


@pytest.mark.req("SEC-07", "SEC-11")
async def test_names_come_from_the_key_alone_and_hold_neither_it_nor_a_secret() -> None:
    ring = ShortRing()
    store = KeyringStore(backend=ring)
    await store.save("the-key", record("x" * 5000))
    first = set(ring.items)
    await store.save("the-key", record("y" * 5000))
    await store.save("the-key", record("z" * 5000))
    assert set(ring.items) == first
    assert not any(CANARY in name or "the-key" in name for name in first)


async def test_a_login_under_the_name_of_another_is_corrupt() -> None:
    ring = MemoryRing()
    store = KeyringStore(backend=ring)
    await store.save("a", record())
    ring.items[Items(Ring(ring), "b")._name] = next(iter(ring.items.values()))
    await refuses("corrupt", store.load, "b")


@pytest.mark.req("SEC-09")
@pytest.mark.parametrize(
    "text",
    ["{", "x", "null", "[]", "[" * 100_000, "{}", '{"version":1}.', '{"version":2,"length":0}.'],
)
async def test_a_damaged_item_is_corrupt_and_stays(text: str) -> None:
    ring = MemoryRing()
    store = KeyringStore(backend=ring)
    await store.save("a", record())
    (name,) = ring.items
    ring.items[name] = text
    await refuses("corrupt", store.load, "a")
    assert not await store.swap("a", None, record("new"))
    assert ring.items == {name: text}
    await store.save("a", record("new"))
    assert await store.load("a") == record("new")


@pytest.mark.req("SEC-09")
@pytest.mark.parametrize("make", [MemoryRing, ShortRing])
async def test_a_truncated_or_missing_item_is_corrupt_and_stays(
    make: Callable[[], MemoryRing],
) -> None:
    ring = make()
    store = KeyringStore(backend=ring)
    await store.save("a", record("x." * 2000))
    whole = dict(ring.items)
    first = min(whole)
    for name, text in whole.items():
        for size in (1, 50, len(text) // 2, len(text) - 1):
            ring.items[name] = text[:size]
            await refuses("corrupt", store.load, "a")
            assert ring.items[name] == text[:size]
        if name != first:
            del ring.items[name]
            await refuses("corrupt", store.load, "a")
        ring.items = dict(whole)
    assert await store.load("a") == record("x." * 2000)


@pytest.mark.req("SEC-09")
async def test_pieces_of_different_writes_are_not_put_together() -> None:
    ring = ShortRing()
    store = KeyringStore(backend=ring)
    await store.save("a", record("x" * 5000))
    others = dict(ring.items)
    await store.delete("a")
    await store.save("a", record("y" * 5000))
    for name in [name for name in ring.items if "/" in name]:
        whole = dict(ring.items)
        for other in (others[name], whole[name[:-1] + str(int(name[-1]) % 3 + 1)]):
            ring.items[name] = other
            await refuses("corrupt", store.load, "a")
        ring.items = whole
    assert await store.load("a") == record("y" * 5000)


async def test_an_empty_item_is_none() -> None:
    ring = MemoryRing()
    ring.items[Items(Ring(ring), "a")._name] = ""
    assert await KeyringStore(backend=ring).load("a") is None


@pytest.mark.parametrize("make", [MemoryRing, ShortRing])
async def test_nothing_is_left_of_what_is_deleted(make: Callable[[], MemoryRing]) -> None:
    ring = make()
    store = KeyringStore(backend=ring)
    await store.probe()
    await store.save("a", record("x" * 5000))
    await store.save("a", record("y" * 3000))
    await store.delete("a")
    assert ring.items == {}
    await store.delete("a")
    assert await store.load("a") is None


async def test_a_keyring_that_does_not_delete_is_found_out() -> None:
    ring = OddRing(lambda text: PasswordDeleteError("reason"), "delete")
    store = KeyringStore(backend=ring)
    await refuses("denied", store.probe)
    await store.save("a", record())  # what it takes is kept all the same
    await refuses("denied", store.delete, "a")
    assert await store.load("a") == record()


@pytest.mark.parametrize("verb", ["get_password", "set_password", "delete_password"])
async def test_a_keyring_that_only_pretends_is_found_out(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = MemoryRing()
    monkeypatch.setattr(ring, verb, lambda *args: None)
    await refuses("corrupt", KeyringStore(backend=ring).probe)


async def test_a_probe_leaves_nothing_behind(ring: MemoryRing) -> None:
    await KeyringStore(backend=ring).probe()
    assert ring.items == {}


# A crash between any two steps.


def text_of(ring: MemoryRing) -> str | None:
    ring.dies_at = None
    found = Items(Ring(ring), "a").read()
    return None if found.first is None else found.text


def write(ring: MemoryRing, text: str, dies_at: int | None = None) -> bool:
    """Write as ``save`` does; whether it lived."""
    ring.steps, ring.dies_at = 0, dies_at
    items = Items(Ring(ring), "a")
    try:
        try:
            before = items.read()
        except Damaged:
            before = Found()
        items.write(text, before)
    except Killed:
        return False
    return True


def delete(ring: MemoryRing, dies_at: int | None = None) -> bool:
    ring.steps, ring.dies_at = 0, dies_at
    try:
        Items(Ring(ring), "a").delete()
    except Killed:
        return False
    return True


def is_tidy(ring: MemoryRing, text: str) -> bool:
    """Whether there is nothing but *text*, in as many items as it takes."""
    items = Items(Ring(ring), "a")
    ring.dies_at = None
    found = items.read()
    assert found.first is not None
    generation, parts = found.first.generation, found.first.parts
    names = {items._name, *(items._at(generation, index) for index in range(1, parts))}
    return found.text == text and set(ring.items) == names


SIZES = [10, 1500, 5000]
old_sizes = pytest.mark.parametrize("old", [None, *SIZES])
new_sizes = pytest.mark.parametrize("new", SIZES)
replacing = pytest.mark.parametrize("make", [MemoryRing, ReplacingRing, ShortRing, CuttingRing])


@pytest.mark.req("SEC-06")
@old_sizes
@new_sizes
@replacing
def test_a_killed_writer_leaves_old_or_new_and_nothing_for_long(
    make: Callable[[], MemoryRing], old: int | None, new: int
) -> None:
    before = None if old is None else "o" * old
    after, lived, dies_at = "n" * new, False, -1
    while not lived:
        dies_at += 1
        ring = make()
        if before is not None:
            assert write(ring, before)
        lived = write(ring, after, dies_at)
        assert text_of(ring) in ({after} if lived else {before, after})
        kept = text_of(ring)
        # And another killed one after it, at each of its steps.
        left, again, died = dict(ring.items), False, -1
        while not again:
            died += 1
            ring.items = dict(left)
            again = write(ring, "z" * 2600, died)
            assert text_of(ring) in ({"z" * 2600} if again else {kept, "z" * 2600})
        assert is_tidy(ring, "z" * 2600)
    assert dies_at > 3


@pytest.mark.req("SEC-06")
@old_sizes
@new_sizes
@replacing
def test_a_killed_logout_leaves_all_or_nothing(
    make: Callable[[], MemoryRing], old: int | None, new: int
) -> None:
    """Even if the writer before it was killed: nothing older comes back."""
    before = None if old is None else "o" * old
    lived, dies_at = False, -1
    while not lived:
        dies_at += 1
        ring = make()
        if before is not None:
            write(ring, before)
        lived = write(ring, "n" * new, dies_at)
        kept, left, gone, died = text_of(ring), dict(ring.items), False, -1
        while not gone:
            died += 1
            ring.items = dict(left)
            gone = delete(ring, died)
            assert text_of(ring) in ({None} if gone else {kept, None})
        assert ring.items == {}


STEPS = st.one_of(st.none(), st.integers(0, 40))
OPERATION = st.tuples(st.sampled_from(["write", "delete"]), st.sampled_from(SIZES), STEPS)


@pytest.mark.req("SEC-06")
@given(
    operations=st.lists(OPERATION, max_size=12), make=st.sampled_from([ReplacingRing, ShortRing])
)
def test_no_row_of_crashes_loses_a_record_or_brings_one_back(
    operations: list[tuple[str, int, int | None]], make: type[MemoryRing]
) -> None:
    ring, there = make(), None
    for number, (verb, size, dies_at) in enumerate(operations):
        wanted = f"{number}".ljust(size, "x") if verb == "write" else None
        lived = delete(ring, dies_at) if wanted is None else write(ring, wanted, dies_at)
        found = text_of(ring)
        assert found in ({wanted} if lived else {there, wanted})
        there = found
    assert write(ring, "last")
    assert is_tidy(ring, "last")


class OvertakenRing(ShortRing):
    """A whole write happens before its call number ``at``."""

    at = -1

    def get_password(self, service: str, name: str) -> str | None:
        if len(self.calls) == self.at:
            self.at = -1
            write(self, "n" * 5000)
        return super().get_password(service, name)


@pytest.mark.req("SEC-06")
def test_whoever_is_overtaken_while_reading_sees_old_or_new() -> None:
    for at in range(100):
        ring = OvertakenRing()
        write(ring, "o" * 5000)
        ring.calls.clear()
        ring.at = at
        assert Items(Ring(ring), "a").read().text in {"o" * 5000, "n" * 5000}
        if ring.at == at:
            break
    assert at > 3


class Pausing(ShortRing):
    """The keyring of a writer that goes on only when it is let."""

    def __init__(self, items: dict[str, str], text: str) -> None:
        super().__init__()
        self.items = items
        self._text = text
        self._stands, self._may = threading.Semaphore(0), threading.Semaphore(0)
        self._over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        write(self, self._text)
        self._over = True
        self._stands.release()

    def step(self) -> None:
        self._stands.release()
        assert self._may.acquire(timeout=LIMIT)
        super().step()

    def go(self, steps: int) -> bool:
        """Let it take some steps and stand still; whether there were so many."""
        assert self._stands.acquire(timeout=LIMIT)
        for _ in range(steps):
            if self._over:
                break
            self._may.release()
            assert self._stands.acquire(timeout=LIMIT)
        self._stands.release()
        return not self._over

    def end(self) -> None:
        self._may.release(1000)
        self._thread.join(LIMIT)


class WatchingRing(MemoryRing):
    """The keyring of a reader; before its call number ``at`` something happens."""

    at = -1

    def __init__(self, items: dict[str, str], happens: Callable[[], object]) -> None:
        super().__init__()
        self.items = items
        self.happens = happens

    def step(self) -> None:
        if len(self.calls) - 1 == self.at:
            self.happens()
        super().step()


@pytest.mark.req("SEC-06")
@pytest.mark.parametrize("size", [10, 5000])
def test_whoever_reads_while_a_writer_stands_anywhere_sees_old_or_new(size: int) -> None:
    for steps in range(100):
        for at in range(8):
            ring = ShortRing()
            write(ring, "o" * size)
            writer = Pausing(ring.items, "n" * size)
            more = writer.go(steps)
            reader = WatchingRing(ring.items, writer.end)
            reader.at = at
            found = Items(Ring(reader), "a").read()
            writer.end()
            assert found.text in {"o" * size, "n" * size}
        if not more:
            break
    assert 5 < steps < 99


@pytest.mark.req("SEC-06")
@pytest.mark.parametrize("verb", ["set", "get", "delete"])
async def test_what_fails_half_way_leaves_the_old_record(verb: str) -> None:
    """Not a crash, but an error at each call in turn."""
    for number in range(30):
        ring = ReplacingRing()
        store = KeyringStore(backend=ring)
        await store.save("a", record("old"))
        real, count = getattr(ring, f"{verb}_password"), 0

        def fail(*args: Any, real: Any = real, number: int = number) -> Any:
            nonlocal count
            count += 1
            if count == number + 1:
                raise KeyringError("not now")
            return real(*args)

        setattr(ring, f"{verb}_password", fail)
        try:
            await store.save("a", record("new"))
            expected = [record("new")]
        except StoreError:
            expected = [record("old"), record("new")]
        delattr(ring, f"{verb}_password")
        assert await store.load("a") in expected
        if count <= number:
            break
    else:
        raise AssertionError("it never got through")


# What they raise.


class BodyError(Exception):
    """A D-Bus error, say."""


ODD: list[tuple[Callable[[str], BaseException], str]] = [
    (lambda text: NoKeyringError("none"), "missing"),
    (lambda text: KeyringLocked("Failed to unlock the collection!"), "locked"),
    (lambda text: InitError("Failed to create the collection: Prompt dismissed.."), "locked"),
    (lambda text: PasswordSetError("Cancelled by user"), "locked"),
    (lambda text: KeyringError("Can't get password: (-25308, 'Unknown Error')"), "locked"),
    (lambda text: EOFError("EOF when reading a line"), "locked"),
    (lambda text: PasswordSetError(f"cannot store {text}"), "denied"),
    (AssertionError, "denied"),
    (lambda text: ValueError("Incorrect Password"), "denied"),
    (lambda text: IndexError("list index out of range"), "denied"),
    (lambda text: subprocess.CalledProcessError(2, ["pass", "insert", text, CANARY]), "denied"),
    (lambda text: BodyError(f"org.freedesktop.DBus.Error.NoReply\n\x1b[31m{CANARY}"), "denied"),
    (lambda text: SystemExit(3), "denied"),
    (lambda text: TimeoutError("the read operation timed out"), "denied"),
    (lambda text: OSError(13, "Permission denied", CANARY), "denied"),
    (lambda text: OSError(28, "No space left on device", CANARY), "full"),
    (lambda text: UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, "invalid"), "corrupt"),
]


@pytest.mark.req("SEC-09", "SEC-01")
@pytest.mark.parametrize(("error", "reason"), ODD)
async def test_whatever_they_raise_is_a_store_error(
    error: Callable[[str], BaseException], reason: str
) -> None:
    ring = OddRing(error)
    store = KeyringStore(backend=ring)
    for act in (store.probe, lambda: store.load("a"), lambda: store.save("a", record())):
        await refuses(reason, act)
    await refuses(reason, store.swap, "a", None, record())
    await refuses(reason, store.delete, "a")


@pytest.mark.req("SEC-01")
@pytest.mark.parametrize(
    "disguise",
    [
        lambda text: text,
        lambda text: text[:20],
        lambda text: f"cannot store {text[30:200]!r}",
        lambda text: "cannot store " + text[text.index(CANARY) : text.index(CANARY) + 8],
    ],
)
def test_an_error_that_quotes_what_was_written_is_not_quoted(
    disguise: Callable[[str], str],
) -> None:
    secret = f'{{"key":"a","record":{{"token":{{"access_token":"{CANARY}"}}}}}}'
    error = ring_module.explained(PasswordSetError(disguise(secret)), "the keyring", secret=secret)
    assert "canary" not in str(error)
    assert "(PasswordSetError)" in str(error)
    harmless = PasswordSetError("Can't store: (-25299)")
    assert "-25299" in str(ring_module.explained(harmless, "the keyring", secret=secret))
    foreign = ring_module.explained(harmless, "the keyring", secret=secret, quotable=False)
    assert "-25299" not in str(foreign)


@pytest.mark.req("SEC-01")
def test_a_command_line_is_never_quoted() -> None:
    for error in (
        subprocess.CalledProcessError(2, ["pass", CANARY]),
        subprocess.TimeoutExpired(["pass", CANARY], 1.0),
    ):
        assert CANARY not in str(ring_module.explained(error, "the keyring"))


def test_an_error_that_cannot_even_be_printed() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert "Unprintable" in str(ring_module.explained(Unprintable(), "the keyring"))


@pytest.mark.req("SEC-09")
async def test_a_locked_keyring_is_not_an_empty_one() -> None:
    ring = LockedRing()
    store = KeyringStore(backend=ring)
    ring.locked = False
    await store.save("a", record())
    ring.locked = True
    before = dict(ring.items)
    for act in (store.probe, lambda: store.load("a"), lambda: store.delete("a")):
        error = await refuses("locked", act)
        assert "unlock it" in str(error)
    await refuses("locked", store.save, "a", record("new"))
    await refuses("locked", store.swap, "a", record(), record("new"))
    assert ring.items == before
    ring.locked = False
    assert await store.load("a") == record()


async def test_a_dismissed_prompt_is_not_followed_by_another() -> None:
    for act in ("probe", "load", "save", "delete"):
        ring = LockedRing()
        store = KeyringStore(backend=ring)
        args: list[Any] = ["a"] if act in {"load", "save", "delete"} else []
        args += [record("x" * 5000)] if act == "save" else []
        await refuses("locked", getattr(store, act), *args)
        assert len(ring.calls) == 1, act


# One that hangs.


async def test_a_keyring_that_hangs_ends_at_the_deadline_and_holds_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ring = HangingRing()
    store, other = KeyringStore(backend=ring), KeyringStore(backend=ring)
    monkeypatch.setattr(keyring_module, "DEADLINE", 0.05)
    monkeypatch.setattr(keyring_module, "PATIENCE", 0.1)

    async def load() -> None:
        await refuses("timeout", store.load, "a")

    before = threading.active_count()
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(load)
    with anyio.fail_after(LIMIT):
        for _ in range(20):  # at once now, whichever store asks
            await refuses("timeout", other.load, "a")
            await refuses("timeout", other.probe)
            await refuses("timeout", other.save, "a", record())
        while threading.active_count() > before + 1:  # noqa: ASYNC110  # threads set no event
            await anyio.sleep(0.01)
    assert ring.entered == 1
    ring.go.set()
    monkeypatch.setattr(keyring_module, "DEADLINE", LIMIT)
    monkeypatch.setattr(keyring_module, "PATIENCE", LIMIT)
    with anyio.fail_after(LIMIT):
        while True:
            try:
                await other.save("a", record())
                break
            except StoreError:
                await anyio.sleep(0.01)
    assert await store.load("a") == record()


async def test_a_cancelled_call_lets_go_at_once() -> None:
    ring = HangingRing()
    store = KeyringStore(backend=ring)
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:
            group.start_soon(store.load, "a")
            while not ring.came.is_set():  # noqa: ASYNC110  # a thread sets it
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
    ring.go.set()


HANGS = """
import sys, threading, time
import anyio
from pathlib import Path
from flyteauth._io.store import keyring
from flyteauth._io.store.fallback import Fallback
from flyteauth._io.store.file import FileStore
from flyteauth._sansio.record import Record
from flyteauth._sansio.tokens import Token
keyring.PATIENCE = keyring.DEADLINE = 0.2

class Hanging:
    def get_password(self, *args):
        threading.Event().wait()
    set_password = delete_password = get_password

async def warn(text):
    print(text, flush=True)

async def main():
    files = FileStore(Path(sys.argv[2]))
    store = Fallback(keyring.KeyringStore(files=files, backend=Hanging()), files, warn)
    record = Record(Token("t", obtained_at=0.0), "https://a/", "c")
    assert await store.load("a") is None
    await store.probe()
    await store.save("a", record)
    assert await store.load("a") == record
    print("kept in", store.place, flush=True)

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.req("SEC-08")
def test_a_login_completes_and_the_process_exits_although_the_keyring_hangs(
    anyio_backend: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-W", "error", "-c", HANGS, anyio_backend, str(tmp_path / "logins")]
    done = subprocess.run(command, capture_output=True, check=True, timeout=LIMIT, text=True)
    warned, kept = done.stdout.splitlines()
    assert "does not answer" in warned
    assert f"kept in {tmp_path / 'logins'}" in warned
    assert kept == f"kept in {tmp_path / 'logins'}"
    assert done.stderr == ""


async def test_nothing_happens_on_the_event_loop_thread() -> None:
    ring, threads = MemoryRing(), set[int]()

    def step() -> None:
        threads.add(threading.get_ident())

    ring.step = step  # type: ignore[method-assign]
    store = KeyringStore(backend=ring)
    await store.probe()
    await store.save("a", record())
    await store.load("a")
    assert threads
    assert threading.get_ident() not in threads


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
async def test_a_forked_child_does_not_wait_for_a_thread_that_it_does_not_have() -> None:
    keyring_module._process.turn.acquire()
    before = keyring_module._process
    try:
        keyring_module._forget()  # what a fork calls in the child
        assert await KeyringStore(backend=MemoryRing()).load("a") is None
    finally:
        before.turn.release()


# Which one.


def module(name: str, monkeypatch: pytest.MonkeyPatch, **kinds: type) -> None:
    made = types.ModuleType(name)
    for kind_name, kind in kinds.items():
        kind.__module__, kind.__name__ = name, kind_name
        setattr(made, kind_name, kind)
    monkeypatch.setitem(sys.modules, name, made)


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")


def viable(priority: float) -> type[MemoryRing]:
    return type("Viable", (MemoryRing,), {"priority": priority})


@pytest.mark.usefixtures("linux")
@pytest.mark.parametrize(
    ("secret_service", "kwallet", "label"),
    [(5, 4.9, "SecretService"), (5, 5.1, "KWallet"), (None, 4.9, "KWallet")],
)
async def test_the_operating_systems_own_keyring_is_used(
    secret_service: float | None, kwallet: float, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backends = "keyring.backends"
    if secret_service is not None:
        module(f"{backends}.SecretService", monkeypatch, Keyring=viable(secret_service))
    module(f"{backends}.kwallet", monkeypatch, DBusKeyring=viable(kwallet))
    store = KeyringStore()
    assert store.place == "the keyring"
    assert store.safety == "not known before the first use"
    await store.save("a", record())
    assert store.place == f"the keyring ({label})"
    assert "encrypted with" in store.safety
    assert await KeyringStore().load("a") == record()  # it is remembered for the process


@pytest.mark.parametrize(
    ("platform", "name", "kind"),
    [("darwin", "macOS", "Keyring"), ("win32", "Windows", "WinVaultKeyring")],
)
def test_each_system_has_its_own(
    platform: str, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module(f"keyring.backends.{name}", monkeypatch, **{kind: viable(5)})
    module("keyring.backends.SecretService", monkeypatch, Keyring=viable(9))
    monkeypatch.setattr(sys, "platform", platform)
    ring = ring_module.choose(named=False)
    assert type(ring.backend).__module__ == f"keyring.backends.{name}"
    assert ring.is_own
    assert "encrypted by" in ring.safety
    assert ring.takes_long_items == (platform != "win32")


ASKS = """
import sys
from keyring.backend import KeyringBackend
class Asking(KeyringBackend):
    priority = 9
    def __init__(self):
        print("asked:", sys.stdin.readline())
    def get_password(self, *args):
        print("asked:", sys.stdin.readline())
    set_password = delete_password = get_password
"""

TRIES = """
import sys, anyio
from flyteauth._io.store.keyring import KeyringStore
from flyteauth._sansio.errors import StoreError
async def main():
    for named in (False, True):
        try:
            await KeyringStore(named=named).probe()
            print("used")
        except StoreError as error:
            print(error.reason)
    print("keyrings.alt" in sys.modules, "asking" in sys.modules)
    import keyring
    if sys.argv[1] == "control":
        keyring.get_keyring()
    print("left:", sys.stdin.read())
anyio.run(main)
"""


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize("control", ["", "control"])
def test_nothing_reads_stdin_unasked(alone: Path, control: str) -> None:
    """A backend that asks has the highest priority of all; keyring itself would take it."""
    (alone / "asking.py").write_text(ASKS)
    info = alone / "asking-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: asking\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[keyring.backends]\nasking = asking\n")
    done = subprocess.run(
        [sys.executable, "-c", TRIES, control],
        input="typed by a person\n",
        env={**os.environ, "PYTHONPATH": str(alone)},
        capture_output=True,
        check=True,
        text=True,
        timeout=LIMIT,
    )
    lines = done.stdout.splitlines()
    assert lines[:2] == ["missing", "used"]  # by name, the one that stores plain text
    assert lines[2].endswith("False")
    assert ("asked: typed by a person" in lines) == (control == "control")
    assert ("left: typed by a person" in lines) == (control != "control")


async def test_no_keyring_at_all_is_missing_and_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = []
    real = ring_module.choose

    def choose(*, named: bool) -> Ring:
        chosen.append(named)
        return real(named=named)

    monkeypatch.setattr(keyring_module, "choose", choose)
    for _ in range(3):
        error = await refuses("missing", KeyringStore().load, "a")
        assert "token_store" in str(error)
    assert chosen == [False]
    assert KeyringStore().place == "the keyring"


async def test_without_the_package_there_is_no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("keyring", "keyring.core"):
        monkeypatch.setitem(sys.modules, name, None)
    for named in (False, True):
        error = await refuses("missing", KeyringStore(named=named).probe)
        assert "cannot be imported" in str(error)


@pytest.mark.req("SEC-08")
async def test_a_keyring_that_stores_plain_text_is_used_if_asked_for(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = await refuses("missing", KeyringStore().probe)
    assert f"({PLAINTEXT} is used only with tokenStore: keyring)" in str(error)
    asked = KeyringStore(named=True)
    await asked.probe()
    big = record("x" * 20_000, subject="Ada L")
    await asked.save("a", big)
    assert await asked.load("a") == big
    assert asked.safety == "not encrypted"
    assert PLAINTEXT in asked.place
    assert (alone / "data" / "python_keyring" / "keyring_pass.cfg").is_file()  # noqa: ASYNC240
    monkeypatch.setattr(keyring_module, "_process", keyring_module._Process())
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", PLAINTEXT)
    assert await KeyringStore().load("a") == big
    await KeyringStore().delete("a")
    assert await asked.load("a") is None


@pytest.mark.parametrize("by", ["environment", "file"])
@pytest.mark.parametrize(
    ("name", "reason", "said"),
    [
        ("keyring.backends.null.Keyring", "missing", "switched off"),
        ("keyring.backends.fail.Keyring", "missing", "switched off"),
        ("no.such.Keyring", "missing", "No module named 'no'"),
        ("nonsense", "missing", "cannot be used"),
        ("keyrings.alt.Google.DocsKeyring", "missing", "RuntimeError"),
        ("keyring.backends.chainer.ChainerBackend", "missing", "no keyring of the system"),
    ],
)
async def test_what_configuration_names_is_used_or_an_error(
    by: str, name: str, reason: str, said: str, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(by, name, alone, monkeypatch)
    error = await refuses(reason, KeyringStore().probe)
    assert said in str(error)


def configure(by: str, name: str, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "environment":
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", name)
    else:
        path = alone / "config" / "python_keyring" / "keyringrc.cfg"
        path.parent.mkdir(parents=True)
        path.write_text(f"[backend]\ndefault-keyring={name}\n")


@pytest.mark.parametrize("by", ["environment", "file"])
async def test_a_keyring_that_may_ask_is_used_if_configuration_names_it(
    by: str, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module("thirdparty", monkeypatch, Keyring=viable(1))
    configure(by, "thirdparty.Keyring", alone, monkeypatch)
    store = KeyringStore()
    await store.save("a", record())
    assert await store.load("a") == record()
    assert store.place == "the keyring (thirdparty.Keyring)"
    assert "only thirdparty knows" in store.safety


# Windows, with its real backend and a Credential Manager of our own.


class CredentialManager:
    CRED_TYPE_GENERIC = 1
    CRED_PERSIST_ENTERPRISE = 3

    class error(Exception):
        def __init__(self, winerror: int, funcname: str, strerror: str) -> None:
            super().__init__(winerror, funcname, strerror)
            self.winerror, self.funcname = winerror, funcname

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, bytes]] = {}

    def CredRead(self, Type: int, TargetName: str) -> dict[str, Any]:
        if TargetName not in self.kept:
            raise self.error(1168, "CredRead", "Element not found.")
        user, blob = self.kept[TargetName]
        return {"UserName": user, "CredentialBlob": blob}

    def CredWrite(self, credential: dict[str, Any], flags: int) -> None:
        blob = credential["CredentialBlob"].encode("utf-16-le")
        if len(blob) > 2560:
            raise self.error(1783, "CredWrite", "The stub received bad data.")
        self.kept[credential["TargetName"]] = (credential["UserName"], blob)

    def CredDelete(self, Type: int, TargetName: str) -> None:
        if self.kept.pop(TargetName, None) is None:
            raise self.error(1168, "CredDelete", "Element not found.")


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> tuple[CredentialManager, KeyringStore]:
    from keyring.backends import Windows

    manager = CredentialManager()
    monkeypatch.setattr(Windows, "win32cred", manager, raising=False)
    monkeypatch.setattr(Windows, "pywintypes", manager, raising=False)
    return manager, KeyringStore(backend=Windows.WinVaultKeyring())  # type: ignore[no-untyped-call]


@pytest.mark.req("SEC-10")
async def test_windows_keeps_a_big_login_and_never_sees_too_long_an_item(
    windows: tuple[CredentialManager, KeyringStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, store = windows
    await store.probe()
    assert manager.kept == {}
    real, lengths = manager.CredWrite, []

    def write(credential: dict[str, Any], flags: int) -> None:
        lengths.append(len(credential["CredentialBlob"]))
        real(credential, flags)

    monkeypatch.setattr(manager, "CredWrite", write)
    for key in ("a", "b"):
        await store.save(key, record(key + "x" * 20_000))
        await store.save(key, record(key + "y" * 9_000))
    assert await store.load("a") == record("a" + "y" * 9_000)
    assert await store.load("b") == record("b" + "y" * 9_000)
    assert max(lengths) <= 1200
    await store.delete("a")
    assert await store.load("b") == record("b" + "y" * 9_000)
    await store.delete("b")
    assert manager.kept == {}


@pytest.mark.req("SEC-10")
async def test_a_full_credential_manager_keeps_the_old_login(
    windows: tuple[CredentialManager, KeyringStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, store = windows
    await store.save("a", record("old"))

    def full(credential: dict[str, Any], flags: int) -> None:
        raise manager.error(1783, "CredWrite", "The stub received bad data.")

    monkeypatch.setattr(manager, "CredWrite", full)
    error = await refuses("full", store.save, "a", record("new" * 1000))
    assert "Windows Credential Manager" in str(error)
    assert await store.load("a") == record("old")


# Turns.


async def test_an_identity_has_one_turn_whatever_store_it_is_in(tmp_path: Path) -> None:
    files = FileStore(tmp_path / "logins")
    store = KeyringStore(files=files, backend=MemoryRing())

    async def within() -> str:
        await refuses("busy", lambda: files.exclusively("a", nothing, deadline=0.02))
        return await files.exclusively("b", nothing, deadline=LIMIT)

    async def nothing() -> str:
        return "done"

    assert await store.exclusively("a", within, deadline=LIMIT) == "done"
    assert await files.exclusively("a", nothing, deadline=LIMIT) == "done"


async def test_writers_of_other_processes_are_waited_for_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks = Locks(tmp_path / "locks")
    ring = MemoryRing()
    store = KeyringStore(locks=Locks(tmp_path / "locks"), backend=ring)
    monkeypatch.setattr(keyring_module, "WRITE_WAIT", 0.02)
    with locks.held("keyring.write", LIMIT):
        await refuses("busy", store.save, "a", record())
        assert await store.load("a") is None  # whoever reads need not wait
    assert ring.items == {}
    await store.save("a", record())


WRITES = """
import sys, anyio
from flyteauth._io.store.keyring import KeyringStore
from flyteauth._sansio.record import Record
from flyteauth._sansio.tokens import Token
async def main():
    for number in range(10):
        name = f"{sys.argv[1]}-{number}"
        record = Record(Token(name, obtained_at=0.0), "https://a/", "c")
        await KeyringStore().save(name, record)
anyio.run(main)
"""


async def test_processes_lose_nothing_in_a_keyring_that_rewrites_all_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without turns, 30 of 120 writes of four processes were left."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", PLAINTEXT)
    commands = [[sys.executable, "-W", "error", "-c", WRITES, f"p{number}"] for number in range(4)]
    async with anyio.create_task_group() as group:
        for command in commands:
            group.start_soon(anyio.run_process, command)
    for process in range(4):
        for number in range(10):
            loaded = await KeyringStore().load(f"p{process}-{number}")
            assert loaded is not None
            assert loaded.token.access_token == f"p{process}-{number}"


async def test_where_nothing_can_be_locked_it_goes_on_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = KeyringStore(locks=Locks(tmp_path / "file" / "locks"), backend=MemoryRing())
    await store.probe()
    await store.save("a", record())
    assert await store.swap("a", record(), record("new"))
    await store.delete("a")


def test_it_is_a_store() -> None:
    store: Store = KeyringStore(backend=MemoryRing())
    assert store.name == "keyring"
    assert KeyringStore().slot == KeyringStore(named=True).slot == ("keyring",)
    assert store.slot != KeyringStore().slot
    assert repr(store) == "KeyringStore(named=False)"


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("flyteauth ") and thread.name != "flyteauth portal":
            thread.join(LIMIT)
            assert not thread.is_alive(), thread
