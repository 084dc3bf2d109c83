"""``flyteauth status``: whether you are logged in, as whom, and why so. Asks nobody.

Exit status 0 if a call could be authorised without a person, 4 if not.
"""

from __future__ import annotations

import argparse
import os
import shlex
from typing import TYPE_CHECKING

from ._again import again
from ._lines import short, wrapped
from ._ndjson import told
from ._output import document, paint
from ._session import add_arguments as add_session_arguments, arguments

if TYPE_CHECKING:
    from .._doctor.standing import Standing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_session_arguments(parser)
    parser.add_argument(
        "--check",
        action="store_true",
        help="exit with 0 or 4 and say nothing (for scripts); with 1 and an error where it cannot "
        "be told",
    )
    parser.add_argument(
        "--explain", action="store_true", help="show every source that was looked at, and why"
    )
    parser.add_argument("--json", action="store_true", help="print all of it as one JSON document")
    parser.set_defaults(usage_error=parser.error)


def main(options: argparse.Namespace) -> int:
    from .._doctor.standing import find_out

    for name in ("explain", "json"):
        if options.check and getattr(options, name):
            options.usage_error(f"argument --check: not allowed with argument --{name}")
    resume = shlex.join(again(options, "login", "--resume"))
    with told(json=options.json):
        standing = find_out(options.config, arguments(options), os.environ)
        if options.explain and not options.json:
            _print_explanation(standing, resume)
        if standing.error is not None:
            raise standing.error
    authorised = standing.is_authorised
    login = resume if standing.begun_for is not None else shlex.join(again(options, "login"))
    if options.json:
        document({**standing.to_json(resume), "next": None if authorised else login})
    elif not options.check and (not options.explain or not authorised):
        _print(standing, login)
    return 0 if authorised else 4


def _print(standing: Standing, login: str) -> None:
    print(paint(short(standing.title), "green" if standing.is_authorised else "yellow"))
    for name, text in standing.rows():
        for line in wrapped(text, f"  {name:<10}", " " * 12):
            print(line)
    if not standing.is_authorised:
        print(f"\nrun: {login}")


def _print_explanation(standing: Standing, resume: str) -> None:
    for title, rows in standing.explanation(resume):
        print(paint(title, "bold"))
        for mark, text, *below in rows:
            for line in wrapped(text, f"  {mark} ", " " * 4):
                print(line)
            for more in below:
                for line in wrapped(more, " " * 6, " " * 8):
                    print(line)
        print()
