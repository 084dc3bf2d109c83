"""The interceptor for grpcio's synchronous channels, and the calls that it hands out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextvars import copy_context
from functools import partial
from typing import Any
from weakref import ref

import grpc
from attrs import evolve, field, frozen

from ..errors import Error
from ..session import in_portal
from ._credentials import Credentials, Requests
from ._grpc_attempts import Attempts, Metadata, is_refusal

Continuation = Callable[[grpc.ClientCallDetails, Any], Any]


@frozen
class _Details(grpc.ClientCallDetails):
    method: str
    timeout: float | None
    metadata: Metadata = field(repr=False)
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


@frozen
class _Call:
    """A call that can be made more than once."""

    attempts: Attempts
    continuation: Continuation
    details: _Details

    def begin(self, metadata: Metadata) -> Any:
        details = evolve(self.details, metadata=metadata, timeout=self.attempts.left)
        return self.continuation(details, self.attempts.request)

    def renewed(self, refusal: Any) -> Metadata | None:
        """What to send in place of what *refusal* is about; None if there is nothing else. Blocks;
        raises TimeoutError, and, from *refusal*, what Session.headers raises.
        """
        try:
            return in_portal(self.attempts.again)
        except Error as error:
            raise error from refusal


class Interceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Attaches *credentials* to the calls of a channel to *authority*."""

    def __init__(self, credentials: Credentials, authority: str) -> None:
        self._credentials = credentials
        self._authority = authority

    def intercept_unary_unary(
        self, continuation: Continuation, client_call_details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        return self._one(continuation, client_call_details, request)

    def intercept_stream_unary(
        self,
        continuation: Continuation,
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Iterator[Any],
    ) -> Any:
        return self._one(continuation, client_call_details, Requests(iter(request_iterator)))

    def intercept_unary_stream(
        self, continuation: Continuation, client_call_details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        return _Replies(*self._begun(continuation, client_call_details, request))

    def intercept_stream_stream(
        self,
        continuation: Continuation,
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Iterator[Any],
    ) -> Any:
        requests = Requests(iter(request_iterator))
        return _Replies(*self._begun(continuation, client_call_details, requests))

    def _begun(
        self, continuation: Continuation, details: grpc.ClientCallDetails, request: Any
    ) -> tuple[_Call, Any]:
        attempts = Attempts(self._credentials, self._authority, details, request)
        fixed = _Details(
            details.method,
            details.timeout,
            (),
            details.credentials,
            getattr(details, "wait_for_ready", None),
            getattr(details, "compression", None),
        )
        call = _Call(attempts, continuation, fixed)
        try:
            metadata = attempts.first()
        except TimeoutError:
            return call, Ended(grpc.StatusCode.DEADLINE_EXCEEDED)
        return call, call.begin(metadata)

    def _one(
        self, continuation: Continuation, details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        call, first = self._begun(continuation, details, request)
        if first.done() and not is_refusal(first.code()):  # as nearly always, if it is not a future
            return first
        return _Reply(call, first)


class _Reply(grpc.Call, grpc.Future):  # type: ignore[type-arg]  # of whatever message
    """A call that is tried once more by itself. Whoever asks for its end waits for the last try.

    The second begins on a thread of its own, for that takes time which the first one's has not.
    """

    def __init__(self, call: _Call, first: Any) -> None:
        self._try = call
        self._first = first
        self._context = copy_context()  # the caller's, for what it says of credentials
        self._lock = threading.Lock()
        self._may_repeat = True
        self._repeats = False
        self._last: Future[Any] = Future()
        """The try that counts, once that is known."""
        # grpcio cancels a call that nobody holds any more, so this must not hold it.
        if not _will_tell(first, partial(_is_over, ref(self))):
            self._first_is_over()

    def _first_is_over(self) -> None:
        again = is_refusal(self._first.code()) and self._try.attempts.refused()
        with self._lock:
            again = again and self._may_repeat
            self._may_repeat = False
            self._repeats = again
        if again:
            name = "flyteauth second try"
            target = partial(self._context.run, self._second)
            threading.Thread(target=target, name=name, daemon=True).start()
        else:
            self._settle(self._first)

    def _second(self) -> None:
        try:
            metadata = self._try.renewed(self._first)
            if metadata is None:
                self._settle(self._first)
            elif not self._last.done():  # as it is where the call was cancelled
                self._settle(self._try.begin(metadata))
        except TimeoutError:
            self._settle(Ended(grpc.StatusCode.DEADLINE_EXCEEDED))
        except BaseException as error:  # noqa: BLE001  # whatever it is, the caller gets it
            self._settle(self._first, error)

    def _settle(self, last: Any, error: BaseException | None = None) -> bool:
        """Whether this came first. It calls who waits for it, so no lock is held."""
        try:
            if error is None:
                self._last.set_result(last)
            else:
                self._last.set_exception(error)
        except InvalidStateError:  # cancelled meanwhile
            last.cancel()
            return False
        return True

    def _settled(self, timeout: float | None = None) -> Any:
        """The try that counts; raises what has come in its place."""
        try:
            return self._last.result(timeout)
        except TimeoutError:
            raise grpc.FutureTimeoutError from None

    def _known(self) -> Any:
        """The same; without one, the refusal."""
        try:
            return self._settled()
        except Error:
            return self._first

    # grpc.Call

    def code(self) -> Any:
        return self._known().code()

    def details(self) -> Any:
        return self._known().details()

    def initial_metadata(self) -> Any:
        found = self._first.initial_metadata()
        return self._known().initial_metadata() if self._first.done() else found

    def trailing_metadata(self) -> Any:
        return self._known().trailing_metadata()

    def is_active(self) -> bool:
        return not self.done()

    def time_remaining(self) -> Any:
        return self._try.attempts.left

    def add_callback(self, callback: Callable[[], None]) -> bool:
        if self.done():
            return False
        self.add_done_callback(lambda _: callback())
        return True

    # grpc.Future

    def cancel(self) -> bool:
        with self._lock:
            self._may_repeat = False
            repeats = self._repeats
        if repeats and self._settle(Ended(grpc.StatusCode.CANCELLED)):
            return True
        return bool((self._known() if self._last.done() else self._first).cancel())

    def cancelled(self) -> bool:
        return self._last.done() and bool(self._known().cancelled())

    def running(self) -> bool:
        return not self.done()

    def done(self) -> bool:
        if not self._last.done():
            return False
        return self._last.exception() is not None or bool(self._last.result().done())

    def result(self, timeout: float | None = None) -> Any:
        begun = time.monotonic()
        return self._settled(timeout).result(_left(timeout, begun))

    def exception(self, timeout: float | None = None) -> Any:
        begun = time.monotonic()
        try:
            last = self._settled(timeout)
        except Error as error:
            return error
        return last.exception(_left(timeout, begun))

    def traceback(self, timeout: float | None = None) -> Any:
        begun = time.monotonic()
        try:
            last = self._settled(timeout)
        except Error as error:
            return error.__traceback__
        return last.traceback(_left(timeout, begun))

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        def settled(last: Future[Any]) -> None:
            ended = partial(fn, self)
            if last.exception() is not None or not _will_tell(last.result(), ended):
                ended()

        _will_tell(self._first, partial(_kept, self))
        self._last.add_done_callback(settled)


class _Replies(_Reply):
    """The same of a call with any number of replies. Once one of them is delivered, there is no
    second try; and of a try that is repeated none is.
    """

    def __init__(self, call: _Call, first: Any) -> None:
        self._reading = first
        super().__init__(call, first)

    def __iter__(self) -> _Replies:
        return self

    def __next__(self) -> Any:
        if self._reading is self._first:
            try:
                reply = next(self._first)
            except grpc.RpcError:
                last = self._settled()
                if last is self._first:
                    raise
                self._reading = last
            else:
                with self._lock:
                    self._may_repeat = False
                    delivered = not self._repeats
                if delivered:
                    return reply
                self._reading = self._settled()
        return next(self._reading)


class Ended(grpc.RpcError, grpc.Call, grpc.Future):  # type: ignore[type-arg]
    """A call that came to its end here and not at a server, as grpcio would show it."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code.value[1])
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return str(self._code.value[1])

    def initial_metadata(self) -> Any:
        return ()

    def trailing_metadata(self) -> Any:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> Any:
        return None

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return self._code is grpc.StatusCode.CANCELLED

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> Any:
        raise self.exception()

    def exception(self, timeout: float | None = None) -> Any:
        if self.cancelled():
            raise grpc.FutureCancelledError
        return self

    def traceback(self, timeout: float | None = None) -> Any:
        return self.exception().__traceback__

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        fn(self)

    def __iter__(self) -> Ended:
        return self

    def __next__(self) -> Any:
        raise self


def _is_over(reply: ref[_Reply]) -> None:
    if (held := reply()) is not None:
        held._first_is_over()  # noqa: SLF001


def _kept(reply: _Reply) -> None:
    """Whoever wants to be told of the end need not hold the call."""


def _will_tell(call: Any, callback: Callable[[], None]) -> bool:
    """Whether *call* will call *callback* at its end: not if that has come."""
    return not call.done() and bool(call.add_callback(callback))


def _left(timeout: float | None, begun: float) -> float | None:
    return None if timeout is None else max(0.0, timeout - (time.monotonic() - begun))
