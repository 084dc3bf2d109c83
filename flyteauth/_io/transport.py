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
import os
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from contextvars import ContextVar
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import anyio
import anyio.lowlevel
import anyio.to_thread

from .._sansio.errors import ConfigError, quote
from .._sansio.flow import FailureReason, RequestFailed, ResponseReceived
from .._sansio.http import BODY_MAX, Request, Response, is_loopback, is_secure, origin, split_url
from .clock import Clock, SystemClock

if TYPE_CHECKING:
    import ssl

    import httpx

# Idle connections are dropped before a server drops them (2 s is the shortest habit), so that a
# request which must not be repeated never meets a closing connection.
KEEP_ALIVE: Final = 1.5
CLOSE_DEADLINE: Final = 2.0

# Where systems keep their certificates, for a Python whose OpenSSL looks elsewhere.
BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",  # older RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # BSD
)


class Transport(Protocol):
    """Sends one request, and says how that went. It never raises for what the network does."""

    async def send(self, request: Request) -> ResponseReceived | RequestFailed: ...

    async def aclose(self) -> None: ...


class HttpxTransport:
    """A Transport over httpx, for one event loop at a time or several in turn.

    ``deadline`` is for the whole of a request, from the first use of the trust store to the last
    byte of the body. The first request raises ConfigError if ``ca_file`` or the proxy is unusable.
    """

    def __init__(
        self,
        *,
        ca_file: Path | None = None,
        insecure_skip_verify: bool = False,
        allow_insecure: bool = False,
        proxy_url: str | None = None,
        clock: Clock | None = None,
        deadline: float = 30.0,
        connect_timeout: float = 10.0,
        body_max: int = BODY_MAX,
    ) -> None:
        self._ca_file = ca_file
        self._verify = not insecure_skip_verify
        self._allow_insecure = allow_insecure
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
        if not self._is_allowed(request.url):
            text = "credentials travel over https only, and this URL is not one"
            return self._failed("insecure", text, sent=False)
        ours = _ours.set(True)
        try:
            with anyio.move_on_after(self._deadline) as scope:
                trail = _Trail(self._clock, scope)
                return await self._send(request, trail)
        finally:
            _ours.reset(ours)
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
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            httpx.StreamError,
            anyio.BrokenResourceError,
            anyio.ClosedResourceError,
            OSError,
            ValueError,  # also UnicodeError: a header that is not ASCII
        ) as error:
            reason, text = _explain(error, trail, self._connect_timeout)
            if proxy is not None and reason in {"connect", "timeout"}:
                text = f"through the proxy {_proxy_name(proxy)}: {text}"
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
            Response(response.status, headers, body), at if trail.at is None else trail.at, at
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
        body = bytearray()
        # Leaving the loop early would leave httpx's generators to the garbage collector, which
        # trio warns of. Cancelling the next read ends them in order, and closes the connection.
        with anyio.CancelScope() as enough:
            async for chunk in stream:
                if len(body) + len(chunk) > self._body_max:
                    enough.cancel()
                elif not enough.cancel_called:
                    body += chunk
        return None if enough.cancel_called else bytes(body)

    def _headers(self, request: Request) -> list[tuple[str, str]]:
        given = {name.lower() for name, _ in request.headers}
        ours = (("accept-encoding", "identity"), ("user-agent", self._user_agent))
        return [*(pair for pair in ours if pair[0] not in given), *request.headers]

    def _is_allowed(self, url: str) -> bool:
        if self._allow_insecure:
            parts = split_url(url)
            return parts is not None and "@" not in parts.netloc and "#" not in url
        return is_secure(url)

    def _too_large(self) -> RequestFailed:
        text = f"the answer is larger than {self._body_max} bytes"
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
                self._context = _tls_context(self._ca_file, verify=self._verify)
                self.open_pool(None)  # imports what httpx imports late
                # And what looking up a name imports late.
                import concurrent.futures.thread  # noqa: F401
                import encodings.idna  # noqa: F401
            if where not in self._proxies:
                scheme, host, port = where
                self._proxies[where] = _proxy(self._proxy_url, scheme, host, port)


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
        self.stream: _Closable | None = None

    @property
    def sent(self) -> bool:
        return self.at is not None

    async def __call__(self, name: str, info: dict[str, Any]) -> None:
        if name.endswith(".connect_tcp.complete"):
            self.stream = info["return_value"]
        elif (
            name.endswith(".send_request_headers.started")
            and info["request"].method != b"CONNECT"
            and self.at is None
        ):
            self.at = self._clock.time()


# What went wrong, in a few words. Neither the URL nor what httpx says of it stands in them.


def _explain(error: Exception, trail: _Trail, connect_timeout: float) -> tuple[FailureReason, str]:
    import ssl

    import httpx

    causes = list(_causes(error))
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    system = next((cause for cause in causes if isinstance(cause, OSError) and cause.errno), None)
    match error:
        case httpx.ConnectError() if tls is not None and not isinstance(
            tls, ssl.SSLEOFError | ssl.SSLZeroReturnError
        ):
            return "tls", _explain_tls(tls)
        case httpx.ConnectTimeout():
            return "timeout", f"no connection within {connect_timeout:g} s"
        case httpx.ProxyError():
            status = str(error)[:3]
            return "connect", f"it answered with {status if status.isdecimal() else 'an error'}"
        case httpx.LocalProtocolError() | httpx.InvalidURL():
            return "protocol", "the request cannot be written as HTTP"
        case httpx.RemoteProtocolError() if not _says_closed(error):
            return "protocol", "the answer is not HTTP"
    if tls is None and system is not None:
        return "protocol" if trail.sent else "connect", _explain_system(system)
    if trail.sent:
        return (
            "protocol",
            f"connection closed {'within' if trail.answered else 'before'} the answer",
        )
    if isinstance(error, httpx.TransportError | OSError):
        return "connect", "connection closed before the request"
    return "protocol", "the request cannot be written as HTTP"


