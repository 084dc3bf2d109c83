"""Discovery: what a control plane says about itself, in every spelling, and what stands before it."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
from attrs import asdict, evolve
from hypothesis import given, strategies as st
from hypothesis.stateful import initialize, invariant

from flyteauth._sansio.client import AuthorizationServer
from flyteauth._sansio.discovery import (
    FLYTE_CLIENT,
    OAUTH2_METADATA,
    PUBLIC_CLIENT,
    STATES,
    WELL_KNOWN_OAUTH,
    Asking,
    Discovery,
    Pausing,
    PublicClient,
    State,
    agrees,
    at,
    authorization_server,
    check_redirect_uri,
    issuer_metadata,
    parse_public_client,
    public_client,
    snake_case,
)
from flyteauth._sansio.errors import ConfigError, FlowError, InvalidResponse, Unreachable
from flyteauth._sansio.flow import (
    Backoff,
    Done,
    Event,
    FailureReason,
    RequestFailed,
    SendRequest,
    TimeReached,
    WaitUntil,
)
from flyteauth._sansio.http import Object, Request, Response, parse_object

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
    outcome,
    reloaded,
    reply,
)

ENDPOINT = "https://flyte.example"
ISSUER = "https://as.example"
LAZY = 2**64 - 1  # the longest jitter
HTML = Response(200, (("Content-Type", "text/html"),), b"<!DOCTYPE html><title>Console</title>")
ABSENT = Response(404, (), b"404 page not found")
UNIMPLEMENTED = reply(501, code="unimplemented", message="no authorization server")
CAMEL = {
    "issuer": ISSUER,
    "authorizationEndpoint": f"{ISSUER}/auth",
    "tokenEndpoint": f"{ISSUER}/token",
    "responseTypesSupported": ["code"],
    "scopesSupported": ["all"],
    "tokenEndpointAuthMethodsSupported": ["client_secret_basic"],
    "jwksUri": f"{ISSUER}/jwks",
    "codeChallengeMethodsSupported": ["S256"],
    "grantTypesSupported": ["authorization_code"],
    "deviceAuthorizationEndpoint": f"{ISSUER}/device",
}
SNAKE = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/auth",
    "token_endpoint": f"{ISSUER}/token",
    "scopes_supported": ["all"],
    "token_endpoint_auth_methods_supported": ["client_secret_basic"],
    "code_challenge_methods_supported": ["S256"],
    "grant_types_supported": ["authorization_code"],
    "device_authorization_endpoint": f"{ISSUER}/device",
}
SERVER = AuthorizationServer(
    issuer=ISSUER,
    authorization_endpoint=f"{ISSUER}/auth",
    token_endpoint=f"{ISSUER}/token",
    device_authorization_endpoint=f"{ISSUER}/device",
    scopes_supported=("all",),
    grant_types_supported=("authorization_code",),
    token_endpoint_auth_methods_supported=("client_secret_basic",),
    code_challenge_methods_supported=("S256",),
)


def run(flow: Discovery[Any], *answers: Response | Event, seed: int = 0) -> tuple[list[str], Any]:
    """What was asked where ("GET /path" and pauses), and the end: a value or an error."""
    state: State = flow.start(seed)
    told: list[str] = []
    clock, waiting = 1000.0, list(answers)
    while True:
        match flow.effect(state):
            case SendRequest(request):
                told.append(f"{request.method} {request.url}")
                assert waiting, f"asks too much: {told}"
                given_answer = waiting.pop(0)
                event = (
                    answer(given_answer, clock)
                    if isinstance(given_answer, Response)
                    else evolve(given_answer, at=clock)
                )
            case WaitUntil(deadline):
                told.append(f"wait {deadline - clock:g}")
                clock = deadline
                event = TimeReached(clock)
            case effect:
                pytest.fail(f"{effect} is not for discovery")
        try:
            after = flow.advance(reloaded(STATES, state), event)
        except FlowError as error:
            proper(error)
            end: Any = error
        else:
            if not isinstance(after, Done):
                state = after
                continue
            end = after.value
        assert not waiting, f"asks too little: {told}"
        return told, end


POST_METADATA = f"POST {ENDPOINT}{OAUTH2_METADATA}"
GET_METADATA = f"GET {ENDPOINT}{WELL_KNOWN_OAUTH}"
POST_CLIENT = f"POST {ENDPOINT}{PUBLIC_CLIENT}"
GET_CLIENT = f"GET {ENDPOINT}{FLYTE_CLIENT}"

# The whole of discovery as a table: what is answered, what was asked, what comes of it.
TRANSCRIPTS: list[tuple[str, list[Response | Event], list[str], AuthorizationServer | None]] = [
    ("Flyte 2", [reply(200, **CAMEL)], [POST_METADATA], SERVER),
    ("Flyte 1", [ABSENT, reply(200, **SNAKE)], [POST_METADATA, GET_METADATA], SERVER),
    (
        "a gateway that writes camelCase",
        [UNIMPLEMENTED, reply(200, **CAMEL)],
        [POST_METADATA, GET_METADATA],
        SERVER,
    ),
    (
        "a gateway that writes empty fields",
        [reply(405), reply(200, **{**SNAKE, "device_authorization_endpoint": "", "jwks_uri": ""})],
        [POST_METADATA, GET_METADATA],
        evolve(SERVER, device_authorization_endpoint=None),
    ),
    (
        "a web console that leaves the documents alone",
        [HTML, reply(200, **SNAKE)],
        [POST_METADATA, GET_METADATA],
        SERVER,
    ),
    (
        "an ingress that lets GET through only",
        [Response(415), reply(200, **SNAKE)],
        [POST_METADATA, GET_METADATA],
        SERVER,
    ),
    (
        "an ingress that guards Connect only",
        [Response(403), reply(200, **SNAKE)],
        [POST_METADATA, GET_METADATA],
        SERVER,
    ),
    ("no authorization server", [UNIMPLEMENTED, ABSENT], [POST_METADATA, GET_METADATA], None),
    ("nothing of the kind", [UNIMPLEMENTED, ABSENT], [POST_METADATA, GET_METADATA], None),
    (
        "two servers that are busy for a moment",
        [reply(503), reply(503), ABSENT, reply(503), reply(503), reply(200, **SNAKE)],
        [
            *(POST_METADATA, "wait 0", POST_METADATA, "wait 0", POST_METADATA),
            *(GET_METADATA, "wait 0", GET_METADATA, "wait 0", GET_METADATA),
        ],
        SERVER,
    ),
    ("an empty message", [reply(200), reply(200)], [POST_METADATA, GET_METADATA], None),
    (
        "Flyte, but a console answers for the rest",
        [UNIMPLEMENTED, HTML],
        [POST_METADATA, GET_METADATA],
        None,
    ),
    (
        "a server that is busy for a moment",
        [reply(503, {"Retry-After": "2"}), reply(429), reply(200, **CAMEL)],
        [POST_METADATA, "wait 2", POST_METADATA, "wait 0", POST_METADATA],
        SERVER,
    ),
    (
        "a lost reply, which costs nothing here",
        [
            RequestFailed("timeout", "x", sent=True, at=0.0),
            RequestFailed("timeout", "x", sent=True, at=0.0),
            reply(200, **CAMEL),
        ],
        [POST_METADATA, "wait 0", POST_METADATA, "wait 0", POST_METADATA],
        SERVER,
    ),
    (
        "a redirect on the same server",
        [
            ABSENT,
            Response(302, (("Location", "/other"),)),
            Response(307, (("Location", f"{ENDPOINT}/third"),)),
            reply(200, **SNAKE),
        ],
        [POST_METADATA, GET_METADATA, f"GET {ENDPOINT}/other", f"GET {ENDPOINT}/third"],
        SERVER,
    ),
    (
        "a busy server behind a redirect",
        [ABSENT, Response(302, (("Location", "/other"),)), reply(503), reply(200, **SNAKE)],
        [
            *(POST_METADATA, GET_METADATA, f"GET {ENDPOINT}/other", "wait 0"),
            f"GET {ENDPOINT}/other",
        ],
        SERVER,
    ),
]


@pytest.mark.req("META-08", "META-09", "NET-02")
@pytest.mark.parametrize(
    ("answers", "asked", "found"),
    [row[1:] for row in TRANSCRIPTS],
    ids=[row[0] for row in TRANSCRIPTS],
)
def test_a_control_plane_as_a_transcript(
    answers: list[Response | Event], asked: list[str], found: AuthorizationServer | None
) -> None:
    assert run(authorization_server(ENDPOINT), *answers) == (asked, found)


@pytest.mark.parametrize("status", [404, 405, 415, 501])
def test_four_statuses_say_that_there_is_no_such_document(status: int) -> None:
    answer = reply(status, code="unimplemented")
    asked, found = run(authorization_server(ENDPOINT), answer, answer)
    assert (asked, found) == ([POST_METADATA, GET_METADATA], None)


@pytest.mark.parametrize("body", [b"", b"404 page not found", b'{"error": "Not Found"}'])
def test_only_flyte_itself_says_that_nobody_need_log_in(body: bytes) -> None:
    """Anybody else's 404 is a typing mistake, or a control plane that is just starting."""
    answer = Response(404, (), body)
    asked, error = run(authorization_server(ENDPOINT), answer, answer)
    assert asked == [POST_METADATA, GET_METADATA]
    assert isinstance(error, InvalidResponse)
    assert error.reason == "not_found"
    assert run(public_client(ENDPOINT), answer, answer)[1] == PublicClient()


