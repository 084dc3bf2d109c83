"""What a store keeps of a login."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, strategies as st

from flyteauth._sansio.errors import StoreError
from flyteauth._sansio.record import VERSION, Record, is_same, load_record
from flyteauth._sansio.tokens import Token

from . import strategies

RECORD = Record(
    token=Token("canary", 100.0, 3700.5, "canary", "canary", ("all", "offline")),
    token_endpoint="https://as.example/token",
    client_id="flytectl",
    issuer="https://as.example",
    revocation_endpoint="https://as.example/revoke",
    subject="alice \x1b",
)
SAVED = json.loads(RECORD.dump())


def test_a_record_survives_being_stored() -> None:
    assert load_record(RECORD.dump()) == RECORD
    least = Record(Token("a", 0.0), "https://as/t", "cli")
    assert load_record(least.dump()) == least


def test_a_record_that_nobody_shares_says_nothing_of_it() -> None:
    assert "shared" not in SAVED
    shared = RECORD.replace(shared=(("flyte", "h", "trace"), ("flytekit", "h", None)))
    assert load_record(shared.dump()) == shared
    assert shared != RECORD
    assert is_same(shared, RECORD)


@pytest.mark.parametrize("shared", [None, {}, ["flyte"], [["flyte", "h"]], [["flyte", "h", 1]]])
def test_a_record_that_is_shared_in_an_odd_way_is_corrupt(shared: object) -> None:
    with pytest.raises(StoreError) as caught:
        load_record(json.dumps({**SAVED, "shared": shared}))
    assert caught.value.reason == "corrupt"


NEWER = {"login", "forced_at", "generation"}


def test_a_record_of_the_first_version_is_still_a_record() -> None:
    first = {name: value for name, value in SAVED.items() if name not in NEWER}
    assert load_record(json.dumps(first)) == RECORD


def test_records_are_the_same_if_their_tokens_are() -> None:
    named = RECORD.replace(subject="bob", forced_at=1.0)
    another = RECORD.replace(token=RECORD.token.replace(access_token="another"))
    rotated = RECORD.replace(token=RECORD.token.replace(refresh_token="another"))
    assert is_same(RECORD, named)
    assert is_same(None, None)
    assert not any(is_same(RECORD, other) for other in (None, another, rotated))
    assert not is_same(None, RECORD)


@pytest.mark.req("CLK-03")
def test_times_are_stored_as_absolute_times() -> None:
    assert SAVED["token"]["obtained_at"] == 100.0
    assert SAVED["token"]["expires_at"] == 3700.5


@pytest.mark.req("SEC-01")
def test_a_record_does_not_show_its_secrets() -> None:
    assert "canary" not in repr(RECORD)


@pytest.mark.req("SEC-02")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        "5",
        '"canary"',
        RECORD.dump()[:-1],
        "[" * 100_000,
        json.dumps({**SAVED, "version": VERSION + 1}),
        json.dumps({**SAVED, "version": None}),
        json.dumps({name: value for name, value in SAVED.items() if name != "version"}),
        json.dumps({name: value for name, value in SAVED.items() if name != "client_id"}),
        json.dumps({**SAVED, "unknown": 1}),
        json.dumps({**SAVED, "client_id": 5}),
        json.dumps({**SAVED, "generation": True}),
        json.dumps({**SAVED, "generation": 1.0}),
        json.dumps({**SAVED, "forced_at": False}),
        json.dumps({**SAVED, "token": {**SAVED["token"], "unknown": 1}}),
        json.dumps({**SAVED, "token": None}),
        json.dumps({**SAVED, "token": {**SAVED["token"], "scopes": [1]}}),
        json.dumps({**SAVED, "token": {**SAVED["token"], "scopes": "all"}}),
        json.dumps({**SAVED, "token": {**SAVED["token"], "obtained_at": "soon"}}),
        json.dumps({**SAVED, "token": {**SAVED["token"], "obtained_at": True}}),
        json.dumps({**SAVED, "token": {**SAVED["token"], "obtained_at": 10**400}}),
        json.dumps({**SAVED, "token": {**SAVED["token"], "obtained_at": None}}),
    ],
)
def test_a_damaged_record_is_called_damaged_and_not_shown(text: str) -> None:
    with pytest.raises(StoreError, match="log in again") as raised:
        load_record(text)
    assert raised.value.reason == "corrupt"
    assert "canary" not in str(raised.value)


def test_a_damaged_record_is_refused_where_assertions_are_off() -> None:
    program = """
import json, sys
from flyteauth._sansio.errors import StoreError
from flyteauth._sansio.record import load_record
for text in json.load(sys.stdin):
    try:
        sys.exit(f"accepted {load_record(text)}")
    except StoreError:
        pass
"""
    damages: list[dict[str, object]] = [
        {"client_id": 5},
        {"token": None},
        {"token": {**SAVED["token"], "obtained_at": True}},
        {"token": {**SAVED["token"], "scopes": "all"}},
    ]
    damaged = [json.dumps({**SAVED, **damage}) for damage in damages]
    run = subprocess.run(
        [sys.executable, "-O", "-c", program],
        input=json.dumps(damaged),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.req("CLK-03")
@pytest.mark.parametrize("time", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_a_stored_time_is_a_finite_number(time: str) -> None:
    text = RECORD.dump().replace("3700.5", time)
    assert text != RECORD.dump()
    with pytest.raises(StoreError):
        load_record(text)


def test_a_whole_number_is_a_time_as_well() -> None:
    assert load_record(RECORD.dump().replace("100.0", "100")) == RECORD


@pytest.mark.req("ERR-07")
@given(strategies.bodies(SAVED, SAVED["token"]) | st.binary())
def test_any_bytes_are_a_record_or_damaged(body: bytes) -> None:
    text = body.decode("utf-8", "replace")
    try:
        record = load_record(text)
    except StoreError:
        return
    assert load_record(record.dump()) == record
