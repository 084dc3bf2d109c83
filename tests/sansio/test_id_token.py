"""ID tokens: every claim that is wrong is named."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, strategies as st

from flyteauth._sansio.client import AuthorizationServer, Client
from flyteauth._sansio.errors import InvalidResponse
from flyteauth._sansio.id_token import check, check_refreshed, subject
from flyteauth._sansio.tokens import Token

from ..fuzz.properties import proper
from . import strategies
from .conversation import outcome

CLIENT = Client(AuthorizationServer(issuer="https://as.example"), "cli")
ACCESS_TOKEN = "access"
AT = 1000.0


def base64url(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


def at_hash(algorithm: str, access_token: str = ACCESS_TOKEN) -> str:
    digest = hashlib.new(algorithm, access_token.encode()).digest()
    return base64url(digest[: len(digest) // 2])


def id_token(alg: Any = "RS256", **changed: Any) -> str:
    """A token with these claims beside the usual ones; None leaves one out."""
    usual = {"iss": "https://as.example", "aud": "cli", "sub": "alice", "nonce": "n"}
    claims: dict[str, Any] = {**usual, "iat": AT, "exp": AT + 600, **changed}
    header = {"alg": alg, "kid": "k"}
    present = {name: value for name, value in claims.items() if value is not None}
    return compact(json.dumps(header).encode(), json.dumps(present).encode())


def compact(header: bytes, claims: bytes) -> str:
    return ".".join(base64url(part) for part in (header, claims, b"signature"))


USUAL = b'{"iss":"https://as.example","aud":"cli","sub":"alice","nonce":"n","iat":1000,"exp":1600}'


def token(text: str | None) -> Token:
    return Token(ACCESS_TOKEN, 0.0, id_token=text)


def refused(text: str | None, *, nonce: str | None = "n", verified: bool = True) -> str:
    with pytest.raises(InvalidResponse) as raised:
        check(token(text), CLIENT, nonce=nonce, at=AT, verified=verified)
    assert raised.value.reason.startswith("id_token.")
    return raised.value.reason.removeprefix("id_token.")


ACCEPTED: list[dict[str, Any]] = [
    {},
    {"aud": ["cli"]},
    {"azp": "cli"},
    {"exp": AT - 59.875},
    {"iat": AT + 60},
    {"sub": "x" * 255},
    {"at_hash": at_hash("sha256")},
    {"alg": "ES384", "at_hash": at_hash("sha384")},
    {"alg": "PS512", "at_hash": at_hash("sha512")},
    {"alg": "EdDSA", "at_hash": at_hash("sha512")},
    {"unknown": {"a": [1]}},
]


@pytest.mark.req("IDT-02", "IDT-06", "IDT-07")
@pytest.mark.parametrize("changed", ACCEPTED, ids=str)
def test_a_good_id_token_is_accepted(changed: dict[str, Any]) -> None:
    check(token(id_token(**changed)), CLIENT, nonce="n", at=AT, verified=True)


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("iss", {"iss": "https://as.example/"}),
    ("iss", {"iss": "https://AS.example"}),
    ("iss", {"iss": None}),
    ("iss", {"iss": ["https://as.example"]}),
    ("aud", {"aud": "other"}),
    ("aud", {"aud": ["other"]}),
    ("aud", {"aud": ["cli", "other"]}),
    ("aud", {"aud": []}),
    ("aud", {"aud": None}),
    ("aud", {"aud": {"cli": 1}}),
    ("azp", {"azp": "other"}),
    ("azp", {"azp": 5}),
    ("alg", {"alg": "none"}),
    ("alg", {"alg": "None"}),
    ("alg", {"alg": "HS256"}),
    ("alg", {"alg": "RS1"}),
    ("alg", {"alg": None}),
    ("alg", {"alg": 5}),
    ("alg", {"alg": ["RS256"]}),
    ("alg", {"alg": {"RS256": 1}}),
    ("nonce", {"nonce": None}),
    ("nonce", {"nonce": "other"}),
    ("nonce", {"nonce": ""}),
    ("nonce", {"nonce": ["n"]}),
    ("exp", {"exp": AT - 60}),
    ("exp", {"exp": None}),
    ("exp", {"exp": "later"}),
    ("exp", {"exp": True}),
    ("iat", {"iat": AT + 60.125}),
    ("iat", {"iat": AT + 3600}),
    ("iat", {"iat": None}),
    ("iat", {"iat": "now"}),
    ("iat", {"iat": False}),
    ("iat", {"iat": 10**400}),
    ("at_hash", {"at_hash": "wrong"}),
    ("at_hash", {"at_hash": at_hash("sha256", "another")}),
    ("at_hash", {"alg": "RS512", "at_hash": at_hash("sha256")}),
    ("at_hash", {"at_hash": 5}),
    ("sub", {"sub": None}),
    ("sub", {"sub": ""}),
    ("sub", {"sub": "x" * 256}),
    ("sub", {"sub": 5}),
    ("sub", {"sub": "é"}),
]


@pytest.mark.req("IDT-01", "IDT-02", "IDT-04", "IDT-05", "IDT-06", "IDT-07", "IDT-09", "ERR-07")
@pytest.mark.parametrize(("reason", "changed"), REFUSED, ids=str)
def test_what_is_wrong_with_an_id_token_is_named(reason: str, changed: dict[str, Any]) -> None:
    assert refused(id_token(**changed)) == reason


@pytest.mark.req("IDT-06", "ERR-07")
@pytest.mark.parametrize("exp", [b"9" * 400, b"1e400"], ids=["huge", "infinite"])
def test_an_absurd_expiry_is_no_crash(exp: bytes) -> None:
    """Whether it is accepted does not matter; that there is an answer does."""
    claims = b'{"iss":"https://as.example","aud":"cli","sub":"a","nonce":"n","iat":0,"exp":%b}'
    absurd = compact(b'{"alg":"RS256"}', claims % exp)
    outcome(lambda: check(token(absurd), CLIENT, nonce="n", at=AT, verified=True))


@pytest.mark.req("IDT-03")
def test_over_an_unverified_connection_no_id_token_is_accepted() -> None:
    assert refused(id_token(), verified=False) == "signature"


def test_without_a_nonce_in_the_request_none_is_compared() -> None:
    check(token(id_token(nonce=None)), CLIENT, nonce=None, at=AT, verified=True)
    check(token(id_token(nonce="x")), CLIENT, nonce=None, at=AT, verified=True)


@pytest.mark.req("IDT-01")
def test_without_a_known_issuer_no_id_token_is_accepted() -> None:
    nobody = evolve(CLIENT, server=AuthorizationServer())
    with pytest.raises(InvalidResponse) as raised:
        check(token(id_token(iss=None)), nobody, nonce="n", at=AT, verified=True)
    assert raised.value.reason == "id_token.iss"


@pytest.mark.req("ERR-07")
@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "a",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "..",
        f"{id_token()}.",
        f" {id_token()}",
        f"{id_token()}\n",
        id_token().replace(".", "=.", 1),
        compact(b"[]", b"{}"),
        compact(b'{"alg":"RS256"}', b"[]"),
        compact(b'{"alg":"RS256"}', b"\xff"),
        compact(b'{"alg":"RS256"}', b"[" * 50_000),
        compact(b"{", b"{}"),
        compact(b'{"alg":"none","alg":"RS256"}', b"{}"),
        compact(b'{"alg":"RS256"}', b'{"iss":"https://evil",' + USUAL[1:]),
        compact(b'{"alg":"RS256"}', USUAL[:-1] + b',"sub":"alice"}'),
    ],
)
def test_what_is_not_a_signed_token_is_malformed(text: str | None) -> None:
    assert refused(text) == "malformed"


def refreshed(**changed: Any) -> None:
    check_refreshed(token(id_token(**changed)), id_token(), CLIENT, at=AT)


# At a refresh the nonce may be missing, and all the rest is as at a login.
REFUSED_LATER = [row for row in REFUSED if row[1] != {"nonce": None}]


@pytest.mark.req("IDT-01", "IDT-02", "IDT-04", "IDT-06", "IDT-07", "IDT-08", "IDT-09")
@pytest.mark.parametrize(
    ("reason", "changed"), [*REFUSED_LATER, ("sub", {"sub": "mallory"})], ids=str
)
def test_a_refreshed_id_token_is_checked_like_any_and_is_about_the_same_person(
    reason: str, changed: dict[str, Any]
) -> None:
    with pytest.raises(InvalidResponse) as raised:
        refreshed(**changed)
    assert raised.value.reason == f"id_token.{reason}"
    proper(raised.value)


@pytest.mark.req("IDT-02", "IDT-06", "IDT-07", "IDT-08")
@pytest.mark.parametrize("changed", [x for x in ACCEPTED if "sub" not in x], ids=str)
def test_a_good_refreshed_id_token_is_accepted(changed: dict[str, Any]) -> None:
    refreshed(**changed)


@pytest.mark.req("IDT-08")
def test_a_refreshed_id_token_may_leave_out_the_nonce_and_be_newer() -> None:
    refreshed(nonce=None, iat=AT + 9, exp=AT + 9999)
    check_refreshed(token(id_token()), id_token(exp=1), CLIENT, at=AT)
    with pytest.raises(InvalidResponse) as raised:
        check_refreshed(token(None), id_token(), CLIENT, at=AT)
    assert raised.value.reason == "id_token.malformed"


@pytest.mark.req("IDT-07")
def test_a_hash_may_end_in_any_letter() -> None:
    """Those of 24 octets need no padding, and have all letters for their last one."""
    texts = map(str, range(10_000))
    ends = {at_hash("sha384", text)[-1]: text for text in texts}
    assert len(ends) == 64
    for text in ends.values():
        good = Token(text, 0.0, id_token=id_token("ES384", at_hash=at_hash("sha384", text)))
        check(good, CLIENT, nonce="n", at=AT, verified=True)


@pytest.mark.req("IDT-08")
def test_a_nonce_of_null_is_none() -> None:
    null = compact(b'{"alg":"RS256"}', USUAL.replace(b'"n"', b"null"))
    check_refreshed(token(null), id_token(), CLIENT, at=AT)
    assert refused(null) == "nonce"


def test_what_nobody_reads_may_be_there_twice() -> None:
    twice = compact(b'{"alg":"RS256"}', USUAL[:-1] + b',"groups":["a"],"groups":["b"]}')
    check(token(twice), CLIENT, nonce="n", at=AT, verified=True)
    check_refreshed(token(id_token()), twice, CLIENT, at=AT)


@pytest.mark.parametrize(
    ("claims", "shown"),
    [
        ({"preferred_username": "al", "email": "a@b"}, "al"),
        ({"email": "a@b"}, "a@b"),
        ({}, "alice"),
        ({"sub": None}, None),
        ({"preferred_username": 5}, None),
        ({"preferred_username": "", "email": None}, "alice"),
        ({"preferred_username": "x" * 301}, "x" * 299 + "…"),
    ],
)
def test_whom_a_token_is_about(claims: dict[str, Any], shown: str | None) -> None:
    assert subject(id_token(**claims)) == shown


@pytest.mark.req("ERR-07")
@given(
    st.builds(
        compact,
        strategies.bodies({"alg": "RS256"}),
        strategies.bodies(strategies.CLAIMS),
    )
    | strategies.texts,
    strategies.times,
)
def test_any_bytes_are_an_id_token_or_a_refusal(text: str, at: float) -> None:
    outcome(lambda: check(token(text), CLIENT, nonce="n", at=at, verified=True))
    outcome(lambda: check_refreshed(token(text), id_token(), CLIENT, at=at))
    outcome(lambda: subject(text))


@pytest.mark.parametrize(
    ("exp", "is_one"), [(AT + 60, True), (1e15 - 1, True), (1e15, False), (1e15 + 1, False)]
)
def test_a_time_is_below_ten_to_the_fifteenth(exp: float, is_one: bool) -> None:
    reason = outcome(
        lambda: check(token(id_token(exp=exp)), CLIENT, nonce="n", at=AT, verified=True)
    )
    assert (reason is None) is is_one
