"""The credential of a proxy: one run for all, renewed in time, and never mixed up with a login."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from flyteauth._io import command as commands
from flyteauth._io.proxy_credential import RETRY_AFTER, Proxied, ProxyCredential, is_refusal
from flyteauth._io.transport import HttpxTransport
from flyteauth._sansio.errors import ConfigError, InvalidResponse, Unreachable
from flyteauth._sansio.flow import RequestFailed, ResponseReceived
from flyteauth._sansio.http import Request, Response, post_form
from tests.concurrency import all_at_once

from .server import answering, reply, serve
from .test_browser import BOUND, Line
from .test_command import nothing_left, nothing_left_later

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.name != "posix", reason="the commands here are POSIX scripts"),
]

ISSUED = 3600.0


class Clock:
    """Goes only where a test sets it."""

    def __init__(self) -> None:
        self.at = 1_700_000_000.0

    def time(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep_until(self, deadline: float) -> None:
        raise NotImplementedError


class Helper:
    """A command that counts its runs, and prints what it is told to: by default ``token-<run>``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.answer = 'echo "token-$run"'
        self.line = Line(directory / "line")
        self.clock = Clock()

    def credential(self, **options: Any) -> ProxyCredential:
        script = (
            f"cd {self.directory}; echo run >>runs; run=$(($(wc -l <runs))); . ./answer; exit $?"
        )
        argv = ("/bin/sh", "-c", script)
        return ProxyCredential(argv, clock=self.clock, **options)

    @property
    def answer(self) -> str:
        return (self.directory / "answer").read_text()

    @answer.setter
    def answer(self, script: str) -> None:
        (self.directory / "answer").write_text(script)

    def expiring(self, seconds: float = ISSUED) -> None:
        body = {"token": "token-RUN", "expires_at": self.clock.at + seconds}
        self.answer = f"echo '{json.dumps(body)}' | sed s/RUN/$run/"

    def staying(self) -> None:
        """Run until somebody creates ``go``."""
        self.answer = (
            "exec 3>line; echo $$ >&3; while ! [ -e go ]; do sleep 0.01; done; "
            'exec 3>&-; echo "token-$run"'
        )

    def go(self) -> None:
        (self.directory / "go").touch()

    @property
    def runs(self) -> int:
        path = self.directory / "runs"
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Helper]:
    monkeypatch.setattr(commands, "KILL_GRACE", BOUND)
    helper = Helper(tmp_path)
    yield helper
    helper.line.close()


async def over(credential: ProxyCredential) -> None:
    """Wait for a run that nobody waits for."""
    running = credential._round
    assert running is not None
    with anyio.fail_after(BOUND), suppress(Unreachable):
        await running.work.wait()


# The credential.


@pytest.mark.req("BRR-12")
async def test_the_command_is_run_once_and_remembered(helper: Helper) -> None:
    credential = helper.credential()
    assert credential.cached(helper.clock.at) is None
    async with nothing_left():
        assert await credential.header() == "Bearer token-1"
        assert await credential.header() == "Bearer token-1"
    assert credential.cached(helper.clock.at) == ("Bearer token-1", math.inf)
    assert helper.runs == 1
    assert "token" not in repr(credential)


async def test_before_it_expires_it_is_renewed_while_it_is_still_used(helper: Helper) -> None:
    helper.expiring()
    credential = helper.credential()
    assert await credential.header() == "Bearer token-1"
    cached = credential.cached(helper.clock.at)
    assert cached is not None
    value, until = cached
    assert value == "Bearer token-1"
    assert helper.clock.at + ISSUED - 75 <= until <= helper.clock.at + ISSUED - 60

    helper.clock.at = until
    assert credential.cached(helper.clock.at) is None
    helper.expiring()
    assert await all_at_once(5, credential.header) == ["Bearer token-1"] * 5
    await over(credential)
    assert await credential.header() == "Bearer token-2"
    assert helper.runs == 2


async def test_an_expired_credential_is_waited_for(helper: Helper) -> None:
    helper.expiring()
    credential = helper.credential()
    await credential.header()
    helper.clock.at += ISSUED
    helper.expiring()
    assert await credential.header() == "Bearer token-2"


