"""
The whole way of a person: ``flyteauth login`` as a process, and a real browser on real pages.

Pictures of each page, light and dark, wide and as on a telephone, are kept in
``.artifacts/screenshots``.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from attrs import define, field, frozen
from playwright.sync_api import Browser, BrowserContext, Error, Page, expect, sync_playwright

from flyteauth.devserver.app import Application, Receive, Scope, Send
from flyteauth.devserver.model import TOKEN_PATH
from flyteauth.devserver.serve import Running
from tests.services import require

from .conftest import DEADLINE, Ended, Home, Serve, read_until

PICTURES: Final = Path(__file__).parents[2] / ".artifacts" / "screenshots"
WIDTHS: Final = {"wide": 900, "phone": 360}
# No network but this machine's, and nothing that a new browser does on its own account.
ARGUMENTS: Final = (
    *"--disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run".split(),
    *"--disable-background-networking --disable-component-update --disable-sync".split(),
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)
LOCAL: Final = re.compile(
    r"http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?/|data:|about:|chrome-error:"
)
FOCUSED: Final = "document.activeElement.value || document.activeElement.tagName"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = require("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=ARGUMENTS,
            chromium_sandbox=False,
        )
        yield browser
        browser.close()


@define
class Desk:
    """A person's browser, with its cookies, and what it complained of."""

    context: BrowserContext
    asked: list[str] = field(factory=list)
    refused: list[str] = field(factory=list)

    def tab(self, url: str | None = None) -> Page:
        page = self.context.new_page()
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self._hear(message.text))
        if url is not None:
            page.goto(url)
        return page

    def _hear(self, text: str) -> None:
        if "Content Security Policy" in text or "Refused" in text:
            self.refused.append(text)


@pytest.fixture
def desk(chromium: Browser) -> Iterator[Desk]:
    """Nothing may come from outside, and no page may break its own policy."""
    with chromium.new_context(locale="en-GB") as context:
        context.set_default_timeout(DEADLINE * 1000 / 2)
        desk = Desk(context)
        yield desk
    assert [url for url in desk.asked if not LOCAL.match(url)] == []
    assert desk.refused == []


