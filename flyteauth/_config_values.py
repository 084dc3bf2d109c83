"""
What each kind of configured value may be.

Each function reads what YAML, an environment variable or an argument gives. Every failure is a
ConfigError of one line that names where the value came from and what to write instead, and none
shows the value: a secret is often one wrong line away. What only one kind needs is imported there.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ._config_file import FILE_MAX, absolute, contents
from ._sansio.errors import ConfigError
from ._sansio.urls import is_secure, split_url
from ._sansio.value import Value


class Found(Value, hidden=("value",)):
    """A value as it was given, for one setting, and where."""

    setting: str
    value: object
    source: str
    argument: bool = False

    def wrong(self, problem: str, advice: str) -> ConfigError:
        return ConfigError(f"{self.source}: {problem}; {advice}", reason=self.setting)


def text(found: Found) -> str:
    """One line of text; white space around it does not count."""
    if not isinstance(found.value, str):
        raise found.wrong("this is not text", "write it as text, in quotes")
    value = found.value.strip()
    if not value:
        raise found.wrong("this is empty", "give it a value, or leave it out")
    if not value.isprintable():
        raise found.wrong("this has a character that cannot be printed", "write it as plain text")
    return value


_FLAGS: Final = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


def flag(found: Found) -> bool:
    value = found.value
    answer = _FLAGS.get(str(value).strip().lower()) if isinstance(value, int | str) else None
    if answer is None:
        raise found.wrong("this is not true or false", "write true or false")
    return answer


def seconds(found: Found) -> float:
    value = found.value
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not (0 < number < math.inf):
        raise found.wrong("this is not a positive number of seconds", "write it like 300")
    return number


def one_of(names: Iterable[str]) -> Callable[[Found], str]:
    """One of a few words, exactly."""
    names = tuple(names)

    def convert(found: Found) -> str:
        value = text(found)
        if value not in names:
            raise found.wrong("this value is not known", f"write {_either(names)}")
        return value

    return convert


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def scopes(found: Found) -> tuple[str, ...]:
    """A list, a JSON array, or words between commas or spaces; as an argument it may be empty."""
    names = _list(found, _words)
    if not names and not found.argument:
        raise found.wrong("this is empty", "write a scope, or leave it out")
    from ._sansio.client import join_scopes

    try:
        join_scopes(names)
    except ConfigError:  # it shows the scope, which may be something else in the wrong place
        wrong = True
    else:
        wrong = False
    if wrong:
        raise found.wrong(
            "one of these is not a scope",
            "write scopes as a list, each without spaces, quotes and backslashes",
        )
    return names


def quirks(found: Found) -> frozenset[str]:
    names = frozenset(_list(found, _words))
    from ._sansio.client import QUIRKS

    if not names <= set(QUIRKS):
        raise found.wrong("one of these is not known", f"write {_either(QUIRKS)}")
    return names


def tools(found: Found) -> tuple[str, ...]:
    """Flyte's other clients, each once."""
    names = _list(found, _words)
    from ._sansio.keyring_layouts import TOOLS

    if not set(names) <= set(TOOLS):
        raise found.wrong("one of these is not known", f"write {_either(TOOLS)}")
    return tuple(dict.fromkeys(names))


def argv(found: Found) -> tuple[str, ...]:
    """A command: a list, a JSON array, or a line as a shell would split it."""
    import shlex

    words = _list(found, shlex.split)
    if not words or any("\0" in word for word in words):
        raise found.wrong("this is not a command", 'write it as a list, ["program", "argument"]')
    return words


def _words(line: str) -> list[str]:
    return [word for word in re.split(r"[,\s]+", line) if word]


def _list(found: Found, split: Callable[[str], list[str]]) -> tuple[str, ...]:
    value = found.value
    if isinstance(value, str):
        line = value.strip()
        try:
            value = json.loads(line) if line.startswith("[") else split(line)
        except (ValueError, RecursionError):
            value = None
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    if not isinstance(value, list | tuple) or not all(isinstance(x, str) and x for x in value):
        raise found.wrong("this is not a list of texts", "write it as a list, each text in quotes")
    return tuple(value)


def variable(found: Found) -> str:
    """The name of an environment variable."""
    name = text(found)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise found.wrong(
            "this is not the name of an environment variable", "write the name, not the value"
        )
    return name


def path(found: Found) -> Path:
    """The absolute name of a file; ~ is the home directory."""
    if isinstance(found.value, os.PathLike):
        found = Found(found.setting, os.fspath(found.value), found.source, found.argument)
    return absolute(os.path.expanduser(text(found)))  # noqa: PTH111  pathlib raises without a home


