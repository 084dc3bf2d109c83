"""``flyteauth export``: other tools go on with the login that we have made."""

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
        "--to",
        dest="targets",
        action="append",
        required=True,
        choices=TOOLS,
        help="who gets the login; again for more",
    )
    parser.add_argument("--json", action="store_true", help="print events as lines of JSON")


def main(options: argparse.Namespace) -> int:
    async def hand_out(session: Session) -> None:
        await session.export_login(*options.targets)

    with told(json=options.json):
        run(options, hand_out, **presenting(json=options.json))
    return 0
