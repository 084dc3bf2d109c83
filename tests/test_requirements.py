"""The requirements are all there, and tests name only what exists."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from .requirements import REQUIREMENTS, SECTIONS, Claim, claims, report


def test_there_are_219_requirements_numbered_without_gaps() -> None:
    assert len(REQUIREMENTS) == 219
    sizes = Counter(name.rpartition("-")[0] for name in REQUIREMENTS)
    assert sizes.keys() == SECTIONS.keys()
    assert list(REQUIREMENTS) == [
        f"{section}-{number:02}" for section in SECTIONS for number in range(1, sizes[section] + 1)
    ]


def test_every_marker_names_a_requirement_that_exists() -> None:
    assert [claim for claim in claims() if claim.requirement not in REQUIREMENTS] == []


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


def test_the_report_counts_what_has_a_test() -> None:
    lines = list(report())
    proved = {claim.requirement for claim in claims()}
    assert lines[0] == f"{len(proved)} of 219 requirements have a test."
    assert sum("✓" in line for line in lines) == len(proved)
