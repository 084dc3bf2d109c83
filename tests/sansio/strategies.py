"""
What Hypothesis draws, in one home, so that every test fears the same world.

Times are multiples of 1/8: exact in binary, so that ``later - earlier >= interval`` means what it
says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, get_args

from hypothesis import strategies as st

from flyteauth._sansio.device_authorization import DeviceCode
from flyteauth._sansio.flow import (
    Event,
    FailureReason,
    RedirectReceived,
    RequestFailed,
    ResponseReceived,
    TimeReached,
    UserCodeShown,
)
from flyteauth._sansio.http import BODY_MAX, Response

times: Final = st.integers(0, 80_000_000).map(lambda eighths: eighths / 8)
pauses: Final = st.sampled_from([0.0, 0.125, 0.5, 1.0, 5.0, 90.0])
seeds: Final = st.integers(0, 2**64 - 1)

# Text.

any_text: Final = st.text(st.characters(), max_size=30)  # lone surrogates included
hostile_texts: Final = st.sampled_from(
    [
        "\x1b]0;pwn\x07",
        "\u202e\u200b\u2028",
        "\ud800",
        "a\r\nX: y",
        "[link=https://evil.example]x[/link] %s {x} <b>",
        "é",
        "javascript:alert(1)",
        "https://a@evil.example/",
        "https://h:99999/",
        "https://[::1",
        "https://\u0430pple.example/é",
        "http://remote.example/",
        "https://as.example/ok",
    ]
)
long_texts: Final = st.just("x").map(lambda text: text * 70_000)
texts: Final = any_text | hostile_texts | long_texts

# JSON, and what only looks like it.

json_values: Final[st.SearchStrategy[Any]] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=5,
)
FRAGMENTS: Final = [
    *("null", "true", "0", "-0", "-1", "0.5", "3600", "3600.0", '"3600"', '"-5"', '""', "[]", "{}"),
    *("1e400", "-1e400", "1e308", "NaN", "Infinity", "-Infinity", '["a"]', '"\\ud800"'),
]
EXTREMES: Final = {
    "a huge number": "9" * 400,
    "a number that Python does not read": "9" * 5000,
    "a huge number as text": f'"{"9" * 400}"',
    "a long text": f'"{"x" * 70_000}"',
    "too deep": "[" * 50_000 + "]" * 50_000,
    "too deep, and cut off": '{"a":' * 50_000,
}
fragments: Final = st.one_of(
    st.sampled_from(FRAGMENTS),
    st.sampled_from(list(EXTREMES)).map(EXTREMES.__getitem__),
    json_values.map(json.dumps),
)


@st.composite
def documents(draw: st.DrawFn, valid: Mapping[str, object]) -> bytes:
    """A JSON object that is nearly *valid*: members are strange, missing or repeated."""
    members = [(name, json.dumps(value)) for name, value in valid.items()]
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(sorted(valid)))
        where = next((i for i, (present, _) in enumerate(members) if present == name), None)
        match draw(st.sampled_from(["replace", "replace", "drop", "repeat", "add"])):
            case "replace" if where is not None:
                members[where] = (name, draw(fragments))
            case "drop" if where is not None:
                del members[where]
            case "repeat":
                members.append((name, draw(fragments)))
            case _:
                members.append((draw(any_text), draw(fragments)))
    inside = ",".join(f"{json.dumps(name)}:{fragment}" for name, fragment in members)
    return f"{{{inside}}}".encode()


def bodies(*valid: Mapping[str, object]) -> st.SearchStrategy[bytes]:
    """Any bytes, many of them nearly one of the *valid* documents."""
    nearly = [documents(members) for members in valid]
    return st.one_of(
        *nearly,
        *nearly,
        fragments.map(str.encode),
        st.binary(max_size=100),
        st.sampled_from(
            [
                b"",
                b"\xef\xbb\xbf{}",
                b"\xff\xfe{",
                b"<!DOCTYPE html><title>Console</title>",
                b"  <HTML>",
                b"upstream connect error",
            ]
        ),
        st.just(b"{}").map(lambda body: body.ljust(BODY_MAX + 1)),
    )


# HTTP.

STATUSES: Final = [
    *(200, 200, 200, 200, 201, 204, 301, 302, 303, 304, 307, 400, 400, 400, 401, 403, 404, 405),
    *(408, 415, 429, 500, 501, 502, 503),
]
header_values: Final = any_text | st.sampled_from(
    [
        *("0", "1", "30", "120", "121", "3600", "-1", "abc", "1.5", "9" * 30, "9" * 20),
        *("Sun, 06 Nov 1994 08:49:37 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"),
        *("Sun, 32 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT"),
        *("/elsewhere", "https://as.example/elsewhere", "https://evil.example/", "//[", "\x1b"),
        *("http://169.254.169.254/", "https://as.example:99999/", "", "text/html"),
    ]
)
headers: Final = st.lists(
    st.tuples(
        st.sampled_from(["Retry-After", "retry-after", "Location", "Content-Type"]), header_values
    ),
    max_size=3,
).map(tuple)


def responses(*valid: Mapping[str, object]) -> st.SearchStrategy[Response]:
    """Any response, many of them nearly what was asked for."""
    statuses = st.sampled_from(STATUSES) | st.integers(-1, 1000)
    return st.builds(Response, statuses, headers, bodies(*valid))


TOKEN: Final = {
    "access_token": "access",
    "token_type": "Bearer",
    "expires_in": 3600,
    "refresh_token": "refresh",
    "scope": "b a",
    "id_token": "a.b.c",
}
REFUSAL: Final = {"error": "invalid_grant", "error_description": "no", "error_uri": "https://as/e"}
PENDING: Final = {"error": "authorization_pending"}
SLOW_DOWN: Final = {"error": "slow_down"}
DEVICE: Final = {
    "device_code": "secret",
    "user_code": "WDJB-MJHT",
    "verification_uri": "https://as.example/device",
    "verification_uri_complete": "https://as.example/device?user_code=WDJB-MJHT",
    "expires_in": 600,
    "interval": 5,
}
METADATA: Final = {
    "issuer": "https://as.example",
    "authorization_endpoint": "https://as.example/auth",
    "token_endpoint": "https://as.example/token",
    "device_authorization_endpoint": "https://as.example/device",
    "revocation_endpoint": "https://as.example/revoke",
    "scopes_supported": ["all"],
    "grant_types_supported": ["authorization_code"],
    "token_endpoint_auth_methods_supported": ["client_secret_basic"],
    "code_challenge_methods_supported": ["S256"],
    "authorization_response_iss_parameter_supported": True,
}
PUBLIC_CLIENT: Final = {
    "clientId": "flytectl",
    "redirectUri": "http://localhost:53593/callback",
    "scopes": ["offline", "all"],
    "authorizationMetadataKey": "flyte-authorization",
    "audience": "https://flyte.example",
    "dataplaneDomain": "dp.example",
}
CLAIMS: Final = {
    "iss": "https://as.example",
    "sub": "alice",
    "aud": "cli",
    "azp": "cli",
    "exp": 2000,
    "iat": 1000,
    "nonce": "n",
    "at_hash": "x",
}

# Events.


def received(*valid: Mapping[str, object]) -> st.SearchStrategy[ResponseReceived]:
    return st.builds(ResponseReceived, responses(*valid), times, times)


failures: Final = st.builds(
    RequestFailed, st.sampled_from(get_args(FailureReason)), texts, st.booleans(), times
)


def redirects(uri: str, parameters: Iterable[str]) -> st.SearchStrategy[RedirectReceived]:
    """Any redirect, many of them nearly one to *uri*."""
    parts = st.sampled_from([*parameters, "code=%ff", "iss=", "&", "a=b=c", "code", "%", "+"])
    queries = st.lists(parts, max_size=5).map("&".join) | any_text
    uris = queries.map(lambda query: f"{uri}?{query}") | texts
    return st.builds(RedirectReceived, uris, times)


# One event of each kind, where only the kind matters.
plain_events: Final[st.SearchStrategy[Event]] = st.sampled_from(
    [
        ResponseReceived(Response(200, (), b"{}"), 1000.0, 1000.0),
        RequestFailed("timeout", "no answer", sent=True, at=1000.0),
        TimeReached(1e6),
        UserCodeShown(1000.0),
        RedirectReceived("http://127.0.0.1:5000/?code=a&state=s", 1000.0),
    ]
)


def events(
    *valid: Mapping[str, object],
    redirect_uri: str = "http://127.0.0.1:5000/",
    parameters: Iterable[str] = ("code=a", "state=s", "error=access_denied"),
) -> st.SearchStrategy[Event]:
    """Any event of any kind."""
    return st.one_of(
        received(*valid),
        failures,
        st.builds(TimeReached, times),
        st.builds(UserCodeShown, times),
        redirects(redirect_uri, parameters),
    )


device_codes: Final = st.builds(
    DeviceCode,
    device_code=st.just("secret"),
    user_code=st.just("WDJB-MJHT"),
    verification_uri=st.just("https://as.example/device"),
    verification_uri_complete=st.none() | st.just("https://as.example/device?c=WDJB-MJHT"),
    expires_at=times,
    interval=st.integers(1, 1800).map(float),
)
