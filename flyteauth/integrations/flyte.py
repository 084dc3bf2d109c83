"""
A session for the flyte SDK, in the same process.

By public means, with any flyte 2::

    flyte.init(**passthrough(settings))             # settings = await session.settings()
    async with auth_metadata(session):              # or: with
        ...                                         # calls here have the session's credentials

    async with external_command(session) as arguments:
        flyte.init(**arguments)                     # flyte asks ``flyteauth token`` after a 401

    flyte.init(..., auth_client_config=client_config(settings))     # flyte's own login

None of them makes ``flyte.init(endpoint=…)`` use a session by itself:

- Passthrough sends what the scope around a call was given. Nothing is renewed within a scope, and a
  refused call fails; what was refused is not used for the next scope.
- ExternalCommand sends the first call of a process without a token, runs the command for each of
  several calls that are refused at once (they wait for one renewal), sends the token as
  ``authorization`` whatever the control plane wants, and needs a login that other processes can
  read.
- ``auth_client_config`` only says which client flyte itself logs in as, and leaves the tokens, and
  all that happens to them, to flyte.
- Nothing sends credentials without TLS: flyte does not do that.

``installed`` does, by replacing a private function of flyte, so it knows which versions it works
with, and refuses others::

    with installed(session):                        # or: async with
        flyte.init(endpoint=…)                      # or flyte.init.aio, or headless=True
        flyte.run(…)

Within, every client that flyte makes for the session's endpoint has the session's credentials on
unary calls and on streams: one login for any number of calls that begin at once, none of which is
sent without a token, one renewal for all that are refused, and the header that the control plane
wants. How to log in is for the session to say, and ``headless`` and ``auth_type`` of ``flyte.init``
do not count; ``Session(headless=True, interactive=True, …)`` is device flow at the first call.

flyte runs on asyncio, on a thread of its own, so trio programs call it as they call any blocking
function. The session itself may be used anywhere else at the same time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, TypeVarTuple
from urllib.parse import urlsplit

from attrs import field, frozen

from ..errors import ConfigError, quote
from ..session import Session, in_portal
from ._http import Synchronous, part, session_of

if TYPE_CHECKING:
    from ..config import Settings

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

__all__ = ["auth_metadata", "client_config", "external_command", "installed", "passthrough"]

KNOWN: Final = frozenset({"2.10.0", "2.10.7", "2.11.0", "2.11.4", "2.12.0", "2.12.1"})
"""The versions of flyte that ``installed`` was tried with."""

_SEAM: Final = "flyte.remote._client.auth._session"


# By public means.


def passthrough(settings: Settings) -> dict[str, Any]:
    """Arguments for ``flyte.init``: calls are authorised by ``auth_metadata`` alone.

    They are those of ``flyte.init_passthrough``, which takes no certificates. Raises ConfigError.
    """
    return {**_connection(settings), "auth_type": "Passthrough"}


def client_config(settings: Settings) -> Any:
    """For ``auth_client_config`` of ``flyte.init``: flyte logs in itself, as the client and for
    the scopes and the audience that *settings* say.
    """
    endpoints = settings.endpoints
    return _module("flyte.remote._client.auth").ClientConfig(
        token_endpoint=endpoints.get("token_endpoint", ""),
        authorization_endpoint=endpoints.get("authorization_endpoint", ""),
        device_authorization_endpoint=endpoints.get("device_authorization_endpoint"),
        redirect_uri=settings.redirect_uri or "",
        client_id=settings.client_id or "",
        scopes=None if settings.scopes is None else list(settings.scopes),
        audience=settings.audience,
        header_key="",  # what is empty is what the control plane says
    )


class auth_metadata:  # noqa: N801  used like flyte's function of this name
    """Within, calls of a Passthrough client have the credentials of *session* as they are now.

    Raises what Session.headers raises. If a call is refused, and so ends the scope, the next one
    has another token.
    """

    def __init__(self, session: Session | Synchronous) -> None:
        self._session = session_of(session)
        self._scope = ExitStack()
        self._headers: Mapping[str, str] = {}

    def __enter__(self) -> None:
        cached = self._session.cached_headers()
        self._enter(in_portal(self._session.headers) if cached is None else cached)

    async def __aenter__(self) -> None:
        headers = await self._session.headers()
        await _in_thread(_module, "flyte.remote")
        self._enter(headers)

    def _enter(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        if headers:  # none are wanted where there are none
            metadata: Callable[..., AbstractContextManager[None]]
            metadata = _module("flyte.remote").auth_metadata
            self._scope.enter_context(metadata(*headers.items()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._scope.close()
        if getattr(getattr(error, "code", None), "name", "") == "UNAUTHENTICATED":
            self._session.reject(_token(self._headers))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)


class external_command:  # noqa: N801  used like a function
    """Within, the arguments are good by which ``flyte.init`` has flyte get its tokens from
    ``flyteauth token``: by the session's configuration, out of the same store, in the same turn.

    Raises StoreError for a login that only this process has, and ConfigError.
    """

    def __init__(self, session: Session | Synchronous) -> None:
        self._session = session_of(session)
        self._files = ExitStack()
        self._over = False

    def __enter__(self) -> dict[str, Any]:
        return self._enter(in_portal(self._session.settings))

    async def __aenter__(self) -> dict[str, Any]:
        settings = await self._session.settings()
        try:
            return await _in_thread(self._enter, settings)
        except BaseException:  # the thread may still be at it
            self._over = True
            self._files.close()
            raise

    def _enter(self, settings: Settings) -> dict[str, Any]:
        from .._handover import asked_by_command
        from .._own_command import asking

        connection = _connection(settings)
        command = self._files.enter_context(asked_by_command(settings))
        if self._over:
            self._files.close()
        asks = asking(command)
        return {
            **connection,
            "auth_type": asks["authType"],
            "command": asks["command"],
            "disable_keyring": asks["disableKeyring"],
        }

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._files.close()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import anyio

        with anyio.CancelScope(shield=True):
            await _in_thread(self._files.close)


def _connection(settings: Settings) -> dict[str, Any]:
    """Where to, for ``flyte.init``. Raises ConfigError where flyte would send no credentials."""
    from .._handover import target

    if settings.endpoint is None:
        raise ConfigError(
            "flyte needs a control plane, and this session has only an issuer; pass endpoint=",
            reason="endpoint",
        )
    if settings.plain_host is not None:
        raise ConfigError(
            f"flyte sends no credentials without TLS, as to {settings.endpoint.key}; use an "
            "endpoint that has TLS",
            reason="insecure",
        )
    named = {"org": settings.org, "project": settings.project, "domain": settings.domain}
    if settings.ca_file is not None:
        named["ca_cert_file_path"] = str(settings.ca_file)
    arguments: dict[str, Any] = {name: value for name, value in named.items() if value}
    if settings.insecure_skip_verify and settings.ca_file is None:
        arguments["insecure_skip_verify"] = True
    return {"endpoint": target(settings), **arguments}


# By a private one.


class installed:  # noqa: N801  used like a function
    """Within, what flyte makes for the endpoint of *session* uses that session; afterwards, what
    was made within goes on to, and all else is as before. Several may be installed at once.

    Raises ConfigError for a flyte that is not among ``KNOWN``, and for an endpoint without TLS.
    """

    def __init__(self, session: Session | Synchronous) -> None:
        self._session = session_of(session)
        self._mine: _Installed | None = None

    def __enter__(self) -> Self:
        settings = in_portal(self._session.settings)
        _require_possible(settings)
        return self._enter(settings)

    async def __aenter__(self) -> Self:
        settings = await self._session.settings()
        await _in_thread(_require_possible, settings)
        return self._enter(settings)

    def _enter(self, settings: Settings) -> Self:
        assert settings.endpoint is not None
        self._mine = _Installed(_origin(settings.endpoint.url), _Authenticator(self._session))
        _SEAMED.add(self._mine)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._mine is not None
        _SEAMED.remove(self._mine)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)


@frozen(eq=False)
class _Sent:
    """What flyte's interceptors know as AuthHeaders: they send ``headers``, and hand
    ``creds_id`` back if those are refused.
    """

    headers: dict[str, str] = field(repr=False)
    creds_id: Mapping[str, str] = field(repr=False)


class _Authenticator:
    """What flyte's interceptors ask, in the place of one of flyte's own authenticators."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get_auth_headers(self) -> _Sent | None:
        headers = await self._session.headers()
        return _Sent(dict(headers), headers) if headers else None

    async def refresh_credentials(self, creds_id: Mapping[str, str] | None = None) -> None:
        self._session.reject("" if creds_id is None else _token(creds_id))


