"""The process-wide default session: ``init`` and its kin, named as in flyte's own ``init``."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any, ParamSpec

from attrs import evolve

from ._io.portal import call
from ._passthrough import auth_metadata as auth_metadata  # noqa: PLC0414  # goes with init_passthrough
from ._sync import SyncSession
from .errors import ConfigError
from .session import Session

P = ParamSpec("P")

_current: Session | None = None


def current_session() -> Session:
    """The session that ``init`` made. Raises ConfigError before."""
    if _current is None:
        raise ConfigError(
            "nobody has logged in yet; call flyteauth.init() or await flyteauth.ainit() first",
            reason="not_initialized",
        )
    return _current


async def ainit(
    org: str | None = None,
    project: str | None = None,
    domain: str | None = None,
    *,
    endpoint: str | None = None,
    headless: bool = False,
    insecure: bool = False,
    insecure_skip_verify: bool = False,
    ca_cert_file_path: str | Path | None = None,
    auth_type: str | None = None,
    api_key: str | None = None,
    client_id: str | None = None,
    client_credentials_secret: str | None = None,
    scopes: Sequence[str] | None = None,
    http_proxy_url: str | None = None,
    disable_keyring: bool = False,
    lazy: bool = False,
    **more: Any,
) -> Session:
    """Make the process-wide default session, and return with a token in hand.

    Without ``endpoint``, ``api_key`` or ``issuer`` the configuration file and the environment
    say where to. ``headless=True`` is device flow. A person is asked to log in where one is there
    (a terminal, a notebook, or ``headless=True``); else InteractionRequired is raised at once.
    ``lazy=True`` puts all of that off until the first use. *more* are arguments of Session.

    Raises FlowError, ReauthRequired, InteractionRequired, ConfigError or StoreError.
    """
    arguments: dict[str, Any] = {
        "org": org,
        "project": project,
        "domain": domain,
        "endpoint": endpoint,
        "headless": headless or None,
        "insecure": insecure or None,
        "insecure_skip_verify": insecure_skip_verify or None,
        "ca_cert_file_path": ca_cert_file_path,
        "auth_type": auth_type,
        "api_key": api_key,
        "client_id": client_id,
        "client_credentials_secret": client_credentials_secret,
        "scopes": scopes,
        "http_proxy_url": http_proxy_url,
        "disable_keyring": disable_keyring or None,
        **more,
    }
    given = {name: value for name, value in arguments.items() if value is not None}
    explicit = given.keys() & {"endpoint", "api_key", "issuer"}
    make = Session if explicit else Session.from_config
    return await _begin(make(interactive=_always if headless else True, **given), lazy=lazy)


async def ainit_from_config(
    path_or_config: str | Path | None = None,
    *,
    org: str | None = None,
    project: str | None = None,
    domain: str | None = None,
    lazy: bool = False,
    **more: Any,
) -> Session:
    """The same as the configuration file at *path_or_config*, or the first one found, says."""
    arguments = {"org": org, "project": project, "domain": domain, **more}
    session = Session.from_config(path_or_config, interactive=True, **arguments)
    return await _begin(session, lazy=lazy)


async def ainit_from_api_key(
    api_key: str | None = None,
    *,
    project: str | None = None,
    domain: str | None = None,
    insecure_skip_verify: bool = False,
    ca_cert_file_path: str | Path | None = None,
    lazy: bool = False,
    **more: Any,
) -> Session:
    """The same by an API key: *api_key*, or else $FLYTE_API_KEY or $UNION_API_KEY."""
    session = Session(
        api_key=api_key,
        project=project,
        domain=domain,
        insecure_skip_verify=insecure_skip_verify or None,
        ca_cert_file_path=ca_cert_file_path,
        **more,
    )
    if api_key is None:
        _require_api_key()
        source = session._life.source  # noqa: SLF001
        session._life.source = evolve(source, left_out=("api_key",))  # noqa: SLF001
    return await _begin(session, lazy=lazy)


async def ainit_passthrough(
    endpoint: str | None = None,
    *,
    org: str | None = None,
    project: str | None = None,
    domain: str | None = None,
    insecure: bool = False,
    insecure_skip_verify: bool = False,
    ca_cert_file_path: str | Path | None = None,
    **more: Any,
) -> Session:
    """The same with credentials that the caller brings to each call, by ``auth_metadata``.

    Without ``endpoint`` the configuration file and the environment say where to.
    """
    arguments: dict[str, Any] = {
        "org": org,
        "project": project,
        "domain": domain,
        "insecure": insecure or None,
        "insecure_skip_verify": insecure_skip_verify or None,
        "ca_cert_file_path": ca_cert_file_path,
        **more,
        "auth_type": "Passthrough",
    }
    if endpoint is None:
        return await _begin(Session.from_config(**arguments), lazy=True)
    return await _begin(Session(endpoint=endpoint, **arguments), lazy=True)


def _blocking(function: Callable[P, Awaitable[Session]]) -> Callable[P, SyncSession]:
    """The twin of *function* for programs without an event loop; works inside one as well."""

    @wraps(function)
    def twin(*args: P.args, **arguments: P.kwargs) -> SyncSession:
        return SyncSession(of=call(partial(function, *args, **arguments)))

    twin.__name__ = twin.__qualname__ = function.__name__.removeprefix("a")
    return twin


init = _blocking(ainit)
init_from_config = _blocking(ainit_from_config)
init_from_api_key = _blocking(ainit_from_api_key)
init_passthrough = _blocking(ainit_passthrough)


async def _begin(session: Session, *, lazy: bool) -> Session:
    global _current  # one default session is what this module is for
    try:
        if not lazy:
            await session.token()
    except BaseException:
        await session.aclose()
        raise
    before, _current = _current, session
    if before is not None:
        await before.aclose()
    return session


def _always() -> bool:
    """``headless=True`` is somebody's word that a person reads the output."""
    return True


def _require_api_key() -> None:
    from .config import API_KEY_VARIABLES

    if not any(map(os.environ.get, API_KEY_VARIABLES)):
        raise ConfigError(
            "no API key is given; pass api_key=, or set FLYTE_API_KEY", reason="api_key"
        )
