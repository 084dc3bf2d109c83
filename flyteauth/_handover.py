"""What a Flyte tool needs to use our login: a private directory, and environment variables."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from ._own_command import asking, token_command
from .config import SETTINGS, Settings
from .errors import ConfigError, StoreError

# How other programs are given an API key or a secret: the tool asks us for tokens instead.
_SECRET: Final = (
    "_UNION_EAGER_API_KEY",
    "EAGER_API_KEY",
    "FLYTE_CREDENTIALS_CLIENT_SECRET",
)
_CONFIGS: Final = ("UCTL_CONFIG", "UNION_CONFIG", "FLYTECTL_CONFIG")
_HANDED_OVER: Final = re.compile(r"flyteauth-exec-([1-9][0-9]{0,8})-\w+", re.ASCII)
# What our own command is told in words, and what a tool must not be told.
_NOT_COPIED: Final = frozenset(
    "endpoint auth_type insecure client_secret_location client_secret_env_var".split()
)


WITHOUT_TLS: Final = "without TLS flyte sends no token, whoever it is from; flytekit does"


@contextmanager
def handed_over(settings: Settings, *, wanted: bool) -> Iterator[dict[str, str]]:
    """The environment for a tool, as long as the body runs. Without *wanted*, the control plane
    takes calls without a token. Raises StoreError for a login that no other process can use.
    """
    _require_usable(settings, wanted=wanted)
    with _private_directory() as folder:
        command = _command(settings, folder) if wanted else None
        config = folder / "config.yaml"
        _write(config, {**_other_sections(settings), **_for_tool(settings, command)})
        yield _environ(settings, config, command)


def lost_on_flyte(settings: Settings, header: str | None) -> Iterator[str]:
    """Why flyte will not send what our command prints, if it will not: in a sentence each. *header*
    is the one that the control plane takes tokens from; None where it takes none.
    """
    if settings.plain_host is not None and header is not None:
        yield WITHOUT_TLS
    if header not in {None, "authorization"}:
        yield (
            f"this control plane takes tokens from {header}, and flyte sends those of a command in "
            "authorization; in a program, use flyteauth.integrations.flyte.installed"
        )


@contextmanager
def asked_by_command(settings: Settings) -> Iterator[list[str]]:
    """The command by which another program gets the tokens of this login, as long as the body
    runs. Raises StoreError for a login that no other process can use.
    """
    _require_usable(settings, wanted=True)
    with _private_directory() as folder:
        yield _command(settings, folder)


def _require_usable(settings: Settings, *, wanted: bool) -> None:
    if settings.endpoint is None:
        raise ConfigError(
            "a tool needs a control plane to talk to; add --endpoint", reason="endpoint"
        )
    if wanted and not settings.is_service:
        _require_kept(settings)


@contextmanager
def _private_directory() -> Iterator[Path]:
    _sweep(tempfile.gettempdir())
    prefix = f"flyteauth-exec-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix) as name:  # 0700
        yield Path(name)


def _sweep(directory: str) -> None:
    """Remove what was handed over by processes that were killed: a secret may be in it."""
    if sys.platform == "win32":  # where to ask for a process with signal 0 is to interrupt it
        return
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            made = _HANDED_OVER.fullmatch(entry.name)
            if made is not None and _is_gone(int(made[1])):
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                        shutil.rmtree(entry.path, ignore_errors=True)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    return False


def _require_kept(settings: Settings) -> None:
    """Raise StoreError for a person's login that only this process has."""
    from ._identity import store_kind
    from ._stored import look

    if store_kind(settings) == "shared":  # whoever could not write to it has been told
        return
    kept = look(settings)
    if kept.record is None:
        why = f"the login is in {kept.place}" if kept.error is None else str(kept.error)
        raise StoreError(
            f"{why}; no tool can use it from there, so set admin.tokenStore to file or keyring",
            reason="not_kept",
        )


def _command(settings: Settings, folder: Path) -> list[str]:
    """What prints a token: our own command, whatever it takes to have one."""
    assert settings.endpoint is not None
    config = folder / "login.yaml"
    _write(config, {"admin": _for_us(settings, folder)})
    # These stand before the environment, which is the tool's.
    words = ("--endpoint", settings.endpoint.url, "--auth-type", settings.auth_type)
    return token_command(config, *words)


