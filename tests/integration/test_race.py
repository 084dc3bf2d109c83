"""
One prompt that can be answered in three ways: the browser that comes back, the address where it
ended, pasted, and a code. The first answer wins, and nothing is left of the others.
"""

from __future__ import annotations

import io
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from flyteauth._io.bind import bind
from flyteauth._io.loopback import Loopback
from flyteauth._io.presenter import Attending, Waiting
from flyteauth._io.store.memory import MemoryStore
from flyteauth._sansio.flow import RequestFailed
from flyteauth._sansio.http import Request, Response
from flyteauth.errors import (
    ConfigError,
    Error,
    Expired,
    InteractionRequired,
    OAuth2Error,
)
from flyteauth.events import (
    AuthEvent,
    BrowserNeeded,
    CodeNeeded,
    LoggedIn,
    MethodChosen,
    Warned,
)
from flyteauth.session import Session

from .plane import ENDPOINT, FakeClock, Plane
from .test_browser_login import FREE, Gate, GatedStore, assert_free, fetch
from .test_cancellation import Belongings, Counted, Places, cancelling

pytestmark = pytest.mark.anyio

LIMIT = 10.0
DEVICE = "device_code"
CODE = "authorization_code"
DEVICE_ENDPOINT = "/oauth2/device_authorization"


class HeldClock(FakeClock):
    """Whoever waits, waits until somebody lets them go on; time passes only then."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = anyio.Event()

    async def sleep_until(self, deadline: float) -> None:
        await self.go_on.wait()
        await super().sleep_until(deadline)


class Desk:
    """A person at a presenter that stays with them. They do what a test lets them do."""

    def __init__(self, *, there: bool = True) -> None:
        self.there = there
        self.seen: list[AuthEvent] = []
        self.waiting: Waiting | None = None
        self.stayed = 0  # how often it was stayed with them, and that came to an end
        self._changed = anyio.Event()

    async def show(self, event: AuthEvent) -> None:
        await anyio.lowlevel.checkpoint()
        self.seen.append(event)
        self._tell()

    def is_attended(self) -> bool:
        return self.there

    async def attend(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self._tell()
        try:
            await anyio.sleep_forever()
        finally:
            self.waiting = None
            self.stayed += 1

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, condition: Callable[[], Any]) -> Any:
        with anyio.fail_after(LIMIT):
            while not (found := condition()):
                await self._changed.wait()
        return found

    def all(self, kind: type[AuthEvent]) -> list[Any]:
        return [event for event in self.seen if isinstance(event, kind)]

    async def shown(self, kind: type[AuthEvent]) -> Any:
        return (await self.until(lambda: self.all(kind)))[-1]

    async def paste(self, text: str) -> str | None:
        waiting: Waiting = await self.until(lambda: self.waiting)
        assert waiting.paste is not None
        return waiting.paste(text)


class World:
    """A plane, a person at a desk, and a session between them."""

    def __init__(self, *, store: MemoryStore | None = None, desk: Desk | None = None, **plane: Any):
        self.plane = Plane(**plane)
        self.clock = self.plane.clock = HeldClock()
        self.desk = desk or Desk()
        self.store = store or MemoryStore()

    def session(self, auth_type: str | None = "Pkce", **arguments: Any) -> Session:
        return Session(
            transport=self.plane,
            clock=self.clock,
            store=self.store,
            presenter=self.desk,
            **{
                "endpoint": ENDPOINT,
                "auth_type": auth_type,
                "redirect_uri": FREE,
                "login_timeout": LIMIT,
                **arguments,
            },
        )

    async def authorize(self) -> str:
        """Where the browser ends that a person has logged in by."""
        event = await self.desk.shown(BrowserNeeded)
        response = self.plane.plane.handle(Request("GET", event.url), self.clock.time())
        location = response.header("location")
        assert location is not None
        return location

    async def come_back(self) -> Any:
        """The page that this browser gets."""
        return await anyio.to_thread.run_sync(fetch, await self.authorize())

    async def approve(self) -> None:
        """The person types the code; the program finds out."""
        self.plane.plane.approve((await self.desk.shown(CodeNeeded)).user_code)
        self.clock.go_on.set()

    def count(self, grant_type: str) -> int:
        """How often a token was granted so."""
        return sum(
            entry.status == 200 and (entry.grant_type or "").endswith(grant_type)
            for entry in self.plane.plane.journal
        )

    async def login(self, *script: Callable[[], Awaitable[Any]], **arguments: Any) -> list[Any]:
        """Log in while the person follows each *script*; what these come to. Afterwards the login
        is good, the port is free and nobody waits any more.
        """
        results: list[Any] = [None] * len(script)

        async def follow(index: int, act: Callable[[], Awaitable[Any]]) -> None:
            results[index] = await act()

        how = {name: arguments.pop(name) for name in ("switch", "open_browser") & arguments.keys()}
        try:
            with anyio.fail_after(LIMIT):
                async with (
                    self.session(**arguments) as session,
                    anyio.create_task_group() as group,
                ):
                    for index, act in enumerate(script):
                        group.start_soon(follow, index, act)
                    token = await session.login(**how)
                    assert token is not None
                    at = self.clock.time()
                    assert self.plane.plane.access(token.access_token, at) is not None
                    assert await session.token() == token
        finally:
            assert self.desk.waiting is None
            for event in self.desk.all(BrowserNeeded):
                if event.returns:
                    assert_free(parse_qs(urlsplit(event.url).query)["redirect_uri"][0])
        assert len(self.desk.all(LoggedIn)) == 1
        return results

    async def fails(
        self, kind: type[Error], *script: Callable[[], Awaitable[Any]], **arguments: Any
    ) -> Any:
        """The error that the login ends with."""
        try:
            await self.login(*script, **arguments)
        except BaseExceptionGroup as group:
            (error,) = group.exceptions
            assert isinstance(error, kind), error
            assert not self.desk.all(LoggedIn)
            return error
        pytest.fail("the login did not fail")


@pytest.fixture(autouse=True)
def _no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that is started as the browser does nothing."""
    monkeypatch.setenv("BROWSER", "true")


