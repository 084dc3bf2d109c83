"""
What the adapters of RPC libraries share: where a session's credentials go, what is sent in place
of those that a server refuses, and when a stream of requests can be sent again.

It knows none of the libraries.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Final, Generic, Self, TypeVar
from urllib.parse import urlsplit

import anyio

from ..errors import ConfigError
from ..session import Session, in_portal
from ._http import Reach, Synchronous, part, session_of

T = TypeVar("T")

INSTEAD: Final = "use a client without flyteauth's credentials"


class Credentials:
    """What authorises the calls of one client, to the endpoint of *session* and to *origins*."""

    def __init__(self, session: Session | Synchronous, origins: Iterable[str]) -> None:
        self._session = session_of(session)
        self._reach = Reach(self._session, origins)
        self._good: frozenset[str] = frozenset()

    def at_once(self, authority: str | None) -> Mapping[str, str] | None:
        """The headers for a call to *authority*, host and port, if nothing has to be waited for."""
        return self._session.cached_headers() if authority in self._good else None

    async def headers(self, authority: str | None, limit: float | None) -> Mapping[str, str]:
        """The same, whatever it takes. Raises ConfigError if credentials must not go there,
        TimeoutError after *limit* seconds, and what Session.headers raises.
        """
        with anyio.fail_after(limit):
            if authority not in self._good:
                await self._check(authority or "")
                self._good |= {authority or ""}
            return await self._session.headers()

    def headers_sync(self, authority: str | None, limit: float | None) -> Mapping[str, str]:
        """The same for code without an event loop."""
        headers = self.at_once(authority)
        return in_portal(self.headers, authority, limit) if headers is None else headers

    def refuse(self, sent: Mapping[str, str], *, by_proxy: bool = False) -> None:
        """A server, or a proxy before it, did not take what was *sent*."""
        refused = part(sent, by_proxy=by_proxy)
        if not by_proxy:
            self._session.reject("".join(refused.values()).partition(" ")[2])
        elif part(self._session.cached_headers() or {}, by_proxy=True) == refused:
            self._session.reject_proxy()  # which is not for one that is newer

    async def in_place_of(
        self, sent: Mapping[str, str], limit: float | None, *, by_proxy: bool = False
    ) -> Mapping[str, str] | None:
        """What to send in place of what was refused; None if that would be in vain. Raises
        TimeoutError after *limit* seconds, and what Session.headers raises.
        """
        with anyio.fail_after(limit):
            headers = await self._session.headers()
        same = part(headers, by_proxy=by_proxy) == part(sent, by_proxy=by_proxy)
        return None if same else headers

    async def _check(self, authority: str) -> None:
        host, port = host_and_port(authority)
        # Whether there is TLS is not in it; see the adapters.
        for scheme in ("https", "http") if host and port else ():
            if await self._reach.allows((scheme, host, port)):
                return
        raise ConfigError(
            "this client is not for the session's endpoint, so it gets no credentials; make it "
            "with the endpoint's address and port, or name its server in origins=",
            reason="origins",
        )


def host_and_port(authority: str) -> tuple[str, int]:
    """The two parts; nothing and 0 where it does not have them beyond doubt."""
    try:
        parts = urlsplit(f"//{authority}")
        host, port = parts.hostname or "", parts.port or 0
    except ValueError:
        return "", 0
    name = f"[{host}]" if ":" in host else host
    return (host, port) if authority.lower() == f"{name}:{port}" else ("", 0)


# Requests in a stream come once. So another try is possible only while none was asked for.


class _Requests(Generic[T]):
    """What one try reads the requests from."""

    _source: T

    def __init__(self, source: T) -> None:
        self._source = source
        self._lock = threading.Lock()  # libraries read on threads of their own
        self._asked = self._over = False

    def again(self) -> Self | None:
        """The same requests for another try, after which this one gets none; None if it has asked
        for one already.
        """
        with self._lock:
            if self._asked:
                return None
            self._over = True
        return type(self)(self._source)

    def _ask(self) -> bool:
        with self._lock:
            self._asked = not self._over
            return self._asked


class Requests(_Requests[Iterator[T]]):
    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if not self._ask():
            raise StopIteration
        return next(self._source)


class AsyncRequests(_Requests[AsyncIterator[T]]):
    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if not self._ask():
            raise StopAsyncIteration
        return await anext(self._source)