def _for_us(settings: Settings, folder: Path) -> dict[str, Any]:
    """The section admin for our own command: all that these settings have of it."""
    admin: dict[str, Any] = {"insecure": settings.insecure}
    for setting in SETTINGS:
        unset = settings.sources.get(setting.name, "default") == "default"
        if setting.section == "admin" and setting.name not in _NOT_COPIED and not unset:
            admin[setting.key] = _plain(getattr(settings, setting.name))
    if settings.callback_bind is not None:
        address, port = settings.callback_bind
        host = f"[{address}]" if ":" in address else address
        admin["callbackBind"] = host if port is None else f"{host}:{port}"
    if (secret := settings.client_secret) is not None:
        kept = Path(secret.held) if secret.kind == "file" else folder / "secret"
        if secret.kind != "file":
            _write(kept, secret.read())
        admin["clientSecretLocation"] = str(kept)
    return admin


def _plain(value: Any) -> Any:
    """A setting as YAML can say it."""
    match value:
        case Mapping():
            return {key: _plain(each) for key, each in value.items()}
        case Path():
            return str(value)
        case tuple() | frozenset():
            return sorted(value) if isinstance(value, frozenset) else list(value)
        case _:
            return value


def _other_sections(settings: Settings) -> dict[Any, Any]:
    """What the configuration file says besides: of images, logs and so on."""
    if settings.config_file is None:
        return {}
    import yaml

    from ._config_file import FILE_MAX, contents

    data, _ = contents(settings.config_file, FILE_MAX)
    return yaml.safe_load(data.decode("utf-8-sig")) or {}


def _for_tool(settings: Settings, command: list[str] | None) -> dict[str, Any]:
    """The sections admin and task for a tool, as flyte and flytekit read them."""
    admin: dict[str, Any] = {"endpoint": target(settings)}
    if settings.plain_host is not None:
        admin["insecure"] = True
    if settings.insecure_skip_verify:
        admin["insecureSkipVerify"] = True
    if settings.ca_file is not None:
        admin["caCertFilePath"] = str(settings.ca_file)
    if settings.http_proxy_url is not None:
        admin["httpProxyURL"] = settings.http_proxy_url
    if command is not None:
        admin |= asking(command)
    given = {"org": settings.org, "project": settings.project, "domain": settings.domain}
    task = {key: value for key, value in given.items() if value}
    return {"admin": admin, **({"task": task} if task else {})}


def target(settings: Settings) -> str:
    """The control plane, as Flyte's own tools write it."""
    assert settings.endpoint is not None
    return f"dns:///{settings.endpoint.url.partition('://')[2]}"


def _environ(settings: Settings, config: Path, command: list[str] | None) -> dict[str, str]:
    """Ours, without secrets, and with what goes before a file in the tool's working directory."""
    gone = {*_SECRET, *settings.secret_variables}
    gone |= {name for s in SETTINGS if s.section == "admin" for name in s.variables}
    environ = {name: value for name, value in os.environ.items() if name not in gone}
    environ |= dict.fromkeys(_CONFIGS, str(config))
    environ |= dict.fromkeys(("FLYTE_ADMIN_ENDPOINT", "FLYTE_PLATFORM_URL"), target(settings))
    if settings.plain_host is not None:  # there is no way to say false: any text is true
        environ |= dict.fromkeys(("FLYTE_ADMIN_INSECURE", "FLYTE_PLATFORM_INSECURE"), "true")
    if settings.ca_file is not None:
        environ["FLYTE_ADMIN_CACERTFILEPATH"] = str(settings.ca_file)
    if command is None:
        return environ
    environ |= {
        "FLYTE_AUTH_TYPE": "ExternalCommand",
        "FLYTE_AUTH_COMMAND": json.dumps(command),
        "FLYTE_ADMIN_DISABLEKEYRING": "true",
        "FLYTE_CREDENTIALS_AUTH_MODE": "ExternalCommand",
    }
    if not any("," in word for word in command):  # flytekit separates them so, and reads the file
        environ["FLYTE_CREDENTIALS_COMMAND"] = ",".join(command)
    return environ


def _write(path: Path, content: str | Mapping[Any, Any]) -> None:
    """*content* in a new file that nobody else can read."""
    if not isinstance(content, str):
        import yaml

        content = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
        file.write(content)