def test_a_desk_is_a_presenter_that_stays() -> None:
    assert isinstance(Desk(), Attending)


# Each way wins.


@pytest.mark.req("CBK-21")
@pytest.mark.parametrize("what", ["address", "query", "code"])
async def test_a_paste_ends_the_login_at_once(what: str) -> None:
    world = World()

    async def paste() -> float:
        there = await world.authorize()
        query = urlsplit(there).query
        text = {"address": there, "query": query, "code": parse_qs(query)["code"][0]}[what]
        begun = time.monotonic()
        assert await world.desk.paste(text) is None
        await world.desk.shown(LoggedIn)
        return time.monotonic() - begun

    (seconds,) = await world.login(paste)
    assert seconds < 1
    assert (world.count(CODE), world.count(DEVICE)) == (1, 0)
    assert world.desk.stayed == 1
    kinds = [type(event) for event in world.desk.seen if not isinstance(event, CodeNeeded)]
    assert kinds == [MethodChosen, BrowserNeeded, LoggedIn]


@pytest.mark.req("CBK-21", "CBK-09")
async def test_what_is_wrong_with_a_paste_is_said_and_the_login_goes_on() -> None:
    world = World()

    async def paste() -> None:
        there = await world.authorize()
        event = await world.desk.shown(BrowserNeeded)
        code = parse_qs(urlsplit(there).query)["code"][0]
        for text, complaint in [
            ("", "nothing in it"),
            ("hello", "no code in it"),
            (event.url, "not where your browser should end"),
            (there.replace("/callback", "/"), "/callback"),
            (there.partition("&state=")[0], "another login"),
            (there + "&code=B", "cannot be used"),
            (there.replace(code, "a b"), "cannot be used"),
            (there.replace("iss=", "iss=x"), "another authorization server"),
        ]:
            said = await world.desk.paste(text)
            assert said is not None
            assert complaint in said
            assert "; paste" in said
            assert code not in said
        assert world.plane.asked[CODE] == 0
        assert await world.desk.paste(there) is None

    await world.login(paste)