async def test_a_background_run_that_fails_costs_nobody_anything(helper: Helper) -> None:
    helper.expiring()
    credential = helper.credential()
    await credential.header()
    helper.clock.at += ISSUED - 30
    helper.answer = "exit 1"
    for _ in range(3):
        assert await credential.header() == "Bearer token-1"
        await over(credential)
    assert helper.runs == 2
    helper.clock.at += RETRY_AFTER
    assert await credential.header() == "Bearer token-1"
    await over(credential)
    assert helper.runs == 3
    helper.clock.at += 30
    with pytest.raises(Unreachable, match=r"status 1; .* admin\.proxyCommand"):
        await credential.header()


async def test_a_command_that_prints_what_is_almost_over_is_not_run_all_the_time(
    helper: Helper,
) -> None:
    helper.answer = f"""echo '{{"token": "same", "expires_at": {helper.clock.at + 100}}}'"""
    credential = helper.credential()
    await credential.header()
    helper.clock.at += 90
    for _ in range(3):
        assert await credential.header() == "Bearer same"
        await over(credential)
    assert helper.runs == 2


@pytest.mark.req("BRR-12")
async def test_only_what_was_refused_is_renewed(helper: Helper) -> None:
    credential = helper.credential()
    first = await credential.header()
    credential.reject(first)
    assert credential.cached(helper.clock.at) is None
    assert await credential.header() == "Bearer token-2"
    credential.reject(first)  # somebody is late
    assert await credential.header() == "Bearer token-2"
    assert helper.runs == 2


async def test_a_command_that_knows_no_better_is_not_asked_all_the_time(helper: Helper) -> None:
    helper.answer = "echo same"
    credential = helper.credential()
    for _ in range(5):
        credential.reject(await credential.header())
        assert await credential.header() == "Bearer same"
    assert helper.runs == 2
    helper.clock.at += RETRY_AFTER
    helper.answer = "echo other"
    assert await credential.header() == "Bearer other"


async def test_a_failure_is_everybodys_but_not_for_ever(helper: Helper) -> None:
    credential = helper.credential()
    helper.answer = "sleep 0.2; exit 1"
    outcomes = await all_at_once(10, credential.header)
    assert [type(outcome) for outcome in outcomes] == [Unreachable] * 10
    assert helper.runs == 1
    helper.answer = "echo a b"
    with pytest.raises(InvalidResponse):
        await credential.header()
    helper.answer = "echo abc"
    assert await credential.header() == "Bearer abc"


async def test_a_command_that_is_not_there(helper: Helper) -> None:
    credential = ProxyCredential(("/nonexistent",), clock=helper.clock)
    with pytest.raises(ConfigError, match=r"^admin\.proxyCommand: 'nonexistent' cannot be run"):
        await credential.header()


async def test_options_reach_the_command(helper: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "canary")
    helper.answer = 'echo "${MY_SECRET-none}|"'
    credential = helper.credential(hidden={"MY_SECRET"}, any_alphabet=True)
    assert await credential.header() == "Bearer none|"
    helper.answer = "sleep 1000"
    with pytest.raises(Unreachable, match="did not end within 0.05 s"):
        await helper.credential(deadline=0.05).header()


# One run for all.


@pytest.mark.req("REF-05")
async def test_fifty_callers_and_one_run(helper: Helper) -> None:
    helper.answer = "sleep 0.2; echo token-$run"
    credential = helper.credential()
    async with nothing_left():
        assert await all_at_once(50, credential.header) == ["Bearer token-1"] * 50
    assert helper.runs == 1


async def test_callers_on_other_event_loops_share_the_run(
    helper: Helper, anyio_backend: str
) -> None:
    helper.staying()
    credential = helper.credential()
    outcomes: list[str] = []

    async def here() -> None:
        outcomes.append(await credential.header())

    async def elsewhere(backend: str) -> None:
        await anyio.to_thread.run_sync(lambda: anyio.run(here, backend=backend))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here)
        await helper.line.up()
        for backend in ("asyncio", "trio"):
            tasks.start_soon(elsewhere, backend)
        await until(lambda: waiting(credential) == 3)
        helper.go()
    assert outcomes == ["Bearer token-1"] * 3
    assert helper.runs == 1


