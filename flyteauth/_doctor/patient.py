"""What is examined: the configuration as a session would read it, and what it is made into."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from .._io.clock import Clock, SystemClock
from .._io.folder import home
from .._setup import Setup, assemble
from .._source import Source, in_time
from ..config import Settings
from ..errors import ConfigError
from ..events import AuthEvent
from .talk import Talk


@frozen
class Patient:
    """``settings`` are None if they cannot be read, ``setup`` is if there is nobody to talk to;
    ``problem`` says why. ``asked`` is the file that ``--config`` names, ``given``
    are arguments of Session.
    """

    settings: Settings | None
    setup: Setup | None
    problem: ConfigError | None
    environ: Mapping[str, str] = field(repr=False)
    asked: str | None = None
    given: Mapping[str, Any] = field(factory=dict, repr=False)
    talk: Talk = field(factory=Talk)

    @property
    def server(self) -> tuple[str, str, int]:
        """Scheme, host and port of the control plane, or of the issuer that is named."""
        assert self.settings is not None
        endpoint = self.settings.endpoint
        parts = urlsplit(endpoint.url if endpoint is not None else self.settings.issuer or "")
        port = parts.port or (80 if parts.scheme == "http" else 443)
        return parts.scheme, parts.hostname or "", port

    @property
    def directory(self) -> Path:
        return home()


async def admit(
    asked: str | None,
    given: Mapping[str, Any],
    environ: Mapping[str, str],
    clock: Clock | None = None,
) -> Patient:
    """The patient that *given*, arguments of Session, the environment and a file describe."""
    settings = None
    try:
        settings = await in_time(Source(given, asked, environ).resolve)
        settings.require_server()
        # A thread, because what is assembled is imported, and looks for directories.
        setup = await in_time(assemble, settings, clock or SystemClock(), _hear)
    except ConfigError as problem:
        return Patient(settings, None, problem, environ, asked, given)
    return Patient(settings, setup, None, environ, asked, given)


async def _hear(event: AuthEvent) -> None:
    """What the parts of a session warn of, the checks say themselves."""
    del event
