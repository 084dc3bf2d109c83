"""The list of what survives a change speaks of code that is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from flyteauth import _sansio

from .mutation import CORE, LIST, Change, Mutant, listed, mutants, report, row, score

PACKAGE = Path(_sansio.__file__).parent  # of the wheel, where that is what is tested
KNOWN = listed(LIST.read_text("utf-8"))


def function(name: str) -> str:
    """The code of ``module.Class.function``, on one line."""
    module, *names = name.split(".")
    node: ast.AST = ast.parse((PACKAGE / f"{module}.py").read_text("utf-8"))
    for wanted in names:
        (node,) = (
            child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.ClassDef | ast.FunctionDef) and child.name == wanted
        )
    return " ".join(ast.unparse(node).split())


@pytest.mark.parametrize("change", KNOWN, ids=str)
def test_what_is_listed_is_still_in_the_code_and_has_a_reason(change: Change) -> None:
    assert change.before in function(change.function)
    assert len(KNOWN[change].split()) > 2


def test_every_row_of_the_list_is_read() -> None:
    rows = [line for line in LIST.read_text("utf-8").splitlines() if line.startswith("| `")]
    assert len(rows) == len(KNOWN)


_SOURCE = """
def x_f__mutmut_orig(a):
    raise ValueError("two words", a < 1)
def x_f__mutmut_1(a):
    raise ValueError("XXtwo wordsXX", a < 1)
def x_f__mutmut_2(a):
    raise ValueError("two words", a <= 1)
def x_f__mutmut_3(a):
    raise ValueError(None, a < 1)
class C:
    def xǁCǁg__mutmut_orig(self):
        return self.h("one")
    def xǁCǁg__mutmut_1(self):
        return self.h("XXoneXX")
    def xǁCǁg__mutmut_2(self):
        return self.h()
"""
_META = (
    '{"exit_code_by_key": {"m.x_f__mutmut_1": 0, "m.x_f__mutmut_2": 1, "m.x_f__mutmut_3": 0,'
    ' "m.xǁCǁg__mutmut_1": 36, "m.xǁCǁg__mutmut_2": 33}}'
)


def test_a_run_is_read_as_changes_and_a_score(tmp_path: Path) -> None:
    folder = tmp_path / CORE
    folder.mkdir(parents=True)
    (folder / "m.py").write_text(_SOURCE, "utf-8")
    (folder / "m.py.meta").write_text(_META, "utf-8")
    found = list(mutants(tmp_path))
    message = "ValueError('two words', a < 1)"
    assert [(mutant.outcome, mutant.change) for mutant in found] == [
        ("text", Change("m.f", message, "ValueError('XXtwo wordsXX', a < 1)")),
        ("killed", Change("m.f", "a < 1", "a <= 1")),
        ("survived", Change("m.f", message, "ValueError(None, a < 1)")),
        ("timed out", Change("m.C.g", "self.h('one')", "self.h('XXoneXX')")),
        ("survived", Change("m.C.g", "self.h('one')", "self.h()")),
    ]
    assert score(found) == 50.0
    told = "\n".join(report(found, {found[2].change: "because", found[1].change: "because"}))
    assert "| `m.C.g` | `` self.h('one') `` → `` self.h() `` | ? |" in told
    assert "listed, and killed: `m.f`: a < 1 → a <= 1" in told
    assert told.count("| ? |") == 1


def test_a_row_is_read_as_it_was_written() -> None:
    change = Change("m.f", "a | b", "a |  `b`")
    assert listed(row(change, "it is so")) == {change: "it is so"}


def test_changes_that_nobody_tried_are_no_survivors() -> None:
    assert score([Mutant("m", Change("f", "a", "b"), "not tried")]) == 0.0
