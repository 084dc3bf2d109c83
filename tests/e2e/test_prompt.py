"""``flyteauth login`` at a terminal, as a person sees it and types at it."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from flyteauth.devserver import visitor
from flyteauth.devserver.serve import Running

from ..io.screens import seen
from .conftest import TOKEN, AtTerminal, Home, Serve, Terminals

COLUMNS = [40, 80, 200]
URL = re.compile(r"https?://[!-~]+")
CODE = re.compile(r"\b[A-Z0-9]{4}-[A-Z0-9]{4}\b")
WAITING = "left · Ctrl-C to cancel"
DESKTOP = {"BROWSER": "true %s"}  # opens, and shows nothing to anybody


def page_at(terminal: AtTerminal) -> str:
    """The first address that is shown, from what the terminal got: in one piece."""
    found = URL.search(terminal.data.decode())
    assert found, terminal.view.text
    return found.group()


def code_at(terminal: AtTerminal) -> str:
    found = CODE.search(terminal.view.text)
    assert found, terminal.view.text
    return found.group()


def by_code(at_terminal: Terminals, running: Running, **more: object) -> AtTerminal:
    terminal = at_terminal("login", "--endpoint", running.base_url, "--headless", **more)
    terminal.sees(WAITING)
    return terminal


def by_browser(at_terminal: Terminals, running: Running, **more: object) -> AtTerminal:
    more = {**DESKTOP, **more}
    terminal = at_terminal("login", "--endpoint", running.base_url, **more)
    terminal.sees("Enter")
    terminal.sees(WAITING)
    return terminal


PROMPTS = pytest.mark.parametrize("prompt", [by_code, by_browser])
Prompt = Callable[..., AtTerminal]


def redirect_of(url: str) -> str:
    """Where a browser ends after a login at *url*, on a machine that cannot be reached from it."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, request, file, code, message, headers, to):  # type: ignore[no-untyped-def]
            if "/callback" in urlsplit(to).path:
                file.close()
                raise urllib.error.URLError(to)
            return super().redirect_request(request, file, code, message, headers, to)

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), Stay())
    with pytest.raises(urllib.error.URLError) as error:
        opener.open(url, timeout=20)
    return str(error.value.reason)


# What is seen.


@pytest.mark.req("AZR-16", "DEV-10")
@pytest.mark.parametrize("columns", COLUMNS)
def test_a_code_is_seen_with_its_address_and_the_time_left(
    at_terminal: Terminals, serve: Serve, home: Home, columns: int
) -> None:
    running = serve(approve="page")
    terminal = by_code(at_terminal, running, columns=columns)
    text = terminal.view.text
    code = code_at(terminal)
    assert "by device code, because authType is DeviceFlow" in terminal.view.prose
    assert page_at(terminal) == f"{running.base_url}/activate?user_code={code}"
    lines = terminal.data.decode().replace("\r\n", "\n").splitlines()
    assert page_at(terminal) in lines
    assert f"{running.base_url}/activate" in "".join(text.splitlines())
    assert re.search(r"(9:5\d|10:00) left", text)
    assert bool(terminal.view.qr()) is (columns > 40)
    assert "paste" not in text.lower()

    visitor.visit(page_at(terminal))
    ended = terminal.ends()
    assert (ended.status, ended.out, ended.restored) == (0, "", True)
    assert "✓ Logged in to " in terminal.view.text
    assert " left" not in terminal.view.text
    assert TOKEN.fullmatch(home.run("token", "--endpoint", running.base_url).out)


@pytest.mark.parametrize("columns", COLUMNS)
def test_a_race_is_seen_as_browser_code_and_paste_in_that_order(
    at_terminal: Terminals, serve: Serve, columns: int
) -> None:
    running = serve(approve="page")
    terminal = by_browser(at_terminal, running, columns=columns)
    said = terminal.view.prose
    parts = [
        "by browser, because",
        "Opening your browser",
        "Or open this address in any browser, on any device:",
        f"and enter the code {code_at(terminal)}",
        "Or paste here the address at which your browser ended, and press Enter.",
        "Waiting",
    ]
    places = [said.find(part) for part in parts]
    assert -1 not in places, terminal.view.text
    assert places == sorted(places)
    lines = terminal.data.decode().replace("\r\n", "\n").splitlines()
    assert {page_at(terminal), f"{running.base_url}/activate"} <= set(lines)

    visitor.visit(page_at(terminal))
    ended = terminal.ends()
    assert (ended.status, ended.out, ended.restored) == (0, "", True)
    assert "✓ Logged in to " in terminal.view.text
    assert " left" not in terminal.view.text


# What is typed.


def test_the_code_of_a_race_can_be_used_instead_of_the_browser(
    at_terminal: Terminals, serve: Serve
) -> None:
    running = serve(approve="page")
    terminal = by_browser(at_terminal, running)
    visitor.visit(f"{running.base_url}/activate?user_code={code_at(terminal)}")
    ended = terminal.ends()
    assert (ended.status, ended.restored) == (0, True)


