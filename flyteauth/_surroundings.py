"""
Which way of logging in can work here, and why that one.

What is configured goes first. Else a browser, where one can be opened that comes back to this
machine; and elsewhere a code that is typed on another device, if the server has that.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from attrs import field, frozen

from ._io.browser import is_wsl, launchers
from .config import Settings
from .events import Method

# What Flyte and Union put into the environment of a task's container.
_TASK: Final = (
    "FLYTE_INTERNAL_EXECUTION_ID",
    "FLYTE_INTERNAL_EXECUTION_PROJECT",
    "_UNION_EAGER_API_KEY",
    "EAGER_API_KEY",
)
_SSH: Final = ("SSH_CONNECTION", "SSH_TTY", "SSH_CLIENT")
_NOTEBOOKS: Final = {
    "COLAB_RELEASE_TAG": "Colab",
    "SAGEMAKER_INTERNAL_IMAGE_URI": "SageMaker",
    "SAGEMAKER_APP_TYPE": "SageMaker",
    "KAGGLE_KERNEL_RUN_TYPE": "Kaggle",
    "JUPYTERHUB_USER": "JupyterHub",
}
_CONTAINER_FILES: Final = ("/.dockerenv", "/run/.containerenv")
_CONTAINER_GROUPS: Final = ("docker", "kubepods", "containerd", "libpod", "lxc")
_HTTPS: Final = "https://as.example/"  # any address will do to see what would open it


@frozen
class Surroundings:
    """Where this process runs, as far as a login depends on it."""

    environ: Mapping[str, str] = field(factory=dict, repr=False)
    platform: str = "linux"
    wsl: bool = False
    container: bool = False

    @property
    def has_display(self) -> bool:
        return self._has("DISPLAY", "WAYLAND_DISPLAY")

    @property
    def in_task(self) -> bool:
        """Whether this is a task of Flyte's: nobody is there who could log in."""
        return self._has(*_TASK)

    def _has(self, *names: str) -> bool:
        return any(self.environ.get(name) for name in names)

    def can_open(self, settings: Settings) -> bool:
        """Whether there is anything that a browser could be opened with."""
        if self.platform == "win32":
            return True
        command = settings.browser_command
        found = launchers(_HTTPS, self.environ, self.platform, command=command, wsl=self.wsl)
        return next(found, None) is not None

    @property
    def _has_chosen_browser(self) -> bool:
        """Whether $BROWSER names one; a text browser would take the terminal over."""
        browser = self.environ.get("BROWSER", "")
        found = launchers(_HTTPS, {"BROWSER": browser}, self.platform)
        return bool(browser) and next(found, None) is not None

    @property
    def _desktop(self) -> str:
        match self.platform:
            case "darwin":
                return "this is a Mac"
            case "win32":
                return "this is Windows"
            case _:
                return "this is Windows, by WSL" if self.wsl else ""

    def browser(self) -> str:
        """Why a browser can be opened here that comes back; empty if none can."""
        # A codespace has its own $BROWSER, which may be on a machine that cannot come back here.
        if self._has_chosen_browser and not self._has("CODESPACES"):
            return "the environment variable BROWSER names one"
        if self.has_display:
            return "this session has a display"
        return "" if self._away() else self._desktop

    def _away(self) -> str:
        """What keeps the person away from this machine, if something does."""
        if self._has(*_SSH):
            return "an SSH session"
        if self._has("CODESPACES"):
            return "a codespace"
        for name, notebook in _NOTEBOOKS.items():
            if self._has(name):
                return f"a notebook on {notebook}"
        if self._has("KUBERNETES_SERVICE_HOST"):
            return "a pod of Kubernetes"
        return "a container" if self.container else ""

    def no_browser(self) -> str:
        """Why a browser here would not do."""
        if away := self._away():
            return f"this is {away} without a display"
        if self._has("JPY_PARENT_PID"):
            return "this is a notebook on a machine without a display"
        return "this machine has no display"


def look_around() -> Surroundings:
    """Where we are. Reads a few files of the system, so call it in a worker thread."""
    return Surroundings(
        environ=dict(os.environ),
        platform=sys.platform,
        wsl=is_wsl(os.environ),
        container=_in_container(),
    )


def _in_container() -> bool:
    if any(Path(name).exists() for name in _CONTAINER_FILES):
        return True
    with suppress(OSError, UnicodeError):
        groups = Path("/proc/1/cgroup").read_text(encoding="utf-8")
        return any(name in groups for name in _CONTAINER_GROUPS)
    return False


def choose(settings: Settings, around: Surroundings, *, has_device: bool) -> tuple[Method, str]:
    """The method, and why, in words that go on after "because".

    *has_device*: whether the server has device authorization (RFC 8628).
    """
    if settings.auth_type == "ClientSecret":
        source = settings.sources.get("client_secret", "")
        origin = source.removeprefix("API key from ")
        kind = "a client secret" if origin == source else "an API key"
        return "secret", f"there is {kind} ({origin})"
    if settings.auth_type_given:
        source = settings.sources.get("auth_type", "")
        methods: Mapping[str, Method] = {"DeviceFlow": "device", "ExternalCommand": "command"}
        method = methods.get(settings.auth_type, "browser")
        return method, f"authType is {settings.auth_type} ({source})"
    if settings.browser_command is not None:
        named = settings.sources.get("browser_command", "browser_command")
        return "browser", f"a command opens one ({named})"
    if why := around.browser():
        return "browser", why
    why = around.no_browser()
    if has_device:
        return "device", why
    return "browser", f"the server has no device authorization, although {why}"