@pytest.mark.req("AZR-14", "HTM-02")
async def test_a_redirect_wins_and_the_code_is_left_to_expire() -> None:
    world = World()
    (page,) = await world.login(world.come_back)
    assert "Signed in as alice" in page.text
    assert (world.count(CODE), world.count(DEVICE)) == (1, 0)
    assert world.desk.stayed == 1


@pytest.mark.req("DEV-10", "AZR-14")
async def test_a_code_wins_and_the_listener_is_gone() -> None:
    world = World()
    await world.login(world.approve)
    assert (world.count(CODE), world.count(DEVICE)) == (0, 1)
    kinds = [type(event) for event in world.desk.seen]
    assert kinds == [MethodChosen, BrowserNeeded, CodeNeeded, LoggedIn]
    assert all(event.alternative for event in world.desk.all(CodeNeeded))
    assert all(event.returns and not event.obstacle for event in world.desk.all(BrowserNeeded))


@pytest.mark.parametrize("there", [True, False])
async def test_a_code_is_another_way_only_if_somebody_looks(there: bool) -> None:
    world = World(desk=Desk(there=there))
    await world.login(world.come_back)
    assert world.plane.asked[DEVICE_ENDPOINT] == there
    assert world.desk.stayed == there


async def test_a_server_without_device_authorization_is_not_asked_for_it() -> None:
    world = World(faults={"no-device"})
    await world.login(world.come_back)
    assert world.plane.asked[DEVICE_ENDPOINT] == 0


# Two answers at once.


@pytest.mark.req("HTM-02")
async def test_a_tab_that_comes_back_when_the_code_has_won_is_told_the_truth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, here = Gate(), anyio.Event()
    world = World(store=GatedStore(gate))
    real = Loopback.receive

    async def receive(loopback: Loopback, state: str) -> str:
        uri = await real(loopback, state)
        here.set()
        return uri

    monkeypatch.setattr(Loopback, "receive", receive)

    async def late() -> Any:
        await world.approve()
        await gate.reached.wait()
        pages: list[Any] = []

        async def come_back() -> None:
            pages.append(await world.come_back())

        async with anyio.create_task_group() as group:
            group.start_soon(come_back)
            await here.wait()
            await anyio.wait_all_tasks_blocked()
            assert pages == []
            gate.opened.set()
        return pages[0]

    (page,) = await world.login(late)
    assert page.status == 200
    assert "Signed in as alice" in page.text
    assert (world.count(CODE), world.count(DEVICE)) == (0, 1)


@pytest.mark.req("CBK-16")
async def test_a_code_that_was_approved_in_time_may_take_its_time_to_be_kept() -> None:
    gate = Gate()
    world = World(store=GatedStore(gate))

    async def slowly() -> None:
        await world.approve()
        await gate.reached.wait()
        await anyio.sleep(0.6)
        gate.opened.set()

    await world.login(slowly, login_timeout=0.5)


async def test_a_second_token_that_was_on_its_way_is_taken_back() -> None:
    world = World()
    reached, opened = anyio.Event(), anyio.Event()

    async def hold(name: str) -> None:
        if name == DEVICE and not reached.is_set():
            reached.set()
            await opened.wait()

    world.plane.after = hold

    async def both() -> None:
        await world.approve()
        await reached.wait()
        await world.come_back()
        await world.desk.shown(LoggedIn)
        opened.set()

    async with world.session() as session:
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as group:
                group.start_soon(both)
                token = await session.login()
        assert (world.count(CODE), world.count(DEVICE)) == (1, 1)
    assert token is not None
    assert world.plane.asked["/oauth2/revoke"] >= 1
    assert world.plane.plane.access(token.access_token, world.clock.time()) is not None
    async with world.session() as later:
        assert await later.token() == token
    assert len(world.desk.all(LoggedIn)) == 1


