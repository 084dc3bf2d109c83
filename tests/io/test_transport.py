from __future__ import annotations

import gzip
import inspect
import logging
import socket
import ssl
import subprocess
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest
import trustme
from hypothesis import HealthCheck, given, settings, strategies as st

from flyteauth._io import tls as tls_module, transport as transport_module
from flyteauth._io.proxy import proxy_for
from flyteauth._io.transport import (
    CHUNKS_AT_ONCE,
    CHUNKS_MAX,
    HEAD_MAX,
    HEAD_PIECE,
    HttpxTransport,
)
from flyteauth._sansio.errors import ConfigError
from flyteauth._sansio.flow import RequestFailed, ResponseReceived
from flyteauth._sansio.http import Request, get, post_form

from .server import (
    LIMIT,
    Connection,
    Server,
    answering,
    closing,
    dripping,
    endless,
    reply,
    serve,
    silent,
)

pytestmark = pytest.mark.anyio

CANARY = "canary-4711-secret"
NO_PROXY_KEYS = (
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "ssl_cert_file",
    "ssl_cert_dir",
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in NO_PROXY_KEYS:
        monkeypatch.delenv(key, raising=False)
        monkeypatch.delenv(key.upper(), raising=False)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


async def send(server: Server, request: Request | None = None, **options: Any) -> Any:
    transport = HttpxTransport(**{"deadline": LIMIT, **options})
    try:
        return await transport.send(request or post_form(server.url, {"secret": CANARY}))
    finally:
        await transport.aclose()


def failed(event: object) -> RequestFailed:
    assert isinstance(event, RequestFailed), event
    assert CANARY not in repr(event)
    return event


def received(event: object) -> ResponseReceived:
    assert isinstance(event, ResponseReceived), event
    return event


def head_of(request: bytes) -> dict[str, str]:
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }


# What goes out, and what comes back.


async def test_a_response_comes_back_as_a_value() -> None:
    with serve(answering(reply(b'{"a":1}', headers=("X-Twice: 1", "X-Twice: 2")))) as server:
        event = received(await send(server))
    assert event.response.status == 200
    assert event.response.body == b'{"a":1}'
    assert [v for n, v in event.response.headers if n.lower() == "x-twice"] == ["1", "2"]
    assert event.sent_at <= event.at


async def test_nothing_is_sent_that_was_not_asked_for() -> None:
    with serve(answering(reply())) as server:
        await send(server, Request("GET", server.url, (("accept", "application/json"),)))
        head = head_of(server.requests[0])
    assert head.pop("user-agent").startswith("flyteauth/")
    assert head == {
        "host": f"localhost:{server.port}",
        "accept": "application/json",
        "accept-encoding": "identity",
    }


@pytest.mark.req("NET-03")
async def test_a_netrc_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine localhost login someone password canary\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with serve(answering(reply())) as server:
        await send(server)
        assert "authorization" not in head_of(server.requests[0])


@pytest.mark.req("NET-03")
async def test_a_cookie_is_not_sent_back() -> None:
    with serve(answering(reply(headers=("set-cookie: a=b; Path=/",)))) as server:
        transport = HttpxTransport()
        for _ in range(2):
            received(await transport.send(get(server.url)))
        await transport.aclose()
        assert server.accepted == 1  # the same connection, so the second request had its chance
        assert all("cookie" not in head_of(request) for request in server.requests)


@pytest.mark.req("BRR-04", "BRR-05", "META-08")
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_redirect_is_returned_and_not_followed(method: str) -> None:
    location = "location: http://169.254.169.254/"
    with serve(answering(reply(status="307 Temporary Redirect", headers=(location,)))) as server:
        event = received(await send(server, Request(method, server.url, body=b"x=1")))
        assert event.response.status == 307
        assert event.response.header("Location") == "http://169.254.169.254/"
        assert len(server.requests) == 1


@pytest.mark.req("META-05", "NET-03")
@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/token",
        "ftp://localhost/",
        "http://user:canary-4711-secret@localhost/",
        "https://localhost/#fragment",
        "not a url",
        "",
        "https://[::1/",
    ],
)
async def test_an_insecure_url_is_refused_before_anything_is_sent(url: str) -> None:
    transport = HttpxTransport()
    event = failed(await transport.send(get(url)))
    assert (event.reason, event.sent) == ("insecure", False)


