"""The interceptors for the channels of grpc.aio, and the calls that they hand out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, cast

import grpc
import grpc.aio
from attrs import define, frozen

from ..errors import Error
from ._credentials import AsyncRequests, Credentials
from ._grpc_attempts import Attempts, Metadata, is_refusal

Continuation = Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]]


@frozen
class _Call:
    """A call that can be made more than once."""

    attempts: Attempts
    continuation: Continuation
    details: grpc.aio.ClientCallDetails

    async def begin(self, metadata: Metadata) -> Any:
        details = grpc.aio.ClientCallDetails(
            self.details.method,
            self.attempts.left,
            grpc.aio.Metadata(*metadata),
            self.details.credentials,
            self.details.wait_for_ready,
        )
        return await self.continuation(details, self.attempts.request)

    async def again(self) -> Any:
        """Another try; None if it would be in vain. Raises AioRpcError if the time is over, and
        what Session.headers raises.
        """
        with _deadline():
            metadata = await self.attempts.again()
        return None if metadata is None else await self.begin(metadata)


@contextmanager
def _deadline() -> Generator[None]:
    """A call's timeout is over: say it as grpc.aio does."""
    try:
        yield
    except TimeoutError:
        nothing = grpc.aio.Metadata()
        late = grpc.StatusCode.DEADLINE_EXCEEDED
        error = grpc.aio.AioRpcError(late, nothing, nothing, str(late.value[1]))
    else:
        return
    raise error


class _Attaching:
    def __init__(self, credentials: Credentials, authority: str) -> None:
        self._credentials = credentials
        self._authority = authority

    async def _begun(
        self, continuation: Continuation, details: grpc.aio.ClientCallDetails, request: Any
    ) -> tuple[_Call, Any]:
        attempts = Attempts(
            self._credentials, self._authority, cast("grpc.ClientCallDetails", details), request
        )
        call = _Call(attempts, continuation, details)
        with _deadline():
            metadata = await attempts.afirst()
        return call, await call.begin(metadata)


# grpc.aio takes an interceptor for calls of one kind only.


