"""
A session's credentials on the requests of requests::

    client = requests.Session()
    client.auth = Auth(session)                 # or auth= of one request

The credentials go where ``flyteauth.integrations.httpx`` sends them: to the endpoint's origin, to
the ``origins`` that are given, and over https to the data plane, if the control plane names one; a
request to anywhere else passes through as it is. A 401 is answered by one renewal and, where the
body can be sent again, one more try, and so is a 407 that is about the session's own
``Proxy-Authorization``; what comes of it is the caller's.

A redirect never takes a credential to another origin. requests itself removes ``Authorization``
then, if not always, and no other header but ``Proxy-Authorization``, which it removes at every
redirect. So whatever was attached is removed here before requests makes the next request, unless
that beyond doubt stays at the server. What was removed does not come back, not even with a redirect
back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from ..errors import Error
from ..session import Session, in_portal, origin_of
from ._http import REFUSALS, Place, Reach, Synchronous, check_own, part, renewed, session_of

try:
    from requests import PreparedRequest, Response
    from requests.auth import AuthBase
    from requests.exceptions import UnrewindableBodyError
    from requests.utils import rewind_body
except ImportError as error:
    raise ImportError("this needs requests; run: pip install requests") from error

__all__ = ["Auth"]

_NOWHERE: Final = ("", "", 0)
# A reference to another path or query of the same server, and nothing that a reader of URLs could
# take for more: to requests, four slashes begin a host.
_WITHIN: Final = re.compile(r"(?:/(?!/)|\?|[A-Za-z0-9._~-]+(?:[/?#]|$))[!-\[\]-~]*")


class Auth(AuthBase):
    """For ``auth=``: the credentials of *session*, to its endpoint and to *origins*.

    Raises ConfigError before anything is sent that should not be, and what Session.headers raises.
    """

    def __init__(self, session: Session | Synchronous, *, origins: Iterable[str] = ()) -> None:
        self._session = session_of(session)
        self._reach = Reach(self._session, origins)

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        place = _place(r.url)
        allowed = self._reach.at_once(place)
        if allowed is None:
            allowed = in_portal(self._reach.allows, place)
        if allowed:
            headers = self._session.cached_headers()
            if headers is None:
                headers = in_portal(self._session.headers)
            check_own(headers, r.headers, "pass auth=lambda request: request")
            attached = _Attached(self._session, place)
            attached.to(r, headers)
            r.register_hook("response", attached.answered)  # type: ignore[no-untyped-call]
        return r


class _Attached:
    """What authorises one request, at *place* and nowhere else."""

    def __init__(self, session: Session, place: Place) -> None:
        self._session = session
        self._place = place
        self._headers: Mapping[str, str] = {}

    def to(self, request: PreparedRequest, headers: Mapping[str, str]) -> None:
        self._headers = headers
        request.headers.update(headers)

    def answered(self, response: Response, **arguments: Any) -> Response:
        """The hook: see what has come of it, before requests follows a redirect."""
        if response.status_code in REFUSALS:
            response = self._again(response, arguments)
        # Only now, because the next request is a copy of this one.
        location = response.headers.get("location")
        if location is not None and not _stays_at(self._place, location):
            self._off(response.request)
        return response

    def _again(self, response: Response, arguments: Mapping[str, Any]) -> Response:
        request, by_proxy = response.request, response.status_code == 407
        refused = part(self._headers, by_proxy=by_proxy)
        # After a redirect, whoever refuses may not have seen it at all.
        had = all(request.headers.get(name) == value for name, value in refused.items())
        if not had or _place(request.url) != self._place or (by_proxy and not refused):
            return response
        try:
            headers = in_portal(partial(renewed, self._session, refused, by_proxy=by_proxy))
        except Error:
            if not _rewind(request):
                return response
            response.close()
            self._off(request)  # it is part of what the caller may look at
            raise
        if headers is None or not _rewind(request):
            return response  # what is new is for the next request
        response.close()  # unread: it may be endless
        self._off(request)
        self.to(request, headers)
        again: Response = response.connection.send(request, **arguments)
        again.history.append(response)
        return again

    def _off(self, request: PreparedRequest) -> None:
        for name, value in self._headers.items():
            if request.headers.get(name) == value:
                del request.headers[name]


def _place(url: str | None) -> Place:
    """Where requests is going to send what is for *url*; what cannot be read is nowhere."""
    return origin_of(url or "") or _NOWHERE


def _stays_at(place: Place, location: str) -> bool:
    """Whether a redirect to *location* is one within the server at *place*."""
    return _WITHIN.fullmatch(location) is not None or _place(location) == place


def _rewind(request: PreparedRequest) -> bool:
    """Make the body ready to be sent again, if that is possible (BRR-10)."""
    if request.body is None or isinstance(request.body, bytes | str):
        return True
    try:
        rewind_body(request)
    except UnrewindableBodyError:
        return False
    return True
