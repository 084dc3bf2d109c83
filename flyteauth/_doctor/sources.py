"""Why the configuration is what it is: each value, where it came from, and what lost against it.

No secret is among what is shown: of an API key there is a fingerprint, of a URL the part that
holds no password, and of a command its program.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Final, Literal
from urllib.parse import urlsplit

from .._sansio.value import Value as _Value
from ..config import API_KEY_VARIABLES, SETTINGS, Secret, Settings

CONFIG_VARIABLES: Final = ("UCTL_CONFIG", "UNION_CONFIG", "FLYTECTL_CONFIG")
_ALSO: Final = {
    "FLYTEAUTH_HOME": "where logins are kept",
    "HTTPS_PROXY": "a proxy",
    "HTTP_PROXY": "a proxy",
    "ALL_PROXY": "a proxy",
    "NO_PROXY": "hosts that need no proxy",
    "https_proxy": "a proxy",
    "http_proxy": "a proxy",
    "all_proxy": "a proxy",
    "no_proxy": "hosts that need no proxy",
    "SSL_CERT_FILE": "certificates to trust",
    "SSL_CERT_DIR": "certificates to trust",
    "BROWSER": "the browser",
    "PYTHON_KEYRING_BACKEND": "the keyring",
}
_OURS: Final = ("FLYTE_ADMIN_", "FLYTE_AUTH_", "FLYTE_TASK_")
_FLAGS: Final = {"ca_cert_file_path": "--ca-cert"}


class Value(_Value):
    """A setting that has a value: what to show of it, and the sources that lost."""

    name: str
    value: str
    source: str
    over: tuple[str, ...]


class Variable(_Value):
    """An environment variable that is set, and what became of it."""

    name: str
    state: Literal["used", "lost", "ignored"]
    why: str


def values(settings: Settings, environ: Mapping[str, str]) -> list[Value]:
    """Every setting that somebody gave a value, in the order of the documentation."""
    return [
        Value(
            name,
            _shown(name, settings, environ),
            spoken(source),
            tuple(spoken(lost) for lost in settings.overridden.get(name, ())),
        )
        for name, source in settings.sources.items()
        if source != "default"
    ]


def spoken(source: str) -> str:
    """A source by the name that the command line has for it."""
    kind, _, name = source.partition(" ")
    if kind != "argument":
        return source
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")


def _shown(name: str, settings: Settings, environ: Mapping[str, str]) -> str:
    if name == "endpoint":
        return settings.endpoint.url if settings.endpoint is not None else ""
    value = getattr(settings, name)
    match name, value:
        case _, Secret(kind="file", held=held):
            return f"in the file {held}"
        case _, Secret(kind="environment", held=held):
            return f"in the environment variable {held}"
        case _, Secret():
            variable = settings.sources[name].rpartition(" ")[2]
            key = environ.get(variable, "")
            return f"hidden ({fingerprint(key)})" if key else "hidden"
        case "command" | "proxy_command" | "browser_command", (program, *rest):
            return f"{program} and {len(rest)} words, hidden" if rest else str(program)
        case "extra_parameters", Mapping():
            return ", ".join(f"{request}: {' '.join(given)}" for request, given in value.items())
        case "endpoints", Mapping():
            return ", ".join(f"{key} {without_secrets(url)}" for key, url in value.items())
        case "callback_bind", (address, port):
            return str(address) if port is None else f"{address} port {port}"
        case _, bool():
            return "true" if value else "false"
        case _, tuple() | frozenset():
            return " ".join(sorted(value)) or "none"
    return without_secrets(str(value))


def fingerprint(key: str) -> str:
    """What tells one API key from another, and helps nobody to use it."""
    digest = hashlib.sha256("".join(key.split()).encode("utf-8", "replace")).hexdigest()
    return f"API key {digest[:8]}"


def without_secrets(text: str) -> str:
    """*text*; if it is a URL, without user name, password and query."""
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        return "hidden"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def variables(
    settings: Settings, environ: Mapping[str, str], *, asked: str | None
) -> list[Variable]:
    """Every environment variable that is set and has to do with us; *asked* is ``--config``."""
    return sorted(_variables(settings, environ, asked), key=lambda variable: variable.name)


def _variables(
    settings: Settings, environ: Mapping[str, str], asked: str | None
) -> Iterator[Variable]:
    meant = {variable: setting.name for setting in SETTINGS for variable in setting.variables}
    for variable in environ:
        if variable in _ALSO and environ[variable]:
            yield Variable(variable, "used", _ALSO[variable])
        elif variable in meant or variable in {*API_KEY_VARIABLES, *CONFIG_VARIABLES}:
            if not environ[variable]:
                yield Variable(variable, "ignored", "it is empty, so it counts as not set")
            elif variable in meant:
                yield _setting_variable(variable, meant[variable], settings)
            elif variable in API_KEY_VARIABLES:
                yield _key_variable(variable, settings, environ)
            else:
                yield _config_variable(variable, settings, asked)
        elif variable.startswith(_OURS):
            yield Variable(variable, "ignored", "there is no setting of that name")


def _setting_variable(variable: str, name: str, settings: Settings) -> Variable:
    source = f"environment variable {variable}"
    field = "client_secret" if name.startswith("client_secret_") else name
    winner = settings.sources.get(field, "default")
    if winner == source:
        return Variable(variable, "used", field)
    if winner == "default":
        return Variable(variable, "ignored", "the variable that it names is not set")
    if source in settings.overridden.get(field, ()):
        return Variable(variable, "lost", f"{spoken(winner)} goes before it")
    if field == "client_secret":
        return Variable(variable, "lost", "there is another place for the client secret")
    twin = next(s for s in SETTINGS if s.name == name).variables[0]
    return Variable(variable, "lost", f"{twin} goes before it")


def _key_variable(variable: str, settings: Settings, environ: Mapping[str, str]) -> Variable:
    key = fingerprint(environ[variable])
    source, sources = f"API key from environment variable {variable}", settings.sources
    if source in sources.values():
        return Variable(variable, "used", key)
    secret = settings.client_secret
    if secret is not None and secret.kind == "environment" and secret.held == variable:
        return Variable(
            variable, "used", "as the client secret, because clientSecretEnvVar says so"
        )
    if any(source in lost for lost in settings.overridden.values()):
        return Variable(variable, "lost", f"{key}: everything in it is said elsewhere")
    for other in API_KEY_VARIABLES:
        if f"API key from environment variable {other}" in sources.values():
            return Variable(variable, "ignored", f"{key}: {other} goes before it")
    who = sources.get("auth_type", "default")
    if who.startswith("argument "):
        return Variable(variable, "ignored", f"{key}: {spoken(who)} says who logs in")
    return Variable(variable, "ignored", f"{key}: the configuration says who logs in")


def _config_variable(variable: str, settings: Settings, asked: str | None) -> Variable:
    if any(f"environment variable {variable}): used" in line for line in settings.considered):
        return Variable(variable, "used", "the configuration file")
    if asked is not None:
        return Variable(variable, "lost", "--config goes before it")
    if settings.config_file is not None:
        return Variable(variable, "lost", f"{settings.config_file} goes before it")
    return Variable(variable, "ignored", "no file was looked for")
