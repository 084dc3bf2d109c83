"""Where a session's settings come from, and how they are made without an event loop waiting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple

from attrs import field, frozen

from .errors import ConfigError

if TYPE_CHECKING:
    from .config import Settings


T = TypeVar("T")
Ts = TypeVarTuple("Ts")

READ_DEADLINE: Final = 15.0  # seconds


@frozen
class Source:
    """Arguments alone; or, where there is an environment, that and a configuration file too."""

    arguments: Mapping[str, Any] = field(repr=False)
    path: str | Path | None = None
    environ: Mapping[str, str] | None = field(default=None, repr=False)


async def in_time(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """*function* of *args*, which reads what the configuration names, on a thread of its own: a
    named pipe or a dead network mount may never answer. Raises ConfigError then.
    """
    from ._io.threads import run_in_daemon

    try:
        return await run_in_daemon(function, *args, deadline=READ_DEADLINE)
    except TimeoutError:
        raise ConfigError(
            f"the configuration, or a file that it names, cannot be read within "
            f"{READ_DEADLINE:.0f} s; check that they are ordinary files",
            reason="timeout",
        ) from None


def prepare(source: Source) -> Settings:
    """The settings; and all that takes time to import. Call it in a worker thread.

    Raises ConfigError.
    """
    from . import _calls, _grants, _setup, _target, _upkeep  # noqa: F401
    from .config import resolve

    search = source.environ is not None
    settings = resolve(source.arguments, environ=source.environ, path=source.path, search=search)
    settings.require_server()
    if settings.auth_type in {"ExternalCommand", "Passthrough"}:
        raise ConfigError(
            f"authType {settings.auth_type} is not supported by this version; use Pkce, "
            "DeviceFlow or ClientSecret",
            reason="auth_type",
        )
    return settings
