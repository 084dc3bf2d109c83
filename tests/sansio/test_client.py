"""Client authentication, metadata, and scopes."""

from __future__ import annotations

from base64 import b64decode
from urllib.parse import parse_qsl, urlencode

import pytest
from attrs import evolve
from hypothesis import given

from flyteauth._sansio.client import (
    ENDPOINTS,
    PROTOCOL,
    Authentication,
    AuthorizationServer,
    Client,
    join_scopes,
    parse_metadata,
)
from flyteauth._sansio.errors import ConfigError, InvalidResponse, MissingMetadata
from flyteauth._sansio.flow import ResponseReceived
from flyteauth._sansio.http import Object, Request, parse_object

from . import strategies
from .conversation import outcome

SERVER = AuthorizationServer(token_endpoint="https://as.example/token?tenant=x")


def form(request: Request) -> dict[str, str]:
    pairs = parse_qsl(request.body.decode(), keep_blank_values=True, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs), "a parameter is repeated"
    return dict(pairs)


def credentials(request: Request) -> str | None:
    header = request.header("authorization")
    assert all(name == name.lower() for name, _ in request.headers)  # RFC 9113 §8.2.1
    return None if header is None else b64decode(header.removeprefix("Basic ")).decode()


# Metadata.


@pytest.mark.req("META-09")
def test_metadata_are_read_and_unknown_members_ignored() -> None:
    server = parse_metadata(Object({**strategies.METADATA, "x": 1, "jwks": [None]}))
    assert server == AuthorizationServer(
        issuer="https://as.example",
        authorization_endpoint="https://as.example/auth",
        token_endpoint="https://as.example/token",
        device_authorization_endpoint="https://as.example/device",
        revocation_endpoint="https://as.example/revoke",
        scopes_supported=("all",),
        grant_types_supported=("authorization_code",),
        token_endpoint_auth_methods_supported=("client_secret_basic",),
        code_challenge_methods_supported=("S256",),
        authorization_response_iss_parameter_supported=True,
    )


def test_metadata_that_say_nothing_are_none() -> None:
    assert parse_metadata(Object()) == AuthorizationServer()
    nothing = dict.fromkeys(strategies.METADATA)
    assert parse_metadata(Object(nothing)) == AuthorizationServer()


@pytest.mark.req("META-09")
@pytest.mark.parametrize("name", strategies.METADATA)
def test_a_known_member_of_a_wrong_type_is_named(name: str) -> None:
    with pytest.raises(InvalidResponse) as raised:
        parse_metadata(Object({**strategies.METADATA, name: {"a": "https://as.example"}}))
    assert raised.value.reason == name


@pytest.mark.req("META-02")
@pytest.mark.parametrize("name", ENDPOINTS)
@pytest.mark.parametrize(
    "url",
    [
        "http://as.example/t",
        "https://as.example/t#f",
        "https://user:pw@as.example/t",
        "/t",
        "javascript:alert(1)",
        "https://as.example/\x1b",
    ],
)
def test_no_endpoint_is_insecure(name: str, url: str) -> None:
    with pytest.raises(InvalidResponse) as raised:
        parse_metadata(Object({**strategies.METADATA, name: url}))
    assert raised.value.reason == name


@pytest.mark.req("META-14")
@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_missing_endpoint_is_named_and_how_to_set_it(name: str) -> None:
    with pytest.raises(MissingMetadata, match=rf"endpoints\.{name}$") as raised:
        AuthorizationServer().endpoint(name)
    assert raised.value.reason == name


@pytest.mark.req("ERR-07")
@given(strategies.received(strategies.METADATA))
def test_any_bytes_are_metadata_or_a_refusal(received: ResponseReceived) -> None:
    outcome(lambda: parse_metadata(parse_object(received.response)))


# Client authentication.

SECRET = "p+% /:é"


@pytest.mark.req("CCG-01", "CCG-02", "CCG-03", "CCG-05")
@pytest.mark.parametrize(
    ("method", "secret", "basic", "body"),
    [
        (None, None, None, {"client_id": "a:b c"}),
        ("none", SECRET, None, {"client_id": "a:b c"}),
        (
            "client_secret_post",
            SECRET,
            None,
            {"client_id": "a:b c", "client_secret": SECRET},
        ),
        ("client_secret_basic", SECRET, "a%3Ab+c:p%2B%25+%2F%3A%C3%A9", {}),
        ("client_secret_basic_raw", SECRET, f"a:b c:{SECRET}", {}),
    ],
)
def test_each_request_has_exactly_one_kind_of_authentication(
    method: Authentication | None, secret: str | None, basic: str | None, body: dict[str, str]
) -> None:
    client = Client(SERVER, "a:b c", secret, method)
    request = client.token_request("g", x="1", y=None)
    assert credentials(request) == basic
    assert form(request) == {"grant_type": "g", "x": "1", **body}
    assert request.url == SERVER.token_endpoint  # COD-01, CCG-02: nothing is added to the URL


