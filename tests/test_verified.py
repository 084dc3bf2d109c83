"""What one process tells the next of a token that was taken."""

from __future__ import annotations

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


def test_a_note_does_not_tell_the_token() -> None:
    assert "s3cr3t" not in str(_verified.note("s3cr3t"))
