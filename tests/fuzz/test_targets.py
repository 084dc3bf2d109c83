"""Each target with the inputs that are kept for it, with variations of them, and with large ones."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings, strategies as st

from flyteauth._sansio.errors import InvalidResponse

from . import corpus
from .__main__ import why
from .properties import proper
from .targets import TARGETS

every_target = pytest.mark.parametrize("name", sorted(TARGETS))
SECONDS_MAX = 3.0  # of the processor, for LARGE bytes
LARGE = 200_000
# PyYAML takes 10 µs for a byte, and the keyboard is also fed byte by byte.
LESS_LARGE = {"config_file": 8_000, "keyboard": 40_000}
PATTERNS = (
    b"a",
    b"a,",
    b"a ",
    b'a b="',
    b"\\",
    b'"',
    b"(",
    b"[",
    b".",
    b"%",
    b"&",
    b"\x1b[",
    b"\n",
)


@pytest.mark.req("ERR-07", "CBK-18", "SEC-02")
@every_target
def test_what_is_kept_breaks_nothing(name: str) -> None:
    for data in corpus.inputs(name):
        TARGETS[name](data)


@pytest.mark.req("ERR-01", "ERR-07", "CBK-18")
@every_target
def test_variations_of_what_is_kept_break_nothing(name: str) -> None:
    kept = st.sampled_from(corpus.inputs(name))
    target = TARGETS[name]

    @given(st.one_of(st.binary(), st.builds(_varied, kept, kept, st.data())))
    @settings(max_examples=60)
    def holds(data: bytes) -> None:
        target(data)

    holds()


def _varied(one: bytes, other: bytes, data: st.DataObject) -> bytes:
    """*one* with a stretch of it replaced by a stretch of *other* or by anything."""
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(one))] * 2)))
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(other))] * 2)))
    between = data.draw(st.just(other[first:last]) | st.binary(max_size=8))
    return one[:start] + between + one[end:]


@every_target
def test_a_large_input_takes_no_longer_than_its_size(name: str) -> None:
    """Whatever grows with the square of its input takes minutes here."""
    kept = max(corpus.inputs(name), key=len)
    size = LESS_LARGE.get(name, LARGE)
    for pattern in (*PATTERNS, kept):
        data = kept + pattern * (size // len(pattern))
        begun = time.process_time()
        TARGETS[name](data)
        assert time.process_time() - begun < SECONDS_MAX, pattern


def test_the_corpus_is_small_and_has_nothing_twice() -> None:
    assert {path.stem for path in corpus.DIRECTORY.iterdir()} == set(TARGETS)
    for name in TARGETS:
        inputs = corpus.inputs(name)
        assert 5 < len(inputs) <= corpus.COUNT_MAX
        assert len(set(inputs)) == len(inputs)
        assert max(map(len, inputs)) < corpus.SIZE_MAX


@pytest.mark.parametrize(
    "error",
    [
        InvalidResponse("nothing to do about it"),
        InvalidResponse("canary-4711; do it"),
        InvalidResponse("x" * 3000 + "; do it"),
    ],
    ids=["no advice", "secret", "long"],
)
def test_an_error_that_is_not_proper_is_told_apart(error: InvalidResponse) -> None:
    with pytest.raises(AssertionError):
        proper(error, b"canary-4711")


def test_new_inputs_are_kept_once_and_only_short_ones(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "DIRECTORY", tmp_path)
    assert corpus.keep("t", [b"a\n\xff", b"b", b"x" * corpus.SIZE_MAX]) == 2
    assert corpus.keep("t", [b"b"]) == 0
    assert corpus.inputs("t") == [b"a\n\xff", b"b"]


SAID = """
 === Uncaught Python exception: ===
AssertionError: seven
Traceback (most recent call last):
  File "/src/tests/fuzz/targets/people.py", line 149, in api_key
    assert False
AssertionError: seven

==22696== ERROR: libFuzzer: fuzz target exited
artifact_prefix='here/'; Test unit written to here/api_key-crash-3
"""


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            SAID,
            "AssertionError: seven (/src/tests/fuzz/targets/people.py, line 149) here/api_key-crash-3",
        ),
        ("==7== ERROR: libFuzzer: timeout after 5 seconds\n", "libFuzzer: timeout after 5 seconds"),
        ("killed", "exit status 77"),
    ],
    ids=["raised", "stopped", "unknown"],
)
def test_what_breaks_a_target_is_one_line(said: str, reason: str) -> None:
    assert why(said, 77) == reason