@pytest.mark.parametrize(
    ("answers", "kind", "reason", "text"),
    [
        ([HTML, HTML], InvalidResponse, "not_json", "a web page came back instead of JSON"),
        ([HTML, ABSENT], InvalidResponse, "not_json", "looks like a web console"),
        ([HTML, Response(401)], InvalidResponse, "not_json", "looks like a web console"),
        (
            [Response(404, (), b"<html>"), Response(404, (), b"<html>")],
            InvalidResponse,
            "not_json",
            "looks like a web console",
        ),
        (
            [Response(302, (("Location", "https://login.example/x?canary"),)), ABSENT],
            InvalidResponse,
            "redirect",
            "redirects to login.example instead",
        ),
        ([Response(302), ABSENT], InvalidResponse, "redirect", "instead of saying how to log in"),
        ([Response(401, (), b"canary"), ABSENT], InvalidResponse, "status", "status 401"),
        ([Response(200, (), b"canary"), ABSENT], InvalidResponse, "not_json", "flyte.example: "),
        (
            [Response(200, (), b"{}".ljust(2**20 + 1))],
            InvalidResponse,
            "too_large",
            "check the endpoint",
        ),
        ([reply(503)] * 3, Unreachable, "status", "try again"),
        ([reply(503, {"Retry-After": "3600"})], Unreachable, "status", "try again in 60 min"),
    ],
)
def test_what_stands_before_a_control_plane_is_called_by_its_name(
    answers: list[Response], kind: type[FlowError], reason: str, text: str
) -> None:
    _, error = run(authorization_server(ENDPOINT), *answers)
    assert type(error) is kind
    assert error.reason == reason
    assert text in str(error)
    assert "canary" not in str(error)