async def test_an_insecure_host_is_reached_only_if_that_is_allowed() -> None:
    transport = HttpxTransport(plain_host="example.org", proxy_url=None)
    for url in ("http://user@example.org/", "http://example.com/", "nonsense"):
        assert failed(await transport.send(get(url))).reason == "insecure"
    await transport.aclose()


@pytest.mark.parametrize(
    "request_",
    [
        Request("POST", "http://localhost:1/", (("x", f"{CANARY}\r\ny: z"),)),
        Request("POST", "http://localhost:1/", (("x", f"{CANARY}\u20ac"),)),
        Request("PO ST", "http://localhost:1/"),
    ],
)
async def test_a_request_that_is_not_http_is_not_sent(request_: Request) -> None:
    with serve(answering(reply())) as server:
        url = server.url
        event = await send(server, Request(request_.method, url, request_.headers, b"x"))
        assert not failed(event).sent
        assert not server.requests


async def test_a_closed_transport_refuses_to_send() -> None:
    transport = HttpxTransport()
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await transport.send(get("http://localhost:1/"))


# Hostile and broken servers.


@pytest.mark.req("NET-01")
def test_unasked_a_request_has_thirty_seconds_ten_to_connect_and_a_mebibyte() -> None:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(HttpxTransport).parameters.items()
        if name in {"deadline", "connect_timeout", "body_max"}
    }
    assert defaults == {"deadline": 30.0, "connect_timeout": 10.0, "body_max": 1_048_576}


@pytest.mark.req("NET-01", "META-06")
async def test_a_slow_body_ends_at_the_total_deadline() -> None:
    with serve(dripping(b"HTTP/1.1 200 OK\r\n\r\n")) as server:
        event = failed(await send(server, deadline=1.0))
        assert (event.reason, event.sent) == ("timeout", True)
        assert event.text == "no answer within 1 s"
        assert server.all_closed()


@pytest.mark.req("NET-01")
async def test_a_slow_head_ends_at_the_total_deadline() -> None:
    with serve(dripping(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 10000)) as server:
        event = failed(await send(server, deadline=1.0))
        assert (event.reason, event.sent) == ("timeout", True)
        assert server.all_closed()


@pytest.mark.req("NET-01")
async def test_a_silent_server_ends_at_the_total_deadline() -> None:
    with serve(silent) as server:
        event = failed(await send(server, deadline=1.0))  # on a busy machine the request takes some
        assert (event.reason, event.sent) == ("timeout", True)
        assert server.all_closed()


@pytest.mark.req("NET-01", "META-06", "TOK-02")
async def test_an_endless_body_is_left_at_the_limit() -> None:
    with serve(endless()) as server:
        await send(server, body_max=1)  # whatever is imported on first use is not counted below
        tracemalloc.start()
        try:
            event = failed(await send(server))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert (event.reason, event.sent) == ("too_large", True)
        assert peak < 12 * 1024 * 1024  # uvloop takes up to 32 times 256 KiB before it lets us look
        assert server.all_closed()


@pytest.mark.req("META-06", "TOK-02")
async def test_a_body_of_exactly_the_limit_is_read() -> None:
    for chunked in (False, True):
        body = b"x" * 1000
        answer = reply(body)
        if chunked:
            answer = (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e8\r\n%b\r\n0\r\n\r\n"
                % body
            )
        with serve(answering(answer)) as server:
            assert received(await send(server, body_max=1000)).response.body == body
            assert failed(await send(server, body_max=999)).reason == "too_large"
            assert server.all_closed()


async def test_a_length_beyond_the_limit_is_refused_unread() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"
    with serve(answering(head)) as server:
        assert failed(await send(server)).reason == "too_large"
        assert server.all_closed()


@pytest.mark.req("META-06")
@pytest.mark.parametrize("coding", ["gzip", "identity, gzip", "x-unknown", "br", "deflate"])
async def test_a_compressed_body_is_refused_unread(coding: str) -> None:
    bomb = gzip.compress(b" " * 5_000_000)
    with serve(answering(reply(bomb, headers=(f"Content-Encoding: {coding}",)))) as server:
        event = failed(await send(server))
        assert (event.reason, event.sent) == ("encoding", True)
        assert head_of(server.requests[0])["accept-encoding"] == "identity"
        assert server.all_closed()


async def test_identity_is_not_compressed() -> None:
    with serve(answering(reply(headers=("content-encoding: identity",)))) as server:
        assert received(await send(server)).response.body == b"{}"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "connection closed before the answer"),
        (b"HTTP/1.1 200 OK\r\n", "connection closed before the answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", "connection closed within the answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "the answer is not HTTP"),
    ],
)
async def test_a_broken_answer_is_a_failure_that_was_sent(answer: bytes, text: str) -> None:
    with serve(answering(answer, close=True)) as server:
        event = failed(await send(server))
        assert event.sent
        assert (event.reason, event.text) == ("protocol", text)


