"""What other tools keep in a keyring, and where."""

from __future__ import annotations

import json
import math
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from flyteauth._sansio.errors import StoreError
from flyteauth._sansio.keyring_layouts import (
    TOOLS,
    Place,
    Tool,
    expiry,
    places,
    places_of,
    trace,
)
from flyteauth._sansio.token import Token

AT = 1_800_000_000.0
# As Go's encoding/json writes an oauth2.Token whose expiry has a zone and nanoseconds.
OF_GO = (
    '{"access_token":"a\\u0026b","token_type":"bearer","refresh_token":"r",'
    '"expiry":"2027-01-15T09:00:30.123456789+01:00"}'
)

tools: st.SearchStrategy[Tool] = st.sampled_from(TOOLS)
every_place = st.sampled_from(places_of(TOOLS, "dns:///Flyte.example.com:8443/x/", "h:8443/x"))
all_places = st.one_of(every_place, st.just(Place("flyte", "h", old=True)))
visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)
printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1)
tokens = st.builds(
    Token,
    access_token=visible,
    obtained_at=st.just(AT),
    expires_at=st.none() | st.floats(1.0, 9e9).map(lambda at: round(at, 3)),
    refresh_token=st.none() | printable,
    id_token=st.none() | visible,
)


def spelled(tool: Tool, endpoint: str, key: str = "flyte.example.com") -> list[str]:
    return [place.address for place in places(tool, endpoint, key)]


def jwt(claims: object) -> str:
    def segment(value: object) -> str:
        return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{segment({'alg': 'RS256'})}.{segment(claims)}.c2ln"


# Where.


@pytest.mark.parametrize(
    ("endpoint", "flyte", "flytekit", "flytectl"),
    [
        ("dns:///Flyte.Example.com", "Flyte.Example.com", "Flyte.Example.com", ...),
        ("https://flyte.example.com", "flyte.example.com", ..., ...),
        ("https://flyte.example.com/", "flyte.example.com", ..., ...),
        ("flyte.example.com", "flyte.example.com", ..., "dns:///flyte.example.com"),
        ("dns:///localhost:8443", "localhost:8443", "localhost:8443", ...),
        ("https://h:443/flyte/", "h:443/flyte", ..., ...),
        ("http://localhost:8080", "localhost:8080", ..., ...),
    ],
)
def test_each_tool_has_its_own_name_for_an_endpoint(
    endpoint: str, flyte: str, flytekit: object, flytectl: object
) -> None:
    key = "flyte.example.com"
    own = [places(tool, endpoint, key)[0] for tool in TOOLS]
    assert [place.address for place in own] == [
        flyte,
        endpoint if flytekit is ... else flytekit,
        endpoint if flytectl is ... else flytectl,
    ]
    assert [place.service for place in own] == [own[0].address, own[1].address, "flytectl"]
    assert own[0].names == ("tokens",)
    assert own[1].names == ("access_token", "refresh_token", "id_token")
    assert own[2].names == (f"{own[2].address}:flytectl-user",)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    "other",
    [
        "dns:///flyte.example.com",
        "https://flyte.example.com",
        "https://flyte.example.com/",
        "flyte.example.com",
        "https://flyte.example.com:443",
    ],
)
def test_what_another_spelling_has_written_is_looked_for(tool: Tool, other: str) -> None:
    (own, *_) = places(tool, other, "flyte.example.com")
    assert own in places(tool, "dns:///Flyte.example.com", "flyte.example.com")


def test_a_port_is_added_only_where_there_is_none() -> None:
    assert "h:443" in spelled("flyte", "dns:///h", "h")
    assert "h:8443:443" not in spelled("flyte", "dns:///h:8443", "h:8443")
    assert "[::1]:443" in spelled("flyte", "dns:///[::1]", "[::1]")


def test_what_flyte_wrote_long_ago_is_looked_at_last_and_no_item_twice() -> None:
    found = places_of(TOOLS, "dns:///h", "h")
    items = [(place.service, name) for place in found for name in place.names]
    assert len(items) == len(set(items))
    assert not any(place.old for place in found)  # flytekit's are the same items
    alone = places_of(["flyte"], "dns:///h", "h")
    assert [place.old for place in alone] == sorted(place.old for place in alone)
    assert Place("flyte", "h", old=True) in alone


# What lies there.


@given(all_places, tokens)
def test_what_is_written_can_be_read(place: Place, token: Token) -> None:
    found = place.parse(place.written(token), AT)
    assert found is not None
    assert (found.access_token, found.refresh_token) == (token.access_token, token.refresh_token)
    assert found.obtained_at == AT
    if place.tool != "flytectl":
        assert found.expires_at is None  # it is not kept
    elif token.expires_at is None:
        assert found.expires_at is None
    else:
        assert found.expires_at == pytest.approx(token.expires_at, abs=1e-6)


