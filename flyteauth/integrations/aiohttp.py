"""
A session's credentials on the requests of aiohttp::

    async with client(session, base_url="https://flyte.example.com") as http:
        async with http.get("/api/v1/projects") as response: ...

``client`` makes an ``aiohttp.ClientSession``, of aiohttp 3.12 or newer, with a middleware and a
trace of ours. The credentials go where ``flyteauth.integrations.httpx`` sends them: to the
endpoint's origin, to the ``origins`` that are given, and over https to the data plane, if the
control plane names one; a request to anywhere else passes through as it is. A 401 is answered by
one renewal and, where the body can be sent again, one more try, and so is a 407 that is about the
session's own ``Proxy-Authorization``; what comes of it is the caller's.

A redirect never takes a credential to another origin. Each hop gets its own, or none: after one
that led elsewhere, none does, not even with a redirect back. Who follows whom, the trace tells.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Final

from ..errors import ConfigError, Error
from ..session import Session
from ._http import REFUSALS, Place, Reach, Synchronous, check_own, part, renewed, session_of

try:
    from aiohttp import (
        ClientHandlerType,
        ClientRequest,
        ClientResponse,
        ClientSession,
        TraceConfig,
    )
except ImportError as error:
    raise ImportError("this needs aiohttp 3.12 or newer; run: pip install -U aiohttp") from error

__all__ = ["client"]


def client(
    session: Session | Synchronous, *, origins: Iterable[str] = (), **arguments: Any
) -> ClientSession:
    """An aiohttp.ClientSession with the credentials of *session*, made of *arguments*. They go to
    its endpoint and to *origins*.
    """
    attach, trace = _Attach(session_of(session), origins), TraceConfig()
    trace.on_request_start.append(_begin)
    middlewares = (*arguments.pop("middlewares", ()), attach)
    traces = [trace, *(arguments.pop("trace_configs", None) or ())]
    return ClientSession(middlewares=middlewares, trace_configs=traces, **arguments)


class _Chain:
    """One request of a caller's, with all the redirects that it leads to."""

    def __init__(self) -> None:
        self._begun_at: Place | None = None
        self.stayed = True

    def reaches(self, place: Place) -> None:
        if self._begun_at is None:
            self._begun_at = place
        self.stayed = self.stayed and place == self._begun_at


_CHAIN: Final[ContextVar[_Chain | None]] = ContextVar("flyteauth aiohttp chain", default=None)
# A web socket is opened by a request like any other.
_HTTP: Final = {"ws": "http", "wss": "https"}


async def _begin(session: ClientSession, context: object, parameters: object) -> None:
    _CHAIN.set(_Chain())  # in the context of the request, for its middlewares


class _Attach:
    """The middleware. aiohttp makes a request of its own for each hop of a redirect, so nothing
    that is attached here comes along.
    """

    def __init__(self, session: Session, origins: Iterable[str]) -> None:
        self._session = session
        self._reach = Reach(session, origins)

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        if not await self._is_ours(request):
            return await handler(request)
        headers = self._session.cached_headers()
        if headers is None:
            headers = await self._session.headers()
        check_own(headers, request.headers, "use another client")
        request.headers.update(headers)
        response = await handler(request)
        if response.status not in REFUSALS:
            return response
        by_proxy = response.status == 407
        refused = part(headers, by_proxy=by_proxy)
        if by_proxy and not refused:
            return response
        can_be_sent_again = not request.body or not getattr(request.body, "consumed", False)
        try:
            new = await renewed(self._session, refused, by_proxy=by_proxy)
        except BaseException as error:
            if isinstance(error, Error) and not can_be_sent_again:
                return response
            response.close()
            raise
        if new is None or not can_be_sent_again:
            return response  # what is new is for the next request (BRR-10)
        response.release()  # unread: it may be endless
        for name in headers:
            del request.headers[name]
        request.headers.update(new)
        return await handler(request)

    async def _is_ours(self, request: ClientRequest) -> bool:
        """Whether *request* gets the credentials."""
        chain, url = _CHAIN.get(), request.url
        if chain is None:
            raise ConfigError(
                "the client has lost the trace that tells a redirect from a request; make it with "
                "flyteauth.integrations.aiohttp.client(session)",
                reason="trace",
            )
        place = _HTTP.get(url.scheme, url.scheme), url.raw_host or "", url.port or 0
        chain.reaches(place)
        if not chain.stayed:
            return False
        allowed = self._reach.at_once(place)
        return await self._reach.allows(place) if allowed is None else allowed