async def test_a_second_token_that_is_there_first_takes_nothing_away() -> None:
    """The redirect has won, but the device's token is granted before the code is redeemed."""
    world = World()
    at_code, polled = anyio.Event(), anyio.Event()

    async def hold(name: str) -> RequestFailed | None:
        if name == CODE:
            at_code.set()
            await polled.wait()
        elif name == DEVICE:
            await at_code.wait()
        elif name == "/oauth2/revoke":
            polled.set()
        return None

    world.plane.before = hold

    async def both() -> None:
        await world.approve()
        while not world.plane.asked[DEVICE]:
            await anyio.lowlevel.checkpoint()
        await world.come_back()

    await world.login(both)
    assert (world.count(CODE), world.count(DEVICE)) == (1, 1)


# Somebody says no, or nobody anything.


@pytest.mark.req("DEV-06")
async def test_a_no_on_the_activation_page_ends_the_login_at_once() -> None:
    world = World()

    async def deny() -> None:
        world.plane.plane.deny((await world.desk.shown(CodeNeeded)).user_code)
        world.clock.go_on.set()

    error = await world.fails(OAuth2Error, deny)
    assert error.error == "access_denied"


@pytest.mark.req("CBK-10")
@pytest.mark.parametrize("pasted", [True, False])
async def test_a_no_in_the_browser_ends_the_login_at_once(pasted: bool) -> None:
    world = World(faults={"deny"})

    async def deny() -> None:
        if pasted:
            assert await world.desk.paste(await world.authorize()) is None
        else:
            page = await world.come_back()
            assert page.status == 400

    error = await world.fails(OAuth2Error, deny)
    assert error.error == "access_denied"
    assert world.plane.asked[CODE] == 0


@pytest.mark.req("CBK-21")
@pytest.mark.parametrize("way", ["browser", "code"])
async def test_a_word_that_is_no_code_costs_nothing(way: str) -> None:
    world = World()

    async def wrong_then_right() -> None:
        await world.desk.shown(CodeNeeded)
        assert await world.desk.paste("kubectl-get-pods-all-namespaces") is None
        said = await world.desk.shown(Warned)
        assert "what was pasted did not do" in said.message
        await (world.come_back() if way == "browser" else world.approve())

    await world.login(wrong_then_right)
    assert len(world.desk.all(LoggedIn)) == 1


@pytest.mark.req("CBK-16")
async def test_nobody_answers_in_any_way() -> None:
    world = World()
    error = await world.fails(Expired, login_timeout=0.3)
    assert error.reason == "login_timeout"
    assert world.desk.stayed == 1


@pytest.mark.parametrize("fault", ["down", "unauthorized_client", "lost"])
async def test_a_code_that_cannot_be_had_is_no_loss(fault: str) -> None:
    world = World()

    async def before(name: str) -> RequestFailed | None:
        return world.plane.down() if name == DEVICE_ENDPOINT and fault == "down" else None

    world.plane.before = before
    real = world.plane.plane.handle

    def handle(request: Request, at: float) -> Response:
        if request.url.endswith(DEVICE_ENDPOINT) and fault != "down":
            body = b'{"error":"unauthorized_client"}' if fault != "lost" else b"<html>"
            return Response(400, (("content-type", "application/json"),), body)
        return real(request, at)

    world.plane.plane.handle = handle  # type: ignore[method-assign]

    async def come_back() -> None:
        with anyio.fail_after(LIMIT):
            while not world.plane.asked[DEVICE_ENDPOINT]:
                await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        await world.come_back()

    await world.login(come_back)
    assert not world.desk.all(Warned)
    assert not world.desk.all(CodeNeeded)


