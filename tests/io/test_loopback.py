"""The listener: whatever comes to the port, the one redirect gets through, and nothing is left."""

import asyncio
import errno
import gc
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from anyio.abc import SocketStream
from hypothesis import HealthCheck, given, settings, strategies as st

from flyteauth._io import bind as binding, loopback as module
from flyteauth._io.bind import bind
from flyteauth._io.loopback import CONNECTIONS_MAX, Loopback, listen
from flyteauth._io.page import Page, success
from flyteauth._sansio.errors import ConfigError, InvalidResponse, OAuth2Error

pytestmark = pytest.mark.anyio

ANY_PORT = "http://localhost:0/callback"
IPV4_ONLY = "http://127.0.0.1/callback"
STATE = "S"
DONE = success("dns:///flyte.example", "ada")
BOUND = 20.0  # no test waits longer


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


@pytest.fixture(autouse=True)
def no_socket_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "LINGER", 0.1)  # some clients below close only after the test
    yield
    gc.collect()  # an unclosed socket is a ResourceWarning, and that an error


def port_of(uri: str) -> int:
    port = urlsplit(uri).port
    assert port is not None
    return port


def get(loopback: Loopback, query: str, path: str = "/callback") -> bytes:
    host = f"Host: localhost:{port_of(loopback.redirect_uri)}"
    return f"GET {path}?{query} HTTP/1.1\r\n{host}\r\n\r\n".encode()


GOOD = "code=A&state=S"


async def connect(loopback: Loopback, host: str = "127.0.0.1") -> SocketStream:
    return await anyio.connect_tcp(host, port_of(loopback.redirect_uri))


async def read_all(stream: SocketStream) -> bytes:
    data = b""
    with anyio.fail_after(BOUND):
        try:
            async for chunk in stream:
                data += chunk
        except anyio.BrokenResourceError:
            pass
    return data


async def ask(loopback: Loopback, request: bytes, host: str = "127.0.0.1") -> bytes:
    """The whole answer to *request*; empty if there is none."""
    async with await connect(loopback, host) as stream:
        try:
            await stream.send(request)
        except anyio.BrokenResourceError:
            return b""
        return await read_all(stream)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


async def log_in(loopback: Loopback, host: str = "127.0.0.1") -> bytes:
    """Play browser and login to the end; what the browser gets."""
    answers: list[bytes] = []

    async def browse() -> None:
        answers.append(await ask(loopback, get(loopback, GOOD), host))

    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(browse)
            assert await loopback.receive(STATE) == f"{loopback.redirect_uri}?{GOOD}"
            await loopback.answer(DONE)
    return answers[0]


def refused(port: int, host: str = "127.0.0.1") -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as client:
        return client.connect_ex((host, port)) == errno.ECONNREFUSED


# The redirect itself.


@pytest.mark.req("CBK-01", "AZR-09", "AZR-12")
async def test_a_free_port_is_taken_and_read_back() -> None:
    for uri in (ANY_PORT, "http://localhost/callback", "HTTP://LocalHost:/callback?x=1"):
        async with listen(uri) as loopback:
            port = port_of(loopback.redirect_uri)
            assert port
            before, _, after = uri.replace(":0", "").replace(":/c", "/c").rpartition("/callback")
            assert loopback.redirect_uri == f"{before}:{port}/callback{after}"
            assert {address[0] for address in loopback.addresses} <= {"127.0.0.1", "::1"}
            assert {address[1] for address in loopback.addresses} == {port}


@pytest.mark.req("AZR-09")
async def test_a_fixed_redirect_uri_stays_as_it_is() -> None:
    async with listen(IPV4_ONLY) as first:
        uri = first.redirect_uri
    async with listen(uri) as second:
        assert second.redirect_uri == uri


@pytest.mark.req("CBK-19", "HTM-02", "HTM-03", "AZR-14")
async def test_the_browser_gets_a_whole_page_when_the_login_is_done() -> None:
    async with listen(ANY_PORT) as loopback:
        answer = await log_in(loopback)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nconnection: close" in head
    assert f"\r\ncontent-length: {len(body)}\r\n".encode() in head
    assert b"Signed in as ada to dns:///flyte.example; you can close this tab" in body


