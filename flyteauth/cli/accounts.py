"""``flyteauth accounts``: the logins that are kept on this machine."""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ._ndjson import told
from ._output import document, say, table
from ._session import add_arguments as add_session_arguments, arguments

if TYPE_CHECKING:
    from .._stored import Known
    from ..config import Settings

COLUMNS = ("", "ENDPOINT", "ACCOUNT", "KIND", "WHO", "TOKEN", "KEPT IN")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_session_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def main(options: argparse.Namespace) -> int:
    from .._stored import known

    with told(json=options.json):
        settings = _configured(options)
        logins = known()
    at = time.time()
    current = None if settings is None else _key(settings)
    elsewhere = _elsewhere(settings)
    if options.json:
        rows = [_to_json(each, at, current) for each in logins]
        document({"logins": rows, "elsewhere": elsewhere})
        return 0
    if logins:
        table(COLUMNS, [_row(each, at, current) for each in logins])
        if not any(each.key.text == current for each in logins):
            print(f"\nThe configuration of this directory uses none of them{_which(settings)}.")
    else:
        print("No login is kept on this machine.")
    for line in elsewhere:
        say(f"Not listed: {line}")
    return 0


def _configured(options: argparse.Namespace) -> Settings | None:
    """What this directory and environment use; None if that cannot be told."""
    from .._stored import settings_of

    try:
        settings = settings_of(arguments(options), os.environ, options.config)
    except ConfigError as error:
        say(f"flyteauth: {error}")
        return None
    return settings if settings.endpoint is not None or settings.issuer is not None else None


def _key(settings: Settings) -> str:
    from .._identity import identity

    return identity(settings)


def _which(settings: Settings | None) -> str:
    if settings is None:
        return ""
    return f" ({settings.endpoint.key if settings.endpoint is not None else settings.issuer})"


def _row(login: Known, at: float, current: str | None) -> tuple[str, ...]:
    key, record = login.key, login.kept.record
    return (
        "*" if key.text == current else "",
        _server(login),
        key.account or "",
        "command" if key.kind.startswith("command") else key.kind,
        (record.subject if record is not None else None) or "",
        _token(login, at),
        _place(login),
    )


def _server(login: Known) -> str:
    return (login.key.where or login.key.issuer or "?").removeprefix("http://")


def _token(login: Known, at: float) -> str:
    from .._doctor.standing import is_good, lasting

    record = login.kept.record
    if record is None:
        return "cannot be read"
    if not is_good(record, at):
        return "ended"
    if record.token.refresh_token is not None:
        return "renews itself"
    return f"ends {lasting(record.token.expires_at, at)}"


def _place(login: Known) -> str:
    return "keyring" if login.kept.place.startswith("the keyring") else "file"


def _elsewhere(settings: Settings | None) -> list[str]:
    """Where logins may be that nobody can list."""
    store = None if settings is None else settings.token_store
    if store == "keyring":
        return ["what is in the keyring that tokenStore names; see flyteauth status"]
    if store is not None and "://" in store:
        return ["what is in the shared store that tokenStore names; see flyteauth status"]
    return []


def _to_json(login: Known, at: float, current: str | None) -> dict[str, Any]:
    from .._doctor.standing import is_good

    key, record, error = login.key, login.kept.record, login.kept.error
    token = None if record is None else record.token
    return {
        "current": key.text == current,
        "endpoint": key.where,
        "issuer": key.issuer,
        "account": key.account,
        "kind": "command" if key.kind.startswith("command") else key.kind,
        "client_id": key.client_id,
        "scopes": None if key.scopes is None else list(key.scopes),
        "audience": key.audience,
        "subject": None if record is None else record.subject,
        "expires_at": None if token is None else token.expires_at,
        "renews_itself": token is not None and token.refresh_token is not None,
        "authorised": is_good(record, at),
        "place": login.kept.place,
        "error": None if error is None else str(error),
    }
