"""``flyteauth create api-key --name N``: an API key for a service, shown once."""

from __future__ import annotations

import argparse
from contextlib import suppress
from shlex import quote
from typing import TYPE_CHECKING, Final

from ..errors import ConfigError, escape
from . import _session
from ._output import add_output, document, say

if TYPE_CHECKING:
    from ..remote import CreatedApiKey
    from ..session import Session

EPILOG: Final = """\
examples:
  flyteauth create api-key --name my-ci-key
  eval "$(flyteauth create api-key --name my-ci-key | grep ^export)"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # The older spelling is "create api-key admin --name N".
    parser.add_argument("kind", nargs="?", choices=["admin"], help=argparse.SUPPRESS)
    parser.add_argument("--name", required=True, help="what to call it: letters, digits and -")
    add_output(parser, "text")
    _session.add_arguments(parser)


def main(options: argparse.Namespace) -> int:
    from ..remote import ApiKey

    async def create(session: Session) -> CreatedApiKey:
        return await ApiKey.create(options.name, session=session)

    key = _session.run(options, create, interactive=True)
    try:
        encoded, problem = key.encoded(), key.warning
    except ConfigError as error:  # the secret will not be shown again, so it is shown even so
        encoded, problem = None, str(error)
    try:
        _show(key, encoded, options.output)
    except OSError:
        with suppress(OSError):
            say(
                f"flyteauth: the API key {escape(quote(key.name))} was made but could not be "
                f"shown; delete it: flyteauth delete api-key {escape(quote(key.client_id))} --yes"
            )
        raise
    say("Keep it where secrets are kept, now: it will not be shown again.")
    if problem:
        say(f"flyteauth: {problem}")
    return 0


def _show(key: CreatedApiKey, encoded: str | None, output: str) -> None:
    """All of it, or an OSError."""
    if output == "json":
        document(_members(key, encoded))
        return
    print(f"client id:      {escape(key.client_id)}")
    print(f"client secret:  {escape(key.client_secret)}")
    if encoded is not None:
        print(f'API key:        {encoded}\n\nexport FLYTE_API_KEY="{encoded}"')
    print(end="", flush=True)  # nobody is told to keep what they cannot see


def _members(key: CreatedApiKey, encoded: str | None) -> dict[str, object]:
    return {
        "name": key.name,
        "client_id": key.client_id,
        "client_secret": key.client_secret,
        "api_key": encoded,
        "endpoint": key.endpoint,
        "org": key.org,
        "created_at": key.created_at,
    }