async def test_when_the_loop_of_a_run_ends_another_takes_over(
    helper: Helper, anyio_backend: str
) -> None:
    helper.staying()
    credential = helper.credential()
    leave = threading.Event()
    outcomes: list[str] = []

    async def briefly() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(credential.header)
            while not leave.is_set():  # noqa: ASYNC110  # set by a thread
                await anyio.sleep(0.001)
            tasks.cancel_scope.cancel()

    async def here() -> None:
        outcomes.append(await credential.header())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(
            anyio.to_thread.run_sync, lambda: anyio.run(briefly, backend=anyio_backend)
        )
        await helper.line.up()
        tasks.start_soon(here)
        await until(lambda: waiting(credential) == 2)
        leave.set()
        await until(lambda: helper.runs == 2)
        helper.go()
    assert outcomes == ["Bearer token-2"]


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(BOUND):
        while not condition():  # noqa: ASYNC110  # a thread or a process makes it true
            await anyio.sleep(0.001)


def waiting(credential: ProxyCredential) -> int:
    running = credential._round
    return 0 if running is None else running.waiting


@pytest.mark.req("CBK-16")
async def test_who_leaves_does_not_end_the_run_of_the_others(helper: Helper) -> None:
    helper.staying()
    credential = helper.credential()
    outcomes: list[str] = []

    async def wait() -> None:
        outcomes.append(await credential.header())

    async with anyio.create_task_group() as others:
        async with anyio.create_task_group() as first:
            first.start_soon(credential.header)
            await helper.line.up()
            others.start_soon(wait)
            others.start_soon(wait)
            await until(lambda: waiting(credential) == 3)
            first.cancel_scope.cancel()
        helper.go()
    assert outcomes == ["Bearer token-1"] * 2
    assert helper.runs == 1


@pytest.mark.req("CBK-16")
async def test_when_nobody_waits_any_more_the_command_is_ended(helper: Helper) -> None:
    helper.staying()
    credential = helper.credential()
    async with nothing_left_later():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(credential.header)
            tasks.start_soon(credential.header)
            await helper.line.up()
            tasks.cancel_scope.cancel()
        await helper.line.gone()
    helper.answer = "echo token-$run"
    assert await credential.header() == "Bearer token-2"


@pytest.mark.req("CBK-16")
async def test_who_comes_while_a_run_is_being_ended_gets_another(helper: Helper) -> None:
    helper.staying()
    credential = helper.credential()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(credential.header)
        await helper.line.up()
        tasks.cancel_scope.cancel()
    helper.go()
    assert await credential.header() in {"Bearer token-1", "Bearer token-2"}


@pytest.mark.req("CBK-16")
async def test_closing_ends_a_run_and_tells_who_waits(helper: Helper) -> None:
    helper.staying()
    credential = helper.credential()
    async with nothing_left():
        outcomes: list[Any] = []

        async def wait() -> None:
            outcomes.extend(await all_at_once(3, credential.header))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await helper.line.up()
            await credential.aclose()
            await helper.line.gone()
    assert [getattr(outcome, "reason", outcome) for outcome in outcomes] == ["closed"] * 3
    with pytest.raises(Unreachable, match="the session was closed"):
        await credential.header()
    await credential.aclose()


@pytest.mark.req("CBK-16")
async def test_closing_ends_a_run_in_the_background(helper: Helper) -> None:
    helper.expiring()
    credential = helper.credential()
    await credential.header()
    helper.clock.at += ISSUED - 30
    helper.staying()
    async with nothing_left():
        await credential.header()
        await helper.line.up()
        await credential.aclose()
        await helper.line.gone()


ENDS = """
import sys, anyio
from flyteauth._io.clock import SystemClock
from flyteauth._io.proxy_credential import ProxyCredential

async def main() -> None:
    credential = ProxyCredential(("/bin/sh", "-c", sys.argv[2]), clock=SystemClock())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(credential.header)
        await anyio.Path(sys.argv[3]).read_text()
        tasks.cancel_scope.cancel()

anyio.run(main, backend=sys.argv[1])
"""


async def test_a_program_that_ends_takes_the_command_along(
    helper: Helper, anyio_backend: str
) -> None:
    import sys

    os.mkfifo(helper.directory / "up")
    script = (
        f"trap '' TERM; cd {helper.directory}; exec 3>line; echo up >up; "
        "while :; do sleep 1000; done"
    )
    arguments = [anyio_backend, script, str(helper.directory / "up")]
    done = await anyio.run_process([sys.executable, "-W", "error", "-c", ENDS, *arguments])
    assert done.stderr == b""
    await helper.line.gone()


