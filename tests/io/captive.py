"""A control plane on loopback behind something that puts pages of its own in its place."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from flyteauth._io.clock import SystemClock
from flyteauth._sansio.http import Response
from flyteauth.devserver.model import ControlPlane
from flyteauth.devserver.settings import Settings

from .server import Connection, Server
from .wire import parse_request, write_response

LOGIN_PAGE: Final = b"<!DOCTYPE html>\n<title>Sign in</title><form>CANARY-of-the-page</form>"
_HTML: Final = ("content-type", "text/html; charset=utf-8")

# What login pages come with.
PAGES: Final = {
    "200": Response(200, (_HTML,), LOGIN_PAGE),
    "302": Response(302, (_HTML, ("location", "https://sso.example.com/CANARY")), LOGIN_PAGE),
    "401": Response(401, (_HTML, ("www-authenticate", "Negotiate")), LOGIN_PAGE),
    "403": Response(403, (_HTML,), LOGIN_PAGE),
    "511": Response(511, (_HTML,), LOGIN_PAGE),  # RFC 6585 §6
}


class Captive(Server):
    """``pages`` says what is answered to requests whose path matches."""

    def __init__(self, **settings: Any) -> None:
        self.pages: dict[str, Response] = {}
        self._clock = SystemClock()
        self._one_at_a_time = threading.Lock()
        super().__init__(self._answer)
        self.base_url = f"http://localhost:{self.port}"
        self.host = f"localhost:{self.port}"
        given = {"approve": "auto", **settings}
        self.plane = ControlPlane(Settings(base_url=self.base_url, **given), b"an unchanging seed")

    def _answer(self, connection: Connection) -> None:
        while raw := connection.read_request():
            request = parse_request(raw, self.base_url)
            with self._one_at_a_time:
                pages = [page for path, page in self.pages.items() if re.search(path, request.url)]
                response = pages[0] if pages else self.plane.handle(request, self._clock.time())
            connection.send(write_response(response))


@contextmanager
def captive(**settings: Any) -> Iterator[Captive]:
    server = Captive(**settings)
    try:
        yield server
    finally:
        server.stop()
