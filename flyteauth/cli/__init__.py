"""The command line: one module per command; the terminal is its only concern.

Exit status: 0 done, 1 failed, 2 usage, 3 needs a person, 4 not logged in, 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Final

from ..errors import Error, InteractionRequired, ReauthRequired

_COMMANDS: Final = {
    "login": "log in, and keep the login on this machine",
    "token": "print an access token that is good now",
    "logout": "forget the login, and have its tokens revoked",
    "devserver": "run the embedded control plane",
    "demo": "log in to an embedded control plane in every way there is",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the result is the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _prepare_streams()
    try:
        try:
            options = _parser(words).parse_args(words)
            return int(options.run(options))
        finally:
            sys.stdout.flush()
    except Error as error:
        _say(str(error))
        return exit_status(error)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # whoever read our output has gone
            reason = (error.strerror or type(error).__name__).lower()
            _say(f"cannot write to {error.filename or 'standard output'} ({reason})")
        with suppress(OSError):  # what is still to be written must not fail once more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _say(text: str) -> None:
    with suppress(OSError, ValueError):
        print(f"flyteauth: {text}", file=sys.stderr, flush=True)


def _prepare_streams() -> None:
    """A stream that our caller has closed must neither become a socket of ours, nor be None.

    Standard output is opened the wrong way round, so that what is written there is not lost
    without an error. What a terminal cannot show is no reason to fail.
    """
    for name, flags, mode in (
        ("stdin", os.O_WRONLY, "r"),
        ("stdout", os.O_RDONLY, "w"),
        ("stderr", os.O_WRONLY, "w"),
    ):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode, closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def exit_status(error: Error) -> int:
    match error:
        case InteractionRequired(reason="not_logged_in") | ReauthRequired():
            return 4
        case InteractionRequired():
            return 3
        case _:
            return 1


class _Version(argparse.Action):
    """Prints the version; looking it up is slow, and seldom asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"flyteauth {version('flyteauth')}")
        parser.exit()


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flyteauth",
        description="Authentication for Flyte and Union.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0 done, 1 failed, 2 usage, 3 needs a person, 4 not logged in.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="the configuration file to use")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        if name in words:  # only what is about to run is imported
            module = import_module(f".{name}", __name__)
            module.add_arguments(command)
            run: Callable[[argparse.Namespace], int] = module.main
            command.set_defaults(run=run)
    return parser
