"""Every text on a page is text, whatever is in it."""

from __future__ import annotations

from hypothesis import given, strategies as st

from flyteauth._sansio.http import Response
from flyteauth.devserver import pages

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
        "result": pages.result(text, text),
        "error": pages.error(text, text, text),
        "home": pages.home(text),
    }


def tags(page: str) -> list[tuple[str, list[str]]]:
    return [(tag, sorted(found)) for tag, found in shown(page).tags]


@given(st.text(min_size=1) | st.just(NASTY))
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


def test_what_stands_in_front_answers_with_a_page() -> None:
    for response in (pages.console(), pages.proxy(502)):
        assert b"<html" in response.body
        assert (response.header("content-type") or "").startswith("text/html")
