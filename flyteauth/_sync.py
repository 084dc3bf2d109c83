"""The same session for programs without an event loop, and inside a notebook's running one.

There is one implementation: each call here runs its async twin on the process-wide portal thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self

from ._io.portal import call
from ._sansio.keyring_layouts import Tool
from ._sansio.tokens import Token
from .config import Settings
from .events import CodeNeeded, LoggedOut
from .session import Identity, Origins, Session


class SyncSession:
    """A Session whose methods block. Takes the arguments of Session, or a Session as ``of``."""

    def __init__(self, *, of: Session | None = None, **arguments: Any) -> None:
        self._session = of or Session(**arguments)

    @property
    def session(self) -> Session:
        """The session itself, for async code."""
        return self._session

    def __reduce__(self) -> tuple[object, ...]:
        return _around, (self._session,)

    def __enter__(self) -> Self:
        self.settings()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """See Session.aclose."""
        call(self._session.aclose)

    def headers(self) -> Mapping[str, str]:
        """See Session.headers."""
        cached = self._session.cached_headers()
        return call(self._session.headers) if cached is None else cached

    def token(self) -> Token | None:
        """See Session.token."""
        return call(self._session.token)

    def renew(self) -> Token | None:
        """See Session.renew."""
        return call(self._session.renew)

    def verify(self) -> Token | None:
        """See Session.verify."""
        return call(self._session.verify)

    def cached_headers(self) -> Mapping[str, str] | None:
        """See Session.cached_headers."""
        return self._session.cached_headers()

    def reject(self, access_token: str) -> None:
        """See Session.reject."""
        self._session.reject(access_token)

    def reject_proxy(self) -> None:
        """See Session.reject_proxy."""
        self._session.reject_proxy()

    def login(
        self, *, must_keep: bool = False, switch: bool = False, open_browser: bool = True
    ) -> Token | None:
        """See Session.login."""
        login = self._session.login
        return call(partial(login, must_keep=must_keep, switch=switch, open_browser=open_browser))

    def begin_login(self) -> CodeNeeded:
        """See Session.begin_login."""
        return call(self._session.begin_login)

    def resume_login(self, *, must_keep: bool = False) -> Token:
        """See Session.resume_login."""
        return call(partial(self._session.resume_login, must_keep=must_keep))

    def import_login(self, source: Tool | None = None, *, must_keep: bool = False) -> Token:
        """See Session.import_login."""
        return call(partial(self._session.import_login, source, must_keep=must_keep))

    def export_login(self, *targets: Tool) -> None:
        """See Session.export_login."""
        call(self._session.export_login, *targets)

    def logout(self, *, everywhere: bool = False) -> LoggedOut:
        """See Session.logout."""
        return call(partial(self._session.logout, everywhere=everywhere))

    def whoami(self) -> Identity | None:
        """See Session.whoami."""
        return call(self._session.whoami)

    def call(self, procedure: str, message: object) -> Mapping[str, Any]:
        """See Session.call."""
        return call(self._session.call, procedure, message)

    def settings(self) -> Settings:
        """See Session.settings."""
        return call(self._session.settings)

    def origins(self, also: Iterable[str] = (), *, data_plane: bool = True) -> Origins:
        """See Session.origins."""
        return call(partial(self._session.origins, also, data_plane=data_plane))


def _around(session: Session) -> SyncSession:
    return SyncSession(of=session)
