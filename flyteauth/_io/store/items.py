"""How a record lies in a keyring: whole after any crash, and whatever the keyring takes."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Final

from attrs import asdict, field, frozen

from ..names import constant_length
from .ring import ITEM_MAX, Damaged, Ring, reason_of, unreadable

VERSION: Final = 1
HEADER_MAX: Final = 120
READS_MAX: Final = 3  # of a record that is being replaced meanwhile


@frozen
class Piece:
    """The part of a record that fits into one item."""

    write: str
    """A random name for all pieces that were written together."""
    generation: int
    index: int
    parts: int
    data: str = field(repr=False)

    def dump(self) -> str:
        """One line, with something that is not a space at both ends: some keyrings cut or strip."""
        header = {"version": VERSION, **asdict(self), "length": len(self.data)}
        del header["data"]
        return f"{json.dumps(header, separators=(',', ':'))}{self.data}."


def _parse(text: str | None) -> Piece:
    try:
        header, end = json.JSONDecoder().raw_decode(text or "")
        data = (text or "")[end:-1]
        version, length = header.pop("version"), header.pop("length")
        piece = Piece(**header, data=data)
        numbers = (version, length, piece.generation, piece.index, piece.parts)
        valid = all(type(number) is int for number in numbers)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        valid = False
    if not valid or (version, length) != (VERSION, len(data)) or piece.generation not in {0, 1}:
        raise unreadable()
    return piece


@frozen
class Found:
    """A record in its pieces; without ``first`` there is none. ``copy``: only its copy is left."""

    first: Piece | None = None
    text: str = field(default="", repr=False)
    copy: bool = False


class Items:
    """One record in the keyring, of which a crash between any two calls leaves old or new.

    The item with the name of the record holds its first piece; it is the only one where the
    keyring takes long items. Further pieces are ``<name>/<generation>/<index>``, of generation
    0 or 1. A write puts its further pieces beside the old ones under the other generation, then
    its first piece into ``<name>/copy``, then over the old first piece: only that makes it count.
    Some keyrings replace an item by deleting it and adding another; in between there is the copy.
    """

    def __init__(self, ring: Ring, key: str) -> None:
        self._ring = ring
        self._name = constant_length(key)
        self._copy = f"{self._name}/copy"

    def read(self) -> Found:
        """What is there; Damaged if that cannot be read."""
        get, seen = self._ring.get, None
        for _ in range(READS_MAX):
            copy = False
            # If neither is there the first may have come back before the copy went.
            if (text := get(self._name)) is None:
                copy = (text := get(self._copy)) is not None
                if text is None and (text := get(self._name)) is None:
                    return Found()
            try:
                first = _parse(text)
            except Damaged:
                if copy:  # of a login that was never completed
                    return Found()
                raise
            data = [first.data]
            for index in range(1, first.parts):
                found = get(self._at(first.generation, index))
                if found is None:
                    break
                piece = _parse(found)
                if (piece.write, piece.index) != (first.write, index):
                    break
                data.append(piece.data)
            else:
                return Found(first, "".join(data), copy)
            if text == seen:
                break
            seen = text  # another process may be replacing it
        raise unreadable()

    def write(self, text: str, before: Found) -> None:
        """Replace what is there, which is *before*; nothing is written if it is the same."""
        if before.first is not None and before.text == text and not before.copy:
            return
        short = ITEM_MAX - HEADER_MAX
        if self._ring.takes_long_items and len(text) > short:
            try:
                self._write(text, len(text), before)
                return
            except Exception as error:  # they raise anything for too long an item
                if reason_of(error) in {"locked", "missing"}:
                    raise
            try:
                before = self.read()
            except Damaged:
                before = Found()
        self._write(text, short, before)

    def _write(self, text: str, size: int, before: Found) -> None:
        ring, first = self._ring, before.first
        if first is not None and before.copy:
            ring.set(self._name, first.dump())  # or overwriting the copy could lose it
        generation = 0 if first is None else 1 - first.generation
        with suppress(Exception):  # what a killed writer left
            self._clear(generation)
            if first is None:
                self._clear(1 - generation)
        new, *further = _split(text, size, generation)
        for piece in further:
            ring.prove(self._at(generation, piece.index), piece.dump())
        ring.prove(self._copy, new.dump())
        ring.set(self._name, new.dump())
        with suppress(Exception):  # it is kept; the next write cleans up
            ring.drop(self._copy)
        if first is not None:
            with suppress(Exception):
                self._remove(first.generation, first.parts)

    def delete(self) -> None:
        """The copy first, or it would be found once the first piece is gone."""
        self._ring.remove(self._copy)
        self._ring.remove(self._name)
        for generation in (0, 1):
            self._clear(generation)

    def _clear(self, generation: int) -> None:
        """Remove further pieces, of which there may be any number."""
        end = 1
        while self._ring.get(self._at(generation, end)) is not None:
            end += 1
        self._remove(generation, end)

    def _remove(self, generation: int, end: int) -> None:
        """The last first: what is left if this is cut short can be counted."""
        for index in reversed(range(1, end)):
            self._ring.drop(self._at(generation, index))

    def _at(self, generation: int, index: int) -> str:
        return f"{self._name}/{generation}/{index}"


def _split(text: str, size: int, generation: int) -> list[Piece]:
    write = os.urandom(8).hex()
    starts = range(0, len(text), size)
    return [
        Piece(write, generation, index, len(starts), text[start : start + size])
        for index, start in enumerate(starts)
    ]
