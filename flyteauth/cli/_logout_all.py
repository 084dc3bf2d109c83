"""``flyteauth logout --all``: each login goes by itself, and none keeps another from going."""

from __future__ import annotations

import argparse
import os
from typing import Final

import anyio
from attrs import evolve

from .._io.wording import describe
from .._leaving import Login, configured, logins, may_be_in_another_keyring
from ..errors import ConfigError, Error, escape
from ..events import to_json
from ._output import emit, failed, say
from ._session import arguments

BY_NAME: Final = "if it is in that one, try again with FLYTE_ADMIN_TOKENSTORE=keyring"


def log_out_everywhere(options: argparse.Namespace) -> int:
    return anyio.run(_everywhere, options)


async def _everywhere(options: argparse.Namespace) -> int:
    given = arguments(options)
    settings = None
    try:
        settings = await configured(options.config, given, os.environ)
    except ConfigError as error:  # no reason to keep a login
        say(f"flyteauth: {error}")
    found = await logins(settings, options.config, given)
    if not found and not options.json:
        say("No login is kept on this machine.")
    outcomes: list[bool] = []
    async with anyio.create_task_group() as group:
        for login in found:
            group.start_soon(_end, login, outcomes, options.json)
    return 0 if all(outcomes) else 1


async def _end(login: Login, outcomes: list[bool], json: bool) -> None:
    try:
        outcome = await login.end()
    except Error as error:
        outcomes.append(False)
        if json:
            emit({**failed(error), "server": login.server, "account": login.account})
        remedy = f"; {BY_NAME}" if may_be_in_another_keyring(error) else ""
        say(f"flyteauth: {escape(login.name)} is not logged out: {error}{remedy}")
        return
    outcomes.append(True)
    if json:
        emit({**to_json(outcome), "account": login.account})
    else:
        say(describe(evolve(outcome, server=login.name)))
