"""What a browser sends, a person types or pastes, and a program prints."""

from __future__ import annotations

import asyncio
import re
import socket
from base64 import b64encode
from contextlib import suppress

from flyteauth._io.keys import Typed
from flyteauth._io.loopback import Loopback, _Connection
from flyteauth._io.page import success
from flyteauth._sansio.api_key import decode_api_key
from flyteauth._sansio.command import complaint, parse_output
from flyteauth._sansio.errors import Error, escape
from flyteauth._sansio.redirect import (
    IncomingRequest,
    Reply,
    Settle,
    judge,
    judge_pasted,
    parse_redirect,
)
from flyteauth._sansio.tokens import Token
from tests.fuzz.properties import AT, CANARY, proper

WHERE = "http://localhost:53593/callback"
STATE = "right-state"
PAGE = success("flyte.example", "ada")


def redirect(data: bytes) -> None:
    """A request line without its version, and header lines."""
    first, *lines = data.decode("latin-1").split("\n")
    method, _, target = first.partition(" ")
    fields = tuple((name, value) for name, _, value in (x.partition(": ") for x in lines))
    verdict = judge(IncomingRequest(method, target, fields), WHERE, STATE)
    _settled(verdict)
    # Whatever comes, a login that waits for nothing yet is not settled.
    assert isinstance(judge(IncomingRequest(method, target, fields), WHERE, ""), Reply)


def pasted(data: bytes) -> None:
    """What a person pastes while a login waits."""
    text = data.decode("utf-8", "replace")
    for issuer in (None, "https://as.example"):
        _settled(judge_pasted(text, WHERE, STATE, issuer))
    assert isinstance(judge_pasted(text, WHERE, ""), Reply)


def _settled(verdict: Settle | Reply) -> None:
    if isinstance(verdict, Reply):
        assert 400 <= verdict.status < 600
        assert escape(verdict.error) == verdict.error
        return
    assert verdict.uri.startswith(f"{WHERE}?")
    try:
        parameters = parse_redirect(verdict.uri)
    except Error as error:
        proper(error)
        return
    assert parameters["state"] == STATE


_runner = asyncio.Runner()


def listener(data: bytes) -> None:
    """Bytes at the port where the browser is expected, in one piece and in many."""
    whole = _runner.run(_heard([data]))
    assert _runner.run(_heard([data[:7], data[7:50], data[50:51], data[51:]])) == whole
    if not whole:
        return
    head, _, body = whole.partition(b"\r\n\r\n")
    status, *lines = head.decode("ascii").split("\r\n")
    assert re.fullmatch(r"HTTP/1\.1 [245][0-9]{2} [A-Za-z -]+", status), status
    fields = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
    assert body == b"" or len(body) == int(fields["content-length"])
    assert fields["connection"] == "close"
    assert CANARY.encode() not in whole  # nothing is echoed


async def _heard(pieces: list[bytes]) -> bytes:
    """What the listener answers to *pieces*, after which the browser says no more."""
    loopback = Loopback(WHERE, [], 5.0)
    loopback._state = STATE
    loopback._tell(PAGE)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        connection = _Connection(ours)
        loopback._connections[connection] = None
        serving = asyncio.ensure_future(loopback._serve(connection))
        loop = asyncio.get_running_loop()
        with suppress(BrokenPipeError):  # it has heard enough
            for piece in pieces:
                await loop.sock_sendall(theirs, piece)
                await asyncio.sleep(0)
        theirs.shutdown(socket.SHUT_WR)
        await serving
        assert not loopback._connections
        answer = b""
        with suppress(ConnectionResetError):
            while piece := theirs.recv(65536):
                answer += piece
        return answer


def keyboard(data: bytes) -> None:
    """What comes from a terminal, in one piece and byte by byte."""
    typed = Typed()
    lines = typed.feed(data)
    slowly = Typed()
    assert [line for byte in data for line in slowly.feed(bytes([byte]))] == lines
    assert (len(slowly), slowly.ended) == (len(typed), typed.ended)
    for line in lines:
        assert line
        assert not re.search(r"[\x00-\x1f]", line)


def command_output(data: bytes) -> None:
    """What a command prints in place of a token, or complains about."""
    for any_alphabet in (False, True):
        try:
            token = parse_output(data, AT, any_alphabet=any_alphabet)
        except Error as error:
            proper(error, data)
            continue
        assert isinstance(token, Token)
        assert token.access_token.isascii()
        assert token.access_token.isprintable()
        assert token.expires_at is None or token.expires_at > AT
    said = complaint(data, [CANARY])
    assert escape(said) == said
    assert CANARY not in said
    assert len(said) < 600


def api_key(data: bytes) -> None:
    """An API key, as text and as what is in one."""
    for text in (data.decode("utf-8", "replace"), b64encode(data).decode()):
        try:
            key = decode_api_key(text)
        except Error as error:
            proper(error, data)
            continue
        assert repr(key.replace(client_secret="")) == repr(key)
        try:
            again = decode_api_key(key.encode())
        except Error as error:
            proper(error, data)
            continue
        assert again.replace(endpoint="") == key.replace(endpoint="")


TARGETS = (redirect, pasted, listener, keyboard, command_output, api_key)
