"""The prompt as a person sees it, on narrow and wide terminals."""

from __future__ import annotations

import math
import re
from itertools import product

import pytest
import segno
from attrs import evolve
from hypothesis import given, strategies as st

from flyteauth._io import qr
from flyteauth._io.layout import Screen, laid_out, live, paste_hint, remaining
from flyteauth._io.letters import large
from flyteauth.events import (
    AuthEvent,
    BrowserNeeded,
    CodeNeeded,
    LoggedIn,
    LoggedOut,
    MethodChosen,
    Refreshed,
    Warned,
)

from .screens import Seen, seen

CODE = "WDJB-MJHT"
PLACE = "https://signin.hosted.example.com/activate"
DEVICE = CodeNeeded(CODE, PLACE, f"{PLACE}?user_code={CODE}", 0.0)
BROWSER = BrowserNeeded("https://signin.hosted.example.com/oauth2/authorize?" + "x=1&" * 100)
SIZES = [(40, 24), (80, 24), (200, 50)]
OSC8 = re.compile(r"\x1b\]8;;([^\x1b]*)\x1b\\")


def shown(event: AuthEvent, columns: int = 80, rows: int = 24, **screen: bool) -> str:
    modules = None
    if isinstance(event, CodeNeeded):
        modules = qr.matrix(event.url_with_code or event.url)
    return laid_out(event, Screen(columns, rows, **screen), modules)


def large_in(view: Seen, code: str) -> bool:
    """Whether *code* stands there in large letters, on one line or on two."""
    lines = view.lines
    for width in (200, 30):
        rows = [row.rstrip() for row in large(code, width) or [""]]
        for above, column in product(range(len(lines) - len(rows) + 1), range(60)):
            here = [line[column:] for line in lines[above : above + len(rows)]]
            if here == rows:
                return True
    return False


@pytest.mark.req("AZR-16", "DEV-10")
@pytest.mark.parametrize("links", [False, True])
@pytest.mark.parametrize(("columns", "rows"), SIZES)
@pytest.mark.parametrize("event", [DEVICE, BROWSER, evolve(BROWSER, returns=False)])
def test_the_url_stands_alone_on_one_line_that_we_do_not_break(
    event: CodeNeeded | BrowserNeeded, columns: int, rows: int, links: bool
) -> None:
    url = event.url_with_code if isinstance(event, CodeNeeded) else event.url
    assert url is not None
    written = shown(event, columns, rows, links=links)
    assert [OSC8.sub("", line) for line in written.splitlines()].count(url) == 1
    assert OSC8.findall(written).count(url) == links
    # What is copied from the screen is the URL, however often the terminal breaks it.
    assert url in "".join(line.ljust(columns) for line in seen(written, columns, rows).lines)


@pytest.mark.req("DEV-10", "DEV-11")
@pytest.mark.parametrize(("columns", "rows"), SIZES)
@pytest.mark.parametrize("complete", [DEVICE.url_with_code, None, PLACE])
@pytest.mark.parametrize("alternative", [False, True])
def test_code_and_address_are_there_to_be_copied(
    columns: int, rows: int, complete: str | None, alternative: bool
) -> None:
    event = evolve(DEVICE, url_with_code=complete, alternative=alternative)
    written = shown(event, columns, rows)
    assert re.search(rf"(?<![\w-]){CODE}(?!\w)", re.sub(r"\x1b\[[\d;]*m", "\n", written))
    assert re.search(rf"{PLACE}(?!\?)", written)
    if complete != DEVICE.url_with_code:
        assert f"{PLACE}?" not in written


def test_the_code_is_large_where_it_fits() -> None:
    wide, narrow = (seen(shown(DEVICE, columns, 40), columns, 40) for columns in (80, 40))
    assert large_in(wide, CODE)
    assert large_in(narrow, CODE)
    short = seen(shown(DEVICE, 40, 24), 40, 24)  # the URL stays in sight instead
    assert "W D J B - M J H T" in short.lines
    assert len(short.text.splitlines()) < 24
    tiny = seen(shown(DEVICE, 12, 60), 12, 60)
    assert CODE in tiny.lines
    assert "W D" not in tiny.text


@pytest.mark.parametrize("code", ["wdjb", "ÄÖÜ", "A B", "-A", "A--B", ""])
def test_a_code_that_cannot_be_drawn_is_shown_as_it_is(code: str) -> None:
    view = seen(shown(evolve(DEVICE, user_code=code), 80, 24), 80, 24)
    assert " ".join(code.split()) in view.prose


def test_no_two_letters_look_the_same() -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
    drawn = ["\n".join(large(f"{letter}", 5) or []) for letter in letters if letter != "-"]
    assert len(set(drawn)) == len(letters) - 1
    assert all(len(row) == 5 for drawing in drawn for row in drawing.split("\n"))


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (80, 26), (200, 50), (40, 70)])
@pytest.mark.parametrize("complete", [DEVICE.url_with_code, None])
def test_the_qr_code_is_the_url_and_fits_on_one_screen_with_it(
    columns: int, rows: int, complete: str | None
) -> None:
    event = evolve(DEVICE, url_with_code=complete)
    url = complete or PLACE
    written = shown(event, columns, rows) + "live line"
    found = seen(written, columns, rows).qr()
    side = len(found[0])
    wanted = segno.make(url, micro=False, boost_error=False)
    border = (side - len(wanted.matrix)) // 2
    assert border in (2, 4)
    assert found[:side] == [list(row) for row in wanted.matrix_iter(border=border)]
    assert not any(map(any, found[side:]))
    visible = seen(written, columns, rows).screen.display
    assert url in "".join(visible)
    assert "live line" in "".join(visible)


