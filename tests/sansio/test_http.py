"""Requests, and how responses are read."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import pytest
from hypothesis import example, given

from flyteauth._sansio.discovery import snake_case
from flyteauth._sansio.errors import FlowError, InvalidResponse
from flyteauth._sansio.http import (
    BODY_MAX,
    RETRY_AFTER_MAX,
    YEAR,
    Object,
    Request,
    Response,
    add_query,
    ascii_url,
    get,
    host_of,
    http_date,
    is_html,
    is_loopback,
    is_secure,
    known,
    member,
    origin,
    parse_object,
    plain_host,
    post_form,
    post_json,
    required,
    retry_after,
    same_path,
    seconds,
    split_url,
    texts,
)

from . import strategies
from .conversation import outcome

# Requests.


def test_a_form_leaves_out_parameters_without_a_value() -> None:
    request = post_form("https://as/token", {"a": "1 &", "b": None, "c": "", "é": "ü"})
    assert request.method == "POST"
    assert request.url == "https://as/token"
    assert parse_qsl(request.body.decode(), strict_parsing=True) == [("a", "1 &"), ("é", "ü")]
    assert request.header("Content-Type") == "application/x-www-form-urlencoded"
    assert request.header("Accept") == "application/json"


def test_requests_ask_for_exactly_json() -> None:
    # Flyte's gateway compares the header literally: a list of types means another spelling.
    assert get("https://h/").headers == (("accept", "application/json"),)
    request = post_json("https://h/", {"a": 1, "b": 2}, (("authorization", "x"),))
    assert request.body == b'{"a":1,"b":2}'
    assert request.headers == (
        ("accept", "application/json"),
        ("content-type", "application/json"),
        ("authorization", "x"),
    )
    assert request.header("Authorization") == "x"


@pytest.mark.req("SEC-01")
def test_neither_a_request_nor_a_response_shows_its_secrets() -> None:
    secret = (("authorization", "canary"),)
    assert "canary" not in repr(Request("POST", "https://h/", secret, b"canary"))
    assert "canary" not in repr(Response(200, secret, b"canary"))


def test_header_names_have_no_case_and_the_first_one_counts() -> None:
    response = Response(200, (("A", "1"), ("a", "2")))
    assert response.header("a") == "1"
    assert response.header("b") is None


@pytest.mark.parametrize(
    ("status", "transient"),
    [(200, False), (400, False), (404, False), (408, True), (429, True), (500, True), (503, True)],
)
def test_which_statuses_mean_later(status: int, transient: bool) -> None:
    assert Response(status).transient is transient


# JSON.


@pytest.mark.parametrize(
    "body",
    [b"{}", b"\xef\xbb\xbf{}", b' {"a": 1} '],
    ids=["object", "with a byte order mark", "with spaces"],
)
def test_a_json_object_is_one_whatever_its_content_type(body: bytes) -> None:
    assert isinstance(parse_object(Response(200, (("content-type", "text/plain"),), body)), Object)


@pytest.mark.req("TOK-02")
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"[]", "not_json"),
        (b'"text"', "not_json"),
        (b"null", "not_json"),
        (b"{", "not_json"),
        (b'{"a": NaN}', "not_json"),
        (b'{"a": -Infinity}', "not_json"),
        (b"\xff{}", "not_json"),
        (b"{" * 100_000, "not_json"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not_json"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not_json"),
        (b"<html>", "not_json"),
        (b"{}" + b" " * BODY_MAX, "too_large"),
    ],
)
def test_anything_but_a_json_object_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidResponse) as raised:
        parse_object(Response(502, (), body))
    assert raised.value.reason == reason


def test_a_body_of_exactly_the_limit_is_read() -> None:
    assert parse_object(Response(200, (), b"{}".ljust(BODY_MAX))) == {}


@pytest.mark.req("ERR-05")
def test_a_web_page_is_called_one_and_not_repeated() -> None:
    page = b"\n <!doctype HTML><title>Sign in to canary</title>"
    assert is_html(Response(200, (), page))
    with pytest.raises(InvalidResponse, match="a web page came back.*status 403") as raised:
        parse_object(Response(403, (), page))
    assert "canary" not in str(raised.value)


@pytest.mark.req("TOK-03")
def test_a_repeated_member_among_many_is_found_in_no_time() -> None:
    """Comparing each name with each would take minutes."""
    names = [f'"a{number}":0' for number in range(80_000)]
    begun = time.process_time()
    body = parse_object(Response(200, (), f'{{{",".join(names)},"a7":1}}'.encode()))
    assert body.repeated == {"a7"}
    assert snake_case(body).repeated == {"a7"}
    assert time.process_time() - begun < 5.0


def test_a_known_member_must_not_be_repeated_an_unknown_one_may() -> None:
    body = parse_object(Response(200, (), b'{"a": 1, "b": 1, "a": 2}'))
    assert body.repeated == {"a"}
    assert known(body, "b") == 1
    with pytest.raises(InvalidResponse) as raised:
        known(body, "a")
    assert raised.value.reason == "duplicate"


@pytest.mark.parametrize("value", [None, ""])
def test_null_and_empty_text_are_absent(value: object) -> None:
    body = Object(a=value)
    assert member(body, "a") is None
    with pytest.raises(InvalidResponse, match="'a' is missing"):
        required(body, "a")


@pytest.mark.parametrize("value", [5, True, 0, [], ["a"], {}, "\ud800", "a\udfff"])
def test_a_text_that_is_none_is_an_error_of_its_name(value: object) -> None:
    with pytest.raises(InvalidResponse) as raised:
        member(Object(a=value), "a")
    assert raised.value.reason == "a"


def test_texts_are_a_list_and_absent_is_empty() -> None:
    assert texts(Object(), "a") == ()
    assert texts(Object(a=None), "a") == ()
    assert texts(Object(a=["x", ""]), "a") == ("x", "")


@pytest.mark.parametrize("value", ["x", {}, [1], ["x", None], ["\ud800"], 0])
def test_a_list_of_something_else_is_an_error(value: object) -> None:
    with pytest.raises(InvalidResponse) as raised:
        texts(Object(a=value), "a")
    assert raised.value.reason == "a"


@pytest.mark.req("ERR-07")
@given(strategies.responses(strategies.TOKEN, strategies.METADATA))
def test_any_bytes_are_an_object_or_a_refusal(response: Response) -> None:
    body = outcome(lambda: parse_object(response))
    if isinstance(body, FlowError):
        return
    for name in (*strategies.TOKEN, *strategies.METADATA):
        outcome(lambda name=name: member(body, name))  # type: ignore[misc]
        outcome(lambda name=name: texts(body, name))  # type: ignore[misc]


# Numbers.

NOT_SECONDS: list[object] = [
    *(None, True, False, 0, 0.0, -0.0, -1, -1.0, 0.5, 3600.5, math.inf, -math.inf, math.nan, []),
    *({}, "", "x", "-5", "9" * 21, " 7", "7 ", "7\n", "1e3", "٣", "0", "+1", "0x10"),
]


@pytest.mark.req("TOK-06")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3600, 3600.0),
        (3600.0, 3600.0),
        ("3600", 3600.0),
        ("007", 7.0),
        (1, 1.0),
        (YEAR, YEAR),
        (YEAR + 1, YEAR),
        (10**400, YEAR),
        (1e300, YEAR),
        ("9" * 20, YEAR),
        *((nonsense, None) for nonsense in NOT_SECONDS),
    ],
)
def test_seconds_are_read_leniently_and_nonsense_is_none(
    value: object, expected: float | None
) -> None:
    assert seconds(value) == expected


@given(strategies.json_values)
def test_seconds_are_positive_and_finite_whatever_comes(value: object) -> None:
    result = seconds(value)
    assert result is None or 0 < result <= YEAR


# Retry-After.

NOVEMBER_6 = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT


@pytest.mark.req("NET-02")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 3600 ", 3600.0),
        ("9" * 20, YEAR),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0),
        ("Sun, 06 Nov 1994 08:49:27 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", YEAR),
        *((value, None) for value in ("", "-1", "abc", "1.5", "1e3", "9" * 21, "٣")),
        *((value, None) for value in ("Sun, 32 Nov 1994 08:49:37 GMT", "Sun, 06 Foo 1994 08:49")),
        ("Sun, 06 Foo 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 0000 08:49:37 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_nonsense_is_nothing(
    value: str, expected: float | None
) -> None:
    assert retry_after(Response(503, (("Retry-After", value),)), NOVEMBER_6) == expected


def test_no_retry_after_says_nothing() -> None:
    assert retry_after(Response(503), 0.0) is None
    assert RETRY_AFTER_MAX == 120


@pytest.mark.req("NET-02")
@pytest.mark.parametrize(
    "value",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ],
    ids=["IMF-fixdate", "rfc850-date", "asctime-date"],
)
def test_all_three_forms_of_a_date_are_read(value: str) -> None:
    # RFC 9110 §5.6.7: "A recipient that parses a timestamp value in an HTTP field MUST accept all
    # three HTTP-date formats", and a two-digit year more than 50 years ahead is in the past.
    assert retry_after(Response(503, (("retry-after", value),)), NOVEMBER_6 - 10) == 10


@pytest.mark.req("NET-02")
@pytest.mark.parametrize(("year", "century"), [("00", 2000), ("69", 2000), ("70", 1900)])
def test_a_year_of_two_digits_is_in_1970_to_2069(year: str, century: int) -> None:
    for written, day in ((year, "Sunday, 06-Nov-"), (f"{century + int(year)}", "Sun, 06 Nov ")):
        at = http_date(f"{day}{written} 08:49:37 GMT")
        assert at == datetime(century + int(year), 11, 6, 8, 49, 37, tzinfo=UTC).timestamp()


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="only POSIX systems change their zone")
def test_a_date_is_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XXX-5")
    time.tzset()
    try:
        assert http_date("Sun, 06 Nov 1994 08:49:37 GMT") == NOVEMBER_6
    finally:
        monkeypatch.undo()
        time.tzset()


@given(strategies.header_values, strategies.times)
def test_retry_after_is_finite_whatever_comes(value: str, at: float) -> None:
    wait = retry_after(Response(429, (("retry-after", value),)), at)
    assert wait is None or 0 <= wait <= YEAR


# URLs.


@pytest.mark.req("META-02")
@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("http://Flyte.lan:8080/x", "flyte.lan"),
        ("HTTP://flyte.lan", "flyte.lan"),
        ("https://flyte.lan", None),
        ("dns:///flyte.lan", None),
        ("flyte.lan", None),
    ],
)
def test_only_http_that_was_asked_for_names_a_plain_host(endpoint: str, host: str | None) -> None:
    assert plain_host(endpoint) == host


@pytest.mark.req("META-02")
@pytest.mark.parametrize(
    ("url", "secure"),
    [
        ("https://as.example/token", True),
        ("HTTPS://as.example", True),
        ("https://as.example:8443/t?x=1", True),
        ("https://as.example//t", True),
        ("http://localhost:5000/t", True),
        ("http://LOCALHOST/t", True),
        ("http://127.0.0.1/t", True),
        ("http://127.9.9.9/t", True),
        ("http://[::1]:80/t", True),
        ("http://as.example/t", False),
        ("http://localhost.evil.example/", False),
        ("http://0.0.0.0/", False),
        ("https://as.example/t#f", False),
        ("https://as.example/t#", False),
        ("https://user@as.example/t", False),
        ("https://localhost@evil.example/", False),
        ("http://evil.example\\@localhost/", False),
        ("https://", False),
        ("https:///t", False),
        ("/t", False),
        ("", False),
        ("javascript:alert(1)", False),
        ("file:///etc/passwd", False),
        ("-https://as.example", False),
        (" https://as.example", False),
        ("https://as.example/\n", False),
        ("https://as.example/é", False),
        ("https://as.example:x/", False),
        ("https://as.example:99999/", False),
        ("https://[::1/", False),
    ],
)
def test_a_credential_travels_over_https_or_to_this_machine(url: str, secure: bool) -> None:
    assert is_secure(url) is secure


def test_which_hosts_are_this_machine() -> None:
    here = ("localhost", "LocalHost", "127.0.0.1", "127.1.2.3", "::1")
    elsewhere = ("", "0.0.0.0", "::", "128.0.0.1", "localhost.", "evil.localhost.example", "::2")
    assert all(is_loopback(host) for host in here)
    assert not any(is_loopback(host) for host in elsewhere)


@given(strategies.texts)
def test_only_a_whole_url_has_parts(text: str) -> None:
    parts = split_url(text)
    assert parts is None or (parts.scheme in {"http", "https"} and parts.hostname)
    assert isinstance(is_secure(text), bool)


def test_an_origin_is_scheme_host_and_port() -> None:
    assert origin("https://H.example/a") == origin("https://h.example:443/b")
    assert origin("http://h.example/") == ("http", "h.example", 80)
    assert len({origin(f"{s}://h.example{p}/") for s in ("http", "https") for p in ("", ":1")}) == 4
    assert origin("/relative") == ("", "", None)


def test_a_host_is_shown_without_userinfo() -> None:
    assert host_of("https://user:secret@h.example:1/path?q") == "h.example:1"
    assert host_of("https://h.example") == "h.example"


@pytest.mark.req("AZR-02")
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://as/auth", "https://as/auth?a=b%20%26"),
        ("https://as/auth?tenant=x", "https://as/auth?tenant=x&a=b%20%26"),
        ("https://as//auth/?t=%2F+", "https://as//auth/?t=%2F+&a=b%20%26"),
    ],
)
def test_a_url_keeps_its_own_query(url: str, expected: str) -> None:
    assert add_query(url, [("a", "b &")]) == expected


def test_another_path_on_the_same_server() -> None:
    assert same_path("https://h:1/a/b?c#d", "/e") == "https://h:1/e"


@pytest.mark.req("ERR-06")
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://as.example/a?b", "https://as.example/a?b"),
        ("https://\u0430pple.example/", "https://xn--pple-43d.example/"),
        (
            "https://\u0430pple.example:8443/é?ü#ö",
            "https://xn--pple-43d.example:8443/%C3%A9?%C3%BC#%C3%B6",
        ),
        ("https://as.example/é%20/", "https://as.example/%C3%A9%20/"),
        ("https://[::1]/é", "https://[::1]/%C3%A9"),
    ],
)
def test_a_url_is_printed_in_ascii(url: str, expected: str) -> None:
    assert ascii_url(url) == expected


@example("https://h\ud800.example/")
@example("https://h\u00e9.example/\ud800")
@given(strategies.texts | strategies.any_text.map(lambda text: f"https://h\u00e9.example/{text}"))
def test_what_has_no_ascii_form_comes_back_and_is_refused(url: str) -> None:
    printed = ascii_url(url)
    assert printed == url or printed.isascii()
    assert not is_secure(printed) or printed.isascii()


@pytest.mark.parametrize(
    "url", ["https://é@evil.example/", "https://é.example:x/", f"https://{'é' * 99}.example/"]
)
def test_an_unprintable_host_is_left_alone(url: str) -> None:
    assert ascii_url(url) == url
    assert not is_secure(url)


@pytest.mark.req("ERR-05")
@pytest.mark.parametrize("tag", ["<!DOCTYPE html>", "<html>", "<head>", "<HEAD>", "<body class=a>"])
def test_a_web_page_may_begin_with_each_of_its_parts(tag: str) -> None:
    assert is_html(Response(200, (), f"\n {tag}".encode()))
    assert is_html(Response(200, (), b" " * 507 + b"<html>"))
    assert not is_html(Response(200, (), b" " * 508 + b"<html>"))
    assert not is_html(Response(200, (), b'"<html>"'))


def test_whoever_is_not_known_is_not_named() -> None:
    with pytest.raises(InvalidResponse, match="^the answer is not"):
        parse_object(Response(200, (), b"[]"))


@pytest.mark.parametrize(
    "url", ["https://as.example\\x/", "https://as.example/\\", "\\\\as.example"]
)
def test_a_backslash_makes_it_no_url(url: str) -> None:
    assert split_url(url) is None
    assert split_url("https://as.example/X~!") is not None
