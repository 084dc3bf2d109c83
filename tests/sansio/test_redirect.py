"""What an incoming loopback request means: the CBK table, and no bytes that break it."""

import hmac
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, strategies as st

from flyteauth._sansio.errors import InvalidResponse
from flyteauth._sansio.redirect import (
    TARGET_MAX,
    IncomingRequest,
    Reply,
    Settle,
    judge,
    judge_pasted,
    parse_redirect,
    same,
)

URI = "http://localhost:53593/callback"
STATE = "S-_é"
HOST = ("Host", "localhost:53593")
GOOD = "/callback?" + urlencode({"code": "A", "state": STATE})


def get(target: str | bytes = GOOD, *headers: tuple[str, str], method: str = "GET") -> Any:
    return judge(IncomingRequest(method, target, (HOST, *headers)), URI, STATE)


@pytest.mark.req("CBK-02", "CBK-08")
def test_the_right_request_settles_with_the_full_redirect_uri() -> None:
    assert get() == Settle("http://localhost:53593" + GOOD)
    assert get(GOOD.encode()) == Settle("http://localhost:53593" + GOOD)


def test_bytes_as_a_parser_gives_them_are_welcome() -> None:
    request = IncomingRequest(b"GET", GOOD.encode(), [(b"host", b"localhost:53593")])
    assert isinstance(judge(request, URI, STATE), Settle)


def test_no_repr_shows_code_state_or_cookies() -> None:
    request = IncomingRequest("GET", "/callback?code=canary", (("cookie", "canary"),))
    assert "canary" not in repr(request)
    assert "canary" not in repr(Settle("http://localhost/?code=canary"))


@pytest.mark.req("CBK-03")
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "POST", "PRI", "get", "", "CONNECT"])
def test_only_get_is_served(method: Any) -> None:
    assert get(method=method) == Reply(405, "method", (("allow", "GET"),))


@pytest.mark.req("CBK-04")
@pytest.mark.parametrize(
    "host", ["localhost:53593", "LOCALHOST:53593", "127.0.0.1:53593", "[::1]:53593", " [::1]:53593"]
)
def test_all_loopback_names_on_the_port_are_one(host: str) -> None:
    assert isinstance(judge(IncomingRequest("GET", GOOD, [("host", host)]), URI, STATE), Settle)


@pytest.mark.req("CBK-04")
@pytest.mark.parametrize(
    "host",
    [
        "evil.example:53593",
        "localhost",
        "localhost:53594",
        "localhost:",
        "127.0.0.2:53593",
        "[::1%lo]:53593",
        "user@localhost:53593",
        "localhost.:53593",
        "localhost:53593.evil.example",
        "ü",
        "",
    ],
)
def test_a_foreign_host_is_refused(host: str) -> None:
    request = IncomingRequest("GET", GOOD, [("host", host)])
    assert judge(request, URI, STATE) == Reply(421, "host")


@pytest.mark.req("CBK-04")
def test_a_missing_or_repeated_host_is_refused() -> None:
    assert judge(IncomingRequest("GET", GOOD), URI, STATE) == Reply(400, "host")
    assert get(GOOD, HOST) == Reply(400, "host")


@pytest.mark.req("CBK-04")
@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("http://localhost:53593", Settle),
        ("HTTP://127.0.0.1:53593", Settle),
        ("http://evil.example", Reply),
        ("http://user@localhost:53593", Reply),
        ("https://localhost:53593", Reply),
    ],
)
def test_the_authority_of_an_absolute_target_replaces_the_host(prefix: str, expected: Any) -> None:
    request = IncomingRequest("GET", prefix + GOOD, [("host", "ignored.example")])
    if prefix.startswith("https"):
        request = IncomingRequest("GET", prefix + GOOD, [HOST])
    assert isinstance(judge(request, URI, STATE), expected)


