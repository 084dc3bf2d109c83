"""``flyteauth logout``"""

from __future__ import annotations

import argparse

from ..session import Session
from ._session import add_arguments, run

__all__ = ["add_arguments", "main"]


def main(options: argparse.Namespace) -> int:
    async def logout(session: Session) -> None:
        await session.logout()

    run(options, logout)
    return 0
