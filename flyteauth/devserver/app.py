"""The control plane behind ASGI: reads requests, passes the time, writes responses and the log."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TextIO

from .._sansio.http import Request, Response
from .messages import text_response
from .model import ControlPlane, Entry, entry_of

BODY_MAX: Final = 1024 * 1024

_AUTHORITY: Final = re.compile(r"[A-Za-z0-9._~\[\]:-]+")
_logger: Final = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Application:
    """An ASGI 3 application around one ControlPlane.

    ``clock`` gives POSIX seconds; ``log`` gets one line of JSON per request, flushed.
    """

    def __init__(
        self,
        plane: ControlPlane,
        *,
        log: TextIO | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.plane = plane
        self._log = log
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "lifespan":
                await _lifespan(receive, send)
            case other:
                raise ValueError(f"the control plane does not speak {other!r}")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = _request(scope)
        body = await _body(receive)
        if body is None:
            return  # the client is gone; nobody waits for an answer
        at = self._clock()
        if len(body) > BODY_MAX:
            response = text_response(413, "The body is too large.", (("connection", "close"),))
        else:
            request = Request(request.method, request.url, request.headers, body)
            response = self._handle(request, at)
        self._write(entry_of(request, response, at))
        await _send(response, send, head=request.method == "HEAD")

    def _handle(self, request: Request, at: float) -> Response:
        try:
            return self.plane.handle(request, at)
        except Exception:
            _logger.exception("the control plane failed; please report this bug")
            return text_response(500, "The control plane failed.")

    def _write(self, entry: Entry) -> None:
        if self._log is not None:
            self._log.write(json.dumps(entry.as_dict()) + "\n")
            self._log.flush()


def _request(scope: Scope) -> Request:
    """The request without its body. The URL is the target as it came, made absolute."""
    headers = tuple(
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
    )
    path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    url = f"{path}?{query}" if query else path
    if path.startswith("/"):  # else it is the absolute form of RFC 9112 §3.2.2, or nonsense
        host = next((value for name, value in headers if name.lower() == "host"), "localhost")
        # What is no authority must not become part of the path.
        url = f"{scope['scheme']}://{host}{url}" if _AUTHORITY.fullmatch(host) else "invalid:"
    return Request(scope["method"], url, headers)


async def _body(receive: Receive) -> bytes | None:
    """The body, or its beginning if it is too large; None if the client went away."""
    parts: list[bytes] = []
    size = 0
    while size <= BODY_MAX:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if not message.get("more_body", False):
            break
    return b"".join(parts)


async def _send(response: Response, send: Send, *, head: bool) -> None:
    headers = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers
    ]
    headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else response.body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
