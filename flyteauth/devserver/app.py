"""The control plane behind ASGI: reads requests, passes the time, writes responses and the log."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final, TextIO

import anyio

from .._sansio.http import Headers, Request, Response
from .connect import ConnectError, Message as RpcMessage, Reply
from .messages import text_response
from .model import ControlPlane, Entry, entry_of
from .shelves import Thing
from .uploads import PATH as UPLOADS, UPLOAD_MAX

BODY_MAX: Final = 1024 * 1024

_AUTHORITY: Final = re.compile(r"[A-Za-z0-9._~\[\]:-]+")
_logger: Final = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


Keep = Callable[[Sequence[Thing]], Awaitable[None]]


class NotKept(Exception):
    """What has changed could not be written down; the message is one line that says why."""


class Application:
    """An ASGI 3 application around one ControlPlane.

    ``clock`` gives POSIX seconds; ``log`` gets one line of JSON per request, flushed. ``keep``
    writes down what has changed, before anybody is told that it has; where it raises NotKept, the
    answer is 503, and the same is written with the next change.
    """

    def __init__(
        self,
        plane: ControlPlane,
        *,
        log: TextIO | None = None,
        clock: Callable[[], float] = time.time,
        keep: Keep | None = None,
    ) -> None:
        self.plane = plane
        self._log = log
        self._clock = clock
        self._keep = keep
        self._turn = anyio.Lock()
        self._services: Mapping[str, Any] | None = None

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
        limit = UPLOAD_MAX if scope["path"].startswith(UPLOADS) else BODY_MAX
        body = await _body(receive, limit)
        if body is None:
            return  # the client is gone; nobody waits for an answer
        at = self._clock()
        if len(body) > limit:
            response = text_response(413, "The body is too large.", (("connection", "close"),))
        else:
            request = Request(request.method, request.url, request.headers, body)
            response = await self._answer(request, scope, at)
        self._write(entry_of(request, response, at))
        await _send(response, send, head=request.method == "HEAD")

    async def _answer(self, request: Request, scope: Scope, at: float) -> Response:
        try:
            service = self._service(scope["path"])
            if service is None:
                response = self.plane.handle(request, at)
            else:
                refused = self.plane.screen(request, at)
                response = refused or await self._rpc(service, scope, request)
                self.plane.note(request, response, at)
            await self._settle()
        except NotKept as error:
            _logger.warning("%s", error)
            return ConnectError("unavailable", str(error)).response()
        except Exception:
            _logger.exception("the control plane failed; please report this bug")
            return text_response(500, "The control plane failed.")
        return response

    async def _settle(self) -> None:
        if self._keep is None:
            return
        async with self._turn:  # what has changed last is written last
            if things := self.plane.shelves.changes():
                try:
                    await self._keep(things)
                except BaseException:
                    self.plane.shelves.unwritten(things)
                    raise

    # Calls, in whatever encoding they come.

    def _service(self, path: str) -> Any | None:
        """The application of the service that *path* is about."""
        service = path[1:].rpartition("/")[0]
        if "." not in service or "/" in service:
            return None
        if self._services is None:
            from .rpc import applications  # late, for it imports all of Flyte's messages

            self._services = applications(self._call)
        return self._services.get(service)

    async def _call(self, procedure: str, message: RpcMessage, headers: Headers) -> Reply:
        return self.plane.call(procedure, message, headers, self._clock())

    async def _rpc(self, service: Any, scope: Scope, request: Request) -> Response:
        from .rpc import UNREADABLE

        if (request.header("content-type") or "").startswith("application/grpc"):
            # It needs trailers, and so HTTP/2, which is not served here.
            return Response(415, (("accept-post", "application/json, application/proto"),))
        answered: list[Message] = []
        body = [request.body]

        async def receive() -> Message:
            if body:
                return {"type": "http.request", "body": body.pop(), "more_body": False}
            await anyio.sleep_forever()
            raise AssertionError

        async def collect(message: Message) -> None:
            answered.append(message)

        try:
            await service(scope, receive, collect)
        except UNREADABLE:
            return ConnectError("invalid_argument", "the message cannot be read").response()
        start, *parts = answered
        headers = tuple((name.decode(), value.decode()) for name, value in start["headers"])
        return Response(start["status"], headers, b"".join(part["body"] for part in parts))

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


async def _body(receive: Receive, limit: int) -> bytes | None:
    """The body, or its beginning if it is too large; None if the client went away."""
    parts: list[bytes] = []
    size = 0
    while size <= limit:
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
