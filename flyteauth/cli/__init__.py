"""The command line: one module per command; the terminal is its only concern.

Exit status: 0 done, 1 failed, 2 usage, 3 needs a person, 4 not logged in, 130 interrupted.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from ..errors import ConfigError, Error, InteractionRequired, ReauthRequired
from ._parser import complete, parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the result is the exit status."""
    if arguments is None:
        _spare_the_collector()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "_ARGCOMPLETE" in os.environ:
        complete()
    _prepare_streams()
    options = None
    try:
        try:
            options = parse(words)
            return int(options.run(options))
        finally:
            sys.stdout.flush()
    except Error as error:
        from ._again import in_words_of

        _say(in_words_of(options, str(error)))
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


def _spare_the_collector() -> None:
    """Looking for garbage in what was just imported, and once more when all of it goes with the
    process, is a quarter of the time that a short command takes.
    """
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)


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
        case ConfigError() if str(error).startswith("argument "):
            return 2
        case _:
            return 1