@given(all_places, st.lists(st.none() | st.text() | st.binary().map(repr), min_size=3, max_size=3))
def test_whatever_lies_there_is_a_login_or_nothing_or_corrupt(
    place: Place, values: Sequence[str | None]
) -> None:
    check(place, dict(zip(place.names, values, strict=False)))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
members = st.sampled_from(["access_token", "refresh_token", "expiry", "token_type"])


@given(every_place, st.dictionaries(members, anything | st.just("2027-01-15T09:00:30Z")))
def test_json_that_is_almost_right_is_a_login_or_nothing_or_corrupt(
    place: Place, saved: dict[str, object]
) -> None:
    check(place, dict.fromkeys(place.names, json.dumps(saved)))


def check(place: Place, values: dict[str, str | None]) -> None:
    token, problem = None, None
    try:
        token = place.parse(values, AT)
    except StoreError as error:
        problem = error
    if problem is not None:
        assert problem.reason == "corrupt"
        assert "\n" not in str(problem)
        assert str(problem).endswith(f"log in with {place.tool} again")
        assert problem.__context__ is None
    elif token is not None:
        assert token.access_token or token.refresh_token
        assert token.access_token.isascii()
        assert not set(token.access_token + (token.refresh_token or "")) & set("\r\n\0")
        assert token.expires_at is None or math.isfinite(token.expires_at)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '"t"', "7", "null", "[" * 100_000, '{"access_token": 7}', '{"access_token": "a b"}']
    + ['{"access_token": "a\\nb"}', '{"access_token": "a", "refresh_token": "\\u0000"}'],
    ids=lambda text: text[:24],
)
@pytest.mark.parametrize("tool", ["flyte", "flytectl"])
@pytest.mark.req("SEC-01")
def test_what_is_no_login_is_said_without_being_shown(tool: Tool, text: str) -> None:
    place = Place(tool, "h")
    with pytest.raises(StoreError, match="is no login") as caught:
        place.parse({place.names[0]: text}, AT)
    assert text not in str(caught.value)


@pytest.mark.parametrize("text", ["{}", '{"access_token": "", "refresh_token": null}', "", None])
def test_flyte_and_flytectl_without_any_token_have_nothing(text: str | None) -> None:
    for tool in TOOLS:
        place = Place(tool, "h")
        assert place.parse({place.names[0]: text if tool != "flytekit" else None}, AT) is None


def test_a_refresh_token_alone_is_a_login_that_is_spent() -> None:
    saved = json.dumps({"access_token": "", "refresh_token": "r"})
    found = Place("flyte", "h").parse({"tokens": saved}, AT)
    assert found == Token("", AT, AT, "r")
    assert Place("flytekit", "h").parse({"refresh_token": "r"}, AT) == found


def test_an_id_token_is_written_for_flytekit_and_not_believed() -> None:
    written = Place("flytekit", "h").written(Token("a", AT, None, "r", "i"))
    assert list(written.items()) == [
        ("refresh_token", "r"),
        ("access_token", "a"),
        ("id_token", "i"),
    ]
    assert Place("flytekit", "h").parse(written, AT) == Token("a", AT, None, "r")


def test_what_belongs_to_another_login_has_to_go() -> None:
    assert Place("flytekit", "h").written(Token("a", AT)) == {
        "refresh_token": None,
        "access_token": "a",
        "id_token": None,
    }


def test_flyte_gets_what_flyte_writes() -> None:
    written = Place("flyte", "h").written(Token("a", AT, AT + 60, "r", "i"))
    assert written == {"tokens": '{"access_token": "a", "refresh_token": "r"}'}
    (text,) = Place("flyte", "h").written(Token("a", AT)).values()
    assert text == '{"access_token": "a", "refresh_token": null}'


# What Go writes.


def of_go(text: str) -> Token | None:
    place = Place("flytectl", "dns:///h")
    return place.parse({place.names[0]: text}, AT)


def test_what_go_writes_is_read_with_its_nanoseconds_and_zone() -> None:
    found = of_go(OF_GO)
    assert found is not None
    assert (found.access_token, found.refresh_token) == ("a&b", "r")
    assert found.expires_at == pytest.approx(1_800_000_030.123457, abs=1e-6)


@pytest.mark.parametrize(
    "expiry", ['"0001-01-01T00:00:00Z"', "null", '"0001-01-01T00:00:00+02:00"']
)
def test_the_zero_time_of_go_is_no_expiry(expiry: str) -> None:
    assert of_go('{"access_token":"a","expiry":' + expiry + "}") == Token("a", AT)


