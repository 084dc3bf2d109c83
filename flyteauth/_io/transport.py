"""
HTTP requests: the one place for TLS, trust stores, proxies, deadlines and size limits.

Everything ambient is left out by construction. A request goes through httpx's transport, not its
client, so there are no cookies, no redirects, no netrc, no decoding and no default headers. What
comes back is a value: a response, or the reason why there is none.

The pieces that cost time (importing httpx, reading the trust store, looking up proxies) run in a
worker thread. They are guarded by a thread's lock, which a cancelled task can neither hold nor
lose.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol
from weakref import WeakKeyDictionary

import anyio
import anyio.lowlevel
import anyio.to_thread

from .._sansio.flow import FailureReason, RequestFailed, ResponseReceived
from .._sansio.http import BODY_MAX, Request, Response, host_of, is_secure, origin
from .clock import Clock, SystemClock
from .explain import explain
from .proxy import proxy_for, proxy_name
from .tls import tls_context

if TYPE_CHECKING:
    import ssl

    import httpx

# Idle connections are dropped before a server drops them (2 s is the shortest habit), so that a
# request which must not be repeated never meets a closing connection.
KEEP_ALIVE: Final = 1.5
CLOSE_DEADLINE: Final = 2.0
# With all interim responses before it, of which each costs more than it weighs; honest heads have a
# tenth of this. Little of it at once, so that others have their turn on the event loop.
HEAD_MAX: Final = 32 * 1024
HEAD_PIECE: Final = 4096
# A body in pieces of a few octets costs a thousand times what it weighs: honest ones have hundreds.
CHUNKS_MAX: Final = 4096
CHUNKS_AT_ONCE: Final = 64  # before others have their turn on the event loop


class Transport(Protocol):
    """Sends one request, and says how that went. It never raises for what the network does."""

    async def send(self, request: Request) -> ResponseReceived | RequestFailed: ...

    async def aclose(self) -> None: ...


class HttpxTransport:
    """A Transport over httpx, for one event loop at a time or several in turn.

    ``plain_host`` is a host that credentials may go to unencrypted. ``deadline`` is for the whole
    of a request, from the first use of the trust store to the last
    byte of the body. The first request raises ConfigError if ``ca_file`` or the proxy is unusable.
    """

    def __init__(
        self,
        *,
        ca_file: Path | None = None,
        insecure_skip_verify: bool = False,
        plain_host: str | None = None,
        proxy_url: str | None = None,
        clock: Clock | None = None,
        deadline: float = 30.0,
        connect_timeout: float = 10.0,
        body_max: int = BODY_MAX,
    ) -> None:
        self._ca_file = ca_file
        self._verify = not insecure_skip_verify
        self._plain_host = plain_host
        self._proxy_url = proxy_url
        self._clock = clock or SystemClock()
        self._deadline = deadline
        self._connect_timeout = connect_timeout
        self._body_max = body_max
        self._closed = False
        self._building = threading.Lock()  # held in worker threads only
        self._context: ssl.SSLContext | None = None
        self._user_agent = ""
        self._proxies: dict[tuple[str, str, int | None], str | None] = {}
        self._lock = threading.Lock()  # held for a moment, never over a yield
        self._loops: WeakKeyDictionary[Any, _Connections] = WeakKeyDictionary()

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        if self._closed:
            raise RuntimeError("this transport is closed")
        if not is_secure(request.url, self._plain_host):
            text = "credentials travel over https only, and this URL is not one"
            return self._failed("insecure", text, sent=False)
        with anyio.move_on_after(self._deadline) as scope:
            trail = _Trail(self._clock, scope)
            token = _ours.set(trail)
            try:
                return await self._send(request, trail)
            finally:
                _ours.reset(token)
        if self._closed:
            return self._failed("protocol", "the session was closed", sent=trail.sent)
        return self._failed("timeout", f"no answer within {self._deadline:g} s", sent=trail.sent)

    async def _send(self, request: Request, trail: _Trail) -> ResponseReceived | RequestFailed:
        where = origin(request.url)
        if where not in self._proxies:
            # Whoever comes first does the work, also if it is cancelled meanwhile; others wait in
            # threads of their own.
            await anyio.to_thread.run_sync(self._prepare, where, abandon_on_cancel=True)
        import httpx

        proxy = self._proxies[where]
        try:
            return await self._exchange(request, trail, proxy)
        except _HeadTooLarge:
            text = f"what comes before the answer is larger than {HEAD_MAX} bytes"
            return self._failed("too_large", text, sent=trail.sent)
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            httpx.StreamError,
            anyio.BrokenResourceError,
            anyio.ClosedResourceError,
            OSError,
            ValueError,  # also UnicodeError: a header that is not ASCII
        ) as error:
            reason, text = explain(
                error, self._connect_timeout, sent=trail.sent, answered=trail.answered
            )
            if proxy is not None and reason in {"connect", "timeout"}:
                text = f"through the proxy {proxy_name(proxy)}: {text}"
            sent = trail.sent and not isinstance(error, httpx.LocalProtocolError)
            return self._failed(reason, text, sent=sent)

    async def _exchange(
        self, request: Request, trail: _Trail, proxy: str | None
    ) -> ResponseReceived | RequestFailed:
        import httpx

        outgoing = httpx.Request(
            request.method,
            request.url,
            headers=self._headers(request),
            content=request.body,
            extensions={"timeout": {"connect": self._connect_timeout}, "trace": trail},
        )
        connections = await self._connections()
        pool = connections.pool(self, proxy)
        pool.users += 1
        connections.requests.add(trail.scope)
        try:
            incoming = await pool.transport.handle_async_request(outgoing)
            stream = incoming.stream
            assert isinstance(stream, httpx.AsyncByteStream)
            trail.answered = True
            headers = tuple(
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in incoming.headers.raw
            )
            response = Response(incoming.status_code, headers)
            refused = self._refuse(response)
            body = None if refused else await self._read(stream)
            if _has_surplus(stream):
                connections.retire(pool)
            await _close(stream)  # gives the connection back, or ends it
        except BaseException:
            # A connection whose handshake or first use was cut off is lost to the pool, which
            # would neither use nor close it: close it here, and begin with a new pool.
            connections.retire(pool)
            if trail.stream is not None:
                await _close(trail.stream)
            raise
        finally:
            connections.requests.discard(trail.scope)
            pool.users -= 1
            if pool.retired and not pool.users:
                await _close(pool.transport)
        if body is None:
            return refused or self._too_large()
        at = self._clock.time()
        return ResponseReceived(
            Response(response.status, headers, body),
            sent_at=at if trail.at is None else trail.at,
            at=at,
            host=host_of(request.url),
        )

    def _refuse(self, response: Response) -> RequestFailed | None:
        """Why the body of *response* must not even be read."""
        for name, value in response.headers:
            codings = {coding.strip().lower() for coding in value.split(",")}
            if name.lower() == "content-encoding" and codings - {"", "identity"}:
                # Never asked for, and the way in for a body that grows a thousandfold.
                text = "the answer is compressed, which was not asked for"
                return self._failed("encoding", text, sent=True)
        length = response.header("content-length") or ""
        if length.isdecimal() and len(length) < 20 and int(length) > self._body_max:
            return self._too_large()
        return None

    async def _read(self, stream: httpx.AsyncByteStream) -> bytes | None:
        """The whole body, or None if it is too large."""
        body, chunks = bytearray(), 0
        # Leaving the loop early would leave httpx's generators to the garbage collector, which
        # trio warns of. Cancelling the next read ends them in order, and closes the connection.
        with anyio.CancelScope() as enough:
            async for chunk in stream:
                chunks += 1
                if chunks % CHUNKS_AT_ONCE == 0:
                    await anyio.lowlevel.cancel_shielded_checkpoint()
                if len(body) + len(chunk) > self._body_max or chunks > CHUNKS_MAX:
                    enough.cancel()
                elif not enough.cancel_called:
                    body += chunk
        return None if enough.cancel_called else bytes(body)

    def _headers(self, request: Request) -> list[tuple[str, str]]:
        given = {name.lower() for name, _ in request.headers}
        ours = (("accept-encoding", "identity"), ("user-agent", self._user_agent))
        return [*(pair for pair in ours if pair[0] not in given), *request.headers]

    def _too_large(self) -> RequestFailed:
        text = f"the answer is larger than {self._body_max} bytes, or comes in too many pieces"
        return self._failed("too_large", text, sent=True)

    def _failed(self, reason: FailureReason, text: str, *, sent: bool) -> RequestFailed:
        return RequestFailed(reason, text, sent, self._clock.time())

    # Connections: one set for each event loop.

    async def _connections(self) -> _Connections:
        loop = anyio.lowlevel.current_token().native_token
        with self._lock:
            if (known := self._loops.get(loop)) is not None:
                return known
            if self._closed:  # while this request waited for the worker thread
                raise RuntimeError("this transport is closed")
            connections = self._loops[loop] = _Connections()
        await connections.open()
        return connections

    async def aclose(self) -> None:
        """End this loop's requests and connections. Those of other loops end with their loops."""
        self._closed = True
        loop = anyio.lowlevel.current_token().native_token
        with self._lock:
            connections = self._loops.pop(loop, None)
        if connections is not None:
            await _close(connections)

    def open_pool(self, proxy_url: str | None) -> httpx.AsyncHTTPTransport:
        import httpx

        assert self._context is not None
        proxy = None
        if proxy_url is not None:
            tls = self._context if proxy_url.lower().startswith("https:") else None
            proxy = httpx.Proxy(proxy_url, ssl_context=tls)
        return httpx.AsyncHTTPTransport(
            verify=self._context,
            trust_env=False,
            limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE),
            proxy=proxy,
        )

    # In a worker thread: what takes time.

    def _prepare(self, where: tuple[str, str, int | None]) -> None:
        with self._building:
            if self._context is None:
                self._user_agent = f"flyteauth/{_version()}"
                _hide_secrets_from_logs()
                self._context = tls_context(self._ca_file, verify=self._verify)
                self.open_pool(None)  # imports what httpx imports late
                # And what looking up a name imports late.
                import concurrent.futures.thread  # noqa: F401
                import encodings.idna  # noqa: F401
            if where not in self._proxies:
                scheme, host, port = where
                self._proxies[where] = proxy_for(self._proxy_url, scheme, host, port)


