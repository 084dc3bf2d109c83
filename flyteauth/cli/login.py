"""``flyteauth login``"""

from __future__ import annotations

import argparse
import sys

from ..session import Session
from ._session import add_arguments, run

__all__ = ["add_arguments", "main"]


def main(options: argparse.Namespace) -> int:
    async def login(session: Session) -> None:
        if await session.login(must_keep=True) is None:
            settings = await session.settings()
            where = settings.endpoint.key if settings.endpoint is not None else settings.issuer
            print(f"{where} wants no login; nothing to do.", file=sys.stderr)

    run(options, login)
    return 0
