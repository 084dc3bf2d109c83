"""``flyteauth whoami``: who the control plane takes us for."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from . import _session
from ._output import document, say

if TYPE_CHECKING:
    from ..session import Identity, Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document")
    _session.add_arguments(parser)


def main(options: argparse.Namespace) -> int:
    async def ask(session: Session) -> tuple[Identity | None, str]:
        identity = await session.whoami()
        endpoint = (await session.settings()).endpoint
        return identity, endpoint.key if endpoint is not None else ""

    identity, server = _session.run(options, ask)
    if options.json:
        document(_members(identity, server))
    elif identity is None:
        say(f"{server} does not say who you are.")
    else:
        print(f"{_name(identity)} at {server}")
    return 0


def _members(identity: Identity | None, server: str) -> dict[str, object]:
    if identity is None:
        return {"server": server, "subject": None}
    return {
        "server": server,
        "subject": identity.subject,
        "name": identity.name,
        "preferred_username": identity.preferred_username,
        "email": identity.email,
    }


def _name(identity: Identity) -> str:
    """As in "alice (Alice Example, alice@example.com)", as far as it is known."""
    from ..errors import quote

    first = identity.preferred_username or identity.subject
    more = [quote(x) for x in (identity.name, identity.email) if x and x != first]
    return f"{quote(first)} ({', '.join(more)})" if more else quote(first)
