"""
A small service over Connect and over gRPC, real on both ends, and clients of it that all look the
same: with one method of each kind, synchronous or not, of either library.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import anyio.to_thread
import grpc
import grpc.aio
import uvicorn
from attrs import define, field, frozen
from connectrpc.client import ConnectClient, ConnectClientSync
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo
from connectrpc.server import ConnectASGIApplication, Endpoint
from google.protobuf.wrappers_pb2 import StringValue

from flyteauth.devserver.serve import bind
from flyteauth.integrations import connect, grpc as grpc_integration
from flyteauth.session import Session

from .plane import Plane

SERVICE = "tests.Echo"
CREDENTIALS = ("authorization", "flyte-authorization", "proxy-authorization")

Kind = Literal["say", "count", "collect", "chat"]
KINDS: tuple[Kind, ...] = ("say", "count", "collect", "chat")


@frozen
class Seen:
    """One call that reached the server: what carried credentials, and what came of it."""

    method: str
    credentials: Mapping[str, str] = field(repr=False)
    code: str


@define
class Gate:
    """Who is let in: whoever has a token of *plane* that is good, and was not ``refused``.

    ``code`` is the answer to everybody else that has one, ``after`` the number of replies before a
    stream ends with it. ``header`` is where a token belongs; without a plane nobody needs one.
    """

    plane: Plane | None = None
    header: str = "authorization"
    refused: set[str] = field(factory=set)
    code: str | None = None
    after: int | None = None
    seen: list[Seen] = field(factory=list)
    held: threading.Event | None = None
    """Nobody gets an answer before this is set."""
    over: threading.Event = field(factory=threading.Event)
    """A stream of numbers has come to its end."""

    def answer(self, method: str, headers: Mapping[str, str]) -> str:
        """The code; "ok" if there is none."""
        credentials = {name: headers[name] for name in CREDENTIALS if name in headers}
        token = credentials.get(self.header, "").removeprefix("Bearer ")
        plane = self.plane
        good = plane is None or (
            token not in self.refused and plane.plane.access(token, plane.clock.time()) is not None
        )
        code = (self.code or "ok") if good else "unauthenticated"
        self.seen.append(Seen(method, credentials, code))
        return code

    @property
    def codes(self) -> list[str]:
        return [seen.code for seen in self.seen]

    @property
    def tokens(self) -> list[str]:
        return [seen.credentials.get(self.header, "") for seen in self.seen]

    def count(self) -> Counter[str]:
        return Counter(self.codes)

    def refuse_last(self) -> None:
        """The token that came last is not good any more."""
        self.refused.add(self.tokens[-1].removeprefix("Bearer "))


# The service: say answers with what was said, count with as many numbers, collect with all that was
# said in one, chat with each of it. They read before they refuse: whether a client whose writing
# is cut short has a refusal to tell, or something else, is a matter of luck in both libraries.


class _Refused(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def _text(text: str) -> StringValue:
    return StringValue(value=text)


def _numbers(gate: Gate, code: str, text: str) -> Iterator[StringValue]:
    for number in range(int(text)):
        if code != "ok" and number == gate.after:
            raise _Refused(code)
        yield _text(str(number))


def _check(gate: Gate, method: Kind, headers: Mapping[str, str]) -> str:
    code = gate.answer(method, headers)
    if gate.held is not None:
        assert gate.held.wait(10.0)
    if code != "ok" and gate.after is None:
        raise _Refused(code)
    return code


# Over Connect.


def _method(kind: Kind) -> MethodInfo[StringValue, StringValue]:
    return MethodInfo(
        name=kind.capitalize(),
        service_name=SERVICE,
        input=StringValue,
        output=StringValue,
        idempotency_level=IdempotencyLevel.UNKNOWN,
    )


class EchoClient(ConnectClient):
    """As generated."""

    async def say(self, request: StringValue, **given: Any) -> StringValue:
        return await self.execute_unary(request=request, method=_method("say"), **given)

    def count(self, request: StringValue, **given: Any) -> AsyncIterator[StringValue]:
        return self.execute_server_stream(request=request, method=_method("count"), **given)

    async def collect(self, request: AsyncIterator[StringValue], **given: Any) -> StringValue:
        return await self.execute_client_stream(request=request, method=_method("collect"), **given)

    def chat(self, request: AsyncIterator[StringValue], **given: Any) -> AsyncIterator[StringValue]:
        return self.execute_bidi_stream(request=request, method=_method("chat"), **given)


class EchoClientSync(ConnectClientSync):
    """As generated."""

    def say(self, request: StringValue, **given: Any) -> StringValue:
        return self.execute_unary(request=request, method=_method("say"), **given)

    def count(self, request: StringValue, **given: Any) -> Iterator[StringValue]:
        return self.execute_server_stream(request=request, method=_method("count"), **given)

    def collect(self, request: Iterator[StringValue], **given: Any) -> StringValue:
        return self.execute_client_stream(request=request, method=_method("collect"), **given)

    def chat(self, request: Iterator[StringValue], **given: Any) -> Iterator[StringValue]:
        return self.execute_bidi_stream(request=request, method=_method("chat"), **given)


class _Echo:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def _check(self, method: Kind, ctx: Any) -> str:
        try:
            return _check(self._gate, method, ctx.request_headers())
        except _Refused as error:
            raise ConnectError(Code(error.code), "no") from None

    async def say(self, request: StringValue, ctx: Any) -> StringValue:
        self._check("say", ctx)
        return request

    async def count(self, request: StringValue, ctx: Any) -> AsyncIterator[StringValue]:
        code = self._check("count", ctx)
        try:
            for number in _numbers(self._gate, code, request.value):
                yield number
        except _Refused as error:
            raise ConnectError(Code(error.code), "no more") from None

    async def collect(self, request: AsyncIterator[StringValue], ctx: Any) -> StringValue:
        texts = [message.value async for message in request]
        self._check("collect", ctx)
        return _text(" ".join(texts))

    async def chat(
        self, request: AsyncIterator[StringValue], ctx: Any
    ) -> AsyncIterator[StringValue]:
        messages = [message async for message in request]
        self._check("chat", ctx)
        for message in messages:
            yield message


def application(gate: Gate) -> ConnectASGIApplication[_Echo]:
    class Application(ConnectASGIApplication[_Echo]):
        @property
        def path(self) -> str:
            return f"/{SERVICE}"

    def endpoints(echo: _Echo) -> Any:
        make: dict[Kind, Callable[..., Any]] = {
            "say": Endpoint.unary,
            "count": Endpoint.server_stream,
            "collect": Endpoint.client_stream,
            "chat": Endpoint.bidi_stream,
        }
        return {
            f"/{SERVICE}/{kind.capitalize()}": make[kind](
                method=_method(kind), function=getattr(echo, kind)
            )
            for kind in make
        }

    return Application(service=_Echo(gate), endpoints=endpoints)


@contextmanager
def asgi(app: Any, identity: Path | None = None) -> Iterator[int]:
    """*app* on a loopback port, on a thread of its own; over TLS with the key and the certificates
    in the file *identity*.
    """
    ready = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            ready.set()

    sockets = bind()
    config = uvicorn.Config(
        app,
        http="h11",
        lifespan="off",
        log_config=None,
        log_level="critical",
        ssl_certfile=identity,
        timeout_graceful_shutdown=1,
    )
    server = Server(config)
    thread = threading.Thread(target=server.run, args=(sockets,), daemon=True)
    thread.start()
    try:
        assert ready.wait(10.0)
        yield sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        for listener in sockets:
            listener.close()


@contextmanager
def connect_server(gate: Gate, identity: Path | None = None) -> Iterator[int]:
    with asgi(application(gate), identity) as port:
        yield port


# Over gRPC.


def _handlers(gate: Gate) -> grpc.GenericRpcHandler:
    def check(method: Kind, context: Any) -> str:
        try:
            return _check(gate, method, dict(context.invocation_metadata()))
        except _Refused as error:
            context.abort(getattr(grpc.StatusCode, error.code.upper()), "no")
            raise AssertionError("abort raises") from None

    def say(request: StringValue, context: Any) -> StringValue:
        check("say", context)
        return request

    def count(request: StringValue, context: Any) -> Iterator[StringValue]:
        context.add_callback(gate.over.set)
        code = check("count", context)
        try:
            yield from _numbers(gate, code, request.value)
        except _Refused as error:
            context.abort(getattr(grpc.StatusCode, error.code.upper()), "no more")

    def collect(requests: Iterator[StringValue], context: Any) -> StringValue:
        texts = [message.value for message in requests]
        check("collect", context)
        return _text(" ".join(texts))

    def chat(requests: Iterator[StringValue], context: Any) -> Iterator[StringValue]:
        messages = list(requests)
        check("chat", context)
        yield from messages

    codec: dict[str, Any] = {
        "request_deserializer": StringValue.FromString,
        "response_serializer": StringValue.SerializeToString,
    }
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Say": grpc.unary_unary_rpc_method_handler(say, **codec),
        "Count": grpc.unary_stream_rpc_method_handler(count, **codec),
        "Collect": grpc.stream_unary_rpc_method_handler(collect, **codec),
        "Chat": grpc.stream_stream_rpc_method_handler(chat, **codec),
    }
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


@contextmanager
def grpc_server(gate: Gate, credentials: grpc.ServerCredentials | None = None) -> Iterator[int]:
    with ThreadPoolExecutor(16) as pool:
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((_handlers(gate),))
        if credentials is None:
            port = server.add_insecure_port("localhost:0")
        else:
            port = server.add_secure_port("localhost:0", credentials)
        server.start()
        try:
            yield port
        finally:
            server.stop(None).wait()


class Stub:
    """As generated, for channels of both kinds."""

    def __init__(self, channel: Any) -> None:
        codec = {
            "request_serializer": StringValue.SerializeToString,
            "response_deserializer": StringValue.FromString,
        }
        self.say = channel.unary_unary(f"/{SERVICE}/Say", **codec)
        self.count = channel.unary_stream(f"/{SERVICE}/Count", **codec)
        self.collect = channel.stream_unary(f"/{SERVICE}/Collect", **codec)
        self.chat = channel.stream_stream(f"/{SERVICE}/Chat", **codec)


# Clients that look the same.


@frozen
class Library:
    """A library, with its synchronous or with its asynchronous clients."""

    name: Literal["connect", "grpc"]
    is_async: bool

    def server(self, gate: Gate) -> AbstractContextManager[int]:
        return connect_server(gate) if self.name == "connect" else grpc_server(gate)

    @asynccontextmanager
    async def client(self, session: Session, **arguments: Any) -> AsyncIterator[Echo]:
        """One with the credentials of *session*."""
        if self.is_async:
            async with self._open(session, **arguments) as client:
                yield Echo(self, client)
            return
        opening: Callable[[], Any] = partial(grpc_integration.channel, session, **arguments)
        if self.name == "connect":
            opening = partial(connect.client_sync, EchoClientSync, session, **arguments)
        opened: Any = await anyio.to_thread.run_sync(opening)
        made = await anyio.to_thread.run_sync(opened.__enter__)
        try:
            yield Echo(self, made if self.name == "connect" else Stub(made))
        finally:
            await anyio.to_thread.run_sync(opened.__exit__, None, None, None)

    @asynccontextmanager
    async def _open(self, session: Session, **arguments: Any) -> AsyncIterator[Any]:
        if self.name == "connect":
            async with connect.client(EchoClient, session, **arguments) as client:
                yield client
            return
        async with await grpc_integration.aio_channel(session, **arguments) as channel:
            yield Stub(channel)


@frozen
class Echo:
    """One client. Each kind of call returns the texts of its replies."""

    library: Library
    client: Any

    async def call(
        self,
        kind: Kind,
        *texts: str,
        on_reply: Callable[[str], None] = lambda text: None,
        requests: Iterable[str] | None = None,
        **given: Any,
    ) -> list[str]:
        """*requests* in place of *texts*; *on_reply* is told each reply as it comes."""
        name = "headers" if self.library.name == "connect" else "metadata"
        if "headers" in given:
            headers = given.pop("headers")
            given[name] = headers if name == "headers" else tuple(headers.items())
        if "timeout" in given and self.library.name == "connect":
            given["timeout_ms"] = int(1000 * given.pop("timeout"))
        source: Iterable[str] = texts if requests is None else requests
        if self.library.is_async:
            return await self._acall(kind, source, on_reply, given)
        function = partial(self._call, kind, source, on_reply, given)
        return await anyio.to_thread.run_sync(function, abandon_on_cancel=True)

    async def _acall(
        self, kind: Kind, texts: Iterable[str], on_reply: Callable[[str], None], given: Any
    ) -> list[str]:
        async def messages() -> AsyncIterator[StringValue]:
            for text in texts:
                yield _text(text)

        streams = kind in {"collect", "chat"}
        method = getattr(self.client, kind)
        request: Any = messages() if streams else _text(next(iter(texts), ""))
        if kind in {"say", "collect"}:
            reply = await method(request, **given)
            return [reply.value]
        replies: list[str] = []
        async for reply in method(request, **given):
            on_reply(reply.value)
            replies.append(reply.value)
        return replies

    def _call(
        self, kind: Kind, texts: Iterable[str], on_reply: Callable[[str], None], given: Any
    ) -> list[str]:
        streams = kind in {"collect", "chat"}
        method = getattr(self.client, kind)
        request: Any = map(_text, texts) if streams else _text(next(iter(texts), ""))
        if kind in {"say", "collect"}:
            return [method(request, **given).value]
        replies: list[str] = []
        for reply in method(request, **given):
            on_reply(reply.value)
            replies.append(reply.value)
        return replies


RPC_ERRORS = (ConnectError, grpc.RpcError)


def code_of(error: BaseException) -> str:
    """What either library calls it."""
    if isinstance(error, ConnectError):
        return str(error.code.value)
    assert isinstance(error, grpc.RpcError)
    return error.code().name.lower()
