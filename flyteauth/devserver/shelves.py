"""What a control plane keeps from one start to the next: by kind and key, as bytes.

Pure: it only remembers what has changed, and whoever has a disk writes that down.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from attrs import field, frozen


@frozen
class Thing:
    """One thing that is kept; without a value it is one that is gone."""

    kind: str
    key: str
    value: bytes | None = field(repr=False)


class Shelves:
    """Things of several kinds, each kind in the order in which they came.

    *recording*: somebody asks for the changes from time to time.
    """

    def __init__(self, things: Iterable[Thing] = (), *, recording: bool = False) -> None:
        self._kept: dict[str, dict[str, bytes]] = {}
        self._recording = recording
        self._changed: dict[tuple[str, str], None] = {}
        for thing in things:
            if thing.value is not None:
                self._kept.setdefault(thing.kind, {})[thing.key] = thing.value

    def __repr__(self) -> str:
        counts = ", ".join(f"{kind}: {len(kept)}" for kind, kept in self._kept.items())
        return f"{type(self).__name__}({counts})"

    def keys(self, kind: str) -> tuple[str, ...]:
        return tuple(self._kept.get(kind, ()))

    def count(self, kind: str) -> int:
        return len(self._kept.get(kind, ()))

    def get(self, kind: str, key: str) -> bytes | None:
        return self._kept.get(kind, {}).get(key)

    def put(self, kind: str, key: str, value: bytes) -> None:
        self._kept.setdefault(kind, {})[key] = value
        self._note(kind, key)

    def drop(self, kind: str, key: str) -> None:
        if self._kept.get(kind, {}).pop(key, None) is not None:
            self._note(kind, key)

    def _note(self, kind: str, key: str) -> None:
        if self._recording:
            self._changed[kind, key] = None

    # The same for what is JSON.

    def documents(self, kind: str) -> list[Any]:
        return [json.loads(value) for value in self._kept.get(kind, {}).values()]

    def document(self, kind: str, key: str) -> Any | None:
        value = self.get(kind, key)
        return None if value is None else json.loads(value)

    def put_document(self, kind: str, key: str, document: object) -> None:
        self.put(kind, key, json.dumps(document, separators=(",", ":")).encode())

    def changes(self) -> list[Thing]:
        """What has changed since this was asked last, each thing as it is now."""
        changed, self._changed = self._changed, {}
        return [Thing(kind, key, self.get(kind, key)) for kind, key in changed]

    def unwritten(self, things: Iterable[Thing]) -> None:
        """*things* could not be written down: they count as changed still."""
        before, self._changed = self._changed, {(thing.kind, thing.key): None for thing in things}
        self._changed |= before
