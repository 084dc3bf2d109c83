"""A session's credentials on the calls of grpcio: what is gRPC's own about them."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import grpc
import grpc.aio
import pytest
import trustme
from google.protobuf.wrappers_pb2 import StringValue

from flyteauth import SyncSession
from flyteauth.errors import ConfigError, ReauthRequired, Unreachable
from flyteauth.integrations import grpc as integration
from flyteauth.integrations._grpc_sync import Ended
from flyteauth.integrations.grpc import (
    aio_channel,
    aio_interceptors,
    call_credentials,
    channel,
    interceptors,
)
from flyteauth.session import Session
from tests.concurrency import all_at_once

from .plane import Plane
from .rpc import Gate, Stub, grpc_server
from .test_cancellation import Counted, Places, cancelling

pytestmark = pytest.mark.anyio

LIMIT = 20.0
CALLS = 1000
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
OK = grpc.StatusCode.OK
CANCELLED = grpc.StatusCode.CANCELLED


@pytest.fixture
def anyio_backend() -> str:
    """All that grpc.aio knows; what is synchronous, tests/integration/test_rpc.py has on trio."""
    return "asyncio"


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def endpoint(gate: Gate) -> Iterator[str]:
    with grpc_server(gate) as port:
        yield f"http://localhost:{port}"


@pytest.fixture
def plane(gate: Gate, endpoint: str) -> Plane:
    gate.plane = Plane(base_url=endpoint)
    return gate.plane


@pytest.fixture
async def session(plane: Plane, endpoint: str) -> AsyncIterator[Session]:
    async with plane.session("ClientSecret", endpoint=endpoint) as session:
        await session.headers()
        yield session


@pytest.fixture
async def stub(session: Session) -> AsyncIterator[Stub]:
    """Of an asynchronous channel, whose token the server has just refused."""
    async with await aio_channel(session) as made:
        yield Stub(made)


def text(value: str = "a") -> StringValue:
    return StringValue(value=value)


def target(endpoint: str) -> str:
    return endpoint.removeprefix("http://")


async def refuse(gate: Gate, session: Session) -> None:
    """The token in hand is not good any more."""
    headers = await session.headers()
    gate.refused.add(headers["authorization"].removeprefix("Bearer "))


class Held:
    """Token requests of *plane* wait until they are let go."""

    def __init__(self, plane: Plane) -> None:
        self.waits = threading.Event()
        self._go = threading.Event()
        plane.before = self._before

    async def _before(self, name: str) -> None:
        if name == "client_credentials":
            self.waits.set()
            await anyio.to_thread.run_sync(self._go.wait, LIMIT)

    def let_go(self) -> None:
        self._go.set()


# When a token expires.


async def test_a_thousand_calls_when_the_token_expires_share_a_renewal_and_none_fails(
    gate: Gate, plane: Plane, session: Session, stub: Stub
) -> None:
    await stub.say(text())
    gate.seen.clear()
    plane.asked.clear()
    plane.clock.now += 3600.0
    turns = anyio.Semaphore(64)
    numbers = iter(range(CALLS))

    async def call() -> object:
        async with turns:
            if next(numbers) % 2:
                return (await stub.say(text())).value
            return [reply.value async for reply in stub.count(text("2"))]

    with anyio.fail_after(6 * LIMIT):
        outcomes = await all_at_once(CALLS, call)
    assert [outcomes.count("a"), outcomes.count(["0", "1"])] == [CALLS / 2, CALLS / 2]
    assert gate.count() == {"ok": CALLS}
    assert plane.asked == {"client_credentials": 1}


# Futures and streams of the synchronous API.


def in_thread(function: Callable[[], Any]) -> Any:
    return anyio.to_thread.run_sync(function)


async def test_a_future_that_is_refused_comes_true_with_the_second_try(
    gate: Gate, plane: Plane, session: Session
) -> None:
    await refuse(gate, session)

    def calls() -> None:
        with channel(session) as made:
            stub, done = Stub(made), threading.Event()
            ends: list[Any] = []
            for method, request in ((stub.say, text()), (stub.collect, iter([text()]))):
                future = method.future(request, timeout=LIMIT)
                done.clear()
                future.add_done_callback(ends.append)
                assert future.add_callback(done.set) or future.done()
                assert future.result(LIMIT).value == "a"
                assert future.done() or done.wait(LIMIT)
                assert (future.code(), future.details(), future.exception()) == (OK, "", None)
                assert (future.done(), future.running(), future.cancelled()) == (True, False, False)
                assert not future.is_active()
                assert ends.pop() is future
                assert future.traceback() is None
                assert not future.add_callback(done.set)
                assert not future.cancel()
                assert future.initial_metadata() is not None
                assert future.trailing_metadata() is not None

    await in_thread(calls)
    assert gate.codes == ["unauthenticated", "ok", "ok"]
    assert plane.asked["client_credentials"] == 2


async def test_a_future_is_not_waited_for_by_whoever_makes_it(
    gate: Gate, plane: Plane, session: Session
) -> None:
    """Not even while a renewal takes its time."""
    await refuse(gate, session)
    held = Held(plane)

    def calls() -> None:
        with channel(session) as made:
            future = Stub(made).say.future(text())
            assert held.waits.wait(LIMIT)
            assert not future.done()
            assert future.running()
            assert future.is_active()
            with pytest.raises(grpc.FutureTimeoutError):
                future.result(0.01)
            with pytest.raises(grpc.FutureTimeoutError):
                future.exception(0.01)
            with pytest.raises(grpc.FutureTimeoutError):
                future.traceback(0.01)
            held.let_go()
            assert future.result(LIMIT).value == "a"

    await in_thread(calls)


@pytest.mark.parametrize("kind", ["say", "count"])
async def test_a_call_that_is_cancelled_between_its_tries_has_ended(
    gate: Gate, plane: Plane, session: Session, kind: str
) -> None:
    await refuse(gate, session)
    held = Held(plane)

    def calls() -> None:
        with channel(session) as made:
            stub, done = Stub(made), threading.Event()
            call = stub.say.future(text()) if kind == "say" else stub.count(text("2"))
            assert call.add_callback(done.set)
            call.add_done_callback(lambda end: end.cancel())  # nothing is held meanwhile
            assert held.waits.wait(LIMIT)
            assert call.cancel()
            assert done.wait(LIMIT)
            assert (call.code(), call.cancelled(), call.done()) == (CANCELLED, True, True)
            with pytest.raises(grpc.FutureCancelledError):
                call.result()
            with pytest.raises(grpc.FutureCancelledError):
                call.exception()
            if kind == "count":
                with pytest.raises(grpc.RpcError) as caught:
                    next(call)
                assert caught.value.code() is CANCELLED
            held.let_go()
            assert stub.say(text()).value == "a"

    await in_thread(calls)
    assert gate.codes == ["unauthenticated", "ok"]


async def test_a_stream_keeps_the_interface_of_a_call(
    gate: Gate, plane: Plane, session: Session
) -> None:
    await refuse(gate, session)

    def calls() -> None:
        with channel(session) as made:
            replies = Stub(made).count(text("3"), timeout=LIMIT)
            assert replies.initial_metadata() is not None
            assert 0 < replies.time_remaining() <= LIMIT
            assert next(replies).value == "0"
            assert replies.is_active()
            assert [reply.value for reply in replies] == ["1", "2"]
            assert (replies.code(), replies.details()) == (OK, "")
            assert not replies.add_callback(lambda: None)
            one = Stub(made).count(text("3"))
            next(one)
            assert one.cancel()
            assert one.code() is CANCELLED
            with pytest.raises(grpc.RpcError):
                next(one)

    await in_thread(calls)
    assert gate.codes == ["unauthenticated", "ok", "ok"]


async def test_a_stream_that_nobody_holds_any_more_is_cancelled(
    gate: Gate, session: Session
) -> None:
    """As grpcio does by itself; grpc.aio does not."""

    def calls() -> None:
        with channel(session) as made:
            replies = Stub(made).count(text("1000000"))
            assert next(replies).value == "0"
            assert not gate.over.is_set()
            del replies
            gc.collect()
            assert gate.over.wait(LIMIT)

    await in_thread(calls)


async def test_whoever_is_told_of_an_end_need_not_hold_the_call(
    gate: Gate, session: Session
) -> None:
    await refuse(gate, session)

    def calls() -> None:
        ends: list[Any] = []
        told = threading.Event()
        with channel(session) as made:
            future = Stub(made).say.future(text())
            future.add_done_callback(ends.append)
            future.add_callback(told.set)
            del future
            gc.collect()
            assert told.wait(LIMIT)
            assert ends[0].result().value == "a"

    await in_thread(calls)


@pytest.mark.parametrize("kind", ["say", "future", "count"])
async def test_a_renewal_that_fails_is_what_the_call_comes_to(
    gate: Gate, plane: Plane, session: Session, kind: str
) -> None:
    await refuse(gate, session)

    async def away(name: str) -> Any:
        return plane.down()

    plane.before = away

    def calls() -> None:
        with channel(session) as made:
            stub = Stub(made)
            if kind == "say":
                with pytest.raises(Unreachable) as caught:
                    stub.say(text())
                assert isinstance(caught.value.__cause__, grpc.RpcError)
                return
            call = stub.say.future(text()) if kind == "future" else stub.count(text("2"))
            with pytest.raises(Unreachable) as caught:
                next(call) if kind == "count" else call.result()
            assert isinstance(caught.value.__cause__, grpc.RpcError)
            assert call.exception() is caught.value
            assert call.traceback() is not None
            assert (call.code(), call.details()) == (UNAUTHENTICATED, "no")
            assert call.done()

    await in_thread(calls)


class Refusing(
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
    grpc.UnaryUnaryClientInterceptor,
):
    """Refuses a first call before any of its requests is asked for."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def _pass(self, continuation: Any, details: Any, request: Any) -> Any:
        self.calls[details.method] += 1
        if self.calls[details.method] == 1:
            return Ended(UNAUTHENTICATED)
        return continuation(details, request)

    def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return self._pass(continuation, client_call_details, request)

    def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return self._pass(continuation, client_call_details, request_iterator)

    def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return self._pass(continuation, client_call_details, request_iterator)