class _Pool:
    """httpx's pool for one proxy, or for none."""

    def __init__(self, transport: httpx.AsyncHTTPTransport) -> None:
        self.transport = transport
        self.users = 0
        self.retired = False


class _Connections:
    """The connections of one event loop. They end when the loop ends, if nobody ends them before.

    Both asyncio.run and trio.run finish the async generators that are left, while sockets can
    still be closed: so one async generator stands for the lifetime. The garbage collector must
    not come first, because trio warns of that.
    """

    alive: ClassVar[set[_Connections]] = set()

    def __init__(self) -> None:
        self.requests: set[anyio.CancelScope] = set()
        self._pools: dict[str | None, _Pool] = {}
        self._lifetime = self._live()

    async def _live(self) -> AsyncGenerator[None, None]:
        self.alive.add(self)
        try:
            yield
        finally:
            self.alive.discard(self)
            while self._pools:
                await _close(self._pools.popitem()[1].transport)

    async def open(self) -> None:
        await anext(self._lifetime)

    async def aclose(self) -> None:
        for request in self.requests:
            request.cancel()
        await self._lifetime.aclose()

    def pool(self, owner: HttpxTransport, proxy: str | None) -> _Pool:
        if (known := self._pools.get(proxy)) is not None:
            return known
        pool = self._pools[proxy] = _Pool(owner.open_pool(proxy))
        return pool

    def retire(self, pool: _Pool) -> None:
        """Use *pool* for nothing new; whoever uses it last closes it."""
        pool.retired = True
        for proxy, known in list(self._pools.items()):
            if known is pool:
                del self._pools[proxy]


