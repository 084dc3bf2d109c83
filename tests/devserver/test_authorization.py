"""The authorization server: what each grant gives, and what it refuses."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any
from urllib.parse import quote_plus

import pytest

from flyteauth._sansio.http import Request
from flyteauth.devserver import signing
from flyteauth.devserver.clients import Clients
from flyteauth.devserver.messages import Form

from .harness import (
    AUTHORIZATION,
    BASE,
    CHALLENGE,
    DEVICE_CODE,
    REDIRECT_URI,
    VERIFIER,
    Page,
    Peer,
    answer,
    basic,
    body,
    error,
    reply,
)

FORM = ("content-type", "application/x-www-form-urlencoded")


def claims(id_token: str) -> dict[str, Any]:
    payload = id_token.split(".")[1]
    parsed = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert isinstance(parsed, dict)
    return parsed


class TestAuthorizationRequest:
    def test_auto_mode_redirects_at_once_with_code_state_and_issuer(self) -> None:
        response = Peer().authorize()
        assert response.status == 302
        assert response.header("cache-control") == "no-store"
        answered = answer(response)
        assert answered.keys() == {"code", "state", "iss"}
        assert answered["state"] == AUTHORIZATION["state"]
        assert answered["iss"] == BASE

    @pytest.mark.parametrize("state", ["a b&c=d#e%20+é", "'\"<>", "\r\nx: y", "x" * 2000])
    def test_the_state_comes_back_as_it_was(self, state: str) -> None:
        assert answer(Peer().authorize(state=state))["state"] == state

    def test_no_state_gives_no_state(self) -> None:
        assert "state" not in answer(Peer().authorize(state=None))

    @pytest.mark.parametrize(
        "redirect_uri",
        [
            "http://localhost:12345/callback",
            "http://localhost:1/callback",
            "http://127.0.0.1:65535/callback",
            "http://[::1]:40000/callback",
            "http://127.0.0.1/callback",
        ],
    )
    @pytest.mark.parametrize("client_id", ["flytectl", "flyte-cli"])
    def test_loopback_redirects_may_have_any_port(self, redirect_uri: str, client_id: str) -> None:
        response = Peer().authorize(redirect_uri=redirect_uri, client_id=client_id)
        assert (response.header("location") or "").startswith(f"{redirect_uri}?code=")

    @pytest.mark.parametrize(
        "redirect_uri",
        [
            "https://localhost:53593/callback",
            "http://evil.example/callback",
            "http://localhost.evil.example:1/callback",
            "http://localhost:53593@evil.example/callback",
            "http://localhost:53593/callback/",
            "http://localhost:53593/callback?x=1",
            "http://localhost:53593/callback#f",
            "http://localhost:53593/other",
            "http://localhost:65536/callback",
            "http://localhost:0/callback",
            "http://127.0.0.2:1/callback",
            "http://LOCALHOST:1/callback",
            "javascript:alert(1)",
            None,
            "",
        ],
    )
    def test_an_unregistered_redirect_uri_gets_a_page_and_no_redirect(
        self, redirect_uri: str | None
    ) -> None:
        response = Peer().authorize(redirect_uri=redirect_uri)
        assert response.status == 400
        assert response.header("location") is None
        assert "invalid_request" in Page(response).text

    @pytest.mark.parametrize("client_id", ["nobody", None, "demo-ci"])
    def test_a_client_that_may_not_redirect_gets_a_page(self, client_id: str | None) -> None:
        response = Peer().authorize(client_id=client_id)
        assert response.status == 400
        assert response.header("location") is None

    @pytest.mark.parametrize("name", ["client_id", "redirect_uri"])
    def test_a_repeated_client_or_redirect_uri_gets_a_page(self, name: str) -> None:
        url = f"/oauth2/authorize?client_id=flytectl&redirect_uri={REDIRECT_URI}"
        response = Peer().get(f"{url}&{name}=http://evil.example/callback")
        assert response.status == 400
        assert response.header("location") is None

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"response_type": None}, "invalid_request"),
            ({"response_type": "token"}, "unsupported_response_type"),
            ({"response_type": "code id_token"}, "unsupported_response_type"),
            ({"response_mode": "fragment"}, "invalid_request"),
            ({"code_challenge": None}, "invalid_request"),
            ({"code_challenge_method": None}, "invalid_request"),
            ({"code_challenge_method": "plain"}, "invalid_request"),
            ({"code_challenge": CHALLENGE + "="}, "invalid_request"),
            ({"code_challenge": "short"}, "invalid_request"),
            ({"scope": "all admin"}, "invalid_scope"),
            ({"scope": 'a"b'}, "invalid_scope"),
            ({"request": "x"}, "request_not_supported"),
            ({"request_uri": "x"}, "request_uri_not_supported"),
        ],
    )
    def test_a_wrong_request_goes_back_as_an_error(
        self, changes: dict[str, str | None], expected: str
    ) -> None:
        answered = answer(Peer().authorize(**changes))
        assert answered["error"] == expected
        assert answered["state"] == AUTHORIZATION["state"]
        assert answered["iss"] == BASE
        assert "code" not in answered

    def test_a_repeated_state_is_an_error_without_a_state(self) -> None:
        peer = Peer()
        location = peer.authorize().header("location")
        assert location is not None
        query = "&".join(f"{name}={value}" for name, value in AUTHORIZATION.items())
        answered = answer(peer.get(f"/oauth2/authorize?{query.replace(' ', '+')}&state=x"))
        assert answered["error"] == "invalid_request"
        assert "state" not in answered

    def test_undecodable_parameters_get_a_page(self) -> None:
        response = Peer().get("/oauth2/authorize?client_id=%ff")
        assert response.status == 400


class TestCode:
    def test_a_code_becomes_tokens(self) -> None:
        peer = Peer(access_ttl=90)
        response = peer.redeem(peer.code())
        tokens = reply(response)
        assert tokens.keys() == {
            "access_token",
            "token_type",
            "expires_in",
            "refresh_token",
            "scope",
        }
        assert tokens["token_type"] == "Bearer"
        assert tokens["expires_in"] == 90
        assert tokens["scope"] == "offline all"
        assert response.header("cache-control") == "no-store"
        assert peer.good(tokens["access_token"])

    def test_all_authorization_parameters_may_come_again(self) -> None:
        peer = Peer()
        extra = {**AUTHORIZATION, "audience": "", "x": "y"}
        assert reply(peer.redeem(peer.code(), **extra))

    def test_a_refresh_token_comes_without_the_scope_offline_too(self) -> None:
        assert "refresh_token" in Peer().login(scope="all")

    def test_no_scope_means_the_default(self) -> None:
        assert Peer().login(scope=None)["scope"] == "offline all"

    def test_a_replay_revokes_what_the_code_gave(self) -> None:
        peer = Peer()
        code = peer.code()
        tokens = reply(peer.redeem(code))
        assert error(peer.redeem(code)) == "invalid_grant"
        assert not peer.good(tokens["access_token"])
        assert error(peer.refresh(tokens["refresh_token"])) == "invalid_grant"

    def test_a_replay_revokes_also_what_was_refreshed_since(self) -> None:
        peer = Peer()
        code = peer.code()
        newer = reply(peer.refresh(reply(peer.redeem(code))["refresh_token"]))
        peer.redeem(code)
        assert not peer.good(newer["access_token"])

    def test_a_replay_by_another_client_revokes_nothing(self) -> None:
        peer = Peer()
        code = peer.code()
        tokens = reply(peer.redeem(code))
        assert error(peer.redeem(code, client_id="flyte-cli")) == "invalid_grant"
        assert peer.good(tokens["access_token"])

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"code": "unknown"}, "invalid_grant"),
            ({"code": ""}, "invalid_request"),
            ({"redirect_uri": "http://localhost:12345/callback"}, "invalid_grant"),
            ({"redirect_uri": ""}, "invalid_request"),
            ({"client_id": "flyte-cli"}, "invalid_grant"),
            ({"client_id": "nobody"}, "invalid_client"),
            ({"client_id": ""}, "invalid_request"),
            ({"code_verifier": VERIFIER[:-1] + "l"}, "invalid_grant"),
            ({"code_verifier": "short"}, "invalid_grant"),
            ({"code_verifier": "\u00e9" * 43}, "invalid_grant"),
            ({"code_verifier": ""}, "invalid_request"),
            ({"client_secret": "x"}, "invalid_client"),
            ({"grant_type": ""}, "invalid_request"),
            ({"grant_type": "password"}, "unsupported_grant_type"),
            ({"grant_type": "client_credentials"}, "unauthorized_client"),
        ],
    )
    def test_a_wrong_redemption_is_refused_and_the_right_one_still_works(
        self, changes: dict[str, str], expected: str
    ) -> None:
        peer = Peer()
        code = peer.code()
        assert error(peer.redeem(code, **changes)) == expected
        if "code" not in changes:
            assert reply(peer.redeem(code))

    def test_a_code_lives_as_long_as_configured(self) -> None:
        peer = Peer(code_ttl=8)
        early, late = peer.code(), peer.code()
        peer.at += 7.875
        assert reply(peer.redeem(early))
        peer.at += 0.125
        assert error(peer.redeem(late)) == "invalid_grant"

    def test_the_verifier_of_another_login_does_not_fit(self) -> None:
        peer = Peer()
        other = "0123456789" * 5
        assert error(peer.redeem(peer.code(), code_verifier=other)) == "invalid_grant"


class TestIdToken:
    def test_openid_gives_an_id_token_with_the_nonce(self) -> None:
        peer = Peer(access_ttl=90)
        tokens = peer.login(scope="openid all", nonce="n-0S6")
        found = claims(tokens["id_token"])
        assert found["iss"] == BASE
        assert found["sub"] == "alice"
        assert found["aud"] == "flytectl"
        assert found["nonce"] == "n-0S6"
        assert found["iat"] == found["auth_time"] == 1000
        assert found["exp"] == 1090
        assert found["preferred_username"] == "alice"

    def test_without_openid_there_is_none(self) -> None:
        assert "id_token" not in Peer().login(nonce="n")

    def test_after_a_refresh_it_has_no_nonce_and_the_same_subject(self) -> None:
        peer = Peer()
        tokens = peer.login(scope="openid all", nonce="n")
        peer.at += 10
        found = claims(reply(peer.refresh(tokens["refresh_token"]))["id_token"])
        assert "nonce" not in found
        assert found["sub"] == "alice"
        assert (found["auth_time"], found["iat"]) == (1000, 1010)

    def test_the_key_at_jwks_uri_verifies_it(self) -> None:
        peer = Peer()
        jwks_uri = reply(peer.get("/.well-known/openid-configuration"))["jwks_uri"]
        (key,) = reply(peer.get(jwks_uri))["keys"]
        header, payload, signature = peer.login(scope="openid")["id_token"].split(".")

        def number(text: str) -> int:
            return int.from_bytes(urlsafe_b64decode(text + "=" * (-len(text) % 4)))

        opened = pow(number(signature), number(key["e"]), number(key["n"])).to_bytes(256)
        assert opened == signing.encode(f"{header}.{payload}".encode())
        head = json.loads(urlsafe_b64decode(header + "=" * (-len(header) % 4)))
        assert head == {"alg": "RS256", "kid": key["kid"], "typ": "JWT"}


class TestRefresh:
    def test_rotation_returns_a_new_pair(self) -> None:
        peer = Peer()
        first = peer.login()
        response = peer.refresh(first["refresh_token"])
        second = reply(response)
        assert second["refresh_token"] != first["refresh_token"]
        assert second["access_token"] != first["access_token"]
        assert second["scope"] == first["scope"]
        assert response.header("cache-control") == "no-store"
        assert peer.good(first["access_token"])
        assert peer.good(second["access_token"])

    def test_reuse_ends_the_whole_family(self) -> None:
        peer = Peer()
        first = peer.login()
        second = reply(peer.refresh(first["refresh_token"]))
        third = reply(peer.refresh(second["refresh_token"]))
        assert error(peer.refresh(first["refresh_token"])) == "invalid_grant"
        assert error(peer.refresh(third["refresh_token"])) == "invalid_grant"
        assert not any(peer.good(tokens["access_token"]) for tokens in (first, second, third))

    def test_reuse_leaves_other_logins_alone(self) -> None:
        peer = Peer()
        other, first = peer.login(), peer.login()
        peer.refresh(first["refresh_token"])
        peer.refresh(first["refresh_token"])
        assert peer.good(other["access_token"])
        assert reply(peer.refresh(other["refresh_token"]))

    def test_without_detection_reuse_is_refused_and_the_family_lives(self) -> None:
        peer = Peer(reuse_detection=False)
        first = peer.login()
        second = reply(peer.refresh(first["refresh_token"]))
        assert error(peer.refresh(first["refresh_token"])) == "invalid_grant"
        assert reply(peer.refresh(second["refresh_token"]))

    def test_without_rotation_the_same_token_comes_back(self) -> None:
        peer = Peer(rotate=False)
        first = peer.login()
        second = reply(peer.refresh(first["refresh_token"]))
        assert second["refresh_token"] == first["refresh_token"]
        assert reply(peer.refresh(first["refresh_token"]))

    def test_inside_the_grace_the_old_token_leads_to_the_same_successor(self) -> None:
        peer = Peer(grace=8)
        first = peer.login()
        second = reply(peer.refresh(first["refresh_token"]))
        peer.at += 7.875
        again = reply(peer.refresh(first["refresh_token"]))
        assert again["refresh_token"] == second["refresh_token"]
        assert again["access_token"] != second["access_token"]
        assert peer.good(second["access_token"])
        assert peer.good(again["access_token"])

    def test_inside_the_grace_the_newest_token_comes_back(self) -> None:
        peer = Peer(grace=8)
        first = peer.login()
        second = reply(peer.refresh(first["refresh_token"]))
        third = reply(peer.refresh(second["refresh_token"]))
        assert (
            reply(peer.refresh(first["refresh_token"]))["refresh_token"] == third["refresh_token"]
        )

    def test_after_the_grace_reuse_ends_the_family(self) -> None:
        peer = Peer(grace=8)
        first = peer.login()
        second = reply(peer.refresh(first["refresh_token"]))
        peer.at += 8
        assert error(peer.refresh(first["refresh_token"])) == "invalid_grant"
        assert error(peer.refresh(second["refresh_token"])) == "invalid_grant"

    def test_without_grace_a_clock_that_is_set_back_grants_none(self) -> None:
        peer = Peer()
        first = peer.login()
        peer.refresh(first["refresh_token"])
        peer.at -= 8
        assert error(peer.refresh(first["refresh_token"])) == "invalid_grant"

    def test_a_refresh_token_expires_and_its_successor_lives_anew(self) -> None:
        peer = Peer(refresh_ttl=16)
        first = peer.login()
        peer.at += 15.875
        second = reply(peer.refresh(first["refresh_token"]))
        peer.at += 15.875
        assert reply(peer.refresh(second["refresh_token"]))
        late = peer.login()
        peer.at += 16
        assert error(peer.refresh(late["refresh_token"])) == "invalid_grant"

    def test_the_scope_can_be_narrowed_for_one_access_token(self) -> None:
        peer = Peer()
        first = peer.login(scope="offline all openid")
        narrowed = reply(peer.refresh(first["refresh_token"], scope="openid"))
        assert narrowed["scope"] == "openid"
        assert reply(peer.refresh(narrowed["refresh_token"]))["scope"] == "offline all openid"

    @pytest.mark.parametrize("scope", ["offline all openid", "nonsense", "all  offline"])
    def test_a_wider_or_malformed_scope_is_refused_and_the_token_is_kept(self, scope: str) -> None:
        peer = Peer()
        first = peer.login()
        assert error(peer.refresh(first["refresh_token"], scope=scope)) == "invalid_scope"
        assert reply(peer.refresh(first["refresh_token"]))

    def test_another_client_cannot_use_it_nor_end_it(self) -> None:
        peer = Peer()
        first = peer.login()
        refused = peer.refresh(first["refresh_token"], client_id="flyte-cli")
        assert error(refused) == "invalid_grant"
        assert reply(peer.refresh(first["refresh_token"]))

    @pytest.mark.parametrize(
        ("value", "expected"), [("x", "invalid_grant"), ("", "invalid_request")]
    )
    def test_what_is_no_refresh_token_is_refused(self, value: str, expected: str) -> None:
        assert error(Peer().refresh(value)) == expected

    def test_an_access_token_is_no_refresh_token(self) -> None:
        peer = Peer()
        assert error(peer.refresh(peer.login()["access_token"])) == "invalid_grant"


class TestClientCredentials:
    def test_basic_gives_an_access_token_and_never_a_refresh_token(self) -> None:
        peer = Peer()
        headers = basic(*peer.plane.service_client)
        tokens = reply(peer.token(headers, grant_type="client_credentials", scope="all"))
        assert "refresh_token" not in tokens
        assert tokens["scope"] == "all"
        assert body(
            peer.call("/flyteidl2.auth.IdentityService/UserInfo", tokens["access_token"])
        ) == {
            "subject": "demo-ci",
            "name": "demo-ci",
        }

    def test_offline_is_tolerated(self) -> None:
        peer = Peer()
        headers = basic(*peer.plane.service_client)
        tokens = reply(peer.token(headers, grant_type="client_credentials", scope="offline all"))
        assert "refresh_token" not in tokens

    def test_the_secret_may_stand_in_the_body(self) -> None:
        peer = Peer()
        client_id, secret = peer.plane.service_client
        form = {"client_id": client_id, "client_secret": secret}
        assert reply(peer.token(grant_type="client_credentials", **form))

    @pytest.mark.parametrize(
        ("secret", "sent"),
        [
            ("p+% ö", quote_plus("p+% ö")),  # RFC 6749 §2.3.1
            ("p+% ö", "p+% ö"),  # raw, as many clients do
            ("100%25", "100%25"),  # raw, where decoding would give another secret
        ],
    )
    def test_basic_is_taken_form_encoded_and_raw(self, secret: str, sent: str) -> None:
        request = Request("POST", BASE, basic("demo-ci", sent))
        assert Clients(secret).authenticated(request, Form({})).client_id == "demo-ci"

    @pytest.mark.parametrize(
        "headers",
        [
            basic("demo-ci", "wrong"),
            basic("nobody", "x"),
            basic("flytectl", ""),
            (("authorization", "Basic !!!"),),
            (("authorization", "Basic eA=="),),
            (("authorization", "basic"),),
        ],
    )
    def test_a_failed_basic_authentication_gets_401_and_a_challenge(self, headers: Any) -> None:
        response = Peer().token(headers, grant_type="client_credentials")
        assert response.status == 401
        assert error(response) == "invalid_client"
        assert (response.header("www-authenticate") or "").startswith("Basic ")

    @pytest.mark.parametrize("form", [{}, {"client_secret": "wrong"}])
    def test_a_confidential_client_needs_its_secret(self, form: dict[str, str]) -> None:
        response = Peer().token(grant_type="client_credentials", client_id="demo-ci", **form)
        assert error(response) == "invalid_client"

    def test_two_ways_of_authentication_are_one_too_many(self) -> None:
        peer = Peer()
        client_id, secret = peer.plane.service_client
        headers = basic(client_id, secret)
        response = peer.token(headers, grant_type="client_credentials", client_secret=secret)
        assert error(response) == "invalid_request"

    def test_the_same_client_id_may_stand_beside_basic_and_no_other(self) -> None:
        peer = Peer()
        headers = basic(*peer.plane.service_client)
        form = {"grant_type": "client_credentials"}
        assert reply(peer.token(headers, **form, client_id="demo-ci"))
        assert error(peer.token(headers, **form, client_id="flytectl")) == "invalid_request"

    @pytest.mark.parametrize("grant_type", ["authorization_code", "refresh_token", DEVICE_CODE])
    def test_a_service_client_gets_no_user_grant(self, grant_type: str) -> None:
        peer = Peer()
        headers = basic(*peer.plane.service_client)
        assert error(peer.token(headers, grant_type=grant_type)) == "unauthorized_client"
        device = peer.post("/oauth2/device_authorization", {}, headers)
        assert error(device) == "unauthorized_client"


class TestDevice:
    def test_the_reply_has_what_rfc_8628_wants(self) -> None:
        peer = Peer(device_interval=3)
        response = peer.post("/oauth2/device_authorization", {"client_id": "flytectl"})
        device = reply(response)
        assert device["verification_uri"] == f"{BASE}/activate"
        code = device["user_code"]
        assert device["verification_uri_complete"] == f"{BASE}/activate?user_code={code}"
        assert len(code) == 9
        assert code[4] == "-"
        assert not set(code) & set("AEIOUY0123456789")
        assert device["expires_in"] == 600
        assert device["interval"] == 3
        assert response.header("cache-control") == "no-store"

    def test_empty_parameters_count_as_omitted(self) -> None:
        device = Peer().device(scope="", audience="")
        assert device["user_code"]

    @pytest.mark.parametrize(
        ("form", "expected"),
        [
            ({}, "invalid_request"),
            ({"client_id": "nobody"}, "invalid_client"),
            ({"client_id": "flytectl", "scope": "admin"}, "invalid_scope"),
        ],
    )
    def test_a_wrong_request_is_refused(self, form: dict[str, str], expected: str) -> None:
        assert error(Peer().post("/oauth2/device_authorization", form)) == expected

    def test_auto_mode_approves_at_the_first_poll_after_an_interval(self) -> None:
        peer = Peer()
        device = peer.device()
        peer.at += 1
        tokens = reply(peer.poll(device["device_code"]))
        assert peer.good(tokens["access_token"])
        assert tokens["refresh_token"]
        assert tokens["scope"] == "offline all"

    def test_auto_mode_lets_a_first_poll_at_once_wait(self) -> None:
        peer = Peer()
        device = peer.device()
        assert error(peer.poll(device["device_code"])) == "authorization_pending"
        peer.at += 1
        assert reply(peer.poll(device["device_code"]))

    def test_polling_is_pending_until_somebody_approves(self) -> None:
        peer = Peer(approve="page")
        device = peer.device()
        for _ in range(3):
            peer.at += 1
            assert error(peer.poll(device["device_code"])) == "authorization_pending"
        peer.plane.approve(device["user_code"], user="carol")
        peer.at += 1
        token = reply(peer.poll(device["device_code"]))["access_token"]
        info = body(peer.call("/flyteidl2.auth.IdentityService/UserInfo", token))
        assert info["subject"] == "carol"

    def test_polling_ends_when_somebody_denies(self) -> None:
        peer = Peer(approve="page")
        device = peer.device()
        peer.plane.deny(device["user_code"])
        peer.at += 1
        assert error(peer.poll(device["device_code"])) == "access_denied"

    def test_each_hasty_poll_adds_five_seconds(self) -> None:
        peer = Peer(approve="page", device_interval=5)
        code = peer.device()["device_code"]
        said = []
        for wait in (5, 4.875, 9.875, 14.875, 15, 20, 19.875):
            peer.at += wait
            said.append(error(peer.poll(code)))
        # The interval before each: 5, 5, 10, 15, 20, 25, 30.
        assert said == ["authorization_pending", *["slow_down"] * 6]
        peer.at += 35
        assert error(peer.poll(code)) == "authorization_pending"

    def test_an_approved_code_gets_slow_down_too(self) -> None:
        peer = Peer(approve="page")
        device = peer.device()
        peer.at += 1
        peer.poll(device["device_code"])
        peer.plane.approve(device["user_code"])
        assert error(peer.poll(device["device_code"])) == "slow_down"
        peer.at += 6
        assert reply(peer.poll(device["device_code"]))

    def test_times_that_floats_cannot_hold_are_not_hasty(self) -> None:
        peer = Peer(approve="page", device_interval=8)
        code = peer.device()["device_code"]
        peer.at = 1016.1
        peer.poll(code)
        peer.at = 1016.1 + 8
        assert error(peer.poll(code)) == "authorization_pending"

    def test_a_device_code_works_once(self) -> None:
        peer = Peer()
        code = peer.device()["device_code"]
        peer.at += 1
        tokens = reply(peer.poll(code))
        peer.at += 1
        assert error(peer.poll(code)) == "invalid_grant"
        assert peer.good(tokens["access_token"])

    def test_a_device_code_expires(self) -> None:
        peer = Peer(device_ttl=16)
        device = peer.device()
        peer.at += 16
        assert error(peer.poll(device["device_code"])) == "expired_token"

    def test_an_approval_that_came_in_time_does_not_outlive_the_code(self) -> None:
        peer = Peer(approve="page", device_ttl=16)
        device = peer.device()
        peer.plane.approve(device["user_code"])
        peer.at += 16
        assert error(peer.poll(device["device_code"])) == "expired_token"

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"device_code": "x"}, "invalid_grant"),
            ({"device_code": ""}, "invalid_request"),
            ({"client_id": "flyte-cli"}, "invalid_grant"),
        ],
    )
    def test_a_wrong_poll_is_refused(self, changes: dict[str, str], expected: str) -> None:
        peer = Peer()
        assert error(peer.poll(peer.device()["device_code"], **changes)) == expected

    def test_deciding_about_an_unknown_or_settled_code_is_a_lookup_error(self) -> None:
        peer = Peer(approve="page")
        device = peer.device()
        with pytest.raises(LookupError):
            peer.plane.approve("XXXX-XXXX")
        peer.plane.deny(device["user_code"])
        with pytest.raises(LookupError):
            peer.plane.approve(device["user_code"])

    def test_openid_gives_an_id_token_without_a_nonce(self) -> None:
        peer = Peer()
        device = peer.device(scope="openid all")
        peer.at += 1
        assert "nonce" not in claims(reply(peer.poll(device["device_code"]))["id_token"])


class TestRevocation:
    def test_a_refresh_token_takes_its_family_along(self) -> None:
        peer = Peer()
        tokens = peer.login()
        newer = reply(peer.refresh(tokens["refresh_token"]))
        response = peer.revoke(newer["refresh_token"], token_type_hint="refresh_token")
        assert response.status == 200
        assert not peer.good(tokens["access_token"])
        assert not peer.good(newer["access_token"])
        assert error(peer.refresh(newer["refresh_token"])) == "invalid_grant"

    def test_a_rotated_refresh_token_still_names_its_family(self) -> None:
        peer = Peer()
        tokens = peer.login()
        newer = reply(peer.refresh(tokens["refresh_token"]))
        assert peer.revoke(tokens["refresh_token"]).status == 200
        assert not peer.good(newer["access_token"])

    def test_an_access_token_goes_alone(self) -> None:
        peer = Peer()
        tokens = peer.login()
        assert peer.revoke(tokens["access_token"]).status == 200
        assert not peer.good(tokens["access_token"])
        assert reply(peer.refresh(tokens["refresh_token"]))

    def test_an_unknown_token_is_fine(self) -> None:
        assert Peer().revoke("unknown", token_type_hint="nonsense").status == 200

    def test_a_service_client_revokes_with_its_secret(self) -> None:
        peer = Peer()
        token = peer.service()["access_token"]
        headers = basic(*peer.plane.service_client)
        assert peer.post("/oauth2/revoke", {"token": token}, headers).status == 200
        assert not peer.good(token)

    def test_another_client_revokes_nothing(self) -> None:
        peer = Peer()
        tokens = peer.login()
        for name in ("access_token", "refresh_token"):
            assert error(peer.revoke(tokens[name], client_id="flyte-cli")) == "invalid_grant"
        assert peer.good(tokens["access_token"])

    @pytest.mark.parametrize(
        ("form", "expected"),
        [
            ({"token": "x"}, "invalid_request"),
            ({"token": "x", "client_id": "nobody"}, "invalid_client"),
            ({"client_id": "flytectl"}, "invalid_request"),
        ],
    )
    def test_a_wrong_request_is_refused(self, form: dict[str, str], expected: str) -> None:
        assert error(Peer().post("/oauth2/revoke", form)) == expected


@pytest.mark.parametrize(
    "path", ["/oauth2/token", "/oauth2/device_authorization", "/oauth2/revoke"]
)
class TestForms:
    def test_another_content_type_is_refused(self, path: str) -> None:
        headers = (("content-type", "application/json"),)
        assert error(Peer().send("POST", path, headers, b"{}")) == "invalid_request"
        assert error(Peer().send("POST", path)) == "invalid_request"

    def test_a_charset_is_tolerated(self, path: str) -> None:
        headers = (("content-type", "Application/X-WWW-Form-Urlencoded; charset=UTF-8"),)
        assert error(Peer().send("POST", path, headers, b"client_id=nobody")) == "invalid_client"

    @pytest.mark.parametrize(
        "encoded",
        [b"client_id=flytectl&client_id=flytectl", b"client_id=%ff", b"\xff", b"&a=b" * 101],
    )
    def test_what_cannot_be_read_is_refused(self, path: str, encoded: bytes) -> None:
        assert error(Peer().send("POST", path, (FORM,), encoded)) == "invalid_request"

    def test_only_post_is_allowed(self, path: str) -> None:
        response = Peer().get(path)
        assert response.status == 405
        assert response.header("allow") == "POST"


class TestLifetimes:
    def test_an_access_token_lives_as_long_as_configured(self) -> None:
        peer = Peer(access_ttl=8)
        token = peer.login()["access_token"]
        peer.at += 7.875
        assert peer.good(token)
        peer.at += 0.125
        assert not peer.good(token)

    def test_the_wire_never_promises_more_than_is_kept(self) -> None:
        assert Peer(access_ttl=8.875).login()["expires_in"] == 8

    def test_what_is_long_over_is_forgotten(self) -> None:
        peer = Peer()
        tokens = peer.login()
        peer.device()
        peer.at += 48 * 3600
        assert error(peer.refresh(tokens["refresh_token"])) == "invalid_grant"
        server = peer.plane._server
        assert [*server._codes, *server._devices] == []
        assert [*server._access_tokens, *server._refresh_tokens] == []