async def test_requests_that_nobody_has_asked_for_are_sent_with_the_second_try(
    gate: Gate, plane: Plane, session: Session, endpoint: str
) -> None:
    def calls() -> None:
        inner = Refusing()
        with grpc.insecure_channel(target(endpoint)) as plain:
            mine = interceptors(SyncSession(of=session), target=target(endpoint))
            stub = Stub(grpc.intercept_channel(plain, *mine, inner))
            assert stub.say(text()).value == "a"
            plane.clock.now += 61.0
            assert stub.collect(iter([text("a"), text("b")])).value == "a b"
            plane.clock.now += 61.0
            assert [reply.value for reply in stub.chat(iter([text("a")]))] == ["a"]
        assert set(inner.calls.values()) == {2}

    await in_thread(calls)
    assert (gate.codes, plane.asked["client_credentials"]) == (["ok"] * 3, 4)


async def test_a_synchronous_channel_works_where_a_loop_runs(gate: Gate, session: Session) -> None:
    """As in a notebook; its loop waits meanwhile."""
    await refuse(gate, session)
    with channel(session) as made:
        assert Stub(made).say(text()).value == "a"
    assert gate.codes == ["unauthenticated", "ok"]


# Calls of grpc.aio.


async def test_a_call_of_aio_keeps_its_interface(gate: Gate, session: Session, stub: Stub) -> None:
    await refuse(gate, session)
    ends: list[Any] = []
    replies = stub.count(text("2"), timeout=LIMIT)
    replies.add_done_callback(ends.append)
    await replies.wait_for_connection()
    assert await replies.initial_metadata() is not None
    assert [reply.value async for reply in replies] == ["0", "1"]
    assert (await replies.code(), await replies.details()) == (OK, "")
    assert await replies.trailing_metadata() is not None
    assert await replies.debug_error_string() is not None
    assert (replies.done(), replies.cancelled()) == (True, False)
    await asyncio.sleep(0)
    assert ends == [replies]
    assert gate.codes == ["unauthenticated", "ok"]


