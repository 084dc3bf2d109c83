"""
A session's credentials on the requests of httpx, and of httpx2, whose auth protocol is the same::

    from flyteauth.integrations.httpx import Auth, Auth2, install

    httpx.AsyncClient(auth=Auth(session))       # or httpx.Client, or auth= of one request
    httpx2.AsyncClient(auth=Auth2(session))

    async with install(httpx.AsyncClient(), session) as client: ...   # any client of either library

The credentials go to the endpoint's origin (scheme, host and port), to the other ``origins`` that
are given, and over https to the data plane, if the control plane names one; a request to anywhere
else passes through as it is. A 401 is answered by one
renewal and, where the body can be sent again, one more try, and so is a 407 that is about the
session's own ``Proxy-Authorization``; what comes of it is the caller's. A header of the same name
that the caller has set is ConfigError. ``auth=None`` sends a request without any of this.

A redirect never takes a credential to another origin. httpx itself removes ``Authorization`` when
it follows one, and nothing else; so ``Auth`` alone refuses to work (ConfigError) where that is not
enough: for a server that wants ``flyte-authorization``, for ``Proxy-Authorization``, and for plain
http on port 80, from where httpx takes ``Authorization`` along to https. ``install`` is for all of
them: it sets ``auth`` of a client, and adds an event hook, which sees each hop of a redirect. It
fails closed, because it is the hook that attaches the credentials: without it none are sent.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import anyio
from attrs import field, frozen

from ..errors import ConfigError, Error
from ..session import Session, in_portal
from ._http import REFUSALS, Place, Reach, Synchronous, check_own, part, renewed, session_of

if TYPE_CHECKING:
    import httpx
    import httpx2

__all__ = ["Auth", "Auth2", "install"]

C = TypeVar("C", bound="httpx.Client | httpx.AsyncClient | httpx2.Client | httpx2.AsyncClient")

# How much of a refused request's answer is read so that its connection can be used again; and
# for how many seconds.
DRAIN_MAX: Final = 65_536
DRAIN_DEADLINE: Final = 2.0

# Our places in the extensions of a request, which a redirect hands on.
_SENT: Final = "flyteauth.sent"
_URL: Final = "flyteauth.url"
_ATTACHED: Final = "flyteauth.attached"

_Origin = tuple[str, bytes, int | None]


@frozen(eq=False)
class _Sent:
    """What authorises a call, on its way to an origin; made once, and used for many requests.

    ``by_hook`` says that the event hook attaches it, and not the auth flow.
    """

    headers: Mapping[str, str] = field(repr=False)
    origin: _Origin
    by_hook: bool
    items: tuple[tuple[str, str], ...] = field(init=False, repr=False)

    @items.default
    def _items(self) -> tuple[tuple[str, str], ...]:
        return tuple(self.headers.items())

    def detach(self, request: Any) -> None:
        for name, value in self.items:
            if request.headers.get(name) == value:
                del request.headers[name]

    def leaks(self) -> bool:
        """Whether httpx would take it along when it follows a redirect to another origin."""
        if self.by_hook or not self.items:
            return False
        # From plain http on port 80, it takes Authorization along to https.
        scheme, _, port = self.origin
        names = {name.lower() for name, _ in self.items}
        return (scheme == "http" and port is None) or names != {"authorization"}

    def refused(self, response: Any) -> Mapping[str, str] | None:
        """What of it *response* says is not good enough; None if it does not say that of it."""
        by_proxy = response.status_code == 407
        refused = part(self.headers, by_proxy=by_proxy)
        # After a redirect, whoever refuses may not have seen it at all.
        seen = response.request
        had = all(seen.headers.get(name) == value for name, value in refused.items())
        if not had or _origin(seen.url) != self.origin or (by_proxy and not refused):
            return None
        return refused


_NOTHING: Final = _Sent({}, ("", b"", None), by_hook=False)


class _Auth:
    """For ``auth=``: the credentials of *session*, to its endpoint and to *origins*.

    Raises ConfigError before anything is sent that should not be, and what Session.headers raises.
    Nothing is held over a ``yield``.
    """

    _library: ClassVar[Any]
    _guarded: ClassVar[bool] = False
    """Whether the event hook attaches the credentials, and this does not."""

    def __init__(self, session: Session | Synchronous, *, origins: Iterable[str] = ()) -> None:
        self._session = session_of(session)
        self._reach = Reach(self._session, origins)
        self._last = _NOTHING

    # All waiting is in the async functions that these two call. Most requests need none of it.

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        sent = self._at_once(request)
        if sent is None:
            sent = in_portal(self._prepared, request)
        response = yield request
        refused = self._look_at(request, response, sent)
        if refused is None:
            return
        headers = in_portal(self._renewed, response, refused)
        if headers is None:
            return
        self._drain(response)
        again = response.request
        sent = self._prepare(again, self._to(sent.origin, headers))
        response = yield again
        self._look_at(again, response, sent)

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        sent = self._at_once(request)
        if sent is None:
            sent = await self._prepared(request)
        response = yield request
        refused = self._look_at(request, response, sent)
        if refused is None:
            return
        headers = await self._renewed(response, refused)
        if headers is None:
            return
        await self._adrain(response)
        again = response.request
        sent = self._prepare(again, self._to(sent.origin, headers))
        response = yield again
        self._look_at(again, response, sent)

    def _at_once(self, request: Any) -> _Sent | None:
        """Prepare *request*, if nothing has to be waited for."""
        headers, origin, last = self._session.cached_headers(), _origin(request.url), self._last
        if headers is last.headers and origin == last.origin:  # as nearly always
            return self._prepare(request, last)
        allowed = self._reach.at_once(_place(origin))
        if allowed is False:
            _forget(request)
            return _NOTHING
        if allowed is None or headers is None:
            return None
        return self._prepare(request, self._to(origin, headers))

    async def _prepared(self, request: Any) -> _Sent:
        """Prepare *request*, whatever it takes."""
        origin = _origin(request.url)
        if not await self._reach.allows(_place(origin)):
            _forget(request)
            return _NOTHING
        headers = await self._session.headers()
        return self._prepare(request, self._to(origin, headers))

    def _to(self, origin: _Origin, headers: Mapping[str, str]) -> _Sent:
        """*headers* on their way to *origin*, unless they could get elsewhere."""
        sent = _Sent(headers, origin, self._guarded)
        if sent.leaks():
            raise ConfigError(
                "httpx would take the credential along when it follows a redirect to another "
                "server; in place of auth=, call flyteauth.integrations.httpx.install(client, "
                "session)",
                reason="redirect",
            )
        self._last = sent
        return sent

    def _prepare(self, request: Any, sent: _Sent) -> _Sent:
        """See to it that *request* is sent with what it needs."""
        extensions, headers = request.extensions, request.headers
        if _SENT in extensions:
            _forget(request)
        check_own((name for name, _ in sent.items), headers, "pass auth=None")
        extensions[_SENT] = sent
        if sent.by_hook:
            extensions[_URL] = request.url
        else:
            for name, value in sent.items:
                headers[name] = value
        return sent

    async def _renewed(self, response: Any, refused: Mapping[str, str]) -> Mapping[str, str] | None:
        """What to send in place of what *response* has refused; None if that would be in vain."""
        # A redirect may have led here: what is sent again is what was refused, and no more.
        again, by_proxy = response.request, response.status_code == 407
        try:
            headers = await renewed(self._session, refused, by_proxy=by_proxy)
        except Error as error:
            if not self._can_be_sent_again(again):
                return None
            _forget(again)  # it is part of the error
            raise error from self._library.HTTPStatusError(
                f"the server answered {response.status_code}", request=again, response=response
            )
        # Otherwise what is new is for the next request, and this one has its answer (BRR-10).
        return headers if self._can_be_sent_again(again) else None

    def _look_at(self, request: Any, response: Any, sent: _Sent) -> Mapping[str, str] | None:
        """See what has come of *request*; for the result see _Sent."""
        if response.next_request is not None:
            # A redirect that is not followed. Whoever sends this request comes by here again.
            _forget(response.next_request)
        attached = not sent.by_hook or _ATTACHED in request.extensions
        if not attached and _origin(request.url) == sent.origin:  # no other hook sent it elsewhere
            raise ConfigError(
                "the client has lost the event hook that install added, so the request was sent "
                "without credentials; set event_hooks before calling install",
                reason="event_hooks",
            )
        # BRR-09: no other status is about credentials.
        return sent.refused(response) if response.status_code in REFUSALS else None

    def _can_be_sent_again(self, request: Any) -> bool:
        """Whether the body is there as often as it is asked for (BRR-10)."""
        stream = request.stream
        if isinstance(stream, self._library.ByteStream):
            return True
        if type(stream).__name__ != "MultipartStream":  # neither library has a public name for it
            return False
        files = [getattr(part, "file", b"") for part in stream.fields]
        # An open file is rewound by the library, if it can be.
        return all(isinstance(file, bytes | str) or _is_seekable(file) for file in files)

    # The answer to a refused request is read only for the sake of the connection. What it says is
    # dropped: it may be endless, or compressed to grow a thousandfold.

    def _drain(self, response: Any) -> None:
        if response.is_closed:
            return
        stream, until, size = response.stream, time.monotonic() + DRAIN_DEADLINE, 0
        with suppress(self._library.TransportError):
            for chunk in stream:
                size += len(chunk)
                if size > DRAIN_MAX or time.monotonic() > until:
                    break
        stream.close()
        self._empty(response)

    async def _adrain(self, response: Any) -> None:
        if response.is_closed:
            return
        stream, size = response.stream, 0
        # Leaving the loop early would leave httpx's generators to the garbage collector, which
        # trio warns of. Cancelling the next read ends them in order, and closes the connection.
        with (
            anyio.move_on_after(DRAIN_DEADLINE) as enough,
            suppress(self._library.TransportError),
        ):
            async for chunk in stream:
                size += len(chunk)
                if enough.cancel_called:  # and nothing is waited for
                    break
                if size > DRAIN_MAX:
                    enough.cancel()
        await stream.aclose()
        self._empty(response)

    def _empty(self, response: Any) -> None:
        """Leave nothing that the client would read."""
        elapsed = response.elapsed  # httpx2 asks the stream for it
        response.stream = self._library.ByteStream(b"")
        response.elapsed = elapsed


class _Guarded(_Auth):
    """The auth flow of a client that has the event hook."""

    _guarded = True


if TYPE_CHECKING:

    class Auth(_Auth, httpx.Auth):
        """For httpx."""

    class Auth2(_Auth, httpx2.Auth):
        """For httpx2."""

else:
    _LIBRARIES: Final = {"Auth": "httpx", "Auth2": "httpx2"}

    def __getattr__(name: str) -> Any:
        """Import the library when its class is asked for: there may be only one of them."""
        if name not in _LIBRARIES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return _class(name, _Auth, import_module(_LIBRARIES[name]))


def install(client: C, session: Session | Synchronous, *, origins: Iterable[str] = ()) -> C:
    """Give *client*, of httpx or of httpx2, the credentials of *session*, whatever their names.

    They go to its endpoint and to *origins*. Returns *client*. Raises ConfigError if it has other
    credentials.
    """
    library, hook = _library_and_hook(client)
    if client.auth is not None and not isinstance(client.auth, _Auth):
        raise ConfigError("the client has an auth of its own; make it without one", reason="header")
    hooks = client.event_hooks
    if hook not in hooks["request"]:
        client.event_hooks = {**hooks, "request": [*hooks["request"], hook]}
    client.auth = _class("_Installed", _Guarded, library)(session, origins=origins)
    return client


def _library_and_hook(client: object) -> tuple[Any, Callable[[Any], Any]]:
    """Whose *client* is, and the event hook for its kind."""
    for name in ("httpx", "httpx2"):
        library = sys.modules.get(name)  # whoever has a client of it has imported it
        if library is not None and isinstance(client, library.AsyncClient):
            return library, _aguard
        if library is not None and isinstance(client, library.Client):
            return library, _guard
    raise ConfigError("install needs a client of httpx or httpx2; pass one", reason="client")


def _guard(request: Any) -> None:
    """The event hook: attach what is sent to the origin it is for, take it off at any other.

    What has been taken off does not come back, not even with a redirect back.
    """
    extensions, url = request.extensions, request.url
    sent = extensions.get(_SENT)
    if sent is None:
        return
    # A URL never changes, and each hop has another: the same one needs no second look.
    if url is not extensions.get(_URL) and _origin(url) != sent.origin:
        sent.detach(request)
    elif sent.by_hook and _ATTACHED not in extensions:
        headers = request.headers
        for name, value in sent.items:
            headers[name] = value
        extensions[_ATTACHED] = True


async def _aguard(request: Any) -> None:
    _guard(request)


def _class(name: str, base: type[_Auth], library: Any) -> Any:
    """*base* as a subclass of Auth of *library*: both clients insist on their own."""
    key = f"{name} of {library.__name__}"
    if key not in _CLASSES:
        members = {"__module__": __name__, "__doc__": base.__doc__, "_library": library}
        _CLASSES.setdefault(key, type(name, (base, library.Auth), members))
    return _CLASSES[key]


_CLASSES: Final[dict[str, type]] = {}


def _forget(request: Any) -> None:
    """Take off what an earlier sending of the same request has left."""
    extensions = request.extensions
    sent = extensions.pop(_SENT, None)
    extensions.pop(_URL, None)
    extensions.pop(_ATTACHED, None)
    if sent is not None:
        sent.detach(request)


def _origin(url: Any) -> _Origin:
    """What two URLs share if a credential for one fits the other; a default port is None."""
    return url.scheme, url.raw_host, url.port


def _place(origin: _Origin) -> Place:
    scheme, host, port = origin
    return (
        scheme,
        host.decode("ascii"),
        {"http": 80, "https": 443}.get(scheme, 0) if port is None else port,
    )


def _is_seekable(file: Any) -> bool:
    return hasattr(file, "seekable") and bool(file.seekable())
