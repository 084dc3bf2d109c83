"""
The listener that a browser is redirected to (RFC 8252 §7.3, §8.3).

::

    async with listen("http://localhost:53593/callback") as loopback:
        ...                                     # open the browser, with loopback.redirect_uri
        uri = await loopback.receive(state)     # the browser is kept waiting
        ...                                     # redeem the code
        await loopback.answer(page)             # now it can be told the truth

Every connection has a handler with a deadline for its head, in the task group of the context;
``redirect.judge`` says what its request means. The sockets are plain ones and anyio only waits
for them: that closes each of them at once and surely, whatever is cancelled when, and is the same
on every backend. For the same reason handlers are shielded and end only by ``Loopback.close``:
a login that is cancelled can still tell the browser so.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum
from http import HTTPStatus
from typing import Final

import anyio
import h11
from anyio.abc import TaskGroup
from attrs import define, field

from .._sansio.redirect import HEAD_MAX, IncomingRequest, Reply, Settle, judge
from .bind import bind
from .page import CANCELLED, COMPLETED, RECEIVED, Page, failure, refusal, render

READ_TIMEOUT: Final = 10.0
LINGER: Final = 1.0
EXIT_GRACE: Final = 0.5
CONNECTIONS_MAX: Final = 32
_CHUNK: Final = 16 * 1024
_BREATHER: Final = 0.05


@asynccontextmanager
async def listen(
    redirect_uri: str,
    callback_bind: tuple[str, int | None] | None = None,
    *,
    read_timeout: float = READ_TIMEOUT,
) -> AsyncIterator[Loopback]:
    """Listen at *redirect_uri*; port 0, or none, is a free one. Raises ConfigError.

    *callback_bind* is where to listen instead, see ``bind``; what is asked for there must be
    *redirect_uri* all the same.

    Leaving the context closes every socket, and lets go of a browser that is still waiting with
    a page that says how the body ended. What the body raises comes out as it is.
    """
    listeners, bound_uri = bind(redirect_uri, callback_bind)
    loopback = Loopback(bound_uri, listeners, read_timeout)
    ending: BaseException | None = None
    wrapped = False
    try:
        async with anyio.create_task_group() as tasks:
            for listener in listeners:
                tasks.start_soon(loopback.accept, listener, tasks)
            try:
                yield loopback
            except BaseException as error:
                ending = error
                raise
            finally:
                await loopback.close(CANCELLED if ending is None else failure(ending))
    except BaseExceptionGroup as group:
        cancelled = anyio.get_cancelled_exc_class()
        crashed = group.subgroup(lambda error: not isinstance(error, cancelled)) is not None
        if ending is None or (crashed and isinstance(ending, cancelled)):
            raise  # a handler's bug, which has cancelled the body
        wrapped = True
    finally:
        loopback.abort()
    if wrapped and ending is not None:
        raise ending


class _Phase(IntEnum):
    """How readily a connection is dropped for a newer one: the smallest number first."""

    IDLE = 0  # has sent no whole head, or has got its answer
    ASKING = 1  # came before receive() said what it waits for
    HELD = 2  # waits for the page


@define(eq=False)
class _Connection:
    """A connection, and the scope that its handler runs in."""

    socket: socket.socket
    scope: anyio.CancelScope = field(factory=lambda: anyio.CancelScope(shield=True))
    done: anyio.Event = field(factory=anyio.Event)
    phase: _Phase = _Phase.IDLE
    answering: bool = False


class Loopback:
    """One login's listener. ``redirect_uri`` has the real port.

    ``ignored`` is the last response that came for another login, or None: something to tell
    whoever waits in vain.
    """

    def __init__(
        self,
        redirect_uri: str,
        listeners: list[socket.socket],
        read_timeout: float,
    ) -> None:
        self.redirect_uri = redirect_uri
        self.ignored: Reply | None = None
        self.addresses = tuple(listener.getsockname()[:2] for listener in listeners)
        self._listeners = listeners
        self._read_timeout = read_timeout
        self._connections: dict[_Connection, None] = {}  # in the order of their last octet
        self._state = ""
        self._expecting = anyio.Event()
        self._uri: str | None = None
        self._settled = anyio.Event()
        self._page: Page | None = None
        self._answered = anyio.Event()

    async def receive(self, state: str) -> str:
        """Wait for the redirect that carries *state*; its browser is kept waiting for a page."""
        self._state = state
        self._expecting.set()
        await self._settled.wait()
        assert self._uri is not None
        return self._uri

    async def answer(self, page: Page) -> None:
        """Let the waiting browser have *page*; the first page stays.

        Returns when the browser has it, or does not take it.
        """
        self._tell(page)
        with anyio.move_on_after(LINGER):
            await self._delivered()

    def _tell(self, page: Page) -> None:
        if self._page is None:
            self._page = page
            self._answered.set()
            self._expecting.set()  # nobody will say any more what they wait for

    async def _delivered(self) -> None:
        for connection in list(self._connections):
            if connection.answering or connection.phase is _Phase.HELD:
                await connection.done.wait()

    async def close(self, page: Page) -> None:
        """Stop listening, let a waiting browser have *page*, and end all handlers."""
        self._stop_listening()
        self._tell(page)
        try:
            with anyio.move_on_after(EXIT_GRACE, shield=True):
                await self._delivered()
        finally:
            for connection in self._connections:
                connection.scope.cancel()

    def _stop_listening(self) -> None:
        while self._listeners:
            listener = self._listeners.pop()
            anyio.notify_closing(listener)
            # Closing is not enough: a browser that is just being started may still share it.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def abort(self) -> None:
        """Close what a task that was cancelled before its first step could not close."""
        self._stop_listening()
        for connection in self._connections:
            connection.socket.close()

    async def accept(self, listener: socket.socket, tasks: TaskGroup) -> None:
        """Serve whoever connects to *listener*, until it is closed."""
        while listener in self._listeners:
            try:
                await anyio.wait_readable(listener)
                accepted, _ = listener.accept()
            except anyio.ClosedResourceError:
                return
            except (BlockingIOError, ConnectionError):  # gone again already
                continue
            except OSError:  # out of descriptors: the port stays readable, and asking now spins
                await anyio.sleep(_BREATHER)
                continue
            accepted.setblocking(False)
            if not self._make_room():
                accepted.close()
                continue
            connection = _Connection(accepted)
            self._connections[connection] = None
            tasks.start_soon(self._serve, connection)

    def _make_room(self) -> bool:
        """Drop the oldest idle connection if all places are taken (CBK-17)."""
        living = [one for one in self._connections if not one.scope.cancel_called]
        if len(living) < CONNECTIONS_MAX:
            return True
        oldest = min(living, key=lambda one: one.phase)
        oldest_may_go = oldest.phase is not _Phase.HELD
        if oldest_may_go:
            oldest.scope.cancel()
        return oldest_may_go

    async def _serve(self, connection: _Connection) -> None:
        try:
            with connection.scope:
                incoming: IncomingRequest | Reply | None = None
                with anyio.move_on_after(self._read_timeout):
                    incoming = await self._read_head(connection)
                if incoming is not None:
                    page = await self._page_for(connection, incoming)
                    connection.answering, connection.phase = True, _Phase.IDLE
                    bodiless = isinstance(incoming, IncomingRequest) and incoming.method == "HEAD"
                    await _reply(connection.socket, page, bodiless=bodiless)
        finally:
            del self._connections[connection]
            connection.socket.close()
            connection.done.set()

    async def _read_head(self, connection: _Connection) -> IncomingRequest | Reply | None:
        """One request without its body, or what is wrong with it; None if there is none."""
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)
        while True:
            try:
                event = parser.next_event()
            except h11.RemoteProtocolError as error:
                return Reply(error.error_status_hint, "malformed")
            if isinstance(event, h11.Request):
                return IncomingRequest(event.method, event.target, event.headers)
            if event is not h11.NEED_DATA:
                return None
            parser.receive_data(await _receive(connection.socket))
            self._connections[connection] = self._connections.pop(connection)

    async def _page_for(self, connection: _Connection, incoming: IncomingRequest | Reply) -> Page:
        verdict = self._judge(incoming)
        if isinstance(verdict, Reply) and verdict.reason == "state":
            connection.phase = _Phase.ASKING
            await self._expecting.wait()
            verdict = self._judge(incoming)
        if isinstance(verdict, Reply):
            if verdict.reason == "state":
                self.ignored = verdict
            return refusal(verdict)
        if self._uri is None:
            self._uri = verdict.uri
            self._settled.set()
        if self._page is not None:
            return COMPLETED if self._page.ok else self._page
        if self._uri != verdict.uri:
            return RECEIVED
        connection.phase = _Phase.HELD  # the redirect, or its reload: the tab that is looked at
        return await self._given()

    async def _given(self) -> Page:
        await self._answered.wait()
        assert self._page is not None
        return self._page

    def _judge(self, incoming: IncomingRequest | Reply) -> Settle | Reply:
        if isinstance(incoming, Reply):
            return incoming
        return judge(incoming, self.redirect_uri, self._state)


async def _reply(connection: socket.socket, page: Page, *, bodiless: bool) -> None:
    """Send *page*, and close only when it has been read (RFC 9112 §9.6)."""
    status, headers, body = render(page)
    fields = (*headers, ("content-length", str(len(body))), ("connection", "close"))
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *map(": ".join, fields), "", ""]
    rest = memoryview("\r\n".join(lines).encode("latin-1") + (b"" if bodiless else body))
    with anyio.move_on_after(READ_TIMEOUT), contextlib.suppress(OSError):
        while rest:
            try:
                rest = rest[connection.send(rest) :]
            except BlockingIOError:
                await anyio.wait_writable(connection)
        connection.shutdown(socket.SHUT_WR)
        with anyio.move_on_after(LINGER):
            while await _receive(connection):
                pass


async def _receive(connection: socket.socket) -> bytes:
    """What has come; nothing at the end of the stream, however it ended."""
    while True:
        await anyio.wait_readable(connection)
        try:
            return connection.recv(_CHUNK)
        except BlockingIOError:
            continue
        except OSError:
            return b""
