from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote as percent

import anyio
import pytest
import trustme
from hypothesis import given, strategies as st

from flyteauth._io.store import redis as redis_module
from flyteauth._io.store.envelope import SIZE_MAX, seal
from flyteauth._io.store.redis import RedisStore, check_url
from flyteauth._sansio.errors import ConfigError, StoreError
from flyteauth._sansio.record import Record, is_same
from flyteauth._sansio.tokens import Token

from .server import Connection, Script, serve, silent
from .valkey import LIMIT, MAKES, Make, Valkey, forwarding, free_port, shared_for, valkey

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="Valkey does not run on Windows"),
]

CANARY = "canary-4711-secret"
HELLO = b"%7\r\n" + b"".join(
    b"$%d\r\n%b\r\n%b\r\n" % (len(name), name, value)
    for name, value in {
        b"server": b"$6\r\nvalkey",
        b"version": b"$5\r\n7.0.0",
        b"proto": b":3",
        b"id": b":1",
        b"mode": b"$10\r\nstandalone",
        b"role": b"$6\r\nmaster",
        b"modules": b"*0",
    }.items()
)


def record(access_token: str = CANARY, refresh_token: str | None = CANARY, **more: Any) -> Record:
    more = {"obtained_at": 1000.0, "expires_at": 2000.0, **more}
    token = Token(access_token, refresh_token=refresh_token, **more)
    return Record(token, "https://auth.example.org/token", "flytectl")


@pytest.fixture(params=MAKES, scope="module")
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


@pytest.fixture
def server(tmp_path: Path, make: Make) -> Valkey:
    """One that is shared, and empty."""
    return shared_for(tmp_path, make)


@pytest.fixture
def store(server: Valkey) -> RedisStore:
    return patient(server.url)


def patient(url: str, **more: Any) -> RedisStore:
    """A store that a busy machine does not make give up."""
    return RedisStore(url, **{"deadline": LIMIT, **more})


async def refuses(reason: str, call: Awaitable[object]) -> StoreError:
    with pytest.raises(StoreError) as caught:
        await call
    error = caught.value
    assert error.reason == reason, error
    shown = "".join(traceback.format_exception(error))
    assert CANARY not in shown
    assert "\n" not in str(error)
    assert "; " in str(error)  # and then what to do
    return error


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(LIMIT):
        while not condition():  # noqa: ASYNC110  # nobody signals what a server knows
            await anyio.sleep(0.005)


def bad(*_: object) -> NoReturn:
    raise AssertionError("this must not be called")


async def never() -> None:
    bad()


# The URL.


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://localhost", "redis at localhost:6379/0"),
        ("redis://localhost:7000/3", "redis at localhost:7000/3"),
        ("valkey://:pw@Host.example.org/", "redis at host.example.org:6379/0"),
        ("rediss://user:p%40ss@10.0.0.1:1", "redis at 10.0.0.1:1/0"),
        ("valkeys://user@[::1]:7000/15", "redis at [::1]:7000/15"),
        ("redis://localhost?db=2", "redis at localhost:6379/2"),
        ("unix:///run/redis.sock", "redis at /run/redis.sock/0"),
        ("redis+unix://user:pw@/run/redis.sock?db=2", "redis at /run/redis.sock/2"),
    ],
)
def test_a_url_names_a_server(url: str, place: str) -> None:
    check_url(url)
    store = RedisStore(url)
    assert store.place == place
    assert store.name == "redis"
    for shown in (repr(store), str(store), store.place, repr(store.slot)):
        assert "pw" not in shown
        assert "p%40ss" not in shown
        assert "p@ss" not in shown


@pytest.mark.req("ERR-07", "SEC-02")
@pytest.mark.parametrize(
    "url",
    [
        "",
        CANARY,
        f"http://:{CANARY}@localhost",
        f"redis:{CANARY}",
        f"redis://:{CANARY}@",
        f"redis://:{CANARY}@/0",
        f"redis://user:{CANARY}#x@localhost",
        f"redis://user:#{CANARY}@localhost",
        f"redis://user:{CANARY}/x@localhost/0",
        f"redis://user:1/{CANARY}@localhost/0",
        f"redis://user:1?{CANARY}@localhost/0",
        f"redis://user:{CANARY}[@localhost",
        f"redis://user:{CANARY}\u2100@localhost",
        f"redis://user:{CANARY}@localhost:x",
        f"redis://user:{CANARY}@localhost:0",
        f"redis://user:{CANARY}@localhost:65536",
        f"redis://user:{CANARY}@localhost/x",
        f"redis://user:{CANARY}@localhost/-1",
        f"redis://user:{CANARY}@localhost/1/2",
        f"redis://user:{CANARY}@localhost/9999999999",
        f"redis://user:{CANARY}@localhost/0?db=0",
        f"redis://user:{CANARY}@localhost?ssl_cert_reqs=none",
        f"redis://user:{CANARY}@localhost?db=0&db=1",
        f"redis://user:{CANARY}@local host",
        f"redis://user:{CANARY}@local\nhost",
        f"redis://user:{CANARY}@localhost/\0",
        f"redis://user:{CANARY}@löcalhost",
        f"unix://:{CANARY}@host/run/s",
        f"unix://:{CANARY}@",
        f"unix:///a%0a?{CANARY}",
    ],
)
def test_a_wrong_url_is_refused_without_being_shown(url: str) -> None:
    for call in (check_url, RedisStore):
        with pytest.raises(ConfigError) as caught:
            call(url)
        shown = "".join(traceback.format_exception(caught.value))
        assert CANARY not in shown
        assert "percent-encoded" in str(caught.value)
        assert caught.value.reason == "redis_url"