@pytest.mark.req("CBK-04")
@pytest.mark.parametrize(
    ("uri", "host", "status"),
    [
        ("http://127.0.0.1:80/cb", "127.0.0.1", None),
        ("http://127.0.0.1:80/cb", "localhost:80", None),
        ("http://127.0.0.1/cb", "127.0.0.1", None),
        ("http://127.0.0.1/cb", "127.0.0.1:53593", 421),
        ("http://[::1]:5000/cb", "[::1]:5000", None),
        ("http://[::1]/cb", "[::1]", None),
    ],
)
def test_the_default_port_may_be_left_out(uri: str, host: str, status: Any) -> None:
    verdict = judge(IncomingRequest("GET", "/cb?state=s", [("host", host)]), uri, "s")
    assert (verdict.status if isinstance(verdict, Reply) else None) == status


@pytest.mark.req("CBK-02")
@pytest.mark.parametrize(
    "target",
    [
        "/favicon.ico",
        "/callback/",
        "//callback",
        "/CALLBACK",
        "/%63allback",
        "/callback;x",
        "/./callback",
        "/",
        "*",
        "",
        "callback",
    ],
)
def test_only_the_exact_path_is_served(target: str) -> None:
    assert get(f"{target}?{GOOD.partition('?')[2]}") == Reply(404, "path")


@pytest.mark.req("CBK-02")
def test_an_empty_path_is_the_root() -> None:
    request = IncomingRequest("GET", "/?state=s", [("host", "localhost:1")])
    assert judge(request, "http://localhost:1", "s") == Settle("http://localhost:1?state=s")
    absolute = IncomingRequest("GET", "http://localhost:1?state=s")
    assert judge(absolute, "http://localhost:1/", "s") == Settle("http://localhost:1/?state=s")


@pytest.mark.req("CBK-14")
def test_another_servers_redirect_path_is_not_ours() -> None:
    assert get(GOOD.replace("/callback", "/callback-b")) == Reply(404, "path")


@pytest.mark.req("CBK-05")
@pytest.mark.parametrize(
    ("header", "reply"),
    [
        (("Sec-Purpose", "prefetch"), Reply(503, "prefetch", (("cache-control", "no-store"),))),
        (
            ("Sec-Purpose", "prefetch;prerender"),
            Reply(503, "prefetch", (("cache-control", "no-store"),)),
        ),
        (("X-Moz", "prefetch"), Reply(503, "prefetch", (("cache-control", "no-store"),))),
        (("Purpose", "Prefetch"), Reply(503, "prefetch", (("cache-control", "no-store"),))),
        (("Sec-Fetch-Mode", "no-cors"), Reply(403, "subresource")),
    ],
)
def test_speculative_and_subresource_loads_consume_nothing(header: Any, reply: Reply) -> None:
    assert get(GOOD, header) == reply


@pytest.mark.req("CBK-05")
def test_a_navigation_is_welcome() -> None:
    assert isinstance(get(GOOD, ("Sec-Fetch-Mode", "navigate")), Settle)


@pytest.mark.req("CBK-18")
def test_long_targets_are_taken_up_to_a_limit() -> None:
    assert isinstance(get(GOOD + "&x=" + "y" * 16 * 1024), Settle)
    assert isinstance(get(GOOD.ljust(TARGET_MAX, "y")), Reply)  # that changes the state
    assert get(GOOD + "&x=" + "y" * TARGET_MAX) == Reply(414, "too_long")


@pytest.mark.req("CBK-18")
@pytest.mark.parametrize("tail", ["#x", " ", "\0", "é", "\x7f"])
def test_a_target_that_is_no_target_is_refused(tail: str) -> None:
    assert get(GOOD + tail) == Reply(400, "malformed")


@pytest.mark.req("CBK-07", "CBK-09", "RND-04")
@pytest.mark.parametrize(
    "query",
    [
        "",
        "code=A",
        "code=A&state=",
        "code=A&state=evil",
        "code=A&state=%C3%A9",
        "code=A&state=%ff",
        "state=S-_%C3%A9&state=S-_%C3%A9",
        "state=S-_%C3%A9&state=evil",
        "state=evil&st%61te=S-_%C3%A9",
        "STATE=S-_%C3%A9",
        "state=s-_%C3%A9",
        "state=S-_%C3%A9%00",
    ],
)
def test_without_exactly_the_right_state_the_login_goes_on_waiting(query: str) -> None:
    verdict = get(f"/callback?{query}")
    assert (verdict.status, verdict.reason) == (400, "state")


