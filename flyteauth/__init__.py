"""Authentication for Flyte and Union, for every async Python program.

await flyteauth.ainit(endpoint="dns:///flyte.example.com")     # asyncio and trio
flyteauth.init(endpoint="dns:///flyte.example.com")            # scripts and notebooks

async with flyteauth.Session(endpoint="dns:///flyte.example.com") as session:
    headers = await session.headers()
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # importing typing costs more than all the rest
if TYPE_CHECKING:
    from typing import Any

    from . import errors, events, remote
    from ._default import (
        ainit,
        ainit_from_api_key,
        ainit_from_config,
        ainit_passthrough,
        current_session,
        init,
        init_from_api_key,
        init_from_config,
        init_passthrough,
    )
    from ._passthrough import auth_metadata
    from ._sansio.tokens import Token
    from ._sync import SyncSession
    from .errors import (
        ConfigError,
        Error,
        Expired,
        FlowError,
        InsufficientScope,
        InteractionRequired,
        InvalidResponse,
        MissingMetadata,
        OAuth2Error,
        ReauthRequired,
        StoreError,
        UnexpectedEvent,
        Unreachable,
    )
    from .session import Identity, Session

__all__ = [
    "ConfigError",
    "Error",
    "Expired",
    "FlowError",
    "Identity",
    "InsufficientScope",
    "InteractionRequired",
    "InvalidResponse",
    "MissingMetadata",
    "OAuth2Error",
    "ReauthRequired",
    "Session",
    "StoreError",
    "SyncSession",
    "Token",
    "UnexpectedEvent",
    "Unreachable",
    "ainit",
    "ainit_from_api_key",
    "ainit_from_config",
    "ainit_passthrough",
    "auth_metadata",
    "current_session",
    "errors",
    "events",
    "init",
    "init_from_api_key",
    "init_from_config",
    "init_passthrough",
    "remote",
]

_HOMES = {
    "Identity": ".session",
    "Session": ".session",
    "SyncSession": "._sync",
    "Token": "._sansio.tokens",
    "ainit": "._default",
    "ainit_from_api_key": "._default",
    "ainit_from_config": "._default",
    "ainit_passthrough": "._default",
    "auth_metadata": "._passthrough",
    "current_session": "._default",
    "init": "._default",
    "init_from_api_key": "._default",
    "init_from_config": "._default",
    "init_passthrough": "._default",
}


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        """Import on first use: a program that only mentions flyteauth pays nothing for it."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in {"errors", "events", "remote"}:
            return import_module(f".{name}", __name__)
        value = getattr(import_module(_HOMES.get(name, ".errors"), __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
