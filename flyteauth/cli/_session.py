"""The session that the commands share: configuration, and how to run it."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn, TypeVar

from ..session import Session

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--endpoint", help="the control plane, before what the configuration says")
    parser.add_argument("--ca-cert", metavar="FILE", help="certificate authority to trust as well")
    parser.add_argument(
        "--auth-type",
        metavar="TYPE",
        help="pkce, headless (device flow) or client-secret, before what the configuration says",
    )


def run(options: argparse.Namespace, work: Callable[[Session], Awaitable[T]]) -> T:
    """What *work* makes of the session that *options* describe."""
    import anyio

    async def main() -> T:
        session = Session.from_config(
            options.config,
            endpoint=options.endpoint,
            ca_cert_file_path=options.ca_cert,
            auth_type=options.auth_type,
        )
        async with session:
            return await work(session)

    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _end)
    return anyio.run(main)


def _end(number: int, frame: object) -> NoReturn:
    """SIGTERM ends what we have begun, too: a listener, a command, a browser's launcher."""
    raise SystemExit(128 + number)