async def test_a_code_that_has_expired_is_said_and_the_browser_goes_on() -> None:
    world = World(device_ttl=1.0)  # it ends before it may be asked for

    async def late() -> None:
        await world.desk.shown(CodeNeeded)
        world.clock.go_on.set()
        said = await world.desk.shown(Warned)
        assert "the code cannot be used any more" in said.message
        await world.come_back()

    await world.login(late)


# The port is taken.


class Stranger:
    """Another program on a port of this machine."""

    def __enter__(self) -> str:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        return f"http://127.0.0.1:{self.port}/callback"

    def __exit__(self, *_: object) -> None:
        self._listener.close()


@pytest.mark.req("AZR-11", "AZR-12", "CBK-21")
@pytest.mark.parametrize("way", ["paste", "code"])
async def test_a_login_goes_on_although_a_stranger_has_the_port(way: str) -> None:
    world = World()

    async def paste() -> None:
        assert await world.desk.paste(await world.authorize()) is None

    with Stranger() as uri:
        script = paste if way == "paste" else world.approve
        await world.login(script, redirect_uri=uri)
    (event,) = world.desk.all(BrowserNeeded)
    assert not event.returns
    port = urlsplit(uri).port
    assert event.obstacle == f"port {port} is held by this program (process {os.getpid()})"
    assert parse_qs(urlsplit(event.url).query)["redirect_uri"] == [uri]


@pytest.mark.req("CBK-21")
async def test_a_paste_alone_is_enough() -> None:
    world = World(faults={"no-device"})

    async def paste() -> None:
        assert await world.desk.paste(await world.authorize()) is None

    with Stranger() as uri:
        await world.login(paste, redirect_uri=uri)


@pytest.mark.req("AZR-12")
async def test_without_anybody_to_paste_it_goes_on_by_code() -> None:
    world = World(desk=Desk(there=False))
    with Stranger() as uri:
        await world.login(world.approve, redirect_uri=uri)
    assert not world.desk.all(CodeNeeded)[0].alternative
    assert "the browser could not come back (port" in str(world.desk.all(Warned)[0])
    assert not world.desk.all(BrowserNeeded)


@pytest.mark.req("AZR-12")
async def test_without_anybody_there_the_stranger_is_the_error() -> None:
    world = World(desk=Desk(there=False), faults={"no-device"})
    with Stranger() as uri:
        error = await world.fails(ConfigError, redirect_uri=uri)
    assert error.reason == "port_in_use"
    assert f"in use by this program (process {os.getpid()}); close" in str(error)
    assert not world.desk.all(BrowserNeeded)


# The presenter is the program's own.


class Clumsy(Desk):
    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    async def show(self, event: AuthEvent) -> None:
        await super().show(event)
        if self._where == "show" and isinstance(event, CodeNeeded):
            raise ZeroDivisionError

    def is_attended(self) -> bool:
        if self._where == "is_attended":
            raise ZeroDivisionError
        return True

    async def attend(self, waiting: Waiting) -> None:
        if self._where == "later":
            await anyio.lowlevel.checkpoint()
        if self._where == "show":
            await anyio.sleep_forever()
        if self._where == "group":
            async with anyio.create_task_group():
                raise ZeroDivisionError
        if self._where != "returns":
            raise ZeroDivisionError


@pytest.mark.parametrize("where", ["is_attended", "attend", "later", "group", "returns"])
@pytest.mark.parametrize("auth_type", ["Pkce", "DeviceFlow"])
async def test_a_presenter_that_fails_costs_no_login(where: str, auth_type: str) -> None:
    world = World(desk=Clumsy(where))
    script = world.come_back if auth_type == "Pkce" else world.approve
    await world.login(script, auth_type=auth_type)