@pytest.mark.req("CBK-09")
def test_an_error_without_state_is_a_hint_and_no_more() -> None:
    assert get("/callback?error=x%1b[2J%ff").error == "x\\x1b[2J�"
    assert get("/callback?error=x&state=evil").error == ""
    assert get("/callback?code=x").error == ""


@pytest.mark.req("CBK-09")
def test_no_state_to_wait_for_settles_never() -> None:
    for query in ("state=", "state=x", "code=A"):
        request = IncomingRequest("GET", f"/callback?{query}", [HOST])
        assert isinstance(judge(request, URI, ""), Reply)


@pytest.mark.req("CBK-07", "CBK-08", "CBK-10", "CBK-11")
@pytest.mark.parametrize(
    "query",
    [
        "code=A&code=B",
        "error=access_denied",
        "code=A&error=x",
        "access_token=t",
        "code=%ff",
        "code=",
        "iss=https://evil",
        "next=https://evil",
        "session_state=x",
        "state=",
        "",
    ],
)
def test_whatever_carries_the_state_is_the_flows_to_judge(query: str) -> None:
    target = f"/callback?{query}&{urlencode({'state': STATE})}"
    assert get(target) == Settle("http://localhost:53593" + target)


@pytest.mark.req("CBK-06")
def test_the_query_is_form_encoded_utf_8() -> None:
    uri = f"{URI}?code=a%2Bb+c&state=%C3%A9&error_description=%ff%1b[31m&iss=https%3A%2F%2Fas"
    assert parse_redirect(uri) == {
        "code": "a+b c",
        "state": "é",
        "error_description": "�\x1b[31m",
        "iss": "https://as",
    }


@pytest.mark.req("CBK-06")
@pytest.mark.parametrize("name", ["code", "state"])
def test_a_secret_that_is_not_text_is_refused(name: str) -> None:
    with pytest.raises(InvalidResponse, match="log in again") as caught:
        parse_redirect(f"{URI}?{name}=%ff")
    assert caught.value.reason == "undecodable"


@pytest.mark.req("CBK-08")
def test_unknown_parameters_are_ignored_and_empty_ones_absent() -> None:
    assert parse_redirect(f"{URI}?code=&x=1&x=2&%ff=1&=&&&state&error=") == {}
    assert parse_redirect(f"{URI}?code=&code=A#code=B&_=_") == {"code": "A"}
    assert parse_redirect(URI) == {}


@pytest.mark.req("CBK-07")
@pytest.mark.parametrize(
    "name",
    "code state iss error error_description error_uri access_token id_token token_type "
    "expires_in".split(),
)
def test_a_repeated_known_parameter_is_refused(name: str) -> None:
    with pytest.raises(InvalidResponse, match=f"'{name}'") as caught:
        parse_redirect(f"{URI}?{name}=a&x=y&{name}=a")
    assert caught.value.reason == "duplicate"
    with pytest.raises(InvalidResponse):
        parse_redirect(f"{URI}?{name}=a&%{ord(name[0]):x}{name[1:]}=b")


@pytest.mark.req("RND-04")
def test_secrets_of_any_kind_compare() -> None:
    assert same("é", "é")
    assert same("é".encode(), "é")
    assert not same("e", "é")
    assert not same("\ud800", "x")
    assert same("\ud800", "\ud800")