def _explain_tls(error: ssl.SSLError) -> str:
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        said = error.verify_message.rstrip(".")
    else:
        said = "the TLS handshake failed: " + (error.reason or "no reason given")
        said = said.replace("_", " ").lower().replace("tls", "TLS")
    issuer = next(iter(getattr(error, "__notes__", ())), "")
    return f"{quote(said, 160)}{issuer}"


def _explain_system(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return (error.strerror or "the host name is not known").lower()
    return os.strerror(error.errno or 0).lower()


def _says_closed(error: Exception) -> bool:
    """There is no class of error for a connection that ends too early."""
    return "closed" in str(error) or "disconnected" in str(error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """*error* and all that led to it."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        cause = waiting.pop(0)
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [cause.__cause__, cause.__context__]
        if isinstance(cause, BaseExceptionGroup):
            waiting += cause.exceptions


# Trust.


def _tls_context(ca_file: Path | None, *, verify: bool) -> ssl.SSLContext:
    import ssl

    context: ssl.SSLContext
    if not verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif sys.platform in {"darwin", "win32"}:
        import truststore

        context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        named = os.environ.get("SSL_CERT_FILE", "")
        if Path(named).is_file():
            _trust(context, Path(named), "SSL_CERT_FILE")
    else:
        # Elsewhere the trust store is a file. truststore would read it again for each connection,
        # on the event loop (30 ms), so it is read here, once.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_default_verify_paths()  # also SSL_CERT_FILE and SSL_CERT_DIR
        if not context.cert_store_stats()["x509_ca"] and "SSL_CERT_DIR" not in os.environ:
            for bundle in filter(os.path.isfile, BUNDLES):
                with suppress(OSError):
                    context.load_verify_locations(bundle)
                    break
        context.sslobject_class = _issuer_telling(ssl.SSLObject)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None and verify:
        # An intermediate, or the server's own certificate, is enough to trust.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        _trust(context, ca_file, "caCertFilePath")
    return context


def _trust(context: ssl.SSLContext, path: Path, key: str) -> None:
    import ssl

    try:
        context.load_verify_locations(path)
    except OSError as error:
        broken = isinstance(error, ssl.SSLError)
        why = "holds no PEM certificate" if broken else _explain_system(error)
        raise ConfigError(
            f"{key}: {path}: {why}; name a readable file of PEM certificates", reason="ca_file"
        ) from None


def _issuer_telling(base: type[ssl.SSLObject]) -> type[ssl.SSLObject]:
    """An SSLObject that notes who issued a certificate which is not trusted."""
    import ssl

    class TellingSSLObject(base):  # type: ignore[valid-type,misc]
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except ssl.SSLCertVerificationError as error:
                # Public from Python 3.13 on, but without the name in it: a help, not a must.
                with suppress(AttributeError, IndexError, KeyError, TypeError, ValueError):
                    last = self._sslobj.get_unverified_chain()[-1]
                    names = [value for part in last.get_info()["issuer"] for _, value in part]
                    error.add_note(f" (issuer {quote(', '.join(names), 120)})")
                raise

    return TellingSSLObject


# Proxies.


def _proxy(configured: str | None, scheme: str, host: str, port: int | None) -> str | None:
    """The proxy for *host*, or None to go there directly."""
    from urllib.request import getproxies, getproxies_environment, proxy_bypass

    if _is_near(host):
        return None
    if configured is not None:
        key, url = "httpProxyURL", configured
    else:
        proxies = getproxies()
        key = f"{scheme.upper()}_PROXY" if scheme in proxies else "ALL_PROXY"
        if (found := proxies.get(scheme) or proxies.get("all")) is None:
            return None
        url = found if "://" in found else f"http://{found}"
    environment = configured is None or "no" in getproxies_environment()
    if environment and proxy_bypass(f"{host}:{port}"):
        return None
    _check_proxy(key, url)
    return url


def _is_near(host: str) -> bool:
    """Whether *host* is this machine or on its link: nothing that a proxy could reach."""
    name = host.rstrip(".").lower()
    if is_loopback(name) or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_link_local


def _check_proxy(key: str, url: str) -> None:
    """The value may hold a password, so no message shows it."""
    import httpx

    try:
        scheme = httpx.Proxy(url).url.scheme
        usable = bool(httpx.URL(url).host)
    except (ValueError, httpx.InvalidURL):
        usable = False
    if not usable:
        raise ConfigError(
            f"{key} is not a proxy's URL; give it like http://proxy.example.org:3128",
            reason="proxy",
        )
    if scheme.startswith("socks"):
        try:
            import socksio  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
        except ImportError:
            raise ConfigError(
                f"{key} names a SOCKS proxy; install httpx[socks], or name an HTTP proxy",
                reason="proxy",
            ) from None


def _proxy_name(proxy: str) -> str:
    parts = urlsplit(proxy)
    return quote(f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}", 80)


# Logs.

_ours: ContextVar[bool] = ContextVar("flyteauth_request", default=False)
_TALKATIVE: Final = ("httpcore.http11", "httpcore.http2", "httpcore.socks")


def _is_not_ours(record: logging.LogRecord) -> bool:
    return not _ours.get()


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