@pytest.mark.req("HTM-02")
async def test_the_page_is_withheld_until_the_answer_is_known() -> None:
    async with listen(ANY_PORT) as loopback:
        with socket.create_connection(("127.0.0.1", port_of(loopback.redirect_uri))) as browser:
            browser.setblocking(False)
            browser.send(get(loopback, GOOD))
            await loopback.receive(STATE)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(BlockingIOError):
                browser.recv(1)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(loopback.answer, DONE)
                await anyio.wait_readable(browser)
                assert browser.recv(12) == b"HTTP/1.1 200"


@needs_ipv6
@pytest.mark.req("AZR-11")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_localhost_is_served_on_both_families(host: str) -> None:
    async with listen(ANY_PORT) as loopback:
        assert status(await log_in(loopback, host)) == 200


@needs_ipv6
@pytest.mark.req("AZR-10", "AZR-14")
@pytest.mark.parametrize(
    ("uri", "own", "other"), [("127.0.0.1", "127.0.0.1", "::1"), ("[::1]", "::1", "127.0.0.1")]
)
async def test_a_literal_address_is_served_alone(uri: str, own: str, other: str) -> None:
    async with listen(f"http://{uri}/callback") as loopback:
        port = port_of(loopback.redirect_uri)
        assert refused(port, other)
        assert status(await log_in(loopback, own)) == 200
    assert refused(port, own)


async def test_a_redirect_that_comes_before_anybody_waits_is_kept() -> None:
    async with listen(ANY_PORT) as loopback, await connect(loopback) as browser:
        await browser.send(get(loopback, GOOD))
        assert status(await ask(loopback, get(loopback, GOOD, "/favicon.ico"))) == 404
        for _ in range(CONNECTIONS_MAX + 1):  # idle ones do not push it out
            assert status(await ask(loopback, b"\r\n\r\n")) == 400
        with anyio.fail_after(BOUND):
            assert await loopback.receive(STATE) == f"{loopback.redirect_uri}?{GOOD}"
            assert await loopback.receive(STATE) == f"{loopback.redirect_uri}?{GOOD}"
        await loopback.answer(DONE)
        assert status(await read_all(browser)) == 200


# Repeats.


@pytest.mark.req("CBK-15")
async def test_a_reload_gets_the_same_page_and_another_code_none() -> None:
    async with listen(ANY_PORT) as loopback:
        async with await connect(loopback) as first, await connect(loopback) as reload:
            await first.send(get(loopback, GOOD))
            uri = await loopback.receive(STATE)
            await reload.send(get(loopback, GOOD))
            other = await ask(loopback, get(loopback, "code=B&state=S"))
            assert status(other) == 200
            assert b"Already received" in other
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(loopback.answer, DONE)
                assert b"Signed in" in await read_all(first)
                assert b"Signed in" in await read_all(reload)
        for query in (GOOD, "code=B&state=S"):
            late = await ask(loopback, get(loopback, query))
            assert status(late) == 200
            assert b"Already completed" in late
        assert await loopback.receive(STATE) == uri


@pytest.mark.req("CBK-15")
async def test_the_first_page_stays_and_a_late_browser_gets_it() -> None:
    async with listen(ANY_PORT) as loopback:
        await loopback.answer(Page("No", "denied <b>", ok=False))
        await loopback.answer(DONE)
        assert b"another login" in await ask(loopback, get(loopback, GOOD))  # no state is known
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(loopback.receive, STATE)
            late = await ask(loopback, get(loopback, GOOD))
        assert status(late) == 400
        assert b"denied &lt;b&gt;" in late


# What is not the redirect.

JUNK = [
    b"",
    b"\r\n\r\n",
    b"\0" * 50,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x7f" * 200,  # TLS ClientHello
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    b"GET /callback?code=A&state=S\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /callback?code=A&state=S HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET http://evil.example/callback?code=A&state=S HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\n\r\n",
    b"GET /callback?code=A&state=S HTTP/1.1\r\nHost: \xff\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"\xff" * 5000,
]


