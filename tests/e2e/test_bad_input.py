"""What users, servers and networks get wrong, at the command line: one line that says what to do."""

from __future__ import annotations

import json
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from flyteauth._sansio.http import Response
from tests.integration.test_tls import TlsServer, certified, tls_server
from tests.io.captive import PAGES, Captive, captive

from .conftest import BROWSER, Ended, Home, login


@pytest.fixture
def server() -> Iterator[Captive]:
    with captive() as server:
        yield server


def last_line(ended: Ended) -> str:
    """How a command failed; what it said before that is about how it went."""
    assert (ended.status, ended.out) == (1, ""), ended
    last = ended.err.splitlines()[-1]
    assert last.startswith("flyteauth: ")
    assert not {"CANARY", "Traceback"} & set(ended.err.replace("-", " ").split())
    return last


# A login page in place of an answer.

SAID = {
    "discovery": {
        "200": "a web page came back",
        "302": "redirects to sso.example.com",
        "401": "refuses to say how to log in (status 401)",
        "403": "refuses to say how to log in (status 403)",
        "511": "the network wants a login of its own",
    },
    "elsewhere": {
        "200": "a web page came back",
        "302": "redirects to sso.example.com",
        "401": "answered with status 401",
        "403": "answered with status 403",
        "511": "the network wants a login of its own",
    },
}


@pytest.mark.req("ERR-05", "ERR-07")
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("GetOAuth2Metadata|GetPublicClientConfig|well-known|flyte_client", ("login",)),
        ("GetPublicClientConfig|flyte_client", ("login",)),
        ("/oauth2/device_authorization", ("login", "--headless")),
        ("/oauth2/token", ("login",)),
    ],
    ids=["discovery", "public client", "device authorization", "token endpoint"],
)
def test_a_login_page_in_place_of_an_answer_is_told_and_nothing_is_stored(
    home: Home, server: Captive, place: str, words: tuple[str, ...], page: str
) -> None:
    server.pages[place] = PAGES[page]
    ended = home.run(*words, "--endpoint", server.base_url, BROWSER=BROWSER)
    last = last_line(ended)
    assert SAID["elsewhere" if place.startswith("/") else "discovery"][page] in last
    assert server.host in last
    assert home.stored() == {}


@pytest.mark.req("ERR-05", "ERR-07")
@pytest.mark.parametrize("page", PAGES)
def test_a_login_page_in_place_of_a_token_or_a_reply_is_told(
    home: Home, server: Captive, page: str
) -> None:
    login(home, server.base_url)
    before = home.stored()
    server.pages["/oauth2/token|ListProjects|UserInfo|AppsService"] = PAGES[page]
    of_a_person = {"FLYTE_ADMIN_ENDPOINT": server.base_url}
    uses: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (("token",), {"FLYTE_API_KEY": server.plane.api_key}),
        (("whoami",), of_a_person),
        (("get", "project"), of_a_person),
        (("get", "api-key"), of_a_person),
    ]
    for words, environ in uses:
        last = last_line(home.run(*words, **environ))
        assert SAID["elsewhere"][page] in last
        assert server.host in last
    assert home.stored().keys() == before.keys()


@pytest.mark.req("REV-06")
@pytest.mark.parametrize("page", [name for name in PAGES if name != "200"])
def test_a_login_page_in_place_of_a_revocation_is_no_revocation(
    home: Home, server: Captive, page: str
) -> None:
    login(home, server.base_url)
    server.pages["/oauth2/revoke"] = PAGES[page]
    ended = home.run("logout", "--endpoint", server.base_url)
    assert ended.status == 0
    assert "the server did not take its tokens back" in ended.err
    assert home.stored() == {}


# The header for the token.

CLIENT = "GetPublicClientConfig|flyte_client"


def names_header(key: str) -> Response:
    body = json.dumps({"clientId": "flytectl", "authorizationMetadataKey": key})
    return Response(200, (("content-type", "application/json"),), body.encode())


@pytest.mark.req("META-16")
@pytest.mark.parametrize(
    "key",
    [
        *("cookie", "content-length", ":authority"),
        *("x-token\r\nx-admin: 1", "x-tök", "x" * 10_000),
    ],
    ids=lambda key: key[:12].strip(),
)
def test_a_header_that_no_token_belongs_in_is_refused_before_anything_is_sent(
    home: Home, server: Captive, key: str
) -> None:
    server.pages[CLIENT] = names_header(key)
    ended = home.run("login", "--json", "--endpoint", server.base_url, BROWSER=BROWSER)
    failed = json.loads(ended.out.splitlines()[-1])
    assert (ended.status, failed["error"], failed["reason"]) == (1, "InvalidResponse", "header_key")
    assert len(ended.err.splitlines()[-1]) < 250
    last = last_line(home.run("token", FLYTE_API_KEY=server.plane.api_key))
    assert "wants the token in header" in last
    assert last.endswith("report this to whoever runs it")
    assert not any(b"x-admin" in request.lower() for request in server.requests)
    assert not any(b"Bearer" in request for request in server.requests)
    assert home.stored() == {}


