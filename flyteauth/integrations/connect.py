"""
A session's credentials on the calls of connectrpc's clients, on asyncio and synchronous::

    from flyteauth.integrations.connect import client, client_sync

    async with client(ProjectServiceClient, session) as projects:
        await projects.list_projects(...)
    with client_sync(ProjectServiceClientSync, session) as projects:
        projects.list_projects(...)

They make a client of any generated class that reaches the session's endpoint as its configuration
says: TLS or none, certificates, proxy. ``clients`` and ``clients_sync`` make several that share
their connections. For arguments of the class, hand over ``partial(ProjectServiceClient, …)``.

A call that is refused as unauthenticated is answered by one renewal and one more try, with what is
left of its timeout, as long as that cannot do anything twice: no reply has been delivered, and,
where requests are a stream, none was asked for. Otherwise the refusal is the caller's, and the next
call has the new token. If there are no new credentials the refusal stays; if getting them fails,
that error of ``flyteauth.errors`` is raised from it. A 407 of a proxy is answered likewise by a new
``Proxy-Authorization``. A header of the same name that the caller has set is ConfigError.

For a client that was made otherwise there are ``interceptors`` and ``interceptors_sync``. They
attach credentials only for the host and port of the endpoint, and of the ``origins`` that are
given; whether a client uses TLS they cannot see. Nor can they see whether its HTTP client follows
redirects, as pyqwest's does unless told otherwise. It takes ``Authorization`` off when a redirect
leads elsewhere, and nothing else; so for a server that wants ``flyte-authorization`` they refuse
to work (ConfigError) until ``follows_redirects=False`` says that they need not fear that.

connectrpc's asynchronous clients are for asyncio. On trio, use a synchronous one in a worker
thread; it may share its session with the program.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache, partial
from http import HTTPStatus
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import field, frozen

from .._connection import Connection, connection
from ..errors import ConfigError, Error, quote
from ..session import Session, in_portal
from ._credentials import INSTEAD, AsyncRequests, Credentials, Requests
from ._http import Synchronous, check_own, session_of

try:
    from connectrpc.code import Code
    from connectrpc.errors import ConnectError
    from connectrpc.request import RequestContext
    from pyqwest import Client, HTTPTransport, Proxy, SyncClient, SyncHTTPTransport
except ImportError as error:
    raise ImportError(
        "flyteauth.integrations.connect needs connectrpc; run: pip install 'flyteauth[connect]'"
    ) from error

if TYPE_CHECKING:
    from connectrpc.interceptor import Interceptor, InterceptorSync

__all__ = ["client", "client_sync", "clients", "clients_sync", "interceptors", "interceptors_sync"]

REQ = TypeVar("REQ")
RES = TypeVar("RES")
C = TypeVar("C")
_Context = Any  # a RequestContext of whatever messages
_Headers = Any  # the request headers of such a context

# What connectrpc makes of a proxy's 407; it has no code for it.
_BY_PROXY: Final = HTTPStatus.PROXY_AUTHENTICATION_REQUIRED.phrase
# What pyqwest takes off when it follows a redirect to another server.
_TAKEN_OFF: Final = frozenset({"authorization", "proxy-authorization"})


def interceptors(
    session: Session | Synchronous,
    *,
    origins: Iterable[str] = (),
    follows_redirects: bool = True,
) -> tuple[Interceptor, ...]:
    """The credentials of *session*, for ``interceptors=`` of an asynchronous client."""
    return (_Interceptor(session, origins, follows_redirects=follows_redirects),)


def interceptors_sync(
    session: Session | Synchronous,
    *,
    origins: Iterable[str] = (),
    follows_redirects: bool = True,
) -> tuple[InterceptorSync, ...]:
    """The credentials of *session*, for ``interceptors=`` of a synchronous client."""
    return (_InterceptorSync(session, origins, follows_redirects=follows_redirects),)


# Clients.


@frozen
class _Maker:
    """Makes clients of the classes that it is called with."""

    _address: str
    _interceptors: tuple[Any, ...]
    _http_client: Any

    def __call__(self, kind: Callable[..., C]) -> C:
        return kind(self._address, interceptors=self._interceptors, http_client=self._http_client)


@asynccontextmanager
async def clients(
    session: Session | Synchronous,
    *,
    address: str | None = None,
    origins: Iterable[str] = (),
    interceptors: Iterable[Interceptor] = (),
) -> AsyncIterator[_Maker]:
    """A function that makes clients of generated classes, which share their connections.

    They call the session's endpoint, or *address*, which must be its data plane or in *origins*.
    Their *interceptors* see a call before it gets credentials. Raises ConfigError.
    """
    import anyio.to_thread

    given, ours = tuple(origins), session_of(session)
    way = await connection(ours, address, given)
    # This builds TLS, and may read the system's certificates.
    transport = await anyio.to_thread.run_sync(partial(_transport, HTTPTransport, way))
    async with transport:
        mine = _Interceptor(ours, given, follows_redirects=False)
        yield _Maker(way.url, (*interceptors, mine), Client(transport))


@contextmanager
def clients_sync(
    session: Session | Synchronous,
    *,
    address: str | None = None,
    origins: Iterable[str] = (),
    interceptors: Iterable[InterceptorSync] = (),
) -> Iterator[_Maker]:
    """The same for synchronous clients."""
    given, ours = tuple(origins), session_of(session)
    way = in_portal(connection, ours, address, given)
    with _transport(SyncHTTPTransport, way) as transport:
        mine = _InterceptorSync(ours, given, follows_redirects=False)
        yield _Maker(way.url, (*interceptors, mine), SyncClient(transport))


@asynccontextmanager
async def client(
    kind: Callable[..., C],
    session: Session | Synchronous,
    *,
    address: str | None = None,
    origins: Iterable[str] = (),
    interceptors: Iterable[Interceptor] = (),
) -> AsyncIterator[C]:
    """One client; see ``clients``."""
    made = clients(session, address=address, origins=origins, interceptors=interceptors)
    async with made as make:
        yield make(kind)


@contextmanager
def client_sync(
    kind: Callable[..., C],
    session: Session | Synchronous,
    *,
    address: str | None = None,
    origins: Iterable[str] = (),
    interceptors: Iterable[InterceptorSync] = (),
) -> Iterator[C]:
    """One synchronous client; see ``clients``."""
    made = clients_sync(session, address=address, origins=origins, interceptors=interceptors)
    with made as make:
        yield make(kind)


def _transport(kind: Callable[..., C], way: Connection) -> C:
    # Without a proxy of its own, pyqwest would take one from the environment.
    proxy = Proxy("http://localhost", no_proxy="*") if way.proxy is None else Proxy(way.proxy)
    try:
        return kind(
            tls_ca_cert=way.ca,
            tls_include_system_certs=True,
            proxy=proxy,
            follow_redirects=False,
        )
    except (ValueError, RuntimeError) as error:
        problem = quote(str(error), 120)
    raise ConfigError(
        f"caCertFilePath: pyqwest cannot use the file ({problem}); name one of certificate "
        "authorities in PEM form",
        reason="ca_file",
    )


# Interceptors. All waiting is in functions of Credentials; most calls need none of it.


@frozen(eq=False)
class _Attached:
    """Headers that go with a call; made once, and used for many calls."""

    headers: Mapping[str, str] = field(repr=False)
    names: frozenset[str] = field(init=False)
    items: tuple[tuple[str, str], ...] = field(init=False, repr=False)
    """With names in small letters, as a context has them."""
    leaks: bool = field(init=False)
    """Whether pyqwest would take them along when it follows a redirect to another server."""

    @names.default
    def _names(self) -> frozenset[str]:
        return frozenset(name.lower() for name in self.headers)

    @items.default
    def _items(self) -> tuple[tuple[str, str], ...]:
        return tuple((name.lower(), value) for name, value in self.headers.items())

    @leaks.default
    def _leaks(self) -> bool:
        return not _TAKEN_OFF.issuperset(self.names)

    def detach(self, theirs: _Headers) -> None:
        """Whoever calls again with the same context starts anew."""
        for item in self.items:
            if item in theirs.items():
                del theirs[item[0]]


class _Attaching:
    """What both kinds of interceptors do."""

    def __init__(
        self,
        session: Session | Synchronous,
        origins: Iterable[str],
        *,
        follows_redirects: bool,
    ) -> None:
        self._credentials = Credentials(session, origins)
        self._follows_redirects = follows_redirects
        self._last = _Attached({})

    def _attach(self, theirs: _Headers, headers: Mapping[str, str]) -> _Attached:
        attached = self._last
        if headers is not attached.headers:
            attached = self._last = self._attachable(headers)
        if not attached.names.isdisjoint(theirs.keys()):
            check_own(headers, theirs, INSTEAD)
        for name, value in attached.items:
            theirs[name] = value
        return attached

    def _attachable(self, headers: Mapping[str, str]) -> _Attached:
        attached = _Attached(headers)
        if self._follows_redirects and attached.leaks:
            raise ConfigError(
                "pyqwest would take the credential along when it follows a redirect to another "
                "server; make the client with flyteauth.integrations.connect.client, or use an "
                "HTTP client that follows none and pass follows_redirects=False",
                reason="redirect",
            )
        return attached

    def _refuse(self, error: ConnectError, attached: _Attached) -> bool | None:
        """Note that *error* is about what was *attached*, if it is; whether a proxy said so."""
        # BRR-09: no other code is about credentials.
        if error.code is Code.UNAUTHENTICATED:
            by_proxy = False
        elif error.code is Code.UNKNOWN and error.message == _BY_PROXY:
            by_proxy = True
        else:
            return None
        self._credentials.refuse(attached.headers, by_proxy=by_proxy)
        return by_proxy

    def _at_once(self, ctx: _Context, theirs: _Headers) -> _Attached | None:
        """Attach what is in hand, as most calls want it; None if something has to be waited for."""
        headers = self._credentials.at_once(_host_and_port(_server_address(ctx)))
        return None if headers is None else self._attach(theirs, headers)

    async def _in_a_while(self, ctx: _Context, theirs: _Headers) -> _Attached:
        with _in_time(ctx):
            headers = await self._credentials.headers(
                _host_and_port(_server_address(ctx)), _left(ctx)
            )
        return self._attach(theirs, headers)

    async def _again(
        self,
        refusal: ConnectError,
        attached: _Attached,
        request: Any,
        ctx: _Context,
        theirs: _Headers,
    ) -> tuple[Any, _Attached]:
        """What to try again, with what; raises *refusal* if there is no more than that to say.

        *request* is None if it must not be sent again.
        """
        by_proxy = self._refuse(refusal, attached)
        again = None if by_proxy is None else _once_more(request)
        if again is None or by_proxy is None:
            raise refusal
        attached.detach(theirs)
        try:
            with _in_time(ctx):
                headers = await self._credentials.in_place_of(
                    attached.headers, _left(ctx), by_proxy=by_proxy
                )
        except Error as error:
            raise error from refusal
        if headers is None:
            raise refusal
        return again, self._attach(theirs, headers)


class _Interceptor(_Attaching):
    """For asynchronous clients."""

    async def intercept_unary(
        self,
        call_next: Callable[[REQ, RequestContext[REQ, RES]], Awaitable[RES]],
        request: REQ,
        ctx: RequestContext[REQ, RES],
    ) -> RES:
        theirs = _request_headers(ctx)
        attached = self._at_once(ctx, theirs) or await self._in_a_while(ctx, theirs)
        try:
            try:
                return await call_next(request, ctx)
            except ConnectError as error:
                refusal = error
            request, attached = await self._again(refusal, attached, request, ctx, theirs)
            return await call_next(request, ctx)
        finally:
            attached.detach(theirs)

    async def intercept_client_stream(
        self,
        call_next: Callable[[AsyncIterator[REQ], RequestContext[REQ, RES]], Awaitable[RES]],
        request: AsyncIterator[REQ],
        ctx: RequestContext[REQ, RES],
    ) -> RES:
        requests: Any = AsyncRequests(aiter(request))
        return await self.intercept_unary(call_next, requests, ctx)

    def intercept_server_stream(
        self,
        call_next: Callable[[REQ, RequestContext[REQ, RES]], AsyncIterator[RES]],
        request: REQ,
        ctx: RequestContext[REQ, RES],
    ) -> AsyncIterator[RES]:
        return self._replies(call_next, request, ctx)

    def intercept_bidi_stream(
        self,
        call_next: Callable[[AsyncIterator[REQ], RequestContext[REQ, RES]], AsyncIterator[RES]],
        request: AsyncIterator[REQ],
        ctx: RequestContext[REQ, RES],
    ) -> AsyncIterator[RES]:
        return self._replies(call_next, AsyncRequests(aiter(request)), ctx)

    async def _replies(
        self, call_next: Callable[[Any, Any], AsyncIterator[RES]], request: Any, ctx: _Context
    ) -> AsyncIterator[RES]:
        theirs, delivered = _request_headers(ctx), False
        attached = self._at_once(ctx, theirs) or await self._in_a_while(ctx, theirs)
        try:
            replies = call_next(request, ctx)
            try:
                async for reply in replies:
                    delivered = True
                    yield reply
                return
            except ConnectError as error:
                refusal = error
            finally:
                await _aclose(replies)
            request = None if delivered else request
            request, attached = await self._again(refusal, attached, request, ctx, theirs)
            replies = call_next(request, ctx)
            try:
                async for reply in replies:
                    yield reply
            finally:
                await _aclose(replies)
        finally:
            attached.detach(theirs)


class _InterceptorSync(_Attaching):
    """For synchronous clients."""

    def intercept_unary_sync(
        self,
        call_next: Callable[[REQ, RequestContext[REQ, RES]], RES],
        request: REQ,
        ctx: RequestContext[REQ, RES],
    ) -> RES:
        theirs = _request_headers(ctx)
        attached = self._attached(ctx, theirs)
        try:
            try:
                return call_next(request, ctx)
            except ConnectError as error:
                refusal = error
            request, attached = in_portal(self._again, refusal, attached, request, ctx, theirs)
            return call_next(request, ctx)
        finally:
            attached.detach(theirs)

    def intercept_client_stream_sync(
        self,
        call_next: Callable[[Iterator[REQ], RequestContext[REQ, RES]], RES],
        request: Iterator[REQ],
        ctx: RequestContext[REQ, RES],
    ) -> RES:
        requests: Any = Requests(iter(request))
        return self.intercept_unary_sync(call_next, requests, ctx)

    def intercept_server_stream_sync(
        self,
        call_next: Callable[[REQ, RequestContext[REQ, RES]], Iterator[RES]],
        request: REQ,
        ctx: RequestContext[REQ, RES],
    ) -> Iterator[RES]:
        return self._replies(call_next, request, ctx)

    def intercept_bidi_stream_sync(
        self,
        call_next: Callable[[Iterator[REQ], RequestContext[REQ, RES]], Iterator[RES]],
        request: Iterator[REQ],
        ctx: RequestContext[REQ, RES],
    ) -> Iterator[RES]:
        return self._replies(call_next, Requests(iter(request)), ctx)

    def _replies(
        self, call_next: Callable[[Any, Any], Iterator[RES]], request: Any, ctx: _Context
    ) -> Iterator[RES]:
        theirs, delivered = _request_headers(ctx), False
        attached = self._attached(ctx, theirs)
        try:
            replies = call_next(request, ctx)
            try:
                for reply in replies:
                    delivered = True
                    yield reply
                return
            except ConnectError as error:
                refusal = error
            finally:
                _close(replies)
            request = None if delivered else request
            request, attached = in_portal(self._again, refusal, attached, request, ctx, theirs)
            replies = call_next(request, ctx)
            try:
                yield from replies
            finally:
                _close(replies)
        finally:
            attached.detach(theirs)

    def _attached(self, ctx: _Context, theirs: _Headers) -> _Attached:
        return self._at_once(ctx, theirs) or in_portal(self._in_a_while, ctx, theirs)


def _once_more(request: Any) -> Any:
    """The request for another try; None if it is a stream of which some was asked for."""
    return request.again() if isinstance(request, AsyncRequests | Requests) else request


# A context has methods up to connectrpc 0.10, and properties since. Calls wait for this.

_METHODS: Final = callable(getattr(RequestContext, "request_headers", None))
_Reader = Callable[[_Context], Any]
_request_headers: Final[_Reader] = (
    (lambda ctx: ctx.request_headers()) if _METHODS else attrgetter("request_headers")
)
_server_address: Final[_Reader] = (
    (lambda ctx: ctx.server_address()) if _METHODS else attrgetter("server_address")
)
_timeout_ms: Final[_Reader] = (
    (lambda ctx: ctx.timeout_ms()) if _METHODS else attrgetter("timeout_ms")
)


def _left(ctx: _Context) -> float | None:
    """Seconds."""
    left: float | None = _timeout_ms(ctx)
    return None if left is None else max(0.0, left / 1000)


@lru_cache(64)
def _host_and_port(address: str | None) -> str:
    """Up to connectrpc 0.10, the path of a client's address is in it, before the port of the
    scheme if there is no other.
    """
    host, path, rest = (address or "").partition("/")
    return f"{host}:{rest.rpartition(':')[2]}" if path and ":" not in host else host


@contextmanager
def _in_time(ctx: _Context) -> Generator[None]:
    """Where a call's timeout is over: say it as connectrpc does."""
    try:
        yield
    except TimeoutError:
        pass
    else:
        if _left(ctx) != 0.0:
            return
    raise ConnectError(Code.DEADLINE_EXCEEDED, "Request timed out")


async def _aclose(replies: Any) -> None:
    # On the task that reads them: a generator does not close the one that it reads from.
    if (aclose := getattr(replies, "aclose", None)) is not None:
        await aclose()


def _close(replies: Any) -> None:
    if (close := getattr(replies, "close", None)) is not None:
        close()
