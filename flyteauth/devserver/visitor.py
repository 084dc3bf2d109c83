"""
A user agent without a person: it follows the login and activation pages like a browser, and says
yes (or no) where they ask. ``python -m flyteauth.devserver.visitor URL`` makes it a $BROWSER.
"""

from __future__ import annotations

import http.cookiejar
import sys
import urllib.error
import urllib.request
from html.parser import HTMLParser
from typing import Final, Literal
from urllib.parse import urlencode, urljoin

from attrs import define, field

Answer = Literal["allow", "deny"]

PAGES_MAX: Final = 12
TIMEOUT: Final = 20.0  # seconds a page; the last one waits until the code is redeemed


@define
class _Form:
    action: str
    fields: dict[str, str] = field(factory=dict)
    buttons: list[tuple[str, str]] = field(factory=list)


class _Reader(HTMLParser):
    """The forms of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[_Form] = []
        self.text: list[str] = []
        self._silent = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        name, value = given.get("name", ""), given.get("value", "")
        self._silent = tag in {"style", "script", "title"}
        if tag == "form":
            self.forms.append(_Form(given.get("action", "")))
        elif tag == "button" and self.forms:
            self.forms[-1].buttons.append((name, value))
        elif tag == "input" and self.forms and name:
            self.forms[-1].fields[name] = value

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent and (words := " ".join(data.split())):
            self.text.append(words)


def visit(url: str, answer: Answer = "allow", username: str = "alice") -> str:
    """Log in and *answer*, beginning at *url*; the text of the page where it ends."""
    cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    direct = urllib.request.ProxyHandler({})  # loopback never goes through a proxy
    browser = urllib.request.build_opener(cookies, direct)
    body: bytes | None = None
    page = _Reader()
    for _ in range(PAGES_MAX):
        try:
            with browser.open(url, body, TIMEOUT) as response:
                url, html = response.geturl(), response.read()
        except urllib.error.HTTPError as error:
            with error:
                url, html = error.geturl(), error.read()
        page = _Reader()
        page.feed(html.decode("utf-8", "replace"))
        if not page.forms:
            break
        form = page.forms[0]
        fields = dict(form.fields)
        if "username" in fields:
            fields["username"] = username
        fields |= dict(_chosen(form, answer))
        url, body = urljoin(url, form.action), urlencode(fields).encode()
    return " ".join(page.text)


def _chosen(form: _Form, answer: Answer) -> list[tuple[str, str]]:
    """The button that gives *answer*, or else the first one; those without a name say nothing."""
    named = [button for button in form.buttons if button[0]]
    return [button for button in named if button[1] == answer][:1] or named[:1]


if __name__ == "__main__":
    visit(sys.argv[1])
