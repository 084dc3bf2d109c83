"""A login in a notebook's cell: one card, kept up to date, and harmless in the end."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from types import ModuleType
from typing import Any

import anyio
import pytest
from attrs import define, evolve, field

from flyteauth._io.notebook import Notebook
from flyteauth._io.presenter import Attending, Waiting, default, person_present
from flyteauth._io.terminal import Terminal
from flyteauth.events import (
    AuthEvent,
    BrowserNeeded,
    CodeNeeded,
    LoggedIn,
    MethodChosen,
    Refreshed,
    Warned,
)

pytestmark = pytest.mark.anyio
DEVICE = CodeNeeded("WDJB-MJHT", "https://a/activate", "https://a/activate?c=WDJB-MJHT", 0.0)
BROWSER = BrowserNeeded("https://a/authorize?state=1")
METHOD = MethodChosen("flyte.example.com", "device", "a notebook has no browser of its own")


class Page(HTMLParser):
    """What a browser makes of a cell's output."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "

    @property
    def links(self) -> list[str | None]:
        return [attrs["href"] for tag, attrs in self.tags if tag == "a"]


@define
class Cell:
    """The front end: outputs in order, and what each shows now."""

    outputs: dict[str, dict[str, str]] = field(factory=dict)
    updates: int = 0
    on_update: Callable[[], None] = lambda: None
    broken: bool = False

    def display(self, data: Any, *, raw: bool, display_id: str = "", update: bool = False) -> None:
        if self.broken:
            raise RuntimeError("no front end")
        assert raw
        assert set(data) == {"text/html", "text/plain"}
        key = display_id or f"anonymous {len(self.outputs)}"
        assert update is (key in self.outputs)
        self.updates += update
        self.outputs[key] = data
        self.on_update()

    @property
    def html(self) -> list[Page]:
        return [Page(data["text/html"]) for data in self.outputs.values()]

    @property
    def text(self) -> list[str]:
        return [data["text/plain"] for data in self.outputs.values()]


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    """IPython, as far as it is needed."""
    cell = Cell()

    class Shell:
        kernel = object()

    package, display = ModuleType("IPython"), ModuleType("IPython.display")
    package.get_ipython = Shell  # type: ignore[attr-defined]
    display.display = cell.display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return cell


def waiting(lasts: float = 252.0) -> Waiting:
    return Waiting(lasts, lambda: 0.0)