async def test_a_code_that_cannot_be_shown_is_no_loss_in_the_browser() -> None:
    world = World(desk=Clumsy("show"))

    async def come_back() -> None:
        await world.desk.shown(CodeNeeded)
        await world.come_back()

    await world.login(come_back)


async def test_a_presenter_stays_for_a_code_alone_and_has_nothing_to_paste() -> None:
    world = World()

    async def approve() -> Waiting:
        waiting: Waiting = await world.desk.until(lambda: world.desk.waiting)
        await world.approve()
        return waiting

    (waiting,) = await world.login(approve, auth_type="DeviceFlow")
    (event,) = world.desk.all(CodeNeeded)
    assert not event.alternative
    assert waiting.paste is None
    assert waiting.expires_at == event.expires_at
    assert world.desk.stayed == 1
    assert not world.desk.all(BrowserNeeded)


# What was asked for.


async def test_without_a_browser_its_address_is_only_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = home / "opened"
    monkeypatch.setenv("BROWSER", f"touch {opened}")
    world = World()
    await world.login(world.come_back, open_browser=False)
    assert [event.opens for event in world.desk.all(BrowserNeeded)] == [False]
    assert not opened.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script is the browser")
async def test_a_command_that_is_configured_opens_the_browser(home: Path) -> None:
    script = home / "mine"
    script.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {home}/.said && mv {home}/.said {home}/said'
    )
    script.chmod(0o700)
    world = World()

    async def come_back() -> None:
        while not (home / "said").exists():  # noqa: ASYNC110  # another program writes it
            await anyio.sleep(0.01)
        await world.come_back()

    await world.login(come_back, browser_command=[str(script), "-P", "my work", "--to={url}"])
    (event,) = world.desk.all(BrowserNeeded)
    assert event.opens
    assert (home / "said").read_text().splitlines() == ["-P", "my work", f"--to={event.url}"]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script is the browser")
@pytest.mark.parametrize("script", ["exit 0", "exec sleep 1000", "yes noise | head -10000; exit 3"])
async def test_whatever_a_launcher_does_the_address_is_shown_and_nothing_hangs(
    home: Path, monkeypatch: pytest.MonkeyPatch, script: str, capfd: pytest.CaptureFixture[str]
) -> None:
    launcher, process_id = home / "xdg-open", home / "process"
    launcher.write_text(
        f"#!/bin/sh\necho $$ > {process_id}.new && mv {process_id}.new {process_id}\n{script}\n"
    )
    launcher.chmod(0o700)
    monkeypatch.setenv("BROWSER", str(launcher))
    world = World()

    async def paste() -> None:
        there = await world.authorize()
        while not process_id.exists():  # noqa: ASYNC110  # another program writes it
            await anyio.sleep(0.01)
        assert await world.desk.paste(there) is None

    begun = time.monotonic()
    await world.login(paste)
    assert time.monotonic() - begun < 5
    assert "noise" not in "".join(capfd.readouterr())
    with suppress(ProcessLookupError):
        os.kill(int(process_id.read_text()), signal.SIGKILL)
    for thread in threading.enumerate():
        if thread.name in {"flyteauth browser", "flyteauth launcher"}:
            await anyio.to_thread.run_sync(thread.join, LIMIT)
            assert not thread.is_alive()


@pytest.mark.parametrize("switch", [True, False])
async def test_another_account_can_be_asked_for_in_the_browser(switch: bool) -> None:
    world = World()
    await world.login(world.come_back, switch=switch)
    (event,) = world.desk.all(BrowserNeeded)
    expected = ["select_account"] if switch else []
    assert parse_qs(urlsplit(event.url).query).get("prompt", []) == expected


@pytest.mark.parametrize("switch", [True, False])
async def test_of_another_account_only_the_browser_with_the_code_decides(switch: bool) -> None:
    world = World()
    await world.login(world.approve, auth_type="DeviceFlow", switch=switch)
    said = [event.message for event in world.desk.all(Warned)]
    assert len(said) == switch
    assert all("log out there first" in message for message in said)


