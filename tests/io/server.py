"""
A loopback server that says byte for byte what a test tells it to, on a thread of its own.

A script is a function of a Connection. When it returns, the server waits until the client closes
the connection, and remembers whether it did.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

LIMIT = 10.0  # no test waits longer for a thread or a socket


class Connection:
    """One connection, seen from the server."""

    def __init__(self, sock: socket.socket, stopping: threading.Event) -> None:
        self.sock = sock
        self.stopping = stopping
        self._buffer = b""

    def read_request(self) -> bytes:
        """One whole request, head and body; empty if the client has closed the connection."""
        while b"\r\n\r\n" not in self._buffer:
            if not (data := self.sock.recv(65536)):
                return b""
            self._buffer += data
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        while len(rest) < length:
            if not (data := self.sock.recv(65536)):
                return b""
            rest += data
        self._buffer = rest[length:]
        return head + b"\r\n\r\n" + rest[:length]

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def pause(self, seconds: float) -> bool:
        """Whether the server still runs, *seconds* later."""
        return not self.stopping.wait(seconds)

    def wait_for_close(self) -> None:
        while self.sock.recv(65536):
            pass


Script = Callable[[Connection], object]


class Server:
    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.tls = tls
        self.requests: list[bytes] = []
        self.accepted = 0
        self.closed = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._socks: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}/token"

    def all_closed(self) -> bool:
        """Wait until the client has closed every connection that it opened."""
        with self._changed:
            return self._changed.wait_for(lambda: self.closed == self.accepted, LIMIT)

    def wait_accepted(self, count: int = 1) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.accepted >= count, LIMIT)

    def wait_requests(self, count: int = 1) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: len(self.requests) >= count, LIMIT)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(LIMIT)
            with self._changed:
                if self._stopping.is_set():
                    sock.close()
                    return
                self.accepted += 1
                self._socks.add(sock)
                self._changed.notify_all()
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, raw: socket.socket) -> None:
        sock = raw
        left_open = False
        try:
            if self.tls is not None:
                sock = self.tls.wrap_socket(raw, server_side=True)
            connection = Connection(sock, self._stopping)
            self._read_through(connection)
            self.script(connection)
            connection.wait_for_close()
        except TimeoutError:
            left_open = True
        except OSError:
            pass  # resets and broken handshakes are what tests are about
        finally:
            sock.close()
            raw.close()
            with self._changed:
                self._socks.discard(raw)
                self.closed += not left_open
                self._changed.notify_all()

    def _read_through(self, connection: Connection) -> None:
        """Let the connection remember its requests here."""
        read = connection.read_request

        def remember() -> bytes:
            request = read()
            if request:
                with self._changed:
                    self.requests.append(request)
                    self._changed.notify_all()
            return request

        connection.read_request = remember  # type: ignore[method-assign]

    def stop(self) -> None:
        self._stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._changed:
            for sock in self._socks:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LIMIT)


@contextmanager
def serve(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(script, tls)
    try:
        yield server
    finally:
        server.stop()


# Scripts.


def reply(
    body: bytes = b"{}",
    *,
    status: str = "200 OK",
    headers: tuple[str, ...] = ("content-type: application/json",),
) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def answering(*replies: bytes, close: bool = False) -> Script:
    """Answer each request with the next of *replies*, the last one for ever; then close, or not."""

    def script(connection: Connection) -> None:
        waiting = list(replies)
        while connection.read_request():
            connection.send(waiting.pop(0) if len(waiting) > 1 else waiting[0])
            if close:
                connection.sock.close()
                return

    return script


def silent(connection: Connection) -> None:
    """Take the connection, and say nothing for ever."""
    connection.wait_for_close()


def closing(connection: Connection) -> None:
    """Close as soon as the request is there."""
    connection.read_request()
    connection.sock.shutdown(socket.SHUT_RDWR)


def dripping(head: bytes, *, every: float = 0.02) -> Script:
    """One byte at a time, of *head* and then of a body without end."""

    def script(connection: Connection) -> None:
        connection.read_request()
        rest = list(head)
        while connection.pause(every):
            connection.send(bytes([rest.pop(0)]) if rest else b" ")

    return script


def endless(head: bytes = b"HTTP/1.1 200 OK\r\n\r\n", *, chunk: bytes = b" " * 65536) -> Script:
    """A body without end, as fast as the client takes it."""

    def script(connection: Connection) -> None:
        connection.read_request()
        connection.send(head)
        while not connection.stopping.is_set():
            connection.send(chunk)

    return script
