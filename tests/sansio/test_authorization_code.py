"""The authorization code grant: a transcript, a conversation, and every odd redirect."""

from __future__ import annotations

import re
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from attrs import asdict, evolve
from hypothesis import given, strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from flyteauth._sansio.authorization_code import (
    ENTROPY,
    STATES,
    AuthorizationCode,
    Authorizing,
    Pausing,
    Redeeming,
    State,
)
from flyteauth._sansio.client import AuthorizationServer, Client
from flyteauth._sansio.errors import (
    ConfigError,
    FlowError,
    InvalidResponse,
    MissingMetadata,
    OAuth2Error,
    ReauthRequired,
    Unreachable,
)
from flyteauth._sansio.flow import (
    Done,
    Effect,
    Event,
    FailureReason,
    OpenBrowser,
    RedirectReceived,
    RequestFailed,
    ResponseReceived,
    SendRequest,
    TimeReached,
    WaitUntil,
)
from flyteauth._sansio.http import Request, Response
from flyteauth._sansio.tokens import Token

from ..fuzz.properties import proper
from . import strategies
from .conversation import (
    BASE,
    CONVERSATIONS,
    Conversation,
    answer,
    check_step,
    control_plane,
    metadata_of,
    reloaded,
    reply,
)
from .test_client import credentials, form
from .test_id_token import id_token
from .test_redirect import recorded_comparisons

SERVER = AuthorizationServer(
    issuer="https://as.example",
    authorization_endpoint="https://as.example/auth?tenant=x",
    token_endpoint="https://as.example/token",
)
CLIENT = Client(SERVER, "cli")
FLOW = AuthorizationCode(CLIENT)
REDIRECT_URI = "http://127.0.0.1:5000/callback"
STATE = "s" * 43
# RFC 7636 App. B.
OCTETS = bytes(
    [116, 24, 223, 180, 151, 153, 224, 37, 79, 250, 96, 125, 216, 173, 187, 186]
    + [22, 212, 37, 77, 105, 214, 191, 240, 91, 88, 5, 88, 83, 132, 141, 121]
)
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

AUTHORIZING = Authorizing(REDIRECT_URI, STATE, VERIFIER, None)
REDEEMING = Redeeming(REDIRECT_URI, "code", VERIFIER, None)
GRANTED = reply(200, access_token="t", token_type="Bearer", expires_in=9)
entropies = st.binary(min_size=ENTROPY, max_size=ENTROPY)


def redirect(**parameters: str) -> RedirectReceived:
    return RedirectReceived(f"{REDIRECT_URI}?{urlencode(parameters)}", 5.0)


def refused(event: RedirectReceived, flow: AuthorizationCode = FLOW) -> FlowError:
    with pytest.raises(FlowError) as raised:
        flow.advance(AUTHORIZING, event)
    proper(raised.value)
    return raised.value


def browser(flow: AuthorizationCode, state: State) -> dict[str, str]:
    """The parameters of the authorization request."""
    effect = flow.effect(state)
    assert isinstance(effect, OpenBrowser)
    pairs = parse_qsl(urlsplit(effect.authorization_uri).query, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs), "a parameter is repeated"
    return dict(pairs)


def sent(flow: AuthorizationCode, state: State) -> Request:
    effect = flow.effect(state)
    assert isinstance(effect, SendRequest)
    return effect.request


# The whole grant as a table: the state, and what it is told when.
REFUSED = RequestFailed("connect", "connection refused", sent=False, at=0.0)
TRANSCRIPT: list[tuple[type[State], Event]] = [
    (Authorizing, RedirectReceived(f"{REDIRECT_URI}?code=a%2Fb+c&state={STATE}&x=y", 5.0)),
    (Redeeming, evolve(REFUSED, at=6.0)),
    (Pausing, TimeReached(6.375)),
    (Pausing, TimeReached(6.5)),
    (Redeeming, evolve(REFUSED, at=7.0)),
    (Pausing, TimeReached(8.0)),
    (Redeeming, answer(GRANTED, at=11.0, sent_at=10.0)),
]


