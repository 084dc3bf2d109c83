"""The public error tree; see the core's module for what each one means."""

from __future__ import annotations

from ._sansio.errors import (
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
    escape as escape,  # noqa: PLC0414  # what others say must be escaped before it is shown
    quote as quote,  # noqa: PLC0414  # the same
)

__all__ = [
    "ConfigError",
    "Error",
    "Expired",
    "FlowError",
    "InsufficientScope",
    "InteractionRequired",
    "InvalidResponse",
    "MissingMetadata",
    "OAuth2Error",
    "ReauthRequired",
    "StoreError",
    "UnexpectedEvent",
    "Unreachable",
]