@pytest.mark.req("CBK-18")
@pytest.mark.parametrize("junk", JUNK)
async def test_junk_is_closed_or_refused(junk: bytes) -> None:
    async with listen(ANY_PORT) as loopback:
        async with await connect(loopback) as stream:
            await stream.send(junk) if junk else None
            await stream.send_eof()
            answer = await read_all(stream)
        assert status(answer) in {0, 400, 404, 405, 421}
        assert status(await log_in(loopback)) == 200


@pytest.mark.req("CBK-02", "CBK-03", "CBK-04", "CBK-05", "CBK-09")
@pytest.mark.parametrize(
    ("method", "path", "query", "header", "expected"),
    [
        ("GET", "/favicon.ico", "", "", 404),
        ("GET", "/callback/", GOOD, "", 404),
        ("GET", "/callback", "code=A&state=evil", "", 400),
        ("GET", "/callback", "error=access_denied", "", 400),
        ("GET", "/callback", GOOD, "Sec-Purpose: prefetch", 503),
        ("GET", "/callback", GOOD, "Sec-Fetch-Mode: no-cors", 403),
        ("HEAD", "/callback", GOOD, "", 405),
        ("OPTIONS", "/callback", GOOD, "Origin: https://evil", 405),
        ("PUT", "/callback", GOOD, "Content-Length: 3\r\nExpect: 100-continue", 405),
        ("POST", "/callback", GOOD, "Transfer-Encoding: chunked", 405),
    ],
)
async def test_stray_requests_are_refused_and_the_login_goes_on(
    method: Any, path: str, query: str, header: Any, expected: Any
) -> None:
    async with listen(ANY_PORT) as loopback:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(loopback.receive, STATE)
            request = get(loopback, query, path).replace(b"GET", method.encode(), 1)
            answer = await ask(
                loopback,
                request.replace(b"\r\n\r\n", f"\r\n{header}\r\n\r\n".encode())
                if header
                else request,
            )
            assert status(answer) == expected
            assert b"access-control" not in answer.lower()
            assert (b"allow: GET" in answer) == (expected == 405)
            assert (b"<!doctype html>" in answer) == (method != "HEAD")
            tasks.cancel_scope.cancel()
        assert status(await log_in(loopback)) == 200


@pytest.mark.req("CBK-20")
@pytest.mark.parametrize("name", ["next", "redirect_uri", "return_to", "url", "iss", "state"])
async def test_no_page_leads_where_the_query_says(name: str) -> None:
    there = f"{name}=https%3A%2F%2Fevil.example%2F"
    async with listen(ANY_PORT) as loopback:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(loopback.receive, STATE)
            paths = ("/callback", "/", "/logout")
            answers = [await ask(loopback, get(loopback, there, path)) for path in paths]
            tasks.cancel_scope.cancel()
        async with await connect(loopback) as browser:
            query = GOOD if name == "state" else f"{GOOD}&{there}"
            await browser.send(get(loopback, query))
            await loopback.receive(STATE)
            await loopback.answer(DONE)
            answers.append(await read_all(browser))
        answers.append(await ask(loopback, get(loopback, f"code=B&{there}")))
    assert [status(answer) for answer in answers][:4] == [400, 404, 404, 200]
    for answer in answers:
        head, _, body = answer.lower().partition(b"\r\n\r\n")
        names = {line.partition(b":")[0] for line in head.split(b"\r\n")[1:]}
        assert not names & {b"location", b"content-location", b"refresh", b"link"}
        assert b"evil.example" not in answer
        assert b"http-equiv" not in body


