"""The page in the browser: it tells the truth, loads nothing and lets nothing in."""

import hashlib
import re
from base64 import b64encode
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, strategies as st

from flyteauth._io.page import (
    BROKEN,
    CANCELLED,
    COMPLETED,
    RECEIVED,
    Page,
    failure,
    refusal,
    render,
    success,
)
from flyteauth._sansio.errors import Error, InvalidResponse, OAuth2Error
from flyteauth._sansio.redirect import Reply

pages = st.builds(Page, title=st.text(), message=st.text(), ok=st.booleans())


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


TAGS = "html head meta meta link title style body main h1 p small script".split()


@pytest.mark.req("HTM-01")
@given(pages)
def test_no_value_becomes_markup(page: Page) -> None:
    _, _, body = render(page)
    tags = Tags()
    tags.feed(body.decode())
    assert tags.tags == TAGS


@pytest.mark.req("HTM-01", "ERR-04")
def test_values_are_escaped_with_quotes() -> None:
    _, _, body = render(success("<script>'{x}'", '"%s" & <b>'))
    assert b"&quot;%s&quot; &amp; &lt;b&gt; to &lt;script&gt;&#x27;{x}&#x27;;" in body


@pytest.mark.req("HTM-02")
def test_success_says_who_and_where() -> None:
    status, _, body = render(success("dns:///flyte.example", "ada"))
    assert status == 200
    assert b"Signed in as ada to dns:///flyte.example; you can close this tab." in body
    assert (
        b"Signed in to dns:///flyte.example; you can" in render(success("dns:///flyte.example"))[2]
    )


@pytest.mark.req("HTM-01", "HTM-02", "ERR-01")
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OAuth2Error("access_denied", "canary"), "(access_denied), so you are not signed in"),
        (OAuth2Error("access_denied", "canary"), "log in again and allow the access."),
        (OAuth2Error("invalid_scope", "canary"), "answered invalid_scope; check admin.scopes"),
        (OAuth2Error("x", hint="call Bob"), "answered x; call Bob"),
        (InvalidResponse("bad\x1b[2J; log in"), "Bad\\x1b[2J; log in"),
        (Error("y" * 1000), "…"),
        (Error(""), BROKEN.message),
        (ValueError("canary"), BROKEN.message),
        (KeyboardInterrupt("canary"), CANCELLED.message),
    ],
)
def test_failure_says_why_and_what_to_do(error: Any, text: Any) -> None:
    status, _, body = render(failure(error))
    assert status == 400
    assert text in body.decode()
    assert "canary" not in body.decode()
    assert len(body) < 3500


@pytest.mark.req("HTM-03", "HTM-04")
@pytest.mark.parametrize("page", [success("x"), CANCELLED, COMPLETED, RECEIVED, BROKEN])
def test_headers_and_an_empty_icon(page: Page) -> None:
    _, headers, body = render(page)
    fields = dict(headers)
    assert len(fields) == len(headers)
    assert fields["content-type"] == "text/html; charset=utf-8"
    assert fields["cache-control"] == "no-store"
    assert fields["referrer-policy"] == "no-referrer"
    assert fields["x-content-type-options"] == "nosniff"
    assert fields["content-security-policy"].startswith("default-src 'none';")
    assert "unsafe" not in fields["content-security-policy"]
    assert b'<link rel="icon" href="data:,">' in body
    assert not re.search(rb"https?:|//|url\(|@import|\son\w+=", body)
    assert b"prefers-color-scheme:dark" in body


@pytest.mark.req("HTM-05")
def test_the_one_script_leaves_the_address_with_the_code_and_is_in_the_policy() -> None:
    _, headers, body = render(CANCELLED)
    policy = dict(headers)["content-security-policy"]
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (source,) = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), body, re.DOTALL)
        digest = b64encode(hashlib.sha256(source).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert b'<script>history.replaceState(null,"",location.pathname)</script>' in body


@pytest.mark.req("HTM-02")
def test_the_callers_own_page_is_sent_as_it_is() -> None:
    own = b"<h1>\xff{own}</h1>"
    status, headers, body = render(success("x", html=own))
    assert (status, body) == (200, own)
    assert dict(headers)["content-security-policy"].startswith("default-src 'none';")


@pytest.mark.req("CBK-03", "CBK-05", "HTM-01", "HTM-02")
@pytest.mark.parametrize("reason", "method host path prefetch state too_long malformed".split())
def test_refusals_are_static_pages_with_their_status(reason: str) -> None:
    headers = (("allow", "GET"), ("cache-control", "no-store"))
    status, fields, body = render(refusal(Reply(421, reason, headers, error="canary")))
    assert status == 421
    assert [value for name, value in fields if name == "allow"] == ["GET"]
    assert [value for name, value in fields if name == "cache-control"] == ["no-store"]
    assert b"canary" not in body
