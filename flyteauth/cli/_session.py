"""The session that the commands share: configuration, and how to run it."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from typing import TypeVar

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

    return anyio.run(main)