@pytest.mark.req("CBK-18")
async def test_long_targets_and_heads() -> None:
    async with listen(ANY_PORT) as loopback:
        assert status(await ask(loopback, get(loopback, "x=" + "y" * 40_000))) == 414
        assert status(await ask(loopback, b"GET /" + b"y" * 1024 * 1024)) in {0, 431}
        cookies = b"\r\nCookie: " + b"c" * 30_000 + b"\r\n\r\n"
        async with await connect(loopback) as browser:
            query = f"{GOOD}&session_state={'y' * 16 * 1024}"
            await browser.send(get(loopback, query).replace(b"\r\n\r\n", cookies))
            assert await loopback.receive(STATE) == f"{loopback.redirect_uri}?{query}"
            await loopback.answer(DONE)


@pytest.mark.req("CBK-19")
async def test_an_answer_is_not_lost_to_a_body_that_nobody_reads() -> None:
    async with listen(ANY_PORT) as loopback:
        head = get(loopback, GOOD).replace(b"GET", b"POST", 1)
        request = head.replace(b"\r\n\r\n", b"\r\nContent-Length: 400000\r\n\r\n")
        answer = await ask(loopback, request + b"x" * 400_000)
        assert status(answer) == 405
        assert answer.endswith(b"</html>\n")


@pytest.mark.req("CBK-09")
async def test_an_answer_to_another_login_is_remembered() -> None:
    async with listen(ANY_PORT) as loopback, anyio.create_task_group() as tasks:
        tasks.start_soon(loopback.receive, STATE)
        await ask(loopback, get(loopback, "", "/favicon.ico"))
        assert loopback.ignored is None
        await ask(loopback, get(loopback, "error=server_error%1b"))
        assert loopback.ignored is not None
        assert loopback.ignored.error == "server_error\\x1b"
        tasks.cancel_scope.cancel()


@pytest.mark.req("CBK-09", "CBK-18")
async def test_a_thousand_junk_requests_before_the_real_one() -> None:
    async with listen(ANY_PORT) as loopback:
        kinds = [
            *JUNK[1:],
            get(loopback, "", "/favicon.ico"),
            get(loopback, "code=A&state=evil"),
            get(loopback, "error=access_denied"),
        ]
        limit = anyio.CapacityLimiter(20)

        async def disturb(number: int) -> None:
            async with limit, await connect(loopback) as stream:
                try:
                    await stream.send(kinds[number % len(kinds)])
                    if number % 3:  # the others hang up without a word
                        await stream.send_eof()
                except (anyio.BrokenResourceError, OSError):
                    return
                if number % 3:
                    assert status(await read_all(stream)) in {0, *range(400, 500)}

        async with anyio.create_task_group() as receiving:
            receiving.start_soon(loopback.receive, STATE)
            async with anyio.create_task_group() as tasks:
                for number in range(1000):
                    tasks.start_soon(disturb, number)
            assert status(await log_in(loopback)) == 200


@pytest.mark.req("CBK-17")
async def test_a_hundred_idle_connections_do_not_starve_the_real_one() -> None:
    async with listen(ANY_PORT) as loopback, AsyncExitStack() as stack:
        for number in range(100):
            stream = await stack.enter_async_context(await connect(loopback))
            if number % 2:
                await stream.send(b"GET /cal")
        assert status(await log_in(loopback)) == 200


@pytest.mark.req("CBK-17")
async def test_a_waiting_browser_is_not_pushed_out_and_the_oldest_idle_one_is() -> None:
    async with listen(ANY_PORT) as loopback, AsyncExitStack() as stack:
        browser = await stack.enter_async_context(await connect(loopback))
        await browser.send(get(loopback, GOOD))
        await loopback.receive(STATE)
        idle = [
            await stack.enter_async_context(await connect(loopback)) for _ in range(CONNECTIONS_MAX)
        ]
        assert await read_all(idle[0]) == b""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(loopback.answer, DONE)
            assert status(await read_all(browser)) == 200


@pytest.mark.req("CBK-17")
async def test_when_every_place_waits_for_the_page_newcomers_are_sent_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CONNECTIONS_MAX", 1)
    async with listen(ANY_PORT) as loopback, await connect(loopback) as browser:
        await browser.send(get(loopback, GOOD))
        await loopback.receive(STATE)
        assert await ask(loopback, b"") == b""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(loopback.answer, DONE)
            assert status(await read_all(browser)) == 200


