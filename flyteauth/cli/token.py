"""``flyteauth token``: the access token alone, on standard output."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from typing import TYPE_CHECKING

from .._sansio.renewal import Use, UseAndRefresh, plan, will_do
from .._stored import configured, look, verified
from ..errors import Unreachable
from . import _session
from ._session import arguments, header_of, run

if TYPE_CHECKING:
    from .._sansio.record import Record
    from .._sansio.token import Token
    from ..config import Settings
    from ..session import Session

# The session is imported only where a stored token does not do: that, its event loop and its HTTP
# take ten times as long.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one line of JSON: what a call needs")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="ask the control plane, once, and renew a token that it refuses",
    )
    parser.add_argument(
        "--interactive", action="store_true", help="log in first if nobody is logged in"
    )
    _session.add_arguments(parser)


def main(options: argparse.Namespace) -> int:
    settings = configured(arguments(options), options.config)
    record = look(settings).record
    token = None if record is None else record.token
    at = time.time()
    planned = plan(token, None, at, 0.0, silent=settings.is_service)
    good = record is not None and isinstance(planned, Use)
    if record is not None and good and (not options.verify or verified(settings, record.token, at)):
        found: tuple[Token, str] | None = (record.token, record.header)
    else:
        found = _from_session(options, record if isinstance(planned, UseAndRefresh) else None)
    if found is None:
        _say("the control plane wants no token, so there is none to print")
        return 1
    sys.stdout.write(f"{_document(*found, settings) if options.json else found[0].access_token}\n")
    return 0


def _from_session(options: argparse.Namespace, ageing: Record | None) -> tuple[Token, str] | None:
    """A token that is good now, and the header that it belongs into. One that is *ageing* is
    renewed first, and will do if that fails for now.
    """

    async def work(session: Session) -> tuple[Token, str] | None:
        # Whatever asks for tokens again and again does so by this command.
        session._life.begun = -math.inf  # noqa: SLF001
        renewed = None
        if ageing is not None:
            try:
                renewed = await session.renew()
            except Unreachable as error:
                if not will_do(ageing.token, None, time.time()):
                    raise
                _say(f"the token is about to end, and {error}")
                return ageing.token, ageing.header
        if options.verify:
            token = await session.verify()
        else:
            token = renewed or await session.token()
        if token is None:
            return None
        # Only JSON tells the header; what it is, a proxy's credential beside it, may take a while.
        return token, await header_of(session, token) if options.json else "authorization"

    return run(options, work, interactive=options.interactive)


def _document(token: Token, header: str, settings: Settings) -> str:
    return json.dumps(
        {
            "access_token": token.access_token,
            "token_type": "Bearer",
            "expires_at": token.expires_at,
            "header": header,
            "endpoint": None if settings.endpoint is None else settings.endpoint.url,
        }
    )


def _say(text: str) -> None:
    print(f"flyteauth: {text}", file=sys.stderr)