def recorded_comparisons(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """What is compared in constant time from now on: who received, and what was expected."""
    compared: list[tuple[bytes, bytes]] = []
    digest = hmac.compare_digest

    def record(received: bytes, expected: bytes) -> bool:
        compared.append((received, expected))
        return digest(received, expected)

    monkeypatch.setattr(hmac, "compare_digest", record)
    return compared


@pytest.mark.req("RND-04")
@pytest.mark.parametrize("received", [STATE, "evil", STATE[:-1]])
def test_a_state_that_comes_or_is_pasted_is_compared_in_constant_time(
    received: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = recorded_comparisons(monkeypatch)
    query = urlencode({"code": "A", "state": received})
    right = received == STATE
    assert same(received, STATE) is right
    assert isinstance(get(f"/callback?{query}"), Settle) is right
    assert isinstance(judge_pasted(f"{URI}?{query}", URI, STATE), Settle) is right
    assert compared == [(received.encode(), STATE.encode())] * 3


@pytest.mark.req("CBK-18", "ERR-07")
@given(
    uri=st.text() | st.text(alphabet="code=&state%+?#f1é\ud800").map(lambda tail: f"{URI}?{tail}")
)
def test_any_text_is_parameters_or_an_invalid_response(uri: str) -> None:
    try:
        parameters = parse_redirect(uri)
    except InvalidResponse:
        return
    assert all(parameters.values())


@pytest.mark.req("CBK-18", "ERR-07")
@given(
    method=st.just("GET") | st.binary(),
    target=st.binary() | st.binary().map(lambda tail: b"/callback?" + tail),
    headers=st.lists(
        st.just(HOST)
        | st.tuples(st.sampled_from(["host", "purpose", "sec-fetch-mode"]), st.text())
        | st.tuples(st.binary(), st.binary())
    ),
)
def test_any_bytes_get_a_reply(method: Any, target: str, headers: Any) -> None:
    verdict = judge(IncomingRequest(method, target, headers), URI, "unguessable")
    assert isinstance(verdict, Reply)
    assert 400 <= verdict.status < 600


@given(state=st.text(min_size=1), other=st.text(min_size=1))
def test_a_state_settles_itself_and_nothing_else(state: str, other: str) -> None:
    target = "/callback?" + urlencode({"state": other}, errors="surrogatepass")
    if len(target) > TARGET_MAX:
        return
    verdict = judge(IncomingRequest("GET", target, [HOST]), URI, state)
    assert isinstance(verdict, Settle) == (state == other)


# What a person pastes.

ISSUER = "https://as.example"
CODE = "A-code_of.22~characters"
QUERY = urlencode({"code": CODE, "state": STATE})


def pasted(text: str, issuer: str | None = ISSUER) -> Settle | Reply:
    return judge_pasted(text, URI, STATE, issuer)


@pytest.mark.req("CBK-21")
@pytest.mark.parametrize(
    "text",
    [
        f"{URI}?{QUERY}",
        f"  {URI}?{QUERY}\n",
        f"<{URI}?{QUERY}>",
        f"'{URI}?{QUERY}'",
        f"{URI}?{QUERY}#_=_",
        f"http://127.0.0.1:53593/callback?{QUERY}",
        f"HTTP://[::1]:53593/callback?{QUERY}",
        f"https://localhost:53593/callback?{QUERY}",
        f"localhost:53593/callback?{QUERY}",
        f"?{QUERY}",
        QUERY,
    ],
)
def test_an_address_or_its_query_that_is_pasted_settles(text: str) -> None:
    assert pasted(text) == Settle(f"{URI}?{QUERY}")


@pytest.mark.req("CBK-21")
@pytest.mark.parametrize("text", [CODE, f" {CODE} ", "%41" + CODE[1:], quote("a+b/c" * 5, safe="")])
def test_a_code_alone_is_taken_on_the_word_of_the_person(text: str) -> None:
    verdict = pasted(text)
    assert isinstance(verdict, Settle)
    assert verdict.guessed
    expected = "a+b/c" * 5 if "%2F" in text else CODE
    assert parse_redirect(verdict.uri) == {"code": expected, "state": STATE, "iss": ISSUER}
    verdict = pasted(text, issuer=None)
    assert isinstance(verdict, Settle)
    assert parse_redirect(verdict.uri) == {"code": expected, "state": STATE}


@pytest.mark.req("CBK-21")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" <> ", "empty"),
        ("x" * TARGET_MAX + "=", "too_long"),
        ("x" * 15, "no_code"),
        ("localhost:53593/a=b", "path"),
        ("yes", "no_code"),
        ("WDJB-MJHT", "no_code"),
        ("two words that are long enough", "no_code"),
        ("%ff%ff" + CODE, "undecodable"),
        ("\ud800" + CODE, "undecodable"),
        (CODE + "é", "no_code"),
        ("x" * (TARGET_MAX + 1), "too_long"),
        (f"https://as.example/authorize?{QUERY}", "host"),
        (f"http://localhost:53594/callback?{QUERY}", "host"),
        (f"http://localhost/callback?{QUERY}", "host"),
        (f"http://localhost:53593@evil.example/callback?{QUERY}", "host"),
        (f"ftp://localhost:53593/callback?{QUERY}", "host"),
        (f"/callback?{QUERY}", "host"),
        (f"http://localhost:53593/callback/?{QUERY}", "path"),
        (f"http://localhost:53593/?{QUERY}", "path"),
        (f"http://localhost:53593?{QUERY}", "path"),
        (URI, "malformed"),
        (f"{URI}?", "malformed"),
        (f"{URI}?a b&{QUERY}", "malformed"),
        (f"{URI}?code={CODE}", "state"),
        (f"{URI}?code={CODE}&state=evil", "state"),
        (f"{URI}?code={CODE}#state=x", "state"),
        (f"{URI}?{QUERY}&code=B", "duplicate"),
        (f"{URI}?{QUERY}&state=evil", "duplicate"),
        (f"{URI}?code=%ff&{QUERY.partition('&')[2]}", "undecodable"),
        (f"{URI}?{QUERY}&iss=https%3A%2F%2Fevil.example", "iss"),
        (f"{URI}?{QUERY.partition('&')[2]}", "no_code"),
    ],
)
def test_what_is_wrong_with_a_paste_is_said_and_settles_nothing(text: str, reason: str) -> None:
    status = {"too_long": 414, "host": 421, "path": 404}.get(reason, 400)
    assert pasted(text) == Reply(status, reason)