async def test_a_kernel_is_recognised(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    presenter = default()
    assert isinstance(presenter, Notebook)
    assert isinstance(presenter, Attending)
    assert presenter.is_attended()
    assert person_present()
    sys.modules["IPython"].get_ipython = object  # type: ignore[attr-defined]
    assert isinstance(default(), Terminal)  # IPython at a terminal
    monkeypatch.delitem(sys.modules, "IPython")
    assert isinstance(default(), Terminal)


@pytest.mark.req("DEV-10")
async def test_link_and_code_are_in_the_cell(cell: Cell) -> None:
    presenter = Notebook()
    await presenter.show(METHOD)
    await presenter.show(DEVICE)
    (page,) = cell.html
    assert page.links == [DEVICE.url_with_code]
    assert DEVICE.url in page.text
    (code,) = [attrs for tag, attrs in page.tags if tag == "code"]
    assert "user-select:all" in str(code["style"])
    assert " WDJB-MJHT " in page.text
    assert "because a notebook has no browser of its own" in page.text
    (link,) = [attrs for tag, attrs in page.tags if tag == "a"]
    assert (link["target"], link["rel"]) == ("_blank", "noopener noreferrer")
    (text,) = cell.text
    assert {DEVICE.url_with_code, "    WDJB-MJHT"} <= set(text.splitlines())


async def test_a_race_is_one_card(cell: Cell) -> None:
    presenter = Notebook()
    await presenter.show(evolve(BROWSER, returns=False, obstacle="it runs elsewhere"))
    await presenter.show(evolve(DEVICE, url_with_code=None, alternative=True))
    (page,) = cell.html
    assert page.links == [BROWSER.url, DEVICE.url]
    assert "cannot come back here by itself (it runs elsewhere)" in page.text


async def test_the_card_lives_while_the_login_waits_and_then_says_how_it_ended(cell: Cell) -> None:
    presenter = Notebook()
    await presenter.show(METHOD)
    await presenter.show(DEVICE)
    times = iter([0.0, 0.95, 1.0, 1.95, 2.0, 2.5])
    seen: list[str] = []
    with anyio.fail_after(10), anyio.CancelScope() as scope:

        def look() -> None:
            seen.append(cell.text[0].splitlines()[-1])
            if "4:10 left" in seen[-1]:
                scope.cancel()

        cell.on_update = look
        await presenter.attend(Waiting(252.0, lambda: next(times)))
    waits = [f"Waiting for you to log in · 4:{left} left" for left in (12, 11, 10)]
    assert list(dict.fromkeys(seen)) == [*waits, "This login does not wait for you any more."]
    (page,) = cell.html
    assert page.text == "This login does not wait for you any more. "
    await presenter.show(LoggedIn("flyte.example.com", "ada", None, "the keyring"))
    (page,) = cell.html
    assert page.links == []
    assert "Logged in to flyte.example.com as ada." in page.text
    assert "WDJB" not in str(cell.outputs)


async def test_the_next_login_has_a_card_of_its_own(cell: Cell) -> None:
    presenter = Notebook()
    for _ in range(2):
        await presenter.show(DEVICE)
        await presenter.show(LoggedIn("host", None, None, "the keyring"))
    await presenter.show(BROWSER)
    await presenter.show(BROWSER)
    assert len(cell.outputs) == 4


async def test_without_a_card_news_are_outputs_of_their_own(cell: Cell) -> None:
    presenter = Notebook()
    for event in (LoggedIn("host", None, None, "x"), Warned("careful"), Refreshed("host", None)):
        await presenter.show(event)
    assert cell.text == [
        "Logged in to host. The login is kept in x, and renews itself.",
        "flyteauth: careful",
    ]


@pytest.mark.req("ERR-01", "HTM-01", "DEV-13")
@pytest.mark.parametrize(
    "event",
    [
        Warned("<script>x</script>\x1b[2J"),
        MethodChosen("<script>", "browser", "<script>\u202e"),
        BrowserNeeded("https://a/?<script>'\"\x1b", returns=False, obstacle="<script>"),
        CodeNeeded("<script>\x1b", "https://a/\"onclick='<script>", "https://<script>", 0.0),
        BrowserNeeded("javascript:alert(1)"),
        CodeNeeded("A", "javascript:alert(1)", "data:text/html,<script>", 0.0),
    ],
)
async def test_nothing_that_comes_from_elsewhere_becomes_markup(
    cell: Cell, event: AuthEvent
) -> None:
    presenter = Notebook()
    await presenter.show(event)
    await presenter.show(BROWSER)
    for page in cell.html:
        assert {tag for tag, _ in page.tags} <= {"div", "a", "code"}
        assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
        assert all(str(link).startswith("https://") for link in page.links)
    assert not set(str(cell.outputs.values())) & set("\x1b\u202e")


async def test_nothing_is_loaded_from_elsewhere(cell: Cell) -> None:
    presenter = Notebook()
    await presenter.show(DEVICE)
    (data,) = cell.outputs.values()
    assert "src=" not in data["text/html"]
    assert "url(" not in data["text/html"]


async def test_a_login_without_end_shows_no_time(cell: Cell) -> None:
    presenter = Notebook()
    await presenter.show(DEVICE)
    seen: list[str] = []
    cell.on_update = lambda: seen.append(cell.text[0])
    with anyio.move_on_after(0.05):
        await presenter.attend(waiting(math.inf))
    assert seen[0].endswith("Waiting for you to log in")


async def test_a_front_end_that_is_gone_does_not_end_a_login(cell: Cell) -> None:
    cell.broken = True
    presenter = Notebook()
    await presenter.show(DEVICE)
    with anyio.move_on_after(0.05) as scope:
        await presenter.attend(waiting())
    assert scope.cancelled_caught