@pytest.mark.req("ERR-07")
@given(st.text() | st.text().map(lambda text: f"redis://{text}"))
def test_any_text_is_a_url_or_a_config_error(url: str) -> None:
    try:
        place = RedisStore(url).place
    except ConfigError:
        return
    assert place.isprintable()


@given(st.text(), st.text())
def test_any_user_and_password_can_be_written(user: str, password: str) -> None:
    user, password = (text.encode("utf-8", "replace").decode() for text in (user, password))
    url = f"rediss://{percent(user, safe='')}:{percent(password, safe='')}@localhost/1"
    address = RedisStore(url)._address
    assert (address.user, address.password, address.tls) == (user, password, True)
    assert repr(address).count("=") == 5  # neither user nor password


def test_checking_a_url_imports_no_library() -> None:
    code = (
        "import sys; from flyteauth._io.store.redis import check_url, RedisStore; "
        "check_url('redis://localhost'); RedisStore('redis://localhost'); "
        "print([m for m in ('coredis', 'ssl', 'asyncio', 'trio') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert shown.stdout.decode().strip() == "[]"


async def test_without_the_library_it_says_what_to_install(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "flyteauth._io.store.redis_line", raising=False)
    monkeypatch.delattr("flyteauth._io.store.redis_line", raising=False)
    monkeypatch.setitem(sys.modules, "coredis", None)
    for call in (store.probe(), store.load("a"), store.exclusively("a", never, deadline=1)):
        with pytest.raises(ConfigError, match=r"install flyteauth\[redis\]") as caught:
            await call
        assert caught.value.reason == "redis"


def test_slots_are_the_same_for_the_same_records() -> None:
    one = RedisStore("redis://a:x@Localhost:6379/1").slot
    assert one == RedisStore("rediss://localhost/1").slot
    others = ["redis://localhost/0", "redis://localhost:1/1", "unix:///localhost", "redis://h/1"]
    assert len({one, *(RedisStore(url).slot for url in others)}) == 5


# Values.


async def test_a_record_is_one_value_that_knows_its_key(store: RedisStore, server: Valkey) -> None:
    await store.save("key", record())
    (name,) = server.keys()
    assert name.startswith("flyteauth:{")
    assert name.endswith("}:record")
    assert "key" not in name
    value = server.ask("GET", name)
    assert isinstance(value, bytes)
    assert json.loads(value)["key"] == "key"
    await store.save("other", record())
    (other,) = {*server.keys()} - {name}
    server.ask("RENAME", name, other)
    await refuses("corrupt", store.load("other"))


@pytest.mark.req("SEC-09")
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b"\xff\xfe",
        b'{"key": "a"}',
        b'{"key": "a", "record": null}',
        b'{"key": "a", "record": {"version": 1}}',
        b'{"key": "a", "record": {"version": 99, "token": "canary-4711-secret"}}',
        b"[" * 100_000,
    ],
)
async def test_a_damaged_value_is_corrupt_and_stays(
    store: RedisStore, server: Valkey, value: bytes
) -> None:
    await store.save("a", record())
    (name,) = server.keys()
    server.ask("SET", name, value)
    await refuses("corrupt", store.load("a"))
    await refuses("corrupt", store.swap("a", None, record("new")))
    await refuses("corrupt", store.swap("a", record(), record("new")))
    assert server.ask("GET", name) == value
    await store.save("a", record("again"))
    assert await store.load("a") == record("again")


async def test_something_else_in_place_of_a_record_is_corrupt(
    store: RedisStore, server: Valkey
) -> None:
    await store.save("a", record())
    (name,) = server.keys()
    server.ask("DEL", name)
    server.ask("LPUSH", name, "x")
    await refuses("corrupt", store.load("a"))
    assert server.keys() == [name]


async def test_a_value_of_any_size_is_not_read(store: RedisStore, server: Valkey) -> None:
    await store.save("a", record())
    (name,) = server.keys()
    server.ask("SETRANGE", name, str(100_000_000), "x")
    await refuses("unreachable", store.load("a"))
    server.ask("DEL", name)


async def test_a_login_beyond_the_limit_is_not_written(store: RedisStore) -> None:
    await store.save("a", record("old"))
    huge = record("x" * SIZE_MAX)
    await refuses("full", store.save("a", huge))
    await refuses("full", store.swap("a", record("old"), huge))
    assert await store.load("a") == record("old")


