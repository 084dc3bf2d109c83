"""API keys: what goes in comes out, and half a key is no key."""

from __future__ import annotations

import traceback
from base64 import b64encode

import pytest
from hypothesis import assume, example, given, strategies as st

from flyteauth._sansio.api_key import ApiKey, decode_api_key
from flyteauth._sansio.errors import ConfigError

CANARY = "k85A-canary"


def encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


def refused(text: str, advice: str = "set clientId and clientSecretLocation instead") -> str:
    with pytest.raises(ConfigError) as caught:
        decode_api_key(text)
    message = str(caught.value)
    assert caught.value.reason == "api_key"
    assert "\n" not in message
    assert message.endswith(advice)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    return message


hosts = st.one_of(
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z]{2,6}){0,2}", fullmatch=True),
    st.sampled_from(["localhost", "127.0.0.1", "[::1]", "[2001:db8::7]"]),
)
endpoints = st.builds(
    "{}{}{}".format,
    hosts,
    st.one_of(st.just(""), st.integers(1, 65535).map(":{}".format)),
    st.sampled_from(["", "/flyte", "/a/b"]),
)
printable = st.characters(exclude_categories=["C", "Z"], exclude_characters=":")
parts = st.text(printable, min_size=1, max_size=12) | st.from_regex(r"[0-9]{1,6}", fullmatch=True)
orgs = st.none() | parts.filter(lambda org: org not in {"N", "No", "Non", "None"})
keys = st.builds(ApiKey, endpoints, parts, parts, orgs)


@given(keys)
def test_every_key_reads_back_as_it_was(key: ApiKey) -> None:
    try:
        text = key.encode()
    except ConfigError:
        # host:2024:secret:org may be half of host:port:client:secret:org.
        assert key.client_id.isdigit()
        assert key.org
        return
    assert decode_api_key(text) == key
    assert text.isascii()
    assert len(text) % 4 == 0


@given(keys, st.data())
@example(ApiKey("localhost:18443", "my-ci-key", "k85A", None), None)
def test_a_key_that_was_cut_is_never_another_client(
    key: ApiKey, data: st.DataObject | None
) -> None:
    assume(not key.client_secret.startswith("None"))
    try:
        whole = key.encode()
    except ConfigError:
        assume(False)
    cuts = range(len(whole)) if data is None else [data.draw(st.integers(0, len(whole) - 1))]
    for cut in cuts:
        try:
            read = decode_api_key(whole[:cut])
        except ConfigError:
            continue
        assert read.replace(org=key.org) == key  # only the organisation may have lost its end


pieces = st.lists(st.text(st.sampled_from("a1:/.[] \n"), max_size=8), max_size=6).map(":".join)


@given(
    st.text()
    | st.binary().map(lambda data: b64encode(data).decode())
    | st.text(st.characters(exclude_categories=["Cs"])).map(encoded)
    | pieces.map(encoded)
)
@example("\udcff")
def test_any_text_is_a_key_or_an_error(text: str) -> None:
    try:
        key = decode_api_key(text)
    except ConfigError:
        return
    assert key.endpoint
    assert key.client_id
    assert key.client_secret


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("h.example:id:s:None", ApiKey("h.example", "id", "s")),
        ("h.example:id:s:", ApiKey("h.example", "id", "s")),
        ("h.example:id:s:acme", ApiKey("h.example", "id", "s", "acme")),
        ("localhost:18443:my-ci-key:k85A:None", ApiKey("localhost:18443", "my-ci-key", "k85A")),
        ("dns:///h.example:id:s:None", ApiKey("dns:///h.example", "id", "s")),
        ("dns:///h.example:8443:id:s:o", ApiKey("dns:///h.example:8443", "id", "s", "o")),
        ("https://h.example:id:s:None", ApiKey("https://h.example", "id", "s")),
        ("HTTPS://h.example:443:id:s:None", ApiKey("HTTPS://h.example:443", "id", "s")),
        ("http://localhost:1234:id:s:None", ApiKey("http://localhost:1234", "id", "s")),
        ("[::1]:8080:id:s:None", ApiKey("[::1]:8080", "id", "s")),
        ("https://[::1]:id:s:None", ApiKey("https://[::1]", "id", "s")),
        ("h.example/flyte:id:s:None", ApiKey("h.example/flyte", "id", "s")),
        ("h.example:8443/flyte:id:s:None", ApiKey("h.example:8443/flyte", "id", "s")),
        # A client may be called like a port, as long as nothing can be missing.
        ("h.example:2024:s:None", ApiKey("h.example", "2024", "s")),
        ("h.example:220344561287430184:s:o", ApiKey("h.example", "220344561287430184", "s", "o")),
        ("h.example:443:2024:s:None", ApiKey("h.example:443", "2024", "s")),
        ("h.example:id:gr\u00fc\u00dfe+/%&:None", ApiKey("h.example", "id", "gr\u00fc\u00dfe+/%&")),
    ],
)
def test_endpoints_are_recognised(text: str, key: ApiKey) -> None:
    assert decode_api_key(encoded(text)) == key


def test_padding_alphabet_and_white_space_do_not_matter() -> None:
    key = ApiKey("h.example", "id", "\u00bf\u00bf>>??~~", "o")
    text = key.encode()
    assert "+" in text or "/" in text
    assert text.endswith("=")
    for other in (
        text.rstrip("="),
        text.replace("+", "-").replace("/", "_"),
        f" \n{text}\r\n",
        f"{text[:20]}\n{text[20:]}",
    ):
        assert decode_api_key(other) == key


