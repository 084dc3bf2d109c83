"""When a token is used, refreshed or given up."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from flyteauth._sansio.renewal import (
    BREAKER,
    JITTER,
    LEEWAY,
    Authorize,
    Plan,
    Refresh,
    Use,
    UseAndRefresh,
    ageing,
    may_force,
    plan,
    will_do,
)
from flyteauth._sansio.tokens import Token

from . import strategies


def token(lifetime: float | None = 3600.0, *, refresh: bool = True, obtained: float = 0.0) -> Token:
    expires_at = None if lifetime is None else obtained + lifetime
    return Token("a", obtained, expires_at, "r" if refresh else None)


# A lifetime of 3600 s has a leeway of 60 s; one of 100 s of 20 s.
@pytest.mark.req("CLK-04")
@pytest.mark.parametrize(
    ("held", "at", "planned"),
    [
        (token(), 0.0, Use(3540.0)),
        (token(), 3539.875, Use(3540.0)),
        (token(), 3540.0, UseAndRefresh()),
        (token(), 3599.875, UseAndRefresh()),
        (token(), 3600.0, Refresh()),
        (token(100.0), 79.875, Use(80.0)),
        (token(100.0), 80.0, UseAndRefresh()),
        (token(5.0), 0.0, Use(4.0)),
        (token(refresh=False), 3539.0, Use(3540.0)),
        (token(refresh=False), 3540.0, Use(3600.0)),
        (token(refresh=False), 3600.0, Authorize()),
        (token(None), 1e9, Use(None)),
        (None, 0.0, Authorize()),
    ],
)
def test_fresh_ageing_expired(held: Token | None, at: float, planned: Plan) -> None:
    assert plan(held, None, at, 0.0) == planned


@pytest.mark.parametrize(
    ("held", "rejected", "at", "will"),
    [
        (token(), None, 0.0, True),
        (token(), None, 3599.875, True),
        (token(), None, 3600.0, False),
        (token(), "a", 0.0, False),
        (token(), "another", 0.0, True),
        (token(refresh=False), None, 3599.875, True),
        (token(refresh=False), None, 3600.0, False),
        (token(obtained=1000.0), None, 0.0, False),
    ],
)
def test_what_is_fresh_or_ageing_will_do(
    held: Token, rejected: str | None, at: float, will: bool
) -> None:
    assert will_do(held, rejected, at) is will
    for silent in (True, False):
        planned = plan(held, rejected, at, 0.0, silent=silent)
        assert isinstance(planned, Use | UseAndRefresh) is will


@pytest.mark.parametrize(
    ("held", "at", "planned"),
    [
        (None, 0.0, Refresh()),
        (token(refresh=False), 3540.0, UseAndRefresh()),
        (token(refresh=False), 3600.0, Refresh()),
    ],
)
def test_a_grant_that_needs_no_person_stands_in_for_the_refresh_token(
    held: Token | None, at: float, planned: Plan
) -> None:
    assert plan(held, None, at, 0.0, silent=True) == planned


@pytest.mark.req("BRR-08")
def test_only_the_rejected_token_is_spent_early() -> None:
    assert plan(token(), "a", 10.0, 0.0) == Refresh()
    assert plan(token(None), "a", 10.0, 0.0) == Refresh()
    assert plan(token(refresh=False), "a", 10.0, 0.0) == Authorize()
    assert plan(token(), "older", 10.0, 0.0) == Use(3540.0)


@pytest.mark.req("CLK-03")
@pytest.mark.parametrize("lifetime", [3600.0, None])
def test_a_token_from_the_future_is_spent(lifetime: float | None) -> None:
    assert plan(token(lifetime, obtained=1060.0), None, 1000.0, 0.0) != Refresh()
    assert plan(token(lifetime, obtained=1060.125), None, 1000.0, 0.0) == Refresh()


def test_an_ageing_token_stays_in_use_while_it_is_refreshed() -> None:
    assert plan(token(), None, 3570.0, 0.0) == UseAndRefresh()


@pytest.mark.req("CLK-04")
@pytest.mark.parametrize(("lifetime", "least"), [(3600.0, 3525.0), (100.0, 75.0), (5.0, 3.75)])
def test_a_fleet_does_not_refresh_as_one(lifetime: float, least: float) -> None:
    held = token(lifetime)
    early, late = ageing(held, 1.0), ageing(held, 0.0)
    assert early == pytest.approx(least)
    assert late - early == pytest.approx((lifetime - late) * JITTER)


@pytest.mark.req("CLK-04")
@given(st.integers(1, 10**7), strategies.times, st.floats(0, 1))
def test_every_token_is_used_before_it_is_refreshed(
    lifetime: int, obtained: float, jitter: float
) -> None:
    held = token(float(lifetime), obtained=obtained)
    begin = plan(held, None, obtained, jitter)
    assert isinstance(begin, Use)
    assert begin.until is not None
    assert obtained + lifetime - LEEWAY * (1 + JITTER) - 1e-6 <= begin.until or lifetime < 300
    assert obtained < begin.until < obtained + lifetime
    assert plan(held, None, obtained + lifetime, jitter) == Refresh()


@given(strategies.times, st.integers(-(10**9), 10**9), st.floats(0, 1))
def test_a_clock_may_jump_anywhere(obtained: float, jump: int, jitter: float) -> None:
    """Whatever the wall clock does, the answer is one of the four, and a wait is never long ago
    or for ever.
    """
    planned = plan(token(obtained=obtained), None, obtained + jump, jitter)
    match planned:
        case Use(until):
            assert until is not None
            assert 0 < until - (obtained + jump) <= 3660.0
        case UseAndRefresh() | Refresh():
            pass
        case _:
            pytest.fail(f"{planned} gives up a login that can be refreshed")


# Rejections.

FORCED_AT = 1_800_000_000.0


@pytest.mark.req("BRR-07")
@pytest.mark.parametrize(
    ("forced_at", "at", "jitter", "worth"),
    [
        (None, FORCED_AT, 0.0, True),
        (FORCED_AT, FORCED_AT, 0.0, False),
        (FORCED_AT, FORCED_AT + BREAKER - 0.01, 0.0, False),
        (FORCED_AT, FORCED_AT + BREAKER, 0.0, True),
        (FORCED_AT, FORCED_AT + BREAKER, 0.1, False),
        (FORCED_AT, FORCED_AT + 2 * BREAKER, 1.0, True),
        (FORCED_AT, FORCED_AT - 1.0, 0.0, True),
    ],
    ids="first,same-moment,too-soon,later,jittered,latest,clock-set-back".split(","),
)
def test_a_rejection_is_not_worth_a_refresh_soon_after_another(
    forced_at: float | None, at: float, jitter: float, worth: bool
) -> None:
    assert may_force(forced_at, at, jitter) is worth


@given(st.lists(st.floats(0.0, 5.0), max_size=200), st.floats(0.0, 1.0))
def test_a_server_that_always_rejects_sees_one_forced_refresh_in_half_a_minute(
    gaps: list[float], jitter: float
) -> None:
    at, forced_at, forced = FORCED_AT, None, []
    for gap in gaps:
        at += gap
        if may_force(forced_at, at, jitter):
            forced_at = at
            forced.append(at)
    assert all(later - sooner >= BREAKER for sooner, later in pairwise(forced))