@pytest.mark.req("CBK-01", "CBK-04", "AZR-09")
async def test_listening_beyond_this_machine_is_warned_of() -> None:
    world = World()
    await world.login(world.come_back, callback_bind="0.0.0.0")
    (event,) = world.desk.all(BrowserNeeded)
    (uri,) = parse_qs(urlsplit(event.url).query)["redirect_uri"]
    assert uri.startswith("http://127.0.0.1:")
    (said,) = world.desk.all(Warned)
    assert f"anybody on the network of 0.0.0.0 can reach port {urlsplit(uri).port}" in said.message


# Which way, and why.


def nowhere(monkeypatch: pytest.MonkeyPatch, **environ: str) -> None:
    """No display, no browser, and what *environ* says."""
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    for name in list(os.environ):
        if name.startswith(("SSH_", "JPY_", "COLAB_", "CODESPACES")):
            monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)


@pytest.mark.skipif(sys.platform != "linux", reason="a Mac and Windows have a display")
async def test_over_ssh_a_code_is_chosen_unasked_and_said_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nowhere(monkeypatch, SSH_CONNECTION="192.0.2.1 1 192.0.2.2 22")
    world = World()
    await world.login(world.approve, auth_type=None)
    why = "this is an SSH session without a display"
    assert world.desk.seen[0] == MethodChosen("localhost:8080", "device", why)
    assert not world.desk.all(BrowserNeeded)


@pytest.mark.skipif(sys.platform != "linux", reason="a Mac and Windows have a display")
async def test_over_ssh_without_device_authorization_the_address_is_shown_to_be_pasted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nowhere(monkeypatch, SSH_CONNECTION="192.0.2.1 1 192.0.2.2 22")
    world = World(faults={"no-device"})

    async def paste() -> None:
        assert await world.desk.paste(await world.authorize()) is None

    await world.login(paste, auth_type=None)
    chosen = world.desk.seen[0]
    assert isinstance(chosen, MethodChosen)
    assert chosen.method == "browser"
    assert "no device authorization" in chosen.why
    assert [event.opens for event in world.desk.all(BrowserNeeded)] == [False]


async def test_the_choice_can_be_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere(monkeypatch, SSH_CONNECTION="192.0.2.1 1 192.0.2.2 22")
    world = World()
    await world.login(world.come_back, auth_type="Pkce")
    why = "authType is Pkce (argument auth_type)"
    assert world.desk.seen[0] == MethodChosen("localhost:8080", "browser", why)


async def test_a_service_says_what_it_logs_in_with() -> None:
    world = World()
    session = world.session(None, endpoint=None, api_key=world.plane.plane.api_key)
    async with session:
        await session.login()
    why = "there is an API key (argument api_key)"
    assert world.desk.seen[0] == MethodChosen("localhost:8080", "secret", why)


# Nobody is there.


def forbid_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> Any:
        raise AssertionError("a socket was bound")

    monkeypatch.setattr(socket.socket, "bind", refuse)