@pytest.mark.parametrize(
    "expiry", ["soon", "2027-13-01T00:00:00Z", "2027-01-01 00:00:00", "2027-01-01T00:00:00", ""]
)
def test_a_time_that_is_none_makes_it_no_login(expiry: str) -> None:
    with pytest.raises(StoreError):
        of_go(json.dumps({"access_token": "a", "expiry": expiry}))


def test_go_gets_a_time_that_it_can_read() -> None:
    place = Place("flytectl", "dns:///h")
    (text,) = place.written(Token("a", AT, 1_800_000_030.5, "r")).values()
    assert text == (
        '{"access_token":"a","token_type":"Bearer","refresh_token":"r",'
        '"expiry":"2027-01-15T08:00:30.500000Z"}'
    )
    for without in (None, -1.0, 1e300, math.inf):
        (text,) = place.written(Token("a", AT, without)).values()
        assert text is not None
        assert json.loads(text)["expiry"] == "0001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "wrapped",
    [
        "go-keyring-base64:" + b64encode(OF_GO.encode()).decode(),
        "go-keyring-encoded:" + OF_GO.encode().hex(),
    ],
)
def test_what_go_wraps_for_the_command_line_of_macos_is_unwrapped(wrapped: str) -> None:
    assert of_go(wrapped) == of_go(OF_GO)


@pytest.mark.parametrize("wrapped", ["go-keyring-base64:%", "go-keyring-encoded:zz"])
def test_what_cannot_be_unwrapped_is_no_login(wrapped: str) -> None:
    with pytest.raises(StoreError):
        of_go(wrapped)


# When it ends.


def test_a_jwt_says_when_it_ends() -> None:
    assert expiry(jwt({"exp": 1_800_000_600})) == 1_800_000_600.0
    found = Place("flyte", "h").parse(
        Place("flyte", "h").written(Token(jwt({"exp": 1_800_000_600.5}), AT)), AT
    )
    assert found is not None
    assert found.expires_at == 1_800_000_600.5


@pytest.mark.parametrize(
    "claims", [{}, [], {"exp": "1"}, {"exp": True}, {"exp": -1}, {"exp": 1e300}, {"exp": None}]
)
def test_a_jwt_that_says_nothing_sensible_may_end_at_any_time(claims: object) -> None:
    assert expiry(jwt(claims)) is None


@given(st.text() | st.from_regex(r"[\w-]+\.[\w-]+\.[\w-]*", fullmatch=True))
def test_any_text_ends_at_some_time_or_nobody_knows(text: str) -> None:
    ends = expiry(text)
    assert ends is None or 0 < ends < math.inf


@given(visible, visible)
def test_traces_tell_refresh_tokens_apart_and_do_not_show_them(one: str, other: str) -> None:
    assert (trace(one) == trace(other)) == (one == other)
    assert len(one) < 8 or one not in trace(one)
    assert trace(None) == trace("") == ""


@pytest.mark.parametrize(
    ("key", "hosts"),
    [
        ("h", ["Hx", "h", "h:443"]),
        ("h:8080", ["Hx", "h:8080"]),
        ("h/X/p", ["Hx", "h/X/p", "h:443/X/p"]),
        ("h:8080/p", ["Hx", "h:8080/p"]),
    ],
)
def test_the_port_stands_before_the_path(key: str, hosts: list[str]) -> None:
    assert [place.address for place in places("flyte", "dns:///Hx", key)] == [*hosts, *hosts]


def test_only_slashes_at_the_end_of_an_endpoint_go() -> None:
    assert spelled("flyte", "dns:///h/X//", "h/X")[0] == "h/X"


def test_a_trace_has_128_bits() -> None:
    assert len(trace("r")) == 32


LATEST = 253_402_300_800


@pytest.mark.parametrize(
    ("ends", "known"),
    [(0, False), (0.5, True), (1, True), (LATEST - 1, True), (LATEST, False), (LATEST + 1, False)],
)
def test_a_time_is_after_1970_and_before_the_year_10000(ends: float, known: bool) -> None:
    assert expiry(jwt({"exp": ends})) == (float(ends) if known else None)
    (text,) = Place("flytectl", "h").written(Token("a", AT, ends)).values()
    assert text is not None
    assert (json.loads(text)["expiry"] != "0001-01-01T00:00:00Z") is known


@pytest.mark.parametrize("padding", range(8))
def test_a_jwt_of_any_length_says_when_it_ends(padding: int) -> None:
    assert expiry(jwt({"exp": 5, "sub": "x" * padding})) == 5.0


@pytest.mark.parametrize("zone", ["Z", "z", "+00:00", "-00:00"])
def test_every_spelling_of_utc_is_read(zone: str) -> None:
    found = of_go(json.dumps({"access_token": "a", "expiry": f"2027-01-15T08:00:30{zone}"}))
    assert found is not None
    assert found.expires_at == 1_800_000_030.0
