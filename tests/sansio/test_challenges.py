"""WWW-Authenticate, as servers write it (RFC 9110 §11.6.1, RFC 6750 §3)."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from flyteauth._sansio.challenges import Challenge, bearer_error, parse_challenges


def challenge(scheme: str, token68: str | None = None, **parameters: str) -> Challenge:
    return Challenge(scheme, parameters, token68)


INVALID = challenge("bearer", error="invalid_token")


@pytest.mark.req("BRR-06")
@pytest.mark.parametrize(
    ("fields", "challenges"),
    [
        (
            ['Basic realm="a, Bearer error=x", DPoP algs="ES256", Bearer error="invalid_token"'],
            [
                challenge("basic", realm="a, Bearer error=x"),
                challenge("dpop", algs="ES256"),
                INVALID,
            ],
        ),
        (["Negotiate", 'Bearer error="invalid_token"'], [challenge("negotiate"), INVALID]),
        (["Negotiate abc+/~=="], [challenge("negotiate", "abc+/~==")]),
        (["NTLM, Bearer error=invalid_token"], [challenge("ntlm"), INVALID]),
        (["BEARER ERROR=invalid_token"], [INVALID]),
        ([", ,Bearer\t error = invalid_token ,, "], [INVALID]),
        ([r'Basic realm="say \"hi\" \\"'], [challenge("basic", realm='say "hi" \\')]),
        (["Bearer error=invalid_token, error=other"], [INVALID]),
        (
            ['Bearer error="invalid_token", novel="x", y=z'],
            [challenge("bearer", error="invalid_token", novel="x", y="z")],
        ),
        (['Basic realm=""'], [challenge("basic", realm="")]),
        ([], []),
        ([""], []),
        ([" , "], []),
        (['"quoted"'], []),
        (['Bearer error="never ends'], [challenge("bearer")]),
        (["Bearer a=b c"], [challenge("bearer")]),
    ],
)
def test_challenges_are_read_by_the_grammar(fields: list[str], challenges: list[Challenge]) -> None:
    assert list(parse_challenges(fields)) == challenges


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            ['Bearer error="insufficient_scope", scope="all  offline"'],
            ("insufficient_scope", ("all", "offline")),
        ),
        (["Bearer", "Basic error=x", "Bearer error=invalid_token"], ("invalid_token", ())),
        (["token parse error"], ("", ())),
        ([], ("", ())),
    ],
)
def test_what_a_bearer_challenge_complains_of(
    fields: list[str], expected: tuple[str, tuple[str, ...]]
) -> None:
    assert bearer_error(fields) == expected


NAMES = st.sampled_from(["realm", "error", "scope", "x-y"])
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


@pytest.mark.req("BRR-06")
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["basic", "bearer", "x"]), st.dictionaries(NAMES, VALUES, min_size=1)
        ),
        max_size=4,
    )
)
def test_what_is_written_is_read(written: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in written
    )
    assert list(parse_challenges([text])) == [Challenge(*pair) for pair in written]


@given(st.lists(st.text(st.sampled_from(' ,="\\aB1/\t\x00é')) | st.text(), max_size=3))
def test_any_text_ends_in_some_challenges(fields: list[str]) -> None:
    for found in parse_challenges(fields):
        assert found.scheme == found.scheme.lower()


def test_a_challenge_after_one_with_a_single_value_is_read() -> None:
    assert parse_challenges(["Negotiate YWJj==, Bearer error=x"]) == (
        Challenge("negotiate", {}, "YWJj=="),
        Challenge("bearer", {"error": "x"}),
    )
