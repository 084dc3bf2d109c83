"""
What the adapters of HTTP libraries share: where a session's credentials may go, and what is sent
in place of those that a server refuses. It knows none of the libraries.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, Protocol

from ..errors import ConfigError, FlowError
from ..session import Origins, Session

REFUSALS: Final = frozenset({401, 407})
_PROXY: Final = "proxy-authorization"
# For how many seconds it is believed which domain the data plane has, or that nobody says so.
DATA_PLANE_AGE: Final = 60.0

Place = tuple[str, str, int]
"""Scheme, host and port, as the library is going to use them."""


class Synchronous(Protocol):
    """A SyncSession."""

    @property
    def session(self) -> Session: ...


def session_of(session: Session | Synchronous) -> Session:
    return session if isinstance(session, Session) else session.session


class Reach:
    """Where the credentials of *session* may go: to its endpoint, its data plane and *given*."""

    def __init__(self, session: Session, given: Iterable[str]) -> None:
        self._session = session
        self._given = tuple(given)
        self._origins: Origins | None = None
        self._asked_until = -math.inf

    def at_once(self, place: Place) -> bool | None:
        """Whether they may go to *place*; None if somebody has to be asked."""
        if self._origins is None:
            return None
        if self._origins.allow_origin(*place):
            return True
        return None if self._may_be_data_plane(place) else False

    async def allows(self, place: Place) -> bool:
        """The same, whatever it takes. Raises ConfigError for a setting that is wrong."""
        if self._origins is None:
            self._origins = await self._named()
        if not self._origins.allow_origin(*place) and self._may_be_data_plane(place):
            with suppress(FlowError):  # most of what is elsewhere has no need of the answer
                self._origins = await self._session.origins(self._given)
            self._asked_until = time.monotonic() + DATA_PLANE_AGE
        return self._origins.allow_origin(*place)

    def _may_be_data_plane(self, place: Place) -> bool:
        """Whether only the control plane can say, and has not been asked lately."""
        scheme, _, port = place
        return (scheme, port) == ("https", 443) and time.monotonic() >= self._asked_until

    async def _named(self) -> Origins:
        """The origins that are known without asking anybody."""
        origins = await self._session.origins(self._given, data_plane=False)
        if not origins.exact:
            raise ConfigError(
                "this session has an issuer but no Flyte endpoint, so its credentials may go "
                "nowhere; pass origins=",
                reason="origins",
            )
        return origins


def part(headers: Mapping[str, str], *, by_proxy: bool) -> dict[str, str]:
    """Those of *headers* that a server refuses with 401, or a proxy with 407."""
    return {name: value for name, value in headers.items() if (name.lower() == _PROXY) == by_proxy}


def check_own(names: Iterable[str], theirs: Iterable[str], instead: str) -> None:
    """Raise ConfigError if the caller has set a header that the credentials are to go into."""
    for name in names:
        if name in theirs:
            raise ConfigError(
                f"the request has a header {name!r} of its own; remove it, or {instead} "
                "for this request",
                reason="header",
            )


async def renewed(
    session: Session, refused: Mapping[str, str], *, by_proxy: bool
) -> Mapping[str, str] | None:
    """What to send in place of what was *refused*; None if that would be in vain. Raises what
    Session.headers raises.
    """
    if not by_proxy:
        session.reject("".join(refused.values()).partition(" ")[2])
    elif part(await session.headers(), by_proxy=True) == refused:
        session.reject_proxy()  # which is not for one that is newer
    headers = await session.headers()
    return None if part(headers, by_proxy=by_proxy) == refused else headers
