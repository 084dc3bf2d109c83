"""What servers answer."""

from __future__ import annotations

import json
import math
from base64 import urlsafe_b64encode

import httpx

from flyteauth._sansio.authorization_code import STATES as CODE_STATES, AuthorizationCode
from flyteauth._sansio.challenges import bearer_error, parse_challenges
from flyteauth._sansio.client import AuthorizationServer, Client
from flyteauth._sansio.connect import read_reply, unary_request
from flyteauth._sansio.device_authorization import STATES as DEVICE_STATES, DeviceAuthorization
from flyteauth._sansio.discovery import (
    STATES as DISCOVERY_STATES,
    PublicClient,
    authorization_server,
    check_redirect_uri,
    issuer_metadata,
    public_client,
)
from flyteauth._sansio.errors import FlowError
from flyteauth._sansio.exchanges import client_credentials, refresh, revoke
from flyteauth._sansio.flow import Done, Exchange
from flyteauth._sansio.http import (
    YEAR,
    Object,
    http_date,
    is_secure,
    parse_object,
    retry_after,
    seconds,
)
from flyteauth._sansio.id_token import check, check_refreshed, subject
from flyteauth._sansio.record import Record, load_record
from flyteauth._sansio.tokens import Token, parse_token
from flyteauth.remote import ApiKey, App, Project, Task
from tests.fuzz.properties import AT, converse, proper, received, response, responses, sent

ISSUER = "https://as.example"
SERVER = AuthorizationServer(
    issuer=ISSUER,
    authorization_endpoint=f"{ISSUER}/auth",
    token_endpoint=f"{ISSUER}/token",
    device_authorization_endpoint=f"{ISSUER}/device",
    revocation_endpoint=f"{ISSUER}/revoke",
)
CLIENT = Client(SERVER, "cli")
LOOSE = Client(SERVER, "cli", quirks=frozenset({"assume_bearer", "any_token_alphabet"}))
SERVICE = Client(SERVER, "cli", "secret")
HELD = Token("old", AT - 10, AT + 10, "refresh", scopes=("all",))


def token(data: bytes) -> None:
    """A token response, to whoever asks for one."""
    answer = received(data)
    for client in (CLIENT, LOOSE):
        try:
            granted = parse_token(answer, client, ("all",))
        except FlowError as error:
            proper(error)
            continue
        _usable(granted)
    for exchange in (client_credentials(SERVICE), refresh(CLIENT, HELD)):
        try:
            end = exchange.advance(exchange.start(), answer)
        except FlowError as error:
            proper(error)
            continue
        assert isinstance(end, Done)
        _usable(end.value)


def _usable(granted: Token) -> None:
    assert granted.access_token.isascii()
    assert granted.access_token.isprintable()
    assert " " not in granted.access_token
    assert granted.expires_at is None or AT < granted.expires_at <= AT + YEAR
    record = Record(granted, SERVER.endpoint("token_endpoint"), "cli")
    assert load_record(record.dump()) == record
    without = granted.replace(access_token="", refresh_token=None, id_token=None)
    assert repr(without) == repr(granted)


def revocation(data: bytes) -> None:
    exchange: Exchange[None] = revoke(CLIENT, "refresh_token", "secret")
    try:
        exchange.advance(exchange.start(), received(data))
    except FlowError as error:
        proper(error)


def device_login(data: bytes) -> None:
    """A device authorization response, and what is answered to each poll."""
    flow = DeviceAuthorization(CLIENT, ("openid", "all"))
    try:
        granted = converse(flow, flow.start(), responses(data), states=DEVICE_STATES)
    except FlowError as error:
        proper(error)
    else:
        assert isinstance(granted, Token)


def browser_login(data: bytes) -> None:
    """The redirect in the first line, and what the token endpoint answers."""
    uri, _, rest = data.partition(b"\n")
    flow = AuthorizationCode(CLIENT, ("openid",))
    state = flow.start(bytes(96), "http://127.0.0.1:5000/callback")
    redirect = uri.decode("utf-8", "replace")
    try:
        granted = converse(flow, state, responses(rest), states=CODE_STATES, redirect=redirect)
    except FlowError as error:
        proper(error)
    else:
        assert isinstance(granted, Token)
        assert granted.id_token is not None


def server_metadata(data: bytes) -> None:
    """What a control plane says of its authorization server."""
    flow = authorization_server("https://flyte.example/base")
    try:
        found = converse(flow, flow.start(7), responses(data), states=DISCOVERY_STATES)
    except FlowError as error:
        proper(error)
        return
    if found is not None:
        _fit_for_secrets(found)


