"""
How many changes to the pure core do its tests notice? ``python -m tests.mutation`` counts them.

mutmut changes one thing at a time in a copy of ``_sansio`` and runs the tests that reach it. Left out
are changes to texts for people only, which are literals of two or more words. What survives is in
``survivors.md``, each with a reason why no test should notice it, or the run fails; it fails, too,
below ``FLOOR``.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from attrs import frozen
from tabulate import tabulate

ROOT: Final = Path(__file__).parents[1]
CORE: Final = Path("flyteauth/_sansio")
COPY: Final = ROOT / "mutants"
LIST: Final = Path(__file__).with_name("survivors.md")
FLOOR: Final = 95.0  # percent

# What mutmut writes down of a run: pytest failed, or was inside out; or the time was up.
_KILLED: Final = {1, 3}
_TIMED_OUT: Final = {36, -24, 24, 152, 255}

Outcome = Literal["killed", "timed out", "survived", "text", "not tried"]


@frozen
class Change:
    """One thing that is different in one function, in the shortest words that say it."""

    function: str
    before: str
    after: str


@frozen
class Mutant:
    name: str
    change: Change
    outcome: Outcome


def mutants(copy: Path = COPY) -> Iterator[Mutant]:
    """Those of the last run."""
    for meta in sorted((copy / CORE).rglob("*.py.meta")):
        module = meta.name.removesuffix(".py.meta")
        functions = {
            node.name: node
            for node in ast.walk(ast.parse(meta.with_suffix("").read_text("utf-8")))
            if isinstance(node, ast.FunctionDef)
        }
        for name, code in json.loads(meta.read_text("utf-8"))["exit_code_by_key"].items():
            changed = functions[name.rpartition(".")[2]]
            mangled = changed.name.rpartition("__mutmut_")[0]
            spots = _spots(functions[f"{mangled}__mutmut_orig"], changed)
            before, after = spots[-1]
            outcome: Outcome = (
                "not tried"
                if code is None
                else "text"
                if _is_text(before) and _is_text(after)
                else "killed"
                if code in _KILLED
                else "timed out"
                if code in _TIMED_OUT
                else "survived"
            )
            said = Change(f"{module}.{_plain(mangled)}", *_said(spots))
            yield Mutant(name, said, outcome)


def listed(text: str) -> dict[Change, str]:
    """The survivors that ``survivors.md`` knows, and its reason for each."""
    found = {}
    for line in text.splitlines():
        if read := re.fullmatch(r"\| `(.+?)` \| `` (.+?) `` → `` (.+?) `` \| (.+) \|", line):
            function, before, after = (part.replace(r"\|", "|") for part in read.groups()[:3])
            found[Change(function, before, after)] = read[4]
    return found


def row(change: Change, reason: str) -> str:
    """One line of ``survivors.md``."""
    before, after = (text.replace("|", r"\|") for text in (change.before, change.after))
    return f"| `{change.function}` | `` {before} `` → `` {after} `` | {reason} |"


def _plain(mangled: str) -> str:
    """``xǁFlowǁadvance`` is ``Flow.advance``, and ``x__parse`` is ``_parse``."""
    return mangled[2:].replace("ǁ", ".") if "ǁ" in mangled else mangled.removeprefix("x_")


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and len(node.value.split()) > 1
    )


def _spots(one: ast.AST, other: ast.AST) -> list[tuple[ast.AST, ast.AST]]:
    """The nodes in which two functions differ, their names aside: each inside the one before."""
    here, pairs = [(one, other)], list[tuple[ast.AST, ast.AST]]()
    if type(one) is not type(other):
        return here
    for name in one._fields:
        mine, theirs = getattr(one, name), getattr(other, name)
        if isinstance(mine, ast.AST) and isinstance(theirs, ast.AST):
            pairs.append((mine, theirs))
        elif isinstance(mine, list) and len(mine) == len(theirs):
            pairs += zip(mine, theirs, strict=True)
        elif mine != theirs and not isinstance(one, ast.FunctionDef):
            return here
    different = [pair for pair in pairs if not _same(*pair)]
    return here + _spots(*different[0]) if len(different) == 1 else here


def _same(one: object, other: object) -> bool:
    if isinstance(one, ast.AST) and isinstance(other, ast.AST):
        return ast.dump(one) == ast.dump(other)
    return one == other


def _said(spots: Sequence[tuple[ast.AST, ast.AST]]) -> tuple[str, str]:
    """The smallest expression or statement with the difference, but more than one word."""
    for before, after in reversed(spots):
        if isinstance(before, ast.Match) and isinstance(after, ast.Match):
            kept = {ast.unparse(case.pattern) for case in after.cases}
            (gone,) = (case for case in before.cases if ast.unparse(case.pattern) not in kept)
            return f"case {ast.unparse(gone.pattern)}", "no such case"
        if isinstance(before, ast.expr | ast.stmt | ast.pattern) and not isinstance(before, _WORDS):
            return _line(before), _line(after)
    return _line(spots[-1][0]), _line(spots[-1][1])


_WORDS: Final = (ast.Constant, ast.Name, ast.Starred, ast.Slice, ast.FunctionDef)


def _line(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())


def report(found: Sequence[Mutant], known: Mapping[Change, str]) -> Iterator[str]:
    """The score of each module and of all, and each survivor that has no reason."""
    modules = sorted({mutant.change.function.partition(".")[0] for mutant in found})
    rows = [[module, *_row([x for x in found if _is_in(x, module)])] for module in modules]
    yield tabulate(
        [*rows, ["all", *_row(found)]],
        headers=["module", "changes", "of texts", "killed", "survived", "score %"],
        floatfmt=".1f",
    )
    yield "\nSurvivors without a reason, or none of them:"
    survived = _survivors(found)
    for change in sorted(survived - known.keys(), key=str):
        yield row(change, "?")
    for change in sorted(known.keys() - survived, key=str):
        yield f"listed, and killed: `{change.function}`: {change.before} → {change.after}"


def _survivors(found: Sequence[Mutant]) -> set[Change]:
    return {mutant.change for mutant in found if mutant.outcome == "survived"}


def _row(found: Sequence[Mutant]) -> list[float]:
    count = _count(found)
    return [len(found), count["text"], count["killed"], count["survived"], score(found)]


def _count(found: Sequence[Mutant]) -> Counter[Outcome]:
    """How many came to what; who is late is killed, too."""
    return Counter("killed" if x.outcome == "timed out" else x.outcome for x in found)


def _is_in(mutant: Mutant, module: str) -> bool:
    return mutant.change.function.startswith(f"{module}.")


def score(found: Sequence[Mutant]) -> float:
    """How many percent of the changes are killed, those of texts left out."""
    count = _count(found)
    return 100 * count["killed"] / (count["killed"] + count["survived"] or 1)


def _run() -> None:
    shutil.rmtree(COPY, ignore_errors=True)
    mutmut = (str(Path(sys.executable).with_name("mutmut")), "run")
    workers = ("--max-children", str(os.cpu_count() or 1))
    # Under CI the examples of Hypothesis are the same each time, and so is the score.
    subprocess.run((*mutmut, *workers), check=True, cwd=ROOT, env={**os.environ, "CI": "true"})


def main() -> int:
    """1 if too much survives, or something without a reason."""
    parser = argparse.ArgumentParser(prog="tests.mutation", description=__doc__)
    parser.add_argument("--again", action="store_true", help="report on the last run")
    if not parser.parse_args().again:
        _run()
    found, known = list(mutants()), listed(LIST.read_text("utf-8"))
    print("\n".join(report(found, known)))
    unexplained = _survivors(found) - known.keys()
    untried = any(mutant.outcome == "not tried" for mutant in found)
    return 1 if not found or untried or unexplained or score(found) < FLOOR else 0


if __name__ == "__main__":
    sys.exit(main())
