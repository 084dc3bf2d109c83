"""The device grant: a transcript, a conversation, and every way in which a server can be odd."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
from attrs import asdict, evolve
from hypothesis import given, strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from flyteauth._sansio.client import AuthorizationServer, Client
from flyteauth._sansio.device_authorization import (
    GRANT_TYPE,
    STATES,
    Authorizing,
    DeviceAuthorization,
    DeviceCode,
    Polling,
    Prompting,
    State,
    Waiting,
    parse_device_code,
)
from flyteauth._sansio.errors import (
    ConfigError,
    Expired,
    FlowError,
    InvalidResponse,
    MissingMetadata,
    OAuth2Error,
    Unreachable,
)
from flyteauth._sansio.flow import (
    Done,
    Effect,
    Event,
    FailureReason,
    RequestFailed,
    ResponseReceived,
    SendRequest,
    ShowUserCode,
    TimeReached,
    UserCodeShown,
    WaitUntil,
)
from flyteauth._sansio.http import Response
from flyteauth._sansio.tokens import Token

from ..fuzz.properties import proper
from . import strategies
from .conversation import (
    CONVERSATIONS,
    Conversation,
    answer,
    check_step,
    control_plane,
    metadata_of,
    outcome,
    reloaded,
    reply,
)
from .test_client import credentials, form
from .test_id_token import id_token

SERVER = AuthorizationServer(
    issuer="https://as.example",
    token_endpoint="https://as.example/token",
    device_authorization_endpoint="https://as.example/device",
)
CLIENT = Client(SERVER, "cli")
FLOW = DeviceAuthorization(CLIENT)
GRANTED = reply(200, access_token="t", token_type="Bearer", expires_in=9)
PENDING = reply(400, error="authorization_pending")
SLOW_DOWN = reply(400, error="slow_down")
DOWN = RequestFailed("timeout", "timed out", sent=True, at=0.0)
PAGE = Response(502, (), b"<html>Bad gateway")
CODE = DeviceCode("secret", "WDJB-MJHT", "https://as.example/device", None, 660.0, 5.0)


# The whole grant as a table: the state, and what it is told when.
TRANSCRIPT: list[tuple[type[State], Event]] = [
    (Authorizing, answer(reply(**{**strategies.DEVICE, "expires_in": 600}), at=12.0, sent_at=10.0)),
    (Prompting, UserCodeShown(20.0)),
    (Waiting, TimeReached(24.875)),
    (Waiting, TimeReached(25.0)),
    (Polling, answer(PENDING, at=26.0)),
    (Waiting, TimeReached(31.0)),
    (Polling, answer(SLOW_DOWN, at=32.0)),
    (Waiting, TimeReached(41.875)),
    (Waiting, TimeReached(42.0)),
    (Polling, evolve(DOWN, at=43.0)),
    (Waiting, TimeReached(62.875)),
    (Waiting, TimeReached(63.0)),
    (Polling, answer(PAGE, at=64.0)),
    (Waiting, TimeReached(103.875)),
    (Waiting, TimeReached(104.0)),
    (Polling, answer(PENDING, at=105.0)),
    (Waiting, TimeReached(115.0)),
    (Polling, answer(GRANTED, at=117.0, sent_at=116.0)),
]


@pytest.mark.req("DEV-04", "DEV-05", "DEV-07", "DEV-08", "CLK-01")
def test_a_login_as_a_transcript() -> None:
    state: State | Done[Token] = FLOW.start()
    for kind, event in TRANSCRIPT:
        assert type(state) is kind
        state = FLOW.advance(reloaded(STATES, state), event)
    assert state == Done(Token("t", obtained_at=116.0, expires_at=125.0))


# The conversation.


def heard(event: Event) -> tuple[str, float]:
    """What a poll was told: an error code, "token", or "" for nothing; and how long to wait."""
    if not isinstance(event, ResponseReceived):
        return "", 0.0
    response = event.response
    asked = float(response.header("retry-after") or 0) if response.transient else 0.0
    try:
        body = json.loads(response.body)
    except ValueError:
        return "", asked
    return body.get("error", "token"), asked


class DeviceConversation(Conversation):
    """The user has a code and time; the device polls."""

    states: ClassVar = STATES
    interval = next_poll_at = 0.0
    expires_at: float | None = None
    failures = 0
    user_code = ""
    shown = token_lost = False
    decision: str | None = None
    last_word = ""

    @initialize(
        interval=st.integers(1, 90),
        lifetime=st.integers(1, 1800) | st.just(1800),
        scopes=st.sampled_from([(), ("all",), ("openid", "all")]),
        faults=st.sets(
            st.sampled_from(
                [
                    *("no-interval", "poll-slow-down", "poll-429", "poll-502-html", "token-html"),
                    *("token-no-expires-in", "token-string-expires-in", "escape-codes"),
                ]
            ),
            max_size=2,
        ),
    )
    def start(
        self, interval: int, lifetime: int, scopes: tuple[str, ...], faults: set[str]
    ) -> None:
        self.plane = control_plane(
            frozenset(faults), device_interval=interval, device_ttl=float(lifetime)
        )
        self.flow = DeviceAuthorization(Client(metadata_of(self.plane), "flytectl"), scopes)
        self.state = self.flow.start()

    def ask_user(self, effect: Effect) -> Event:
        assert isinstance(effect, ShowUserCode)
        assert effect.user_code == self.user_code
        assert effect.verification_uri
        assert effect.expires_at == self.expires_at
        self.shown = True
        return UserCodeShown(self.at)

    @precondition(lambda self: self.shown and self.decision is None)
    @rule(decision=st.sampled_from(["approved", "denied"]))
    def user_decides(self, decision: str) -> None:
        self.decision = decision
        if decision == "approved":
            self.plane.approve(self.user_code)
        else:
            self.plane.deny(self.user_code)

    @precondition(lambda self: isinstance(self.state, Prompting | Waiting))
    @rule(seconds=st.sampled_from([0.125, 5.0, 120.0]))
    def time_passes(self, seconds: float) -> None:
        self.at += seconds

    @precondition(lambda self: self.shown and self.decision is None)
    @rule(count=st.integers(3, 12))
    def user_approves_in_time(self, count: int) -> None:
        self.user_decides("approved")
        self.smooth_running(count)

    def unheard(self, response: Response) -> None:
        if self.shown and heard(answer(response))[0] == "token":
            self.token_lost = True

    def resumed(self, before: State) -> None:
        if isinstance(before, Polling) and self.end is None:
            self.next_poll_at = self.at + self.interval

    def observe(self, before: State, event: Event, after: Any) -> None:
        """RFC 8628 §3.5 as an oracle: when the next poll is due, after what was heard."""
        settings = self.plane.settings
        match before:
            case Authorizing() if isinstance(after, Prompting):
                assert isinstance(event, ResponseReceived)
                self.user_code = after.code.user_code
                self.expires_at = event.sent_at + settings.device_ttl
                self.interval = 5.0 if settings.fault("no-interval") else settings.device_interval
            case Prompting():
                self.next_poll_at = self.at + self.interval
            case Polling():
                assert self.expires_at is not None
                assert self.shown
                assert self.next_poll_at <= self.sent_at < self.expires_at
                self.last_word, asked = heard(event)
                if self.last_word == "":
                    self.failures += 1
                    doubled = self.interval * 2.0**self.failures
                    pause = max(min(doubled, max(60.0, self.interval)), asked)
                else:
                    self.failures = 0
                    self.interval += 5 if self.last_word == "slow_down" else 0
                    pause = self.interval
                self.next_poll_at = self.at + pause
        if isinstance(after, Waiting):
            assert after.poll_at == self.next_poll_at
            deadline = self.flow.effect(after)
            assert isinstance(deadline, WaitUntil)
            assert self.expires_at is not None
            assert deadline.deadline <= self.expires_at

    @invariant()
    def a_well_behaved_client_is_never_told_to_slow_down(self) -> None:
        told = self.last_word == "slow_down"
        assert not told or self.plane.settings.faults & {"poll-slow-down", "no-interval"}

    @invariant()
    def the_end_is_the_decision_of_the_user_or_the_clock(self) -> None:
        match self.end:
            case None:
                pass
            case Done(Token() as token):
                assert self.decision == "approved"
                assert self.plane.access(token.access_token, self.sent_at) is not None
                assert token.obtained_at == self.sent_at
                lifetime = self.plane.settings.access_ttl
                unknown = self.plane.settings.fault("token-no-expires-in")
                assert token.expires_at == (None if unknown else self.sent_at + lifetime)
                assert (token.id_token is not None) == ("openid" in token.scopes)
            case Expired():
                assert self.expires_at is not None
                assert self.at >= self.expires_at or self.last_word == "expired_token"
            case OAuth2Error(error="access_denied"):
                assert self.decision == "denied"
            case OAuth2Error(error="invalid_grant"):
                assert self.token_lost
            case Unreachable():
                assert not self.user_code  # without a code there is nothing to wait for
            case error:
                pytest.fail(f"{error!r}")


TestDeviceConversation = pytest.mark.req(
    "DEV-03", "DEV-04", "DEV-05", "DEV-06", "DEV-07", "DEV-08", "DEV-09", "CLK-08"
)(DeviceConversation.TestCase)
TestDeviceConversation.settings = CONVERSATIONS


device_states = st.one_of(
    st.just(Authorizing()),
    st.builds(Prompting, strategies.device_codes),
    st.builds(Waiting, strategies.device_codes, strategies.times, st.integers(0, 2000)),
    st.builds(Polling, strategies.device_codes, st.integers(0, 2000)),
)


@pytest.mark.req("ERR-07")
@given(
    device_states,
    strategies.events(
        strategies.DEVICE, strategies.TOKEN, strategies.PENDING, strategies.SLOW_DOWN
    ),
)
def test_every_event_leads_every_state_somewhere(state: State, event: Event) -> None:
    check_step(FLOW, STATES, state, event)


# The requests.


@pytest.mark.req("DEV-01")
def test_the_device_request_has_no_empty_parameters() -> None:
    effect = FLOW.effect(FLOW.start())
    assert isinstance(effect, SendRequest)
    assert effect.request.url == SERVER.device_authorization_endpoint
    assert form(effect.request) == {"client_id": "cli"}
    assert effect.request.header("authorization") is None


@pytest.mark.req("DEV-01")
def test_a_confidential_client_authenticates_at_both_endpoints() -> None:
    client = Client(
        SERVER,
        "cli",
        "s",
        audience="https://flyte.example",
        extra_parameters={"device_authorization": {"x": "1"}, "token": {"y": "2"}},
    )
    flow = DeviceAuthorization(client, ("offline", "all"))
    asking, polling = (flow.effect(state) for state in (flow.start(), Polling(CODE)))
    assert isinstance(asking, SendRequest)
    assert isinstance(polling, SendRequest)
    assert credentials(asking.request) == credentials(polling.request) == "cli:s"
    assert form(asking.request) == {
        "client_id": "cli",
        "scope": "offline all",
        "audience": "https://flyte.example",
        "x": "1",
    }
    assert polling.request.url == SERVER.token_endpoint
    assert form(polling.request) == {
        "grant_type": GRANT_TYPE,
        "device_code": "secret",
        "y": "2",
    }


@pytest.mark.req("AZR-17")
def test_a_scope_that_is_none_is_refused_before_anything_is_sent() -> None:
    flow = DeviceAuthorization(CLIENT, ("a b",))
    with pytest.raises(ConfigError):
        flow.effect(flow.start())


@pytest.mark.req("META-14")
@pytest.mark.parametrize("missing", ["device_authorization_endpoint", "token_endpoint"])
def test_a_server_without_the_grant_is_named_before_the_user_is_bothered(missing: str) -> None:
    server = AuthorizationServer(**{**asdict(SERVER), missing: None})
    flow = DeviceAuthorization(Client(server, "cli"))
    with pytest.raises(MissingMetadata) as raised:
        flow.effect(flow.start())
    assert raised.value.reason == missing


# The device code, §3.2.


def device(**changed: Any) -> Response:
    members = {**strategies.DEVICE, **changed}
    return reply(**{name: value for name, value in members.items() if value is not ...})


def unusable(**changed: Any) -> str:
    with pytest.raises(InvalidResponse) as raised:
        parse_device_code(answer(device(**changed)))
    proper(raised.value)
    return raised.value.reason


def test_a_device_code_has_all_its_parts() -> None:
    assert parse_device_code(answer(device(), at=12.0, sent_at=10.0)) == DeviceCode(
        device_code="secret",
        user_code="WDJB-MJHT",
        verification_uri="https://as.example/device",
        verification_uri_complete="https://as.example/device?user_code=WDJB-MJHT",
        expires_at=610.0,
        interval=5.0,
    )


@pytest.mark.req("DEV-02")
@pytest.mark.parametrize("name", ["device_code", "user_code", "verification_uri", "expires_in"])
@pytest.mark.parametrize("value", [..., None, "", [], {}, False])
def test_what_a_device_needs_is_required(name: str, value: object) -> None:
    assert unusable(**{name: value}) == name


@pytest.mark.req("DEV-02")
@pytest.mark.parametrize("value", [0, -1, "soon", 0.5, True])
def test_the_lifetime_is_positive(value: object) -> None:
    assert unusable(expires_in=value) == "expires_in"


@pytest.mark.req("DEV-09")
def test_nobody_waits_longer_than_half_an_hour() -> None:
    assert parse_device_code(answer(device(expires_in=86400), at=10.0)).expires_at == 1810.0


NO_INTERVALS: list[object] = [
    *(..., None, 0, -5, -0.5, "x", "", "0", "-7", [], True, "7 8", "7s", "1_0", "e7", "\u0663"),
]


@pytest.mark.req("DEV-03")
@pytest.mark.parametrize(
    ("value", "interval"),
    [
        *((odd, 5.0) for odd in NO_INTERVALS),
        *((seven, 7.0) for seven in (7, 7.0, "7", " 7 ", "7.", "0" * 30 + "7", "0.7e1", 6.125)),
        *((half, 31.0) for half in (30.5, "30.5", "30.0000001", " 3.05e1\n")),
        (0.5, 1.0),
        (119.875, 120.0),
        (1799.125, 1800.0),
        (1, 1.0),
        (120, 120.0),
        (1800, 1800.0),
    ],
)
def test_the_interval_is_read_leniently(value: Any, interval: float) -> None:
    assert parse_device_code(answer(device(interval=value))).interval == interval


@pytest.mark.req("DEV-03")
@pytest.mark.parametrize("value", [1801, 1800.125, 10**400, "9" * 20, "9" * 5000, "1e400", "1801"])
def test_an_interval_beyond_reason_is_refused(value: Any) -> None:
    assert unusable(interval=value) == "interval"


@pytest.mark.req("DEV-03", "ERR-07")
@pytest.mark.parametrize("number", [b"1e400", b"9" * 26, b"1801.5", b"9" * 4000])
def test_an_absurd_number_is_no_short_interval(number: bytes) -> None:
    body = device(interval=4711).body.replace(b"4711", number)
    with pytest.raises(InvalidResponse) as raised:
        parse_device_code(answer(Response(200, (), body)))
    assert raised.value.reason == "interval"


@pytest.mark.req("DEV-03")
@given(st.integers(1, 1800 * 8).map(lambda eighths: eighths / 8), st.sampled_from([float, str]))
def test_no_interval_is_undercut(interval: float, spelling: Any) -> None:
    found = parse_device_code(answer(device(interval=spelling(interval)))).interval
    assert interval <= found < interval + 1


@pytest.mark.req("TOK-03")
@pytest.mark.parametrize(
    "name",
    [*strategies.DEVICE, "error", "error_description", "error_uri"],
)
def test_nothing_that_we_know_is_there_twice(name: str) -> None:
    twice = b'{"%b":"https://as.example/",' % name.encode() + device(**{name: "x"}).body[1:]
    with pytest.raises(InvalidResponse) as raised:
        parse_device_code(answer(Response(200, (), twice)))
    assert raised.value.reason == "duplicate"


@pytest.mark.req("ERR-01", "DEV-12")
@pytest.mark.parametrize("length", [300, 301])
def test_an_address_that_is_too_long_to_show_is_not_cut(length: int) -> None:
    long = "https://as.example/".ljust(length, "x")
    whole = length == 300
    code = parse_device_code(answer(device(verification_uri_complete=long)))
    assert code.verification_uri_complete == (long if whole else None)
    if whole:
        assert parse_device_code(answer(device(verification_uri=long))).verification_uri == long
    else:
        assert unusable(verification_uri=long) == "verification_uri"
    umlauts = "https://as.example/" + "é" * 60  # percent-encoded, and only then too long
    assert unusable(verification_uri=umlauts) == "verification_uri"


@pytest.mark.req("DEV-12")
@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)",
        "http://as.example/device",
        "https://a@evil.example/",
        "https://as.example/\x1b[2J",
        "https://as.example/#fragment",
        "https://\u0430@evil.example/",
        "as.example/device",
        "-https://as.example/",
    ],
)
def test_a_verification_uri_is_safe_to_open(uri: str) -> None:
    assert unusable(verification_uri=uri) == "verification_uri"


@pytest.mark.req("DEV-12", "ERR-06")
def test_a_verification_uri_is_shown_in_ascii() -> None:
    code = parse_device_code(answer(device(verification_uri="https://\u0430pple.example/é")))
    assert code.verification_uri == "https://xn--pple-43d.example/%C3%A9"
    local = parse_device_code(answer(device(verification_uri="http://localhost:1/d")))
    assert local.verification_uri == "http://localhost:1/d"


@pytest.mark.req("DEV-11", "DEV-12")
@pytest.mark.parametrize(
    "complete",
    [
        *(..., None, "", 5, ["https://as.example/"]),
        "https://evil.example/device?user_code=WDJB-MJHT",
        "https://as.example:8443/device",
        "http://as.example/device",
        "javascript:alert(1)",
        "https://a@as.example/",
        "https://as.example/\u202e",
    ],
)
def test_a_complete_uri_is_neither_invented_nor_taken_from_elsewhere(complete: Any) -> None:
    code = parse_device_code(answer(device(verification_uri_complete=complete)))
    assert code.verification_uri_complete is None
    assert code.verification_uri == "https://as.example/device"


@pytest.mark.req("DEV-13")
@pytest.mark.parametrize(
    "code",
    [
        *("\x1b[2J", "A\nB", "\u202eA", "A\u200bB", "x" * 65, "\x7f", "\ud800"),
        *(" ", " " * 10, "\u3000", "\u00a0A", "\u3164\u3164", "\u2800", "\u034f" * 60),
        *("\u115f", "A\u1160", "A\ufe0f", "\U000e0100", "\uffa0", "\u17b4", "\u180b"),
    ],
)
def test_a_user_code_that_cannot_be_printed_is_refused(code: str) -> None:
    assert unusable(user_code=code) == "user_code"


@pytest.mark.req("DEV-13")
@pytest.mark.parametrize("code", ["x" * 64, "[link=https://evil]x", "%s {x} <b>", "ÄÖ-漢字"])
def test_any_other_user_code_is_literal_text(code: str) -> None:
    assert parse_device_code(answer(device(user_code=code))).user_code == code


@pytest.mark.req("ERR-07")
@given(strategies.received(strategies.DEVICE, strategies.REFUSAL))
def test_any_bytes_are_a_device_code_or_a_flow_error(received: ResponseReceived) -> None:
    code = outcome(lambda: parse_device_code(received))
    if isinstance(code, DeviceCode):
        assert 1 <= code.interval <= 1800
        assert 1 <= code.expires_at - received.sent_at <= 1800
        assert code.verification_uri.isascii()
        assert len(code.user_code) <= 64


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (answer(reply(400, error="invalid_client")), OAuth2Error),
        (answer(reply(503)), Unreachable),
        (answer(reply(404)), InvalidResponse),
        (DOWN, Unreachable),
        (RequestFailed("redirect", "x", sent=True, at=0.0), InvalidResponse),
    ],
)
def test_without_a_code_the_login_ends(event: Event, kind: type[FlowError]) -> None:
    with pytest.raises(FlowError) as raised:
        FLOW.advance(FLOW.start(), event)
    assert type(raised.value) is kind


# Showing the code, §3.3.


@pytest.mark.req("DEV-11")
@pytest.mark.parametrize("complete", [None, "https://as.example/device?c=1"])
def test_the_user_is_shown_code_and_uri_in_any_case(complete: str | None) -> None:
    code = evolve(CODE, verification_uri_complete=complete)
    assert FLOW.effect(Prompting(code)) == ShowUserCode(
        "WDJB-MJHT", "https://as.example/device", complete, 660.0
    )


@pytest.mark.req("DEV-15", "SEC-01")
@pytest.mark.parametrize("kind", [Prompting, Polling, lambda code: Waiting(code, 1.0)])
def test_no_repr_shows_the_device_code(kind: Any) -> None:
    state = kind(evolve(CODE, device_code="canary"))
    assert "canary" not in repr(state)
    assert "canary" not in repr(FLOW.effect(state))


# Polling, §3.5.


@pytest.mark.req("DEV-04")
def test_the_first_poll_waits_for_the_interval() -> None:
    assert FLOW.advance(Prompting(CODE), UserCodeShown(100.0)) == Waiting(CODE, 105.0)


@pytest.mark.req("DEV-05")
def test_slow_down_holds_for_this_and_all_later_polls() -> None:
    gaps, state, at = [], Polling(CODE), 0.0
    for told in (PENDING, SLOW_DOWN, SLOW_DOWN, PENDING):
        waiting = FLOW.advance(state, answer(told, at))
        assert isinstance(waiting, Waiting)
        gaps.append(waiting.poll_at - at)
        at = waiting.poll_at
        polling = FLOW.advance(waiting, TimeReached(at))
        assert isinstance(polling, Polling)
        state = polling
    assert gaps == [5.0, 10.0, 15.0, 15.0]


@pytest.mark.req("DEV-07")
@pytest.mark.parametrize(
    ("interval", "gaps"),
    [(5.0, [10, 20, 40, 60, 60]), (1.0, [2, 4, 8, 16, 32, 60, 60]), (90.0, [90, 90])],
)
def test_timeouts_double_the_pause_up_to_a_minute(interval: float, gaps: list[float]) -> None:
    state: Any = Polling(evolve(CODE, interval=interval))
    for gap in gaps:
        waiting = FLOW.advance(state, DOWN)
        assert isinstance(waiting, Waiting)
        assert waiting.poll_at == gap
        state = Polling(waiting.code, waiting.failures)


def test_a_server_that_answers_again_is_polled_at_the_interval_again() -> None:
    assert FLOW.advance(Polling(CODE, 7), answer(PENDING)) == Waiting(CODE, 5.0, 0)
    assert FLOW.advance(Polling(CODE, 10**6), DOWN) == Waiting(CODE, 60.0, 10**6 + 1)


@pytest.mark.req("DEV-08")
@pytest.mark.parametrize(
    ("response", "pause"),
    [
        (PAGE, 10.0),
        (Response(200, (), b"<html>Log in to the network"), 10.0),
        (Response(403, (), b"<html>WAF"), 10.0),
        (Response(404), 10.0),
        (Response(302, (("Location", "https://login.example/"),)), 10.0),
        (reply(500, error="invalid_grant"), 10.0),
        (reply(400, error="temporarily_unavailable"), 10.0),
        (reply(503, {"Retry-After": "30"}), 30.0),
        (reply(429, {"Retry-After": "3"}), 10.0),
        (reply(429, {"Retry-After": "600"}), 600.0),
        (reply(502, error={"code": 502, "message": "bad gateway"}), 10.0),
        (reply(403, {"Retry-After": "30"}), 10.0),
    ],
)
def test_a_reply_without_an_oauth_error_is_a_pause(response: Response, pause: float) -> None:
    assert FLOW.advance(Polling(CODE), answer(response)) == Waiting(CODE, pause, 1)


@pytest.mark.req("DEV-06")
@pytest.mark.parametrize("status", [200, 400, 401, 403])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("access_denied", OAuth2Error),
        ("expired_token", Expired),
        ("invalid_grant", OAuth2Error),
        ("invalid_client", OAuth2Error),
        ("something_new", OAuth2Error),
        ("inv\nalid", InvalidResponse),
        (5, InvalidResponse),
    ],
)
def test_every_other_error_is_the_end(status: int, error: Any, kind: type[FlowError]) -> None:
    with pytest.raises(FlowError) as raised:
        FLOW.advance(Polling(CODE), answer(reply(status, error=error)))
    assert type(raised.value) is kind


@pytest.mark.parametrize("reason", ["tls", "too_large", "encoding", "redirect", "insecure"])
def test_a_failure_that_stays_is_the_end(reason: FailureReason) -> None:
    with pytest.raises(FlowError) as raised:
        FLOW.advance(Polling(CODE), RequestFailed(reason, "x", sent=True, at=0.0))
    assert raised.value.reason == reason


@pytest.mark.req("DEV-15", "TOK-04", "TOK-05")
@pytest.mark.parametrize("name", ["access_token", "token_type"])
def test_the_final_response_is_checked_like_any_other(name: str) -> None:
    body = {"access_token": "t", "token_type": "Bearer", name: None}
    with pytest.raises(InvalidResponse) as raised:
        FLOW.advance(Polling(CODE), answer(reply(**body)))
    assert raised.value.reason == name


@pytest.mark.req("DEV-15")
def test_an_id_token_is_checked_where_openid_was_asked_for() -> None:
    bad = reply(access_token="t", token_type="Bearer", id_token=id_token(sub=""))
    good = reply(access_token="t", token_type="Bearer", id_token=id_token(nonce=None))
    openid = evolve(FLOW, scopes=("openid",))
    assert isinstance(FLOW.advance(Polling(CODE), answer(bad, 1000.0)), Done)
    assert isinstance(openid.advance(Polling(CODE), answer(good, 1000.0)), Done)
    for flow, response in ((openid, bad), (evolve(openid, verified=False), good)):
        with pytest.raises(InvalidResponse, match="ID token"):
            flow.advance(Polling(CODE), answer(response, 1000.0))


# The end of time, and other processes.


@pytest.mark.req("DEV-09", "CLK-07")
def test_a_wait_ends_with_the_code() -> None:
    waiting = Waiting(CODE, 700.0)
    assert FLOW.effect(waiting) == WaitUntil(660.0)
    assert FLOW.effect(Waiting(CODE, 600.0)) == WaitUntil(600.0)
    assert FLOW.advance(waiting, TimeReached(659.875)) == waiting
    for late in (660.0, 700.0):
        for state in (waiting, Waiting(CODE, 600.0)):
            with pytest.raises(Expired):
                FLOW.advance(state, TimeReached(late))


@pytest.mark.parametrize(
    ("state", "resumed"),
    [
        (Authorizing(), Authorizing()),
        (Prompting(CODE), Prompting(CODE)),
        (Waiting(CODE, 50.0, 2), Waiting(CODE, 50.0, 2)),
        (Polling(CODE, 2), Waiting(CODE, 105.0, 2)),
    ],
)
def test_another_process_goes_on_and_polls_no_sooner(state: State, resumed: State) -> None:
    assert FLOW.resume(reloaded(STATES, state), 100.0) == resumed


@pytest.mark.req("DEV-09")
@pytest.mark.parametrize("state", [Prompting(CODE), Waiting(CODE, 50.0), Polling(CODE)])
def test_another_process_does_not_go_on_after_the_end(state: State) -> None:
    FLOW.resume(state, 659.875)
    with pytest.raises(Expired):
        FLOW.resume(state, 660.0)


@pytest.mark.req("TOK-08")
def test_what_was_asked_is_granted_where_the_server_does_not_say() -> None:
    end = DeviceAuthorization(CLIENT, ("b", "a")).advance(Polling(CODE), answer(GRANTED))
    assert isinstance(end, Done)
    assert end.value.scopes == ("a", "b")


@pytest.mark.req("META-02")
def test_one_host_may_be_spoken_to_without_tls() -> None:
    plain = "http://as.lan/device"
    told = answer(device(verification_uri=plain, verification_uri_complete=f"{plain}?c=1"))
    flow = DeviceAuthorization(evolve(CLIENT, plain_host="as.lan"))
    prompting = flow.advance(flow.start(), told)
    assert isinstance(prompting, Prompting)
    assert prompting.code.verification_uri == plain
    assert prompting.code.verification_uri_complete == f"{plain}?c=1"
    with pytest.raises(InvalidResponse):
        FLOW.advance(FLOW.start(), told)
