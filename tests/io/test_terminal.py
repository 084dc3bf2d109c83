"""The prompt on a pseudo-terminal: what stands there, what can be pasted, and what is left behind."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import termios
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import anyio
import pytest
from attrs import define, field

from flyteauth._io import terminal as module, tty
from flyteauth._io.presenter import Attending, Waiting
from flyteauth._io.terminal import Terminal
from flyteauth.events import BrowserNeeded, CodeNeeded, LoggedIn, MethodChosen, Refreshed, Warned

from .screens import Seen, seen

pytestmark = pytest.mark.anyio
PATIENCE = 10.0
URL = "https://login.example.com/authorize?" + "x" * 300
WAITING = "Waiting for you to log in"


@define
class Person:
    """Somebody at a terminal: what they see, and what they type."""

    ours: int
    theirs: int
    columns: int
    reads: bool = True
    data: bytes = b""
    files: list[TextIO] = field(factory=list)

    def presenter(self) -> Terminal:
        self.files = [
            io.TextIOWrapper(io.FileIO(os.dup(self.theirs), mode), encoding="utf-8")
            for mode in ("w", "r")
        ]
        return Terminal(*self.files)

    @property
    def view(self) -> Seen:
        return seen(self.data, self.columns, 24)

    @property
    def mode(self) -> list[Any]:
        mode: list[Any] = termios.tcgetattr(self.theirs)
        return mode

    def look(self) -> None:
        with suppress(BlockingIOError):
            while data := os.read(self.ours, 65536):
                self.data += data

    async def sees(self, condition: Callable[[Seen], bool] | str) -> None:
        """Look until it is there."""
        if isinstance(condition, str):
            text = condition
            condition = lambda view: text in view.prose  # noqa: E731
        with anyio.fail_after(PATIENCE):
            while True:
                self.look()
                if condition(self.view):
                    return
                await anyio.wait_readable(self.ours)

    async def is_quiet(self, quiet: bool = True) -> None:
        with anyio.fail_after(PATIENCE):
            while bool(self.mode[3] & termios.ECHO) == quiet:  # noqa: ASYNC110  # nobody tells
                await anyio.sleep(0.005)

    async def types(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self.ours, data) :]
            except BlockingIOError:
                await anyio.wait_writable(self.ours)


@contextmanager
def at_terminal(columns: int = 80) -> Iterator[Person]:
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    person = Person(ours, theirs, columns)
    try:
        yield person
    finally:
        for file in person.files:
            with suppress(OSError):
                file.close()
        for end in {ours, theirs}:
            with suppress(OSError):
                os.close(end)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a foreground job at a plain terminal; the pseudo-terminals here control nobody."""
    for name in ("NO_COLOR", "COLUMNS", "LINES", "TERM_PROGRAM", "VTE_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(tty, "in_foreground", lambda terminal: True)


def waiting(paste: Callable[[str], str | None] | None = None, lasts: float = 252.0) -> Waiting:
    return Waiting(time.monotonic() + lasts, time.monotonic, paste)


async def attended(
    person: Person,
    to_wait: Waiting,
    body: Callable[[Terminal], Awaitable[None]],
) -> Terminal:
    """*body* while a login waits at *person*'s terminal, which is then as it was."""
    presenter, before = person.presenter(), person.mode
    with anyio.fail_after(4 * PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(presenter.attend, to_wait)
            await body(presenter)
            group.cancel_scope.cancel()
    assert person.mode == before
    return presenter


async def test_a_terminal_is_attended() -> None:
    with at_terminal() as person:
        presenter = person.presenter()
        assert isinstance(presenter, Attending)
        assert presenter.is_attended()


async def test_nobody_attends_a_pipe_or_a_job_in_the_background(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not Terminal(io.StringIO(), io.StringIO()).is_attended()
    with at_terminal() as person:
        presenter = person.presenter()
        monkeypatch.setattr(tty, "in_foreground", lambda terminal: False)
        assert not presenter.is_attended()


async def test_a_pipe_gets_plain_whole_lines_and_waits_in_silence() -> None:
    stream = io.StringIO()
    presenter = Terminal(stream, io.StringIO())
    await presenter.show(MethodChosen("host", "device", "there is no display"))
    await presenter.show(CodeNeeded("AB-CD", "https://a/d", "https://a/d?c=AB-CD", 0.0))
    await presenter.show(BrowserNeeded(URL, returns=False, obstacle="the port is taken"))
    await presenter.show(Refreshed("host", None))
    with anyio.move_on_after(0.05):
        await presenter.attend(waiting(lambda text: None))
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    assert text.startswith("Logging in to host by device code, because there is no display.\n")
    assert {"https://a/d?c=AB-CD", "    AB-CD", URL} <= set(text.splitlines())
    assert "cannot come back here by itself (the port is taken)" in text
    assert text.endswith("address bar.\n\n")


@pytest.mark.parametrize("columns", [40, 80, 200])
async def test_the_prompt_as_it_is_seen(columns: int) -> None:
    with at_terminal(columns) as person:
        presenter = person.presenter()
        await presenter.show(MethodChosen("host", "browser", ""))
        await presenter.show(BrowserNeeded(URL))
        await person.sees("x" * (300 % columns))
        assert URL.encode() in person.data
        assert b"\x1b]8" not in person.data
        assert person.view.lines[:2] == ["Logging in to host by browser.", ""]


async def test_a_prompt_stands_apart_from_what_was_said_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")  # no QR code, which has empty lines of its own
    with at_terminal() as person:
        presenter = person.presenter()
        await presenter.show(Warned("careful"))
        await presenter.show(CodeNeeded("?", "https://a/d", None, 0.0))
        await presenter.show(CodeNeeded("!", "https://a/d", None, 0.0))
        await person.sees("!")
        lines = person.view.lines
        assert lines[:2] == ["flyteauth: careful", ""]
        first, second = (n for n, line in enumerate(lines) if line.startswith("To log in"))
        assert first == 2
        assert lines[second - 2 : second] == ["?", ""]


async def test_a_known_terminal_gets_a_link_with_the_url_as_its_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM_PROGRAM", "WezTerm")
    with at_terminal() as person:
        await person.presenter().show(BrowserNeeded(URL))
        await person.sees("x" * 10)
        link = f"\n\x1b]8;;{URL}\x1b\\{URL}\x1b]8;;\x1b\\\r\n"
        assert link.encode() in person.data


@pytest.mark.parametrize(
    ("environ", "can"),
    [
        ({"TERM_PROGRAM": "iTerm.app"}, True),
        ({"TERM_PROGRAM": "Apple_Terminal"}, False),
        ({"VTE_VERSION": "7600"}, True),
        ({"VTE_VERSION": "4800"}, False),
        ({"VTE_VERSION": "new"}, False),
        ({"KITTY_WINDOW_ID": "1"}, True),
        ({"KONSOLE_VERSION": "220400"}, True),
        ({"WT_SESSION": "x"}, True),
        ({"KITTY_WINDOW_ID": "1", "TMUX": "/tmp/x"}, False),
        ({"KITTY_WINDOW_ID": "1", "TERM": "screen-256color"}, False),
        ({"KITTY_WINDOW_ID": "1", "TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_links_are_for_terminals_known_to_show_them(environ: dict[str, str], can: bool) -> None:
    assert tty.links({"TERM": "xterm-256color", **environ}) is can


async def test_a_dumb_terminal_gets_lines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with at_terminal() as person:

        async def body(presenter: Terminal) -> None:
            await presenter.show(CodeNeeded("AB-CD", "https://a/d", None, 0.0))
            await person.sees("Waiting for you to log in; Ctrl-C to cancel.")
            await person.sees("AB-CD")

        await attended(person, waiting(), body)
        assert b"\x1b" not in person.data
        assert b"\r" not in person.data.replace(b"\r\n", b"")


async def test_no_colour_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with at_terminal() as person:
        presenter = person.presenter()
        await presenter.show(CodeNeeded("AB-CD", "https://a/d", None, 0.0))
        await presenter.show(LoggedIn("host", "ada", None, "/store"))
        await person.sees("Logged in to host as ada")
        assert b"\x1b" not in person.data


@pytest.mark.parametrize("columns", [20, 40, 80])
async def test_a_live_line_counts_down_in_its_place_and_goes_without_a_trace(columns: int) -> None:
    with at_terminal(columns) as person:

        async def body(presenter: Terminal) -> None:
            await person.sees("Waiting" if columns > 20 else "4:12")
            await person.sees("4:11")
            await person.sees("4:10")
            assert sum(":1" in line for line in person.view.lines) == 1

        presenter = await attended(person, waiting(), body)
        person.look()
        assert person.view.text == "\n"
        await presenter.show(LoggedIn("host", "ada", None, "/store"))
        await person.sees("Logged in to")
        assert "4:" not in person.view.text
        assert person.view.lines[0].startswith("✓ Logged in")


async def test_what_is_said_meanwhile_does_not_mix_with_the_live_line() -> None:
    with at_terminal() as person:

        async def body(presenter: Terminal) -> None:
            await person.sees(WAITING)
            await presenter.show(Warned("careful"))
            await person.sees("careful " + WAITING)
            assert person.view.lines[0] == "flyteauth: careful"
            assert person.view.lines[1].startswith(WAITING)

        await attended(person, waiting(), body)


@pytest.mark.parametrize("ending", [b"\r", b"\n", b"\x1b[201~\r"])
async def test_a_long_address_is_pasted_unseen_and_whole(ending: bytes) -> None:
    pasted: list[str] = []
    address = "http://localhost:53593/callback?code=" + "c" * 30000
    with at_terminal() as person:

        async def body(presenter: Terminal) -> None:
            await person.sees("press Enter. It will not be shown. " + WAITING)
            await person.is_quiet()
            await person.types((b"\x1b[200~" if ending[0] == 27 else b"") + address.encode())
            await person.sees("30037 characters pasted · Enter to go on")
            await person.types(ending)
            await person.sees("Logging you in")

        await attended(person, waiting(pasted.append), body)
        assert pasted == [address]
        assert b"ccc" not in person.data


async def test_a_complaint_stands_on_its_own_line_and_one_can_paste_again() -> None:
    pasted: list[str] = []

    def paste(text: str) -> str | None:
        pasted.append(text)
        return None if text == "right" else "this is another login's\x1b[2J; paste the newest"

    with at_terminal() as person:

        async def body(presenter: Terminal) -> None:
            await person.is_quiet()
            await person.types(b"wrongg\x7f\r")
            await person.sees("paste the newest " + WAITING)
            assert "this is another login's\\x1b[2J; paste the newest" in person.view.lines
            await person.types(b"nonsense\x15right\r")
            await person.sees("Logging you in")

        await attended(person, waiting(paste), body)
        assert pasted == ["wrong", "right"]


async def test_a_terminal_of_somebody_else_serves_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """After ``su`` it cannot be opened by its name."""

    def refuse(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr("flyteauth._io.tty.os.open", refuse)
    pasted: list[str] = []
    with at_terminal() as person:

        async def body(presenter: Terminal) -> None:
            await presenter.show(BrowserNeeded(URL))
            await person.sees("4:11")
            await person.types(b"code")
            await person.sees("4 characters pasted")
            await person.types(b"\r")
            await person.sees("Logging you in")
            assert URL.encode() in person.data

        await attended(person, waiting(pasted.append), body)
        assert pasted == ["code"]


async def test_ctrl_d_ends_the_reading_and_the_login_goes_on_waiting() -> None:
    with at_terminal() as person:
        before = person.mode

        async def body(presenter: Terminal) -> None:
            await person.is_quiet()
            await person.types(b"\x04")
            await person.is_quiet(False)
            assert person.mode == before
            await person.sees("4:10")

        await attended(person, waiting(lambda text: "unused"), body)


async def test_ctrl_c_stays_what_it_is() -> None:
    with at_terminal() as person:

        async def body(presenter: Terminal) -> None:
            await person.is_quiet()
            assert person.mode[3] & termios.ISIG

        await attended(person, waiting(lambda text: None), body)


async def test_nothing_is_changed_or_read_where_nothing_can_be_pasted() -> None:
    with at_terminal() as person:
        before = person.mode

        async def body(presenter: Terminal) -> None:
            await person.sees(WAITING)
            assert person.mode == before
            assert "paste" not in person.view.text.lower()

        await attended(person, waiting(), body)


async def test_a_job_in_the_background_leaves_the_terminal_alone_until_it_is_in_front(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    front = False
    monkeypatch.setattr(tty, "in_foreground", lambda terminal: front)
    with at_terminal() as person:
        before = person.mode

        async def body(presenter: Terminal) -> None:
            nonlocal front
            await anyio.sleep(0.1)
            person.look()
            assert person.mode == before
            assert WAITING not in person.view.text
            front = True
            await person.sees(WAITING)
            await person.is_quiet()
            front = False  # as after Ctrl-Z and bg: the shell has its own mode by now
            termios.tcsetattr(person.theirs, termios.TCSANOW, before)

        await attended(person, waiting(lambda text: None), body)


async def test_a_mode_that_a_shell_has_set_back_is_made_quiet_again() -> None:
    with at_terminal() as person:
        before = person.mode

        async def body(presenter: Terminal) -> None:
            await person.is_quiet()
            termios.tcsetattr(person.theirs, termios.TCSANOW, before)  # as after Ctrl-Z and fg
            await person.is_quiet()

        await attended(person, waiting(lambda text: None), body)


async def test_half_a_paste_is_no_command_for_the_shell() -> None:
    for forget in (False, True):
        with at_terminal() as person:
            quiet = tty.Quiet(person.theirs)
            assert quiet.keep()
            await person.types(b"half\n")
            os.set_blocking(person.theirs, False)
            with anyio.fail_after(PATIENCE):
                await anyio.wait_readable(person.theirs)
            quiet.restore(forget=forget)
            with suppress(BlockingIOError):
                assert os.read(person.theirs, 100) == b"half\n"
                assert not forget


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
async def test_the_mode_is_restored_whatever_ends_the_waiting(kind: type[BaseException]) -> None:
    def paste(text: str) -> str | None:
        raise kind

    with at_terminal() as person:
        presenter, before = person.presenter(), person.mode
        await person.types(b"code\n")
        with pytest.raises(kind):
            await presenter.attend(waiting(paste))
        assert person.mode == before


@pytest.mark.parametrize("kind", ["none", "closed", "other"])
async def test_without_a_keyboard_it_waits_without_reading(kind: str) -> None:
    with at_terminal() as person:
        person.presenter()
        keyboard = io.StringIO() if kind == "none" else person.files[1]
        if kind == "other":
            os.dup2(os.open(os.devnull, os.O_RDONLY), keyboard.fileno())
        elif kind == "closed":
            keyboard.close()
        presenter = Terminal(person.files[0], keyboard)
        assert not presenter.is_attended()
        async with anyio.create_task_group() as group:
            group.start_soon(presenter.attend, waiting(lambda text: None))
            await person.sees(WAITING)
            group.cancel_scope.cancel()
        assert "paste" not in person.view.text.lower()


async def test_a_terminal_that_hangs_up_does_not_end_the_waiting() -> None:
    ended = False

    async def attend(presenter: Terminal) -> None:
        nonlocal ended
        await presenter.attend(waiting(lambda text: None))
        ended = True

    with at_terminal() as person:
        presenter = person.presenter()
        async with anyio.create_task_group() as group:
            group.start_soon(attend, presenter)
            await person.is_quiet()
            os.close(person.ours)
            person.ours = person.theirs
            with anyio.fail_after(PATIENCE):
                await presenter.show(Warned("careful"))
            await anyio.sleep(0.1)
            assert not ended
            group.cancel_scope.cancel()


async def test_a_terminal_that_has_stopped_blocks_nothing_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "WRITE_DEADLINE", 0.2)
    gaps: list[float] = []

    async def heartbeat() -> None:
        last = time.monotonic()
        while True:
            await anyio.sleep(0.01)
            gaps.append(time.monotonic() - last)
            last += gaps[-1]

    with at_terminal() as person:
        presenter = person.presenter()
        long = "https://login.example.com/" + "y" * 200_000
        async with anyio.create_task_group() as group:
            group.start_soon(heartbeat)
            with anyio.fail_after(PATIENCE):
                await presenter.show(BrowserNeeded(long))
                await presenter.show(Warned("careful"))
            with anyio.move_on_after(0.3):
                await presenter.attend(waiting(lambda text: None))
            group.cancel_scope.cancel()
        assert max(gaps) < 2.0  # a write that blocks would last for ever
        monkeypatch.setattr(module, "WRITE_DEADLINE", PATIENCE)
        async with anyio.create_task_group() as group:
            group.start_soon(presenter.show, Warned("late"))
            with anyio.fail_after(PATIENCE):
                while b"late" not in person.data:
                    person.look()
                    await anyio.sleep(0.001)
        assert long.encode() in person.data
        assert person.data.index(b"careful") < person.data.index(b"late")


async def test_a_closed_stream_does_not_end_a_login() -> None:
    with at_terminal() as person:
        presenter = person.presenter()
        person.files[0].close()
        await presenter.show(Warned("careful"))
        with anyio.move_on_after(0.05) as scope:
            await presenter.attend(waiting(lambda text: None))
        assert scope.cancelled_caught


async def test_the_size_is_the_terminals_own_or_else_the_environments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "33")
    monkeypatch.setenv("LINES", "11")
    with at_terminal(120) as person:
        assert tty.size(person.theirs) == (120, 24)
        fcntl.ioctl(person.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        assert tty.size(person.theirs) == (33, 11)