async def test_a_child_process_begins_anew(helper: Helper) -> None:
    helper.staying()
    credential = helper.credential()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(credential.header)
        await helper.line.up()
        credential._mutex.acquire()
        held = credential._mutex
        credential._forget_rounds()  # what os.fork calls in the child
        held.release()
        assert credential._round is None
        helper.go()
        assert await credential.header() == "Bearer token-2"


# The transport.


class Gate:
    """A proxy that lets pass who carries one of its credentials, and a server behind it."""

    def __init__(self, *admitted: str, refusal: Response) -> None:
        self.admitted = set(admitted)
        self.refusal = refusal
        self.seen: list[Request] = []
        self.closed = 0
        self.failing: RequestFailed | None = None
        self.answer = Response(200, (), b"{}")

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        await anyio.lowlevel.checkpoint()
        self.seen.append(request)
        if self.failing is not None:
            return self.failing
        passes = request.header("proxy-authorization") in self.admitted
        return ResponseReceived(self.answer if passes else self.refusal, 0.0, 1.0)

    async def aclose(self) -> None:
        self.closed += 1

    @property
    def carried(self) -> list[list[str]]:
        return [
            [value for name, value in request.headers if name.lower() == "proxy-authorization"]
            for request in self.seen
        ]


REFUSALS = [
    Response(407, (("proxy-authenticate", "Bearer"),), b"<html>"),
    Response(401, (("X-Goog-IAP-Generated-Response", "true"),), b"Invalid IAP credentials"),
]
REQUEST = post_form("https://as.example/token", {"code": "c"}, (("authorization", "Bearer user"),))


@pytest.fixture(params=REFUSALS, ids=["407", "IAP"])
def refusal(request: pytest.FixtureRequest) -> Response:
    response: Response = request.param
    return response


async def sent(transport: Proxied, request: Request = REQUEST) -> int:
    received = await transport.send(request)
    assert isinstance(received, ResponseReceived)
    return received.response.status


@pytest.mark.req("BRR-12")
async def test_every_request_carries_the_credential_beside_the_users_own(
    helper: Helper, refusal: Response
) -> None:
    gate = Gate("Bearer token-1", refusal=refusal)
    transport = Proxied(gate, helper.credential())
    mine = Request("GET", REQUEST.url, (("Proxy-Authorization", "Basic x"), ("a", "b")))
    assert [await sent(transport), await sent(transport, mine)] == [200, 200]
    assert gate.carried == [["Bearer token-1"]] * 2
    assert gate.seen[0].headers[:-1] == REQUEST.headers
    assert gate.seen[0].body == REQUEST.body
    assert gate.seen[1].header("a") == "b"
    assert "token-1" not in repr(gate.seen)


@pytest.mark.req("BRR-12")
async def test_a_refused_credential_is_renewed_and_the_request_sent_once_more(
    helper: Helper, refusal: Response
) -> None:
    gate = Gate("Bearer token-2", refusal=refusal)
    transport = Proxied(gate, helper.credential())
    assert await sent(transport) == 200
    assert gate.carried == [["Bearer token-1"], ["Bearer token-2"]]
    assert [request.header("authorization") for request in gate.seen] == ["Bearer user"] * 2
    assert [request.body for request in gate.seen] == [REQUEST.body] * 2
    assert await sent(transport) == 200
    assert helper.runs == 2


@pytest.mark.req("BRR-12")
async def test_it_is_sent_once_more_and_no_more(helper: Helper, refusal: Response) -> None:
    gate = Gate(refusal=refusal)
    assert await sent(Proxied(gate, helper.credential())) == refusal.status
    assert gate.carried == [["Bearer token-1"], ["Bearer token-2"]]


async def test_the_same_credential_is_not_tried_twice(helper: Helper, refusal: Response) -> None:
    helper.answer = "echo same"
    gate = Gate(refusal=refusal)
    transport = Proxied(gate, helper.credential())
    assert [await sent(transport) for _ in range(3)] == [refusal.status] * 3
    assert gate.carried == [["Bearer same"]] * 3
    assert helper.runs == 2


