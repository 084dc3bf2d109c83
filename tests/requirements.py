"""
What an OAuth 2 client has to do, and which of it is proved by a test.

The rows are in ``requirements.md``, with their levels, what is not built and what is waived. A test
names what it proves: ``@pytest.mark.req("DEV-07")``. ``python -m tests.requirements`` prints the
table; ``--tests`` names the tests, too.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, get_args

from attrs import frozen

TESTS: Final = Path(__file__).parent

Level = Literal["MUST", "SHOULD", "MAY", "ROBUST"]
Standing = Literal["proved", "waived", "not built", "open"]

BINDING: Final[frozenset[Level]] = frozenset({"MUST", "ROBUST"})
"""The levels that a test has to prove."""

_MARKS: Final[Mapping[Standing, str]] = {
    "proved": "✓",
    "waived": "~",
    "not built": "·",
    "open": "✗",
}


@frozen
class Requirement:
    """One row. ``gain`` (‡): flyte's own SDK was seen to do otherwise. ``ours`` (†): no RFC decides
    it. ``reason`` says why it is waived or what is not built, where it is either.
    """

    name: str
    level: Level
    gain: bool
    ours: bool
    text: str
    without_test: Literal["waived", "not built"] | None = None
    reason: str = ""

    @property
    def section(self) -> str:
        return self.name.partition("-")[0]


def read(text: str) -> tuple[dict[str, str], dict[str, Requirement]]:
    """The sections and the rows of ``requirements.md``."""
    sections: dict[str, str] = {}
    rows: dict[str, Requirement] = {}
    excused: dict[str, tuple[Literal["waived", "not built"], str]] = {}
    below: Literal["waived", "not built"] | None = None
    for line in text.splitlines():
        if heading := re.fullmatch(r"## (?:([A-Z]+): )?(.+)", line):
            below = {"Not built": "not built", "Waived": "waived"}.get(heading[2])  # type: ignore[assignment]
            if heading[1]:
                sections[heading[1]] = heading[2]
        elif below and (cells := re.fullmatch(r"\| ([A-Z]+(?:-\d\d)?) \| (.+) \|", line)):
            excused[cells[1]] = below, cells[2]
        elif cells := re.fullmatch(r"\| ([A-Z]+-\d\d) \| ([A-Z]+) ?(‡?†?) \| (.+) \|", line):
            name, word, marks, said = cells.groups()
            without, reason = excused.get(name) or excused.get(name[:-3]) or (None, "")
            (level,) = (level for level in get_args(Level) if level == word)
            assert name not in rows, line
            rows[name] = Requirement(name, level, "‡" in marks, "†" in marks, said, without, reason)
    return sections, rows


SECTIONS, REQUIREMENTS = read((TESTS / "requirements.md").read_text("utf-8"))


@frozen
class Claim:
    """A test says that it proves a requirement. ``void`` says why it does not: it never runs."""

    requirement: str
    test: str
    void: str = ""


def claims(root: Path = TESTS) -> Iterator[Claim]:
    """Every ``pytest.mark.req(...)`` in the test files, read without importing them."""
    for path in sorted(root.rglob("test_*.py")):
        module = ast.parse(path.read_text("utf-8"))
        where = path.relative_to(root.parent).as_posix()
        void = "is skipped" if _skips_itself(module) else ""
        yield from _claims(module, where, void, _machines(module))


def _claims(node: ast.AST, where: str, void: str, machines: frozenset[str]) -> Iterator[Claim]:
    """The claims below *node*, which is not run for the reason *void*, if any."""
    if isinstance(node, ast.Call):
        if _marker(node.func) == "req":
            for argument in node.args:
                constant = isinstance(argument, ast.Constant)
                named = argument.value if constant else ast.unparse(argument)  # type: ignore[attr-defined]
                yield Claim(str(named), where, void)
        elif any(_is_skip(mark) for word in node.keywords for mark in _marks(word.value)):
            void = void or "is skipped"  # a row of a table
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _DEFINITION):
            why = void or _why_never_run(child, node, machines)
            yield from _claims(child, f"{where}::{child.name}", why, machines)
        elif isinstance(child, ast.Assign) and not void and _names_no_test(child):
            yield from _claims(child, where, _UNCOLLECTED, machines)
        else:
            yield from _claims(child, where, void, machines)


_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_DEFINITION: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_UNCOLLECTED: Final = "is not collected"


def _why_never_run(node: _Definition, within: ast.AST, machines: frozenset[str]) -> str:
    """Why pytest does not run what is defined, or ""."""
    if any(map(_is_skip, node.decorator_list)) or _skips_itself(node):
        return "is skipped"
    if node.name in machines or (isinstance(within, ast.ClassDef) and within.name in machines):
        return ""  # Hypothesis runs it, whatever it is called
    if not isinstance(within, ast.Module | ast.ClassDef | ast.If):
        return _UNCOLLECTED
    if not isinstance(node, ast.ClassDef):
        return "" if node.name.startswith("test") else _UNCOLLECTED
    by_unittest = any(ast.unparse(base).endswith("TestCase") for base in node.bases)
    constructed = any(isinstance(x, _DEFINITION) and x.name == "__init__" for x in node.body)
    collected = by_unittest or (node.name.startswith("Test") and not constructed)
    return "" if collected else _UNCOLLECTED


def _machines(module: ast.Module) -> frozenset[str]:
    """The state machines that run as the test case of a name that is collected."""
    return frozenset(
        machine
        for node in module.body
        if isinstance(node, ast.Assign) and not _names_no_test(node)
        for machine in _cases(node.value)
    )


def _cases(value: ast.expr) -> Iterator[str]:
    for node in ast.walk(value):
        if isinstance(node, ast.Attribute) and node.attr == "TestCase":
            yield ast.unparse(node.value)


def _names_no_test(node: ast.Assign) -> bool:
    """Whether a state machine's test case gets a name that pytest passes over."""
    names = [target.id for target in node.targets if isinstance(target, ast.Name)]
    return any(_cases(node.value)) and not any(name.startswith("Test") for name in names)