@pytest.mark.req("META-09", "META-02")
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"tokenEndpoint": [f"{ISSUER}/token"]}, "token_endpoint"),
        ({"tokenEndpoint": "http://as.example/token"}, "token_endpoint"),
        ({"authorizationEndpoint": "javascript:alert(1)"}, "authorization_endpoint"),
        ({"token_endpoint": f"{ISSUER}/other"}, "duplicate"),
    ],
)
def test_a_document_that_is_wrong_is_not_passed_over(changed: dict[str, Any], reason: str) -> None:
    asked, error = run(authorization_server(ENDPOINT), reply(200, **{**CAMEL, **changed}))
    assert asked == [POST_METADATA]
    assert isinstance(error, InvalidResponse)
    assert error.reason == reason


# The public client.

ADVERTISED = PublicClient(
    client_id="flytectl",
    redirect_uri="http://localhost:53593/callback",
    scopes=("offline", "all"),
    header="flyte-authorization",
    audience="https://flyte.example",
    dataplane_domain="dp.example",
)
CLIENT_SNAKE = {
    "client_id": "flytectl",
    "redirect_uri": "http://localhost:53593/callback",
    "scopes": ["offline", "all"],
    "authorization_metadata_key": "flyte-authorization",
    "audience": "https://flyte.example",
    "dataplane_domain": "dp.example",
    "service_http_endpoint": "",
}


@pytest.mark.parametrize(
    ("answers", "asked", "found"),
    [
        ([reply(200, **strategies.PUBLIC_CLIENT)], [POST_CLIENT], ADVERTISED),
        ([UNIMPLEMENTED, reply(200, **CLIENT_SNAKE)], [POST_CLIENT, GET_CLIENT], ADVERTISED),
        ([reply(200)], [POST_CLIENT], PublicClient()),
        ([UNIMPLEMENTED, ABSENT], [POST_CLIENT, GET_CLIENT], PublicClient()),
    ],
    ids=["Flyte 2", "Flyte 1", "an empty message", "nothing at all"],
)
def test_the_public_client_as_a_transcript(
    answers: list[Response], asked: list[str], found: PublicClient
) -> None:
    assert run(public_client(ENDPOINT), *answers) == (asked, found)


@pytest.mark.req("META-16")
@pytest.mark.parametrize(
    ("key", "header"),
    [
        (None, "authorization"),
        ("", "authorization"),
        ("authorization", "authorization"),
        ("flyte-authorization", "flyte-authorization"),
        ("Flyte-Authorization", "flyte-authorization"),
        ("x_token!", "x_token!"),
        ("X" * 64, "x" * 64),
    ],
)
def test_the_header_of_the_token(key: str | None, header: str) -> None:
    body = Object(authorization_metadata_key=key)
    assert parse_public_client(body).header == header


@pytest.mark.req("META-16")
@pytest.mark.parametrize(
    "key",
    [
        *("Host", "cookie", "Content-Length", "content-type", "CONNECTION", "te", "trailer"),
        *("Transfer-Encoding", "proxy-authorization", "Sec-Fetch-Mode", "accept", "grpc-timeout"),
        *("connect-protocol-version", "x-forwarded-for", "Upgrade", "user-agent", "set-cookie"),
        *("x-original-url", "x-http-method-override", "If-Match", "range", "traceparent", "from"),
        *("tracestate", "Baggage", "x-request-id", "x-correlation-id", "www-authenticate", "via"),
        *("access-control-request-headers", "x-real-ip", "token-bin", "http2-settings", "cookie2"),
        *("x-token\r\nx-admin: 1", "x-token\n", "x-token\r", "x-token\0", ":authority", ":path"),
        *("x" * 10_000, "x-tök", "x-token\x85", "x-token\u2028", "x\ttoken", '"x"', "x,y", "x;y"),
        *("a\r\nb", "a b", "a:b", "é", "\x1b", "x" * 65, " authorization", "authorization\n"),
    ],
)
def test_a_header_that_cannot_carry_a_token_is_refused(key: str) -> None:
    with pytest.raises(InvalidResponse) as raised:
        parse_public_client(Object(authorization_metadata_key=key))
    assert raised.value.reason == "header_key"


