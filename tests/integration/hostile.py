"""
A control plane over raw sockets that misbehaves in one place, and everywhere else does as it should.

A place is where a client asks for something; a behaviour is what it gets there: bytes, after which
the connection goes on, or a script, after which it does not.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from flyteauth._io.clock import Clock
from flyteauth._sansio.http import Request
from flyteauth.devserver.model import ControlPlane
from flyteauth.devserver.settings import Settings
from tests.io.server import Connection, Server, closing, dripping, endless, reply, serve, silent
from tests.io.wire import parse_request, write_response

Behaviour = bytes | Callable[[Connection], object]

METADATA = frozenset(
    {
        "/flyteidl2.auth.AuthMetadataService/GetOAuth2Metadata",
        "/.well-known/oauth-authorization-server",
    }
)
PUBLIC_CLIENT = frozenset(
    {"/flyteidl2.auth.AuthMetadataService/GetPublicClientConfig", "/config/v1/flyte_client"}
)
USER_INFO = frozenset({"/flyteidl2.auth.IdentityService/UserInfo"})


def place_of(request: Request) -> str:
    """The grant, for a token request, or else the path."""
    path = urlsplit(request.url).path
    if path != "/oauth2/token":
        return path
    return parse_qs(request.body.decode())["grant_type"][0].rpartition(":")[2]


class Hostile:
    """``where`` are the places at which ``does`` is done."""

    def __init__(self, clock: Clock) -> None:
        self.where: frozenset[str] = frozenset()
        self.does: Behaviour = b""
        self.asked: Counter[str] = Counter()
        self.server: Server
        self.plane: ControlPlane
        self._clock = clock

    def script(self, connection: Connection) -> None:
        while raw := connection.read_request():
            request = parse_request(raw, self.url)
            place = place_of(request)
            self.asked[place] += 1
            if place not in self.where:
                connection.send(write_response(self.plane.handle(request, self._clock.time())))
            elif isinstance(self.does, bytes):
                connection.send(self.does)
            else:
                # A script reads the request itself.
                connection.read_request = lambda: raw  # type: ignore[method-assign]
                self.does(connection)
                return

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server.port}"


@contextmanager
def hostile(clock: Clock, **settings: Any) -> Iterator[Hostile]:
    """A plane where every login is let through, and codes are good for a minute."""
    bad = Hostile(clock)
    with serve(bad.script) as server:
        bad.server = server
        given = {"approve": "auto", "device_ttl": 60.0, "device_interval": 5, **settings}
        bad.plane = ControlPlane(Settings(base_url=bad.url, **given), b"an unchanging seed")
        yield bad


# Behaviours.


def _then_close(*pieces: bytes) -> Callable[[Connection], None]:
    def script(connection: Connection) -> None:
        connection.read_request()
        for piece in pieces:
            connection.send(piece)
        connection.sock.shutdown(socket.SHUT_RDWR)

    return script


def _reset(connection: Connection) -> None:
    connection.read_request()
    connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{")
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.sock.close()


def _encoded(coding: str, body: bytes) -> bytes:
    return reply(body, headers=("content-type: application/json", f"content-encoding: {coding}"))


def _html(status: str) -> bytes:
    page = b"<!DOCTYPE html><html><title>Sign in</title><script>alert(1)</script></html>"
    return reply(page, status=status, headers=("content-type: text/html",))


def _to(status: str, location: str) -> bytes:
    return reply(b"", status=status, headers=(f"location: {location}",))


def _refused(status: str = "400 Bad Request", *headers: str, **members: object) -> bytes:
    return reply(json.dumps(members).encode(), status=status, headers=headers)


_ZEROS = b" " * (50 * 1024 * 1024)
_BOMB = gzip.compress(_ZEROS)
_OBJECTS = b'{"error":' * 100_000
_NAMES = b'{"a":0,' + b",".join(b'"%d":0' % number for number in range(60_000)) + b',"a":1}'
_STEER = "\x1b]0;pwn\x07\x1b[2J\r\n\u202e\u2028\u200b\x9b31m"
_HEAD = b"HTTP/1.1 200 OK\r\n"

BEHAVIOURS: dict[str, Behaviour] = {
    # Too much.
    "10 MB": reply(_ZEROS[: 10 * 1024 * 1024]),
    "10 MB without a length": _then_close(_HEAD + b"\r\n", _ZEROS[: 10 * 1024 * 1024]),
    "a body without end": endless(),
    "chunks without end": endless(
        _HEAD + b"transfer-encoding: chunked\r\n\r\n", chunk=b"10000\r\n" + b" " * 65536 + b"\r\n"
    ),
    "a header of 1 MB": endless(_HEAD + b"x: ", chunk=b"x" * 65536),
    "10,000 headers": reply(headers=tuple(f"x-{number}: y" for number in range(10_000))),
    "headers without end": endless(_HEAD, chunk=b"x: y\r\n" * 10_000),
    "interim responses without end": endless(b"", chunk=b"HTTP/1.1 103 Early\r\n\r\n" * 1000),
    "interim responses with headers without end": endless(
        b"", chunk=(b"HTTP/1.1 103 Early\r\n" + b"x: y\r\n" * 40 + b"\r\n") * 250
    ),
    "trailers without end": endless(
        _HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n", chunk=b"x: y\r\n" * 10_000
    ),
    "60,000 members, one of them twice": reply(_NAMES),
    "too deep": reply(_OBJECTS),
    "a number of 5,000 digits": reply(b'{"expires_in":' + b"9" * 5000 + b"}"),
    # Compressed, though nobody asked for it.
    "a gzip bomb": _encoded("gzip", _BOMB),
    "deflate": _encoded("deflate", zlib.compress(b"{}")),
    "brotli": _encoded("br", b"\x0b\x01\x80{}\x03"),
    "gzip that is not said": reply(_BOMB),
    "gzip in chunks": _then_close(
        _HEAD + b"content-encoding: gzip\r\n\r\n", *[_BOMB[:1000] for _ in range(9)]
    ),
    # Too slow.
    "silence": silent,
    "a head byte by byte": dripping(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000),
    "a body byte by byte": dripping(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"),
    # Not HTTP.
    "closing at once": closing,
    "a reset in the body": _reset,
    "an end in the head": _then_close(b"HTTP/1.1 20"),
    "an end in the body": _then_close(_HEAD + b"content-length: 100\r\n\r\n{"),
    "TLS": _then_close(b"\x15\x03\x03\x00\x02\x02\x28" * 9),
    "HTTP/2": _then_close(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00" * 18),
    "HTTP/0.9": _then_close(b'{"access_token":"a"}'),
    "no status": _then_close(b"HTTP/1.1 OK\r\n\r\n{}"),
    "status 99": _then_close(b"HTTP/1.1 99 Low\r\n\r\n{}"),
    "status 999": _then_close(b"HTTP/1.1 999 High\r\n\r\n{}"),
    "another protocol": _then_close(b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n{}"),
    "a negative length": _then_close(_HEAD + b"content-length: -5\r\n\r\n{}"),
    "two lengths": _then_close(_HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}"),
    "a broken chunk": _then_close(_HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}"),
    "a control character in a header": _then_close(_HEAD + b"x: \x00\x1b\r\n\r\n{}"),
    # Elsewhere.
    "a redirect to itself": _to("302 Found", "?"),
    "a redirect to itself that keeps the method": _to("307 Temporary", "?"),
    "a redirect to another host": _to("308 Permanent", "http://evil.example/"),
    "a redirect to a script": _to("303 See Other", "javascript:alert(1)"),
    "a redirect to a file": _to("301 Moved", "file:///etc/passwd"),
    "a redirect to no address": _to("302 Found", "//["),
    "a redirect to nowhere": reply(b"", status="302 Found", headers=()),
    # Not JSON, or not the JSON that it should be.
    **{
        f"HTML with {status[:3]}": _html(status)
        for status in (
            "200 OK",
            "401 Unauthorized",
            "403 Forbidden",
            "404 Not Found",
            "500 Broken",
            "503 Busy",
        )
    },
    "nothing": reply(b""),
    "no content": reply(b"", status="204 No Content"),
    "not UTF-8": reply(b'{"error":"\xff\xfe"}'),
    "UTF-16": reply('{"error":"x"}'.encode("utf-16")),
    "a byte order mark": reply(b"\xef\xbb\xbf{}"),
    "an array": reply(b"[{}]"),
    "null": reply(b"null"),
    "not a number": reply(b'{"expires_in":NaN,"access_token":"a","token_type":"bearer"}'),
    "infinity": reply(b'{"expires_in":1e400,"access_token":5,"token_type":[]}'),
    # Said to steer whoever reads it.
    "control characters": _refused(
        error="invalid_request", error_description=_STEER * 20, code=_STEER, message=_STEER * 20
    ),
    "an error that is no word": _refused(error=_STEER, code=_STEER),
    "an error of many words": _refused(error="x y " * 30_000, code="x" * 100_000),
    "a page of the error that is a script": _refused(error="x", error_uri="javascript:alert(1)"),
    "an error of a wrong type": _refused(error=["invalid_grant"], code={"a": 1}),
    "an error with 200": reply(b'{"error":"server_error"}'),
    "a challenge of many": _refused(
        "401 No", 'www-authenticate: Bearer error="x", ' + 'a="b", ' * 5000, code="unauthenticated"
    ),
    "a wait of years": _refused("503 Busy", "retry-after: 99999999999999999999"),
    "a wait that is no time": _refused("429 Slow", "retry-after: -1, soon"),
}
# Where nothing but its deadline ends a request.
SLOW = frozenset(
    {
        "silence",
        "a head byte by byte",
        "a body byte by byte",
    }
)
HEAVY = (
    "10 MB",
    "10 MB without a length",
    "a body without end",
    "chunks without end",
    "a header of 1 MB",
    "headers without end",
    "interim responses without end",
    "interim responses with headers without end",
    "trailers without end",
    "a gzip bomb",
    "gzip that is not said",
)