def certificates(found: Found) -> Path:
    """A file of certificates in PEM form (RFC 7468 §5)."""
    file = path(found)
    data, problem = contents(file, 16 * FILE_MAX)
    if not problem and not re.search(rb"-----BEGIN (X509 |TRUSTED )?CERTIFICATE-----", data):
        problem = "holds no certificate"
    if problem:
        raise found.wrong(f"{file} {problem}", "name a file of certificates in PEM form")
    return file


# URLs.


def issuer(found: Found) -> str:
    """An issuer identifier (RFC 8414 §2), exactly as it was written."""
    url = text(found)
    if not split_url(url) or not is_secure(url) or "?" in url:
        raise found.wrong(
            "this is not an https URL without user name, query and fragment",
            "write it like https://login.example.com/tenant",
        )
    return url


def redirect_uri(found: Found) -> str:
    """Where the browser comes back to: this machine (RFC 8252 §7.3, §8.3)."""
    url = text(found)
    parts = split_url(url)
    if (
        parts is None
        or parts.scheme != "http"
        or parts.hostname not in {"127.0.0.1", "::1", "localhost"}
        or "@" in parts.netloc
        or "#" in url
    ):
        raise found.wrong(
            "this is not an http URL of 127.0.0.1, [::1] or localhost",
            "write it like http://localhost:53593/callback",
        )
    return url


_BIND_ADDRESS: Final = r"(?:\[([^\[\]]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?|([^\[\]]+)"


def bind_address(found: Found) -> tuple[str, int | None]:
    """An IP address of this machine, and maybe a port; with one, IPv6 stands in brackets."""
    from ipaddress import ip_address

    match = re.fullmatch(_BIND_ADDRESS, text(found))
    try:
        address = str(ip_address("".join(filter(None, match.group(1, 2, 4))) if match else ""))
        port = int(match[3]) if match and match[3] else None
    except ValueError:
        address, port = "", None
    if not address or (port is not None and not 0 < port < 65536):
        raise found.wrong(
            "this is not an IP address, with or without a port",
            "write it like 0.0.0.0 or [::]:53593",
        )
    return address, port


def proxy(found: Found) -> str:
    """The URL of a proxy; it may hold a user name and a password."""
    url = text(found)
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https", "socks5", "socks5h"} and parts.hostname
        _ = parts.port
    except ValueError:
        valid = False
    if not valid or not url.isascii() or " " in url:
        raise found.wrong("this is not the URL of a proxy", "write it like http://proxy:3128")
    return url


_STORES: Final = ("keyring", "file", "memory")
_STORE_SCHEMES: Final = frozenset({"redis", "rediss", "valkey", "valkeys", "unix", "redis+unix"})


def token_store(found: Found) -> str:
    """The name of a store, or the URL of a shared one; it may hold a user name and a password."""
    value = text(found)
    if value in _STORES:
        return value
    try:
        parts = urlsplit(value)
        valid = parts.scheme in _STORE_SCHEMES and bool(parts.hostname or parts.path)
        _ = parts.port
    except ValueError:
        valid = False
    if not valid:
        raise found.wrong(
            "this value is not known", f"write {', '.join(_STORES)} or redis://host:6379/0"
        )
    return value


def endpoints(found: Found) -> dict[str, str]:
    """Endpoints of the authorization server by their names in RFC 8414 §2."""
    from ._sansio.client import ENDPOINTS

    given = _mapping(found)
    for name, url in given.items():
        if name not in ENDPOINTS:
            raise found.wrong(
                "this names an endpoint that is not known", f"use {_either(ENDPOINTS)}"
            )
        if not isinstance(url, str) or not is_secure(url):
            raise found.wrong(
                f"{name} is not an https URL", "write it like https://login.example.com/token"
            )
    return given


REQUESTS: Final = ("authorization", "device_authorization", "token")


def extra_parameters(found: Found) -> dict[str, dict[str, str]]:
    """Parameters by the request that they belong to; a flat mapping is for the authorization."""
    from ._sansio.client import PROTOCOL

    given = _mapping(found)
    if given and all(isinstance(value, str) for value in given.values()):
        given = {"authorization": given}
    for request, parameters in given.items():
        if request not in REQUESTS or not isinstance(parameters, Mapping):
            raise found.wrong(
                "parameters belong to a request", f"file them under {_either(REQUESTS)}"
            )
        if not all(isinstance(x, str) for pair in parameters.items() for x in pair):
            raise found.wrong(f"{request} has a value that is not text", "write it in quotes")
        for name in sorted(PROTOCOL & parameters.keys()):
            raise found.wrong(f"{name} belongs to the protocol", f"remove {name}")
    return {request: dict(parameters) for request, parameters in given.items()}


def _mapping(found: Found) -> dict[str, Any]:
    value = found.value
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise found.wrong("this is not a mapping", "write names and values below it, indented")
    return dict(value)