async def test_fifty_refusals_cost_one_run(helper: Helper, refusal: Response) -> None:
    gate = Gate("Bearer token-1", refusal=refusal)
    transport = Proxied(gate, helper.credential())
    assert await sent(transport) == 200
    gate.admitted = {"Bearer token-2"}
    assert await all_at_once(50, lambda: sent(transport)) == [200] * 50
    assert helper.runs == 2


@pytest.mark.req("BRR-12")
@pytest.mark.parametrize(
    "answer",
    [
        Response(401, (("www-authenticate", "Bearer"),)),
        Response(401, (("x-goog-iap-generated-response", "false"),)),
        Response(403, (("x-goog-iap-generated-response", "true"),)),
        Response(200, (("x-goog-iap-generated-response", "true"),)),
        Response(302),
    ],
)
async def test_what_the_server_behind_says_is_not_the_proxys(
    helper: Helper, answer: Response
) -> None:
    assert not is_refusal(answer)
    gate = Gate("Bearer token-1", refusal=REFUSALS[0])
    gate.answer = answer
    assert await sent(Proxied(gate, helper.credential())) == answer.status
    assert helper.runs == 1
    assert len(gate.seen) == 1


async def test_what_the_network_does_is_handed_on(helper: Helper) -> None:
    gate = Gate(refusal=REFUSALS[0])
    gate.failing = RequestFailed("connect", "refused", sent=False, at=1.0)
    assert await Proxied(gate, helper.credential()).send(REQUEST) is gate.failing


async def test_a_failing_command_is_raised_as_itself(helper: Helper, refusal: Response) -> None:
    gate = Gate(refusal=refusal)
    transport = Proxied(gate, helper.credential())
    helper.answer = "echo run gcloud auth login >&2; exit 1"
    with pytest.raises(Unreachable, match="run gcloud auth login") as raised:
        await transport.send(REQUEST)
    assert raised.value.reason == "command"
    assert not raised.value.sent
    assert gate.seen == []
    helper.answer = "[ $run = 2 ] && echo token-2"
    with pytest.raises(Unreachable, match="status 1"):
        await transport.send(REQUEST)
    assert gate.carried == [["Bearer token-2"]]


@pytest.mark.req("BRR-03", "BRR-12")
async def test_another_host_gets_the_credential_once_the_proxy_asks_for_it_there(
    helper: Helper, refusal: Response
) -> None:
    gate = Gate("Bearer token-1", refusal=refusal)
    transport = Proxied(gate, helper.credential(), hosts={"flyte.example"})
    assert await sent(transport, Request("GET", "https://flyte.example:8443/")) == 200
    assert await sent(transport) == 200
    assert await sent(transport) == 200
    assert gate.carried == [["Bearer token-1"], [], ["Bearer token-1"], ["Bearer token-1"]]


@pytest.mark.req("BRR-03", "BRR-12")
async def test_a_host_that_the_proxy_does_not_guard_never_sees_its_credential(
    helper: Helper,
) -> None:
    gate = Gate(refusal=Response(401, (("www-authenticate", "Bearer"),)))
    transport = Proxied(gate, helper.credential(), hosts={"flyte.example"})
    assert await sent(transport) == 401
    assert gate.carried == [[]]
    assert helper.runs == 0


async def test_closing_closes_both(helper: Helper) -> None:
    gate, credential = Gate(refusal=REFUSALS[0]), helper.credential()
    await Proxied(gate, credential).aclose()
    assert gate.closed == 1
    with pytest.raises(Unreachable):
        await credential.header()


@pytest.mark.req("BRR-12", "SEC-01")
async def test_on_the_wire_and_in_no_log(helper: Helper, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    iap = reply(
        b"Invalid IAP credentials",
        status="401 Unauthorized",
        headers=("x-goog-iap-generated-response: true",),
    )

    with serve(answering(iap, reply())) as server:
        transport = Proxied(HttpxTransport(), helper.credential())
        try:
            status = await sent(transport, Request("POST", server.url, REQUEST.headers, b"x=1"))
        finally:
            await transport.aclose()
        assert status == 200
        heads = [request.decode().lower().split("\r\n") for request in server.requests]
    carried = [[line for line in head if line.startswith("proxy-auth")] for head in heads]
    assert carried == [
        ["proxy-authorization: bearer token-1"],
        ["proxy-authorization: bearer token-2"],
    ]
    assert all("authorization: bearer user" in head for head in heads)
    assert "token-" not in caplog.text