async def test_a_stream_of_aio_can_be_read_and_written_to(
    gate: Gate, plane: Plane, session: Session, stub: Stub
) -> None:
    one = stub.collect()
    await one.write(text("a"))
    await one.write(text("b"))
    await one.done_writing()
    assert (await one).value == "a b"
    other = stub.chat()
    await other.write(text("a"))
    await other.done_writing()
    assert (await other.read()).value == "a"
    assert await other.read() is grpc.aio.EOF
    await refuse(gate, session)
    replies = stub.count(text("1"))
    assert (await replies.read()).value == "0"
    assert await replies.read() is grpc.aio.EOF
    assert gate.codes == ["ok", "ok", "unauthenticated", "ok"]


async def test_requests_of_any_iterable_are_sent(gate: Gate, stub: Stub) -> None:
    assert (await stub.collect([text("a"), text("b")])).value == "a b"
    assert [reply.value async for reply in stub.chat(iter([text("a")]))] == ["a"]
    assert gate.codes == ["ok", "ok"]


@pytest.mark.parametrize("kind", ["say", "count"])
async def test_a_call_of_aio_that_is_cancelled_between_its_tries_has_ended(
    gate: Gate, plane: Plane, session: Session, stub: Stub, kind: str
) -> None:
    await refuse(gate, session)
    held = Held(plane)
    call = stub.say(text()) if kind == "say" else stub.count(text("2"))

    async def drive() -> object:
        return await (call if kind == "say" else anext(aiter(call)))

    task = asyncio.create_task(drive())
    await anyio.to_thread.run_sync(held.waits.wait, LIMIT)
    assert not call.done()
    assert call.cancel()
    with anyio.fail_after(LIMIT), pytest.raises(asyncio.CancelledError):
        await task
    assert call.cancelled()
    assert await call.code() is CANCELLED
    held.let_go()
    assert (await stub.say(text())).value == "a"
    assert gate.codes == ["unauthenticated", "ok"]