def _skips_itself(node: ast.Module | _Definition) -> bool:
    """Whether something in a body, and under no condition, keeps all of it from running."""
    for statement in node.body:
        match statement:
            case ast.Expr(ast.Call(func)) if ast.unparse(func) == "pytest.skip":
                return True
            case ast.Assign([ast.Name("pytestmark")], value) if any(map(_is_skip, _marks(value))):
                return True
            case ast.Assign([ast.Name("__test__")], ast.Constant(False)):
                return True
    return False


def _marks(value: ast.expr) -> Sequence[ast.expr]:
    """One marker, or those of a list."""
    return value.elts if isinstance(value, ast.List | ast.Tuple) else [value]


def _is_skip(mark: ast.expr) -> bool:
    """Whether a marker keeps a test from passing anywhere: skip, skipif(True), a bare xfail."""
    called = isinstance(mark, ast.Call)
    name = _marker(mark.func if isinstance(mark, ast.Call) else mark)
    conditions = mark.args if isinstance(mark, ast.Call) else []
    if name == "xfail":
        named = called and any(word.arg == "condition" for word in mark.keywords)  # type: ignore[attr-defined]
        return not conditions and not named
    holds = any(isinstance(x, ast.Constant) and x.value is True for x in conditions)
    return name == "skip" or (name == "skipif" and holds)


def _marker(func: ast.expr) -> str:
    """The name of ``pytest.mark.name``, or ""."""
    match func:
        case ast.Attribute(ast.Attribute(attr="mark"), name):
            return name
    return ""


def standing(row: Requirement, proved: Iterable[str]) -> Standing:
    """How it is with one row."""
    return "proved" if row.name in proved else row.without_test or "open"


def faults(
    rows: Mapping[str, Requirement], sections: Mapping[str, str], made: Iterable[Claim]
) -> Iterator[str]:
    """What is wrong between the rows and the tests that claim them, one line for each."""
    by_row: dict[str, str] = {}
    for claim in made:
        if claim.requirement not in rows:
            yield f"{claim.test} names {claim.requirement}, which is no requirement"
        if claim.void:
            yield f"{claim.test} names {claim.requirement}, and {claim.void}"
            continue
        by_row.setdefault(claim.requirement, claim.test)
    for row in rows.values():
        if row.section not in sections:
            yield f"{row.name} is in no section"
        if row.without_test and row.name in by_row:
            yield f"{row.name} is said to be {row.without_test}, and {by_row[row.name]} proves it"
        if row.level in BINDING and standing(row, by_row) == "open":
            yield f"{row.name} ({row.level}) has no test, and no reason for that: {row.text}"


def report(*, tests: bool = False) -> Iterator[str]:
    """The lines of the table; with *tests*, who proves each row."""
    proved: dict[str, list[str]] = {}
    for claim in claims():
        if claim.void:
            continue
        proved.setdefault(claim.requirement, []).append(claim.test)
    stands = {name: standing(row, proved) for name, row in REQUIREMENTS.items()}
    for prefix, title in SECTIONS.items():
        rows = [row for row in REQUIREMENTS.values() if row.section == prefix]
        yield f"{prefix}  {title}: {_counted(stands[row.name] for row in rows)}"
        for row in rows:
            stand = stands[row.name]
            marks = "‡" * row.gain + "†" * row.ours
            why = f" ({stand}: {row.reason})" if row.reason else ""
            yield f"  {_MARKS[stand]} {row.name:8}{row.level:7}{marks:3}{row.text}{why}"
            if tests:
                yield from (f"        {test}" for test in proved.get(row.name, ()))
        yield ""
    yield f"Of {len(REQUIREMENTS)} requirements: {_counted(stands.values())}."
    binding = [name for name, row in REQUIREMENTS.items() if row.level in BINDING]
    yield f"Of {len(binding)} that are MUST or ROBUST: {_counted(stands[name] for name in binding)}."


def _counted(stands: Iterable[Standing]) -> str:
    counts = Counter(stands)
    return ", ".join(f"{counts[name]} {name}" for name in get_args(Standing) if counts[name])


def main(argv: Sequence[str]) -> int:
    """Print the table; 1 if it does not hold."""
    print("\n".join(report(tests="--tests" in argv)))
    wrong = list(faults(REQUIREMENTS, SECTIONS, claims()))
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