@pytest.mark.req("CCG-04")
@pytest.mark.parametrize(
    ("configured", "listed", "method"),
    [
        (None, (), "client_secret_basic"),
        (None, ("client_secret_post", "client_secret_basic"), "client_secret_basic"),
        (None, ("private_key_jwt", "client_secret_post"), "client_secret_post"),
        ("client_secret_basic_raw", ("client_secret_post",), "client_secret_basic_raw"),
        ("client_secret_post", ("private_key_jwt",), "client_secret_post"),
    ],
)
def test_the_method_is_what_was_configured_or_listed_or_basic(
    configured: Authentication | None, listed: tuple[str, ...], method: Authentication
) -> None:
    server = AuthorizationServer(token_endpoint_auth_methods_supported=listed)
    assert Client(server, "c", "s", configured).authentication_method() == method


@pytest.mark.req("CCG-04")
def test_a_secret_that_the_server_does_not_take_is_not_sent() -> None:
    server = AuthorizationServer(
        token_endpoint="https://as/t", token_endpoint_auth_methods_supported=("private_key_jwt",)
    )
    with pytest.raises(ConfigError, match="private_key_jwt") as raised:
        Client(server, "c", "canary").token_request("g")
    assert raised.value.reason == "auth_method"
    assert "canary" not in str(raised.value)


@pytest.mark.req("SEC-01")
def test_a_client_does_not_show_its_secrets() -> None:
    client = Client(SERVER, "c", "canary", extra_parameters={"token": {"x": "canary"}})
    assert "canary" not in repr(client)


# Parameters of the caller's own.


def test_extra_parameters_go_to_their_endpoint_only() -> None:
    extra = {"token": {"resource": "r"}, "authorization": {"prompt": "consent"}}
    client = Client(SERVER, "c", extra_parameters=extra)
    assert form(client.token_request("g")) == {
        "grant_type": "g",
        "client_id": "c",
        "resource": "r",
    }
    assert form(client.authenticated("https://as/revoke", {"token": "t"})) == {
        "token": "t",
        "client_id": "c",
    }
    assert client.added_to("authorization", PROTOCOL) == {"prompt": "consent"}
    assert client.added_to("device_authorization", PROTOCOL) == {}


@pytest.mark.req("AZR-03")
@pytest.mark.parametrize("name", [*sorted(PROTOCOL), "of_this_request"])
def test_extra_parameters_never_shadow_the_protocol(name: str) -> None:
    client = Client(SERVER, "c", extra_parameters={"token": {name: "x"}})
    with pytest.raises(ConfigError, match=name) as raised:
        client.token_request("g", of_this_request="1")
    assert raised.value.reason == "extra_parameters"


# Scopes.


@pytest.mark.req("AZR-17")
@pytest.mark.parametrize(
    ("scopes", "joined"),
    [
        ([], ""),
        (["all"], "all"),
        (["b", "a"], "b a"),
        (["api://x/.default!#[]~"], "api://x/.default!#[]~"),
    ],
)
def test_scopes_go_out_as_configured(scopes: list[str], joined: str) -> None:
    assert join_scopes(scopes) == joined
    assert join_scopes(iter(scopes)) == joined
    assert urlencode({"scope": joined})


@pytest.mark.req("AZR-17")
@pytest.mark.parametrize("scope", ["a b", 'x"y', "", "a\\b", "é", "a\n", '["all"]', "\x1b"])
def test_what_is_not_a_scope_is_an_error_and_not_repaired(scope: str) -> None:
    with pytest.raises(ConfigError) as raised:
        join_scopes(["all", scope])
    assert raised.value.reason == "scopes"


@pytest.mark.req("ERR-01")
def test_what_cannot_be_used_is_named_and_cut() -> None:
    endless = evolve(SERVER, token_endpoint_auth_methods_supported=("x" * 300_000,))
    with pytest.raises(ConfigError) as raised:
        Client(endless, "cli", "s").token_request("client_credentials")
    assert f"(it lists {'x' * 299}…); set client_auth" in str(raised.value)
    odd = ("private_key_jwt", "tls_client_auth")
    server = evolve(SERVER, token_endpoint_auth_methods_supported=odd)
    with pytest.raises(ConfigError, match=r"\(it lists private_key_jwt, tls_client_auth\)"):
        Client(server, "cli", "s").token_request("client_credentials")
    with pytest.raises(ConfigError, match=f"'{'x' * 38}é ' is not a scope"):
        join_scopes(["x" * 38 + "é " + "y"])
