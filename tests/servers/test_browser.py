"""
The whole way of a person at a server that is not ours: ``flyteauth login`` as a process, and
oidc-provider's own pages in a real browser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from flyteauth._sansio.record import load_record

from ..e2e.conftest import DEADLINE, Home, home as home, read_until  # noqa: PLC0414
from ..e2e.test_chromium import (
    chromium as chromium,  # noqa: PLC0414  # pytest finds it here
    opening_a_browser,
)
from .running import Node, node
from .sessions import PERSON, refused, subject


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One whose time is that of everybody else, and passes by itself."""
    with node("oidc-provider.mjs", tmp_path_factory.mktemp("oidc-provider")) as server:
        yield server


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A new browser's first tab. Its pages ask for fonts from elsewhere, and do not get them."""
    with chromium.new_context(locale="en-GB") as context:
        context.set_default_timeout(DEADLINE * 1000 / 2)
        yield context.new_page()


@pytest.fixture
def configured(home: Home, server: Node) -> Home:
    admin = {
        "issuer": server.issuer,
        "clientId": PERSON["client_id"],
        "scopes": PERSON["scopes"],
        "redirectUri": PERSON["redirect_uri"],
        "extraParameters": PERSON["extra_parameters"],
        "tokenStore": "file",
    }
    home.write(".flyte/config.yaml", json.dumps({"admin": admin}))
    return home


def sign_in(page: Page) -> None:
    page.get_by_placeholder("Enter any login").fill("alice")
    page.get_by_placeholder("and password").fill("an-alice")
    page.get_by_role("button", name="Sign-in").click()
    expect(page.get_by_role("heading", name="Authorize")).to_be_visible()


def proceed(page: Page) -> None:
    page.get_by_role("button", name="Continue").click()


def test_a_person_logs_in_and_out(configured: Home, server: Node, page: Page) -> None:
    with opening_a_browser(configured, "login", "--auth-type", "pkce") as login:
        page.goto(login.url)
        sign_in(page)
        proceed(page)
        expect(page.get_by_role("heading", name="Signed in")).to_be_visible()
        ended = login.ended()
    assert ended.status == 0, ended
    assert "alice" in ended.err
    shown = configured.run("token")
    assert shown.status == 0, shown
    headers = {"authorization": f"Bearer {shown.out.strip()}"}
    assert subject(server, "/me", headers) == "alice"
    (stored,) = map(json.loads, configured.stored().values())
    refresh_token = load_record(json.dumps(stored["record"])).token.refresh_token
    assert refresh_token is not None
    ended = configured.run("logout")
    assert ended.status == 0, ended
    assert subject(server, "/me", headers) is None
    assert refused(server, refresh_token)
    assert configured.stored() == {}


def test_doctor_takes_it_for_a_server_that_is_not_flytes(configured: Home, server: Node) -> None:
    ended = configured.run("doctor", "--json", BROWSER="true")
    findings = {found["name"]: found for found in json.loads(ended.out)["findings"]}
    assert findings["login server"] == {
        "name": "login server",
        "state": "ok",
        "text": f"{server.issuer} logs in by browser (PKCE) or device code or client secret",
        "fix": "",
    }


def test_who_cancels_is_told_so_on_both_sides(configured: Home, page: Page) -> None:
    with opening_a_browser(configured, "login", "--auth-type", "pkce") as login:
        page.goto(login.url)
        sign_in(page)
        page.get_by_role("link", name="Cancel").click()
        expect(page.get_by_role("status")).to_contain_text("access_denied")
        ended = login.ended()
    assert ended.status == 1, ended
    assert "access_denied" in ended.err.splitlines()[-1]
    assert configured.stored() == {}


@pytest.mark.parametrize("typed", [False, True])
def test_a_code_is_approved_on_another_device(
    configured: Home, server: Node, page: Page, typed: bool
) -> None:
    with configured.started("login", "--auth-type", "headless") as process:
        shown = read_until(process.stderr, "user_code=")
        match = re.search(r"(http://\S+?/device)\?user_code=([A-Z]{4}-[A-Z]{4})", shown)
        assert match, shown
        if typed:
            page.goto(match[1])
            page.get_by_role("textbox").fill(match[2].lower())
        else:
            page.goto(match[0])
            expect(page.get_by_text(match[2])).to_be_visible()
        proceed(page)
        if typed:
            proceed(page)
        sign_in(page)
        proceed(page)
        expect(page.get_by_role("heading", name="Sign-in Success")).to_be_visible()
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    assert "alice" in err
    assert len(configured.stored()) == 1