@pytest.mark.req("CBK-17")
@pytest.mark.parametrize("part", [b"", b"GET /callback?code=A&sta"])
async def test_a_slow_head_has_a_deadline(part: bytes) -> None:
    async with listen(ANY_PORT, read_timeout=0.01) as loopback, await connect(loopback) as stream:
        if part:
            await stream.send(part)
        assert await read_all(stream) == b""


@pytest.mark.req("CBK-16")
async def test_a_browser_that_takes_nothing_does_not_hold_the_login_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LINGER", 0.01)
    async with listen(ANY_PORT) as loopback, await connect(loopback) as browser:
        await browser.send(get(loopback, GOOD))
        await loopback.receive(STATE)
        with anyio.fail_after(BOUND):
            await loopback.answer(Page("", "", ok=True, html=b"x" * 50_000_000))


async def test_an_exhausted_descriptor_table_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BREATHER", 0)
    real, failures = (
        socket.socket.accept,
        [
            OSError(errno.EMFILE, "Too many open files"),
            ConnectionAbortedError(),
            BlockingIOError(),
        ],
    )

    def accept(self: socket.socket) -> Any:
        if failures:
            raise failures.pop(0)
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", accept)
    async with listen(ANY_PORT) as loopback:
        assert status(await log_in(loopback)) == 200
    assert not failures


@pytest.mark.req("CBK-18", "ERR-07")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_any_bytes_leave_the_login_waiting(backend: str) -> None:
    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.binary() | st.binary().map(lambda x: b"GET /callback?" + x), max_size=30))
    def check(messages: list[bytes]) -> None:
        async def main() -> None:
            async with listen(ANY_PORT) as loopback:
                for message in messages:
                    async with await connect(loopback) as stream:
                        try:
                            await stream.send(message)
                            await stream.send_eof()
                        except (anyio.BrokenResourceError, OSError):
                            continue
                        assert status(await read_all(stream)) in {0, *range(400, 500)}
                assert status(await log_in(loopback)) == 200

        anyio.run(main, backend=backend)

    check()


# Ports.


@pytest.mark.req("AZR-12", "AZR-13", "AZR-11")
async def test_a_second_live_bind_fails_with_the_port_and_what_to_do() -> None:
    for uri in (ANY_PORT, IPV4_ONLY):
        async with listen(uri) as loopback:
            port = port_of(loopback.redirect_uri)
            with pytest.raises(ConfigError, match=f"port {port} .* close that program") as caught:
                async with listen(loopback.redirect_uri):
                    pass
            assert caught.value.reason == "port_in_use"
            assert status(await log_in(loopback)) == 200


