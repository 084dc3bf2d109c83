"""The smallest flows, their patience, and how a state is saved."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from attrs import frozen
from hypothesis import given, strategies as st

from flyteauth._sansio.errors import (
    FlowError,
    InvalidResponse,
    OAuth2Error,
    StoreError,
    UnexpectedEvent,
    Unreachable,
)
from flyteauth._sansio.flow import (
    Backoff,
    Done,
    Effect,
    Event,
    Exchange,
    Exchanging,
    FailureReason,
    OpenBrowser,
    Pausing,
    RedirectReceived,
    RequestFailed,
    ResponseReceived,
    Retrying,
    Sending,
    SendRequest,
    TimeReached,
    UserCodeShown,
    WaitUntil,
    dump,
    failure,
    fraction,
    load,
)
from flyteauth._sansio.http import RETRY_AFTER_MAX, Request, Response
from flyteauth._sansio.tokens import parse_success

from . import strategies
from .conversation import ANSWERS, answer, check_step, outcome, reloaded, reply

REQUEST = Request("POST", "https://user:canary@as.example/token", (), b"canary")
EXCHANGE = Exchange(REQUEST, parse_success)
LAZY = 2**64 - 1  # a seed whose jitter is as long as can be
HASTY = 0  # and one whose jitter is nothing


def lost(at: float = 0.0) -> RequestFailed:
    return RequestFailed("timeout", "no answer", sent=True, at=at)


def refused(at: float = 0.0) -> RequestFailed:
    return RequestFailed("connect", "connection refused", sent=False, at=at)


def busy(at: float = 0.0, retry_after: str | None = None) -> ResponseReceived:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return answer(reply(503, headers), at)


# The vocabulary.


def test_every_effect_has_its_events_and_every_event_its_effect() -> None:
    assert set(ANSWERS) == set(get_args(Effect))
    assert {kind for kinds in ANSWERS.values() for kind in kinds} == set(get_args(Event))


@pytest.mark.req("SEC-01")
@pytest.mark.parametrize(
    "value",
    [
        SendRequest(Request("POST", "https://as/", (("authorization", "canary"),), b"canary")),
        OpenBrowser("https://as/?state=canary", "http://localhost/", "canary"),
        RedirectReceived("http://localhost/?code=canary", 0.0),
        answer(Response(200, (("x", "canary"),), b"canary")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_effects_and_events_do_not_show_their_secrets(value: object) -> None:
    assert "canary" not in repr(value)


# A request without a usable response.


@pytest.mark.parametrize("reason", ["connect", "timeout", "protocol"])
@pytest.mark.parametrize("sent", [True, False])
def test_a_failure_of_the_network_is_transient(reason: FailureReason, sent: bool) -> None:
    error = failure(REQUEST, RequestFailed(reason, "gone\x1b", sent, 0.0))
    assert isinstance(error, Unreachable)
    assert (error.reason, error.sent, error.retry_after) == (reason, sent, None)
    assert "as.example cannot be reached: gone\\x1b; check" in str(error)
    assert "canary" not in str(error)


def test_a_certificate_is_a_matter_of_configuration() -> None:
    error = failure(REQUEST, RequestFailed("tls", "self-signed", sent=False, at=0.0))
    assert isinstance(error, Unreachable)
    assert error.reason == "tls"
    for place in ("caCertFilePath", "--ca-cert", "ca_cert_file_path="):
        assert place in str(error)


@pytest.mark.parametrize("reason", ["too_large", "encoding", "redirect", "insecure"])
def test_a_response_that_cannot_be_used_is_invalid(reason: FailureReason) -> None:
    error = failure(REQUEST, RequestFailed(reason, "no", sent=True, at=0.0))
    assert isinstance(error, InvalidResponse)
    assert error.reason == reason


@given(strategies.failures)
def test_any_failure_has_a_message_that_can_be_shown(failed: RequestFailed) -> None:
    error = failure(REQUEST, failed)

    def throw() -> None:
        raise error

    assert outcome(throw) is error


# Exchange.


def test_an_exchange_is_one_request_and_one_response() -> None:
    state = EXCHANGE.start()
    assert EXCHANGE.effect(state) == SendRequest(REQUEST)
    assert EXCHANGE.advance(state, answer(reply(a=1))) == Done({"a": 1})
    assert EXCHANGE.resume(state, 5.0) == state
    with pytest.raises(OAuth2Error):
        EXCHANGE.advance(state, answer(reply(400, error="invalid_grant")))
    with pytest.raises(Unreachable):
        EXCHANGE.advance(state, lost())


@given(strategies.events(strategies.TOKEN))
def test_every_event_leads_an_exchange_somewhere(event: Event) -> None:
    check_step(EXCHANGE, (Exchanging,), EXCHANGE.start(), event)


# Retrying.

RETRYING = Retrying(EXCHANGE)


def run(flow: Retrying[Any], seed: int, *answers: Event) -> tuple[list[float], Any]:
    """The pauses before each repetition, and the end: a value, an error, or the open state."""
    state: Any = flow.start(seed)
    pauses: list[float] = []
    for event in answers:
        assert flow.effect(state) == SendRequest(flow.exchange.request)
        try:
            after = flow.advance(state, event)
        except FlowError as error:
            return pauses, error
        if isinstance(after, Done):
            return pauses, after.value
        effect = flow.effect(after)
        assert isinstance(effect, WaitUntil)
        pauses.append(effect.deadline - event.at)
        state = flow.advance(after, TimeReached(effect.deadline))
    return pauses, state


@pytest.mark.req("REF-09")
def test_a_busy_server_is_asked_again_as_it_wishes() -> None:
    pauses, end = run(RETRYING, LAZY, busy(10.0, "2"), answer(reply(a=1), 12.5))
    assert (pauses, end) == ([2.0], {"a": 1})


@pytest.mark.req("REF-09")
def test_three_attempts_with_growing_pauses_are_all() -> None:
    pauses, end = run(RETRYING, LAZY, busy(0.0), refused(1.0), busy(4.0, "7"))
    assert pauses == [0.5, 1.0]
    assert isinstance(end, Unreachable)
    assert end.retry_after == 7.0


def test_pauses_are_capped_and_jittered() -> None:
    backoff = Backoff(attempts=9, cap=3.0)
    pauses, _ = run(Retrying(EXCHANGE, backoff), LAZY, *[busy()] * 6)
    assert pauses == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0]
    assert run(Retrying(EXCHANGE, backoff), HASTY, *[busy()] * 6)[0] == [0.0] * 6
    assert Backoff().pause(20, LAZY) == 30.0


@given(strategies.seeds, st.integers(0, 50))
def test_jitter_comes_from_the_seed(seed: int, index: int) -> None:
    assert 0.0 <= fraction(seed, index) <= 1.0
    assert 0.0 <= Backoff().pause(index, seed) <= min(30.0, 0.5 * 2.0**index)


def test_each_pause_has_jitter_of_its_own() -> None:
    assert [fraction(0xFFFF << 16, index) for index in range(6)] == [0, 1, 0, 0, 0, 1]


@pytest.mark.req("NET-02")
def test_a_retry_after_is_waited_for_up_to_two_minutes() -> None:
    assert RETRY_AFTER_MAX == 120
    pauses, end = run(RETRYING, HASTY, busy(0.0, "120"), answer(reply(a=1)))
    assert (pauses, end) == ([120.0], {"a": 1})
    pauses, end = run(RETRYING, HASTY, busy(0.0, "3600"))
    assert pauses == []
    assert isinstance(end, Unreachable)
    assert end.retry_after == 3600.0


@pytest.mark.req("NET-02")
@pytest.mark.parametrize("value", ["-1", "abc", "Sun, 06 Nov 1994 08:49:37 GMT"])
def test_a_retry_after_that_says_nothing_leaves_our_own_pause(value: str) -> None:
    assert run(RETRYING, LAZY, busy(8e8, value))[0] == [0.5]


@pytest.mark.req("REF-11")
def test_a_lost_reply_is_asked_for_once_more_and_not_twice() -> None:
    pauses, end = run(RETRYING, LAZY, lost(), answer(reply(a=1)))
    assert (pauses, end) == ([0.5], {"a": 1})
    pauses, end = run(RETRYING, LAZY, lost(), lost(), answer(reply(a=1)))
    assert pauses == [0.5]
    assert isinstance(end, Unreachable)
    assert end.sent
    pauses, end = run(RETRYING, LAZY, lost(), answer(reply(400, error="invalid_grant")))
    assert isinstance(end, OAuth2Error)
    assert len(pauses) == 1


@pytest.mark.req("REF-11")
def test_a_lost_reply_is_remembered_across_other_failures() -> None:
    patient = Retrying(EXCHANGE, Backoff(attempts=9))
    pauses, end = run(patient, LAZY, lost(), refused(), busy(), lost(), answer(reply(a=1)))
    assert len(pauses) == 3
    assert isinstance(end, Unreachable)


def test_a_reply_need_not_be_lost_to_be_careful() -> None:
    careful = Retrying(EXCHANGE, Backoff(lost_replies=0))
    assert isinstance(run(careful, LAZY, lost())[1], Unreachable)
    assert run(careful, LAZY, refused(), answer(reply(a=1))) == ([0.5], {"a": 1})


@pytest.mark.parametrize(
    "event",
    [
        answer(reply(400, error="invalid_grant")),
        answer(reply(403)),
        RequestFailed("tls", "self-signed", sent=False, at=0.0),
        RequestFailed("redirect", "to x", sent=True, at=0.0),
        RequestFailed("insecure", "plain http", sent=False, at=0.0),
    ],
    ids=["an answer", "a wall", "a certificate", "a redirect", "an insecure URL"],
)
def test_what_will_not_change_is_not_tried_again(event: Event) -> None:
    pauses, end = run(RETRYING, LAZY, event)
    assert pauses == []
    assert isinstance(end, FlowError)


@pytest.mark.req("CLK-07")
def test_waking_early_is_no_reason_to_ask() -> None:
    pausing = Pausing(LAZY, 1, 0, until=10.0)
    assert RETRYING.advance(pausing, TimeReached(9.875)) == pausing
    assert RETRYING.advance(pausing, TimeReached(10.0)) == Sending(LAZY, 1, 0)


retrying_states = st.builds(
    Sending, strategies.seeds, st.integers(0, 3), st.integers(0, 2)
) | st.builds(Pausing, strategies.seeds, st.integers(0, 3), st.integers(0, 2), strategies.times)


@given(retrying_states, strategies.events(strategies.TOKEN, strategies.REFUSAL))
def test_every_event_leads_every_state_somewhere(state: Any, event: Event) -> None:
    check_step(RETRYING, (Sending, Pausing), state, event)


@given(strategies.seeds, st.data())
def test_a_conversation_ends_after_at_most_three_requests(seed: int, data: st.DataObject) -> None:
    state: Any = reloaded((Sending, Pausing), RETRYING.start(seed))
    at, sends, losses = 1000.0, 0, 0
    for _ in range(20):
        match RETRYING.effect(state):
            case SendRequest():
                sends += 1
                answers: list[Event] = [busy(at, "5"), lost(at), refused(at)]
                event = data.draw(st.sampled_from(answers))
                losses += isinstance(event, RequestFailed) and event.sent
            case WaitUntil(deadline):
                at = deadline + data.draw(st.sampled_from([-0.125, 0.0, 5.0]))
                event = TimeReached(at)
            case effect:
                pytest.fail(f"{effect} is not for an exchange")
        try:
            after = RETRYING.advance(state, event)
        except Unreachable:
            break
        assert not isinstance(after, Done)
        state = reloaded((Sending, Pausing), after)
    assert sends <= 3
    assert losses <= 2


# Saving a state.


@frozen
class Inner:
    text: str


@frozen
class Outer:
    number: float
    count: int
    flag: bool
    inner: Inner
    maybe: str | None
    perhaps: Inner | None
    names: tuple[str, ...]
    inners: tuple[Inner, ...]


@frozen
class Other:
    state: str = "Outer"  # as in the authorization code grant: a member of that very name


@frozen
class Unsavable:
    value: bytes


FULL = Outer(1.5, 2, True, Inner("é\ud800"), "x", Inner("y"), ("a", "b"), (Inner("z"),))
EMPTY = Outer(0.0, 0, False, Inner(""), None, None, (), ())
SAVED = dump(FULL)
TAG = next(name for name, value in SAVED.items() if value == "Outer")  # which state it is


@pytest.mark.parametrize("state", [FULL, EMPTY, Other()])
def test_a_state_survives_json(state: Any) -> None:
    reloaded((Outer, Other), state)
    assert load((Outer, Other), dump(state)) == state


def test_a_whole_number_may_stand_for_a_time() -> None:
    assert load((Outer,), {**SAVED, "number": 2}) == Outer(
        2.0, 2, True, FULL.inner, "x", FULL.perhaps, FULL.names, FULL.inners
    )


@pytest.mark.parametrize(
    "saved",
    [
        None,
        [],
        "Outer",
        {},
        {TAG: "Unknown"},
        {TAG: None},
        {TAG: ["Outer"]},
        {TAG: "Outer"},
        {TAG: "Other"},
        {**SAVED, "more": 1},
        {name: value for name, value in SAVED.items() if name != "flag"},
        {**SAVED, "number": "1.5"},
        {**SAVED, "number": None},
        {**SAVED, "number": True},
        {**SAVED, "number": 10**400},
        {**SAVED, "number": float("nan")},
        {**SAVED, "number": float("inf")},
        {**SAVED, "count": 1.0},
        {**SAVED, "count": True},
        {**SAVED, "flag": 1},
        {**SAVED, "inner": None},
        {**SAVED, "inner": "x"},
        {**SAVED, "inner": {"text": 5}},
        {**SAVED, "maybe": 5},
        {**SAVED, "perhaps": {}},
        {**SAVED, "names": "ab"},
        {**SAVED, "names": {"a": 1}},
        {**SAVED, "names": ["a", None]},
        {**SAVED, "inners": [{"text": "x", "more": 1}]},
        {TAG: "Unsavable", "value": "x"},
    ],
)
def test_a_damaged_state_is_refused(saved: object) -> None:
    with pytest.raises(StoreError, match="log in again") as raised:
        load((Outer, Other, Unsavable), saved)
    assert raised.value.reason == "corrupt"


@given(strategies.json_values | strategies.bodies(SAVED))
def test_any_json_is_a_state_or_damaged(saved: Any) -> None:
    if isinstance(saved, bytes):
        try:
            saved = json.loads(saved)
        except (ValueError, RecursionError):
            return
    try:
        state = load((Outer, Other), saved)
    except StoreError:
        return
    reloaded((Outer, Other), state)


def test_an_unexpected_event_is_a_bug_and_says_whose() -> None:
    with pytest.raises(UnexpectedEvent, match="Exchanging cannot take UserCodeShown"):
        EXCHANGE.advance(EXCHANGE.start(), UserCodeShown(0.0))
