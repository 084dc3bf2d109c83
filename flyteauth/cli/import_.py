"""``flyteauth import``: go on with the login that another tool has made."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .._sansio.keyring_layouts import TOOLS
from ._ndjson import presenting, told
from ._session import add_arguments as add_session_arguments, run

if TYPE_CHECKING:
    from ..session import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_session_arguments(parser)
    parser.add_argument(
        "--from",
        dest="source",
        choices=TOOLS,
        help="whose login; default: the first one that works",
    )
    parser.add_argument("--json", action="store_true", help="print events as lines of JSON")


def main(options: argparse.Namespace) -> int:
    async def take_over(session: Session) -> None:
        await session.import_login(options.source, must_keep=True)

    with told(json=options.json):
        run(options, take_over, **presenting(json=options.json))
    return 0
