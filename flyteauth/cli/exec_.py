"""``flyteauth exec``: runs any Flyte tool with our login, through what the tool offers for that.

The tool is told to get its tokens from ``flyteauth token``, as ExternalCommand: by a configuration
file of its own and, because a file in the working directory goes before that one, by environment
variables. Neither a token nor a secret is in them, nor in the command's words.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from . import _session
from ._output import say

if TYPE_CHECKING:
    from ..config import Settings
    from ..session import Session

EPILOG: Final = """\
examples:
  flyteauth exec -- flyte get run
  flyteauth exec --endpoint flyte.example.com -- python train.py

Its exit status is the command's: 127 if there is no such command, 126 if it cannot be run.
"""
_FLYTE: Final = re.compile(r"(?<![\w.-])flyte(\.exe)?(?![\w.-])")
NOT_FOUND: Final = 127
NOT_RUNNABLE: Final = 126


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "flyteauth exec [OPTION …] -- COMMAND …"
    parser.epilog = EPILOG
    _session.add_arguments(parser)
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="COMMAND …", help="what to run"
    )
    parser.set_defaults(usage_error=parser.error)


def main(options: argparse.Namespace) -> int:
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not words:
        options.usage_error("the following arguments are required: COMMAND")
    return run(options, words)


def add_words(parser: argparse.ArgumentParser, command: str) -> None:
    """The arguments of another command, which stands for ``exec -- flyte`` *command*."""
    parser.usage = f"flyteauth [OPTION …] {command} …"
    parser.epilog = (
        f"All that follows {command} goes to flyte; our own options, such as --config, stand before"
        f" it.\nexample:\n  flyteauth --config config.yaml {command} …"
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, help=f"the words of flyte {command}")
    parser.set_defaults(print_help=parser.print_help)
    parser.prefix_chars = "\0"  # so that no word is taken for an option of ours


def run_flyte(options: argparse.Namespace, command: str) -> int:
    if options.words in (["-h"], ["--help"]):
        options.print_help()
        if shutil.which("flyte") is None:
            return 0
        print()
    return run(options, ["flyte", command, *options.words])


def run(options: argparse.Namespace, words: Sequence[str]) -> int:
    """Run *words* with the login that *options* mean; the result is their exit status."""
    status = _find(words[0])
    if status:
        return status
    settings, header = _session.run(options, _log_in, interactive=True)
    from .._handover import handed_over, lost_on_flyte
    from ._child import run_child

    if any(map(_FLYTE.search, words)):  # it may also stand in a shell's line
        for problem in lost_on_flyte(settings, header):
            say(f"flyteauth: {problem}")
    wanted = header is not None
    return run_child(words, handed_over(settings, wanted=wanted), _could_not(words[0]))


async def _log_in(session: Session) -> tuple[Settings, str | None]:
    """The settings, and the header that the control plane takes a token from; there is one then.
    None where it wants none.
    """
    token = await session.token()
    settings = await session.settings()
    if token is None:
        return settings, None
    return settings, (await _session.header_of(session, token)).lower()


def _find(command: str) -> int:
    """0 if there is such a command: known before anybody is asked to log in for it."""
    if shutil.which(command) is not None:
        return 0
    there = os.path.dirname(command) and os.path.lexists(command)  # noqa: PTH120  pathlib raises for odd names
    return _could_not(command)(PermissionError() if there else FileNotFoundError())


def _could_not(command: str) -> Callable[[OSError], int]:
    def say_so(error: OSError) -> int:
        from ..errors import quote

        name = quote(command, 100)
        if isinstance(error, FileNotFoundError):
            advice = (
                "install it with: pip install flyte"
                if command == "flyte"
                else "install it, or give its path"
            )
            say(f"flyteauth: there is no command {name}; {advice}")
            return NOT_FOUND
        why = (error.strerror or "permission denied").lower()
        say(f"flyteauth: {name} cannot be run ({why}); make it executable, or name a program")
        return NOT_RUNNABLE

    return say_so
