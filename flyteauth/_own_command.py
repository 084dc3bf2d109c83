"""
``flyteauth token`` as the command that other programs get their tokens from (ExternalCommand).

Such a program's configuration does not say any more how to log in; the one that its command names
does. Whoever reads the former goes on with the latter: to run the command would be to ask oneself.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ._config_file import ConfigFile, find
from ._config_values import Found, argv
from ._sansio.errors import ConfigError
from ._sansio.value import Value

if TYPE_CHECKING:
    from .config import Settings

# What was given, in one place, by the name of the setting.
Layer = Mapping[str, Found]

_ASKING: Final = frozenset({"auth_type", "command"})
# In the environment, that the tool should keep its hands off the keyring is about the tool alone.
_ASKING_THERE: Final = _ASKING | {"disable_keyring"}

WITHOUT_TLS: Final = "without TLS flyte sends no token, whoever it is from; flytekit does"

_TELLING: Final = frozenset(
    "FLYTE_AUTH_TYPE FLYTE_AUTH_COMMAND FLYTE_ADMIN_DISABLEKEYRING FLYTE_CREDENTIALS_AUTH_MODE "
    "FLYTE_CREDENTIALS_COMMAND".split()
)

# The options of ours that say which login it is, and the setting that each one is.
_OPTIONS: Final = {
    "--endpoint": "endpoint",
    "--account": "account",
    "--auth-type": "auth_type",
    "--ca-cert": "ca_file",
}


class Asked(Value):
    """What the words of a command of ours ask for: by which file, and which settings they say."""

    config: str | None
    said: Mapping[str, object]

    @property
    def says_who(self) -> bool:
        """Whether it says how to log in, other than by what asks it."""
        return self.config is not None or "auth_type" in self.said


def asked(command: Sequence[str]) -> Asked | None:
    """What *command* asks for if it is our own; a wrapper around it is not."""
    words = _ours(command)
    if words is None or "token" not in words:
        return None
    config: str | None = None
    said: dict[str, object] = {}
    rest = iter(words)
    for word in rest:
        option, separator, value = word.partition("=")
        if option == "--insecure":
            said["insecure"] = True
        elif option == "--config" or option in _OPTIONS:
            value = value if separator else next(rest, "")
            if option == "--config":
                config = value
            else:
                said[_OPTIONS[option]] = value
    return Asked(config, said)


def _ours(command: Sequence[str]) -> Sequence[str] | None:
    """The words after ``flyteauth``, or after ``python -m flyteauth``."""
    name, *rest = [*command, ""]
    if _stem(name) == "flyteauth":
        return rest
    for at, word in enumerate(rest):
        if word == "-m":
            return rest[at + 2 :] if rest[at + 1 : at + 2] == ["flyteauth"] else None
        if not word.startswith("-"):
            return None
    return None


def _stem(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2].lower().removesuffix(".exe")


def token_command(config: str | Path, *words: str) -> list[str]:
    """The command that prints a token by the configuration file *config*, from any directory."""
    script = Path(sys.executable).with_name(f"flyteauth{'.exe' if os.name == 'nt' else ''}")
    # -P: what happens to lie in a tool's working directory is no module of ours.
    module = (sys.executable, "-P", "-m", "flyteauth")
    program = (str(script),) if os.access(script, os.X_OK) else module
    return [*program, "token", "--verify", "--config", str(config), *words]


# What an argument says that --auth-type can say, where a person logs in.
_AUTH_TYPES: Final = {"Pkce": "pkce", "DeviceFlow": "headless"}


# What belongs to a login, and has no option.
_ONLY_IN_A_FILE: Final = {"issuer": "issuer", "client_id": "clientId", "audience": "audience"}


def to_run(settings: Settings, *words: str) -> str:
    """``flyteauth`` *words* for the login that *settings* mean, as a line for a shell. What the
    environment or a file that is found says, it finds by itself; it is told what only a program has
    said.
    """

    def said(name: str) -> bool:
        return settings.sources.get(name, "").startswith("argument ")

    line = ["flyteauth", *words]
    if settings.config_named:
        line += ["--config", str(settings.config_file)]
    if settings.endpoint is not None and said("endpoint"):
        line += ["--endpoint", settings.endpoint.spelling]
    if settings.account is not None and said("account"):
        line += ["--account", settings.account]
    if settings.auth_type in _AUTH_TYPES and said("auth_type"):
        line += ["--auth-type", _AUTH_TYPES[settings.auth_type]]
    if settings.ca_file is not None and said("ca_file"):
        line += ["--ca-cert", str(settings.ca_file)]
    if "login" in words:
        if settings.scopes and said("scopes"):
            line += ["--scopes", " ".join(settings.scopes)]
        for tool in settings.shared_logins if said("shared_logins") else ():
            line += ["--share", tool]
    if settings.insecure and said("insecure"):
        line.append("--insecure")
    missing = [key for name, key in _ONLY_IN_A_FILE.items() if said(name)]
    hint = f" with {', '.join(missing)} in its file, as the program says" if missing else ""
    return f"{shlex.join(line)}{hint}"


def asking(command: Sequence[str]) -> dict[str, Any]:
    """The part of admin by which flyte and flytekit ask *command*."""
    return {
        "authType": "ExternalCommand",
        "command": list(command),
        # flyte would put the token into its keyring item, in the place of its own login.
        "disableKeyring": True,
    }


def asking_variables(environ: Mapping[str, str]) -> frozenset[str]:
    """The variables in *environ* by which a tool is told to ask us. What such a tool leads to, a
    command of the user's, is no such tool: it may ask us by another configuration.
    """
    line = environ.get("FLYTE_AUTH_COMMAND")
    try:
        words = () if not line else argv(Found("command", line, "FLYTE_AUTH_COMMAND"))
    except ConfigError:
        return frozenset()
    return _TELLING if asked(words) is not None else frozenset()


# Going on where such a command leads.


def followed(
    environment: Layer,
    file: Layer,
    read: Callable[[ConfigFile], Layer],
    *,
    elsewhere: Collection[str],
) -> tuple[Layer, list[Layer], tuple[str, ...]]:
    """What *environment* and *file* come to where they have other programs ask us, as our command
    would see it: what its words say, which goes before both; the two; and a line for each file that
    it has led to. The settings *elsewhere* are those of *file*, whatever is asked.
    """
    said: Layer = {}
    led: list[str] = []
    seen: set[str | None] = set()
    layers = [environment, file]
    for at in (0, 1):
        while (ours := _own(layers[at], layers[1 - at])) is not None:
            if not ours.says_who or ours.config in seen:
                break
            seen.add(ours.config)
            command = layers[at]["command"]
            said = {**{k: Found(k, v, command.source, True) for k, v in ours.said.items()}, **said}
            if at == 0 or ours.config is None:
                asking = _ASKING if at else _ASKING_THERE
                layers[at] = {k: v for k, v in layers[at].items() if k not in asking}
            if ours.config is None:
                continue
            named, _ = find(ours.config, {}, search=False)
            assert named is not None
            there = read(named)
            if at == 1:
                _require_same_endpoint(layers[1], there)
            layers[1] = {**there, **{k: v for k, v in layers[1].items() if k in elsewhere}}
            led.append(f"{named.path}: used, {command.source} asks by it")
    return said, layers, tuple(led)


def _own(layer: Layer, other: Layer) -> Asked | None:
    """What *layer* has other programs ask us, if it does; where it does not say the authType, the
    *other* one does.
    """
    command, auth_type = layer.get("command"), layer.get("auth_type") or other.get("auth_type")
    if command is None or auth_type is None or auth_type.value != "ExternalCommand":
        return None
    return asked(argv(command))


def _require_same_endpoint(asks: Layer, there: Layer) -> None:
    """Raise ConfigError where a tool would be given the token of another control plane than the one
    it talks to.
    """
    if "endpoint" not in asks or "endpoint" not in there:
        return
    theirs, ours = (str(layer["endpoint"].value).strip() for layer in (asks, there))
    if _bare(theirs) != _bare(ours):
        raise ConfigError(
            f"{asks['endpoint'].source}: this is another control plane than that of "
            f"{there['endpoint'].source}, whose token it would get; run flyteauth create config "
            "with the --endpoint that both should have",
            reason="endpoint",
        )


def _bare(endpoint: str) -> str:
    return endpoint.partition("://")[2].strip("/").lower() or endpoint.strip("/").lower()
