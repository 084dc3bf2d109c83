"""What commands print, and what of it is a token."""

from __future__ import annotations

import json
import math
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from flyteauth._sansio.command import OUTPUT_MAX, complaint, parse_output
from flyteauth._sansio.errors import InvalidResponse
from flyteauth._sansio.http import YEAR
from flyteauth._sansio.tokens import Token

from . import strategies

AT = 1_700_000_000.0
LATER = 1_700_003_600.0
LATER_TEXT = "2023-11-14T23:13:20Z"


def parse(printed: bytes | str, **options: Any) -> Token:
    return parse_output(printed.encode() if isinstance(printed, str) else printed, AT, **options)


def refusal(printed: bytes | str, **options: Any) -> str:
    with pytest.raises(InvalidResponse) as raised:
        parse(printed, **options)
    assert raised.value.reason == "command"
    return str(raised.value)


def members(**values: Any) -> str:
    return json.dumps({"token": "t", **values})


def jwt(**claims: Any) -> str:
    parts = ({"alg": "RS256"}, claims)
    encoded = [urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


@pytest.mark.req("BRR-14", "TOK-04")
@pytest.mark.parametrize(
    "printed",
    [
        "abc",
        "abc\n",
        "abc\r\n",
        " \t abc \n\n",
        "\n\nabc",
        b"\xef\xbb\xbfabc\r\n",
        "Bearer abc",
        "bearer  abc\n",
        '{"token": "abc"}',
        '{"access_token": "abc\\n"}\n',
        '  {"accessToken": "Bearer abc", "tenant": "x"}',
        '{"token": null, "access_token": "", "accessToken": "abc"}',
        b'\xef\xbb\xbf{"token": "abc"}',
        '{"kind": "ExecCredential", "status": {"token": "abc"}}',
        '{"kind": "Other", "status": {"token": "x"}, "token": "abc"}',
    ],
)
def test_one_token_bare_or_in_json(printed: bytes | str) -> None:
    assert parse(printed) == Token("abc", obtained_at=AT)


def test_a_refresh_token_stays_with_the_command() -> None:
    token = parse(members(refresh_token="r", id_token="i", scope="a b", error="x"))
    assert token == Token("t", obtained_at=AT)


@pytest.mark.req("BRR-14", "TOK-04")
@pytest.mark.parametrize(
    ("printed", "why"),
    [
        ("", "nothing"),
        (" \r\n\t", "nothing"),
        ("canary\ncanary", "more than one line"),
        ("canary\rcanary", "more than one line"),
        ("canary canary", "what is not a token"),
        ("canary\x00", "what is not a token"),
        ("\x1b[0mcanary", "what is not a token"),
        ("canary\x0b", "what is not a token"),
        ("canaryé", "what is not a token"),
        ("ca=nary", "what is not a token"),
        ('"canary"', "what is not a token"),
        ("Bearer", "what is not a token"),
        ("Bearer Bearer canary", "what is not a token"),
        ("[]", "what is not a token"),
        (b"canary\xff", "not UTF-8"),
        ("canary".encode("utf-16"), "not UTF-8"),
        ("{canary", "broken JSON"),
        ('{"token": "canary"} {}', "broken JSON"),
        ('{"token": "canary", "expires_at": NaN}', "broken JSON"),
        ("{}", "without a token"),
        ('{"token": 5, "access_token": "canary"}', "without a token"),
        ('{"token": ["canary"]}', "without a token"),
        ('{"token": "canary\\ncanary"}', "more than one line"),
        ('{"token": "can\\ud800ary"}', "what is not a token"),
        ('{"token": "canary", "token": "x"}', "same thing twice"),
        ('{"token": "canary", "expiry": 1, "expiry": 2}', "same thing twice"),
        ('{"kind": "ExecCredential", "token": "canary"}', "without a token"),
        ('{"kind": "ExecCredential", "status": "canary"}', "without a token"),
        ("x" * (OUTPUT_MAX + 1), f"more than {OUTPUT_MAX} bytes"),
    ],
)
def test_what_is_no_token_is_refused_and_not_echoed(printed: bytes | str, why: str) -> None:
    message = refusal(printed, setting="admin.proxyCommand")
    assert message.startswith("the command printed ")
    assert message.endswith("; run the command of admin.proxyCommand by hand")
    assert why in message
    assert "canary" not in message


def test_the_longest_token_that_is_read() -> None:
    assert len(parse("x" * OUTPUT_MAX).access_token) == OUTPUT_MAX


@pytest.mark.req("TOK-04")
def test_other_alphabets_are_for_those_who_ask() -> None:
    assert "not a token" in refusal("a|b!")
    assert parse("a|b!", any_alphabet=True).access_token == "a|b!"
    for printed in ("a b", "aé", "a\x7f"):
        assert "not a token" in refusal(printed, any_alphabet=True)


@pytest.mark.parametrize(
    "name",
    ["expires_at", "expiresAt", "expiry", "expiration", "expires_on", "expirationTimestamp"],
)
@pytest.mark.parametrize(
    "value",
    [
        1_700_003_600,
        1_700_003_600.0,
        "1700003600",
        "1700003600.0",
        1_700_003_600_000,
        "1700003600000",
        LATER_TEXT,
        "2023-11-14t23:13:20z",
        "2023-11-14 23:13:20.000000000Z",
        "2023-11-15T04:43:20+05:30",
        "2023-11-14T15:13:20-08:00",
    ],
)
def test_every_way_to_say_when_it_expires(name: str, value: object) -> None:
    assert parse(members(**{name: value})).expires_at == LATER


def test_lifetimes_count_from_when_the_command_was_started() -> None:
    assert parse(members(expires_in=3600)).expires_at == LATER
    assert parse(members(expires_in="3600")).expires_at == LATER
    assert parse(members(expires_in=10**30)).expires_at == AT + YEAR


def test_kubernetes_has_its_expiry_beside_the_token() -> None:
    status = {"token": "t", "expirationTimestamp": LATER_TEXT}
    credential = {"kind": "ExecCredential", "status": status, "expires_in": 5}
    assert parse(json.dumps(credential)).expires_at == LATER


@pytest.mark.parametrize(
    "value",
    [
        *("soon", "", None, True, [], {}, 0, -5, 10**400, "9" * 400, 1e15),
        "0001-01-01T00:00:00Z",  # Go: nobody knows
        "0001-01-01T00:00:00+14:00",
        "2023-11-14 23:13:20.000000",  # az: local time, somewhere
        "2023-02-30T00:00:00Z",
        "2023-11-14T23:59:60Z",
        "2023-11-14T23:13:20",
        "２０２３-11-14T23:13:20Z",
    ],
)
def test_an_expiry_that_says_nothing_is_none(value: object) -> None:
    assert parse(members(expires_at=value)).expires_at is None
    assert parse(members(expires_at=value, expires_in=60)).expires_at == AT + 60


@pytest.mark.parametrize("value", ["9999-12-31T23:59:59Z", 253_402_300_799, "253402300799"])
def test_the_end_of_time_is_in_no_hurry(value: object) -> None:
    assert parse(members(expires_at=value)).expires_at == 253_402_300_799


def test_a_number_that_is_none_says_nothing() -> None:
    assert parse('{"token": "t", "expires_at": 1e400, "expires_in": -1e400}').expires_at is None


def test_az_says_it_twice_and_once_clearly() -> None:
    printed = members(expiresOn="2023-11-15 00:13:20.000000", expires_on=1_700_003_600)
    assert parse(printed).expires_at == LATER


def test_of_several_expiries_the_earliest_holds() -> None:
    assert parse(members(expires_in=9999, expires_at=LATER)).expires_at == LATER
    assert parse(members(expires_in=60, expires_at=LATER)).expires_at == AT + 60
    assert parse(members(expiry=LATER_TEXT, expires_on=LATER - 8)).expires_at == LATER - 8


@pytest.mark.parametrize("printed", ["%s", '{"token": "%s"}', '{"token": "%s", "expiry": "soon"}'])
def test_a_jwt_tells_by_itself(printed: str) -> None:
    assert parse(printed % jwt(exp=LATER)).expires_at == LATER


def test_what_the_command_says_goes_before_what_the_jwt_says() -> None:
    assert parse(members(token=jwt(exp=AT + 5), expires_at=LATER)).expires_at == LATER


@pytest.mark.parametrize(
    "token",
    [jwt(), jwt(exp=True), jwt(exp="soon"), jwt(exp=None), "a.b", "a.b.c", "a.bc.d", "a.W10.c"],
)
def test_a_jwt_that_does_not_tell(token: str) -> None:
    assert parse(token).expires_at is None


@pytest.mark.req("BRR-14")
@pytest.mark.parametrize(
    "printed", [members(expires_at=AT), members(expiry="2020-01-01T00:00:00Z"), jwt(exp=AT - 1)]
)
def test_an_expired_token_is_none(printed: str) -> None:
    assert "has expired; check the clock" in refusal(printed)


@given(
    st.integers(2 * int(LATER), 8 * int(LATER)).map(lambda at: datetime.fromtimestamp(at / 2, UTC)),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_every_time_with_a_zone_is_the_same_moment_everywhere(
    moment: datetime, zone: timezone
) -> None:
    printed = members(expires_at=moment.astimezone(zone).isoformat())
    assert parse(printed).expires_at == moment.timestamp()


outputs = st.one_of(
    st.binary(max_size=200),
    strategies.texts.map(lambda text: text.encode(errors="surrogatepass")),
    st.dictionaries(
        st.sampled_from(
            "token access_token accessToken expires_at expiresOn expires_in kind status".split()
        ),
        strategies.json_values
        | st.sampled_from(["t", "ExecCredential", LATER_TEXT, {"token": "t", "expiry": -1.5}]),
    ).map(lambda body: json.dumps(body).encode()),
    strategies.fragments.map(lambda text: f'{{"token":"t","expires_at":{text}}}'.encode()),
    strategies.fragments.map(lambda text: f'{{"token":"t","expires_in":{text}}}'.encode()),
    strategies.fragments.map(
        lambda text: f"a.{urlsafe_b64encode(text.encode()).decode()}.c".encode()
    ),
    st.floats().map(lambda number: jwt(exp=number).encode()),
)


@pytest.mark.req("BRR-14", "ERR-01")
@given(outputs, strategies.times, st.booleans())
@example(b"{" * OUTPUT_MAX, 0.0, False)
@example(b'{"a":' * (OUTPUT_MAX // 5), 0.0, False)
def test_any_output_is_a_token_or_one_line_of_refusal(
    printed: bytes, at: float, any_alphabet: bool
) -> None:
    try:
        token = parse_output(printed, at, any_alphabet=any_alphabet)
    except InvalidResponse as error:
        refused = error
    else:
        assert token.access_token.isascii()
        assert token.access_token.isprintable()
        assert " " not in token.access_token
        assert token.expires_at is None or at < token.expires_at < math.inf
        assert token.refresh_token is None
        return
    assert refused.reason == "command"
    assert str(refused).isprintable()
    assert len(str(refused)) < 150


# What it complains about.


@pytest.mark.req("BRR-14", "ERR-01")
def test_the_last_lines_of_a_complaint() -> None:
    assert complaint(b"") == ""
    assert complaint(b"\n  one\ntwo\r\n\n three \nfour\n") == "two / three / four"
    assert complaint(b"\x1b[31mred\xff") == "\\x1b[31mred\N{REPLACEMENT CHARACTER}"
    assert complaint(b"%s\nlast" % (b"word " * 100)).endswith("… / last")


@pytest.mark.req("BRR-14")
@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Authorization: Bearer canary", "Authorization: …"),
        ("+ curl -u basic canary x", "+ curl -u … x"),
        (f"got {jwt(sub='x')}!", "got …!"),
        ("code=" + "0123456789abcdef" * 2, "…"),
        ("see /usr/lib/python3/dist-packages/azure/cli/core/__main__.py", None),
        ("AADSTS50173: run az login --tenant x", None),
    ],
)
def test_what_looks_like_a_secret_is_left_out(said: str, shown: str | None) -> None:
    assert complaint(said.encode()) == (shown or said)


@pytest.mark.req("BRR-14", "SEC-04")
def test_arguments_are_left_out_but_words_are_not() -> None:
    said = b"login --key: bad value 'hunter2' in 'hunter2/3'"
    assert complaint(said, ["login", "--key", "bad", "hunter2", "hunter2/3"]) == (
        "login --key: bad value '…' in '…'"
    )


def test_the_setting_that_a_command_stands_in_is_named_in_every_case() -> None:
    assert "the command of admin.command by hand" in refusal("")
    expired = refusal(members(expires_at=AT), setting="admin.proxyCommand")
    assert "the command of admin.proxyCommand by hand" in expired


def test_a_lifetime_that_is_there_twice_is_refused() -> None:
    assert "same thing twice" in refusal('{"token": "t", "expires_in": 1, "expires_in": 2}')


@pytest.mark.parametrize(
    ("value", "expires_at"),
    [
        (1, 1.0),
        (3e11 - 1, 3e11 - 1),
        (3e11, 3e8),
        (3e14 - 1000, 3e11 - 1),
        (3e14, None),
        (3.00001e14, None),
    ],
)
def test_seconds_and_milliseconds_are_told_apart(value: float, expires_at: float | None) -> None:
    token = parse_output(members(expires_at=value).encode(), 0.0)
    assert token.expires_at == expires_at


@pytest.mark.parametrize("name", ["x" * length for length in range(8)])
def test_a_jwt_of_any_length_tells(name: str) -> None:
    assert parse(jwt(exp=LATER, sub=name)).expires_at == LATER


def test_longer_arguments_are_left_out_first_and_short_ones_not_at_all() -> None:
    assert complaint(b"a-zz11-b", ["zz11", "a-zz11-b"]) == "…"
    assert complaint(b"x1y x1yz", ["x1y", "x1yz"]) == "x1y …"


def test_a_line_of_a_complaint_is_cut() -> None:
    assert complaint(b"a b " * 40) == ("a b " * 40).strip()
    assert complaint(b"a b " * 41) == ("a b " * 41)[:159] + "…"