@pytest.mark.req("META-16")
@pytest.mark.parametrize(("key", "header"), [("", "authorization"), ("X-My-Token", "x-my-token")])
def test_a_header_without_a_name_is_the_usual_one_and_another_is_used(
    home: Home, server: Captive, key: str, header: str
) -> None:
    server.pages[CLIENT] = names_header(key)
    login(home, server.base_url)
    home.run("whoami", "--endpoint", server.base_url)
    calls = [request for request in server.requests if b"UserInfo" in request]
    assert f"\r\n{header}: Bearer ".encode() in calls[0]
    assert calls[0].count(b": Bearer ") == 1


# Certificates.


@pytest.fixture(scope="module")
def tls() -> Iterator[TlsServer]:
    with tls_server(certified(trustme.CA())) as server:
        yield server


@pytest.mark.req("META-05")
@pytest.mark.parametrize("how", ["none", "another"])
def test_a_certificate_that_is_not_trusted_names_host_issuer_and_setting(
    home: Home, tls: TlsServer, how: str
) -> None:
    admin = f"endpoint: dns:///{tls.host}"
    if how == "another":
        other = home.path / "other.pem"
        trustme.CA().cert_pem.write_to_path(other)
        admin += f", caCertFilePath: {other}"
    home.write(".flyte/config.yaml", f"admin: {{{admin}}}")
    key: dict[str, Any] = {"FLYTE_API_KEY": tls.plane.api_key}
    for ended in (home.run("login", BROWSER=BROWSER), home.run("token", **key)):
        ended.failed_with(1, tls.host, "(issuer trustme", "Testing CA", "caCertFilePath")
    assert tls.requests == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (no such file or directory)"),
        ("not PEM", "holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n", "certificate"),
    ],
)
@pytest.mark.parametrize("way", ["--ca-cert", "caCertFilePath"])
def test_a_ca_file_that_is_none_is_named_with_what_it_lacks(
    home: Home, tls: TlsServer, content: str | None, said: str, way: str
) -> None:
    path = home.path / "broken.pem"
    if content is not None:
        path.write_text(content, "utf-8")
    words: tuple[str, ...] = ()
    admin = f"endpoint: dns:///{tls.host}"
    if way == "--ca-cert":
        words = (way, str(path))
    else:
        admin += f", caCertFilePath: {path}"
    home.write(".flyte/config.yaml", f"admin: {{{admin}}}")
    ended = home.run("login", *words, BROWSER=BROWSER)
    # What is no certificate within is seen only when one is needed, and the setting has one name.
    late = content is not None and "BEGIN" in content
    ended.failed_with(
        2 if words and not late else 1, str(path), said, "caCertFilePath" if late else way, "PEM"
    )
    assert tls.requests == []


# What an external command prints.


def jwt(**claims: Any) -> str:
    return ".".join(
        urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "none"}, claims, "signature")
    )


PRINTED = {
    "two lines": (b"CANARY-one\nCANARY-two\n", "printed more than one line"),
    "a token and a note": (b"CANARY-token\nwill expire soon\n", "printed more than one line"),
    "nothing": (b"", "printed nothing"),
    "white space": (b" \n\t\n", "printed nothing"),
    "expired JSON": (b'{"token": "CANARY", "expires_at": 1}', "printed a token that has expired"),
    "an expired JWT": (jwt(exp=1, sub="CANARY").encode(), "printed a token that has expired"),
    "JSON without a token": (b'{"CANARY": 1}', "printed JSON without a token"),
    "half of a JSON": (b'{"token": "CANARY', "printed broken JSON"),
    "a web page": (b"<!DOCTYPE html><p>CANARY", "printed what is not a token"),
    "binary": (b"\xff\xfeCANARY\x00", "printed what is not UTF-8"),
    "zero bytes": (b"CANARY\x00CANARY", "printed what is not a token"),
    "a megabyte": (b"CANARY00" * 131_072, "printed more than 65536 bytes"),
    "an escape sequence": (b"\x1b[31mCANARY\x1b[0m", "printed what is not a token"),
}


@pytest.mark.req("BRR-14", "SEC-02")
@pytest.mark.parametrize("printed", PRINTED)
def test_what_a_command_prints_and_is_no_token_is_not_passed_on(
    home: Home, server: Captive, printed: str
) -> None:
    output, said = PRINTED[printed]
    file = home.path / "printed"
    file.write_bytes(output)
    program = f"import sys; sys.stdout.buffer.write(open({str(file)!r}, 'rb').read())"
    command = json.dumps([sys.executable, "-c", program])
    home.write(
        ".flyte/config.yaml",
        f"admin:\n  endpoint: {server.base_url}\n  authType: ExternalCommand\n"
        f"  command: {command}\n",
    )
    ended = home.run("token")
    ended.failed_with(1, said, "run the command of admin.command by hand")
    assert "CANARY" not in ended.err
    assert "\x1b" not in ended.err
    assert not any(b"authorization" in request.lower() for request in server.requests)
    assert home.stored() == {}
