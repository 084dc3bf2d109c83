"""Every text on a page is text, whatever is in it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from flyteauth._sansio.http import Response
from flyteauth.devserver import pages
from flyteauth.devserver.clients import SCOPES

from .harness import Page

NASTY = "\"'><script>alert(1)</script>&amp;<img src=x onerror=alert(1)>{}%s"


def shown(page: str) -> Page:
    return Page(Response(200, (), page.encode(errors="replace")))


def everything(text: str) -> dict[str, str]:
    hidden = {"form_token": text}
    return {
        "login": pages.login(action=text, hidden=hidden, username=text, message=text),
        "consent": pages.consent(
            action=text,
            hidden=hidden,
            username=text,
            client_id=text,
            scopes=[text],
            user_code=text,
            destination=text,
        ),
        "activation": pages.activation(action=text, hidden=hidden, user_code=text, message=text),
        "result": pages.result(text, text, text, ok=True),
        "error": pages.error(text, text, text),
        "home": pages.home(text),
    }


def tags(page: str) -> list[tuple[str, list[str]]]:
    return [(tag, sorted(found)) for tag, found in shown(page).tags]


# A scope that is known is explained, beside its name.
@given(st.text(min_size=1).filter(lambda text: text not in SCOPES) | st.just(NASTY))
def test_no_text_becomes_markup(text: str) -> None:
    plain = everything("plain")
    for name, page in everything(text).items():
        assert tags(page) == tags(plain[name])


def test_texts_are_shown_as_they_are() -> None:
    for name, page in everything(NASTY).items():
        seen = shown(page)
        assert NASTY in seen.text or NASTY in seen.fields.values(), name


def test_fields_and_actions_survive_the_escaping() -> None:
    page = shown(pages.login(action=NASTY, hidden={"form_token": NASTY}, username=NASTY))
    assert page.action == NASTY
    assert page.fields == {"form_token": NASTY, "username": NASTY}


def test_a_scope_says_what_it_means() -> None:
    page = pages.consent(
        action="/", hidden={}, username="alice", client_id="c", scopes=["offline", "other"]
    )
    assert "stay logged in without asking again" in shown(page).text
    assert "other" in shown(page).text


def test_a_message_belongs_to_its_field() -> None:
    for page in (
        pages.login(action="/", hidden={}, username="", message="Another name"),
        pages.activation(action="/", hidden={}, message="Another code"),
    ):
        (field,) = (found for tag, found in shown(page).tags if found.get("type") == "text")
        assert field["aria-invalid"] == "true"
        (said,) = (found for _, found in shown(page).tags if found.get("id") == "message")
        assert said["role"] == "alert"
        assert field["aria-describedby"] == said["id"]
    assert (
        "aria-invalid" not in pages.login(action="/", hidden={}, username="").partition("<body")[2]
    )


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance, of ``#rrggbb`` or ``#rgb``."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = (int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_edges_can_be_seen(scheme: str) -> None:
    style = pages.home("http://localhost").partition("<style>")[2]
    light, dark = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", part)) for part in blocks(style))
    assert light.keys() == dark.keys()
    colours = light if scheme == "light" else dark
    assert contrast("#000", "#fff") == 21
    for text in ("text", "soft", "accent", "good", "bad"):
        assert contrast(colours[text], colours["card"]) >= 4.5, text
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5
    for edge in ("soft", "accent", "bad"):  # of fields, buttons and the focus
        assert contrast(colours[edge], colours["card"]) >= 3, edge


def blocks(style: str) -> list[str]:
    """What follows each ``:root {``: first the light colours, then the dark ones."""
    return [part.partition("}")[0] for part in style.split(":root {")[1:]]


def test_what_stands_in_front_answers_with_a_page() -> None:
    for response in (pages.console(), pages.proxy(502)):
        assert b"<html" in response.body
        assert (response.header("content-type") or "").startswith("text/html")