@pytest.mark.req("SEC-02")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "not a key",
        f"h.example:id:{CANARY}:None",  # not encoded
        encoded(f"h.example:id:{CANARY}:None")[:-8],
        encoded(f"h.example:id:{CANARY}:None") + "%",
        encoded(f"h.example:id:{CANARY}"),
        encoded(f"h.example:id:{CANARY}:Non"),
        encoded(f"h.example:id:{CANARY}:with:colon:None"),
        encoded(f"h.example:id:{CANARY}:o:more"),
        encoded(f"localhost:18443:id:{CANARY}"),
        encoded(f"localhost:18443/p:{CANARY}:None"),
        encoded(f":id:{CANARY}:None"),
        encoded(f"h.example::{CANARY}:None"),
        encoded(f"{CANARY}:id::None"),
        encoded(f"h.example:id:{CANARY}\n:None"),
        encoded(f"h.example:id:{CANARY}:None\n"),
        encoded(f"[::1:id:{CANARY}:None"),
        encoded(f"ftp://h.example:id:{CANARY}:None"),
        encoded(f"user@h.example:id:{CANARY}:None"),
        b64encode(b"h.example:id:\xff\xfe" + CANARY.encode() + b":None").decode(),
    ],
)
def test_a_broken_key_is_one_line_without_its_content(text: str) -> None:
    refused(text)


@pytest.mark.parametrize(
    ("endpoint", "written"),
    [
        ("dns:///h.example", "h.example"),
        ("https://h.example:8443", "h.example:8443"),
        ("Http://h.example", "h.example"),
        ("http://localhost:1234", "http://localhost:1234"),
        ("HTTP://127.0.0.1:1234/p", "http://127.0.0.1:1234/p"),
        ("http://[::1]:1234", "http://[::1]:1234"),
        ("h.example", "h.example"),
    ],
)
def test_only_a_scheme_with_a_meaning_is_written(endpoint: str, written: str) -> None:
    assert decode_api_key(ApiKey(endpoint, "id", "s").encode()).endpoint == written


@pytest.mark.parametrize(
    "key",
    [
        ApiKey("h.example", "id", f"{CANARY}:x"),
        ApiKey("h.example", "id:x", CANARY),
        ApiKey("h.example", "id", CANARY, "o:x"),
        ApiKey("h.example", "id", CANARY, "None"),
        ApiKey("h.example", "id", CANARY, "No"),
        ApiKey("h.example", "id", ""),
        ApiKey("h.example", "", CANARY),
        ApiKey("", "id", CANARY),
        ApiKey("http://[::1", "id", CANARY),
        ApiKey("h.example", "id", f"{CANARY}\n"),
        ApiKey("h.example", "2024", CANARY, "o"),
        ApiKey("h.example", "\ud800", CANARY),
    ],
)
def test_what_would_not_read_back_is_not_written(key: ApiKey) -> None:
    with pytest.raises(ConfigError, match="an API key cannot hold these parts") as caught:
        key.encode()
    assert caught.value.reason == "api_key"
    assert CANARY not in str(caught.value)


def test_no_organisation_and_an_empty_one_are_the_same() -> None:
    assert ApiKey("h", "id", "s", "").encode() == ApiKey("h", "id", "s").encode()


@pytest.mark.req("SEC-01")
def test_the_secret_is_not_in_the_repr() -> None:
    assert CANARY not in repr(ApiKey("h", "id", CANARY))


@pytest.mark.parametrize("padding", ["", "=", "==", "==="])
def test_padding_may_be_right_wrong_or_missing(padding: str) -> None:
    for org in ("o", "or", "org", "W", "oW", "orW", "orgW"):  # W is X at the end of a group
        key = ApiKey("h", "c", "s", org)
        assert decode_api_key(key.encode().rstrip("=") + padding) == key


@pytest.mark.parametrize(
    ("endpoint", "kept"),
    [
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://localhostX:8080", "localhostX:8080"),
        ("https://localhost:8080", "localhost:8080"),
        ("HTTP://127.0.0.1", "http://127.0.0.1"),
    ],
)
def test_only_plain_http_to_this_machine_keeps_its_scheme(endpoint: str, kept: str) -> None:
    assert decode_api_key(ApiKey(endpoint, "c", "s").encode()).endpoint == kept


@pytest.mark.parametrize(
    ("wrapped", "said", "advice"),
    [
        ('"{}"', "in quotes", "leave them out"),
        ("'{}", "in quotes", "leave them out"),
        ("{}”", "in quotes", "leave them out"),
        (" `{}`\n", "in quotes", "leave them out"),
        ("FLYTE_API_KEY={}", "begins with FLYTE_API_KEY", "what comes after that alone"),
        ('export UNION_API_KEY="{}"', "begins with UNION_API_KEY", "what comes after that alone"),
        ("FLYTE_API_KEY: {}", "begins with FLYTE_API_KEY", "what comes after that alone"),
    ],
)
def test_what_was_copied_along_with_a_key_is_named(wrapped: str, said: str, advice: str) -> None:
    whole = ApiKey("localhost", "ci", CANARY).encode()
    assert decode_api_key(whole).client_id == "ci"
    message = refused(wrapped.format(whole), advice)
    assert said in message
    assert whole not in message