@pytest.mark.req("META-15")
@pytest.mark.parametrize(
    "uri",
    [
        "http://localhost:53593/callback",
        "http://127.0.0.1/",
        "http://[::1]:8080/cb?x=1",
        "http://LOCALHOST:1/",
    ],
)
def test_a_redirect_uri_on_this_machine_is_accepted_as_it_is(uri: str) -> None:
    assert check_redirect_uri(uri) == uri


@pytest.mark.req("META-15")
@pytest.mark.parametrize(
    "uri",
    [
        "http://0.0.0.0:53593/cb",
        "http://evil.example/cb",
        "https://localhost/cb",
        "http://user@localhost/cb",
        "http://@localhost/cb",
        "http://localhost@evil.example/cb",
        "http://localhost/cb#f",
        "http://localhost/cb#",
        "http://localhost:99999/",
        "com.example.app:/cb",
        "localhost:53593",
        "http://localhost/\x1b",
        "http://127.0.0.2:53593/cb",
        "http://127.255.1.9:1/cb",
        "http://127.0.0.10/",
        "http://127.0.0.1.evil.example/",
        "http://127.1/",
        "http://[::ffff:127.0.0.1]/",
        "http://[0:0:0:0:0:0:0:1]/",
        "http://[::1]x/",
        "http://localhost./",
        "",
    ],
)
def test_a_redirect_uri_elsewhere_is_refused(uri: str) -> None:
    with pytest.raises(InvalidResponse) as raised:
        check_redirect_uri(uri)
    assert raised.value.reason == "redirect_uri"
    assert "\x1b" not in str(raised.value)


# An issuer that the user names.

OAUTH = reply(200, **SNAKE)
OPENID = reply(200, **SNAKE, revocation_endpoint=f"{ISSUER}/revoke", userinfo_endpoint="x")


@pytest.mark.req("META-03")
@pytest.mark.parametrize(
    ("issuer", "urls"),
    [
        (
            "https://h.example",
            [
                "https://h.example/.well-known/oauth-authorization-server",
                "https://h.example/.well-known/openid-configuration",
            ],
        ),
        (
            "https://h.example/t1/",
            [
                "https://h.example/.well-known/oauth-authorization-server/t1",
                "https://h.example/t1/.well-known/openid-configuration",
            ],
        ),
        (
            "https://h.example:8443/a/b",
            [
                "https://h.example:8443/.well-known/oauth-authorization-server/a/b",
                "https://h.example:8443/a/b/.well-known/openid-configuration",
            ],
        ),
    ],
)
def test_rfc_8414_inserts_and_openid_appends(issuer: str, urls: list[str]) -> None:
    asked, error = run(issuer_metadata(issuer), ABSENT, ABSENT)
    assert asked == [f"GET {url}" for url in urls]
    assert isinstance(error, InvalidResponse)
    assert error.reason == "not_found"
    assert "publishes no authorization server metadata; " in str(error)


def test_both_documents_of_an_issuer_are_merged_and_the_first_one_leads() -> None:
    first = reply(200, issuer=ISSUER, token_endpoint=f"{ISSUER}/first")
    _, server = run(issuer_metadata(ISSUER), first, OPENID)
    assert server.token_endpoint == f"{ISSUER}/first"
    assert server.revocation_endpoint == f"{ISSUER}/revoke"
    assert server.device_authorization_endpoint == f"{ISSUER}/device"


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_member_that_says_nothing_does_not_hide_one_that_does(nothing: str | None) -> None:
    first = reply(200, **{**SNAKE, "device_authorization_endpoint": nothing})
    _, server = run(issuer_metadata(ISSUER), first, OPENID)
    assert server.device_authorization_endpoint == f"{ISSUER}/device"


@pytest.mark.req("META-13")
def test_an_issuer_that_lists_no_way_of_pkce_has_none() -> None:
    none, s256 = (
        reply(200, **{**SNAKE, "code_challenge_methods_supported": methods})
        for methods in ([], ["S256"])
    )
    silent = reply(200, **{**SNAKE, "code_challenge_methods_supported": None})
    for answers, methods in (
        ([none, ABSENT], ()),
        ([ABSENT, none], ()),
        ([none, s256], ()),
        ([silent, none], ()),
        ([silent, s256], ("S256",)),
        ([s256, none], ("S256",)),
        ([silent, ABSENT], None),
    ):
        _, server = run(issuer_metadata(ISSUER), *answers)
        assert server.code_challenge_methods_supported == methods


@pytest.mark.req("META-13")
def test_a_control_plane_that_writes_all_its_fields_has_left_the_empty_ones_unset() -> None:
    """The gateway of Flyte 1 does, and passes on what an identity provider has left out."""
    unset = reply(200, **{**SNAKE, "code_challenge_methods_supported": [], "scopes_supported": []})
    _, server = run(authorization_server(ENDPOINT), ABSENT, unset)
    assert server == evolve(SERVER, code_challenge_methods_supported=None, scopes_supported=())


