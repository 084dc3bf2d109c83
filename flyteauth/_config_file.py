"""
How configuration is read: where its file is, its YAML, and what each kind of value may be.

Nothing here knows a key; `config` does. Every failure is a ConfigError of one line that names
where the value came from and what to write instead, and none shows the value: a secret is often
one wrong line away.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from attrs import field, frozen

from ._sansio.client import ENDPOINTS, PROTOCOL, QUIRKS, join_scopes
from ._sansio.errors import ConfigError
from ._sansio.http import is_secure, split_url

if TYPE_CHECKING:
    import yaml

FILE_MAX: Final = 1024 * 1024
ALIASES_MAX: Final = 32  # merged aliases multiply: without a limit, a page of YAML fills the memory


@frozen
class Found:
    """A value as it was given, for one setting, and where."""

    setting: str
    value: object = field(repr=False)
    source: str
    argument: bool = False

    def wrong(self, problem: str, advice: str) -> ConfigError:
        return ConfigError(f"{self.source}: {problem}; {advice}", reason=self.setting)


def contents(path: str | Path, limit: int) -> tuple[bytes, str]:
    """What is in a file, and what is wrong with reading it ("" if nothing is)."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        return b"", f"cannot be read ({(error.strerror or 'unknown error').lower()})"
    except ValueError:  # a NUL in the name
        return b"", "cannot be read (not a file name)"
    return (b"", f"is larger than {limit} bytes") if len(data) > limit else (data, "")


# The search.


@frozen
class ConfigFile:
    """A configuration file that was read: its sections, as far as they are mappings."""

    path: Path
    sections: Mapping[str, Mapping[object, object]] = field(repr=False)


@frozen
class _Place:
    path: Path
    variable: str = ""  # the environment variable that names the file, if one does
    shared: bool = False  # whether other programs have files of this name


def find(
    path: str | Path | None, environ: Mapping[str, str], *, search: bool
) -> tuple[ConfigFile | None, tuple[str, ...]]:
    """The file that counts, and a line for each file that was looked at."""
    if path is not None:
        place = _Place(_absolute(os.path.expanduser(path)))  # noqa: PTH111  pathlib raises without a home
        return _read(place), (f"{place.path}: used, it was asked for",)
    considered: list[str] = []
    for place in _places(environ) if search else ():
        named = f"{place.path} (environment variable {place.variable})"
        name = named if place.variable else str(place.path)
        if not os.path.isfile(place.path):  # noqa: PTH113  pathlib raises where it may not look
            if place.variable:
                raise ConfigError(
                    f"environment variable {place.variable}: there is no file {place.path}; "
                    f"correct or unset {place.variable}",
                    reason="config_file",
                )
            considered.append(f"{name}: not there")
            continue
        file = _read(place)
        if file is not None:
            considered.append(f"{name}: used")
            return file, tuple(considered)
        considered.append(f"{name}: passed over, nothing in it is Flyte's")
    return None, tuple(considered)


def _places(environ: Mapping[str, str]) -> Iterator[_Place]:
    try:
        here = Path.cwd()
    except OSError:  # the directory was removed under our feet
        pass
    else:
        yield _Place(here / "config.yaml", shared=True)
        yield _Place(here / ".flyte" / "config.yaml")
        root = next((p for p in (here, *here.parents) if os.path.exists(p / ".git")), here)  # noqa: PTH110  as above
        if root != here:
            yield _Place(root / ".flyte" / "config.yaml")
    home = environ.get("USERPROFILE" if os.name == "nt" else "HOME") or os.path.expanduser("~")  # noqa: PTH111  as above
    for variable in ("UCTL_CONFIG", "UNION_CONFIG", "FLYTECTL_CONFIG"):
        if name := environ.get(variable):
            yield _Place(_absolute(re.sub(r"^~(?=[/\\]|$)", lambda _: home, name)), variable)
    yield _Place(Path(home) / ".union" / "config.yaml")
    yield _Place(Path(home) / ".flyte" / "config.yaml")


def _absolute(name: str | Path) -> Path:
    try:
        return Path(os.path.abspath(name))  # noqa: PTH100  Path.absolute() keeps the dots
    except (OSError, ValueError):
        return Path(name)


