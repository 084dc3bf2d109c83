"""What a person types or pastes becomes lines, however it is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from flyteauth._io.keys import LONGEST, Typed


def typed(*pieces: bytes) -> tuple[list[str], int, bool]:
    line = Typed()
    lines = [done for piece in pieces for done in line.feed(piece)]
    return lines, len(line), line.ended


@pytest.mark.parametrize(
    ("data", "lines", "left"),
    [
        (b"code\n", ["code"], 0),
        (b"code\r", ["code"], 0),
        (b"\r\n\n", [], 0),
        (b"one\rtwo\nthree", ["one", "two"], 5),
        (b"coxe\x7f\x7fde\n", ["code"], 0),
        (b"\x7f\x08code\n", ["code"], 0),
        ("aé\x7fb\n".encode(), ["ab"], 0),
        (b"wrong\x15code\n", ["code"], 0),
        (b"\x1b[200~https://a/\nb\r\x1b[201~", [], 11),
        (b"\x1b[200~https://a/\nb\r\x1b[201~\r", ["https://a/b"], 0),
        (b"\x1b[A\x1b[1;5Dco\x1bOPde\x1bx\n", ["code"], 0),
        (b"a\x00\x01b\n", ["ab"], 0),
        (b"\xff\xfe\n", ["��"], 0),
        ("grün".encode(), [], 4),
    ],
)
def test_keys_do_what_they_do_at_any_prompt(data: bytes, lines: list[str], left: int) -> None:
    assert typed(data) == (lines, left, False)
    assert typed(*(bytes([byte]) for byte in data)) == (lines, left, False)


def test_ctrl_d_ends_the_reading() -> None:
    assert typed(b"co\x04de\n") == ([], 2, True)


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    lines, _, _ = typed(b"x" * (LONGEST + 100), b"\n")
    assert lines == ["x" * LONGEST]


@given(st.lists(st.binary(max_size=20) | st.sampled_from([b"\x1b[200~", b"\x1b[", b"\x1b", b"\n"])))
def test_any_bytes_in_any_pieces_are_the_same_lines(pieces: list[bytes]) -> None:
    assert typed(*pieces) == typed(b"".join(pieces))
