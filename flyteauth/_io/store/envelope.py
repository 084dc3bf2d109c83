"""What a store keeps for a record: the record, and the key that it belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from ..._sansio.errors import StoreError
from ..._sansio.record import Record, load_record

SIZE_MAX: Final = 4 * 1024 * 1024


def seal(key: str, record: Record, place: str) -> str:
    """*record*, secrets included, as text. Raises StoreError if no store should take that much."""
    kept = {"key": key, "record": json.loads(record.dump())}
    text = json.dumps(kept, separators=(",", ":"))
    if len(text) > SIZE_MAX:
        raise StoreError(f"the login is too large for {place}; ask for fewer scopes", reason="full")
    return text


def unseal(key: str, text: str | bytes, place: str) -> Record:
    """The record of *key* in *text*; StoreError (``reason="corrupt"``) if there is none."""
    saved = opened(key, text, place)
    if "record" not in saved:
        raise unreadable(place)
    return load_record(json.dumps(saved["record"]))


def opened(key: str, text: str | bytes, place: str) -> Mapping[str, Any]:
    """What *text* says of *key*; the same StoreError if it says nothing."""
    saved = _read(text)
    if saved.get("key") != key:
        raise unreadable(place)
    return saved


def key_in(text: str | bytes, place: str) -> str:
    """Which key *text* says something of; the same StoreError if of none."""
    key = _read(text).get("key")
    if not isinstance(key, str):
        raise unreadable(place)
    return key


def _read(text: str | bytes) -> Mapping[str, Any]:
    try:
        saved = json.loads(text) if len(text) <= SIZE_MAX else None
    except (ValueError, RecursionError):
        saved = None
    return saved if isinstance(saved, dict) else {}


def unreadable(place: str) -> StoreError:
    return StoreError(
        f"{place} does not hold a login that can be read; log in again", reason="corrupt"
    )
