"""Where a credential may go: nowhere that only looks like a place it may go to."""

from __future__ import annotations

import string
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, strategies as st

from flyteauth._sansio.origins import Origins, data_plane_domain, origin_of, parse_origin
from flyteauth._sansio.urls import canonical_host
from flyteauth.errors import ConfigError

from .strategies import any_text, texts

DOMAIN: Final = "dp.example.com"
ENDPOINT: Final = "https://flyte.example.org:8443"
ORIGINS: Final = Origins(frozenset({("https", "flyte.example.org", 8443)}), DOMAIN)

labels: Final = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?", fullmatch=True)
names: Final = st.lists(labels, min_size=1, max_size=4).map(".".join)
ports: Final = st.integers(1, 65535)


@pytest.mark.req("BRR-03")
@pytest.mark.parametrize(
    "url",
    [
        ENDPOINT,
        f"{ENDPOINT}/path?query#fragment",
        "HTTPS://FLYTE.example.ORG:8443/",
        "https://flyte.example.org:08443",
        "https://dp.example.com",
        "https://dp.example.com:443/a",
        "https://dp.example.com:/a",
        "https://cluster-1.DP.example.com/flyteidl2.dataproxy.DataProxyService/UploadInputs",
        "https://a.b.c.dp.example.com?x",
    ],
)
def test_the_endpoint_and_the_data_plane_may_have_it(url: str) -> None:
    assert ORIGINS.allow(url)


LOOKALIKES: Final = [
    # of the endpoint
    "https://flyte.example.org/",
    "http://flyte.example.org:8443/",
    "https://flyte.example.org:8444/",
    "https://flyte.example.org.:8443/",
    "https://a.flyte.example.org:8443/",
    "https://flyte.example.org:8443@evil.example/",
    "https://evil.example@flyte.example.org:8443/",
    "https://evil.example\\@flyte.example.org:8443/",
    "https://evil.example#@flyte.example.org:8443/",
    "https://flyte%2eexample.org:8443/",
    "https://flyte.example.org:8443:443/",
    "//flyte.example.org:8443/",
    "flyte.example.org:8443",
    " https://flyte.example.org:8443/",
    "https://flyte.example.org\t:8443/",
    "https://flyte.example.org:8443\r\n",
    "dns:///flyte.example.org:8443",
    # of the data plane
    "https://evil-dp.example.com/",
    "https://evildp.example.com/",
    "https://example.com/",
    "https://dp.example.com.evil.example/",
    "https://dp.example.com.:443/",
    "https://dp.example.com./",
    "https://a.dp.example.com./",
    "https://.dp.example.com/",
    "https://a..dp.example.com/",
    "https://*.dp.example.com/",
    "http://dp.example.com/",
    "http://dp.example.com:443/",
    "https://dp.example.com:8443/",
    "https://dp.example.com:80/",
    "https://a:b@dp.example.com/",
    "https://evil.example%23.dp.example.com/",
    "https://evil.example%2f.dp.example.com/",
    "https://evil.example;.dp.example.com/",
    "https://evil.example?.dp.example.com/",
    "https://evil.example#.dp.example.com/",
    "https://evil.example/.dp.example.com/",
    "https://[::1].dp.example.com/",
    "https://[evil.example].dp.example.com/",
    "https://xn--.dp\u3002example\u3002com/",
    "https://dp\u3002example.com/",
    "https://\uff44p.example.com/",
    "https://\u0440dp.example.com/",
    "wss://dp.example.com/",
    "ftp://dp.example.com/",
    "https:dp.example.com",
    "https:///dp.example.com",
    "",
]


@pytest.mark.req("BRR-03")
@pytest.mark.parametrize("url", LOOKALIKES)
def test_what_only_looks_like_one_of_them_may_not(url: str) -> None:
    assert not ORIGINS.allow(url)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://[::1]:443/", True),
        ("https://[::1]/", True),
        ("https://[::1].evil.example/", False),
        ("https://evil.example[::1]/", False),
        ("https://[::1]evil.example/", False),
        ("https://[::2]/", False),
        ("https://::1/", False),
    ],
)
def test_an_address_in_brackets_is_that_address_and_nothing_beside_it(
    url: str, allowed: bool
) -> None:
    assert Origins(frozenset({("https", "::1", 443)})).allow(url) is allowed