@pytest.mark.req("ERR-07")
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(answer=st.binary(max_size=200), whole=st.booleans())
async def test_any_bytes_are_a_response_or_a_failure(answer: bytes, whole: bool) -> None:
    if whole:
        answer = b"HTTP/1.1 200 OK\r\n" + answer
    with serve(answering(answer, close=True)) as server:
        event = await send(server)
    assert isinstance(event, ResponseReceived | RequestFailed)


async def test_a_connection_that_is_closed_after_the_request_may_have_been_heard() -> None:
    with serve(closing) as server:
        event = failed(await send(server))
        assert (event.reason, event.sent) == ("protocol", True)


async def test_a_port_without_listener_refuses_and_nothing_is_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    transport = HttpxTransport()
    event = failed(await transport.send(get(f"http://127.0.0.1:{port}/?code={CANARY}")))
    assert (event.reason, event.text, event.sent) == ("connect", "connection refused", False)
    await transport.aclose()


async def test_an_unknown_host_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*args: object, **options: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    transport = HttpxTransport()
    event = failed(await transport.send(get("https://login.example.org/")))
    assert (event.reason, event.sent) == ("connect", False)
    assert event.text == "name or service not known"
    await transport.aclose()


async def test_a_connection_that_nobody_accepts_ends_at_its_own_limit() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []  # take every place in the queue
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        transport = HttpxTransport(connect_timeout=0.2, deadline=LIMIT)
        event = failed(await transport.send(get(f"http://127.0.0.1:{port}/")))
        assert (event.reason, event.sent) == ("timeout", False)
        assert event.text == "no connection within 0.2 s"
        await transport.aclose()
        for filler in fillers:
            filler.close()


# Trust.


@pytest.mark.req("META-05")
async def test_a_private_authority_is_trusted_only_if_it_is_named(
    authority: trustme.CA, ca_file: Path
) -> None:
    with serve(answering(reply()), server_context(authority, "localhost")) as server:
        event = failed(await send(server))
        assert (event.reason, event.sent) == ("tls", False)
        assert "unable to get local issuer certificate" in event.text
        assert "trustme" in event.text  # who issued it
        assert not server.requests
        assert received(await send(server, ca_file=ca_file)).response.status == 200


@pytest.mark.req("META-05")
async def test_a_certificate_for_another_host_is_refused(
    authority: trustme.CA, ca_file: Path
) -> None:
    with serve(answering(reply()), server_context(authority, "example.org")) as server:
        event = failed(await send(server, ca_file=ca_file))
        assert (event.reason, event.sent) == ("tls", False)
        assert "localhost" in event.text
        assert not server.requests


@pytest.mark.req("META-05")
async def test_a_self_signed_certificate_is_refused_without_a_second_try(
    authority: trustme.CA,
) -> None:
    with serve(answering(reply()), server_context(trustme.CA(), "localhost")) as server:
        assert failed(await send(server)).reason == "tls"
        assert server.accepted == 1
        assert not server.requests


