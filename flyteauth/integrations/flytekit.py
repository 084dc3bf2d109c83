"""
``authType: flyteauth`` in flytekit, which finds ``authenticator`` by its entry point
(``flytekit.auth``)::

    admin:
      endpoint: dns:///flyte.example.com
      authType: flyteauth

flytekit's own client, ``FlyteRemote`` and ``pyflyte`` then use a flyteauth session: a login that is
on this machine already, renewed for all threads and processes at once. Without one, a person at a
terminal or in a notebook is asked to log in at the first call, and elsewhere that call fails with
InteractionRequired, which flytekit shows as the cause of its own error.

Settings that flytekit does not know (``tokenStore``, ``account``, …) are read where flyteauth finds
them, if that is about the same endpoint. How to log in is asked over gRPC, on flytekit's own
channel, so a Flyte 1 control plane needs no HTTP gateway for it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakValueDictionary

from ..errors import ConfigError, Error, Unreachable
from ..session import Session, in_portal
from ._http import part

if TYPE_CHECKING:
    from .._target import Target
    from ..config import Settings

__all__ = ["Authenticator", "authenticator"]

ASK_DEADLINE: Final = 30.0  # seconds for two calls on a channel that may still have to connect

# flytekit tries what has failed three more times, at once: for a person that is four prompts.
SAME_CALL: Final = 1.0  # seconds


class PlatformConfig(Protocol):
    """As much of flytekit's as is used here."""

    endpoint: str
    insecure: bool
    insecure_skip_verify: bool
    ca_cert_file_path: str | None
    client_id: str | None
    client_credentials_secret: str | None
    scopes: list[str]
    audience: str | None
    http_proxy_url: str | None
    proxy_command: list[str] | None


class ClientConfig(Protocol):
    """What a control plane says of logging in, as flytekit has it."""

    token_endpoint: str
    authorization_endpoint: str
    device_authorization_endpoint: str | None
    redirect_uri: str
    client_id: str
    scopes: Any
    header_key: str | None
    audience: str | None


class ClientConfigStore(Protocol):
    """Flytekit's way to ask for that; it blocks."""

    def get_client_config(self) -> ClientConfig: ...


def authenticator(config: PlatformConfig, config_store: ClientConfigStore) -> Authenticator:
    """What flytekit calls for an ``authType: flyteauth``: for each channel, and, where threads make
    the first calls of one at once, for each of them. As long as they are in use, those of the same
    configuration are one. Raises ConfigError.
    """
    arguments = _arguments(config)
    key = hashlib.sha256(repr(arguments).encode()).hexdigest()  # there may be a secret in it
    with _LOCK:
        known = _IN_USE.get(key)
        if known is None:
            known = _IN_USE[key] = Authenticator(_session(arguments))
        known.ask_by(config_store)
    return known


def _session(arguments: Mapping[str, Any]) -> Session:
    """By *arguments*, and by what flyteauth finds configured for the same endpoint."""
    configured = Session.from_config(interactive=True, **arguments)
    try:
        found = in_portal(Session.from_config().settings).endpoint
        if found == in_portal(configured.settings).endpoint:
            return configured
    except ConfigError:  # nothing at all, or nothing for this one
        pass
    return Session(interactive=True, **arguments)


def _arguments(config: PlatformConfig) -> dict[str, Any]:
    """*config* as arguments of Session. In flytekit, what is empty is not set."""
    return {
        "endpoint": config.endpoint,
        "insecure": config.insecure or None,
        "insecure_skip_verify": config.insecure_skip_verify or None,
        "ca_cert_file_path": config.ca_cert_file_path or None,
        "client_id": config.client_id or None,
        "client_secret": config.client_credentials_secret or None,
        "scopes": config.scopes or None,
        "audience": config.audience or None,
        "http_proxy_url": config.http_proxy_url or None,
        "proxy_command": config.proxy_command or None,
    }


async def _ask(store: ClientConfigStore, settings: Settings) -> Target:
    """How to log in, by flytekit's own channel. Raises Unreachable and InvalidResponse."""
    from .._io.threads import run_in_daemon
    from .._target import as_told

    try:
        told = await run_in_daemon(store.get_client_config, deadline=ASK_DEADLINE)
    except TimeoutError:
        why = f"nothing came back within {ASK_DEADLINE:.0f} s"
    except Exception as error:  # noqa: BLE001  whatever gRPC raises
        why = _status(error)
        if why == "UNIMPLEMENTED":  # a control plane without authentication
            return as_told(settings, {}, {})
    else:
        endpoints = ("token_endpoint", "authorization_endpoint", "device_authorization_endpoint")
        public = {
            "client_id": told.client_id or None,
            "redirect_uri": told.redirect_uri or None,
            "scopes": list(told.scopes or ()),
            "authorization_metadata_key": told.header_key or None,
            "audience": told.audience or None,
        }
        metadata = {name: getattr(told, name) or None for name in endpoints}
        return as_told(settings, metadata, public)
    raise Unreachable(
        f"the control plane does not say how to log in ({why}); check the endpoint, and try again",
        reason="discovery",
    )


def _status(error: Exception) -> str:
    """The gRPC status of *error*, or what kind of error it is."""
    code = getattr(error, "code", None)
    return str(getattr(code() if callable(code) else None, "name", type(error).__name__))


class Authenticator:
    """What flytekit asks for the credentials of each call, from any thread."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sent = threading.local()
        self._failed: tuple[float, Error] | None = None

    def ask_by(self, store: ClientConfigStore) -> None:
        """Have the channel of *store* asked how to log in; the last one is the least likely to be
        closed.
        """

        async def ask(settings: Settings) -> Target:
            return await _ask(store, settings)

        self._session._life.ask = ask  # noqa: SLF001

    def fetch_grpc_call_auth_metadata(self) -> tuple[str, str] | None:
        """The header of a call, by the name that the control plane wants it under; None where it
        wants none. Raises what Session.headers raises.
        """
        # flytekit asks the command for a proxy's credential itself.
        for name, value in part(self._headers(), by_proxy=False).items():
            self._sent.value = value
            return name.lower(), value
        self._sent.value = ""
        return None

    def refresh_credentials(self) -> None:
        """The last call of this thread was refused: what it sent is not sent again. Whoever was
        refused as well gets the same new token. Raises what Session.headers raises.
        """
        sent: str = getattr(self._sent, "value", "")
        self._session.reject(sent.partition(" ")[2])
        self._headers()

    def _headers(self) -> Mapping[str, str]:
        cached = self._session.cached_headers()
        if cached is not None:
            return cached
        if self._failed is not None and time.monotonic() < self._failed[0]:
            raise copy(self._failed[1])
        try:
            return in_portal(self._session.headers)
        except Error as error:
            self._failed = time.monotonic() + SAME_CALL, copy(error)  # its traceback holds us
            raise


_LOCK: Final = threading.Lock()
_IN_USE: Final = WeakValueDictionary[str, Authenticator]()