def picture(page: Page, name: str) -> None:
    """Keep how *page* looks; no part of it may stick out."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for size, width in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": 640})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=PICTURES / f"{name}-{size}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, size)


@frozen
class Login:
    """``flyteauth login`` that waits for a person. ``url`` is what it opened."""

    process: subprocess.Popen[str] = field(repr=False)
    url: str = ""

    def ended(self) -> Ended:
        out, err = self.process.communicate(timeout=DEADLINE)
        return Ended(self.process.returncode, out, err)

    def interrupt(self) -> Ended:
        self.process.send_signal(signal.SIGINT)
        return self.ended()


@contextmanager
def browser_login(home: Home, running: Running, **environ: str) -> Iterator[Login]:
    """A login by PKCE."""
    words = ("login", "--endpoint", running.base_url, "--auth-type", "pkce")
    with opening_a_browser(home, *words, **environ) as login:
        yield login


@contextmanager
def opening_a_browser(home: Home, *words: str, **environ: str) -> Iterator[Login]:
    """``flyteauth`` with *words*, whose $BROWSER only hands over where to go."""
    pipe = home.path / "url"
    os.mkfifo(pipe)
    launcher = home.write("browser", f'#!/bin/sh\nprintf %s "$1" > {shlex.quote(str(pipe))}\n')
    launcher.chmod(0o755)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with home.started(*words, BROWSER=str(launcher), **environ) as process:
            ready, _, _ = select.select([reader], [], [], DEADLINE)
            assert ready, "no browser was opened"
            yield Login(process, os.read(reader, 65536).decode())
    finally:
        os.close(reader)
        pipe.unlink()


@contextmanager
def device_login(home: Home, running: Running) -> Iterator[tuple[Login, str]]:
    """A device login, and its code."""
    words = ("login", "--endpoint", running.base_url, "--auth-type", "headless")
    with home.started(*words) as process:
        shown = read_until(process.stderr, "user_code=")
        match = re.search(r"(http://\S+?user_code=([A-Z]{4}-[A-Z]{4}))", shown)
        assert match, shown
        yield Login(process, match[1]), match[2]


def log_in(page: Page, name: str) -> None:
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.get_by_label("User name").fill(name)
    page.get_by_role("button", name="Log in").click()


def decide(page: Page, decision: str) -> None:
    page.get_by_role("button", name=decision, exact=True).click()


def heading(page: Page, title: str) -> None:
    expect(page.get_by_role("heading", name=title)).to_be_visible()


@pytest.fixture
def running(serve: Serve) -> Running:
    return serve(approve="page")


class TestBrowserLogin:
    def test_a_person_logs_in_and_allows(self, home: Home, running: Running, desk: Desk) -> None:
        with browser_login(home, running) as login:
            page = desk.tab(login.url)
            picture(page, "login")
            log_in(page, "bob")
            heading(page, "Allow flytectl?")
            expect(page.get_by_text("wants to act for bob")).to_be_visible()
            picture(page, "consent")
            decide(page, "Allow")
            heading(page, "Signed in")
            expect(page.get_by_text("Signed in as bob to localhost")).to_be_visible()
            picture(page, "callback-signed-in")
            ended = login.ended()
        assert ended.status == 0, ended
        assert "bob" in ended.err
        assert len(home.stored()) == 1
        # Neither the address bar nor the history shows the code.
        assert page.url.endswith("/callback")
        with pytest.raises(Error, match="ERR_CONNECTION_REFUSED"):
            page.reload()
        shown = home.run("token", "--endpoint", running.base_url, "--auth-type", "pkce")
        assert shown.status == 0, shown

    def test_the_keyboard_is_enough(self, home: Home, running: Running, desk: Desk) -> None:
        with browser_login(home, running) as login:
            page = desk.tab(login.url)
            page.wait_for_function(f"({FOCUSED}) === 'alice'")  # the name, which is typed over
            page.keyboard.press("Enter")
            heading(page, "Allow flytectl?")
            order = []
            for _ in range(3):
                page.keyboard.press("Tab")
                order.append(page.evaluate(FOCUSED))
            assert order == ["allow", "deny", "switch"]
            picture(page, "consent-focus")
            page.keyboard.press("Shift+Tab")
            page.keyboard.press("Shift+Tab")
            page.keyboard.press("Enter")
            heading(page, "Signed in")
            assert login.ended().status == 0

    def test_who_denies_is_told_so_on_both_sides(
        self, home: Home, running: Running, desk: Desk
    ) -> None:
        with browser_login(home, running) as login:
            page = desk.tab(login.url)
            log_in(page, "bob")
            decide(page, "Deny")
            expect(page.get_by_role("status")).to_contain_text("access_denied")
            expect(page.get_by_role("heading", name="Signed in")).to_have_count(0)
            picture(page, "callback-denied")
            ended = login.ended()
        assert ended.status == 1, ended
        last = ended.err.splitlines()[-1]
        assert "access_denied" in last
        assert last.endswith("log in again and allow the access")
        assert "Traceback" not in ended.err
        assert home.stored() == {}

    def test_another_name_can_be_chosen(self, home: Home, running: Running, desk: Desk) -> None:
        with browser_login(home, running) as login:
            page = desk.tab(login.url)
            log_in(page, "bob")
            page.get_by_role("button", name="Log in with another name").click()
            log_in(page, "x" * 5 + "\u202e")
            expect(page.get_by_role("alert")).to_contain_text("visible characters")
            page.wait_for_function("document.activeElement.name === 'username'")
            picture(page, "login-refused")
            log_in(page, "carol")
            expect(page.get_by_text("wants to act for carol")).to_be_visible()
            decide(page, "Allow")
            heading(page, "Signed in")
            ended = login.ended()
        assert ended.status == 0
        assert "carol" in ended.err

    def test_a_reload_and_a_second_tab_do_no_harm(
        self, home: Home, running: Running, desk: Desk, held: Held
    ) -> None:
        with browser_login(home, running) as login:
            first, second, reloaded = desk.tab(login.url), desk.tab(login.url), desk.tab()
            log_in(first, "bob")
            second.reload()  # the same browser, so bob is there
            heading(second, "Allow flytectl?")
            with first.expect_request("**/callback?*") as redirect:
                first.get_by_role("button", name="Allow").click(no_wait_after=True)
            assert held.began.wait(DEADLINE)  # the code is being redeemed
            reloaded.evaluate("url => { location = url }", redirect.value.url)
            decide(second, "Allow")
            heading(second, "Already received")
            picture(second, "callback-second-tab")
            held.release.set()
            heading(first, "Signed in")
            heading(reloaded, "Signed in")
            ended = login.ended()
        assert ended.status == 0, ended
        assert running.plane.count(grant_type="authorization_code", status=200) == 1
        assert running.plane.count(grant_type="authorization_code") == 1

    def test_the_tab_of_an_older_login_changes_nothing(
        self, home: Home, running: Running, desk: Desk
    ) -> None:
        where = f"http://localhost:{free_port()}/callback"
        with browser_login(home, running, FLYTE_ADMIN_REDIRECTURI=where) as login:
            stale = desk.tab(login.url)
            log_in(stale, "bob")
            assert login.interrupt().status == 130
        with browser_login(home, running, FLYTE_ADMIN_REDIRECTURI=where) as login:
            decide(stale, "Allow")
            heading(stale, "Not this one")
            expect(stale.get_by_text("This answers another login.")).to_be_visible()
            picture(stale, "callback-another-login")
            assert login.process.poll() is None
            page = desk.tab(login.url)
            decide(page, "Allow")
            heading(page, "Signed in")
            assert login.ended().status == 0

    def test_a_wrong_state_never_ends_a_login(self, home: Home, serve: Serve, desk: Desk) -> None:
        with browser_login(home, serve("wrong-state", approve="page")) as login:
            page = desk.tab(login.url)
            log_in(page, "bob")
            decide(page, "Allow")
            heading(page, "Not this one")
            assert login.process.poll() is None
            assert login.interrupt().status == 130
        assert home.stored() == {}

    def test_a_request_that_cannot_be_answered_gets_a_page(
        self, running: Running, desk: Desk
    ) -> None:
        page = desk.tab(f"{running.base_url}/oauth2/authorize?client_id=flytectl")
        heading(page, "This request cannot be answered")
        expect(page.get_by_text("redirect_uri is missing")).to_be_visible()
        picture(page, "error")
        page.goto(running.base_url)
        picture(page, "home")


def test_the_demo_waits_for_the_person_in_their_browser(home: Home, desk: Desk) -> None:
    with opening_a_browser(home, "demo", "--browser") as login:
        page = desk.tab(login.url)
        log_in(page, "erin")
        decide(page, "Allow")
        heading(page, "Signed in")
        ended = login.ended()
    assert ended.status == 0, ended
    assert "logged in as erin" in ended.out


class TestDeviceLogin:
    def test_the_complete_link_needs_no_typing(
        self, home: Home, running: Running, desk: Desk
    ) -> None:
        with device_login(home, running) as (login, code):
            page = desk.tab(login.url)
            log_in(page, "dora")
            expect(page.get_by_text(code)).to_be_visible()
            picture(page, "device-consent")
            decide(page, "Allow")
            heading(page, "Access allowed")
            expect(page.get_by_text("may now act for dora")).to_be_visible()
            picture(page, "device-allowed")
            ended = login.ended()
            assert ended.status == 0, ended
            assert "dora" in ended.err
            assert len(home.stored()) == 1
            page.reload()  # sends the decision once more
            expect(page.get_by_role("alert")).to_contain_text("used already")

    def test_the_code_is_typed_and_a_wrong_one_asked_for_again(
        self, home: Home, running: Running, desk: Desk
    ) -> None:
        with device_login(home, running) as (login, code):
            page = desk.tab(running.base_url)
            page.get_by_role("link", name="Connect a device").click()
            picture(page, "activation")
            page.get_by_label("Code").fill("AAAA-AAAA")
            page.keyboard.press("Enter")
            expect(page.get_by_role("alert")).to_contain_text("unknown")
            picture(page, "activation-refused")
            page.wait_for_function("document.activeElement.name === 'user_code'")
            page.get_by_label("Code").fill(code.replace("-", " ").lower())
            decide(page, "Continue")
            log_in(page, "dora")
            expect(page.get_by_text(code)).to_be_visible()
            decide(page, "Allow")
            heading(page, "Access allowed")
            assert login.ended().status == 0

    def test_who_denies_is_told_so_on_both_sides(
        self, home: Home, running: Running, desk: Desk
    ) -> None:
        with device_login(home, running) as (login, _):
            page = desk.tab(login.url)
            log_in(page, "dora")
            decide(page, "Deny")
            heading(page, "Access denied")
            picture(page, "device-denied")
            ended = login.ended()
        assert ended.status == 1, ended
        assert "access_denied" in ended.err.splitlines()[-1]
        assert home.stored() == {}


@define
class Held:
    """The next code is redeemed only after ``release``; ``began`` says that it has arrived."""

    began: threading.Event = field(factory=threading.Event)
    release: threading.Event = field(factory=threading.Event)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held, answer = Held(), Application.__call__

    async def slowly(self: Application, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == TOKEN_PATH:
            held.began.set()
            await asyncio.to_thread(held.release.wait, DEADLINE)
        await answer(self, scope, receive, send)

    monkeypatch.setattr(Application, "__call__", slowly)
    yield held
    held.release.set()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: Any = probe.getsockname()[1]
        return int(port)
