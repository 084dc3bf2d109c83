"""``flyteauth delete api-key NAME``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import InteractionRequired, quote
from . import _session
from ._output import ask, say

if TYPE_CHECKING:
    from ..remote import ApiKey
    from ..session import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    key = kinds.add_parser(
        "api-key",
        help="delete an API key",
        description="Delete an API key: whatever uses it can do so no more.",
    )
    key.add_argument("name", metavar="NAME", help="its name or client id")
    key.add_argument("-y", "--yes", action="store_true", help="do not ask")
    _session.add_arguments(key)


def main(options: argparse.Namespace) -> int:
    from .._io.presenter import person_present
    from ..remote import ApiKey

    shown = quote(options.name, 100)
    if not options.yes:
        if not person_present():
            raise InteractionRequired(
                f"nobody can be asked whether to delete the API key {shown}; add --yes",
                reason="confirmation",
            )
        if not ask(f"Delete the API key {shown}? Whatever uses it stops working."):
            say(f"The API key {shown} was not deleted.")
            return 1

    async def delete(session: Session) -> ApiKey:
        return await ApiKey.delete(options.name, session=session)

    key = _session.run(options, delete, interactive=True)
    say(f"Deleted the API key {quote(key.name, 100)}.")
    return 0