class UnaryUnary(_Attaching, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self,
        continuation: Continuation,
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        call, first = await self._begun(continuation, client_call_details, request)
        try:
            if not is_refusal(await first.code()) or not call.attempts.refused():
                return first
            second = await call.again()
        except Error as error:
            raise error from await _error_of(first)
        except asyncio.CancelledError:
            first.cancel()
            raise
        return first if second is None else second


class UnaryStream(_Attaching, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self,
        continuation: Continuation,
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        return _UnaryStreamCall(*await self._begun(continuation, client_call_details, request))


class StreamUnary(_Attaching, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self,
        continuation: Continuation,
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: Any,
    ) -> Any:
        requests = AsyncRequests(_aiter(request_iterator))
        return _StreamUnaryCall(*await self._begun(continuation, client_call_details, requests))


class StreamStream(_Attaching, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self,
        continuation: Continuation,
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: Any,
    ) -> Any:
        requests = AsyncRequests(_aiter(request_iterator))
        return _StreamStreamCall(*await self._begun(continuation, client_call_details, requests))


def _aiter(requests: Any) -> AsyncIterator[Any]:
    return aiter(requests) if hasattr(requests, "__aiter__") else _one_by_one(requests)


async def _one_by_one(requests: Iterable[Any]) -> AsyncIterator[Any]:
    for request in requests:
        yield request


async def _error_of(call: Any) -> grpc.aio.AioRpcError:
    """What a refused call raises to whoever awaits it."""
    return grpc.aio.AioRpcError(
        await call.code(),
        await call.initial_metadata(),
        await call.trailing_metadata(),
        await call.details(),
    )


# Calls. An interceptor must return its call before there is an end to it: what is written to a
# stream of requests waits for that. So these see to the second try themselves.


@define(eq=False)
class _Course:
    """How far a call has come. ``last`` is the try that counts."""

    first: Any
    last: Any
    may_repeat: bool = True
    repeats: bool = False
    cancelled: bool = False
    error: Error | grpc.aio.AioRpcError | None = None
    """What has come in place of a second try."""


async def _settle(course: _Course, call: _Call) -> None:
    """See to the second try, if there is to be one.

    A function, for grpc.aio looks at tasks whose ``self`` is a call.
    """
    if not is_refusal(await course.first.code()):
        return
    if not call.attempts.refused() or not course.may_repeat:
        return
    course.repeats = True
    try:
        second = await call.again()
    except (Error, grpc.aio.AioRpcError) as error:
        course.error = error
    else:
        course.last = course.first if second is None else second


class _Tried(grpc.aio.Call):
    """A call that is tried once more by itself. Whoever asks for its end waits for the last try."""

    def __init__(self, call: _Call, first: Any) -> None:
        self._course = _Course(first, first)
        self._settling = asyncio.get_running_loop().create_task(_settle(self._course, call))

    async def _settled(self) -> Any:
        """The try that counts."""
        await asyncio.wait((self._settling,))
        if not self._settling.cancelled():
            self._settling.result()
        return self._course.last

    async def _instead_of(self, refusal: grpc.aio.AioRpcError) -> Any:
        """The second try; raises what there is in place of it."""
        try:
            last = await self._settled()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._course.cancelled:
            raise asyncio.CancelledError
        if self._course.error is not None:
            raise self._course.error from refusal
        if last is self._course.first:
            raise refusal
        return last

    async def _messages(self) -> AsyncIterator[Any]:
        replies, refusal = aiter(self._course.first), None
        while not self._course.repeats:
            try:
                reply = await anext(replies)
            except StopAsyncIteration:
                return
            except grpc.aio.AioRpcError as error:
                refusal = error
                break
            # Once one is delivered there is no second try; and of a try that is repeated none is.
            if not self._course.repeats:
                self._course.may_repeat = False
                yield reply
        last = await (self._settled() if refusal is None else self._instead_of(refusal))
        async for reply in last:
            yield reply

    def cancel(self) -> bool:
        self._course.may_repeat = False
        if self._course.repeats and self._settling.cancel():
            self._course.cancelled = True
            return True
        return bool(self._course.last.cancel())

    def cancelled(self) -> bool:
        return self._course.cancelled or bool(self._course.last.cancelled())

    def done(self) -> bool:
        return self._settling.done() and bool(self._course.last.done())

    def time_remaining(self) -> Any:
        return self._course.last.time_remaining()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        def settled(_: object) -> None:
            self._course.last.add_done_callback(lambda _: callback(self))

        self._settling.add_done_callback(settled)

    async def initial_metadata(self) -> Any:
        first = self._course.first
        found = await first.initial_metadata()
        return await (await self._settled()).initial_metadata() if first.done() else found

    async def trailing_metadata(self) -> Any:
        return await (await self._settled()).trailing_metadata()

    async def code(self) -> Any:
        last = await self._settled()
        if self._course.cancelled:
            return grpc.StatusCode.CANCELLED
        error = self._course.error
        return error.code() if isinstance(error, grpc.aio.AioRpcError) else await last.code()

    async def details(self) -> Any:
        return await (await self._settled()).details()

    async def debug_error_string(self) -> Any:
        return await (await self._settled()).debug_error_string()

    async def wait_for_connection(self) -> None:
        try:
            await self._course.first.wait_for_connection()
        except grpc.aio.AioRpcError as refusal:
            await (await self._instead_of(refusal)).wait_for_connection()


class _Reading(_Tried):
    def __init__(self, call: _Call, first: Any) -> None:
        super().__init__(call, first)
        self._replies: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._replies is None:
            self._replies = self._messages()
        return self._replies

    async def read(self) -> Any:
        return await anext(aiter(self), grpc.aio.EOF)


class _Writing(_Tried):
    @property
    def _done_writing_flag(self) -> bool:
        """grpc.aio looks at it before it writes."""
        return bool(self._course.last._done_writing_flag)  # noqa: SLF001

    async def write(self, request: Any) -> None:
        await self._course.last.write(request)

    async def done_writing(self) -> None:
        await self._course.last.done_writing()


class _UnaryStreamCall(_Reading, grpc.aio.UnaryStreamCall):  # type: ignore[type-arg]
    """With any number of replies."""


class _StreamUnaryCall(_Writing, grpc.aio.StreamUnaryCall):  # type: ignore[type-arg]
    """With any number of requests."""

    def __await__(self) -> Generator[Any, None, Any]:
        return self._reply().__await__()

    async def _reply(self) -> Any:
        try:
            return await self._course.first
        except grpc.aio.AioRpcError as error:
            refusal = error
        return await (await self._instead_of(refusal))


class _StreamStreamCall(_Reading, _Writing, grpc.aio.StreamStreamCall):  # type: ignore[type-arg]
    """With any number of both."""
