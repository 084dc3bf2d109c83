"""The public error tree; see the core's module for what each one means."""

from __future__ import annotations

from ._sansio.errors import (
    ConfigError,
    Error,
    Expired,
    FlowError,
    InteractionRequired,
    InvalidResponse,
    MissingMetadata,
    OAuth2Error,
    ReauthRequired,
    StoreError,
    UnexpectedEvent,
    Unreachable,
)

__all__ = [
    "ConfigError",
    "Error",
    "Expired",
    "FlowError",
    "InteractionRequired",
    "InvalidResponse",
    "MissingMetadata",
    "OAuth2Error",
    "ReauthRequired",
    "StoreError",
    "UnexpectedEvent",
    "Unreachable",
]