@pytest.mark.parametrize("how", ["save", "swap"])
async def test_a_record_lives_as_long_as_it_is_useful(
    store: RedisStore, server: Valkey, how: str
) -> None:
    async def lifetime(saved: Record) -> int:
        server.ask("FLUSHALL")
        if how == "save":
            await store.save("a", saved)
        else:
            assert await store.swap("a", None, saved)
        seconds = server.ask("TTL", *server.keys())
        assert isinstance(seconds, int)
        return seconds

    later, margin = time.time() + 5000, redis_module.MARGIN
    assert await lifetime(record(expires_at=later)) == -1  # for ever: it can be refreshed
    assert await lifetime(record(refresh_token=None, expires_at=None)) == -1
    assert await lifetime(record(refresh_token=None, expires_at=1e300)) == -1
    assert 0 <= 5000 + margin - await lifetime(record(refresh_token=None, expires_at=later)) < 60
    assert 0 <= margin - await lifetime(record(refresh_token=None)) < 60  # is over already


async def test_a_longer_life_replaces_a_shorter(store: RedisStore, server: Valkey) -> None:
    short = record(refresh_token=None)
    await store.save("a", short)
    assert await store.swap("a", short, record())
    assert server.ask("TTL", *server.keys()) == -1


async def test_a_probe_leaves_nothing_behind(store: RedisStore, server: Valkey) -> None:
    await store.save("a", record())
    before = server.keys()
    await store.probe()
    assert server.keys() == before


