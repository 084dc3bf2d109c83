"""``flyteauth logout``: this login, or with ``--all`` each one that this machine knows of, or with
``--everywhere`` also what Flyte's other clients keep of this endpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ._ndjson import presenting, told
from ._session import add_arguments as add_session_arguments, run

if TYPE_CHECKING:
    from ..session import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_session_arguments(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--everywhere",
        action="store_true",
        help="also those of flyte, flytekit and flytectl at this endpoint",
    )
    which.add_argument(
        "--all", action="store_true", help="every login that is kept on this machine"
    )
    parser.add_argument("--json", action="store_true", help="print events as lines of JSON")
    parser.set_defaults(usage_error=parser.error)


def main(options: argparse.Namespace) -> int:
    if options.all:
        for name in ("endpoint", "account"):
            if getattr(options, name) is not None:
                options.usage_error(f"argument --all: not allowed with argument --{name}")
        from ._logout_all import log_out_everywhere

        return log_out_everywhere(options)

    async def logout(session: Session) -> None:
        await session.logout(everywhere=options.everywhere)

    with told(json=options.json), _with_another_way():
        run(options, logout, **presenting(json=options.json))
    return 0


@contextmanager
def _with_another_way() -> Iterator[None]:
    """What is configured is no reason to keep a login: ``--all`` goes on without it."""
    try:
        yield
    except ConfigError as error:
        if str(error).startswith("argument "):  # of this command line: that is to be corrected
            raise
        text = f"{error}; or, to forget every login of this machine, run: flyteauth logout --all"
        raise ConfigError(text, reason=error.reason) from None