async def _no_requests() -> AsyncIterator[StringValue]:
    for request in list[StringValue]():
        yield request


@pytest.mark.parametrize("kind", ["say", "count", "collect"])
async def test_a_renewal_that_fails_is_what_a_call_of_aio_comes_to(
    gate: Gate, plane: Plane, session: Session, endpoint: str, kind: str
) -> None:
    async def away(name: str) -> Any:
        return plane.down()

    class Refuses(grpc.aio.StreamUnaryClientInterceptor):
        """Before any request is asked for."""

        async def intercept_stream_unary(
            self, continuation: Any, client_call_details: Any, request_iterator: Any
        ) -> Any:
            return await continuation(client_call_details, _no_requests())

    await refuse(gate, session)
    mine = aio_interceptors(session, target=target(endpoint))
    async with grpc.aio.insecure_channel(target(endpoint), interceptors=[*mine, Refuses()]) as made:
        stub = Stub(made)
        plane.before = away
        calls: dict[str, Callable[[], Any]] = {
            "say": lambda: stub.say(text()),
            "count": lambda: anext(aiter(stub.count(text("2")))),
            "collect": lambda: stub.collect(iter([text()])),
        }
        with pytest.raises(Unreachable) as caught:
            await calls[kind]()
        assert isinstance(caught.value.__cause__, grpc.RpcError)
        plane.before = None
        plane.clock.now += 61.0
        if kind == "collect":
            assert (await stub.collect(iter([text()]))).value == ""
        else:
            assert (await stub.say(text())).value == "a"


@pytest.mark.req("REF-13", "CLK-07")
@pytest.mark.parametrize("kind", ["say", "count"])
@pytest.mark.parametrize("state", ["first", "expired", "refused"])
async def test_a_call_can_be_cancelled_wherever_it_waits_and_leaves_no_task(
    gate: Gate, endpoint: str, kind: str, state: str
) -> None:
    """By asyncio's own means; grpc.aio by itself hides from anyio whose cancellation it was."""
    at, more = 0, True
    while more:
        gate.plane = plane = Plane(base_url=endpoint)
        gate.refused.clear()
        places = Places()
        async with plane.session("ClientSecret", endpoint=endpoint) as session:
            mine = aio_interceptors(session, target=target(endpoint))
            async with grpc.aio.insecure_channel(target(endpoint), interceptors=mine) as made:
                stub = Stub(made)

                async def call(stub: Stub = stub) -> object:
                    if kind == "say":
                        return await stub.say(text())
                    return [reply async for reply in stub.count(text("2"))]

                if state != "first":
                    await call()
                if state == "expired":
                    plane.clock.now += 3600.0
                elif state == "refused":
                    gate.refuse_last()
                before = asyncio.all_tasks()
                places.at = at
                await cancelling("task", Counted(call(), places), places)
                more = places.count > at
                await call()
                with anyio.fail_after(LIMIT):  # a task that is cancelled has one more turn
                    while any(_is_ours(task) for task in asyncio.all_tasks() - before):
                        await anyio.lowlevel.checkpoint()
        assert plane.asked["client_credentials"] <= 2
        at += 1
    assert at >= 2