def _has_surplus(stream: httpx.AsyncByteStream) -> bool:
    """Whether more has come than the answer. Nobody asked for that, so it must not become the
    answer to the next request: behind a proxy that has lost count it is somebody else's.

    Only httpcore's parser knows, and httpcore shows it to nobody.
    """
    inner: Any = stream
    for name in ("_httpcore_stream", "_stream", "_connection", "_h11_state", "trailing_data"):
        inner = getattr(inner, name, None)
    return inner is not None and bool(inner[0])


class _Closable(Protocol):
    async def aclose(self) -> None: ...


async def _close(what: _Closable) -> None:
    """Close *what*, also in a cancelled task, but not for ever and not with an error."""
    with anyio.move_on_after(CLOSE_DEADLINE, shield=True), suppress(Exception):
        await what.aclose()


class _Trail:
    """What httpcore tells of one request: when it left, and the connection opened for it."""

    def __init__(self, clock: Clock, scope: anyio.CancelScope) -> None:
        self._clock = clock
        self.scope = scope
        self.at: float | None = None
        self.answered = False
        self.heard = 0  # before the answer, in bytes
        self.stream: _Closable | None = None

    @property
    def sent(self) -> bool:
        return self.at is not None

    async def __call__(self, name: str, info: dict[str, Any]) -> None:
        if name.endswith(".start_tls.complete"):
            _bound(info["return_value"])
        elif name.endswith(".connect_tcp.complete"):
            self.stream = info["return_value"]
            _bound(info["return_value"])
        elif (
            name.endswith(".send_request_headers.started")
            and info["request"].method != b"CONNECT"
            and self.at is None
        ):
            self.at = self._clock.time()


class _HeadTooLarge(Exception):
    """More has come before an answer than is read."""


def _bound(stream: Any) -> None:
    """Read no more from *stream*, which httpcore has opened, than HEAD_MAX before each answer.

    httpcore skips interim responses without a word and without an end.
    """
    read = stream.read

    async def bounded(max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        trail = _ours.get()
        if trail is None or trail.answered:
            data: bytes = await read(max_bytes, timeout)
            return data
        data = await read(min(max_bytes, HEAD_PIECE), timeout)
        trail.heard += len(data)
        if trail.heard > HEAD_MAX:
            raise _HeadTooLarge
        return data

    stream.read = bounded


_ours: ContextVar[_Trail | None] = ContextVar("flyteauth_request", default=None)

# Logs.

_TALKATIVE: Final = ("httpcore.http11", "httpcore.http2", "httpcore.socks")


def _is_not_ours(record: logging.LogRecord) -> bool:
    return _ours.get() is None


def _hide_secrets_from_logs() -> None:
    """At DEBUG, httpcore logs response headers and a SOCKS proxy's password: not those of ours."""
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(_is_not_ours)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("flyteauth")
    except PackageNotFoundError:
        return "0"