@given(texts | st.text(st.sampled_from(string.printable), max_size=40))
@example("https://a@dp.example.com")
def test_whatever_is_written_either_is_allowed_or_is_not(text: str) -> None:
    for url in (text, f"https://{text}", f"https://{text}.{DOMAIN}/", f"https://{DOMAIN}{text}"):
        if ORIGINS.allow(url):
            parts = urlsplit(url)
            host = parts.hostname or ""
            assert parts.scheme == "https"
            assert "@" not in parts.netloc
            if host == "flyte.example.org":
                assert parts.port == 8443
            else:
                assert host == DOMAIN or host.endswith(f".{DOMAIN}")
                assert parts.port in {None, 443}
                assert set(host) <= set(string.ascii_lowercase + string.digits + "-._")


@given(st.sampled_from(["http", "https"]), names, ports)
def test_the_answer_is_that_of_a_list_of_labels(scheme: str, name: str, port: int) -> None:
    for host in (name, f"{name}.{DOMAIN}", f"{name}{DOMAIN}", f"{DOMAIN}.{name}", DOMAIN):
        for at in (port, 443):
            below = host.split(".")[-3:] == DOMAIN.split(".")
            expected = below and (scheme, at) == ("https", 443)
            assert ORIGINS.allow(f"{scheme}://{host}:{at}/x") is expected
            assert ORIGINS.allow_origin(scheme, host, at) is expected


@given(names, ports)
def test_without_a_domain_only_what_is_named_is_allowed(name: str, port: int) -> None:
    origins = Origins(frozenset({("https", name, port)}))
    assert origins.allow(f"https://{name}:{port}/")
    assert not origins.allow(f"http://{name}:{port}/")
    assert not origins.allow(f"https://{name}:{port % 65535 + 1}/")
    assert not origins.allow(f"https://a.{name}:{port}/")
    assert not Origins().allow(f"https://{name}:{port}/")


# What a control plane may name.


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("dp.example.com", "dp.example.com"),
        ("DP.Example.COM", "dp.example.com"),
        ("example.com", "example.com"),
        ("example.co.uk", "example.co.uk"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("flyte.svc.cluster.local", "flyte.svc.cluster.local"),
    ],
)
def test_a_domain_is_taken_as_it_is(text: str, domain: str) -> None:
    assert data_plane_domain(text) == domain


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", ".", "com", "localhost", "co.uk", "com.au", "CO.JP"),
        *("https://dp.example.com", "dp.example.com:443", "dp.example.com/", "dp.example.com/a"),
        *("*.example.com", "*", ".example.com", "example.com.", "a..example.com", " example.com"),
        *("127.0.0.1", "10.1", "::1", "[::1]", "0x7f.0x1", "1.2.3.4.", "a.0x7f", "a.1"),
        *("me@example.com", "example.com#", "example.com?", "exa mple.com", "example.com\r\nX: y"),
        *("b\u00fccher.example", "-a.example", "a-.example", f"{'a' * 64}.example", "a_b.example"),
        ".".join(["a" * 60] * 5),
    ],
)
def test_a_domain_that_no_credential_should_go_to_is_none(text: str | None) -> None:
    assert data_plane_domain(text) is None


@given(texts | names)
def test_any_text_is_a_domain_with_a_name_below_it_or_none(text: str) -> None:
    domain = data_plane_domain(text)
    if domain is not None:
        assert domain == text.lower()
        assert domain.isascii()
        assert "." in domain
        assert data_plane_domain(domain) == domain
        origins = Origins(domain=domain)
        assert origins.allow(f"https://{domain}/")
        assert not origins.allow(f"https://{domain.partition('.')[2]}/")
        assert not origins.allow(f"https://evil-{domain}/")


# What a user names.


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://files.example.com", ("https", "files.example.com", 443)),
        ("HTTPS://Files.Example.com/", ("https", "files.example.com", 443)),
        ("https://files.example.com:8443", ("https", "files.example.com", 8443)),
        ("http://localhost:9000/", ("http", "localhost", 9000)),
        ("http://[::1]", ("http", "::1", 80)),
        ("https://[2001:DB8:0::7]:8443", ("https", "2001:db8::7", 8443)),
        ("https://m\u00fcller.example", ("https", "xn--mller-kva.example", 443)),
        ("https://127.0.0.\uff11", ("https", "127.0.0.1", 443)),
        ("http://flyte.example.com", ("http", "flyte.example.com", 80)),
    ],
)
def test_an_origin_is_read_in_each_spelling(text: str, origin: tuple[str, str, int]) -> None:
    assert parse_origin(text, "flyte.example.com") == origin