@pytest.mark.req("REF-06")
async def test_a_swap_sees_what_came_between_reading_and_writing(
    server: Valkey, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another value that is the same login: again. Another login: no."""
    (changes := [record("old", obtained_at=1001.0), record("other")]).reverse()

    def meanwhile(one: Record | None, two: Record | None) -> bool:
        same = is_same(one, two)
        if changes:
            text = seal("a", changes.pop(), store.place)
            server.ask("SET", redis_module._name("a", "record"), text)
        return same

    await store.save("a", record("old"))
    monkeypatch.setattr(redis_module, "is_same", meanwhile)
    assert not await store.swap("a", record("old"), record("new"))
    assert not changes
    assert await store.load("a") == record("other")
    changes.append(record("other", obtained_at=1002.0))
    assert await store.swap("a", record("other"), record("new"))
    assert await store.load("a") == record("new")


async def test_of_many_swaps_one_wins(store: RedisStore) -> None:
    await store.save("a", record("old"))
    won: list[int] = []

    async def swap(number: int) -> None:
        if await store.swap("a", record("old"), record(f"t{number}")):
            won.append(number)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(swap, number)
    (number,) = won
    assert await store.load("a") == record(f"t{number}")


# Servers.


async def test_a_socket_of_the_file_system(server: Valkey) -> None:
    store = patient(f"unix://{server.socket_path}?db=3")
    await store.probe()
    await store.save("a", record())
    assert await store.load("a") == record()
    assert await patient(server.url).load("a") is None
    assert await patient(f"redis://{server.address}/3").load("a") == record()
    await store.delete("a")
    await refuses("unreachable", patient(f"unix://{server.socket_path}x").probe())


async def test_a_database_that_is_not_there(server: Valkey) -> None:
    await refuses("denied", patient(f"redis://{server.address}/99").probe())


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, make: Make) -> Iterator[Valkey]:
    """A server with a password, and users who may do more or less."""
    directory = tmp_path_factory.mktemp("guarded")
    with valkey(directory, "--requirepass", CANARY, make=make) as server:
        allowed = "+get +set +del +eval +select".split()
        for user, rules in {
            "ann": ["~flyteauth:*", *allowed],
            "no-eval": ["~flyteauth:*", "+get", "+set", "+del"],
            "no-set": ["~flyteauth:*", "+get", "+eval", "+del"],
            "no-del": ["~flyteauth:*", "+get", "+set", "+eval"],
            "no-keys": ["~other:*", *allowed],
        }.items():
            rule = ["ACL", "SETUSER", user, "on", f">{CANARY}:/@#", *rules]
            server.ask(*rule, user=("default", CANARY))
        yield server


@pytest.mark.req("SEC-02", "SEC-04")
@pytest.mark.parametrize("user", ["", "default", "ann"])
async def test_a_password_lets_us_in(guarded: Valkey, user: str) -> None:
    password = percent(CANARY + (":/@#" if user == "ann" else ""), safe="")
    store = patient(f"redis://{user}:{password}@{guarded.address}/0")
    await store.probe()
    await store.delete("a")
    assert await store.swap("a", None, record())
    assert await store.load("a") == record()
    await store.save("a", record("b", refresh_token=None))

    async def refresh() -> bool:
        return await store.swap("a", record("b", refresh_token=None), record("c"))

    assert await store.exclusively("a", refresh, deadline=LIMIT)
    assert CANARY not in repr(store) + store.place


@pytest.mark.req("SEC-02", "SEC-03")
@pytest.mark.parametrize(
    "user", ["", f":{CANARY}x@", f"nobody:{CANARY}@", f"ann:{CANARY}@", f"{CANARY}@"]
)
async def test_a_wrong_password_is_denied(
    guarded: Valkey, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store = patient(f"redis://{user}{guarded.address}/0")
    for call in (store.probe(), store.load("a"), store.exclusively("a", never, deadline=LIMIT)):
        await refuses("denied", call)
    assert CANARY not in caplog.text
    assert not [each for each in caplog.records if each.name == "coredis"]


@pytest.mark.parametrize("user", ["no-eval", "no-set", "no-del", "no-keys"])
async def test_a_user_who_may_not_do_all_is_denied_before_a_login(
    guarded: Valkey, user: str
) -> None:
    store = patient(f"redis://{user}:{percent(CANARY + ':/@#', safe='')}@{guarded.address}/0")
    await refuses("denied", store.probe())


async def test_a_server_without_memory_is_full(tmp_path: Path, make: Make) -> None:
    with valkey(
        tmp_path, "--maxmemory", "3mb", "--maxmemory-policy", "noeviction", make=make
    ) as server:
        store = patient(server.url)
        await store.save("a", record("old"))
        server.ask("CONFIG", "SET", "maxmemory", "1")
        await refuses("full", store.probe())
        await refuses("full", store.save("a", record("new")))
        await refuses("full", store.swap("a", record("old"), record("new")))
        await refuses("full", store.exclusively("a", never, deadline=LIMIT))
        assert await store.load("a") == record("old")


async def test_a_replica_is_denied(tmp_path: Path, make: Make) -> None:
    with valkey(tmp_path, make=make) as server:
        server.ask("REPLICAOF", "127.0.0.1", str(free_port()))
        store = patient(server.url)
        error = await refuses("denied", store.probe())
        assert "primary" in str(error)
        assert await store.load("a") is None


async def test_a_cluster_says_what_it_is(tmp_path: Path, make: Make) -> None:
    with valkey(tmp_path, "--cluster-enabled", "yes", make=make) as server:
        await refuses("unreachable", patient(server.url).probe())  # CLUSTERDOWN
        server.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        store = patient(server.url)
        with anyio.fail_after(LIMIT):
            while True:
                try:
                    await store.probe()
                    break
                except StoreError:
                    await anyio.sleep(0.01)
        assert await store.swap("a", None, record())
        assert await store.exclusively("a", lambda: store.load("a"), deadline=LIMIT) == record()
        await refuses("denied", patient(f"redis://{server.address}/1").probe())


@pytest.mark.req("REF-08")
async def test_a_server_that_ends_and_comes_back(tmp_path: Path, make: Make) -> None:
    with valkey(tmp_path, make=make) as server:
        store = patient(server.url)
        await store.save("a", record())
        server.kill()
        for call in (
            store.probe(),
            store.load("a"),
            store.save("a", record()),
            store.swap("a", None, record()),
            store.delete("a"),
            store.exclusively("a", never, deadline=LIMIT),
        ):
            error = await refuses("unreachable", call)
            assert "connection refused" in str(error)
        server.start()
        await store.probe()
        assert await store.load("a") is None


async def test_a_server_that_took_long_to_fail_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    monkeypatch.setattr(redis_module, "SLOW", 0.01)
    with valkey(tmp_path, make=make) as server:
        store = patient(server.url, deadline=0.1)
        await until_it_answers(store)
        server.send(signal.SIGSTOP)
        try:
            await refuses("timeout", store.load("a"))
        finally:
            server.send(signal.SIGCONT)
        for call in (store.load("a"), store.exclusively("a", never, deadline=LIMIT)):
            await refuses("timeout", call)
        monkeypatch.setattr(store, "_left_alone_until", 0.0)
        await until_it_answers(store)


async def test_a_server_that_stands_still_is_a_timeout(tmp_path: Path, make: Make) -> None:
    with valkey(tmp_path, make=make) as server:
        store = patient(server.url, deadline=0.1)
        await until_it_answers(store)
        server.send(signal.SIGSTOP)
        try:
            for call in (
                store.probe(),
                store.load("a"),
                store.swap("a", None, record()),
                store.exclusively("a", never, deadline=LIMIT),
            ):
                before = time.monotonic()
                await refuses("timeout", call)
                assert time.monotonic() - before < 0.1 + redis_module.RELEASE_DEADLINE + 2
        finally:
            server.send(signal.SIGCONT)
        await until_it_answers(store)


async def until_it_answers(store: RedisStore) -> None:
    with anyio.fail_after(LIMIT):
        while True:
            try:
                return await store.probe()
            except StoreError:
                await anyio.sleep(0.01)


def closing(connection: Connection) -> None:
    connection.sock.recv(1)
    connection.sock.close()


def saying(*answers: bytes) -> Script:
    """To each thing that is asked the next answer, then nothing."""

    def script(connection: Connection) -> None:
        for answer in answers:
            connection.sock.recv(65536)
            connection.send(answer)

    return script


def flooding(connection: Connection) -> None:
    while True:
        connection.send(b"x" * 65536)


def echoing(connection: Connection) -> None:
    while data := connection.sock.recv(65536):
        connection.send(data)


@pytest.mark.req("ERR-07", "ERR-05", "SEC-03")
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (silent, "timeout"),
        (closing, "unreachable"),
        (flooding, "unreachable"),
        (echoing, "unreachable"),
        (saying(b"HTTP/1.1 400 Bad Request\r\n\r\n<html>\r\n"), "unreachable"),
        (saying(b"220 smtp.example.org ESMTP\r\n"), "unreachable"),
        (saying(b"\0\1\2\3\r\n"), "unreachable"),
        (saying(b"\r\n\r\n"), "unreachable"),
        (saying(b"+OK\r\n"), "unreachable"),
        (saying(b"$-1\r\n"), "unreachable"),
        (saying(b"$x\r\n"), "unreachable"),
        (saying(b"%1\r\n+a\r\n+b\r\n"), "unreachable"),
        (saying(b"*1\r\n" * 6000), "timeout"),
        (saying(b"*1\r\n" * 6000 + b":1\r\n"), "unreachable"),
        (saying(b"-\xff\xfe\r\n"), "unreachable"),
        (saying(b"-\r\n"), "denied"),
        (saying(b"-MOVED nonsense\r\n"), "unreachable"),
        (saying(b"-ERR unknown command 'HELLO', with args: 'canary-4711-secret'\r\n"), "denied"),
        (saying(b"-NOPROTO unsupported protocol version\r\n"), "denied"),
        (saying(b"-WRONGPASS canary-4711-secret\r\n"), "denied"),
        (saying(b"-ERR max number of clients reached\r\n"), "unreachable"),
        (saying(b"-LOADING Valkey is loading the dataset in memory\r\n"), "unreachable"),
        (saying(HELLO, b"-LOADING Valkey is loading\r\n"), "unreachable"),
        (saying(HELLO, b"-MOVED 3999 127.0.0.1:6381\r\n"), "unreachable"),
        (saying(HELLO, b"-CLUSTERDOWN The cluster is down\r\n"), "unreachable"),
        (saying(HELLO, b"-TRYAGAIN Multiple keys request\r\n"), "unreachable"),
        (saying(HELLO, b"-MASTERDOWN Link with MASTER is down\r\n"), "unreachable"),
        (saying(HELLO, b"-BUSY Valkey is busy running a script\r\n"), "unreachable"),
        (saying(HELLO, b"-MISCONF Valkey is configured to save RDB snapshots\r\n"), "full"),
        (saying(HELLO, b"-OOM command not allowed\r\n"), "full"),
        (saying(HELLO, b"-NOPERM canary-4711-secret\r\n"), "denied"),
        (saying(HELLO, b"-NOAUTH Authentication required.\r\n"), "denied"),
        (saying(HELLO, b"-READONLY You can't write against a replica.\r\n"), "denied"),
        (saying(HELLO, b"-WHAT is this canary-4711-secret\r\n"), "denied"),
        (saying(HELLO, b"HTTP/1.1 400 Bad Request\r\n"), "unreachable"),
        (saying(HELLO, b"$7\r\nabc\r\n"), "timeout"),
        (saying(HELLO), "timeout"),
    ],
)
async def test_whatever_answers_is_a_typed_error(
    script: Script, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with serve(script) as fake:
        url = f"redis://user:{CANARY}@127.0.0.1:{fake.port}"
        deadline = 0.2 if reason == "timeout" else LIMIT
        store = patient(url, deadline=deadline)
        await prepare(store)
        await refuses(reason, store.load("a"))
        await refuses(reason, store.exclusively("a", never, deadline=LIMIT))
        assert fake.all_closed()
    assert CANARY not in caplog.text
    assert not [each for each in caplog.records if each.name == "coredis"]


async def prepare(store: RedisStore) -> None:
    """So that its deadline is for the server alone."""
    await store._prepare()


@pytest.mark.parametrize("answers", [(), (HELLO,)])
async def test_a_connection_that_ends_too_early(answers: tuple[bytes, ...]) -> None:
    def script(connection: Connection) -> None:
        saying(*answers)(connection)
        closing(connection)

    with serve(script) as fake:
        store = patient(f"redis://127.0.0.1:{fake.port}")
        for call in (store.load("a"), store.swap("a", None, record()), store.probe()):
            error = await refuses("unreachable", call)
            assert "closed the connection" in str(error)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_typed_error_or_a_value(data: bytes, greeted: bool) -> None:
    def script(connection: Connection) -> None:
        saying(*[HELLO] * greeted, data)(connection)
        connection.sock.shutdown(socket.SHUT_WR)

    async def load() -> None:
        await patient(f"redis://127.0.0.1:{fake.port}", deadline=LIMIT).load("a")

    with serve(script) as fake:
        reason = "unreachable"
        try:
            anyio.run(load)
        except StoreError as error:
            reason = error.reason
        assert reason in {"denied", "unreachable", "corrupt", "full"}


async def test_the_log_of_others_who_use_the_library_is_left_alone(
    store: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    await store.probe()
    logging.getLogger("coredis").warning("of others")
    assert "of others" in caplog.text


# TLS.

authority = trustme.CA()


def certificate(name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path / "ca.pem"


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
async def test_tls_with_a_private_authority(server: Valkey, ca_file: Path, scheme: str) -> None:
    with serve(forwarding(server.port), certificate("localhost")) as front:
        store = patient(f"{scheme}://localhost:{front.port}/1", ca_file=ca_file)
        await store.probe()
        await store.save("a", record())
        assert await store.load("a") == record()
        assert await store.exclusively("a", lambda: store.load("a"), deadline=LIMIT) == record()
        assert front.all_closed()
    assert await patient(f"redis://{server.address}/1").load("a") == record()


async def test_tls_with_what_the_system_trusts(
    server: Valkey, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    with serve(forwarding(server.port), certificate("localhost")) as front:
        await patient(f"rediss://localhost:{front.port}").probe()


@pytest.mark.req("SEC-02")
@pytest.mark.parametrize(
    ("name", "trusted", "says"),
    [("localhost", False, "issuer"), ("elsewhere.example.org", True, "localhost")],
)
async def test_whom_we_do_not_trust_gets_no_password(
    server: Valkey, ca_file: Path, name: str, trusted: bool, says: str
) -> None:
    asked = threading.Event()

    def script(connection: Connection) -> None:
        if connection.sock.recv(1):
            asked.set()

    with serve(script, certificate(name)) as front:
        url = f"rediss://:{CANARY}@localhost:{front.port}"
        store = patient(url, ca_file=ca_file if trusted else None)
        error = await refuses("unreachable", store.probe())
        assert says in str(error)
        assert front.all_closed()
    assert not asked.is_set()


async def test_tls_where_there_is_none_and_none_where_there_is(
    server: Valkey, ca_file: Path
) -> None:
    store = patient(f"rediss://{server.address}", deadline=0.1)  # it waits for more
    assert "TLS" in str(await refuses("timeout", store.probe()))
    with serve(saying(b"-ERR\r\n")) as plain:
        store = patient(f"rediss://127.0.0.1:{plain.port}")
        assert "redis://" in str(await refuses("unreachable", store.probe()))
    with serve(silent, certificate("localhost")) as front:
        store = patient(f"redis://localhost:{front.port}")
        error = await refuses("unreachable", store.probe())
        assert "rediss://" in str(error)


async def test_an_authority_that_is_none_is_a_setting_to_correct(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        await patient("rediss://localhost", ca_file=tmp_path / "none.pem").probe()


# The lease.


def lock_of(key: str = "a") -> str:
    return redis_module._name(key, "lock")


def left(server: Valkey) -> int:
    """For how many milliseconds the lease holds; negative if there is none."""
    milliseconds = server.ask("PTTL", lock_of())
    assert isinstance(milliseconds, int)
    return milliseconds


@pytest.mark.req("REF-06")
async def test_one_at_a_time_and_only_for_one_key(store: RedisStore, server: Valkey) -> None:
    inside: list[str] = []
    most: list[int] = []
    entered: set[str] = set()

    async def enter(key: str) -> None:
        inside.append(key)
        most.append(inside.count(key))
        entered.add(key)
        await until(lambda: entered == {"a", "b"})  # the first of each meet
        await anyio.sleep(0.001)
        inside.remove(key)

    async def use(key: str) -> None:
        await store.exclusively(key, lambda: enter(key), deadline=LIMIT)

    async with anyio.create_task_group() as group:
        group.start_soon(use, "b")
        for _ in range(8):
            group.start_soon(use, "a")
    assert set(most) == {1}
    assert server.keys() == []


async def test_waiting_ends_at_the_deadline(store: RedisStore, server: Valkey) -> None:
    async def inside() -> None:
        other = patient(server.url)
        for deadline in (0.0, 0.05):
            before = anyio.current_time()
            await refuses("busy", other.exclusively("a", never, deadline=deadline))
            assert deadline <= anyio.current_time() - before < deadline + 5
        assert server.keys() == [lock_of()]  # whoever gave up has not released it

    await store.exclusively("a", inside, deadline=LIMIT)
    assert server.keys() == []


async def test_waiting_for_a_turn_may_take_longer_than_an_answer(server: Valkey) -> None:
    server.ask("SET", lock_of(), "of another", "PX", "700")
    impatient = RedisStore(server.url, deadline=0.3)
    await prepare(impatient)
    assert await impatient.exclusively("a", returning, deadline=LIMIT) == "done"


async def returning() -> str:
    return "done"


class Broken(Exception):
    pass


async def test_what_the_function_raises_is_not_changed(store: RedisStore, server: Valkey) -> None:
    error = Broken()

    async def fail() -> None:
        raise error

    with pytest.raises(Broken) as caught:
        await store.exclusively("a", fail, deadline=LIMIT)
    assert caught.value is error
    assert error.__context__ is None
    assert server.keys() == []


async def test_a_cancelled_holder_releases_at_once(store: RedisStore, server: Valkey) -> None:
    entered = anyio.Event()

    async def inside() -> None:
        entered.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:

        async def use() -> None:
            await store.exclusively("a", inside, deadline=LIMIT)
            bad()

        group.start_soon(use)
        await entered.wait()
        assert left(server) > 20_000
        group.cancel_scope.cancel()
    assert left(server) < 0
    await until(lambda: server.connections() == 0)


async def test_a_cancelled_waiter_leaves_nothing(store: RedisStore, server: Valkey) -> None:
    async def inside() -> None:
        async with anyio.create_task_group() as group:

            async def use() -> None:
                await store.exclusively("a", never, deadline=LIMIT)

            group.start_soon(use)
            await until(lambda: server.connections() > 0)
            group.cancel_scope.cancel()
        await until(lambda: server.connections() == 0)
        assert server.keys() == [lock_of()]

    await store.exclusively("a", inside, deadline=LIMIT)
    assert server.keys() == []


async def test_cancelled_at_any_moment_it_leaves_nothing(server: Valkey) -> None:
    """Also between the server's yes and our hearing it."""
    store = patient(server.url)
    await store.probe()
    for number in range(60):
        with anyio.move_on_after(number * 0.0002):
            await store.exclusively("a", anyio.sleep_forever, deadline=LIMIT)
        assert left(server) < 0
    await until(lambda: server.connections() == 0)


def test_a_native_cancellation_stays_one(server: Valkey) -> None:
    """Asyncio cancels once, and that must not get lost."""
    store = patient(server.url)

    async def main() -> None:
        await store.probe()
        for number in range(60):
            for call in (
                store.exclusively("a", anyio.sleep_forever, deadline=LIMIT),
                store.swap("a", None, record()),
            ):
                task = asyncio.ensure_future(call)
                await asyncio.sleep(number * 0.0002)
                task.cancel("why")
                (outcome,) = await asyncio.gather(task, return_exceptions=True)
                assert isinstance(outcome, bool | asyncio.CancelledError), outcome
            assert left(server) < 0
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_a_native_cancellation_during_a_handshake_stays_one() -> None:
    async def main(port: int) -> None:
        store = patient(f"redis://127.0.0.1:{port}")
        await prepare(store)
        task = asyncio.ensure_future(store.load("a"))
        assert await asyncio.to_thread(fake.wait_accepted)
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await store.load("a")

    with serve(silent) as fake:
        asyncio.run(main(fake.port))
        assert fake.all_closed()


async def test_the_lease_is_renewed_while_somebody_is_inside(server: Valkey) -> None:
    store = patient(server.url, lease=0.6)

    async def inside() -> None:
        longest = rises = 0
        with anyio.fail_after(LIMIT):
            while rises < 3:
                await anyio.sleep(0.01)
                now = left(server)
                rises += now > longest
                longest = now

    await store.exclusively("a", inside, deadline=LIMIT)
    assert server.keys() == []
    await until(lambda: server.connections() == 0)


async def test_the_lease_is_not_renewed_for_ever(server: Valkey) -> None:
    """And whoever has lost it goes on, and does not take away what is another's by then."""
    store = patient(server.url, lease=0.1)

    async def inside() -> str:
        await until(lambda: left(server) < 0)
        server.ask("SET", lock_of(), "of another")
        return "went on"

    assert await store.exclusively("a", inside, deadline=0.15) == "went on"
    assert server.ask("GET", lock_of()) == b"of another"


async def test_a_lease_that_is_lost_is_not_taken_again(server: Valkey) -> None:
    store = patient(server.url, lease=0.15)

    async def inside() -> None:
        server.ask("SET", lock_of(), "of another")
        await anyio.sleep(0.2)  # several renewals
        assert server.ask("GET", lock_of()) == b"of another"
        assert left(server) == -1

    await store.exclusively("a", inside, deadline=LIMIT)


async def test_a_server_that_restarts_under_the_holder(tmp_path: Path, make: Make) -> None:
    with valkey(tmp_path, make=make) as server:
        store = patient(server.url, lease=0.3)

        async def inside() -> str:
            server.kill()
            await anyio.sleep(0.15)  # a renewal finds nobody
            server.start()
            await store.save("a", record())
            return "kept"

        assert await store.exclusively("a", inside, deadline=LIMIT) == "kept"
        assert await store.load("a") == record()

        async def end() -> str:
            server.kill()
            return "kept"

        assert await store.exclusively("a", end, deadline=LIMIT) == "kept"


# Event loops, threads, processes.


def test_what_a_loop_leaves_behind_ends_without_a_word(
    server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """A loop that is closed over its tasks: the lease runs out, as if the process had died."""
    store = patient(server.url)
    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        entered = asyncio.Event()

        async def inside() -> None:
            entered.set()
            await asyncio.Event().wait()

        tasks.append(asyncio.create_task(store.exclusively("a", inside, deadline=LIMIT)))
        await entered.wait()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    tasks.clear()
    gc.collect()  # what cannot be raised is an error here
    assert left(server) > 0


def test_one_store_serves_many_loops_in_turn_and_at_once(server: Valkey) -> None:
    store = patient(server.url)
    counter = {"inside": 0, "most": 0, "turns": 0}

    async def inside() -> None:
        counter["inside"] += 1
        counter["most"] = max(counter["most"], counter["inside"])
        await anyio.sleep(0.001)
        counter["turns"] += 1
        counter["inside"] -= 1

    async def use() -> None:
        for _ in range(3):
            await store.exclusively("a", inside, deadline=LIMIT)

    threads = [
        threading.Thread(target=anyio.run, args=[use], kwargs={"backend": backend})
        for backend in ("asyncio", "trio") * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert counter == {"inside": 0, "most": 1, "turns": 18}
    for backend in ("asyncio", "trio"):
        anyio.run(store.probe, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_loop_may_end_in_the_middle(server: Valkey, backend: str) -> None:
    store = patient(server.url)

    async def main() -> None:
        with anyio.move_on_after(0):
            await store.exclusively("a", anyio.sleep_forever, deadline=LIMIT)
        if backend == "asyncio":
            entered = anyio.Event()

            async def inside() -> None:
                entered.set()
                await anyio.sleep_forever()

            task = asyncio.ensure_future(store.exclusively("a", inside, deadline=LIMIT))
            await entered.wait()
            assert not task.done()  # asyncio.run cancels it

    anyio.run(main, backend=backend)
    assert left(server) < 0


HOLDER = """
import sys, anyio
from flyteauth._io.store.redis import RedisStore
from flyteauth._sansio.record import Record, is_same
from flyteauth._sansio.tokens import Token

def record(name):
    return Record(Token(name, obtained_at=1000.0, refresh_token=name), "https://a/", "c")

async def inside():
    old = await store.load("a")
    print("inside", flush=True)
    await anyio.to_thread.run_sync(sys.stdin.readline)
    print(await store.swap("a", old, record("late")), flush=True)

async def main():
    await store.exclusively("a", inside, deadline=100)

store = RedisStore(sys.argv[1], lease=float(sys.argv[2]))
anyio.run(main, backend=sys.argv[3])
"""


@contextmanager
def holder(server: Valkey, lease: float, backend: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lease, and ends when it is told to."""
    command = [sys.executable, "-c", HOLDER, server.url, str(lease), backend]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"inside\n"
            yield process
        finally:
            process.kill()
            process.wait(LIMIT)


@pytest.mark.req("REF-06")
async def test_the_lease_of_a_killed_holder_runs_out_and_not_before(
    store: RedisStore, server: Valkey, anyio_backend: str
) -> None:
    with holder(server, 1.0, anyio_backend) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT)
        before = time.monotonic()
        milliseconds = left(server)
        assert milliseconds > 0

    async def enter() -> float:
        return time.monotonic() - before

    waited = await store.exclusively("a", enter, deadline=LIMIT)
    assert milliseconds / 1000 - 0.005 < waited < milliseconds / 1000 + 5


@pytest.mark.req("REF-06", "REF-04")
async def test_a_holder_that_slept_too_long_changes_nothing(
    store: RedisStore, server: Valkey, anyio_backend: str
) -> None:
    await store.save("a", record("old"))
    with holder(server, 0.5, anyio_backend) as process:
        process.send_signal(signal.SIGSTOP)

        async def inside() -> bool:
            return await store.swap("a", record("old"), record("next"))

        try:
            assert await store.exclusively("a", inside, deadline=LIMIT)
        finally:
            process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(b"go on\n", LIMIT)
        assert out == b"False\n"
    assert await store.load("a") == record("next")
    assert left(server) < 0


CONTENDERS = """
import os, sys, anyio
from flyteauth._io.store.redis import RedisStore
from flyteauth._sansio.record import Record, is_same
from flyteauth._sansio.tokens import Token

url, gate, count, turns = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
store = RedisStore(url, deadline=20)

def record(number):
    return Record(Token("x", obtained_at=1000.0, refresh_token=str(number)), "https://a/", "c")

async def refresh():
    os.close(os.open(gate, os.O_CREAT | os.O_EXCL))  # fails if somebody else is in here
    old = await store.load("a")
    assert await store.swap("a", old, record(int(old.token.refresh_token) + 1))
    os.unlink(gate)

async def main():
    for _ in range(turns):
        await store.exclusively("a", refresh, deadline=60)

anyio.run(store.save, "a", record(0))  # the parent has used it, and its children use it too
children = []
for number in range(count):
    if (child := os.fork()) == 0:
        try:
            anyio.run(main, backend=("asyncio", "trio")[number % 2])
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    children.append(child)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


@pytest.mark.req("REF-06")
def test_sixteen_processes_take_turns(server: Valkey, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CONTENDERS, server.url, str(tmp_path / "gate"), "16", "4"]
    done = subprocess.run(command, capture_output=True, timeout=100, check=False)
    assert done.stderr == b""
    assert done.stdout.decode().strip() == str([0] * 16)
    loaded = anyio.run(patient(server.url).load, "a")
    assert loaded is not None
    assert loaded.token.refresh_token == "64"


async def test_nothing_is_kept_between_calls(store: RedisStore, server: Valkey) -> None:
    await store.save("a", record())
    await until(lambda: server.connections() == 0)
    await store.aclose()
    assert await store.load("a") == record()


@pytest.mark.req("SEC-03")
async def test_no_log_knows_a_secret(
    server: Valkey, guarded: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for url in (server.url, f"redis://:{CANARY}@{guarded.address}/0"):
        store = patient(url)
        await store.save("a", record())
        await store.load("a")
        await store.swap("a", record(), record(f"{CANARY}-2"))
        await store.exclusively("a", store.probe, deadline=LIMIT)
    assert CANARY not in caplog.text