def _is_ours(task: asyncio.Task[Any]) -> bool:
    return "_settle" in repr(task.get_coro())


# Call credentials.


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(gate: Gate, authority: trustme.CA) -> Iterator[str]:
    issued = authority.issue_cert("localhost")
    chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])
    with grpc_server(gate, credentials) as port:
        gate.plane = Plane(base_url=f"https://localhost:{port}")
        yield f"localhost:{port}"


def trusting(authority: trustme.CA, of: grpc.CallCredentials) -> grpc.ChannelCredentials:
    tls = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    return grpc.composite_channel_credentials(tls, of)


async def test_call_credentials_attach_what_is_good_at_the_time_of_the_call(
    gate: Gate, secure: str, authority: trustme.CA
) -> None:
    plane = gate.plane
    assert plane is not None
    async with plane.session("ClientSecret", endpoint=f"https://{secure}") as session:
        credentials = trusting(authority, call_credentials(session))

        def calls() -> None:
            with grpc.secure_channel(secure, credentials) as made:
                stub = Stub(made)
                assert stub.say(text()).value == "a"
                assert [reply.value for reply in stub.count(text("1"))] == ["0"]
                plane.clock.now += 3600.0
                assert stub.collect(iter([text()])).value == "a"

        await in_thread(calls)
        async with grpc.aio.secure_channel(secure, credentials) as made:
            assert (await Stub(made).say(text())).value == "a"
    assert (gate.codes, plane.asked["client_credentials"]) == (["ok"] * 4, 2)


async def test_call_credentials_go_nowhere_else(
    gate: Gate, secure: str, authority: trustme.CA
) -> None:
    plane = gate.plane
    assert plane is not None
    client_id, client_secret = plane.plane.service_client
    service = {"client_id": client_id, "client_secret": client_secret}
    async with plane.session(None, endpoint="https://localhost:1", **service) as session:
        credentials = trusting(authority, call_credentials(session))
        async with grpc.aio.secure_channel(secure, credentials) as made:
            with pytest.raises(grpc.RpcError) as caught:
                await Stub(made).say(text())
        assert "origins=" in (caught.value.details() or "")
        assert gate.seen == []
        allowed = call_credentials(session, origins=[f"https://{secure}"])
        async with grpc.aio.secure_channel(secure, trusting(authority, allowed)) as made:
            assert (await Stub(made).say(text())).value == "a"


async def test_call_credentials_say_why_there_are_none(
    gate: Gate, secure: str, authority: trustme.CA
) -> None:
    assert gate.plane is not None
    async with gate.plane.session(endpoint=f"https://{secure}") as session:
        credentials = trusting(authority, call_credentials(session))
        async with grpc.aio.secure_channel(secure, credentials) as made:
            with pytest.raises(grpc.RpcError) as caught:
                await Stub(made).say(text())
    assert "flyteauth login" in (caught.value.details() or "")
    assert gate.seen == []


# Channels.


async def test_a_channel_over_tls_trusts_what_the_session_trusts(
    gate: Gate, secure: str, authority: trustme.CA, tmp_path: Path
) -> None:
    plane, ca_file = gate.plane, tmp_path / "ca.pem"
    assert plane is not None
    authority.cert_pem.write_to_path(ca_file)
    endpoint = f"https://{secure}"
    async with plane.session("ClientSecret", endpoint=endpoint, ca_file=ca_file) as session:
        async with await aio_channel(session) as made:
            assert (await Stub(made).say(text())).value == "a"
            gate.refuse_last()
            assert [reply.value async for reply in Stub(made).count(text("1"))] == ["0"]

        def calls() -> None:
            with channel(session) as made:
                assert Stub(made).say(text()).value == "a"

        await in_thread(calls)
    assert gate.codes == ["ok", "unauthenticated", "ok", "ok"]
    async with (
        plane.session("ClientSecret", endpoint=endpoint) as session,
        await aio_channel(session) as made,
    ):
        with pytest.raises(grpc.RpcError) as caught:
            await Stub(made).say(text(), timeout=LIMIT)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert len(gate.seen) == 4