# The file. Flyte's tools read other sections of it; they are not ours to judge.

_SECTIONS: Final = frozenset("admin console image local logger storage task union".split())
_ADMIN: Final = re.compile(rb"^admin\s*:", re.MULTILINE)


def _read(place: _Place) -> ConfigFile | None:
    """The file at *place*, or None if it belongs to another program."""
    data, problem = contents(place.path, FILE_MAX)
    if problem and not (place.shared and "larger" in problem):
        raise ConfigError(
            f"{place.path}: the file {problem}; correct its name or its permissions",
            reason="config_file",
        )
    try:
        document = _parse(data, place.path)
    except ConfigError:
        if place.shared and not _ADMIN.search(data):
            return None
        raise
    if place.shared and not any(
        name in _SECTIONS and isinstance(section, Mapping) for name, section in document.items()
    ):
        return None
    sections: dict[str, Mapping[object, object]] = {}
    for name in ("admin", "task"):
        section = document.get(name)
        if not isinstance(section, Mapping | None):
            raise ConfigError(
                f"{place.path}: {name} is not a mapping; write its keys below it, indented",
                reason=name,
            )
        sections[name] = section or {}
    return ConfigFile(place.path, sections)


def _parse(data: bytes, path: Path) -> Mapping[object, object]:
    import yaml

    document: object = None
    at: tuple[int, int] | None = None
    problem = ""
    try:
        data = data.removeprefix(codecs.BOM_UTF8)
        content = data.decode()
        root = yaml.compose(content, Loader=yaml.SafeLoader)
        problem, at = _check(root)
        document = None if problem else yaml.safe_load(content)
    except UnicodeDecodeError as error:
        problem, at = "this is not text in UTF-8", _position(data[: error.start].decode())
    except yaml.reader.ReaderError as error:
        problem, at = "this character may not be in YAML", _position(content[: error.position])
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem, at = "this is not YAML", (mark.line, mark.column) if mark else None
    except Exception:  # noqa: BLE001  explicit tags and impossible dates raise whatever comes up
        problem = "this is not YAML that can be read"
    if not isinstance(document, Mapping | None):
        problem = "this is not a mapping of sections"
    if problem:
        where = f", line {at[0] + 1}, column {at[1] + 1}" if at else ""
        raise ConfigError(
            f"{path}{where}: {problem}; correct it, or start again from "
            "'admin:' and below it, indented, 'endpoint: dns:///flyte.example.com'",
            reason="config_file",
        )
    assert isinstance(document, Mapping | None)
    return document or {}


def _position(before: str) -> tuple[int, int]:
    return before.count("\n"), len(before) - before.rfind("\n") - 1


def _check(root: yaml.Node | None) -> tuple[str, tuple[int, int] | None]:
    """What YAML lets pass and must not: keys given twice, and aliases without end."""
    seen: set[int] = set()
    stack = [root] if root else []
    aliases = 0
    while stack:
        node = stack.pop()
        at = (node.start_mark.line, node.start_mark.column)
        if id(node) in seen:
            aliases += 1
            if aliases > ALIASES_MAX:
                return f"more than {ALIASES_MAX} aliases", at
            continue
        seen.add(id(node))
        keys: set[str] = set()
        for child in node.value if not isinstance(node.value, str) else ():
            if not isinstance(child, tuple):
                stack.append(child)
                continue
            key = child[0]
            if isinstance(key.value, str) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in keys:
                    at = (key.start_mark.line, key.start_mark.column)
                    return "this key is there twice", at
                keys.add(key.value)
            stack.extend(child)
    return "", None


def same_key(key: object) -> str:
    """A key without the differences in spelling that do not count: caCertFilePath,
    ca_cert_file_path.
    """
    return key.replace("_", "").replace("-", "").lower() if isinstance(key, str) else ""


# Values. Each reads what YAML, an environment variable or an argument gives.


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
    if not names <= set(QUIRKS):
        raise found.wrong("one of these is not known", f"write {_either(QUIRKS)}")
    return names


def argv(found: Found) -> tuple[str, ...]:
    """A command: a list, a JSON array, or a line as a shell would split it."""
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
    return _absolute(os.path.expanduser(text(found)))  # noqa: PTH111  pathlib raises without a home


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
