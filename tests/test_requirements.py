"""Every requirement is proved, waived with a reason, or of something that is not built."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from .requirements import (
    REQUIREMENTS,
    SECTIONS,
    Claim,
    Requirement,
    claims,
    faults,
    main,
    read,
    report,
    standing,
)

ROWS = """\
## Not built

| | what it is |
|---|---|
| B | the second half |
| A-03 | the third thing |

## Waived

| | why |
|---|---|
| A-02 | nobody can |

## A: the first half

| | level | |
|---|---|---|
| A-01 | MUST ‡ | one |
| A-02 | ROBUST ‡† | two |
| A-03 | MUST | three |
| A-04 | SHOULD | four |

## B: the second half

| | level | |
|---|---|---|
| B-01 | MUST † | five |
"""


def test_there_are_219_requirements_numbered_without_gaps() -> None:
    assert len(REQUIREMENTS) == 219
    sizes = Counter(row.section for row in REQUIREMENTS.values())
    assert sizes.keys() == SECTIONS.keys()
    assert list(REQUIREMENTS) == [
        f"{section}-{number:02}" for section in SECTIONS for number in range(1, sizes[section] + 1)
    ]
    levels = Counter(row.level for row in REQUIREMENTS.values())
    assert levels == {"MUST": 123, "ROBUST": 78, "SHOULD": 15, "MAY": 3}


def test_every_must_and_robust_has_a_test_or_a_reason_and_every_test_names_a_row() -> None:
    assert list(faults(REQUIREMENTS, SECTIONS, claims())) == []


def test_every_reason_is_for_a_row_or_a_section_that_exists() -> None:
    text = (Path(__file__).parent / "requirements.md").read_text("utf-8")
    excuses = [
        line.split(" | ")[0].removeprefix("| ")
        for line in text.partition("## Not built")[2].partition("\n## META")[0].splitlines()
        if line.startswith("| ") and not line.startswith("| |")
    ]
    assert excuses
    assert [name for name in excuses if name not in REQUIREMENTS and name not in SECTIONS] == []


def test_rows_are_read_with_their_levels_marks_and_reasons() -> None:
    sections, rows = read(ROWS)
    assert sections == {"A": "the first half", "B": "the second half"}
    assert list(rows.values()) == [
        Requirement("A-01", "MUST", gain=True, ours=False, text="one"),
        Requirement("A-02", "ROBUST", True, True, "two", "waived", "nobody can"),
        Requirement("A-03", "MUST", False, False, "three", "not built", "the third thing"),
        Requirement("A-04", "SHOULD", False, False, "four"),
        Requirement("B-01", "MUST", False, True, "five", "not built", "the second half"),
    ]


@pytest.mark.parametrize(
    ("claimed", "fault"),
    [
        (["A-01"], None),
        (["A-01", "A-04"], None),
        (["A-04"], "A-01 (MUST) has no test, and no reason for that: one"),
        (["A-01", "A-02"], "A-02 is said to be waived, and the test proves it"),
        (["A-01", "B-01"], "B-01 is said to be not built, and the test proves it"),
        (["A-01", "C-01"], "the test names C-01, which is no requirement"),
    ],
)
def test_what_is_wrong_is_named(claimed: list[str], fault: str | None) -> None:
    sections, rows = read(ROWS)
    found = list(faults(rows, sections, [Claim(name, "the test") for name in claimed]))
    assert found == ([] if fault is None else [fault])


def test_markers_are_found_on_tests_classes_and_rows_of_tables(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        'pytestmark = pytest.mark.req("A-1")\n'
        '@pytest.mark.req("A-2", "A-3")\n'
        "async def test_one(): pass\n"
        '@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.req("A-4"))])\n'
        "def test_two(x): pass\n"
        "class TestThree:\n"
        "    @pytest.mark.req(NAME)\n"
        "    def test_four(self): pass\n"
    )
    where = f"{tmp_path.name}/test_it.py"
    assert list(claims(tmp_path)) == [
        Claim("A-1", where),
        Claim("A-2", f"{where}::test_one"),
        Claim("A-3", f"{where}::test_one"),
        Claim("A-4", f"{where}::test_two"),
        Claim("NAME", f"{where}::TestThree::test_four"),
    ]


@pytest.mark.parametrize(
    ("source", "void"),
    [
        ("@pytest.mark.skip\n@REQ\ndef test_one(): pass", "is skipped"),
        ("@REQ\n@pytest.mark.skip(reason='later')\nasync def test_one(): pass", "is skipped"),
        ("@REQ\n@pytest.mark.skipif(True, reason='later')\ndef test_one(): pass", "is skipped"),
        ("@REQ\n@pytest.mark.skipif(WINDOWS, reason='a shell')\ndef test_one(): pass", ""),
        ("@REQ\n@pytest.mark.xfail\ndef test_one(): pass", "is skipped"),
        ("@REQ\n@pytest.mark.xfail(reason='broken')\ndef test_one(): pass", "is skipped"),
        ("@REQ\n@pytest.mark.xfail(WINDOWS, reason='a shell')\ndef test_one(): pass", ""),
        ("@REQ\n@pytest.mark.xfail(condition=WINDOWS)\ndef test_one(): pass", ""),
        ("@REQ\ndef test_one():\n    pytest.skip('later')", "is skipped"),
        ("@REQ\ndef test_one():\n    if WINDOWS:\n        pytest.skip('a shell')", ""),
        ("pytestmark = pytest.mark.skip\n@REQ\ndef test_one(): pass", "is skipped"),
        ("pytestmark = [ANY, pytest.mark.skip()]\n@REQ\ndef test_one(): pass", "is skipped"),
        ("pytestmark = [pytest.mark.anyio, REQ]\ndef test_one(): pass", ""),
        ("@pytest.mark.skip\nclass TestOne:\n @REQ\n def test_one(self): pass", "is skipped"),
        ("class TestOne:\n __test__ = False\n @REQ\n def test_one(self): pass", "is skipped"),
        (
            "@parametrize('x', [param(1, marks=[REQ, pytest.mark.skip])])\ndef test_one(): pass",
            "is skipped",
        ),
        ("@parametrize('x', [param(1, marks=REQ)])\ndef test_one(): pass", ""),
        ("@REQ\ndef check_one(): pass", "is not collected"),
        ("@REQ\nclass One:\n    def test_one(self): pass", "is not collected"),
        ("class One:\n    @REQ\n    def test_one(self): pass", "is not collected"),
        ("@REQ\nclass TestOne:\n    def test_one(self): pass", ""),
        (
            "class TestOne:\n    def __init__(self): pass\n    @REQ\n    def test_one(self): pass",
            "is not collected",
        ),
        ("class TestOne:\n    @REQ\n    def one(self): pass", "is not collected"),
        ("class One(unittest.TestCase):\n    @REQ\n    def test_one(self): pass", ""),
        ("def test_one():\n    @REQ\n    def test_two(): pass", "is not collected"),
        ("if WINDOWS:\n    @REQ\n    def test_one(): pass", ""),
        ("TestOne = REQ(Machine.TestCase)", ""),
        ("One = REQ(Machine.TestCase)", "is not collected"),
        ("@REQ\nclass Machine: pass\nTestOne = Machine.TestCase", ""),
        ("class Machine:\n    @REQ\n    def rule(self): pass\nTestOne = Machine.TestCase", ""),
        (
            "class Machine:\n    @REQ\n    def rule(self): pass\nOne = Machine.TestCase",
            "is not collected",
        ),
    ],
)
def test_a_test_that_never_runs_proves_nothing(tmp_path: Path, source: str, void: str) -> None:
    (tmp_path / "test_it.py").write_text(source.replace("REQ", 'pytest.mark.req("A-01")') + "\n")
    (claim,) = claims(tmp_path)
    assert (claim.requirement, claim.void) == ("A-01", void)
    sections, rows = read(ROWS)
    assert list(faults(rows, sections, [claim])) == (
        [
            f"{claim.test} names A-01, and {void}",
            "A-01 (MUST) has no test, and no reason for that: one",
        ]
        if void
        else []
    )


def test_the_table_counts_what_has_a_test(capsys: pytest.CaptureFixture[str]) -> None:
    proved = {claim.requirement for claim in claims()}
    lines = list(report())
    assert sum(line.startswith("  ✓") for line in lines) == len(proved)
    assert lines[-2].startswith(f"Of 219 requirements: {len(proved)} proved, ")
    binding = [row for row in REQUIREMENTS.values() if standing(row, proved) == "open"]
    assert {row.level for row in binding} <= {"SHOULD", "MAY"}
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines() == lines


def test_the_table_can_name_the_tests() -> None:
    lines = [line.strip() for line in report(tests=True)]
    assert {claim.test for claim in claims()} <= set(lines)
