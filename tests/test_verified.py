"""What one process tells the next of a token that was taken."""

from __future__ import annotations

import hashlib

import pytest

from flyteauth import _verified

AT = 1_800_000_000.0


def test_a_token_is_good_for_two_seconds_and_no_other_token_is() -> None:
    noted = {"at": AT, **_verified.note("a-token")}
    assert _verified.is_so(noted, "a-token", AT)
    assert _verified.is_so(noted, "a-token", AT + _verified.LATELY - 0.125)
    assert not _verified.is_so(noted, "a-token", AT + _verified.LATELY)
    assert not _verified.is_so(noted, "another", AT)


def test_a_note_of_the_future_is_of_a_clock_that_ran_ahead() -> None:
    noted = {"at": AT, **_verified.note("a-token")}
    assert not _verified.is_so(noted, "a-token", AT - 0.125)


@pytest.mark.parametrize("at", [None, "1800000000", {}, [], float("nan")])
def test_what_is_no_note_says_nothing(at: object) -> None:
    assert not _verified.is_so({}, "a-token", AT)
    assert not _verified.is_so({"at": at, **_verified.note("a-token")}, "a-token", AT)


@pytest.mark.req("SEC-11")
def test_a_note_does_not_tell_the_token_nor_two_notes_that_it_is_the_same() -> None:
    one, other = _verified.note("s3cr3t"), _verified.note("s3cr3t")
    assert "s3cr3t" not in str(one)
    assert not {*one.values()} & {*other.values(), hashlib.sha256(b"s3cr3t").hexdigest()}
    for noted in one, other:
        assert _verified.is_so({"at": AT, **noted}, "s3cr3t", AT)


@pytest.mark.parametrize("salt", [None, 1, [], "another"])
def test_a_note_with_another_salt_says_nothing(salt: object) -> None:
    noted = {"at": AT, **_verified.note("a-token"), "salt": salt}
    assert not _verified.is_so(noted, "a-token", AT)
