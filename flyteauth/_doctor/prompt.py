"""How a person would be asked to log in here: which way, where the browser comes back, by what."""

from __future__ import annotations

import shutil
import sys
from typing import Final

from .._io.bind import bind
from .._io.browser import launchers
from .._io.port_holder import holder
from .._io.threads import run_in_daemon
from .._surroundings import Surroundings, choose, look_around
from ..config import Settings
from ..errors import ConfigError, InvalidResponse
from .finding import Finding, of_error
from .patient import Patient

DEADLINE: Final = 5.0  # seconds
_ANY: Final = "https://as.example/"  # any address will do to see what would open it


async def browser(patient: Patient) -> Finding:
    name, settings = "way to log in", patient.settings
    assert settings is not None
    await patient.talk.over.wait()
    target = patient.talk.target
    if target is not None and target.server is None:
        return Finding(name, "skip", "the control plane wants no login")
    has_device = True  # as long as nobody has said otherwise
    if target is not None and target.server is not None:
        has_device = target.server.device_authorization_endpoint is not None
    around = await run_in_daemon(look_around, deadline=DEADLINE)
    method, why = choose(settings, around, has_device=has_device)
    match method:
        case "secret":
            return Finding(name, "ok", f"a client secret, because {why}")
        case "command":
            return Finding(name, "ok", f"a command, because {why}")
        case "device":
            return Finding(name, "ok", f"a code for any device, because {why}")
    launcher = await run_in_daemon(_launcher, settings, around, deadline=DEADLINE)
    if launcher is None:
        text = f"the browser, because {why}; but nothing here can open one, so it is opened by hand"
        return Finding(name, "warn", text, "or use a code: flyteauth login --headless")
    return Finding(name, "ok", f"the browser, opened by {launcher}, because {why}")


def _launcher(settings: Settings, around: Surroundings) -> str | None:
    """The program that would open a browser; None if there is none."""
    command = settings.browser_command
    if sys.platform == "win32" and command is None and not around.environ.get("BROWSER"):
        return "Windows"
    for argv in launchers(_ANY, around.environ, sys.platform, command=command, wsl=around.wsl):
        if shutil.which(argv[0]) is not None:
            return argv[0]
    return None


async def port(patient: Patient) -> Finding:
    """Bound for a moment, as a login would."""
    name, settings = "redirect port", patient.settings
    assert settings is not None
    if settings.is_service or settings.auth_type in {"DeviceFlow", "NoAuth", "Passthrough"}:
        return Finding(name, "skip", f"authType {settings.auth_type} needs none")
    await patient.talk.over.wait()
    target = patient.talk.target
    if target is None and settings.redirect_uri is None:
        return Finding(name, "skip", "the control plane does not say which")
    wanted = settings.redirect_uri or ""
    try:
        if target is not None:
            wanted = target.redirect_uri(settings)
        free = await run_in_daemon(_bound, wanted, settings, deadline=DEADLINE)
    except InvalidResponse as error:
        return of_error(name, error)
    except ConfigError as error:
        if error.reason != "port_in_use":
            return of_error(name, error)
        return await _taken(name, wanted, settings, error)
    return Finding(name, "ok", free)


def _bound(wanted: str, settings: Settings) -> str:
    listeners, uri = bind(wanted, settings.callback_bind)
    for listener in listeners:
        listener.close()
    if uri != wanted:
        return "any that is free"
    return f"{listeners_port(uri)} is free"


def listeners_port(uri: str) -> int:
    """The port in a redirect URI."""
    from urllib.parse import urlsplit

    return urlsplit(uri).port or 80


async def _taken(name: str, wanted: str, settings: Settings, error: ConfigError) -> Finding:
    bound = settings.callback_bind
    number = bound[1] if bound is not None and bound[1] is not None else listeners_port(wanted)
    who = await holder(number)
    by = f"by {who}" if who else "by a program of somebody else"
    return Finding(
        name,
        "warn",
        f"{number} is in use {by}, so the browser cannot come back by itself",
        "end that program; or paste the address where the browser ends; or run: "
        "flyteauth login --headless",
    )
