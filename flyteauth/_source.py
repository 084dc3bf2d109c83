"""Where a session's settings come from, and how they are made without an event loop waiting."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple

from attrs import evolve, field, frozen

from .errors import ConfigError

if TYPE_CHECKING:
    from .config import Settings


T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_SECRETS: Final = ("api_key", "client_secret", "client_credentials_secret")
_VARIABLES: Final = {
    "http_proxy_url": ("FLYTE_ADMIN_HTTPPROXYURL",),
    "token_store": ("FLYTE_ADMIN_TOKENSTORE",),
}


@frozen
class Source:
    """Arguments alone; or, where there is an environment, that and a configuration file too.

    ``left_out`` are arguments that held a secret, and did not travel with the rest.
    """

    arguments: Mapping[str, Any] = field(repr=False)
    path: str | Path | None = None
    environ: Mapping[str, str] | None = field(default=None, repr=False)
    left_out: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[object, ...]:
        """A pickle holds the configuration, and no secret; the environment is that of whoever
        unpickles it.
        """
        left_out = tuple(name for name, value in self.arguments.items() if _is_secret(name, value))
        rest = {name: value for name, value in self.arguments.items() if name not in left_out}
        known = self.environ is not None
        return _revive, (rest, self.path, known, (*self.left_out, *left_out))

    def completed(self) -> Source:
        """With what was left out, as far as this machine knows it. Raises ConfigError."""
        from .config import API_KEY_VARIABLES

        found: dict[str, Any] = {}
        for name in self.left_out:
            variables = _VARIABLES.get(name, API_KEY_VARIABLES)
            value = next(filter(None, map(os.environ.get, variables)), None)
            if value is None:
                raise ConfigError(
                    f"{name} did not travel with this session, because a pickle holds no secret; "
                    f"set {variables[0]} where it is used",
                    reason="left_out",
                )
            found[name if name in _VARIABLES else "api_key"] = value
        return evolve(self, arguments={**self.arguments, **found}, left_out=())

    def resolve(self) -> Settings:
        """What it comes to. Reads files, so call it in a worker thread. Raises ConfigError."""
        from .config import resolve

        search = self.environ is not None
        return resolve(self.arguments, environ=self.environ, path=self.path, search=search)


def _is_secret(name: str, value: object) -> bool:
    if name in _VARIABLES:  # URLs, which may hold a password
        return "@" in str(value)
    if name not in _SECRETS or value is None:
        return False
    # A Secret may only say where it is kept, unless it brings that along.
    return getattr(value, "kind", "value") == "value" or getattr(value, "environ", None) is not None


def _revive(
    arguments: Mapping[str, Any], path: str | Path | None, known: bool, left_out: tuple[str, ...]
) -> Source:
    return Source(arguments, path, os.environ if known else None, left_out)


async def in_time(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """*function* of *args*, which reads what the configuration names, on a thread of its own: a
    named pipe or a dead network mount may never answer. Raises ConfigError then.
    """
    from ._io.threads import run_in_daemon
    from .config import READ_DEADLINE, unanswered

    try:
        return await run_in_daemon(function, *args, deadline=READ_DEADLINE)
    except TimeoutError:
        raise unanswered() from None


def prepare(source: Source) -> Settings:
    """The settings; and all that takes time to import. Call it in a worker thread.

    Raises ConfigError.
    """
    import platformdirs  # noqa: F401

    from . import _calls, _login, _opening, _service, _setup, _target, _two_steps, _upkeep  # noqa: F401

    settings = source.completed().resolve()
    settings.require_server()
    if settings.shared_logins:
        from . import _sharing  # noqa: F401
    return settings