@pytest.mark.req("BRR-02")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://files.example.com", "insecure"),
        *((text, "origins") for text in ("", "*", "files.example.com", "https://", "https:///a")),
        *((f"https://files.example.com{end}", "origins") for end in ("/a", "?a", "#a", ":0", ":x")),
        ("https://files.example.com:99999", "origins"),
        ("https://files.example.com.", "origins"),
        ("https://*.example.com", "origins"),
        ("https://person:s3cret@files.example.com", "origins"),
        ("https://[files.example.com]", "origins"),
        ("https://fa\u00df.example", "origins"),  # one name in one codec, and another in the other
        ("ftp://files.example.com", "origins"),
        ("https://files.example.com\n", "origins"),
        (None, "origins"),
        (b"https://files.example.com", "origins"),
    ],
)
def test_what_is_no_origin_is_a_configuration_error(text: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match="write each like https://") as wrong:
        ORIGINS.including([text])
    assert wrong.value.reason == reason
    assert "s3cret" not in str(wrong.value)


@given(any_text)
def test_whatever_is_named_is_an_origin_or_an_error(text: str) -> None:
    for written in (text, f"https://{text}"):
        try:
            origin = parse_origin(written)
        except ConfigError:
            continue
        scheme, host, port = origin
        assert host.isascii()
        shown = f"[{host}]" if ":" in host else host
        assert origin_of(f"{scheme}://{shown}:{port}") == origin


def test_naming_origins_adds_to_what_is_there() -> None:
    named = ORIGINS.including(["https://files.example.com"])
    assert named.allow("https://files.example.com/")
    assert named.allow(ENDPOINT)
    assert named.allow(f"https://{DOMAIN}")
    assert not named.allow("https://a.files.example.com/")
    assert ORIGINS.including([]) is ORIGINS


@pytest.mark.parametrize("text", ["[::1", "::1]", "\uff3b::1", "[::1%lo]", "[]", "", "127.0.0.256"])
def test_half_an_address_is_no_host(text: str) -> None:
    assert canonical_host(text) == ""


@pytest.mark.parametrize("letter", ["ß", "ẞ", "ς", "\u200c", "\u200d"])  # IDNA 2008, deviations
def test_a_letter_that_older_idna_turns_into_another_is_in_no_host(letter: str) -> None:
    for text in (f"a{letter}b.example", f"{letter}.example", f"bücher.a{letter}b"):
        assert canonical_host(text) == ""
    assert canonical_host("bücher.example") == "xn--bcher-kva.example"


def test_an_address_that_ends_in_a_wide_digit_is_that_address() -> None:
    assert canonical_host("1.1.1.\uff11") == "1.1.1.1"
    assert canonical_host("1.1.1.\uff11\uff11\uff11\uff11") == ""


@pytest.mark.req("BRR-02")
@pytest.mark.parametrize(("port", "is_one"), [(0, False), (1, True), (65535, True), (65536, False)])
def test_a_port_is_one_of_65535(port: int, is_one: bool) -> None:
    text = f"https://files.example.com:{port}"
    if is_one:
        assert parse_origin(text) == ("https", "files.example.com", port)
        return
    with pytest.raises(ConfigError):
        parse_origin(text)


@pytest.mark.req("BRR-02")
def test_one_host_may_be_named_without_tls() -> None:
    assert Origins().including(["http://flyte.lan"], "flyte.lan").allow("http://flyte.lan/x")
    with pytest.raises(ConfigError, match="unencrypted"):
        Origins().including(["http://flyte.lan"], "other.lan")


def test_a_name_has_at_most_253_characters() -> None:
    longest = ".".join(["a" * 61] * 4 + ["b" * 5])
    assert len(longest) == 253
    assert data_plane_domain(longest) == canonical_host(longest) == longest
    assert data_plane_domain(f"a{longest}") is None
    assert canonical_host(f"a{longest}") == ""


@pytest.mark.parametrize(
    ("text", "shared"),
    [("co.uk", True), ("co.com", False), ("acme.uk", False), ("com.acme.uk", False)],
)
def test_what_a_country_shares_is_two_labels(text: str, shared: bool) -> None:
    assert data_plane_domain(text) == (None if shared else text)


@pytest.mark.parametrize("label", "ac co com edu go gob gov gouv gv mil ne net nom or org".split())
def test_each_label_that_countries_share_is_shared(label: str) -> None:
    assert data_plane_domain(f"{label}.xx") is None
    assert data_plane_domain(f"acme.{label}.xx") == f"acme.{label}.xx"
    assert data_plane_domain(f"{label}.example") == f"{label}.example"


@pytest.mark.parametrize(("text", "is_one"), [("a.1b.com", True), ("a.b.1c", False)])
def test_only_the_last_label_has_to_begin_with_a_letter(text: str, is_one: bool) -> None:
    assert (data_plane_domain(text) is not None) is is_one