@pytest.mark.parametrize(
    ("columns", "rows", "options"),
    [
        (40, 24, {}),
        (80, 20, {}),
        (80, 24, {"unicode": False}),
        (80, 24, {"colours": False}),  # its polarity would be left to chance
    ],
)
def test_there_is_no_qr_code_where_it_would_not_fit_or_not_be_read(
    columns: int, rows: int, options: dict[str, bool]
) -> None:
    assert seen(shown(DEVICE, columns, rows, **options), columns, rows).qr() == []


def test_a_second_way_is_told_shortly_unless_there_is_much_room() -> None:
    second = evolve(DEVICE, alternative=True)
    assert seen(shown(second, 80, 40), 80, 40).qr() == []
    assert seen(shown(second, 80, 60), 80, 60).qr() != []


def test_without_utf_8_the_prompt_is_ascii() -> None:
    events: list[AuthEvent] = [DEVICE, BROWSER, LoggedIn("host", "ada", None, "/store")]
    text = "".join(shown(event, unicode=False) for event in events)
    screen = Screen(80, 24, unicode=False)
    assert (
        text + live(screen, 60.0, 0, accepted=False) + live(screen, 1, 5, accepted=True)
    ).isascii()


def test_a_browser_that_cannot_come_back_is_explained() -> None:
    event = evolve(BROWSER, returns=False, obstacle="sshd, process 4711, holds port 53593")
    for columns, rows in SIZES:
        screen = Screen(columns, rows)
        told = seen(shown(event, columns, rows) + paste_hint(screen, stranded=True), columns, 60)
        assert "by itself (sshd, process 4711, holds port 53593)" in told.prose
        assert "will look like an error. That is fine" in told.prose
        assert "Paste that address here" in told.prose
    assert "error" not in shown(BROWSER)


def test_the_method_and_why_it_was_chosen_are_said() -> None:
    event = MethodChosen("flyte.example.com", "device", "this is an SSH session")
    said = "Logging in to flyte.example.com by device code, because this is an SSH session."
    assert said in seen(shown(event, 40), 40, 24).prose
    assert shown(MethodChosen("host", "browser", "")) == "Logging in to host by browser.\n\n"


def test_colours_mark_success_and_warnings_only_where_they_may() -> None:
    done, warned = LoggedIn("host", "ada", None, "/store"), Warned("careful")
    assert "\x1b[1;32m✓ \x1b[0mLogged in to host as ada." in shown(done)
    assert shown(warned) == "\x1b[33mflyteauth: careful\x1b[0m\n"
    assert "\x1b" not in shown(done, colours=False) + shown(warned, colours=False)
    assert "\x1b" not in shown(DEVICE, colours=False)
    assert shown(Refreshed("host", None)) == ""
    assert "There was no login" in shown(
        LoggedOut("host", local_deleted=False, remote_revoked=None)
    )


texts = st.text(st.characters(categories=["L", "N", "P", "S", "Cc", "Cf", "Zl", "Zs"]), max_size=80)


@pytest.mark.req("ERR-01", "DEV-13")
@given(
    st.one_of(
        st.builds(MethodChosen, texts, st.sampled_from(["browser", "device"]), texts),
        st.builds(BrowserNeeded, texts, st.booleans(), st.booleans(), texts),
        st.builds(CodeNeeded, texts, texts, st.none() | texts, st.just(0.0), st.booleans()),
        st.builds(LoggedIn, texts, texts, st.none(), texts),
        st.builds(Warned, texts),
    ),
    st.integers(1, 120),
    st.booleans(),
)
def test_nothing_that_comes_from_elsewhere_steers_the_terminal(
    event: AuthEvent, columns: int, links: bool
) -> None:
    text = laid_out(event, Screen(columns, 24, links=links))
    ours = r"\x1b\[(?:1|1;32|33|30;107)?m|\x1b\[0m|\x1b\]8;;[!-~]*\x1b\\"
    left = re.sub(ours, "", text)
    assert not set(left) & set(map(chr, [*range(10), *range(11, 32), *range(127, 160), 0x202E]))


@pytest.mark.parametrize("accepted", [False, True])
@given(
    columns=st.integers(2, 250),
    left=st.floats(-10, 1e6) | st.just(math.inf),
    typed=st.integers(0, 40000),
)
def test_the_live_line_never_reaches_the_edge(
    accepted: bool, columns: int, left: float, typed: int
) -> None:
    assert len(live(Screen(columns, 24), left, typed, accepted=accepted)) < columns


def test_the_live_line_says_what_one_needs() -> None:
    wide, narrow = Screen(80, 24), Screen(40, 24)
    waiting = "Waiting for you to log in · 4:12 left · Ctrl-C to cancel"
    assert live(wide, 252.0, 0, accepted=False) == waiting
    assert live(narrow, 252.0, 0, accepted=False) == "Waiting · 4:12 left · Ctrl-C to cancel"
    assert live(narrow, 252.0, 312, accepted=False) == "312 characters · Enter to go on"
    assert live(wide, math.inf, 0, accepted=True) == "Logging you in · Ctrl-C to cancel"


def test_the_time_left_reads_like_a_clock() -> None:
    times = [0.0, -5.0, 0.2, 59.0, 60.0, 599.5, 3600.0, 3661.0]
    said = ["0:00", "0:00", "0:01", "0:59", "1:00", "10:00", "1:00:00", "1:01:01"]
    assert list(map(remaining, times)) == said


def test_a_url_that_no_terminal_takes_for_a_link_is_none() -> None:
    screen = Screen(80, 24, links=True)
    for url in ("https://a/ b", "https://é", "https://a/\x1b\\", "https://a/" + "x" * 3000):
        assert "\x1b]8" not in screen.link(url)
