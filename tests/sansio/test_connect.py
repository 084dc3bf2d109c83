"""One call over Connect: a message, or an error that says what it means."""

from __future__ import annotations

import pytest
from hypothesis import given

from flyteauth._sansio.connect import read_reply, unary_request
from flyteauth._sansio.errors import FlowError, InsufficientScope, InvalidResponse, Unreachable
from flyteauth._sansio.flow import ResponseReceived
from flyteauth._sansio.http import Response

from ..fuzz.properties import proper
from . import strategies
from .conversation import answer, outcome, reply

PROCEDURE = "/flyteidl2.project.ProjectService/ListProjects"
REQUEST = unary_request(
    "https://flyte.example/", PROCEDURE, {"limit": 1}, (("authorization", "x"),)
)


def refused(response: Response) -> FlowError:
    with pytest.raises(FlowError) as raised:
        read_reply(REQUEST, answer(response))
    proper(raised.value)
    return raised.value


def test_a_call_is_a_post_of_one_json_message() -> None:
    message = {"limit": 1, "filter": "a"}
    request = unary_request("https://flyte.example/", PROCEDURE, message, (("x-token", "x"),))
    assert (request.method, request.url) == ("POST", f"https://flyte.example{PROCEDURE}")
    assert request.body == b'{"limit":1,"filter":"a"}'
    assert request.headers == (
        ("accept", "application/json"),
        ("content-type", "application/json"),
        ("connect-protocol-version", "1"),
        ("x-token", "x"),
    )


def test_a_reply_is_a_json_object() -> None:
    assert read_reply(REQUEST, answer(reply(200, projects=[]))) == {"projects": []}
    page = refused(Response(200, (), b"<html>"))
    assert page.reason == "not_json"
    assert str(page).startswith("flyte.example: a web page came back")


@pytest.mark.req("ERR-01")
@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (401, "unauthenticated", "log in again"),
        (403, "permission_denied", "ask for the permission, or log in as somebody else"),
        (404, "not_found", "check the name"),
        (409, "already_exists", "choose another name"),
        (400, "failed_precondition", "it cannot be done as things are"),
        (400, "invalid_argument", "check the arguments"),
        (501, "unimplemented", "check that the endpoint is a Flyte 2 control plane"),
        (500, "internal", "report this to whoever runs it"),
        (500, "unknown", "report this to whoever runs it"),
        (500, "data_loss", "report this to whoever runs it"),
        (418, "new_code", "report this to whoever runs it"),
    ],
)
def test_an_error_keeps_its_code(status: int, code: str, hint: str) -> None:
    error = refused(reply(status, code=code, message="no \x1b[31m unauthorized"))
    assert type(error) is FlowError
    assert error.reason == code
    assert str(error) == (f"the control plane answered {code} (no \\x1b[31m unauthorized); {hint}")
    assert str(refused(reply(status, code=code))) == f"the control plane answered {code}; {hint}"


@pytest.mark.parametrize(
    "response",
    [
        reply(503, {"Retry-After": "3"}, code="unavailable"),
        reply(429, {"Retry-After": "3"}, code="resource_exhausted"),
        Response(502, (("Retry-After", "3"),), b"<html>"),
        reply(500, {"Retry-After": "3"}, message="without a code"),
        reply(500, {"Retry-After": "3"}, code=5),
    ],
)
def test_what_may_work_later_is_transient(response: Response) -> None:
    error = refused(response)
    assert isinstance(error, Unreachable)
    assert error.retry_after == 3.0


@pytest.mark.req("ERR-05", "BRR-05")
@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (Response(401, (), b"<html>canary"), "status"),
        (Response(405, (), b"canary"), "status"),
        (Response(404, (), b"canary"), "unimplemented"),
        (reply(403, message="canary"), "status"),
        (reply(403, code=["canary"]), "status"),
        (Response(302, (("Location", "https://login.example/x?canary"),)), "redirect"),
        (Response(300, (), b"canary"), "redirect"),
        (Response(399, (), b"canary"), "redirect"),
        (Response(299, (), b"canary"), "status"),
        (Response(400, (), b"canary"), "status"),
    ],
)
def test_what_is_not_connect_at_all_is_invalid(response: Response, reason: str) -> None:
    error = refused(response)
    assert isinstance(error, InvalidResponse)
    assert error.reason == reason
    assert "canary" not in str(error)


@pytest.mark.req("BRR-09")
@pytest.mark.parametrize(
    ("challenge", "scopes", "said"),
    [
        (
            'Bearer error="insufficient_scope", scope="all \x1b offline"',
            ("all", r"\x1b", "offline"),
            r"(all \x1b offline)",
        ),
        ("Basic, Bearer error=insufficient_scope", (), "a scope that this call needs; add it"),
    ],
)
def test_a_scope_that_is_missing_is_named(
    challenge: str, scopes: tuple[str, ...], said: str
) -> None:
    error = refused(reply(403, {"WWW-Authenticate": challenge}, code="permission_denied"))
    assert isinstance(error, InsufficientScope)
    assert error.scopes == scopes
    assert error.reason == "insufficient_scope"
    assert said in str(error)


@pytest.mark.req("BRR-09")
def test_another_refusal_is_what_the_control_plane_says() -> None:
    headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    error = refused(reply(403, headers, code="permission_denied", message="no"))
    assert error.reason == "permission_denied"


@pytest.mark.req("ERR-07")
@given(strategies.received({"code": "unavailable", "message": "no", "details": []}))
def test_any_bytes_are_a_message_or_an_error(received: ResponseReceived) -> None:
    message = outcome(lambda: read_reply(REQUEST, received))
    assert isinstance(message, FlowError) == (not isinstance(message, dict))


def test_a_code_that_nobody_knows_is_cut() -> None:
    assert refused(reply(418, code="x" * 40)).reason == "x" * 40
    assert refused(reply(418, code="x" * 41)).reason == "x" * 39 + "…"