@pytest.mark.parametrize("columns", [40, 80])
def test_where_the_browser_cannot_come_back_its_address_is_pasted(
    at_terminal: Terminals, serve: Serve, columns: int
) -> None:
    running = serve()
    with socket.socket() as taken, socket.socket(socket.AF_INET6) as other:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        other.bind(("::1", port))
        taken.listen()
        other.listen()
        redirect_uri = f"http://localhost:{port}/callback"
        terminal = by_browser(
            at_terminal, running, columns=columns, FLYTE_ADMIN_REDIRECTURI=redirect_uri
        )
        said = terminal.view.prose
        assert f"by itself (port {port} is held by" in said
        assert "its last page will look like an error. That is fine" in said
        assert "Paste that address here, and press Enter." in said

        terminal.types("https://elsewhere.example/?code=stray\r")
        terminal.sees("this is not where your browser should end")
        terminal.types(redirect_of(page_at(terminal)) + "\r")
        ended = terminal.ends()
    assert (ended.status, ended.out, ended.restored) == (0, "", True)
    assert "✓ Logged in to " in terminal.view.text
    assert "code=" not in terminal.view.prose.partition("Paste that address")[2]


# How it ends otherwise.


@pytest.mark.req("DEV-14")
@PROMPTS
def test_ctrl_c_ends_it_at_once_and_cleanly(
    at_terminal: Terminals, serve: Serve, prompt: Prompt
) -> None:
    terminal = prompt(at_terminal, serve(approve="page"))
    terminal.types("\x03")
    ended = terminal.ends()
    assert (ended.status, ended.out, ended.restored) == (130, "", True)
    assert ended.seconds < 1.0 + 0.5  # the process's own end included
    text = terminal.view.text
    assert "interrupted" in text.splitlines()[-1]
    assert "Traceback" not in text
    assert " left" not in text


@PROMPTS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_polite_end_leaves_the_terminal_as_it_was(
    at_terminal: Terminals, serve: Serve, prompt: Prompt, number: int
) -> None:
    terminal = prompt(at_terminal, serve(approve="page"))
    os.kill(terminal.pid, number)
    ended = terminal.ends()
    assert (ended.status, ended.out, ended.restored) == (128 + number, "", True)
    assert "Traceback" not in terminal.view.text


def test_a_code_that_expires_is_said_in_one_line(at_terminal: Terminals, serve: Serve) -> None:
    terminal = by_code(at_terminal, serve(approve="page", device_ttl=3))
    ended = terminal.ends()
    assert (ended.status, ended.out, ended.restored) == (1, "", True)
    last = terminal.view.text.splitlines()[-1]
    assert last.startswith("flyteauth: ")
    assert "not approved in time; log in again" in last
    assert " left" not in terminal.view.text
    assert "Traceback" not in terminal.view.text


def test_a_no_is_said_in_one_line(at_terminal: Terminals, serve: Serve) -> None:
    terminal = by_code(at_terminal, serve(approve="page"))
    visitor.visit(page_at(terminal), "deny")
    ended = terminal.ends()
    assert (ended.status, ended.restored) == (1, True)
    assert "access_denied" in terminal.view.prose


def test_a_job_in_the_background_is_neither_stopped_nor_in_the_way(
    at_terminal: Terminals, serve: Serve
) -> None:
    running = serve(approve="page")
    terminal = at_terminal("login", "--endpoint", running.base_url, place="background", **DESKTOP)
    terminal.sees("/oauth2/authorize?")
    visitor.visit(page_at(terminal))
    ended = terminal.ends()
    assert (ended.status, ended.out, ended.restored) == (0, "", True)
    assert "Logged in to " in terminal.view.text
    assert " left" not in terminal.view.text


def test_a_dumb_terminal_sees_plain_lines(at_terminal: Terminals, serve: Serve) -> None:
    running = serve(approve="page")
    terminal = at_terminal("login", "--endpoint", running.base_url, "--headless", TERM="dumb")
    terminal.sees("Waiting for you to log in; Ctrl-C to cancel.")
    visitor.visit(page_at(terminal))
    assert terminal.ends().status == 0
    assert b"\x1b" not in terminal.data


def test_the_time_left_is_counted_down_in_its_place(at_terminal: Terminals, serve: Serve) -> None:
    terminal = by_code(at_terminal, serve(approve="page"))
    first = re.search(r"(\d+:\d\d) left", terminal.view.text)
    assert first
    began = time.monotonic()
    while f"{first.group(1)} left" in terminal.sees(WAITING):
        assert time.monotonic() < began + 10
    assert terminal.view.text.count(" left") == 1
    assert seen(terminal.data, 80, 24).text.count(" left") == 1