async def test_the_server_certificate_itself_can_be_trusted(
    authority: trustme.CA, tmp_path: Path
) -> None:
    leaf = authority.issue_cert("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "leaf.pem"))
    with serve(answering(reply()), context) as server:
        received(await send(server, ca_file=tmp_path / "leaf.pem"))


async def test_ssl_cert_file_is_honoured(
    authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    with serve(answering(reply()), server_context(authority, "localhost")) as server:
        received(await send(server))


@pytest.mark.req("META-05")
async def test_verification_is_skipped_only_where_that_was_asked_for(
    authority: trustme.CA,
) -> None:
    with serve(answering(reply()), server_context(authority, "example.org")) as server:
        received(await send(server, insecure_skip_verify=True))
        assert failed(await send(server)).reason == "tls"


async def test_old_tls_is_refused(authority: trustme.CA, ca_file: Path) -> None:
    context = server_context(authority, "localhost")
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with serve(answering(reply()), context) as server:
        event = failed(await send(server, ca_file=ca_file))
        assert (event.reason, event.sent) == ("tls", False)


async def test_a_server_without_tls_is_told_apart(ca_file: Path) -> None:
    def complain(connection: Connection) -> None:
        connection.sock.recv(65536)
        connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with serve(complain) as server:
        url = server.url.replace("http:", "https:")
        event = failed(await send(server, get(url), ca_file=ca_file))
        assert (event.reason, event.sent) == ("tls", False)
        assert event.text.startswith("no TLS is spoken there")


async def test_a_handshake_that_ends_early_is_a_network_fault() -> None:
    def hang_up(connection: Connection) -> None:
        connection.sock.recv(10)
        connection.sock.shutdown(socket.SHUT_RDWR)

    with serve(hang_up) as server:
        event = failed(await send(server, get(server.url.replace("http:", "https:"))))
        assert (event.reason, event.sent) == ("connect", False)


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
async def test_a_bad_ca_file_is_a_config_error_that_names_it(
    content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "bad.pem"
    if content is not None:
        path.write_bytes(content)
    transport = HttpxTransport(ca_file=path)
    for _ in range(2):
        with pytest.raises(ConfigError, match="caCertFilePath") as caught:
            await transport.send(get("https://localhost:1/"))
        assert str(path) in str(caught.value)
        assert caught.value.reason == "ca_file"
    path.unlink(missing_ok=True)
    path.write_bytes(trustme.CA().cert_pem.bytes())  # mended meanwhile
    assert failed(await transport.send(get("https://localhost:1/"))).reason == "connect"
    await transport.aclose()


@pytest.mark.skipif(sys.platform in {"darwin", "win32"}, reason="the trust store is no file there")
async def test_the_systems_bundle_is_found_where_openssl_does_not_look(
    authority: trustme.CA, ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nowhere"))
    monkeypatch.setattr(tls_module, "BUNDLES", (str(tmp_path / "none"), str(junk), str(ca_file)))
    with serve(answering(reply()), server_context(authority, "localhost")) as server:
        received(await send(server))
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))  # then it is meant as it is
        assert failed(await send(server)).reason == "tls"


# Proxies.


def connect_proxy(status: bytes = b"200 Connection established") -> Callable[[Connection], None]:
    """A CONNECT proxy that relays to whatever port was asked for on this machine."""

    def script(connection: Connection) -> None:
        if not (request := connection.read_request()):
            return
        target = request.split(b" ")[1]
        connection.send(b"HTTP/1.1 " + status + b"\r\n\r\n")
        if not status.startswith(b"200"):
            return
        with socket.create_connection(("127.0.0.1", int(target.rpartition(b":")[2]))) as onward:
            pump = threading.Thread(target=relay, args=(onward, connection.sock), daemon=True)
            pump.start()
            relay(connection.sock, onward)
            pump.join(LIMIT)

    return script


def relay(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.mark.req("NET-04")
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.10"])
async def test_loopback_never_goes_to_a_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(answering(reply())) as proxy, serve(answering(reply())) as server:
        for key in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(key, f"http://localhost:{proxy.port}")
        url = f"http://{host}:{server.port}/"
        if host == "127.8.9.10":
            assert proxy_for(None, "http", host, 80) is None
            url = server.url
        received(await send(server, get(url)))
        received(await send(server, get(url), proxy_url=f"http://localhost:{proxy.port}"))
        assert not proxy.accepted


@pytest.mark.req("NET-04")
@pytest.mark.parametrize(
    ("host", "near"),
    [
        ("169.254.169.254", True),
        ("fe80::1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("LOCALHOST.", True),
        ("app.localhost", True),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
        ("example.org", False),
        ("2001:db8::1", False),
    ],
)
def test_what_is_near_is_reached_directly(host: str, near: bool) -> None:
    proxy = proxy_for("http://proxy:3128", "https", host, 443)
    assert proxy == (None if near else "http://proxy:3128")


@pytest.mark.req("NET-04")
@pytest.mark.parametrize(
    ("environment", "host", "expected"),
    [
        ({}, "example.org", None),
        ({"HTTPS_PROXY": "http://a:1"}, "example.org", "http://a:1"),
        ({"https_proxy": "http://a:1"}, "example.org", "http://a:1"),
        ({"HTTPS_PROXY": "a:1"}, "example.org", "http://a:1"),
        ({"ALL_PROXY": "http://b:1"}, "example.org", "http://b:1"),
        ({"HTTP_PROXY": "http://a:1"}, "example.org", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "example.org"}, "example.org", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": ".example.org"}, "x.example.org", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*"}, "example.org", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "example.org:443"}, "example.org", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "ample.org"}, "example.org", "http://a:1"),
    ],
)
def test_the_environment_names_a_proxy_and_exceptions(
    environment: dict[str, str], host: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert proxy_for(None, "https", host, 443) == expected


@pytest.mark.req("NET-04")
def test_no_proxy_holds_for_a_configured_proxy_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert proxy_for("http://a:1", "https", "example.org", 443) is None
    assert proxy_for("http://a:1", "https", "example.com", 443) == "http://a:1"


@pytest.mark.req("BRR-13")
async def test_https_goes_through_the_proxy_in_a_tunnel(
    authority: trustme.CA, ca_file: Path
) -> None:
    tls = server_context(authority, "auth.example.org")
    with serve(connect_proxy()) as proxy, serve(answering(reply()), tls) as server:
        request = post_form(f"https://auth.example.org:{server.port}/token", {"secret": CANARY})
        proxy_url = f"http://user:{CANARY}@localhost:{proxy.port}"
        event = received(await send(server, request, ca_file=ca_file, proxy_url=proxy_url))
        assert event.response.status == 200
        assert CANARY.encode() not in proxy.requests[0]
        assert "proxy-authorization" in head_of(proxy.requests[0])
        assert "proxy-authorization" not in head_of(server.requests[0])
        assert proxy.all_closed()
        assert server.all_closed()


async def test_a_proxy_does_not_weaken_trust(authority: trustme.CA) -> None:
    tls = server_context(authority, "auth.example.org")
    with serve(connect_proxy()) as proxy, serve(answering(reply()), tls) as server:
        request = get(f"https://auth.example.org:{server.port}/")
        event = failed(await send(server, request, proxy_url=f"http://localhost:{proxy.port}"))
        assert (event.reason, event.sent) == ("tls", False)
        assert not server.requests
        assert proxy.all_closed()


async def test_a_proxy_that_refuses_is_named_without_its_password() -> None:
    with serve(connect_proxy(b"407 Proxy Authentication Required")) as proxy:
        request = get("https://auth.example.org/")
        url = f"http://user:{CANARY}@localhost:{proxy.port}"
        event = failed(await send(proxy, request, proxy_url=url))
        assert (event.reason, event.sent) == ("connect", False)
        assert event.text == f"through the proxy localhost:{proxy.port}: it answered with 407"


async def test_a_proxy_that_is_not_there_is_named_without_its_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    transport = HttpxTransport(proxy_url=f"http://user:{CANARY}@127.0.0.1:{port}")
    event = failed(await transport.send(get("https://auth.example.org/")))
    assert event.text == f"through the proxy 127.0.0.1:{port}: connection refused"
    assert not event.sent
    assert CANARY not in repr(transport)
    await transport.aclose()


@pytest.mark.parametrize("url", [f"{CANARY}", f"ftp://{CANARY}", "http://", f"http://x:{CANARY}"])
async def test_a_bad_proxy_is_a_config_error_without_its_value(url: str) -> None:
    transport = HttpxTransport(proxy_url=url)
    with pytest.raises(ConfigError, match="httpProxyURL") as caught:
        await transport.send(get("https://auth.example.org/"))
    assert CANARY not in str(caught.value)
    assert caught.value.reason == "proxy"


async def test_a_socks_proxy_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://localhost:1")
    with pytest.raises(ConfigError, match="ALL_PROXY names a SOCKS proxy"):
        await HttpxTransport().send(get("https://auth.example.org/"))


# Secrets.


@pytest.mark.req("SEC-03", "ERR-05")
@pytest.mark.parametrize("fault", [False, True])
async def test_no_secret_is_logged_at_any_level(
    fault: bool, caplog: pytest.LogCaptureFixture, authority: trustme.CA, ca_file: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    headers = (f"set-cookie: {CANARY}", f"location: https://x/?code={CANARY}")
    answer = reply(CANARY.encode(), headers=headers, status=f"200 {CANARY}")
    if fault:
        answer = f"HTTP/1.1 200 OK\r\n{CANARY}\r\n\r\n".encode()
    with serve(answering(answer), server_context(authority, "localhost")) as server:
        request = post_form(
            f"{server.url}?query={CANARY}", {"a": CANARY}, (("authorization", CANARY),)
        )
        event = await send(server, request, ca_file=ca_file)
        assert isinstance(event, RequestFailed if fault else ResponseReceived)
    assert caplog.records  # connecting is still told
    assert CANARY not in caplog.text


async def test_the_logs_of_others_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    import httpx

    caplog.set_level(logging.DEBUG)
    with serve(answering(reply())) as server:
        await send(server)
        assert not [record for record in caplog.records if record.name == "httpcore.http11"]
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.get(server.url)
        assert [record for record in caplog.records if record.name == "httpcore.http11"]


# Cancellation, event loops, and the end.


async def cancel_after(ticks: int, work: Callable[[], Any]) -> bool:
    """Run *work*, and cancel it after so many turns of the event loop; whether it was over."""
    over = False

    async def run() -> None:
        nonlocal over
        await work()
        over = True

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        for _ in range(ticks):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    return over


@pytest.mark.parametrize("kind", ["http", "https", "proxy"])
async def test_cancellation_at_any_point_leaves_no_socket(
    kind: str, authority: trustme.CA, ca_file: Path
) -> None:
    tls = None if kind == "http" else server_context(authority, "localhost", "auth.example.org")
    with serve(answering(reply()), tls) as server, serve(connect_proxy()) as proxy:
        url, proxy_url = server.url, None
        if kind == "proxy":
            url = f"https://auth.example.org:{server.port}/token"
            proxy_url = f"http://localhost:{proxy.port}"
        transport = HttpxTransport(ca_file=ca_file, proxy_url=proxy_url)
        received(await transport.send(get(url)))  # what is slow only once is over
        ticks, over = 0, False
        while not over and ticks < 10_000_000:  # a busy machine needs many turns
            fresh = HttpxTransport(ca_file=ca_file, proxy_url=proxy_url)
            fresh._context, fresh._proxies = transport._context, transport._proxies
            over = await cancel_after(ticks, partial(fresh.send, get(url)))
            if over:
                await fresh.aclose()
            else:  # nothing is left to close, even without closing
                assert all(not c._pools for c in fresh._loops.values())
            ticks += 1 + ticks // 8
        assert over
        await transport.aclose()
        assert await anyio.to_thread.run_sync(server.all_closed)
        assert await anyio.to_thread.run_sync(proxy.all_closed)


async def test_asyncio_cancellation_goes_through_unchanged(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        return
    import asyncio

    with serve(silent) as server:
        transport = HttpxTransport()
        task = asyncio.create_task(transport.send(get(server.url)))
        assert await anyio.to_thread.run_sync(server.wait_accepted)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await anyio.to_thread.run_sync(server.all_closed)
        await transport.aclose()


async def test_a_cancelled_first_caller_does_not_stop_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    building, go = threading.Event(), threading.Event()
    build, calls = tls_module.tls_context, []

    def slow_build(*args: Any, **options: Any) -> ssl.SSLContext:
        calls.append(args)
        building.set()
        go.wait(LIMIT)
        return build(*args, **options)

    monkeypatch.setattr(transport_module, "tls_context", slow_build)
    with serve(answering(reply())) as server:
        transport = HttpxTransport()
        events: list[object] = []

        async def second() -> None:
            events.append(await transport.send(get(server.url)))

        async with anyio.create_task_group() as others:
            async with anyio.create_task_group() as first:
                first.start_soon(transport.send, get(server.url))
                await anyio.to_thread.run_sync(building.wait)
                for _ in range(5):
                    others.start_soon(second)
                await anyio.lowlevel.checkpoint()
                first.cancel_scope.cancel()
            go.set()
        assert len(events) == 5
        assert all(isinstance(event, ResponseReceived) for event in events)
        assert len(calls) == 1
        await transport.aclose()


IMPORTS = """
import sys, threading
from pathlib import Path
import anyio
if sys.argv[1] == "trio":
    import trio
from flyteauth._io.transport import CHUNKS_AT_ONCE, CHUNKS_MAX, HttpxTransport
from flyteauth._sansio.http import get
early = [name for name in ("httpx", "ssl", "truststore", "urllib.request") if name in sys.modules]
on_loop = []
class Watch:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is threading.main_thread():
            on_loop.append(name)
async def main():
    transport = HttpxTransport(ca_file=Path(sys.argv[3]))
    sys.meta_path.insert(0, Watch())
    event = await transport.send(get(sys.argv[2]))
    await transport.aclose()
    sys.meta_path.pop(0)
    assert event.response.status == 200
anyio.run(main, backend=sys.argv[1])
print(early if sys.argv[1] == "asyncio" else [], on_loop)
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_nothing_is_imported_on_the_event_loop(
    backend: str, authority: trustme.CA, ca_file: Path
) -> None:
    with serve(answering(reply()), server_context(authority, "localhost")) as server:
        command = [sys.executable, "-c", IMPORTS, backend, server.url, str(ca_file)]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (shown.stderr, shown.stdout) == ("", "[] []\n")


@pytest.mark.skipif(sys.platform in {"darwin", "win32"}, reason="the trust store is no file there")
async def test_the_trust_store_is_read_once_and_not_on_the_event_loop(
    authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[threading.Thread] = []
    build = tls_module.tls_context

    def watched(*args: Any, **options: Any) -> ssl.SSLContext:
        readers.append(threading.current_thread())
        return build(*args, **options)

    monkeypatch.setattr(transport_module, "tls_context", watched)
    with serve(answering(reply(), close=True), server_context(authority, "localhost")) as server:
        transport = HttpxTransport(ca_file=ca_file)
        for _ in range(3):
            received(await transport.send(get(server.url)))
        assert transport._context is not None
        assert type(transport._context) is ssl.SSLContext  # others read it for each connection
        await transport.aclose()
    assert len(readers) == 1
    assert readers[0] is not threading.current_thread()


async def test_the_deadline_holds_for_the_first_use_too(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def hang(*args: Any, **options: Any) -> None:
        go.wait(LIMIT)
        raise OSError

    monkeypatch.setattr(transport_module, "tls_context", hang)
    transport = HttpxTransport(deadline=0.1)
    event = failed(await transport.send(get("https://localhost:1/")))
    assert (event.reason, event.sent) == ("timeout", False)
    go.set()


async def test_a_connection_is_used_again_and_closed_in_the_end() -> None:
    with serve(answering(reply())) as server:
        transport = HttpxTransport()
        for _ in range(3):
            received(await transport.send(get(server.url)))
        assert server.accepted == 1
        assert server.closed == 0
        await transport.aclose()
        assert await anyio.to_thread.run_sync(server.all_closed)


async def test_what_nobody_asked_for_is_no_answer_to_the_next_request() -> None:
    """A proxy that has lost count sends one answer too many: somebody else's."""
    smuggled = reply(b'{"access_token":"smuggled"}')
    with serve(answering(reply(b"{}", status="503 Busy") + smuggled)) as server:
        transport = HttpxTransport(deadline=LIMIT)
        for _ in range(3):
            event = received(await transport.send(get(server.url)))
            assert (event.response.status, event.response.body) == (503, b"{}")
        assert server.accepted == 3
        await transport.aclose()
        assert await anyio.to_thread.run_sync(server.all_closed)


EARLY = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n"


async def test_interim_responses_are_passed_over() -> None:
    with serve(answering(EARLY * 24 + reply())) as server:
        transport = HttpxTransport(deadline=LIMIT)
        for _ in range(9):  # each answer has a bound of its own
            assert received(await transport.send(get(server.url))).response.status == 200
        assert server.accepted == 1
        await transport.aclose()


@pytest.mark.req("META-06", "TOK-02", "NET-01")
@pytest.mark.parametrize("where", ["http", "https", "proxy", "second request"])
@pytest.mark.parametrize(
    "flood", [EARLY * 1000, b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 6000], ids=["interim", "head"]
)
async def test_what_comes_before_an_answer_has_a_bound(
    where: str, flood: bytes, authority: trustme.CA, ca_file: Path
) -> None:
    assert len(flood) > HEAD_MAX
    answers = [reply(), flood] if where == "second request" else [flood]
    tls = server_context(authority, "localhost") if where == "https" else None
    with serve(answering(*answers), tls) as server:
        options: dict[str, Any] = {"ca_file": ca_file, "deadline": LIMIT}
        url = f"{'http' if tls is None else 'https'}://localhost:{server.port}/"
        if where == "proxy":
            options["proxy_url"] = f"http://localhost:{server.port}"
            url = "https://auth.example.org/"
        transport = HttpxTransport(**options)
        for _ in answers[1:]:
            received(await transport.send(get(url)))
        event = failed(await transport.send(get(url)))
        assert (event.reason, event.sent) == ("too_large", where != "proxy")
        assert server.accepted == 1
        assert await anyio.to_thread.run_sync(server.all_closed)
        await transport.aclose()


async def test_a_long_body_does_not_count_as_what_comes_before_it() -> None:
    body = b"x" * 10 * HEAD_MAX
    with serve(answering(reply(body))) as server:
        assert received(await send(server)).response.body == body


async def turns_of_others(*answers: bytes) -> int:
    """How often another task has its turn while the last of *answers* is read."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    with serve(answering(*answers)) as server:
        transport = HttpxTransport(deadline=LIMIT)
        request = get(server.url)
        received(await transport.send(request))  # imports done
        async with anyio.create_task_group() as group:
            group.start_soon(count)
            received(await transport.send(request))
            group.cancel_scope.cancel()
        await transport.aclose()
    return turns


@pytest.mark.req("NET-01")
@pytest.mark.parametrize("kind", ["interim", "head"])
async def test_others_have_their_turn_while_an_answer_is_waited_for(kind: str) -> None:
    """What comes at once is little, however much is there."""
    much = EARLY * 600 + reply() if kind == "interim" else reply(headers=("x: y",) * 5000)
    turns = await turns_of_others(reply(), much)
    assert turns >= len(much) / HEAD_PIECE


@pytest.mark.req("META-06", "TOK-02")
@pytest.mark.parametrize("pieces", [CHUNKS_MAX, CHUNKS_MAX + 1])
async def test_a_body_in_too_many_pieces_is_not_read_on(pieces: int) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    with serve(answering(head + b"1\r\nx\r\n" * pieces + b"0\r\n\r\n")) as server:
        event = await send(server)
        if pieces == CHUNKS_MAX:
            assert received(event).response.body == b"x" * pieces
        else:
            assert failed(event).reason == "too_large"
        assert server.all_closed()


@pytest.mark.req("META-06", "TOK-02")
async def test_others_have_their_turn_while_a_body_comes_in_pieces() -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    turns = await turns_of_others(head + b"1\r\nx\r\n" * CHUNKS_MAX + b"0\r\n\r\n")
    assert turns >= CHUNKS_MAX / CHUNKS_AT_ONCE


async def test_closing_ends_the_requests_that_are_on_their_way() -> None:
    with serve(silent) as server:
        transport = HttpxTransport()
        events: list[object] = []

        async def ask() -> None:
            events.append(await transport.send(get(server.url)))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            assert await anyio.to_thread.run_sync(server.wait_accepted)
            while not any(c._pools for c in transport._loops.values()):
                await anyio.lowlevel.checkpoint()
            await transport.aclose()
        assert failed(events[0]).text == "the session was closed"
        assert await anyio.to_thread.run_sync(server.all_closed)


@pytest.mark.parametrize(
    "backends", [("asyncio", "trio"), ("asyncio", "asyncio"), ("trio", "trio")]
)
def test_one_transport_serves_several_event_loops_in_turn(backends: tuple[str, str]) -> None:
    transport = HttpxTransport()

    async def twice(url: str) -> None:
        for _ in range(2):
            received(await transport.send(get(url)))

    with serve(answering(reply())) as server:
        for backend in backends:
            anyio.run(twice, server.url, backend=backend)
            assert server.all_closed()  # with the loop, although nobody closed the transport
        assert server.accepted == 2


def test_one_transport_serves_several_event_loops_at_once() -> None:
    transport = HttpxTransport()
    events: list[object] = []

    async def ask(url: str) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(ask_once, url)

    async def ask_once(url: str) -> None:
        events.append(await transport.send(get(url)))

    with serve(answering(reply())) as server:
        threads = [
            threading.Thread(target=lambda b=backend: anyio.run(ask, server.url, backend=b))
            for backend in ("asyncio", "trio", "asyncio", "trio")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        assert server.all_closed()
    assert len(events) == 20
    assert all(isinstance(event, ResponseReceived) for event in events)


async def test_sent_at_is_when_the_request_left(authority: trustme.CA) -> None:
    class Ticking:
        at = 0.0

        def time(self) -> float:
            self.at += 1.0
            return self.at

        async def sleep_until(self, deadline: float) -> None:
            raise NotImplementedError

    with serve(answering(reply())) as server:
        event = received(await send(server, clock=Ticking()))
    assert (event.sent_at, event.at) == (1.0, 2.0)


DESCRIPTORS = Path("/proc/self/fd")


def descriptors() -> int:
    return len(list(DESCRIPTORS.iterdir()))


@pytest.mark.skipif(not DESCRIPTORS.exists(), reason="counts descriptors")
async def test_many_failures_leave_no_descriptor() -> None:
    transport = HttpxTransport(deadline=LIMIT)
    with serve(answering(b"junk", close=True)) as server:
        failed(await transport.send(get(server.url)))
        assert await anyio.to_thread.run_sync(server.all_closed)
        before = descriptors()
        for _ in range(20):
            failed(await transport.send(get(server.url)))
        assert await anyio.to_thread.run_sync(server.all_closed)
        assert descriptors() <= before
    await transport.aclose()
