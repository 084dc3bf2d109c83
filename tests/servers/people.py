"""People at the pages of other servers, without a browser."""

from __future__ import annotations

import threading
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Final
from urllib.parse import urljoin

import anyio.to_thread
import httpx
from attrs import field, frozen

from flyteauth.events import AuthEvent, BrowserNeeded, CodeNeeded

LIMIT: Final = 30.0
PAGES_MAX: Final = 12
TYPED: Final = {"login": "alice", "username": "alice", "password": "an-alice"}


@frozen
class Page:
    """Where a person is: what the first form there would send, and where to."""

    url: str
    status: int
    text: str = field(repr=False)
    action: str | None = None
    fields: dict[str, str] = field(factory=dict)


Decide = Callable[[Page], dict[str, str] | str | None]
"""What a person sends from a page, or the address that they go to; None if they stay there."""


class _Forms(HTMLParser):
    """The first form of a page: its fields, and where it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and self.action is None:
            self.action, self._inside = given.get("action", ""), True
        elif tag == "input" and self._inside and "name" in given:
            self.fields[given["name"]] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "form"


def allow(page: Page) -> dict[str, str]:
    """Log in, and agree to everything."""
    return {**page.fields, **{name: TYPED[name] for name in page.fields if name in TYPED}}


def visit(url: str, decide: Decide = allow) -> Page:
    """The page where a person ends who begins at *url*."""
    with httpx.Client(follow_redirects=True, trust_env=False, timeout=LIMIT) as browser:
        page = _read(browser.get(url))
        for _ in range(PAGES_MAX):
            if page.action is None:
                return page
            match decide(page):
                case str(link):
                    page = _read(browser.get(urljoin(page.url, link)))
                case None:
                    return page
                case form:
                    page = _read(browser.post(urljoin(page.url, page.action), data=form))
    raise AssertionError(f"there is no end to the pages: {page}")


def _read(response: httpx.Response) -> Page:
    forms = _Forms()
    forms.feed(response.text)
    return Page(str(response.url), response.status_code, response.text, forms.action, forms.fields)


class Person:
    """A presenter: a person who goes, in a thread, to the address that they are shown."""

    def __init__(self, script: Callable[[str], Page] = visit) -> None:
        self._script = script
        self._thread: threading.Thread | None = None
        self._pages: list[Page] = []
        self._errors: list[BaseException] = []
        self.seen: list[AuthEvent] = []

    async def show(self, event: AuthEvent) -> None:
        self.seen.append(event)
        match event:
            case BrowserNeeded(url=url) | CodeNeeded(url_with_code=str(url)):
                self._thread = threading.Thread(target=self._run, args=(url,), daemon=True)
                self._thread.start()

    def _run(self, url: str) -> None:
        try:
            self._pages.append(self._script(url))
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            self._errors.append(error)

    async def page(self) -> Page:
        """Where they end."""
        assert self._thread is not None
        await anyio.to_thread.run_sync(self._thread.join, LIMIT)
        for error in self._errors:
            raise error
        return self._pages[0]

    def told(self, kind: type[AuthEvent]) -> int:
        return sum(isinstance(event, kind) for event in self.seen)
