"""``flyteauth token``: the access token alone, on standard output."""

from __future__ import annotations

import argparse
import sys

from ..session import Session, Token
from ._session import add_arguments, run

__all__ = ["add_arguments", "main"]


def main(options: argparse.Namespace) -> int:
    async def get(session: Session) -> Token | None:
        return await session.token()

    token = run(options, get)
    if token is None:
        print(
            "flyteauth: the control plane wants no token, so there is none to print",
            file=sys.stderr,
        )
        return 1
    sys.stdout.write(token.access_token + "\n")
    return 0