def test_one_document_is_enough() -> None:
    assert run(issuer_metadata(ISSUER), OAUTH, ABSENT)[1] == SERVER
    assert run(issuer_metadata(ISSUER), ABSENT, OAUTH)[1] == SERVER


@pytest.mark.req("META-04")
@pytest.mark.parametrize(
    "named", [f"{ISSUER}/", "https://AS.example", "https://evil.example", None]
)
def test_a_document_for_another_issuer_is_not_used(named: str | None) -> None:
    other = reply(200, **{**SNAKE, "issuer": named})
    for answers in ([other], [ABSENT, other]):
        _, error = run(issuer_metadata(ISSUER), *answers)
        assert isinstance(error, InvalidResponse)
        assert error.reason == "issuer"
        assert repr(named or "") in str(error)
        assert repr(ISSUER) in str(error)
    assert run(issuer_metadata(ISSUER), OAUTH, other)[1] == SERVER


@pytest.mark.req("META-07")
def test_a_busy_issuer_is_not_asked_in_a_weaker_way() -> None:
    asked, error = run(issuer_metadata(ISSUER), reply(503), reply(500), reply(429))
    assert {url for url in asked if url.startswith("GET")} == {f"GET {ISSUER}{WELL_KNOWN_OAUTH}"}
    assert isinstance(error, Unreachable)


ELSEWHERE = Response(302, (("Location", "http://169.254.169.254/"),))
NOT_METADATA: list[tuple[Response, str]] = [
    (HTML, "not_json"),
    (Response(200, (), b"[]"), "not_json"),
    (Response(200), "not_json"),
    *((Response(status), "status") for status in (201, 204, 299)),
    (Response(206, (), b"{}"), "status"),
    (ELSEWHERE, "redirect"),
    (Response(302), "redirect"),
]


@pytest.mark.req("META-07", "META-08")
@pytest.mark.parametrize(("odd", "reason"), NOT_METADATA, ids=str)
def test_what_stands_in_place_of_a_document_leads_an_issuer_to_no_weaker_one(
    odd: Response, reason: str
) -> None:
    asked, error = run(issuer_metadata(ISSUER), odd)
    assert asked == [f"GET {ISSUER}{WELL_KNOWN_OAUTH}"]
    assert isinstance(error, InvalidResponse)
    assert error.reason == reason
    assert run(issuer_metadata(ISSUER), ABSENT, odd)[1].reason == reason
    page = Response(404, (), b"<html>")
    assert run(issuer_metadata(ISSUER), page, OAUTH)[1] == SERVER
    assert run(issuer_metadata(ISSUER), OAUTH, odd)[1] == SERVER  # nothing weaker is put in use


@pytest.mark.req("META-07")
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 415, 499])
def test_a_status_that_says_that_it_is_not_here_leads_to_the_next(status: int) -> None:
    asked, found = run(issuer_metadata(ISSUER), Response(status, (), b"<html>"), OAUTH)
    assert len(asked) == 2
    assert found == SERVER
    for body in (b"", b"<html>"):
        odd = Response(status, (), body)
        error = run(issuer_metadata(ISSUER), odd, odd)[1]
        assert isinstance(error, InvalidResponse)
        assert (
            error.reason == ("not_found" if body == b"" else "not_json")
            if status == 404
            else ("status")
        )


@pytest.mark.req("META-07")
def test_a_501_of_an_issuer_is_a_failure_like_any_5xx() -> None:
    asked, error = run(issuer_metadata(ISSUER), *[Response(501)] * 3)
    assert {url for url in asked if url.startswith("GET")} == {f"GET {ISSUER}{WELL_KNOWN_OAUTH}"}
    assert isinstance(error, Unreachable)


def test_an_issuer_that_has_pages_for_what_it_has_not_is_called_a_console() -> None:
    page = Response(404, (), b"<html>")
    _, error = run(issuer_metadata(ISSUER), page, page)
    assert error.reason == "not_json"


@pytest.mark.req("META-07")
def test_an_issuer_that_answers_with_a_page_is_called_a_console() -> None:
    _, error = run(issuer_metadata(ISSUER), HTML)
    assert isinstance(error, InvalidResponse)
    assert error.reason == "not_json"
    assert "looks like a web console" in str(error)


@pytest.mark.req("META-01")
@pytest.mark.parametrize(
    "issuer",
    [
        "http://as.example",
        "https://as.example?x=1",
        "https://as.example?",
        "https://as.example#f",
        "https://user@as.example",
        "https://",
        "as.example",
        "",
    ],
)
def test_an_issuer_that_is_none_is_refused_before_anything_is_sent(issuer: str) -> None:
    with pytest.raises(ConfigError) as raised:
        issuer_metadata(issuer)
    assert raised.value.reason == "issuer"
    proper(raised.value)


@pytest.mark.req("META-01")
def test_an_issuer_on_this_machine_may_do_without_tls() -> None:
    assert issuer_metadata("http://localhost:8080").places


# Redirects and patience.


