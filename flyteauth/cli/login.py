"""``flyteauth login``: whichever way works here; ``--no-wait`` and ``--resume`` do it in two."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

from .._sansio.keyring_layouts import TOOLS
from ._again import again
from ._ndjson import presenting, told
from ._output import emit, say
from ._session import add_arguments as add_session_arguments, run

if TYPE_CHECKING:
    from ..session import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_session_arguments(parser)
    parser.add_argument(
        "--headless",
        action="store_true",
        help="with a code that is typed on any device (the same as --auth-type headless)",
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="open no browser, only show the address"
    )
    parser.add_argument(
        "--scopes",
        metavar="SCOPE",
        action="append",
        help="scopes to ask for; again for more, or with commas or spaces between",
    )
    parser.add_argument(
        "--share",
        action="append",
        choices=TOOLS,
        metavar="TOOL",
        help="flyte, flytekit or flytectl: it gets this login, too, and each refresh of it; again "
        "for more",
    )
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument(
        "--no-wait", action="store_true", help="print a code, and return; --resume goes on"
    )
    steps.add_argument(
        "--resume", action="store_true", help="go on with the login that --no-wait has begun"
    )
    steps.add_argument(
        "--switch", action="store_true", help="have the server ask which account it should be"
    )
    parser.add_argument("--json", action="store_true", help="print events as lines of JSON")
    parser.set_defaults(usage_error=parser.error)


def main(options: argparse.Namespace) -> int:
    if options.headless and options.auth_type:
        options.usage_error("argument --headless: not allowed with argument --auth-type")

    async def login(session: Session) -> None:
        if options.no_wait:
            await session.begin_login()
            _say_how_to_go_on(options)
            return
        token = await (
            session.resume_login(must_keep=True)
            if options.resume
            else session.login(
                must_keep=True, switch=options.switch, open_browser=not options.no_browser
            )
        )
        settings = await session.settings()
        if token is None:
            where = settings.endpoint.key if settings.endpoint is not None else settings.issuer
            _say_nothing_to_do(str(where), json=options.json)
        elif options.scopes is not None and not options.json:
            say("It is a login for these scopes: set admin.scopes, for other commands to find it.")
        elif options.endpoint is not None and settings.config_file is None and not options.json:
            say(f"To use it without --endpoint, run: {shlex.join(_to_configure(options))}")

    with told(json=options.json):
        run(
            options,
            login,
            interactive=sys.stdin.isatty(),  # also in a task of Flyte's, where else nobody is asked
            headless=options.headless or None,
            scopes=None if options.scopes is None else " ".join(options.scopes),
            shared_logins=options.share,
            **presenting(json=options.json),
        )
    return 0


def _to_configure(options: argparse.Namespace) -> list[str]:
    """The command that writes down what was said of this login."""
    words = ["flyteauth", "create", "config", "--endpoint", options.endpoint]
    auth_type = "headless" if options.headless else options.auth_type
    if auth_type is not None:
        words += ["--auth-type", auth_type]
    if options.ca_cert is not None:
        words += ["--ca-cert", options.ca_cert]
    return [*words, "--insecure"] if options.insecure else words


def _say_how_to_go_on(options: argparse.Namespace) -> None:
    words = again(options, "login", "--resume")
    if options.json:
        emit({"event": "login_begun", "go_on": words})
    else:
        say(f"Nobody waits for it here. Once it is approved, run: {shlex.join(words)}")


def _say_nothing_to_do(where: str, *, json: bool) -> None:
    if json:
        emit({"event": "no_login_wanted", "server": where})
    else:
        say(f"{where} wants no login; nothing to do.")
