"""``flyteauth doctor``: what keeps you from logging in, and the one thing to do about it."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import TYPE_CHECKING, Final

from ._again import again
from ._lines import short, wrapped
from ._output import document, paint
from ._session import add_arguments as add_session_arguments, arguments

if TYPE_CHECKING:
    from .._doctor.finding import Finding

# Marks for a terminal, and words for everything else.
MARKS: Final = {"ok": "✓", "warn": "!", "fail": "✗", "skip": "·"}
COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "dim"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_session_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def main(options: argparse.Namespace) -> int:
    import anyio

    from .._doctor.examination import advice, examine, with_commands

    findings = anyio.run(examine, options.config, arguments(options), os.environ)
    login = shlex.join(again(options, "login"))
    last = advice(findings, login)
    resume = shlex.join(again(options, "login", "--resume"))
    findings = with_commands(findings, login, resume)
    if options.json:
        found = [{"name": x.name, "state": x.state, "text": x.text, "fix": x.fix} for x in findings]
        document({"findings": found, "next": last})
    else:
        for finding in findings:
            _print(finding)
        print(f"\n{paint(short(last), 'bold')}")
    return 1 if any(finding.state == "fail" for finding in findings) else 0


def _print(finding: Finding) -> None:
    words = finding.state.ljust(4)
    mark = MARKS[finding.state] if sys.stdout.isatty() and _shows("✓✗·") else words
    head = f"{mark}  {finding.name:<15}"
    below = " " * len(head)
    first, *rest = wrapped(finding.text, head, below)
    print(paint(mark, COLOURS[finding.state]) + first[len(mark) :])
    if finding.fix:
        rest += wrapped(finding.fix, f"{below}-> ", f"{below}   ")
    for line in rest:
        print(line)


def _shows(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True