@pytest.mark.req("CBK-21")
def test_what_a_server_says_no_with_can_be_pasted_too() -> None:
    query = urlencode({"error": "access_denied", "state": STATE, "iss": ISSUER})
    assert pasted(f"{URI}?{query}") == Settle(f"{URI}?{query}")
    assert pasted(f"{URI}?{query}", issuer=None) == Settle(f"{URI}?{query}")


@pytest.mark.req("CBK-21", "CBK-09")
@pytest.mark.parametrize("text", [CODE, f"{URI}?code={CODE}", f"code={CODE}&state="])
def test_no_state_to_wait_for_settles_no_paste(text: str) -> None:
    assert isinstance(judge_pasted(text, URI, ""), Reply)


def test_a_redirect_uri_without_a_path_may_be_pasted_with_or_without_the_slash() -> None:
    for text in (f"http://localhost:1?{QUERY}", f"http://localhost:1/?{QUERY}"):
        assert judge_pasted(text, "http://localhost:1", STATE) == Settle(
            f"http://localhost:1?{QUERY}"
        )


_PIECES = st.sampled_from(
    [URI, "http://", "https://", "localhost:53593", "/callback", "?", "&", "#", "=", "%", "\n", " "]
    + ["code=", "state=", "iss=", "error=", CODE, QUERY, "unguessable", "\ud800", "é", "'", "<"]
)


