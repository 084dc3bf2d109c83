"""The session that the commands share: configuration, and how to run it."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from ..session import Session, Token

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser, default: Any = argparse.SUPPRESS) -> None:
    """Which control plane, and as whom: what goes before the configuration.

    The same options stand before the command, where *default* is None. A command's own say nothing
    unless they are given, so that they take nothing back.
    """
    group = parser.add_argument_group("which control plane, and as whom")
    group.add_argument(
        "--config", metavar="FILE", default=default, help="the configuration file to use"
    )
    group.add_argument(
        "--endpoint",
        metavar="URL",
        default=default,
        help="the control plane: a host, dns:///host or https://host:port",
    )
    group.add_argument(
        "--account", metavar="LABEL", default=default, help="one of several logins at one endpoint"
    )
    group.add_argument(
        "--auth-type",
        metavar="TYPE",
        default=default,
        help="pkce, headless (device flow), client-secret, external-command or none",
    )
    group.add_argument(
        "--ca-cert", metavar="FILE", default=default, help="certificate authority to trust as well"
    )
    group.add_argument(
        "--insecure", action="store_true", default=default, help="no TLS, within this machine"
    )


def arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What *options* say, as arguments of Session."""
    return {
        "endpoint": options.endpoint,
        "account": options.account,
        "auth_type": options.auth_type,
        "ca_cert_file_path": options.ca_cert,
        "insecure": options.insecure,
    }


def run(
    options: argparse.Namespace,
    work: Callable[[Session], Awaitable[T]],
    *,
    interactive: bool = False,
    **more: Any,
) -> T:
    """What *work* makes of the session that *options* and *more*, arguments of Session, describe.

    *interactive*: a person who is not logged in is asked to, if one is there.
    """
    import anyio

    from ..session import Session

    async def main() -> T:
        said = {**arguments(options), **more}
        async with Session.from_config(options.config, interactive=interactive, **said) as session:
            return await work(session)

    for name in ("SIGTERM", "SIGHUP", "SIGQUIT"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup may ignore it
            with suppress(ValueError):  # not in the main thread
                signal.signal(number, _end)
    return anyio.run(main)


async def header_of(session: Session, token: Token) -> str:
    """The header that the control plane takes *token*, the session's, from."""
    said = await session.headers()
    names = (name for name, value in said.items() if value.endswith(f" {token.access_token}"))
    return next(names, "authorization")


def _end(number: int, frame: object) -> NoReturn:
    """Such a signal ends what we have begun, too: a listener, a command, a browser's launcher, a
    terminal that shows nothing.
    """
    raise SystemExit(128 + number)