def client_settings(data: bytes) -> None:
    """What a control plane says of its public client."""
    flow = public_client("https://flyte.example")
    try:
        found = converse(flow, flow.start(7), responses(data), states=DISCOVERY_STATES)
        if found.redirect_uri is not None:
            check_redirect_uri(found.redirect_uri)
            assert httpx.URL(found.redirect_uri).host in {"localhost", "::1"} or httpx.URL(
                found.redirect_uri
            ).host.startswith("127.")
    except FlowError as error:
        proper(error)
        return
    assert isinstance(found, PublicClient)
    httpx.Headers({found.header: "Bearer x"}).raw[0][0].decode("ascii")
    assert found.dataplane_domain is None or "." in found.dataplane_domain


def issuer_documents(data: bytes) -> None:
    """Both documents of an issuer that the user names."""
    flow = issuer_metadata(ISSUER)
    try:
        found = converse(flow, flow.start(7), responses(data), states=DISCOVERY_STATES)
    except FlowError as error:
        proper(error)
        return
    assert found.issuer == ISSUER
    _fit_for_secrets(found)


def _fit_for_secrets(server: AuthorizationServer) -> None:
    """No credential goes to where the HTTP library would not send it encrypted."""
    for name in ("authorization_endpoint", "token_endpoint", "device_authorization_endpoint"):
        url = getattr(server, name)
        if url is not None:
            assert is_secure(url)
    client = Client(server, "cli")
    if server.token_endpoint is not None:
        request = client.token_request("refresh_token", refresh_token="secret")
        sent(request)


def call_reply(data: bytes) -> None:
    """What a control plane answers to a call."""
    request = unary_request("https://flyte.example", "/a.Service/Call", {}, ())
    try:
        reply = read_reply(request, received(data))
    except FlowError as error:
        proper(error)
    else:
        assert isinstance(reply, Object)


def listing(data: bytes) -> None:
    """An item of a list that a control plane answers with."""
    try:
        item = parse_object(response(b"200\n\n" + data))
    except FlowError as error:
        proper(error)
        return
    for parse in (Project._parse, Task._parse, App._parse, ApiKey._parse):
        try:
            parse(item)
        except FlowError as error:
            proper(error)


def challenges(data: bytes) -> None:
    """Fields of WWW-Authenticate, one a line."""
    fields = data.decode("latin-1").split("\n")
    found = parse_challenges(fields)
    written = [_written(challenge.scheme, challenge.parameters) for challenge in found]
    again = parse_challenges(
        text if challenge.token68 is None else f"{challenge.scheme} {challenge.token68}"
        for text, challenge in zip(written, found, strict=True)
    )
    assert again == found
    bearer_error(fields)


def _written(scheme: str, parameters: object) -> str:
    assert isinstance(parameters, dict)
    quoted = (
        f'{name}="' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        for name, value in parameters.items()
    )
    return f"{scheme} {', '.join(quoted)}".strip()


def waiting_time(data: bytes) -> None:
    """A Retry-After, a date, a number of seconds."""
    answer = response(b"503\nretry-after: " + data.replace(b"\n", b" "))
    asked = retry_after(answer, AT)
    assert asked is None or 0 <= asked <= YEAR
    text = data.decode("latin-1")
    date = http_date(text)
    assert date is None or math.isfinite(date)
    try:
        number = json.loads(data)
    except (ValueError, RecursionError):
        number = text
    lifetime = seconds(number)
    assert lifetime is None or (0 < lifetime <= YEAR and lifetime.is_integer())


def id_token(data: bytes) -> None:
    """The claims of an ID token, or with a dot the whole of it."""
    header = _segment(b'{"alg":"RS256"}')
    for text in (
        data.decode("latin-1"),
        f"{header}.{_segment(data)}.c2ln",
        f"{_segment(data)}.{header}.c2ln",
    ):
        answer = Token("a", AT, id_token=text, scopes=("openid",))
        try:
            check(answer, CLIENT, nonce="n", at=AT, verified=True)
        except FlowError as error:
            proper(error)
        else:
            who = subject(text)
            assert who is None or isinstance(who, str)
            check_refreshed(answer, text, CLIENT, at=AT)


def _segment(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


TARGETS = (
    token,
    revocation,
    device_login,
    browser_login,
    server_metadata,
    client_settings,
    issuer_documents,
    call_reply,
    listing,
    challenges,
    waiting_time,
    id_token,
)
