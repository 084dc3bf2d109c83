"""What a store keeps of a login: the token, and where it came from."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from .errors import StoreError
from .token import Token
from .value import Value

T = TypeVar("T")

VERSION: Final = 1
# What the first records did not have.
_NEWER: Final[Mapping[str, object]] = {
    "login": None,
    "forced_at": None,
    "generation": 0,
    "shared": [],
}


class Record(Value):
    """One login. Its refresh token goes only to the token endpoint that it came from, for the
    client that it was issued to (RFC 6749 §10.4).

    ``header`` carries the token to the control plane, ``authentication`` is how the client proves
    itself to the server, and ``subject`` is whom the login is of, to be shown. ``login`` is a
    random name for the login that the record goes back to, and ``generation`` counts the refreshes
    since. ``forced_at``: when one of them was last made because a server had rejected the token.

    ``shared`` has a line for each place where another tool has this login as well: the tool, its
    address there, and the trace of the refresh token that was last seen there (see
    keyring_layouts), or None if nobody has looked.
    """

    token: Token
    token_endpoint: str
    client_id: str
    header: str = "authorization"
    issuer: str | None = None
    revocation_endpoint: str | None = None
    authentication: str | None = None
    subject: str | None = None
    login: str | None = None
    forced_at: float | None = None
    generation: int = 0
    shared: tuple[tuple[str, str, str | None], ...] = ()

    def dump(self) -> str:
        """Everything, secrets included, as JSON."""
        members = {"version": VERSION, **vars(self), "token": vars(self.token)}
        if not self.shared:
            del members["shared"]  # most are not
        return json.dumps(members)


def load_record(text: str) -> Record:
    """The record in *text*; StoreError (``reason="corrupt"``) if there is none."""
    try:
        saved = json.loads(text)
        version = saved.pop("version")
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        version = None
    if version != VERSION:
        raise StoreError(
            "the stored login is damaged or was written by another version; log in again",
            reason="corrupt",
        )
    try:
        members = _members(_RECORD, {**_NEWER, **saved})
    except (OverflowError, TypeError):
        members = {}
    if not members:
        raise StoreError("the stored login is damaged; log in again", reason="corrupt")
    return Record(**members)


# What each member has to be. JSON's true is no number here, and no time is infinite.


def _text(saved: object) -> str:
    return _only(str, saved)


def _time(saved: object) -> float:
    time = float(saved) if type(saved) is int else _only(float, saved)
    if not math.isfinite(time):
        raise TypeError
    return time


def _count(saved: object) -> int:
    return _only(int, saved)


def _texts(saved: object) -> tuple[str, ...]:
    return tuple(map(_text, _only(list, saved)))


def _shared(saved: object) -> tuple[tuple[str, str, str | None], ...]:
    return tuple(map(_line, _only(list, saved)))


def _line(saved: object) -> tuple[str, str, str | None]:
    line = _only(list, saved)
    if len(line) != 3:
        raise TypeError
    return _text(line[0]), _text(line[1]), _or_none(_text)(line[2])


def _or_none(read: Callable[[object], T]) -> Callable[[object], T | None]:
    return lambda saved: None if saved is None else read(saved)


def _token(saved: object) -> Token:
    return Token(**_members(_TOKEN, saved))


def _only(kind: type[T], saved: object) -> T:
    if type(saved) is not kind:
        raise TypeError
    return saved


_TOKEN: Final[Mapping[str, Callable[[object], object]]] = {
    "access_token": _text,
    "obtained_at": _time,
    "expires_at": _or_none(_time),
    "refresh_token": _or_none(_text),
    "id_token": _or_none(_text),
    "scopes": _texts,
}
_RECORD: Final[Mapping[str, Callable[[object], object]]] = {
    "token": _token,
    "token_endpoint": _text,
    "client_id": _text,
    "header": _text,
    "issuer": _or_none(_text),
    "revocation_endpoint": _or_none(_text),
    "authentication": _or_none(_text),
    "subject": _or_none(_text),
    "login": _or_none(_text),
    "forced_at": _or_none(_time),
    "generation": _count,
    "shared": _shared,
}


def _members(kinds: Mapping[str, Callable[[object], object]], saved: object) -> dict[str, Any]:
    """What *saved* has under the names of *kinds*; TypeError if that is not exactly all."""
    members: dict[str, object] = _only(dict, saved)
    if members.keys() != kinds.keys():
        raise TypeError
    return {name: kinds[name](value) for name, value in members.items()}


def is_same(one: Record | None, other: Record | None) -> bool:
    """Whether two records hold the same tokens, or both are none."""
    if one is None or other is None:
        return one is other
    return (one.token.access_token, one.token.refresh_token) == (
        other.token.access_token,
        other.token.refresh_token,
    )
