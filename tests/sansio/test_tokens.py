"""Token responses, as strict and as lenient as the world needs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from flyteauth._sansio.client import AuthorizationServer, Client, Quirk
from flyteauth._sansio.errors import FlowError, InvalidResponse, OAuth2Error, Unreachable
from flyteauth._sansio.flow import ResponseReceived
from flyteauth._sansio.http import YEAR, Response
from flyteauth._sansio.tokens import Token, oauth2_error, parse_success, parse_token

from . import strategies
from .conversation import answer, outcome, reply

CLIENT = Client(AuthorizationServer(token_endpoint="https://as/token"), "cli")
MINIMAL = {"access_token": "t", "token_type": "Bearer"}


def parse(response: Response, *quirks: Quirk, scopes: tuple[str, ...] = ()) -> Token:
    client = Client(CLIENT.server, "cli", quirks=frozenset(quirks))
    return parse_token(ResponseReceived(response, 100.0, 130.0), client, scopes)


def refused(response: Response, *quirks: Quirk) -> FlowError:
    with pytest.raises(FlowError) as raised:
        parse(response, *quirks)
    return raised.value


def test_a_whole_token() -> None:
    assert parse(reply(**strategies.TOKEN)) == Token(
        access_token="access",
        obtained_at=100.0,
        expires_at=3700.0,
        refresh_token="refresh",
        id_token="a.b.c",
        scopes=("a", "b"),
    )


@pytest.mark.req("CLK-01")
def test_lifetimes_count_from_when_the_request_was_sent() -> None:
    received = ResponseReceived(reply(**MINIMAL, expires_in=60), sent_at=100.0, at=130.0)
    assert parse_token(received, CLIENT).expires_at == 160.0
    assert parse_token(received, CLIENT).obtained_at == 100.0


@pytest.mark.req("SEC-01")
def test_a_token_does_not_show_its_secrets() -> None:
    token = Token("canary", 0.0, None, "canary", "canary")
    assert "canary" not in repr(token)


@pytest.mark.req("TOK-01")
@pytest.mark.parametrize("status", [100, 201, 202, 204, 206, 301, 302, 304, 307, 400, 404])
def test_only_a_200_carries_a_token(status: int) -> None:
    error = refused(reply(status, **MINIMAL))
    assert isinstance(error, InvalidResponse)
    assert error.reason == ("redirect" if 300 <= status < 400 else "status")


@pytest.mark.req("TOK-02")
@pytest.mark.parametrize("content_type", [None, "application/json;charset=UTF-8", "text/html", ""])
def test_the_content_type_does_not_matter_the_content_does(content_type: str | None) -> None:
    headers = () if content_type is None else (("Content-Type", content_type),)
    assert parse(Response(200, headers, json.dumps(MINIMAL).encode())).access_token == "t"


@pytest.mark.req("TOK-02")
@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b"{" + b" " * 2**20 + b"}"])
def test_a_200_without_an_object_is_refused(body: bytes) -> None:
    assert refused(Response(200, (), body)).reason in {"not_json", "too_large"}


@pytest.mark.req("TOK-03")
@pytest.mark.parametrize("name", strategies.TOKEN)
def test_a_known_member_must_not_be_repeated(name: str) -> None:
    body = json.dumps(strategies.TOKEN)[:-1] + f', "{name}": "b"}}'
    assert refused(Response(200, (), body.encode())).reason == "duplicate"


@pytest.mark.req("TOK-03")
def test_what_nobody_knows_may_be_there_twice() -> None:
    body = json.dumps(MINIMAL)[:-1] + ', "x": 1, "x": 2}'
    assert parse(Response(200, (), body.encode())).access_token == "t"


@pytest.mark.req("TOK-03", "REF-10")
@pytest.mark.parametrize("status", [200, 400, 401])
@pytest.mark.parametrize("name", ["error", "error_description", "error_uri", "access_token"])
def test_neither_must_one_of_an_error(name: str, status: int) -> None:
    """What says two things is no verdict on the grant."""
    body = f'{{"error": "invalid_grant", "{name}": "a", "{name}": "b"}}'
    assert refused(Response(status, (), body.encode())).reason == "duplicate"


@pytest.mark.req("TOK-03")
@pytest.mark.parametrize("name", ["error_description", "error_uri"])
def test_what_belongs_to_an_error_must_not_be_repeated_beside_a_token(name: str) -> None:
    body = json.dumps(strategies.TOKEN)[:-1] + f', "{name}": "a", "{name}": "b"}}'
    assert refused(Response(200, (), body.encode())).reason == "duplicate"


@pytest.mark.req("ERR-01", "ERR-03")
@pytest.mark.parametrize("length", [300, 301])
def test_an_error_uri_that_is_too_long_to_show_is_left_out(length: int) -> None:
    uri = "https://as.example/".ljust(length, "x")
    error = refused(reply(400, error="invalid_grant", error_uri=uri))
    assert isinstance(error, OAuth2Error)
    assert error.uri == (uri if length == 300 else "")


@pytest.mark.req("TOK-04", "SEC-02")
@pytest.mark.parametrize(
    "value", ["canary\r\nX: y", "", None, 5, ["canary"], "canary canary", "canaryé", "canary\x00"]
)
def test_an_access_token_outside_the_alphabet_is_refused_and_not_repeated(value: Any) -> None:
    error = refused(reply(access_token=value, token_type="Bearer"))
    assert isinstance(error, InvalidResponse)
    assert error.reason == "access_token"
    assert "canary" not in str(error)


@pytest.mark.req("TOK-04")
@pytest.mark.parametrize("name", ["access_token", "refresh_token"])
@pytest.mark.parametrize("edge", ["\x1f", "\x7f", "\x80"])
def test_a_secret_is_printable_ascii_without_delete(name: str, edge: str) -> None:
    body = {"access_token": "a", "token_type": "Bearer", name: f"canary{edge}"}
    error = refused(reply(**body))
    assert isinstance(error, InvalidResponse)
    assert error.reason == name
    assert "canary" not in str(error)


@pytest.mark.req("TOK-04")
def test_a_refresh_token_may_hold_what_lies_between_space_and_tilde() -> None:
    whole = "".join(map(chr, range(0x20, 0x7F)))
    assert (
        parse(reply(access_token="a", token_type="Bearer", refresh_token=whole)).refresh_token
        == whole
    )


@pytest.mark.req("TOK-04")
def test_an_access_token_is_required() -> None:
    assert refused(reply(token_type="Bearer")).reason == "access_token"


@pytest.mark.req("TOK-04")
def test_other_visible_characters_in_a_token_need_a_quirk() -> None:
    strange = reply(access_token='a|b"{}', token_type="Bearer")
    assert refused(strange).reason == "access_token"
    assert parse(strange, "any_token_alphabet").access_token == 'a|b"{}'
    spaced = reply(access_token="a b", token_type="Bearer")
    assert refused(spaced, "any_token_alphabet").reason == "access_token"


@pytest.mark.req("TOK-05")
@pytest.mark.parametrize("value", ["Bearer", "bearer", "bEaReR"])
def test_the_type_is_bearer_in_any_case(value: str) -> None:
    assert parse(reply(access_token="t", token_type=value)).access_token == "t"


@pytest.mark.req("TOK-05")
@pytest.mark.parametrize("value", ["mac", "N_A", "DPoP", "", None, 5, "bearer "])
def test_a_token_of_another_type_is_not_used(value: Any) -> None:
    assert refused(reply(access_token="t", token_type=value)).reason == "token_type"


@pytest.mark.req("TOK-05")
def test_a_missing_type_needs_a_quirk() -> None:
    assert refused(reply(access_token="t")).reason == "token_type"
    assert parse(reply(access_token="t"), "assume_bearer").access_token == "t"
    assert refused(reply(access_token="t", token_type="mac"), "assume_bearer").reason == (
        "token_type"
    )


@pytest.mark.req("TOK-06")
@pytest.mark.parametrize("value", [3600, 3600.0, "3600"])
def test_spellings_of_a_lifetime_are_equal(value: Any) -> None:
    assert parse(reply(**MINIMAL, expires_in=value)).expires_at == 3700.0


@pytest.mark.req("TOK-06")
@pytest.mark.parametrize("value", ["-1", "0", "true", "null", "1e400", "[]", '"soon"', "0.5"])
def test_an_unusable_lifetime_is_an_unknown_one(value: str) -> None:
    body = json.dumps(MINIMAL)[:-1] + f', "expires_in": {value}}}'
    assert parse(Response(200, (), body.encode())).expires_at is None
    assert parse(reply(**MINIMAL)).expires_at is None


@pytest.mark.req("TOK-06")
def test_a_lifetime_is_a_year_at_most() -> None:
    assert parse(reply(**MINIMAL, expires_in=10**12)).expires_at == 100.0 + YEAR


@pytest.mark.req("TOK-07")
def test_size_and_unknown_members_do_not_matter() -> None:
    token = parse(reply(access_token="x" * 65536, token_type="Bearer", foo={}, iat=1, expires_at=5))
    assert len(token.access_token) == 65536
    assert token.expires_at is None


@pytest.mark.req("TOK-08")
def test_scopes_are_a_set_and_absent_means_as_asked() -> None:
    assert parse(reply(**MINIMAL, scope="b a b")).scopes == ("a", "b")
    assert parse(reply(**MINIMAL, scope="A a")).scopes == ("A", "a")
    assert parse(reply(**MINIMAL), scopes=("b", "a")).scopes == ("a", "b")
    assert parse(reply(**MINIMAL, scope=""), scopes=("b", "a")).scopes == ("a", "b")


@pytest.mark.req("TOK-09")
def test_a_narrower_scope_is_recorded_and_no_error() -> None:
    assert parse(reply(**MINIMAL, scope="a"), scopes=("b", "a")).scopes == ("a",)


@pytest.mark.req("TOK-10")
@pytest.mark.parametrize("value", ["", None])
def test_an_empty_refresh_token_is_none(value: str | None) -> None:
    assert parse(reply(**MINIMAL, refresh_token=value)).refresh_token is None


@pytest.mark.req("TOK-10")
@pytest.mark.parametrize("name", ["refresh_token", "id_token"])
@pytest.mark.parametrize("value", [5, True, {}, "a\nb", "é"])
def test_a_secret_that_is_no_text_is_refused(name: str, value: Any) -> None:
    assert refused(reply(**MINIMAL, **{name: value})).reason == name


@pytest.mark.req("TOK-11")
def test_an_error_in_a_200_is_an_error() -> None:
    error = refused(reply(**MINIMAL, error="invalid_grant"))
    assert isinstance(error, OAuth2Error)
    assert error.error == "invalid_grant"


@pytest.mark.req("TOK-12")
def test_the_access_token_is_opaque() -> None:
    expired = "eyJhbGciOiJub25lIn0.eyJleHAiOjF9.x"
    token = parse(reply(access_token=expired, token_type="Bearer", expires_in=3600))
    assert token.expires_at == 3700.0


# What went wrong.


@pytest.mark.req("COD-05", "ERR-03")
def test_an_error_of_the_server_has_its_parts() -> None:
    error = refused(
        reply(400, error="invalid_grant", error_description="n\no", error_uri="https://as/e")
    )
    assert isinstance(error, OAuth2Error)
    assert (error.error, error.description, error.uri) == ("invalid_grant", "n\\no", "https://as/e")


@pytest.mark.req("ERR-03")
@pytest.mark.parametrize(
    "uri", ["javascript:alert(1)", "http://as.example/", "https://a@b/", 5, None]
)
def test_an_error_page_is_named_only_if_it_is_https(uri: Any) -> None:
    error = refused(reply(400, error="invalid_grant", error_uri=uri, error_description=uri))
    assert isinstance(error, OAuth2Error)
    assert error.uri == ""


@pytest.mark.req("ERR-02")
@pytest.mark.parametrize(
    "value", [{"a": 1}, ["x"], 5, True, "inv\nalid", 'a"b', "a\\b", "é", "\x1b"]
)
@pytest.mark.parametrize("status", [200, 400])
def test_an_error_outside_the_alphabet_is_malformed(status: int, value: Any) -> None:
    error = refused(reply(status, error=value))
    assert isinstance(error, InvalidResponse)
    assert error.reason == "error"


@pytest.mark.req("TOK-13", "REF-09")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"error": null}',
        b'{"error": "invalid_grant"}',
        b'{"error": "server_error"}',
        b'{"error": {"code": 503, "message": "unavailable"}}',
        b'{"error": 503}',
        b'{"error": ""}',
        b'{"error": "Service \\"X\\" is down"}',
        b'{"error": "a", "error": "b"}',
    ],
)
def test_a_busy_server_gives_no_verdict(body: bytes) -> None:
    for status in (408, 429, 500, 502, 503, 504, 599):
        error = refused(Response(status, (("Retry-After", "7"),), body))
        assert isinstance(error, Unreachable)
        assert (error.reason, error.retry_after, error.sent) == ("status", 7.0, False)
        assert str(error).endswith("try again in 7 s")


def test_a_captive_portal_is_passing_and_a_browser_ends_it() -> None:
    error = refused(Response(511, (), b"<html>"))
    assert isinstance(error, Unreachable)
    assert str(error).endswith("open any page in a browser, and try again")


@pytest.mark.req("REF-09")
@pytest.mark.parametrize("code", ["temporarily_unavailable", "server_error"])
@pytest.mark.parametrize("status", [200, 400, 401])
def test_two_codes_only_mean_later(status: int, code: str) -> None:
    error = refused(reply(status, error=code))
    assert isinstance(error, Unreachable)
    assert error.retry_after is None
    assert str(error).endswith("try again")


@pytest.mark.parametrize("code", ["authorization_pending", "slow_down"])
def test_what_a_poll_is_told_counts_whatever_the_status(code: str) -> None:
    error = refused(reply(429, error=code))
    assert isinstance(error, OAuth2Error)
    assert error.error == code


@pytest.mark.req("TOK-13", "REF-10", "ERR-05")
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
@pytest.mark.parametrize("body", [b"", b"<html>canary</html>", b'{"message": "canary"}'])
def test_a_refusal_without_an_oauth_error_is_no_verdict_on_the_grant(
    status: int, body: bytes
) -> None:
    error = refused(Response(status, (("x", "canary"),), body))
    assert isinstance(error, InvalidResponse)
    assert error.reason == "status"
    assert str(status) in str(error)
    assert "canary" not in str(error)


@pytest.mark.parametrize(
    ("location", "where"),
    [
        ("https://login.example/x?secret", "login.example"),
        ("https://l\u043egin.example/", "xn--lgin-55d.example"),
        ("/login", "somewhere else"),
        (None, "somewhere else"),
        ("https://[::1", "somewhere else"),
        ("https://\x1b[2J.example/", "somewhere else"),
    ],
)
def test_a_redirect_says_where_to(location: str | None, where: str) -> None:
    headers = () if location is None else (("Location", location),)
    error = refused(Response(302, headers, b'{"error": "invalid_grant"}'))
    assert error.reason == "redirect"
    assert f"redirects to {where} (status 302)" in str(error)
    assert "secret" not in str(error)


@pytest.mark.req("ERR-07", "TOK-06")
@given(strategies.received(strategies.TOKEN, strategies.REFUSAL, strategies.PENDING))
def test_any_bytes_are_a_token_or_a_flow_error(received: ResponseReceived) -> None:
    token = outcome(lambda: parse_token(received, CLIENT, ("all",)))
    if not isinstance(token, FlowError):
        assert received.response.status == 200
        assert token.expires_at is None or token.expires_at > token.obtained_at
        assert token.access_token.isascii()
    outcome(lambda: parse_success(received))


# One token after another.


@pytest.mark.req("REF-02", "REF-03")
def test_what_a_refresh_does_not_send_again_still_holds() -> None:
    old = Token("a", 0.0, 10.0, "r1", "i1", ("x",))
    new = Token("b", 5.0, 15.0, None, None, ("x",))
    assert new.succeeding(old) == Token("b", 5.0, 15.0, "r1", "i1", ("x",))
    rotated = Token("b", 5.0, 15.0, "r2", "i2", ("x",))
    assert rotated.succeeding(old) == rotated


def test_a_token_can_go_without_its_refresh_token() -> None:
    token = Token("a", 0.0, 10.0, "r1", "i1", ("x",))
    assert token.without_refresh_token() == Token("a", 0.0, 10.0, None, "i1", ("x",))


def test_answers_carry_both_times() -> None:
    assert answer(reply(), 5.0) == ResponseReceived(reply(), 5.0, 5.0)
    assert answer(reply(), 5.0, 3.0) == ResponseReceived(reply(), 3.0, 5.0)


@pytest.mark.req("TOK-11")
@pytest.mark.parametrize("value", [5, [], {"a": 1}, None, ""])
def test_a_description_that_is_no_text_is_none(value: Any) -> None:
    error = refused(reply(400, error="access_denied", error_description=value, error_uri=value))
    assert isinstance(error, OAuth2Error)
    assert (error.description, error.uri) == ("", "")


@pytest.mark.parametrize("length", [79, 80, 81])
def test_where_a_redirect_leads_is_shown_cut(length: int) -> None:
    host = ("login." * 20)[:length]
    error = refused(reply(302, {"Location": f"https://{host}/canary"}))
    assert (f"redirects to {host} (" in str(error)) is (length <= 80)
    assert (f"redirects to {host[:79]}… (" in str(error)) is (length > 80)
    assert "canary" not in str(error)


def test_an_answer_that_cannot_be_read_is_told_with_the_host_that_sent_it() -> None:
    received = ResponseReceived(Response(200, (), b"<html>"), 0.0, 0.0, "as.example")
    with pytest.raises(InvalidResponse, match=r"^as\.example: a web page"):
        parse_success(received)


def test_an_error_may_come_without_a_word() -> None:
    error = oauth2_error("access_denied", "", "")
    assert isinstance(error, OAuth2Error)
    assert (error.description, error.uri) == ("", "")
