"""
What the adapters of RPC libraries share: where a session's credentials go, what is sent in place
of those that a server refuses, and when a stream of requests can be sent again.

It knows none of the libraries.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Final, Generic, Protocol, Self, TypeVar

import anyio

from ..errors import ConfigError
from ..session import Session, in_portal

T = TypeVar("T")

_PROXY: Final = "proxy-authorization"
_UNKNOWN: Final = ("https", "http")


class Synchronous(Protocol):
    """A SyncSession."""

    @property
    def session(self) -> Session: ...


class Credentials:
    """What authorises the calls of one client, to the endpoint of *session* and to *origins*."""

    def __init__(self, session: Session | Synchronous, origins: Iterable[str]) -> None:
        self._session = session if isinstance(session, Session) else session.session
        self._given = tuple(origins)
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
        if not by_proxy:
            self._session.reject("".join(_part(sent).values()).partition(" ")[2])
        elif _part(self._session.cached_headers() or {}, by_proxy=True) == _part(
            sent, by_proxy=True
        ):
            self._session.reject_proxy()  # which is not for one that is newer

    async def in_place_of(
        self, sent: Mapping[str, str], limit: float | None, *, by_proxy: bool = False
    ) -> Mapping[str, str] | None:
        """What to send in place of what was refused; None if that would be in vain. Raises
        TimeoutError after *limit* seconds, and what Session.headers raises.
        """
        with anyio.fail_after(limit):
            headers = await self._session.headers()
        changed = _part(headers, by_proxy=by_proxy) != _part(sent, by_proxy=by_proxy)
        return headers if changed else None

    async def _check(self, authority: str) -> None:
        # Whether there is TLS is not in it; see the adapters. Without a port, neither is that.
        urls = [f"{scheme}://{authority}" for scheme in _UNKNOWN]
        for data_plane in (False, True):  # the control plane is asked only if it has to be
            origins = await self._session.origins(self._given, data_plane=data_plane)
            if not authority.endswith("]") and any(map(origins.allow, urls)):
                return
        raise ConfigError(
            "this client is not for the session's endpoint, so it gets no credentials; make it "
            "with the endpoint's address and port, or name its server in origins=",
            reason="origins",
        )


def check_own(names: Iterable[str], theirs: Iterable[str]) -> None:
    """Raise ConfigError if the caller has set a header that the credentials are to go into."""
    for name in names:
        if name in theirs:
            raise ConfigError(
                f"the call has a header {name!r} of its own; remove it, or use a client without "
                "flyteauth's credentials",
                reason="header",
            )


def _part(headers: Mapping[str, str], *, by_proxy: bool = False) -> dict[str, str]:
    """Those of *headers* that a server refuses, or a proxy."""
    return {name: value for name, value in headers.items() if (name.lower() == _PROXY) == by_proxy}


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