@needs_ipv6
@pytest.mark.req("AZR-11")
@pytest.mark.parametrize(
    ("family", "own", "other"),
    [
        (socket.AF_INET, "127.0.0.1", "::1"),
        (socket.AF_INET6, "::1", "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0", "::1"),
    ],
)
async def test_a_stranger_on_one_family_is_noticed_and_nothing_stays_bound(
    family: socket.AddressFamily, own: str, other: str
) -> None:
    with socket.socket(family) as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind((own, 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            async with listen(f"http://localhost:{port}/callback"):
                pass
        assert caught.value.reason == "port_in_use"
        assert refused(port, other)


@pytest.mark.req("AZR-13", "AZR-14")
async def test_the_port_is_free_at_once_after_a_login() -> None:
    async with listen(ANY_PORT) as loopback:
        await log_in(loopback)
        uri = loopback.redirect_uri
    for _ in range(5):
        assert refused(port_of(uri))
        async with listen(uri) as loopback:
            assert status(await log_in(loopback)) == 200


def failing_bind(
    monkeypatch: pytest.MonkeyPatch, *failures: tuple[socket.AddressFamily, int, int]
) -> None:
    """Make binding fail: (family, error number, how often)."""
    real = binding._bind_one
    left = [[family, number] for family, number, times in failures for _ in range(times)]

    def bind_one(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
        for failure in left:
            if failure[0] == family:
                left.remove(failure)
                raise OSError(failure[1], "no")
        return real(family, host, port)

    monkeypatch.setattr(binding, "_bind_one", bind_one)


@pytest.mark.req("AZR-11")
@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
async def test_a_host_without_ipv6_has_localhost_all_the_same(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failing_bind(monkeypatch, (socket.AF_INET6, number, 99))
    async with listen(ANY_PORT) as loopback:
        assert [address[0] for address in loopback.addresses] == ["127.0.0.1"]
        assert status(await log_in(loopback)) == 200


@pytest.mark.req("AZR-10")
async def test_a_host_without_the_address_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_bind(
        monkeypatch,
        (socket.AF_INET, errno.EADDRNOTAVAIL, 99),
        (socket.AF_INET6, errno.EADDRNOTAVAIL, 99),
    )
    for uri in (ANY_PORT, IPV4_ONLY):
        with pytest.raises(ConfigError) as caught:
            bind(uri)
        assert caught.value.reason == "no_loopback"


@needs_ipv6
@pytest.mark.req("AZR-10")
async def test_a_host_without_ipv4_is_reached_by_ipv6_where_the_port_is_ours_to_choose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing_bind(monkeypatch, (socket.AF_INET, errno.EADDRNOTAVAIL, 99))
    for uri in ("http://127.0.0.1/callback", "http://127.0.0.1:0/callback"):
        async with listen(uri) as loopback:
            assert loopback.redirect_uri.startswith("http://[::1]:")
            assert [address[0] for address in loopback.addresses] == ["::1"]
            assert status(await log_in(loopback, "::1")) == 200
    with pytest.raises(ConfigError) as caught:  # that one is registered as it is
        bind("http://127.0.0.1:53593/callback")
    assert caught.value.reason == "no_loopback"


# Another address, because the user says so.


def names(listeners: list[socket.socket]) -> set[str]:
    """Where they listen; they are closed."""
    found = {listener.getsockname()[0] for listener in listeners}
    for listener in listeners:
        listener.close()
    return found


@pytest.mark.req("CBK-01")
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
async def test_by_default_nobody_beyond_this_machine_is_listened_to(host: str) -> None:
    if host == "[::1]" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    listeners, _ = bind(f"http://{host}/callback")
    assert names(listeners) <= {"127.0.0.1", "::1"}


@pytest.mark.req("CBK-04", "AZR-09")
async def test_elsewhere_only_if_asked_and_the_redirect_uri_stays() -> None:
    listeners, free = bind("http://localhost/callback")
    port = port_of(free)
    names(listeners)
    uri = f"http://localhost:{port}/callback"
    async with listen(uri, ("127.0.0.2", None)) as loopback:
        assert loopback.redirect_uri == uri
        assert loopback.addresses == (("127.0.0.2", port),)
        assert refused(port)
        foreign = await ask(loopback, GET_FROM.format(f"127.0.0.2:{port}").encode(), "127.0.0.2")
        assert status(foreign) == 421
        assert status(await log_in(loopback, "127.0.0.2")) == 200
    async with listen(uri, ("0.0.0.0", None)) as loopback:  # noqa: S104
        assert loopback.addresses == (("0.0.0.0", port),)  # noqa: S104
        assert status(await log_in(loopback)) == 200


GET_FROM = "GET /callback?code=A&state=s HTTP/1.1\r\nhost: {}\r\n\r\n"


async def test_a_port_of_its_own_is_listened_at_and_the_redirect_uri_stays() -> None:
    listeners, published = bind("http://127.0.0.2:0/".replace("127.0.0.2", "localhost"))
    names(listeners)
    inside = port_of(published)
    uri = "http://localhost:1/callback"
    listeners, bound = bind(uri, ("127.0.0.2", inside))
    assert bound == uri
    assert {listener.getsockname()[:2] for listener in listeners} == {("127.0.0.2", inside)}
    names(listeners)
    listeners, bound = bind("http://localhost/callback", ("127.0.0.2", inside))
    assert bound == f"http://localhost:{inside}/callback"
    names(listeners)


@needs_ipv6
async def test_everything_means_both_families() -> None:
    async with listen("http://localhost/callback", ("::", None)) as loopback:
        for host in ("127.0.0.1", "::1"):
            async with await connect(loopback, host):
                pass
        assert status(await log_in(loopback)) == 200


async def test_an_address_that_is_not_this_machines_is_a_setting_that_is_wrong() -> None:
    with pytest.raises(ConfigError, match="no address 192.0.2.1, which callbackBind") as caught:
        bind("http://localhost/callback", ("192.0.2.1", None))
    assert caught.value.reason == "no_loopback"


@needs_ipv6
async def test_a_port_that_is_free_in_one_family_only_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing_bind(monkeypatch, (socket.AF_INET6, errno.EADDRINUSE, 3))
    async with listen(ANY_PORT) as loopback:
        assert len(loopback.addresses) == 2
    failing_bind(monkeypatch, (socket.AF_INET6, errno.EADDRINUSE, 99))
    with pytest.raises(ConfigError) as caught:
        bind(ANY_PORT)
    assert caught.value.reason == "port_in_use"


async def test_a_privileged_port_is_a_setting_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing_bind(monkeypatch, (socket.AF_INET, errno.EACCES, 1))
    with pytest.raises(ConfigError, match="port 80 .* above 1023") as caught:
        bind("http://localhost:80/callback")
    assert caught.value.reason == "port_denied"


@pytest.mark.req("META-15", "CBK-01")
@pytest.mark.parametrize(
    "uri",
    [
        "http://0.0.0.0:53593/cb",
        "http://evil.example/cb",
        "https://localhost/cb",
        "http://user@localhost/cb",
        "http://localhost/cb#x",
        "http://localhost:99999/cb",
        "http://localhost:x/cb",
        "http://127.0.0.2/cb",
        "http://localhost.evil.example/cb",
        "http://localhost\r\n/cb",
        "http://localhöst/cb",
        "",
    ],
)
async def test_only_loopback_redirect_uris_are_listened_at(uri: str) -> None:
    with pytest.raises(ConfigError) as caught:
        bind(uri)
    assert caught.value.reason == "redirect_uri"
    assert "\n" not in str(caught.value)


# Ends.


async def until_held(loopback: Loopback, browser: SocketStream) -> None:
    await browser.send(get(loopback, GOOD))
    await loopback.receive(STATE)


@pytest.mark.req("AZR-14", "HTM-02")
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OAuth2Error("access_denied", "canary"), b"(access_denied), so you are not signed in"),
        (InvalidResponse("the iss is wrong; check <b>"), b"The iss is wrong; check &lt;b&gt;"),
        (ValueError("canary"), b"ended unexpectedly"),
        (ExceptionGroup("canary", [ValueError()]), b"ended unexpectedly"),
        (KeyboardInterrupt(), b"cancelled"),
    ],
)
async def test_what_the_body_raises_comes_out_as_it_is_and_the_browser_hears_of_it(
    error: Any, text: Any
) -> None:
    async def log_in() -> None:
        async with listen(ANY_PORT) as loopback:
            uris.append(loopback.redirect_uri)
            browsers.append(await stack.enter_async_context(await connect(loopback)))
            await until_held(loopback, browsers[0])
            raise error

    uris: list[str] = []
    browsers: list[SocketStream] = []
    async with AsyncExitStack() as stack:
        with pytest.raises(type(error)) as caught:
            await log_in()
        assert caught.value is error
        assert error.__context__ is None
        page = await read_all(browsers[0])
    bind_again(uris[0])
    assert status(page) == 400
    assert text in page
    assert b"canary" not in page


def bind_again(uri: str) -> None:
    assert refused(port_of(uri))
    for listener in bind(uri)[0]:
        listener.close()


@pytest.mark.req("AZR-14", "HTM-02")
async def test_a_body_that_ends_without_an_answer_lets_the_browser_know() -> None:
    async with AsyncExitStack() as stack:
        async with listen(ANY_PORT) as loopback:
            browser = await stack.enter_async_context(await connect(loopback))
            await until_held(loopback, browser)
        assert b"cancelled before it was complete" in await read_all(browser)
    bind_again(loopback.redirect_uri)


@pytest.mark.req("CBK-16", "AZR-14")
@pytest.mark.parametrize("held", [False, True])
async def test_a_cancelled_scope_ends_all_and_tells_the_browser(held: bool) -> None:
    async with AsyncExitStack() as stack:
        with anyio.CancelScope() as scope:
            async with listen(ANY_PORT) as loopback:
                uri = loopback.redirect_uri
                idle = await stack.enter_async_context(await connect(loopback))
                browser = await stack.enter_async_context(await connect(loopback))
                await browser.send(get(loopback, GOOD if held else "state=evil"))
                if held:
                    await loopback.receive(STATE)
                scope.cancel()
                await (anyio.sleep_forever() if held else loopback.receive(STATE))
        assert scope.cancelled_caught
        assert await read_all(idle) == b""
        page = await read_all(browser)
        assert (b"The login was cancelled" in page) == held
    bind_again(uri)


@pytest.mark.req("CBK-16")
async def test_a_deadline_is_a_deadline() -> None:
    with pytest.raises(TimeoutError), anyio.fail_after(0.01):
        async with listen(ANY_PORT) as loopback:
            await loopback.receive(STATE)
    bind_again(loopback.redirect_uri)


@pytest.mark.req("CBK-16", "AZR-14")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("steps", range(8))
async def test_asyncios_own_cancel_at_any_step_ends_all(steps: int) -> None:
    seen: list[str] = []

    async def login() -> None:
        async with listen(ANY_PORT) as loopback:
            seen.append(loopback.redirect_uri)
            async with await connect(loopback) as browser:
                await browser.send(get(loopback, GOOD))
                await loopback.receive(STATE)
                await anyio.sleep_forever()

    before = asyncio.all_tasks()
    task = asyncio.create_task(login())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert asyncio.all_tasks() == before
    for uri in seen:
        bind_again(uri)


@pytest.mark.req("CBK-16", "AZR-14")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_second_cancel_while_the_browser_is_told_ends_all_too() -> None:
    listening: list[Loopback] = []

    async def login() -> None:
        async with listen(ANY_PORT) as loopback:
            listening.append(loopback)
            await loopback.receive(STATE)
            held.set_result(None)
            await anyio.sleep_forever()

    held = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(login())
    await anyio.wait_all_tasks_blocked()
    async with await connect(listening[0]) as browser:
        await browser.send(get(listening[0], GOOD))
        await held
        task.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    bind_again(listening[0].redirect_uri)


@pytest.mark.req("CBK-16")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncio_timeouts_work_around_it() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), listen(ANY_PORT) as loopback:
            await loopback.receive(STATE)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.req("AZR-14")
async def test_two_listeners_side_by_side_do_not_mix() -> None:
    async with listen(ANY_PORT) as one, listen(ANY_PORT) as other:
        assert one.redirect_uri != other.redirect_uri
        assert status(await log_in(other)) == 200
        assert status(await log_in(one)) == 200


async def test_a_bug_in_a_handler_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def buggy(*args: Any) -> None:
        raise ZeroDivisionError

    async def log_in() -> None:
        async with listen(ANY_PORT) as loopback:
            uris.append(loopback.redirect_uri)
            async with await connect(loopback) as browser:
                await browser.send(get(loopback, GOOD))
                await loopback.receive(STATE)

    uris: list[str] = []
    monkeypatch.setattr(module, "judge", buggy)
    with pytest.raises(ExceptionGroup) as caught:
        await log_in()
    assert caught.group_contains(ZeroDivisionError)
    bind_again(uris[0])
