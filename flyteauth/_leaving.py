"""Every login that this machine knows of, and how each is ended by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from ._identity import identity, store_kind
from ._io.folder import home, no_answer
from ._io.presenter import Silent
from ._io.store import Store
from ._io.store.fallback import Fallback
from ._io.store.file import FileStore
from ._io.store.keyring import KeyringStore
from ._io.store.ring import ON_DEMAND
from ._io.threads import run_in_daemon
from ._source import Source, in_time
from ._stored import Key, Known, known
from .config import Settings, resolve
from .errors import ConfigError, Error
from .events import LoggedOut
from .session import Session

DEADLINE: Final = 60.0  # seconds to find out what there is: a keyring may ask for its password


@frozen
class Login:
    """One login. ``end`` forgets it, and has its tokens revoked where that is possible; it raises
    StoreError if it cannot be forgotten.
    """

    server: str
    account: str | None
    end: Callable[[], Awaitable[LoggedOut]]

    @property
    def name(self) -> str:
        return f"{self.server} (account {self.account})" if self.account else self.server


async def configured(
    path: str | Path | None, given: Mapping[str, Any], environ: Mapping[str, str]
) -> Settings:
    """What is configured now: its trust and its proxy reach the servers. Raises ConfigError."""
    return await in_time(Source(given, path, environ).resolve)


def may_be_in_another_keyring(error: Error) -> bool:
    """Whether *error* is of a keyring that is used only where the configuration names it."""
    return ON_DEMAND in str(error)


async def logins(
    settings: Settings | None, path: str | Path | None, given: Mapping[str, Any]
) -> list[Login]:
    """All of them. *settings* are what is configured now, from *path* and the arguments *given*;
    None if nothing is. Raises StoreError if there is no telling.
    """
    try:
        there = await run_in_daemon(known, deadline=DEADLINE)
    except TimeoutError:
        raise no_answer(home()) from None
    found = [_login(each, settings) for each in there]
    if settings is not None and _is_named(settings):
        found.append(_current(settings, path, given))
    return found


def _is_named(settings: Settings) -> bool:
    """Whether logins are kept where they cannot be listed."""
    there = settings.endpoint is not None or settings.issuer is not None
    return there and store_kind(settings) in {"keyring", "shared"}


def _current(settings: Settings, path: str | Path | None, given: Mapping[str, Any]) -> Login:
    async def end() -> LoggedOut:
        async with Session.from_config(path, presenter=Silent(), **given) as session:
            return await session.logout()

    server = settings.endpoint.key if settings.endpoint else str(settings.issuer)
    return Login(server, settings.account, end)


def _login(there: Known, settings: Settings | None) -> Login:
    key = there.key
    server = (key.where or key.issuer or there.kept.place).removeprefix("http://")
    given = _reproduced(there, settings)
    store = _store(settings)

    async def end() -> LoggedOut:
        if key.kind == "unknown":  # nothing says what it is, so nothing says what to remove
            assert there.kept.error is not None
            raise there.kept.error
        with suppress(ConfigError):
            if given is not None:
                async with Session(
                    presenter=Silent(), store=store, directory=home(), **given
                ) as session:
                    return await session.logout()
        await store.delete(there.key.text)
        return LoggedOut(server, local_deleted=True, remote_revoked=None)

    return Login(server, key.account, end)


def _store(settings: Settings | None) -> Store:
    """Wherever a login may be, whatever is configured for the next one."""
    if settings is not None and settings.disable_keyring:
        return FileStore()
    named = settings is not None and store_kind(settings) == "keyring"
    return Fallback(KeyringStore(named=named), FileStore(), _ignore)


async def _ignore(warning: str) -> None:
    del warning


def _reproduced(there: Known, settings: Settings | None) -> dict[str, Any] | None:
    """Arguments of Session that mean this login and no other; None if there are none, because
    the secret or the command that made it is not configured.
    """
    given = {**_who(there.key, settings), **_way(settings)}
    try:
        same = identity(resolve(given, environ=None, search=False)) == there.key.text
    except (ConfigError, TypeError):
        return None
    return given if same else None


def _who(key: Key, settings: Settings | None) -> dict[str, Any]:
    endpoint = key.where
    plain = endpoint is not None and endpoint.startswith("http://")
    given: dict[str, Any] = {
        "endpoint": endpoint,
        "insecure": plain or None,
        "allow_insecure_credentials": plain or None,
        "issuer": key.issuer,
        "auth_type": "Pkce",
        "client_id": key.client_id,
        "scopes": key.scopes,
        "audience": key.audience,
        "account": key.account,
    }
    secret = None if settings is None else settings.client_secret
    ours = settings is not None and settings.client_id == key.client_id
    if key.kind == "service" and secret is not None and ours:
        given |= {"auth_type": "ClientSecret", "client_secret": secret}
    return given


def _way(settings: Settings | None) -> dict[str, Any]:
    """How the servers are reached: what no login is named by."""
    if settings is None:
        return {}
    return {
        "ca_file": settings.ca_file,
        "insecure_skip_verify": settings.insecure_skip_verify or None,
        "http_proxy_url": settings.http_proxy_url,
        "proxy_command": settings.proxy_command,
        "extra_parameters": settings.extra_parameters or None,
    }