@pytest.mark.req("COD-04", "CLK-01", "CBK-08")
def test_a_login_as_a_transcript() -> None:
    state: State | Done[Token] = AUTHORIZING
    for kind, event in TRANSCRIPT:
        assert type(state) is kind
        if isinstance(state, Redeeming):
            assert state.code == "a/b c"
        state = FLOW.advance(reloaded(STATES, state), event)
    assert state == Done(Token("t", obtained_at=10.0, expires_at=19.0))


# The conversation.

FAULTS = [
    *("deny", "wrong-iss", "missing-iss", "wrong-state", "wrong-nonce", "code-expired"),
    *("token-html", "token-no-expires-in", "escape-codes", "no-refresh-token"),
]


class AuthorizationCodeConversation(Conversation):
    """A user in a browser, strangers at the door, and a code that works once."""

    states: ClassVar = STATES
    back = False  # the browser has come back with our state
    attempts = 0
    pause_until: float | None = None
    code_used = False
    code_at = 0.0

    @initialize(
        faults=st.sets(st.sampled_from(FAULTS), max_size=2),
        entropy=entropies,
        scopes=st.sampled_from([(), ("all",), ("openid", "all", "offline")]),
        verified=st.sampled_from([True, True, True, False]),
    )
    def start(
        self, faults: set[str], entropy: bytes, scopes: tuple[str, ...], verified: bool
    ) -> None:
        self.plane = control_plane(frozenset(faults), approve="auto", code_ttl=60.0)
        self.server = metadata_of(self.plane)
        self.flow = AuthorizationCode(Client(self.server, "flytectl"), scopes, verified)
        self.state = self.flow.start(entropy, REDIRECT_URI)
        self.opened = self.flow.effect(self.state)
        self.tokens_before = self.plane.count(path="/oauth2/token")

    def fault(self, name: str) -> bool:
        return self.plane.settings.fault(name)

    def ask_user(self, effect: Effect) -> Event | None:
        assert effect == self.opened  # also in another process
        assert isinstance(effect, OpenBrowser)
        response = self.plane.handle(Request("GET", effect.authorization_uri), self.at)
        assert response.status == 302, response.body
        location = response.header("location") or ""
        assert location.startswith(f"{REDIRECT_URI}?")
        if self.fault("wrong-state"):  # the listener turns it away
            self.is_refused(RedirectReceived(location, self.at))
            return None
        self.back = True
        self.code_at = self.at
        return RedirectReceived(location, self.at)

    def is_refused(self, event: RedirectReceived) -> None:
        with pytest.raises(InvalidResponse):
            self.flow.advance(self.state, event)

    @precondition(lambda self: isinstance(self.state, Authorizing))
    @rule(
        uri=strategies.redirects(
            REDIRECT_URI,
            ["code=a", "state=evil", "error=access_denied", "error=x%1b", f"iss={BASE}", "iss=x"],
        )
    )
    def a_stranger_comes_first(self, uri: RedirectReceived) -> None:
        """RFC 6749 §10.12: without the state that we sent, nothing is acted on."""
        self.is_refused(uri)
        self.step()

    @precondition(lambda self: isinstance(self.state, Authorizing))
    @rule(twist=st.sampled_from(["code=b&code=c", "error=x&code=b", "access_token=t&code=b"]))
    def somebody_with_our_state_says_too_much(self, twist: str) -> None:
        assert isinstance(self.opened, OpenBrowser)
        issuer = urlencode({"state": self.opened.state, "iss": self.server.issuer})
        self.is_refused(RedirectReceived(f"{REDIRECT_URI}?{twist}&{issuer}", self.at))

    @precondition(lambda self: isinstance(self.state, Authorizing | Pausing))
    @rule(seconds=st.sampled_from([0.125, 5.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.at += seconds

    @precondition(lambda self: isinstance(self.state, Redeeming))
    @rule(network=st.sampled_from(["down", "down", "lost", "busy"]))
    def the_network_fails(self, network: str) -> None:
        self.step(network=network)

    def unheard(self, response: Response) -> None:
        self.code_used = True

    def observe(self, before: State, event: Event, after: Any) -> None:
        match before:
            case Redeeming():
                self.attempts += 1
                sure = isinstance(event, RequestFailed) and not event.sent
                self.code_used = self.code_used or not sure
                if isinstance(after, Pausing):
                    assert sure
                    self.pause_until = self.at + 0.5 * 2 ** (self.attempts - 1)
                    assert self.flow.effect(after) == WaitUntil(self.pause_until)
            case Pausing() if isinstance(after, Redeeming):
                assert self.pause_until is not None
                assert self.at >= self.pause_until

    @invariant()
    def a_code_is_sent_at_most_once(self) -> None:
        assert self.plane.count(path="/oauth2/token") <= self.tokens_before + 1
        assert self.attempts <= 3

    @invariant()
    def after_the_code_was_used_nothing_is_sent(self) -> None:
        if self.code_used and isinstance(self.state, Redeeming):
            assert self.end is not None

    @invariant()
    def the_end_is_what_user_server_and_network_made_of_it(self) -> None:
        match self.end:
            case None:
                pass
            case Done(Token() as token):
                assert self.back
                assert not {"deny", "wrong-iss", "wrong-state", "token-html"} & (
                    self.plane.settings.faults
                )
                assert self.plane.access(token.access_token, self.sent_at) is not None
                assert token.obtained_at == self.sent_at
                assert ("openid" in token.scopes) == (token.id_token is not None)
                assert (token.refresh_token is None) == self.fault("no-refresh-token")
                assert not self.fault("missing-iss")
                if "openid" in token.scopes:
                    assert self.flow.verified  # type: ignore[attr-defined]
                    assert not self.fault("wrong-nonce")
            case OAuth2Error(error="access_denied"):
                assert self.fault("deny")
            case OAuth2Error(error="invalid_grant"):
                assert self.fault("code-expired") or self.at >= self.code_at + 60
            case InvalidResponse(reason="iss"):
                assert self.fault("wrong-iss")
            case InvalidResponse(reason="iss_missing"):
                assert self.fault("missing-iss")
                assert not self.fault("deny")
            case InvalidResponse(reason="id_token.nonce"):
                assert self.fault("wrong-nonce")
            case InvalidResponse(reason="id_token.signature"):
                assert not self.flow.verified  # type: ignore[attr-defined]
            case InvalidResponse(reason="not_json"):
                assert self.fault("token-html")
            case Unreachable():
                assert self.code_used or self.attempts == 3
            case ReauthRequired():
                assert isinstance(self.state, Redeeming)
            case error:
                pytest.fail(f"{error!r}")


TestAuthorizationCodeConversation = pytest.mark.req(
    "AZR-05", "CBK-09", "CBK-10", "CBK-11", "CBK-12", "CBK-13", "COD-04", "COD-05", "CLK-08"
)(AuthorizationCodeConversation.TestCase)
TestAuthorizationCodeConversation.settings = CONVERSATIONS


code_states = st.one_of(
    st.builds(
        Authorizing,
        st.just(REDIRECT_URI),
        st.just("s"),
        st.just(VERIFIER),
        st.none() | st.just("n"),
    ),
    st.builds(
        Redeeming,
        st.just(REDIRECT_URI),
        st.just("code"),
        st.just(VERIFIER),
        st.none() | st.just("n"),
        st.integers(0, 3),
    ),
    st.builds(Pausing, strategies.times, st.just(REDEEMING)),
)


@pytest.mark.req("ERR-07")
@given(
    code_states,
    strategies.events(
        strategies.TOKEN,
        strategies.REFUSAL,
        redirect_uri=REDIRECT_URI,
        parameters=["state=s", "code=a", "code=%ff", "error=access_denied", "error=%1b", "iss=x"],
    ),
)
def test_every_event_leads_every_state_somewhere(state: State, event: Event) -> None:
    check_step(FLOW, STATES, state, event)


# The authorization request.


@pytest.mark.req("AZR-01", "AZR-02", "AZR-07", "AZR-03")
def test_the_browser_gets_each_parameter_once_and_the_servers_own() -> None:
    assert browser(FLOW, AUTHORIZING) == {
        "tenant": "x",
        "response_type": "code",
        "client_id": "cli",
        "redirect_uri": REDIRECT_URI,
        "state": STATE,
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    effect = FLOW.effect(AUTHORIZING)
    assert isinstance(effect, OpenBrowser)
    assert effect.authorization_uri.startswith("https://as.example/auth?tenant=x&")
    assert (effect.redirect_uri, effect.state) == (REDIRECT_URI, STATE)


@pytest.mark.req("AZR-08", "AZR-17")
def test_scope_audience_and_nonce_are_sent_where_there_are_any() -> None:
    extra = {"authorization": {"prompt": "consent"}, "token": {"x": "1"}}
    client = Client(SERVER, "cli", audience="https://flyte.example", extra_parameters=extra)
    flow = AuthorizationCode(client, ("openid", "all"))
    state = flow.start(bytes(96), REDIRECT_URI)
    parameters = browser(flow, state)
    assert isinstance(state, Authorizing)
    assert parameters["nonce"] == state.nonce
    assert parameters["nonce"]
    assert parameters["scope"] == "openid all"
    assert parameters["audience"] == "https://flyte.example"
    assert parameters["prompt"] == "consent"
    assert "x" not in parameters
    assert "nonce" not in browser(FLOW, FLOW.start(bytes(96), REDIRECT_URI))


@pytest.mark.req("AZR-03", "AZR-01")
@pytest.mark.parametrize(
    "name",
    [
        *("client_id", "redirect_uri", "response_type", "response_mode", "scope", "state", "nonce"),
        *("code_challenge", "code_challenge_method", "request", "request_uri", "dpop_jkt"),
    ],
)
def test_extras_never_shadow_the_protocol(name: str) -> None:
    client = Client(SERVER, "cli", extra_parameters={"authorization": {name: "token"}})
    with pytest.raises(ConfigError, match=name):
        AuthorizationCode(client).effect(AUTHORIZING)


@pytest.mark.req("AZR-04", "RND-02")
def test_pkce_is_that_of_rfc_7636_appendix_b() -> None:
    state = FLOW.start(bytes(32) + OCTETS + bytes(32), REDIRECT_URI)
    assert isinstance(state, Authorizing)
    assert state.code_verifier == VERIFIER
    assert browser(FLOW, state)["code_challenge"] == CHALLENGE
    assert browser(FLOW, state)["code_challenge_method"] == "S256"


@pytest.mark.req("RND-01", "RND-02", "RND-03")
@given(entropies, st.integers(0, 95), st.integers(1, 255))
def test_state_verifier_and_nonce_have_32_octets_each_and_share_none(
    entropy: bytes, index: int, change: int
) -> None:
    flow = AuthorizationCode(CLIENT, ("openid",))
    other = bytearray(entropy)
    other[index] ^= change
    first, second = (flow.start(x, REDIRECT_URI) for x in (entropy, bytes(other)))
    assert isinstance(first, Authorizing)
    assert isinstance(second, Authorizing)
    for name in ("state", "code_verifier", "nonce"):
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", getattr(first, name))
    # Whichever octet changes, exactly one of the three does: each has all of its own.
    pairs = zip(asdict(first).values(), asdict(second).values(), strict=True)
    assert [one == two for one, two in pairs] == [True, *(index // 32 != i for i in range(3))]


@pytest.mark.parametrize("size", [0, 64, 95, 97])
def test_too_little_entropy_is_a_bug(size: int) -> None:
    with pytest.raises(AssertionError):
        FLOW.start(bytes(size), REDIRECT_URI)


@pytest.mark.req("ERR-01")
@pytest.mark.parametrize("more", [0, 1])
def test_an_address_that_is_too_long_for_a_browser_is_not_cut(more: int) -> None:
    def flow(client_id: str) -> AuthorizationCode:
        return AuthorizationCode(Client(SERVER, client_id))

    def opened(flow: AuthorizationCode) -> str:
        effect = flow.effect(flow.start(bytes(96), REDIRECT_URI))
        assert isinstance(effect, OpenBrowser)
        return effect.authorization_uri

    client_id = "c" * (8192 - len(opened(flow(""))) - len("client_id=&") + more)
    if not more:
        assert len(opened(flow(client_id))) == 8192
        return
    with pytest.raises(ConfigError, match="8193 characters") as raised:
        opened(flow(client_id))
    assert raised.value.reason == "authorization_uri"
    proper(raised.value)


@pytest.mark.req("META-13")
def test_a_server_that_rules_out_s256_is_refused_one_that_says_nothing_is_not() -> None:
    ruled_out: list[tuple[str, ...]] = [("plain",), ("plain", "s256"), ()]
    for methods in ruled_out:
        server = evolve(SERVER, code_challenge_methods_supported=methods)
        with pytest.raises(MissingMetadata) as raised:
            AuthorizationCode(Client(server, "cli")).start(bytes(96), REDIRECT_URI)
        assert raised.value.reason == "pkce"
        proper(raised.value)
    fine: list[tuple[str, ...] | None] = [None, ("S256",), ("plain", "S256")]
    for allowed in fine:
        server = evolve(SERVER, code_challenge_methods_supported=allowed)
        flow = AuthorizationCode(Client(server, "cli"))
        asked = browser(flow, flow.start(bytes(96), REDIRECT_URI))
        assert asked["state"]
        assert asked["code_challenge_method"] == "S256"


@pytest.mark.req("META-14")
@pytest.mark.parametrize("missing", ["authorization_endpoint", "token_endpoint"])
def test_a_server_without_the_grant_is_named_before_the_browser_opens(missing: str) -> None:
    server = AuthorizationServer(**{**asdict(SERVER), missing: None})
    flow = AuthorizationCode(Client(server, "cli"))
    with pytest.raises(MissingMetadata) as raised:
        flow.effect(flow.start(bytes(96), REDIRECT_URI))
    assert raised.value.reason == missing


@pytest.mark.req("SEC-01")
@pytest.mark.parametrize(
    "state",
    [
        Authorizing(REDIRECT_URI, "canary", "canary", "canary"),
        Redeeming(REDIRECT_URI, "canary", "canary", "canary"),
        Pausing(0.0, Redeeming(REDIRECT_URI, "canary", "canary", "canary")),
    ],
    ids=lambda state: type(state).__name__,
)
def test_no_repr_shows_state_code_verifier_or_nonce(state: State) -> None:
    assert "canary" not in repr(state)
    assert "canary" not in repr(FLOW.effect(state))


# The redirect: first the state, then the issuer, then what it says.


@pytest.mark.req("CBK-09", "RND-04")
@pytest.mark.parametrize(
    "parameters",
    [
        {"code": "A", "state": "evil"},
        {"code": "A"},
        {"code": "A", "state": ""},
        {"code": "A", "state": STATE[:-1]},
        {"code": "A", "state": "é"},
        {"error": "access_denied", "state": "evil"},
        {"error": "canary"},
        {"code": "A", "state": "evil", "iss": "https://canary.example"},
        {"access_token": "t", "state": "evil"},
        {},
    ],
)
def test_the_state_is_compared_before_anything_else(parameters: dict[str, str]) -> None:
    error = refused(redirect(**parameters))
    assert isinstance(error, InvalidResponse)
    assert error.reason == "state"
    assert "canary" not in str(error)


@pytest.mark.req("RND-04")
def test_the_state_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = recorded_comparisons(monkeypatch)
    refused(redirect(code="A", state="evil"))
    assert compared == [(b"evil", STATE.encode())]


@pytest.mark.req("AZR-03")
def test_a_person_can_be_asked_which_account_to_use() -> None:
    flow = evolve(FLOW, prompt="select_account")
    assert browser(flow, AUTHORIZING) == {
        **browser(FLOW, AUTHORIZING),
        "prompt": "select_account",
    }
    assert "prompt" not in browser(FLOW, AUTHORIZING)
    extra = {"authorization": {"prompt": "none", "login_hint": "x"}}
    flow = evolve(flow, client=evolve(CLIENT, extra_parameters=extra))
    assert browser(flow, AUTHORIZING)["prompt"] == "select_account"
    assert browser(evolve(flow, prompt=None), AUTHORIZING)["prompt"] == "none"


@pytest.mark.parametrize(
    ("error", "is_of_the_prompt"),
    [
        ("invalid_request", True),
        ("unmet_authentication_requirements", True),
        ("login_required", True),
        ("access_denied", False),
        ("server_error", False),
    ],
)
def test_a_server_that_does_not_like_the_prompt_is_named(
    error: str, is_of_the_prompt: bool
) -> None:
    event = redirect(error=error, state=STATE, error_description="why")
    said = refused(event, evolve(FLOW, prompt="select_account"))
    assert said.reason == error
    assert "(why)" in str(said)
    assert ("prompt=select_account; log out there first" in str(said)) is is_of_the_prompt
    assert "prompt" not in str(refused(event))


@pytest.mark.req("CBK-12")
@pytest.mark.parametrize("issuer", ["https://evil", "https://as.example/", "HTTPS://as.example"])
@pytest.mark.parametrize("rest", [{"code": "A"}, {"error": "access_denied"}])
def test_another_issuer_is_refused_and_its_error_not_shown(
    issuer: str, rest: dict[str, str]
) -> None:
    error = refused(redirect(state=STATE, iss=issuer, error_description="canary", **rest))
    assert error.reason == "iss"
    assert "canary" not in str(error)


@pytest.mark.req("CBK-12")
def test_our_issuer_is_welcome_even_if_nobody_promised_it() -> None:
    event = redirect(code="A", state=STATE, iss="https://as.example")
    assert isinstance(FLOW.advance(AUTHORIZING, event), Redeeming)


@pytest.mark.req("CBK-12")
@pytest.mark.parametrize("promised", [True, False])
def test_an_issuer_that_cannot_be_compared_is_refused_where_it_is_promised(
    promised: bool,  # noqa: FBT001
) -> None:
    """Endpoints may be configured alone: then what a server sends unasked means nothing to us."""
    server = evolve(SERVER, issuer=None, authorization_response_iss_parameter_supported=promised)
    flow = AuthorizationCode(Client(server, "cli"))
    event = redirect(code="A", state=STATE, iss="https://evil.example")
    if promised:
        assert refused(event, flow).reason == "iss"
        assert refused(redirect(code="A", state=STATE), flow).reason == "iss_missing"
    else:
        assert isinstance(flow.advance(AUTHORIZING, event), Redeeming)


@pytest.mark.req("CBK-13")
def test_a_promised_issuer_must_be_there_but_may_miss_on_errors() -> None:
    server = evolve(SERVER, authorization_response_iss_parameter_supported=True)
    flow = AuthorizationCode(Client(server, "cli"))
    assert refused(redirect(code="A", state=STATE), flow).reason == "iss_missing"
    assert refused(redirect(error="access_denied", state=STATE), flow).reason == "access_denied"
    named = redirect(code="A", state=STATE, iss="https://as.example")
    assert isinstance(flow.advance(AUTHORIZING, named), Redeeming)


@pytest.mark.req("CBK-10", "ERR-01", "ERR-03")
def test_an_error_with_our_state_is_the_servers_no() -> None:
    error = refused(
        redirect(
            error="access_denied",
            state=STATE,
            error_description="\x1b[31mno",
            error_uri="javascript:alert(1)",
        )
    )
    assert isinstance(error, OAuth2Error)
    assert (error.error, error.description, error.uri) == ("access_denied", "\\x1b[31mno", "")
    page = "https://as.example/why"
    error = refused(redirect(error="access_denied", state=STATE, error_uri=page))
    assert isinstance(error, OAuth2Error)
    assert (error.description, error.uri) == ("", page)
    error = refused(redirect(error="access_denied", state=STATE))
    assert isinstance(error, OAuth2Error)
    assert (error.description, error.uri) == ("", "")


@pytest.mark.req("ERR-02")
@pytest.mark.parametrize("code", ["inv\nalid", 'a"b', "a\\b", "é", "\x1b[2J"])
def test_an_error_outside_the_alphabet_is_malformed(code: str) -> None:
    """RFC 6749 §4.1.2.1 has the same alphabet as §5.2."""
    error = refused(redirect(error=code, state=STATE))
    assert isinstance(error, InvalidResponse)


@pytest.mark.req("CBK-11")
@pytest.mark.parametrize(
    "parameters",
    [
        {"code": "A", "error": "x"},
        {"access_token": "t"},
        {"access_token": "t", "code": "A"},
        {"id_token": "t", "code": "A"},
    ],
)
def test_a_redirect_that_says_two_things_is_refused(parameters: dict[str, str]) -> None:
    assert refused(redirect(state=STATE, **parameters)).reason == "malformed"


@pytest.mark.req("CBK-08")
def test_empty_is_absent_and_unknown_is_ignored() -> None:
    assert refused(redirect(code="", state=STATE)).reason == "no_code"
    assert refused(redirect(state=STATE)).reason == "no_code"
    event = redirect(code="A", state=STATE, error="", session_state="x", next="https://evil")
    assert FLOW.advance(AUTHORIZING, event) == Redeeming(REDIRECT_URI, "A", VERIFIER, None)


@pytest.mark.req("CBK-07")
@pytest.mark.parametrize("query", ["code=A&code=B&state={}", "code=A&state={0}&state={0}"])
def test_a_repeated_parameter_is_refused(query: str) -> None:
    event = RedirectReceived(f"{REDIRECT_URI}?{query.format(STATE)}", 5.0)
    assert refused(event).reason == "duplicate"


# The token request.


@pytest.mark.req("COD-01", "COD-02", "COD-03", "AZR-09")
def test_the_code_is_redeemed_with_exactly_what_belongs_to_it() -> None:
    request = sent(FLOW, REDEEMING)
    assert (request.method, request.url) == ("POST", SERVER.token_endpoint)
    assert form(request) == {
        "grant_type": "authorization_code",
        "code": "code",
        "redirect_uri": browser(FLOW, AUTHORIZING)["redirect_uri"],
        "code_verifier": VERIFIER,
        "client_id": "cli",
    }
    openid = AuthorizationCode(Client(SERVER, "cli", "s"), ("openid", "all"))
    confidential = sent(openid, REDEEMING)
    assert credentials(confidential) == "cli:s"
    assert form(confidential).keys() == {"grant_type", "code", "redirect_uri", "code_verifier"}


@pytest.mark.req("AZR-09")
@pytest.mark.parametrize(
    "uri",
    [
        "http://localhost:53593/callback",
        "http://127.0.0.1:53593/callback",
        "http://[::1]:53593/callback",
        "http://LOCALHOST:53593/Call%62ack/",
    ],
)
def test_both_requests_carry_the_redirect_uri_byte_for_byte(uri: str) -> None:
    authorizing = FLOW.start(bytes(range(96)), uri)
    assert isinstance(authorizing, Authorizing)
    came = f"{uri}?{urlencode({'code': 'A', 'state': authorizing.state})}"
    redeeming = FLOW.advance(authorizing, RedirectReceived(came, 0.0))
    assert isinstance(redeeming, Redeeming)
    assert browser(FLOW, authorizing)["redirect_uri"] == uri
    assert form(sent(FLOW, redeeming))["redirect_uri"] == uri


@pytest.mark.req("COD-04")
@pytest.mark.parametrize("attempt", [0, 1])
def test_only_a_request_that_never_left_is_sent_again(attempt: int) -> None:
    state = evolve(REDEEMING, attempt=attempt)
    again = evolve(REDEEMING, attempt=attempt + 1)
    for reason in ("connect", "timeout", "protocol"):
        unsent = RequestFailed(reason, "x", sent=False, at=10.0)
        assert FLOW.advance(state, unsent) == Pausing(10.5 + attempt / 2, again)
        with pytest.raises(Unreachable) as raised:
            FLOW.advance(state, evolve(unsent, sent=True))
        assert raised.value.sent


@pytest.mark.req("COD-04")
def test_the_third_attempt_is_the_last() -> None:
    with pytest.raises(Unreachable):
        FLOW.advance(evolve(REDEEMING, attempt=2), REFUSED)


@pytest.mark.req("COD-04")
@pytest.mark.parametrize("reason", ["tls", "too_large", "encoding", "redirect", "insecure"])
@pytest.mark.parametrize("was_sent", [True, False])
def test_a_failure_that_stays_is_the_end(reason: FailureReason, was_sent: bool) -> None:
    with pytest.raises(FlowError) as raised:
        FLOW.advance(REDEEMING, RequestFailed(reason, "x", was_sent, 0.0))
    assert raised.value.reason == reason


@pytest.mark.req("COD-05", "AZR-05")
@pytest.mark.parametrize(
    ("response", "kind", "reason"),
    [
        (reply(400, error="invalid_grant"), OAuth2Error, "invalid_grant"),
        (reply(400, error="invalid_request"), OAuth2Error, "invalid_request"),
        (reply(503, {"Retry-After": "5"}), Unreachable, "status"),
        (Response(200, (), b"<html>"), InvalidResponse, "not_json"),
        (reply(302), InvalidResponse, "redirect"),
    ],
)
def test_any_answer_uses_up_the_code(
    response: Response, kind: type[FlowError], reason: str
) -> None:
    with pytest.raises(FlowError) as raised:
        FLOW.advance(REDEEMING, answer(response))
    assert type(raised.value) is kind
    assert raised.value.reason == reason


@pytest.mark.req("TOK-08")
def test_what_was_asked_is_granted_where_the_server_does_not_say() -> None:
    end = AuthorizationCode(CLIENT, ("b", "a")).advance(REDEEMING, answer(GRANTED))
    assert isinstance(end, Done)
    assert end.value.scopes == ("a", "b")


@pytest.mark.req("COD-06")
def test_nothing_of_the_login_is_left_in_its_result() -> None:
    end = FLOW.advance(REDEEMING, answer(GRANTED))
    assert isinstance(end, Done)
    assert not {VERIFIER, "code", STATE} & set(map(str, vars(end.value).values()))


@pytest.mark.req("IDT-05", "IDT-03")
def test_with_openid_an_id_token_is_required_and_checked() -> None:
    flow = AuthorizationCode(CLIENT, ("openid",))
    state = evolve(REDEEMING, nonce="n")

    def granted(**members: Any) -> ResponseReceived:
        return answer(reply(200, access_token="t", token_type="Bearer", **members), 1000.0)

    assert isinstance(flow.advance(state, granted(id_token=id_token())), Done)
    for members, reason, verified in (
        ({"id_token": id_token(nonce="other")}, "id_token.nonce", True),
        ({"id_token": id_token(nonce=None)}, "id_token.nonce", True),
        ({"id_token": id_token()}, "id_token.signature", False),
        ({}, "id_token.missing", True),
    ):
        with pytest.raises(InvalidResponse) as raised:
            evolve(flow, verified=verified).advance(state, granted(**members))
        assert raised.value.reason == reason
        proper(raised.value)
    assert isinstance(flow.advance(REDEEMING, granted(id_token="not.looked.at")), Done)


# Other processes.


@pytest.mark.req("COD-04", "CLK-07")
def test_another_process_goes_on_only_while_the_code_is_certainly_unused() -> None:
    pausing = Pausing(10.0, REDEEMING)
    assert FLOW.resume(reloaded(STATES, AUTHORIZING), 5.0) == AUTHORIZING
    assert FLOW.resume(reloaded(STATES, pausing), 5.0) == pausing
    with pytest.raises(ReauthRequired, match="log in again"):
        FLOW.resume(reloaded(STATES, REDEEMING), 5.0)
    assert FLOW.advance(pausing, TimeReached(9.875)) == pausing
    assert FLOW.advance(pausing, TimeReached(10.0)) == REDEEMING
