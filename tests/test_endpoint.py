"""Endpoints: one server, however it is written, and TLS wherever credentials could be seen."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from flyteauth._endpoint import Endpoint, parse_endpoint
from flyteauth._sansio.http import is_secure
from flyteauth.errors import ConfigError

SOURCE = "/etc/config.yaml: admin.endpoint"


def parse(text: str, *, insecure: bool = False, allow: bool = False) -> Endpoint:
    return parse_endpoint(text, insecure=insecure, allow_insecure_credentials=allow, source=SOURCE)


@pytest.mark.parametrize(
    ("text", "url", "key"),
    [
        ("flyte.example.com", "https://flyte.example.com", "flyte.example.com"),
        ("dns:///flyte.example.com", "https://flyte.example.com", "flyte.example.com"),
        ("https://flyte.example.com", "https://flyte.example.com", "flyte.example.com"),
        ("http://flyte.example.com", "https://flyte.example.com", "flyte.example.com"),
        ("HTTPS://Flyte.Example.COM/", "https://flyte.example.com", "flyte.example.com"),
        ("flyte.example.com///", "https://flyte.example.com", "flyte.example.com"),
        ("flyte.example.com:443", "https://flyte.example.com:443", "flyte.example.com"),
        ("flyte.example.com:0443", "https://flyte.example.com:443", "flyte.example.com"),
        ("flyte.example.com:8443", "https://flyte.example.com:8443", "flyte.example.com:8443"),
        ("dns:///h.example/Path/x/", "https://h.example/Path/x", "h.example/Path/x"),
        ("h.example:8443/p", "https://h.example:8443/p", "h.example:8443/p"),
        ("flyte", "https://flyte", "flyte"),
        ("flyte_admin.svc", "https://flyte_admin.svc", "flyte_admin.svc"),
        ("localhost:18443", "https://localhost:18443", "localhost:18443"),
        ("dns:///localhost:18443", "https://localhost:18443", "localhost:18443"),
        ("http://localhost:8080", "http://localhost:8080", "localhost:8080"),
        ("http://LOCALHOST:80/", "http://localhost:80", "localhost"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://127.9.9.9", "http://127.9.9.9", "127.9.9.9"),
        ("http://[::1]:8080", "http://[::1]:8080", "[::1]:8080"),
        ("[2001:DB8:0::7]:8443", "https://[2001:db8::7]:8443", "[2001:db8::7]:8443"),
        ("10.0.0.7", "https://10.0.0.7", "10.0.0.7"),
        ("http://10.0.0.7", "https://10.0.0.7", "10.0.0.7"),
        ("http://localhost.example.com", "https://localhost.example.com", "localhost.example.com"),
        ("b\u00fccher.example", "https://xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("http://127.0.0.\uff11:80", "http://127.0.0.1:80", "127.0.0.1"),
    ],
)
def test_all_spellings_mean_one_endpoint(text: str, url: str, key: str) -> None:
    endpoint = parse(text)
    assert (endpoint.url, endpoint.key, endpoint.warning) == (url, key, None)


BAD = [
    ("", "no host"),
    ("/", "no host"),
    ("https://", "no host"),
    ("https:///flyte.example.com", "no host"),
    ("dns:////flyte.example.com", "no host"),
    ("https//flyte.example.com", "no host"),
    ("http:localhost", "port"),
    ("htp://flyte.example.com", "scheme"),
    ("://flyte.example.com", "scheme"),
    ("grpc://flyte.example.com", "scheme"),
    ("dns://flyte.example.com", "three slashes"),
    ("https://https://flyte.example.com", "path"),
    ("https:/flyte.example.com", "port"),
    (" flyte.example.com", "space"),
    ("flyte example", "space"),
    ("flyte.example.com\n", "cannot be printed"),
    ("flyte.example.com\x00", "cannot be printed"),
    ("\ud800", "cannot be printed"),
    ("https:\\\\flyte.example.com", "backslash"),
    ("user:canary@flyte.example.com", "user name"),
    ("flyte.example.com?x=1", "query"),
    ("flyte.example.com#x", "fragment"),
    ("flyte.example.com:", "port"),
    ("flyte.example.com:0", "port"),
    ("flyte.example.com:65536", "port"),
    ("flyte.example.com:8o80", "port"),
    ("flyte.example.com:-1", "port"),
    ("18443", "host name"),
    ("http://127.1", "host name"),
    ("300.1.1.1", "host name"),
    ("<YourOrg>.hosted.example", "host name"),
    ("a..b", "host name"),
    ("-a.example", "host name"),
    (f"{'a' * 64}.example", "host name"),
    (".".join(["a" * 60] * 5), "host name"),
    ("\u2100.example", "host name"),
    ("stra\u00dfe.example", "host name"),  # the older IDNA makes it strasse.example
    ("\u00fc..example", "host name"),
    ("::1", "host that can be read"),
    ("[::1", "host that can be read"),
    ("[::g]", "host name"),
    ("[fe80::1%eth0]", "host name"),
    ("h.example/a//b", "path"),
    ("h.example/../b", "path"),
    ("h.example/a%2", "path"),
    ("h.example/\u00fc", "path"),
]


@pytest.mark.parametrize(("text", "problem"), BAD)
def test_a_typo_is_one_line_that_says_where_and_what(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    message = str(caught.value)
    assert message.startswith(f"{SOURCE}: the endpoint ")
    assert problem in message
    assert message.endswith(
        "write it like dns:///flyte.example.com or https://flyte.example.com:8443"
    )
    assert "\n" not in message
    assert "canary" not in message
    assert caught.value.reason == "endpoint"


@given(st.text() | st.text(st.sampled_from("ab.:/[]1@?#htps%"), max_size=20), st.booleans())
@example("dns:///h.example", True)
@example("[::1]:65535/p", True)
def test_any_text_is_an_endpoint_or_an_error(text: str, insecure: bool) -> None:
    try:
        endpoint = parse(text, insecure=insecure, allow=True)
    except ConfigError:
        return
    assert endpoint.url.isascii()
    assert not endpoint.url.endswith("/")
    assert is_secure(endpoint.url) == (endpoint.warning is None)
    again = parse(endpoint.url, insecure=insecure, allow=True)
    assert again == endpoint


@pytest.mark.parametrize(
    "text", ["localhost:8089", "dns:///localhost:8089", "https://localhost:8089"]
)
def test_insecure_means_no_tls_to_this_machine(text: str) -> None:
    assert parse(text, insecure=True) == Endpoint(
        "http://localhost:8089", "localhost:8089", "localhost"
    )


@pytest.mark.req("BRR-02")
@pytest.mark.parametrize("text", ["h.example", "http://h.example", "https://h.example", "10.0.0.7"])
def test_insecure_beyond_this_machine_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, insecure=True)
    assert caught.value.reason == "insecure"
    assert str(caught.value).endswith("set insecure to false, or allowInsecureCredentials to true")
    assert str(caught.value).startswith(SOURCE)


def test_insecure_beyond_this_machine_may_be_allowed_and_then_warns() -> None:
    endpoint = parse("dns:///h.example:80", insecure=True, allow=True)
    assert (endpoint.url, endpoint.key) == ("http://h.example:80", "h.example")
    assert endpoint.warning is not None
    assert "h.example" in endpoint.warning
    assert "\n" not in endpoint.warning


def test_allowing_insecure_credentials_alone_changes_nothing() -> None:
    assert parse("http://h.example", allow=True) == parse("h.example")


def test_an_endpoint_knows_how_it_was_spelled_and_is_the_same_however_it_was() -> None:
    spelled = parse("dns:///H.example:443/")
    assert spelled.spelling == "dns:///H.example:443/"
    assert spelled == parse("https://h.example:443")
    assert "H.example" not in repr(spelled)