async def test_the_environments_proxy_is_not_for_this_machine(
    gate: Gate, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://localhost:9")
    async with await aio_channel(session) as made:
        assert (await Stub(made).say(text())).value == "a"


async def test_certificates_are_never_left_unchecked() -> None:
    of = Plane()
    async with of.session(endpoint="https://localhost:1", insecure_skip_verify=True) as session:
        with pytest.raises(ConfigError, match="caCertFilePath"):
            await aio_channel(session)
        with pytest.raises(ConfigError, match="caCertFilePath"):
            await in_thread(lambda: channel(session))


async def test_interceptors_of_the_callers_own_see_calls_without_credentials(
    gate: Gate, session: Session
) -> None:
    seen: list[Any] = []

    class Mine(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(
            self, continuation: Any, client_call_details: Any, request: Any
        ) -> Any:
            seen.extend(client_call_details.metadata or ())
            return await continuation(client_call_details, request)

    async with await aio_channel(session, interceptors=[Mine()]) as made:
        assert (await Stub(made).say(text())).value == "a"
    assert seen == []
    assert gate.codes == ["ok"]


@pytest.mark.parametrize(
    ("target", "good"),
    [
        ("flyte.example.com", True),
        ("flyte.example.com:443", True),
        ("dns:///flyte.example.com:443", True),
        ("dns:flyte.example.com", True),
        ("also.example:8443", True),
        ("flyte.example.com:80", False),
        ("flyte.example.com.evil.example", False),
        ("dns://192.0.2.1/flyte.example.com", None),
        ("flyte.example.com:443@evil.example", None),
        ("unix:/flyte.example.com:443", None),
        ("ipv4:192.0.2.1:443", None),
        ("[::1", None),
        ("[::1]", False),
        ("", None),
    ],
)
async def test_only_the_endpoint_and_named_origins_get_credentials(
    target: str, good: bool | None
) -> None:
    """None: it is not even an address."""
    origins = ["https://also.example:8443"]
    plane = Plane(base_url="https://flyte.example.com")
    async with plane.session("ClientSecret", endpoint="flyte.example.com") as session:
        if good is None:
            with pytest.raises(ConfigError) as caught:
                interceptors(session, target=target, origins=origins)
            assert caught.value.reason == "target"
            with pytest.raises(ConfigError):
                aio_interceptors(session, target=target, origins=origins)
            return
        (mine,) = interceptors(session, target=target, origins=origins)
        details = grpc.aio.ClientCallDetails("/a/B", None, None, None, None)
        sent: list[Any] = []

        def network(details: Any, request: Any) -> Any:
            sent.extend(details.metadata)
            return Ended(grpc.StatusCode.UNAVAILABLE)

        def call() -> None:
            mine.intercept_unary_unary(network, details, None)  # type: ignore[arg-type]

        if good:
            await in_thread(call)
            assert sent == list((await session.headers()).items())
        else:
            with pytest.raises(ConfigError) as caught:
                await in_thread(call)
            assert (caught.value.reason, sent) == ("origins", [])


async def test_a_login_that_is_over_fails_futures_and_streams_as_they_are_used(
    gate: Gate, plane: Plane, endpoint: str
) -> None:
    async with plane.session(endpoint=endpoint) as session:
        await session.login()
        await session.logout()

        def calls() -> None:
            with channel(session) as made:
                stub = Stub(made)
                with pytest.raises(ReauthRequired):
                    stub.say.future(text()).result()
                with pytest.raises(ReauthRequired):
                    next(stub.count(text("1")))

        await in_thread(calls)
    assert gate.seen == []


def test_without_the_library_the_import_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['grpc'] = None\n"
        "try:\n    import flyteauth.integrations.grpc\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install 'flyteauth[grpc]'" in done.stdout


def test_the_names_are_there_and_no_others() -> None:
    assert integration.__all__ == sorted(integration.__all__)
    for name in integration.__all__:
        assert getattr(integration, name).__doc__
