"""The pages, followed as a person follows them, and as an attacker would bend them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from flyteauth._sansio.http import Response

from .harness import (
    BASE,
    USER_INFO,
    Page,
    Peer,
    Person,
    answer,
    authorization_url,
    body,
    error,
    reply,
)


def visit(**settings: Any) -> tuple[Peer, Person]:
    peer = Peer(approve="page", **settings)
    return peer, Person(peer)


class TestAuthorize:
    def test_a_person_logs_in_allows_and_gets_tokens(self) -> None:
        peer, person = visit()
        login = person.open(authorization_url())
        assert "accepts any name" in login.text
        assert login.fields["username"] == "alice"
        consent = person.log_in(login, "bob")
        assert "flytectl" in consent.text
        assert "bob" in consent.text
        assert "offline" in consent.text
        assert consent.decisions == ["allow", "deny", "switch"]
        end = person.submit(consent, "allow")
        assert end.response.status == 303
        tokens = reply(peer.redeem(answer(end.response)["code"]))
        assert body(peer.call(USER_INFO, tokens["access_token"]))["subject"] == "bob"

    def test_deny_goes_back_as_access_denied(self) -> None:
        _, person = visit()
        consent = person.log_in(person.open(authorization_url(state="s 1")))
        answered = answer(person.submit(consent, "deny").response)
        assert answered["error"] == "access_denied"
        assert answered["state"] == "s 1"
        assert answered["iss"] == BASE

    def test_the_login_is_remembered_and_consent_is_not(self) -> None:
        peer, person = visit()
        person.submit(person.log_in(person.open(authorization_url())), "allow")
        assert person.open(authorization_url()).decisions == ["allow", "deny", "switch"]
        peer.at += 8 * 3600
        assert person.open(authorization_url()).decisions == ["login"]

    def test_the_cookie_is_kept_from_scripts_and_other_sites(self) -> None:
        peer, _ = visit()
        cookie = peer.get(authorization_url()).header("set-cookie") or ""
        assert cookie.startswith("flyteauth_devserver_8080=")
        assert "; HttpOnly" in cookie
        assert "; SameSite=Lax" in cookie
        assert "; Path=/" in cookie

    def test_logging_in_changes_the_cookie(self) -> None:
        _, person = visit()
        login = person.open(authorization_url())
        before = dict(person.cookies)
        person.log_in(login)
        name = "flyteauth_devserver_8080"
        assert before[name].partition(".")[0] != person.cookies[name].partition(".")[0]

    def test_another_name_can_be_chosen(self) -> None:
        _, person = visit()
        consent = person.log_in(person.open(authorization_url()), "bob")
        again = person.log_in(person.submit(consent, "switch"), "carol")
        assert "carol" in again.text

    @pytest.mark.parametrize("name", ["", "   ", "x" * 65, "a\x07b", "a\u202eb"])
    def test_a_name_that_cannot_be_shown_is_asked_for_again(self, name: str) -> None:
        _, person = visit()
        page = person.submit(person.open(authorization_url()), "login", username=name)
        assert page.response.status == 400
        assert page.decisions == ["login"]

    def test_a_form_sent_with_the_enter_key_is_a_login(self) -> None:
        _, person = visit()
        page = person.submit(person.open(authorization_url()), username="bob")
        assert "allow" in page.decisions

    @pytest.mark.parametrize("name", ["Zoë", "名前", "bob@example.com"])
    def test_any_visible_name_is_accepted(self, name: str) -> None:
        peer, person = visit()
        consent = person.log_in(person.open(authorization_url(scope="all openid")), name)
        code = answer(person.submit(consent, "allow").response)["code"]
        info = body(peer.call(USER_INFO, reply(peer.redeem(code))["access_token"]))
        assert info["preferredUsername"] == name
        assert info["subject"].isascii()

    def test_login_hint_fills_the_name_in(self) -> None:
        _, person = visit()
        assert person.open(authorization_url(login_hint="dora")).fields["username"] == "dora"

    def test_login_hint_of_whoever_is_logged_in_asks_for_no_name(self) -> None:
        _, person = visit()
        person.log_in(person.open(authorization_url()), "dora")
        assert "allow" in person.open(authorization_url(login_hint="dora")).decisions

    def test_login_hint_of_somebody_else_asks_for_the_name(self) -> None:
        _, person = visit()
        person.log_in(person.open(authorization_url()), "bob")
        page = person.open(authorization_url(login_hint="dora"))
        assert page.decisions == ["login"]
        assert page.fields["username"] == "dora"
        assert "dora" in person.log_in(page, "dora").text

    @pytest.mark.parametrize("hint", ["x" * 65, "a\u202eb", " "])
    def test_a_login_hint_that_cannot_be_shown_says_nothing(self, hint: str) -> None:
        _, person = visit()
        assert person.open(authorization_url(login_hint=hint)).fields["username"] == "alice"
        person.log_in(person.open(authorization_url()), "bob")
        assert "allow" in person.open(authorization_url(login_hint=hint)).decisions

    @pytest.mark.parametrize("prompt", ["login", "select_account", "select_account consent"])
    def test_prompt_login_asks_again(self, prompt: str) -> None:
        _, person = visit()
        person.log_in(person.open(authorization_url()))
        page = person.open(authorization_url(prompt=prompt))
        assert page.decisions == ["login"]
        consent = person.log_in(page)
        assert answer(person.submit(consent, "allow").response)["code"]

    def test_prompt_none_never_asks(self) -> None:
        peer, person = visit()
        assert answer(peer.get(authorization_url(prompt="none")))["error"] == "login_required"
        person.log_in(person.open(authorization_url()))
        assert answer(person.open(authorization_url(prompt="none")).response)["error"] == (
            "consent_required"
        )
        mixed = answer(peer.get(authorization_url(prompt="none login")))
        assert mixed["error"] == "invalid_request"

    def test_another_spelling_of_the_same_query_is_the_same_form(self) -> None:
        peer, person = visit()
        page = person.open(authorization_url(scope="offline all"))
        page.action = authorization_url(scope="offline all").replace("offline+all", "offline%20all")
        assert "allow" in person.log_in(page).decisions


class TestForgery:
    def test_a_form_without_a_token_is_refused(self) -> None:
        _, person = visit()
        consent = person.log_in(person.open(authorization_url()))
        consent.fields.clear()
        page = person.submit(consent, "allow")
        assert page.response.status == 403
        assert page.response.header("location") is None

    @pytest.mark.parametrize("token", ["x", ".", "1000.x", "\u00b2.x", "1000." + "A" * 43])
    def test_a_guessed_token_is_refused(self, token: str) -> None:
        _, person = visit()
        consent = person.log_in(person.open(authorization_url()))
        assert person.submit(consent, "allow", form_token=token).response.status == 403

    def test_a_form_of_another_request_is_refused(self) -> None:
        _, person = visit()
        consent = person.log_in(person.open(authorization_url()))
        consent.action = authorization_url(redirect_uri="http://localhost:666/callback")
        assert person.submit(consent, "allow").response.status == 403

    def test_a_form_of_another_browser_is_refused(self) -> None:
        peer, person = visit()
        consent = person.log_in(person.open(authorization_url()))
        victim = Person(peer)
        victim.log_in(victim.open(authorization_url()), "victim")
        assert victim.submit(consent, "allow").response.status == 403

    def test_a_login_form_of_another_browser_is_refused(self) -> None:
        peer, person = visit()
        login = person.open(authorization_url())
        victim = Person(peer)
        victim.open(authorization_url())
        assert victim.log_in(login, "mallory").response.status == 403

    def test_a_form_without_a_cookie_says_so(self) -> None:
        _, person = visit()
        consent = person.log_in(person.open(authorization_url()))
        person.cookies.clear()
        page = person.submit(consent, "allow")
        assert page.response.status == 400
        assert "cookie" in page.text

    def test_a_form_grows_old(self) -> None:
        peer, person = visit()
        consent = person.log_in(person.open(authorization_url()))
        peer.at += 1800
        assert person.submit(consent, "allow").response.status == 403

    @pytest.mark.parametrize("part", [0, 1, 2, 3])
    def test_a_cookie_that_was_changed_is_nobody(self, part: int) -> None:
        _, person = visit()
        person.log_in(person.open(authorization_url()))
        (name,) = person.cookies
        parts = person.cookies[name].split(".")
        parts[part] = "ZXZl" if part < 2 else "1"
        person.cookies[name] = ".".join(parts)
        assert person.open(authorization_url()).decisions == ["login"]

    def test_nobody_allows_without_having_logged_in(self) -> None:
        _, person = visit()
        login = person.open(authorization_url())
        login.decisions.append("allow")
        page = person.submit(login, "allow")
        assert page.response.status == 400
        assert page.response.header("location") is None

    @pytest.mark.parametrize("decision", ["nonsense", "continue"])
    def test_an_unknown_decision_is_none(self, decision: str) -> None:
        _, person = visit()
        consent = person.log_in(person.open(authorization_url()))
        consent.decisions.append(decision)
        assert person.submit(consent, decision).response.status == 400

    def test_a_body_that_is_no_form_gets_a_page(self) -> None:
        peer, _ = visit()
        response = peer.send("POST", authorization_url(), (), b"{}")
        assert response.status == 400
        assert "text/html" in (response.header("content-type") or "")

    def test_another_host_name_is_not_served(self) -> None:
        peer, _ = visit()
        response = peer.get(f"http://evil.example:8080{authorization_url()}")
        assert response.status == 421


class TestActivate:
    def test_a_person_types_the_code_logs_in_and_allows(self) -> None:
        peer, person = visit()
        device = peer.device()
        entry = person.open("/activate")
        login = person.submit(entry, "continue", user_code=device["user_code"])
        consent = person.log_in(login, "bob")
        assert device["user_code"] in consent.text
        assert "flytectl" in consent.text
        end = person.submit(consent, "allow")
        assert "Access allowed" in end.text
        assert "bob" in end.text
        peer.at += 1
        token = reply(peer.poll(device["device_code"]))["access_token"]
        assert body(peer.call(USER_INFO, token))["subject"] == "bob"

    def test_the_complete_link_still_shows_the_code_and_asks(self) -> None:
        peer, person = visit()
        device = peer.device()
        consent = person.log_in(person.open(device["verification_uri_complete"]))
        assert device["user_code"] in consent.text
        assert error(peer.poll(device["device_code"])) == "authorization_pending"

    def test_deny_reaches_the_device(self) -> None:
        peer, person = visit()
        device = peer.device()
        consent = person.log_in(person.open(device["verification_uri_complete"]))
        assert "Access denied" in person.submit(consent, "deny").text
        assert error(peer.poll(device["device_code"])) == "access_denied"

    def test_whoever_is_logged_in_goes_straight_to_the_question(self) -> None:
        peer, person = visit()
        person.log_in(person.open(authorization_url()), "bob")
        page = person.open(peer.device()["verification_uri_complete"])
        assert page.decisions == ["allow", "deny", "switch"]
        assert "carol" in person.log_in(person.submit(page, "switch"), "carol").text

    def test_the_code_may_be_typed_carelessly(self) -> None:
        peer, person = visit()
        code = peer.device()["user_code"]
        for typed in (code.lower(), code.replace("-", ""), f" {code[:4]} {code[4:]} "):
            page = person.submit(person.open("/activate"), "continue", user_code=typed)
            assert page.decisions == ["login"]

    @pytest.mark.parametrize("typed", ["XXXX-XXXX", "", "'\"><script>", "\u2603", "x" * 500])
    def test_an_unknown_code_is_asked_for_again(self, typed: str) -> None:
        _, person = visit()
        page = person.submit(person.open("/activate"), "continue", user_code=typed)
        assert page.decisions == ["continue"]
        assert page.response.status in {200, 400}

    def test_a_settled_code_says_so(self) -> None:
        peer, person = visit()
        device = peer.device()
        peer.plane.approve(device["user_code"])
        page = person.open(device["verification_uri_complete"])
        assert page.response.status == 400
        assert "used already" in page.text

    def test_an_expired_code_is_unknown(self) -> None:
        peer, person = visit(device_ttl=16)
        device = peer.device()
        peer.at += 16
        page = person.open(device["verification_uri_complete"])
        assert "its time is over" in page.text

    def test_a_code_that_settles_meanwhile_is_not_decided_twice(self) -> None:
        peer, person = visit()
        device = peer.device()
        consent = person.log_in(person.open(device["verification_uri_complete"]))
        peer.plane.deny(device["user_code"])
        assert person.submit(consent, "allow").response.status == 400
        assert error(peer.poll(device["device_code"])) == "access_denied"

    def test_a_form_of_another_code_is_refused(self) -> None:
        peer, person = visit()
        mine, other = peer.device(), peer.device()
        consent = person.log_in(person.open(mine["verification_uri_complete"]))
        consent.action = f"/activate?user_code={other['user_code']}"
        assert person.submit(consent, "allow").response.status == 403

    def test_a_repeated_code_gets_a_page(self) -> None:
        peer, _ = visit()
        assert peer.get("/activate?user_code=a&user_code=b").status == 400


def every_page() -> dict[str, Response]:
    peer, person = visit()
    device = peer.device()
    login = person.open(authorization_url())
    consent = person.log_in(login)
    question = person.open(device["verification_uri_complete"])
    return {
        "login": login.response,
        "consent": consent.response,
        "activation": person.open("/activate").response,
        "device": question.response,
        "result": person.submit(question, "allow").response,
        "unknown code": person.open("/activate?user_code=nope").response,
        "error": person.open(authorization_url(client_id="nobody")).response,
        "forged": person.submit(consent, "allow", form_token="x").response,
        "not found": person.open("/nowhere").response,
        "home": person.open("/").response,
    }


@pytest.mark.parametrize("name", every_page())
class TestEveryPage:
    def test_it_has_the_headers_that_keep_it_apart(self, name: str) -> None:
        response = every_page()[name]
        assert response.header("content-type") == "text/html; charset=utf-8"
        assert response.header("cache-control") == "no-store"
        assert response.header("referrer-policy") == "no-referrer"
        assert response.header("x-content-type-options") == "nosniff"
        assert response.header("x-frame-options") == "DENY"
        policy = response.header("content-security-policy") or ""
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        # Chromium applies form-action to the redirect that follows a form, here to the client.
        assert "form-action" not in policy

    def test_its_style_is_the_one_that_the_policy_allows(self, name: str) -> None:
        import hashlib
        from base64 import b64encode

        response = every_page()[name]
        (style,) = re.findall(r"<style>(.*?)</style>", response.body.decode(), re.DOTALL)
        digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in (response.header("content-security-policy") or "")
        assert "prefers-color-scheme: dark" in style

    def test_it_loads_nothing_and_runs_nothing(self, name: str) -> None:
        page = Page(every_page()[name])
        assert not {"script", "img", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
        assert [found["href"] for tag, found in page.tags if tag == "link"] == ["data:,"]
        assert not any(name.startswith("on") for _, found in page.tags for name in found)
        assert not any("style" in found for _, found in page.tags)
        assert [found["lang"] for tag, found in page.tags if tag == "html"] == ["en"]