@pytest.mark.parametrize("interactive", [True, False])
@pytest.mark.parametrize("auth_type", [None, "Pkce", "DeviceFlow"])
async def test_without_a_person_nobody_is_asked_and_no_socket_bound(
    monkeypatch: pytest.MonkeyPatch, interactive: bool, auth_type: str | None
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    world = World()
    async with world.session(auth_type, interactive=interactive) as session:
        forbid_sockets(monkeypatch)
        begun = time.monotonic()
        with pytest.raises(InteractionRequired, match="flyteauth login .*, or set FLYTE_API_KEY"):
            await session.headers()
        assert time.monotonic() - begun < 1
    assert world.desk.seen == []
    assert world.plane.asked[DEVICE_ENDPOINT] == 0


@pytest.mark.parametrize("entry", ["login", "headers"])
async def test_what_needs_no_person_never_becomes_what_does(
    monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    """Its secret is refused; that is an error, and no reason to ask somebody."""
    world = World()
    client_id, _ = world.plane.plane.service_client
    arguments = {"client_id": client_id, "client_secret": "wrong", "interactive": lambda: True}
    async with world.session("ClientSecret", **arguments) as session:
        forbid_sockets(monkeypatch)
        with pytest.raises(OAuth2Error) as caught:
            await getattr(session, entry)()
    assert caught.value.error == "invalid_client"
    assert not world.desk.all(BrowserNeeded)
    assert not world.desk.all(CodeNeeded)


@pytest.mark.parametrize("entry", ["login", "begin_login"])
async def test_a_task_asks_nobody_unless_somebody_insists(
    monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    monkeypatch.setenv("FLYTE_INTERNAL_EXECUTION_PROJECT", "p")
    world = World()
    async with world.session("DeviceFlow") as session:
        with pytest.raises(InteractionRequired, match="FLYTE_API_KEY") as caught:
            await getattr(session, entry)()
    assert caught.value.reason == "task"
    assert world.desk.seen == []
    await world.login(world.approve, auth_type="DeviceFlow", interactive=True)


# Cancelled anywhere.


class Hasty(Desk):
    """Answers by one way as soon as it is there; each answer that can be given is a place."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.world: World | None = None
        self.redirect_uri: str | None = None

    async def show(self, event: AuthEvent) -> None:
        await super().show(event)
        assert self.world is not None
        if isinstance(event, BrowserNeeded):
            (self.redirect_uri,) = parse_qs(urlsplit(event.url).query)["redirect_uri"]
        if isinstance(event, CodeNeeded) and self.way == "code":
            await self.world.approve()

    async def attend(self, waiting: Waiting) -> None:
        assert self.world is not None
        if self.way == "paste":
            there = await self.world.authorize()
            await anyio.lowlevel.checkpoint()
            assert waiting.paste is not None
            assert waiting.paste(there) is None
        await super().attend(waiting)


@pytest.fixture(params=["scope", "task"])
def how(request: pytest.FixtureRequest, anyio_backend: str) -> str:
    if request.param == "task" and anyio_backend != "asyncio":
        pytest.skip("asyncio's own cancel is asyncio's")
    name: str = request.param
    return name


@pytest.mark.req("CBK-16", "AZR-14", "DEV-14")
@pytest.mark.parametrize("kind", ["await", "step"])
@pytest.mark.parametrize("way", ["paste", "code", "paste, port taken"])
async def test_a_race_may_be_cancelled_anywhere(
    way: str, kind: str, how: str, anyio_backend: str
) -> None:
    for place in itertools.count():
        desk = Hasty(way.partition(",")[0])
        world = desk.world = World(desk=desk)
        places = Places()

        async def step(_: str, places: Places = places) -> None:
            await places.step()

        async def before(_: str, places: Places = places) -> RequestFailed | None:
            await places.step()
            return None

        if kind == "step":
            world.plane.before, world.plane.after = before, step
        with Stranger() as taken:
            session = world.session(redirect_uri=taken if "taken" in way else FREE)
            belongings = Belongings.now(anyio_backend)
            places.at = place
            use = session.login()
            results = await cancelling(
                how, Counted(use, places) if kind == "await" else use, places
            )
            places.cancel = lambda: None
            with anyio.fail_after(LIMIT):
                world.clock.go_on.set()
                await session.aclose()
            await belongings.are_all(anyio_backend)
        assert desk.waiting is None
        if desk.redirect_uri is not None:
            for listener in bind(desk.redirect_uri)[0]:
                listener.close()
        issued = world.count(CODE) + world.count(DEVICE)
        kept = await world.store.load(world_key(session))
        assert (kept is not None) == bool(issued)
        if results and places.count <= place:
            break
    assert place >= 5


def world_key(session: Session) -> str:
    ready = session._life._ready
    return "" if ready is None else ready.vault.key