@frozen(eq=False)
class _Installed:
    origin: tuple[str | None, int, str]
    authenticator: _Authenticator


class _Seam:
    """The function by which flyte makes the interceptors of a new client, and what is installed
    there. It is replaced while anything is.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._installed: tuple[_Installed, ...] = ()
        self._original: Callable[..., list[Any]] | None = None

    def add(self, one: _Installed) -> None:
        with self._lock:
            if self._original is None:
                module = _module(_SEAM)
                self._original = original = module.create_auth_interceptors
                module.create_auth_interceptors = partial(self._create, original)
            self._installed = (one, *self._installed)

    def remove(self, one: _Installed) -> None:
        with self._lock:
            self._installed = tuple(each for each in self._installed if each is not one)
            if not self._installed and self._original is not None:
                _module(_SEAM).create_auth_interceptors = self._original
                self._original = None

    def _create(
        self, original: Callable[..., list[Any]], endpoint: str, *rest: Any, **arguments: Any
    ) -> list[Any]:
        """Flyte's interceptors, one for each kind of call, all of which ask one session."""
        theirs = original(endpoint, *rest, **arguments)
        origin = _origin(endpoint)
        for one in self._installed:
            if one.origin == origin:
                return [type(each)(lambda mine=one.authenticator: mine) for each in theirs]
        return theirs


_SEAMED: Final = _Seam()


def _require_possible(settings: Settings) -> None:
    """Raise ConfigError unless a session with *settings* can be installed; the private module is
    imported then.
    """
    _connection(settings)
    try:
        found = version("flyte")
    except PackageNotFoundError:
        raise _missing() from None
    if found not in KNOWN:
        raise ConfigError(
            f"installed() is not known to work with flyte {quote(found, 40)}, only with "
            f"{', '.join(sorted(KNOWN))}; use external_command(session) or auth_metadata(session)",
            reason="version",
        )
    _module(_SEAM)


async def _in_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """*function* of *args* on a worker thread: to import flyte takes a quarter of a second."""
    import anyio.to_thread

    return await anyio.to_thread.run_sync(function, *args)


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise _missing() from None


def _missing() -> ConfigError:
    return ConfigError("flyte is not installed here; run: pip install flyte", reason="flyte")


def _token(headers: Mapping[str, str]) -> str:
    """The token in *headers*, not that of a proxy."""
    return "".join(part(headers, by_proxy=False).values()).partition(" ")[2]


def _origin(url: str) -> tuple[str | None, int, str]:
    """What two spellings of one endpoint have in common."""
    parts = urlsplit(url)
    return parts.hostname, parts.port or 443, parts.path.rstrip("/")