@pytest.mark.req("CBK-21", "CBK-18", "RND-04")
@given(text=st.text() | st.lists(_PIECES | st.text(max_size=3)).map("".join))
def test_any_text_that_is_pasted_settles_with_our_state_and_place_or_is_refused(text: str) -> None:
    verdict = judge_pasted(text, URI, "unguessable", ISSUER)
    if isinstance(verdict, Settle):
        assert verdict.uri.startswith(f"{URI}?")
        parameters = parse_redirect(verdict.uri)
        assert parameters["state"] == "unguessable"
        assert parameters.get("iss") in {None, ISSUER}
        assert parameters.keys() & {"code", "error"}
        assert "unguessable" in text or not set("=&/?") & set(text.strip())
    else:
        assert 400 <= verdict.status < 600
        assert verdict.reason


_TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=50)


@given(state=_TEXT, code=_TEXT)
def test_where_the_browser_was_sent_can_be_pasted(state: str, code: str) -> None:
    query = urlencode({"code": code, "state": state})
    assert judge_pasted(f"{URI}?{query}", URI, state) == Settle(f"{URI}?{query}")


@pytest.mark.parametrize("code", ["x" * 16, "X" * 16, "codeX-of-Xs-and-more", "x" * TARGET_MAX])
def test_a_code_has_sixteen_characters_or_more_of_any_kind(code: str) -> None:
    verdict = pasted(code)
    assert isinstance(verdict, Settle)
    assert parse_redirect(verdict.uri)["code"] == code


@pytest.mark.parametrize("tail", ["?X=1#X", "?X=1", "#X"])
@pytest.mark.parametrize("text", [CODE, f"http://localhost:1/cb?{QUERY}", f"?{QUERY}"])
def test_query_and_fragment_of_a_redirect_uri_are_not_repeated(text: str, tail: str) -> None:
    uri = f"http://localhost:1/cb{tail}"
    verdict = judge_pasted(text, uri, STATE)
    assert isinstance(verdict, Settle)
    assert verdict.uri.startswith("http://localhost:1/cb?code=")
    assert parse_redirect(verdict.uri) == {"code": CODE, "state": STATE}
    request = IncomingRequest("GET", f"/cb?{QUERY}", [("host", "localhost:1")])
    assert judge(request, uri, STATE) == Settle(f"http://localhost:1/cb?{QUERY}")


@pytest.mark.req("CBK-04")
@pytest.mark.parametrize(
    ("uri", "host", "settles"),
    [
        ("http://localhost/cb", "127.0.0.1", True),
        ("http://localhost/cb", "[::1]", True),
        ("http://[::1]/cb", "localhost", True),
        ("http://[::1]:5/cb", "localhost:5", True),
        ("http://App.lan:5/cb", "app.LAN:5", True),
        ("http://localhost/cb", "localhost:5", False),
        ("http://[::1]/cb", "localhost:1]", False),
    ],
)
def test_a_redirect_uri_with_or_without_a_port(uri: str, host: str, settles: bool) -> None:
    request = IncomingRequest("GET", f"/cb?{QUERY}", [("host", host)])
    assert isinstance(judge(request, uri, STATE), Settle) is settles
    assert isinstance(judge_pasted(f"{host}/cb?{QUERY}", uri, STATE), Settle) is settles


def test_only_the_first_question_mark_begins_the_query() -> None:
    query = f"{QUERY}&error_description=why?"
    assert get(f"/callback?{query}") == Settle(f"{URI}?{query}")
    assert pasted(f"{URI}?{query}") == Settle(f"{URI}?{query}")
    assert parse_redirect(f"{URI}?{query}")["error_description"] == "why?"


def test_only_the_first_equals_sign_ends_a_name() -> None:
    assert parse_redirect(f"{URI}?code=a=b==") == {"code": "a=b=="}


def test_the_longest_target_that_is_taken() -> None:
    padding = TARGET_MAX - len(GOOD) - 3
    assert isinstance(get(f"{GOOD}&x={'y' * padding}"), Settle)
    assert get(f"{GOOD}&x={'y' * (padding + 1)}") == Reply(414, "too_long")


@pytest.mark.parametrize("state", ["", "XXXX"])
def test_a_redirect_without_a_state_is_nobodys(state: str) -> None:
    assert isinstance(judge_pasted(f"code={CODE}", URI, state), Reply)