@pytest.mark.req("META-08")
@pytest.mark.parametrize(
    "location",
    [
        *("http://169.254.169.254/", "https://evil.example/", "http://flyte.example/x"),
        *("https://flyte.example:8443/x", "//evil.example/x", "javascript:alert(1)", "https://["),
        *("https://flyte.example:99999/", "https://user@flyte.example/x", "/x#f", "/\x1b", "/é"),
    ],
)
def test_no_redirect_leads_anywhere_else(location: str) -> None:
    asked, error = run(
        authorization_server(ENDPOINT), ABSENT, Response(302, (("Location", location),))
    )
    assert asked == [POST_METADATA, GET_METADATA]
    assert isinstance(error, InvalidResponse)
    assert error.reason == "redirect"


@pytest.mark.req("META-08", "BRR-05")
def test_three_redirects_are_all_and_a_post_follows_none() -> None:
    again = Response(302, (("Location", "/again"),))
    asked, error = run(authorization_server(ENDPOINT), again, again, again, again, again)
    assert asked == [POST_METADATA, GET_METADATA, *[f"GET {ENDPOINT}/again"] * 3]
    assert isinstance(error, InvalidResponse)


def test_each_document_has_three_redirects_of_its_own() -> None:
    moved = [Response(302, (("Location", f"/{number}"),)) for number in range(3)]
    asked, server = run(issuer_metadata(ISSUER), *moved, ABSENT, *moved, OPENID)
    assert len(asked) == 8
    assert server.revocation_endpoint == f"{ISSUER}/revoke"


@pytest.mark.req("NET-02")
@pytest.mark.parametrize(
    ("retry_after", "pause"), [(None, "0.5"), ("0", "0.5"), ("120", "120"), ("abc", "0.5")]
)
def test_pauses_have_jitter_and_heed_retry_after(retry_after: str | None, pause: str) -> None:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    asked, _ = run(
        authorization_server(ENDPOINT), reply(503, headers), reply(200, **CAMEL), seed=LAZY
    )
    assert asked == [POST_METADATA, f"wait {pause}", POST_METADATA]


@pytest.mark.parametrize("reason", ["tls", "redirect", "too_large", "encoding", "insecure"])
def test_a_failure_that_stays_is_the_end(reason: FailureReason) -> None:
    failed = RequestFailed(reason, "x", sent=False, at=0.0)
    asked, error = run(authorization_server(ENDPOINT), failed)
    assert asked == [POST_METADATA]
    assert error.reason == reason


@pytest.mark.req("CLK-07")
def test_waking_early_is_no_reason_to_ask() -> None:
    flow = authorization_server(ENDPOINT)
    asking = flow.start(0)
    assert isinstance(asking, Asking)
    pausing = Pausing(10.0, asking)
    assert flow.advance(pausing, TimeReached(9.875)) == pausing
    assert flow.advance(pausing, TimeReached(10.0)) == asking
    assert flow.resume(pausing, 100.0) == pausing


# Spellings.


def test_both_spellings_are_one() -> None:
    assert snake_case(Object(CAMEL)).keys() >= SNAKE.keys()
    assert snake_case(Object(SNAKE)) == SNAKE
    both = snake_case(Object(tokenEndpoint="a", token_endpoint="b", x=1))
    assert both.repeated == {"token_endpoint"}
    given_twice = parse_object(Response(200, (), b'{"tokenEndpoint": "a", "tokenEndpoint": "b"}'))
    assert snake_case(given_twice).repeated


def test_a_path_goes_below_the_endpoints_own() -> None:
    assert at("https://h.example/", "/x") == at("https://h.example", "/x") == "https://h.example/x"
    assert at("https://h.example/flyte/", "/x") == "https://h.example/flyte/x"
    assert at("https://h.example/X/", "/x") == "https://h.example/X/x"


@pytest.mark.req("META-11")
def test_what_a_control_plane_advertises_can_be_compared_with_its_issuers_own() -> None:
    assert agrees(SERVER, SERVER)
    assert agrees(evolve(SERVER, device_authorization_endpoint=None), SERVER)
    assert agrees(AuthorizationServer(), SERVER)
    for name in ("authorization_endpoint", "token_endpoint", "device_authorization_endpoint"):
        evil = AuthorizationServer(**{**asdict(SERVER), name: "https://evil.example/t"})
        assert not agrees(evil, SERVER)


# The conversation.

FAULTS = [
    *("html-discovery", "login-redirect", "discovery-503", "no-auth", "flyte1-only"),
    *("no-device", "empty-header-key", "custom-header-key"),
]


