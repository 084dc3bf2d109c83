"""
When a token is used, refreshed or given up: a policy, carried out by the session.

    fresh ──leeway──► ageing ──expires_at──► expired
      Use             UseAndRefresh          Refresh, or Authorize where nothing can be refreshed
"""

from __future__ import annotations

from typing import Final

from .token import Token
from .value import Value

LEEWAY: Final = 60.0
LEEWAY_SHARE: Final = 0.2
JITTER: Final = 0.25
SKEW: Final = 60.0
BREAKER: Final = 30.0


class Use(Value):
    """The token is good until ``until``, when there is something to do; None: until rejected."""

    until: float | None


class UseAndRefresh(Value):
    """The token is still good: use it, and get the next one meanwhile."""


class Refresh(Value):
    """The token is spent: nothing works before a refresh."""


class Authorize(Value):
    """Nothing is left to refresh with: a grant from the beginning."""


Plan = Use | UseAndRefresh | Refresh | Authorize


def plan(
    token: Token | None, rejected: str | None, at: float, jitter: float, *, silent: bool = False
) -> Plan:
    """What to do about *token* at time *at* (POSIX seconds).

    *rejected* is the access token that a server last refused: only that very token is spent
    early. *jitter* in 0..1 is drawn once per token, so that a fleet does not refresh as one.
    *silent*: a grant that needs no person stands in for the refresh token (RFC 6749 §4.4.3).
    A token from the future was written by a clock that ran ahead: its expiry means nothing.
    """
    if token is None:
        return Refresh() if silent else Authorize()
    renewable = silent or token.refresh_token is not None
    spent = Refresh() if renewable else Authorize()
    if token.access_token == rejected or token.obtained_at > at + SKEW:
        return spent
    if token.expires_at is None:
        return Use(None)
    if at >= token.expires_at:
        return spent
    ageing_at = ageing(token, jitter)
    if at < ageing_at:
        return Use(ageing_at)
    return UseAndRefresh() if renewable else Use(token.expires_at)


def will_do(token: Token, rejected: str | None, at: float) -> bool:
    """Whether *token* can be handed out at time *at*, fresh or ageing; see plan."""
    return isinstance(plan(token, rejected, at, 0.0), Use | UseAndRefresh)


def ageing(token: Token, jitter: float) -> float:
    """When *token* begins to age: a leeway before its end, plus up to a quarter of that."""
    assert token.expires_at is not None
    lifetime = token.expires_at - token.obtained_at
    leeway = min(LEEWAY, LEEWAY_SHARE * lifetime)
    return token.expires_at - leeway * (1 + JITTER * jitter)


def may_force(forced_at: float | None, at: float, jitter: float) -> bool:
    """Whether a rejected token is worth a refresh at time *at*.

    Not soon after another refresh that a rejection had brought about, at *forced_at*: a server that
    rejects what was just issued will not like the next one either, and must not be stormed.
    *jitter* as for ``plan``, so that a fleet does not come back as one.
    """
    return forced_at is None or not 0 <= at - forced_at < BREAKER * (1 + jitter)
