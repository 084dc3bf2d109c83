"""Client credentials, refresh and revocation: one request, one response."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from flyteauth._sansio.client import AuthorizationServer, Client
from flyteauth._sansio.errors import (
    ConfigError,
    FlowError,
    InvalidResponse,
    MissingMetadata,
    OAuth2Error,
    Unreachable,
)
from flyteauth._sansio.exchanges import BACKOFF, client_credentials, refresh, revoke
from flyteauth._sansio.flow import Backoff, Exchange, Exchanging, ResponseReceived, Retrying
from flyteauth._sansio.http import Response
from flyteauth._sansio.tokens import Token

from . import strategies
from .conversation import answer, check_step, outcome, reply
from .test_client import credentials, form
from .test_flow import LAZY, busy, lost, refused, run as converse
from .test_id_token import AT, id_token

SERVER = AuthorizationServer(
    issuer="https://as.example",
    token_endpoint="https://as.example/token",
    revocation_endpoint="https://as.example/revoke",
)
PUBLIC = Client(SERVER, "cli")
CONFIDENTIAL = Client(SERVER, "ci", "secret", audience="https://flyte.example")
OLD = Token("old", 0.0, 10.0, "refresh-1", None, ("all", "offline"))
FRESH = {"access_token": "new", "token_type": "bearer", "expires_in": 60}


def run(exchange: Exchange[Any], response: Response, at: float = 100.0) -> Any:
    return exchange.parse(answer(response, at))


# Client credentials, RFC 6749 §4.4.


@pytest.mark.req("CCG-01", "CCG-03")
def test_client_credentials_ask_with_basic_authentication() -> None:
    request = client_credentials(CONFIDENTIAL, ("all",)).request
    assert request.url == SERVER.token_endpoint
    assert credentials(request) == "ci:secret"
    assert form(request) == {
        "grant_type": "client_credentials",
        "scope": "all",
        "audience": "https://flyte.example",
    }


def test_client_credentials_send_no_empty_parameters() -> None:
    request = client_credentials(Client(SERVER, "ci", "secret")).request
    assert form(request) == {"grant_type": "client_credentials"}


@pytest.mark.req("CCG-06")
def test_a_refresh_token_for_a_service_is_dropped() -> None:
    token = run(client_credentials(CONFIDENTIAL, ("all",)), reply(**FRESH, refresh_token="canary"))
    assert token == Token("new", 100.0, 160.0, None, None, ("all",))


@pytest.mark.req("CCG-04")
def test_a_refused_client_is_told_so_at_once() -> None:
    with pytest.raises(OAuth2Error, match="clientId") as raised:
        run(client_credentials(CONFIDENTIAL), reply(401, error="invalid_client"))
    assert raised.value.error == "invalid_client"


# Refresh, RFC 6749 §6.


@pytest.mark.req("REF-01")
def test_a_refresh_sends_the_token_and_the_client_and_no_scope() -> None:
    request = refresh(PUBLIC, OLD).request
    assert request.url == SERVER.token_endpoint
    assert request.header("authorization") is None
    assert form(request) == {
        "grant_type": "refresh_token",
        "refresh_token": "refresh-1",
        "client_id": "cli",
    }


@pytest.mark.req("REF-01")
def test_a_refresh_may_narrow_the_scope_but_not_widen_it() -> None:
    assert form(refresh(PUBLIC, OLD, ("all",)).request)["scope"] == "all"
    with pytest.raises(ConfigError, match="scopes admin, root were") as raised:
        refresh(PUBLIC, OLD, ("root", "all", "admin"))
    assert raised.value.reason == "scopes"


@pytest.mark.req("REF-02")
def test_a_rotated_refresh_token_replaces_the_old_one() -> None:
    token = run(refresh(PUBLIC, OLD), reply(**FRESH, refresh_token="refresh-2", scope="all"))
    assert token == Token("new", 100.0, 160.0, "refresh-2", None, ("all",))


@pytest.mark.req("REF-03", "TOK-08")
@pytest.mark.parametrize("extra", [{}, {"refresh_token": None}, {"refresh_token": ""}])
def test_without_a_new_refresh_token_and_scope_the_old_ones_hold(extra: dict[str, Any]) -> None:
    token = run(refresh(PUBLIC, OLD), reply(**FRESH, **extra))
    assert (token.refresh_token, token.scopes) == ("refresh-1", ("all", "offline"))


def test_a_narrowed_refresh_has_the_narrow_scope() -> None:
    assert run(refresh(PUBLIC, OLD, ("all",)), reply(**FRESH)).scopes == ("all",)


@pytest.mark.req("REF-10", "REF-14")
@pytest.mark.parametrize(
    ("response", "kind", "reason"),
    [
        (reply(400, error="invalid_grant"), OAuth2Error, "invalid_grant"),
        (reply(401, error="invalid_client"), OAuth2Error, "invalid_client"),
        (reply(400, error="invalid_scope"), OAuth2Error, "invalid_scope"),
        (Response(200, (), b"<html>captive portal"), InvalidResponse, "not_json"),
        (Response(403, (), b"<html>WAF"), InvalidResponse, "status"),
        (reply(200, token_type="bearer"), InvalidResponse, "access_token"),
        (reply(200, **FRESH, refresh_token=5), InvalidResponse, "refresh_token"),
        (reply(503), Unreachable, "status"),
    ],
)
def test_only_invalid_grant_looks_like_one(
    response: Response, kind: type[FlowError], reason: str
) -> None:
    with pytest.raises(FlowError) as raised:
        run(refresh(PUBLIC, OLD), response)
    assert type(raised.value) is kind
    assert raised.value.reason == reason


@pytest.mark.req("IDT-07", "IDT-08", "REF-14")
def test_a_refreshed_id_token_is_about_the_same_person() -> None:
    before = id_token(nonce="n")
    old = Token("old", 0.0, 10.0, "r", before, ("openid",))
    same = id_token(iat=1055, nonce=None)
    assert run(refresh(PUBLIC, old), reply(**FRESH, id_token=same), AT).id_token == same
    assert run(refresh(PUBLIC, old), reply(**FRESH)).id_token == before
    wrong = ({"sub": "mallory"}, {"iss": "https://evil"}, {"aud": "x"}, {"nonce": "x"})
    for changed in (*wrong, {"at_hash": "x"}):
        with pytest.raises(InvalidResponse) as raised:
            run(refresh(PUBLIC, old), reply(**FRESH, id_token=id_token(**changed)), AT)
        assert raised.value.reason == f"id_token.{next(iter(changed))}"


@pytest.mark.req("IDT-06", "REF-02", "CLK-02")
@pytest.mark.parametrize(
    "changed", [{"exp": AT - 60}, {"iat": AT + 61}, {"iat": AT + 3600}, {"exp": None}], ids=str
)
def test_an_id_token_out_of_its_time_is_not_accepted_and_costs_no_rotated_refresh_token(
    changed: dict[str, Any],
) -> None:
    before = id_token()
    old = Token("old", 0.0, 10.0, "r", before, ("openid",))
    answered = reply(**FRESH, refresh_token="refresh-2", id_token=id_token(**changed))
    token = run(refresh(PUBLIC, old), answered, AT)
    assert token.id_token == before
    assert (token.access_token, token.refresh_token) == ("new", "refresh-2")
    for other in ({"sub": "mallory"}, {"at_hash": "x"}):  # that is no matter of time
        answered = reply(**FRESH, id_token=id_token(**changed, **other))
        with pytest.raises(InvalidResponse):
            run(refresh(PUBLIC, old), answered, AT)


@pytest.mark.req("IDT-03")
def test_without_verified_tls_a_login_with_an_id_token_is_not_refreshed() -> None:
    """Nothing is sent, so a server that rotates refresh tokens has not spent this one."""
    old = Token("old", 0.0, 10.0, "r", id_token(), ("openid",))
    with pytest.raises(InvalidResponse) as raised:
        refresh(PUBLIC, old, verified=False)
    assert raised.value.reason == "id_token.signature"
    for other in (OLD, old.replace(id_token=None), old.replace(scopes=("all",))):
        fresh = run(refresh(PUBLIC, other, verified=False), reply(**FRESH, id_token=id_token()))
        assert fresh.id_token == other.id_token


def test_an_id_token_that_nobody_asked_for_does_not_stop_a_refresh() -> None:
    """IDT holds only where openid was asked for; a login without it checks no ID token either."""
    old = Token("old", 0.0, 10.0, "r", "h.p.s", ("all", "offline"))
    assert run(refresh(PUBLIC, old), reply(**FRESH, id_token="h.q.s")).access_token == "new"


@pytest.mark.req("ERR-07", "REF-14")
@given(strategies.received(strategies.TOKEN, strategies.REFUSAL))
def test_any_bytes_are_a_token_that_can_be_refreshed_again_or_an_error(
    received: ResponseReceived,
) -> None:
    token = outcome(lambda: refresh(PUBLIC, OLD).parse(received))
    assert isinstance(token, FlowError) or token.refresh_token
    service = outcome(lambda: client_credentials(CONFIDENTIAL).parse(received))
    assert isinstance(service, FlowError) or service.refresh_token is None


# The patience of both.

GRANTS = [refresh(PUBLIC, OLD), client_credentials(CONFIDENTIAL, ("all",))]


@pytest.mark.req("NET-02", "REF-11")
def test_the_patience_of_a_grant_is_in_figures() -> None:
    assert Backoff(attempts=3, first=0.5, cap=30.0, retry_after_max=10.0, lost_replies=1) == BACKOFF


@pytest.mark.req("NET-02")
@pytest.mark.parametrize("exchange", GRANTS, ids=["refresh", "client credentials"])
def test_a_grant_waits_ten_seconds_for_a_busy_server_and_no_longer(exchange: Exchange[Any]) -> None:
    flow = Retrying(exchange, BACKOFF)
    pauses, _ = converse(flow, LAZY, busy(0.0, "10"), answer(reply(**FRESH)))
    assert pauses == [10.0]
    pauses, end = converse(flow, LAZY, busy(0.0, "11"))
    assert pauses == []
    assert isinstance(end, Unreachable)
    assert end.retry_after == 11.0


@pytest.mark.req("NET-02")
@pytest.mark.parametrize("exchange", GRANTS, ids=["refresh", "client credentials"])
def test_a_grant_is_asked_for_three_times_and_no_more(exchange: Exchange[Any]) -> None:
    flow = Retrying(exchange, BACKOFF)
    pauses, end = converse(flow, LAZY, refused(), refused(), answer(reply(**FRESH)))
    assert pauses == [0.5, 1.0]
    assert isinstance(end, Token)
    pauses, end = converse(flow, LAZY, *[refused()] * 3)
    assert pauses == [0.5, 1.0]
    assert isinstance(end, Unreachable)


@pytest.mark.req("REF-11")
@pytest.mark.parametrize("exchange", GRANTS, ids=["refresh", "client credentials"])
def test_a_grant_whose_reply_was_lost_is_asked_for_once_more(exchange: Exchange[Any]) -> None:
    flow = Retrying(exchange, BACKOFF)
    pauses, end = converse(flow, LAZY, lost(), answer(reply(**FRESH)))
    assert pauses == [0.5]
    assert isinstance(end, Token)
    pauses, end = converse(flow, LAZY, lost(), lost())
    assert pauses == [0.5]
    assert isinstance(end, Unreachable)
    assert end.sent


# Revocation, RFC 7009.


@pytest.mark.req("REV-01")
def test_the_token_travels_in_the_body_with_the_clients_authentication() -> None:
    request = revoke(CONFIDENTIAL, "refresh_token", "r").request
    assert (request.method, request.url) == ("POST", "https://as.example/revoke")
    assert form(request) == {"token": "r", "token_type_hint": "refresh_token"}
    assert credentials(request) == "ci:secret"
    assert form(revoke(PUBLIC, "access_token", "a").request) == {
        "token": "a",
        "token_type_hint": "access_token",
        "client_id": "cli",
    }


def test_a_server_without_revocation_is_known_before_anything_is_sent() -> None:
    with pytest.raises(MissingMetadata):
        revoke(Client(AuthorizationServer(), "cli"), "refresh_token", "r")


@pytest.mark.req("REV-02")
@pytest.mark.parametrize("body", [b"", b"OK", b"<html>", b"{}", b'{"error": "x"}'])
def test_any_200_means_revoked(body: bytes) -> None:
    revoke(PUBLIC, "refresh_token", "r").parse(answer(Response(200, (), body)))


def test_a_503_means_that_the_token_is_still_alive() -> None:
    with pytest.raises(Unreachable) as raised:
        run(revoke(PUBLIC, "refresh_token", "r"), reply(503, {"retry-after": "3"}))
    assert raised.value.retry_after == 3.0


def test_an_unsupported_kind_of_token_is_told_apart() -> None:
    with pytest.raises(OAuth2Error) as raised:
        run(revoke(PUBLIC, "access_token", "a"), reply(400, error="unsupported_token_type"))
    assert raised.value.error == "unsupported_token_type"


@pytest.mark.req("ERR-07")
@given(strategies.received(strategies.REFUSAL))
def test_any_bytes_are_revoked_or_an_error(received: ResponseReceived) -> None:
    revoked = outcome(lambda: revoke(PUBLIC, "access_token", "a").parse(received))
    assert (revoked is None) == (received.response.status == 200)


@given(strategies.events(strategies.TOKEN))
def test_every_event_leads_somewhere(event: Any) -> None:
    check_step(refresh(PUBLIC, OLD), (Exchanging,), Exchanging(), event)