class DiscoveryConversation(Conversation):
    """A control plane with its moods, and whatever network lies between."""

    states: ClassVar = STATES
    kind = ""
    discovery: Discovery[Any]
    asked: tuple[Request, ...] = ()
    pause_until = 0.0

    @initialize(
        kind=st.sampled_from(["server", "client", "issuer"]),
        faults=st.sampled_from(["", *FAULTS, "no-device custom-header-key"]),
        seed=strategies.seeds,
    )
    def start(self, kind: str, faults: str, seed: int) -> None:
        self.kind = kind
        self.plane = control_plane(frozenset(faults.split()))
        flows: dict[str, Discovery[Any]] = {
            "server": authorization_server(BASE),
            "client": public_client(BASE),
            "issuer": issuer_metadata(BASE),
        }
        self.flow = self.discovery = flows[kind]
        self.state = self.discovery.start(seed)

    def fault(self, name: str) -> bool:
        return self.plane.settings.fault(name)

    def observe(self, before: State, event: Event, after: Any) -> None:
        match before:
            case Asking():
                effect = self.flow.effect(before)
                assert isinstance(effect, SendRequest)
                self.asked = (*self.asked, effect.request)
                assert effect.request.url.startswith(f"{BASE}/")
                if isinstance(after, Pausing):
                    assert after.asking == evolve(before, attempt=before.attempt + 1)
                    most = Backoff().pause(before.attempt, LAZY)
                    asked = 0.0
                    if not isinstance(event, RequestFailed | TimeReached):
                        response = getattr(event, "response", Response(0))
                        asked = float(response.header("retry-after") or 0)
                    assert self.at + asked <= after.until <= self.at + max(most, asked)
                    self.pause_until = after.until
            case Pausing() if isinstance(after, Asking):
                assert self.at >= self.pause_until

    @invariant()
    def each_place_is_asked_in_turn_and_three_times_at_most(self) -> None:
        urls = [request.url for request in self.asked]
        places = [place.url for place in self.discovery.places]
        assert urls == sorted(urls, key=places.index)
        assert all(urls.count(url) <= 3 for url in places)

    @invariant()
    def the_end_is_what_the_control_plane_says(self) -> None:
        match self.end:
            case None:
                return
            case Unreachable():
                assert self.asked.count(self.asked[-1]) == 3
                return
            case InvalidResponse(reason="not_json"):
                assert self.fault("html-discovery")
                return
            case InvalidResponse(reason="redirect"):
                assert self.fault("login-redirect")
                return
            case InvalidResponse(reason="not_found"):
                assert (self.kind, self.fault("no-auth")) == ("issuer", True)
                return
            case Done(found):
                pass
            case error:
                pytest.fail(f"{error!r}")
        away = {"html-discovery", "login-redirect", "discovery-503"}
        assert not away & self.plane.settings.faults
        match self.kind, found:
            case "server", None:
                assert self.fault("no-auth")
            case "client", PublicClient(client_id=None):
                assert self.fault("no-auth")
                assert found == PublicClient()
            case "client", PublicClient():
                assert found.client_id == "flytectl"
                assert found.redirect_uri == "http://localhost:53593/callback"
                custom = self.fault("custom-header-key") and not self.fault("empty-header-key")
                assert found.header == ("flyte-authorization" if custom else "authorization")
            case _, AuthorizationServer():
                known = metadata_of(control_plane(self.plane.settings.faults & {"no-device"}))
                if self.kind == "server" and not self.fault("flyte1-only"):
                    known = evolve(  # what Flyte's message has no field for
                        known,
                        revocation_endpoint=None,
                        authorization_response_iss_parameter_supported=False,
                    )
                assert found == known
                assert (found.device_authorization_endpoint is None) == self.fault("no-device")
            case _:
                pytest.fail(f"{found!r}")


TestDiscoveryConversation = pytest.mark.req("META-03", "META-04", "META-07", "META-09", "CLK-08")(
    DiscoveryConversation.TestCase
)
TestDiscoveryConversation.settings = CONVERSATIONS


# Any state, any event, any bytes.

FLOWS: list[Discovery[Any]] = [
    authorization_server(ENDPOINT),
    public_client(ENDPOINT),
    issuer_metadata(ISSUER),
]
askings = st.builds(
    Asking,
    seed=strategies.seeds,
    url=st.sampled_from([f"{ENDPOINT}/x", f"{ISSUER}/y"]),
    place=st.integers(0, 1),
    redirects=st.integers(0, 3),
    attempt=st.integers(0, 2),
    found=st.lists(st.just(json.dumps(SNAKE)), max_size=1).map(tuple),
    complaint=st.sampled_from(["", "it looks like a web console; check the endpoint"]),
    complaint_reason=st.sampled_from(["", "not_json"]),
    speaks_flyte=st.booleans(),
)
discovery_states = askings | st.builds(Pausing, strategies.times, askings)


@pytest.mark.req("ERR-07")
@given(
    st.sampled_from(range(3)),
    discovery_states,
    strategies.events(strategies.METADATA, CAMEL, strategies.PUBLIC_CLIENT),
)
def test_every_event_leads_every_state_somewhere(which: int, state: State, event: Event) -> None:
    check_step(FLOWS[which], STATES, state, event)


@pytest.mark.req("ERR-07")
@given(strategies.bodies(strategies.PUBLIC_CLIENT, strategies.METADATA))
def test_any_bytes_are_a_public_client_or_a_refusal(body: bytes) -> None:
    found = outcome(lambda: parse_public_client(snake_case(parse_object(Response(200, (), body)))))
    if isinstance(found, PublicClient):
        assert found.header == found.header.lower()
        assert found.header.isascii()


@pytest.mark.req("ERR-07")
@given(strategies.texts)
def test_any_text_is_a_redirect_uri_and_an_issuer_or_a_refusal(text: str) -> None:
    outcome(lambda: check_redirect_uri(text))
    try:
        flow = issuer_metadata(text)
    except ConfigError:
        return
    assert all(place.url.startswith(("https://", "http://")) for place in flow.places)


# A control plane that the user lets be without TLS.

LAN = "http://flyte.lan"
PLAIN = {"issuer": LAN, "token_endpoint": f"{LAN}/token", "authorization_endpoint": f"{LAN}/auth"}


@pytest.mark.req("META-02")
def test_one_host_may_be_spoken_to_without_tls() -> None:
    moved = Response(302, (("Location", "/elsewhere"),))
    told = [ABSENT, moved, reply(200, **PLAIN)]
    asked, server = run(authorization_server(LAN), *told)
    assert asked == [
        f"POST {LAN}{OAUTH2_METADATA}",
        f"GET {LAN}{WELL_KNOWN_OAUTH}",
        f"GET {LAN}/elsewhere",
    ]
    assert server.token_endpoint == f"{LAN}/token"
    asked, client = run(public_client(LAN), ABSENT, moved, reply(200, client_id="cli"))
    assert asked[-1] == f"GET {LAN}/elsewhere"
    assert client.client_id == "cli"
    asked, server = run(issuer_metadata(LAN, "flyte.lan"), moved, reply(200, **PLAIN), ABSENT)
    assert f"GET {LAN}/elsewhere" in asked
    assert server.token_endpoint == f"{LAN}/token"


@pytest.mark.req("META-02")
def test_no_other_host_may() -> None:
    _, error = run(authorization_server(ENDPOINT), reply(200, **PLAIN))
    assert isinstance(error, InvalidResponse)
    assert error.reason == "authorization_endpoint"
    with pytest.raises(ConfigError):
        issuer_metadata(LAN, "other.lan")


def test_a_redirect_to_nowhere_is_not_followed() -> None:
    asked, error = run(authorization_server(ENDPOINT), ABSENT, Response(302))
    assert asked == [POST_METADATA, GET_METADATA]
    assert "redirects to nowhere instead" in str(error)


@pytest.mark.parametrize(
    ("status", "reason"), [(299, "status"), (300, "redirect"), (399, "redirect"), (400, "status")]
)
def test_which_statuses_are_redirects(status: int, reason: str) -> None:
    _, error = run(authorization_server(ENDPOINT), Response(status), Response(status))
    assert error.reason == reason


def test_flyte_that_names_no_server_once_has_said_so() -> None:
    nothing = reply(200, issuer=ISSUER)
    assert run(authorization_server(ENDPOINT), nothing, ABSENT) == (
        [POST_METADATA, GET_METADATA],
        None,
    )


def test_over_connect_an_empty_message_is_asked_for() -> None:
    flows: list[Discovery[Any]] = [authorization_server(ENDPOINT), public_client(ENDPOINT)]
    for flow in flows:
        effect = flow.effect(flow.start(0))
        assert isinstance(effect, SendRequest)
        assert effect.request.body == b"{}"


@pytest.mark.parametrize("path", ["/tenantX", "/tenantX/", "/tenantX//"])
def test_only_slashes_at_the_end_of_an_issuer_make_no_difference(path: str) -> None:
    asked, _ = run(issuer_metadata(ISSUER + path), ABSENT, ABSENT)
    assert asked == [
        f"GET {ISSUER}{WELL_KNOWN_OAUTH}/tenantX",
        f"GET {ISSUER}/tenantX/.well-known/openid-configuration",
    ]


@pytest.mark.parametrize("length", [39, 40, 41])
def test_a_header_that_is_none_is_shown_cut(length: int) -> None:
    with pytest.raises(InvalidResponse) as raised:
        parse_public_client(Object(authorization_metadata_key="é" * length))
    proper(raised.value)
    assert ("é" * 39 + "…" in str(raised.value)) is (length > 40)


@pytest.mark.parametrize("length", [79, 80, 81])
def test_a_url_that_is_none_is_shown_cut(length: int) -> None:
    url = ("https://é.example/" + "x" * 80)[:length]
    with pytest.raises(InvalidResponse) as redirect:
        check_redirect_uri(url)
    with pytest.raises(ConfigError) as issuer:
        issuer_metadata(url)
    for raised in (redirect.value, issuer.value):
        proper(raised)
        assert (url[:79] + "…" in str(raised)) is (length > 80)
    _, error = run(issuer_metadata(ISSUER), reply(200, issuer=url))
    assert (url[:79] + "…" in str(error)) is (length > 80)


@pytest.mark.req("META-07")
@pytest.mark.parametrize("body", [{"error": "server_error"}, {"error": {"code": 5}}, {"error": ""}])
def test_an_error_in_place_of_metadata_is_no_word_of_flyte(body: dict[str, Any]) -> None:
    _, error = run(authorization_server(ENDPOINT), reply(200, **body), reply(200, **body))
    assert isinstance(error, InvalidResponse)
    assert error.reason == "error"
    assert run(authorization_server(ENDPOINT), reply(200, **body), reply(200, **SNAKE))[1] == SERVER
