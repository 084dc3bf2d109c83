"""
How configuration is read: where its file is, and its YAML.

Nothing here knows a key; `config` does. Every failure is a ConfigError of one line that names
the file and what to write instead, and none shows what is in it: a secret is often one wrong line
away.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ._sansio.errors import ConfigError
from ._sansio.value import Value

if TYPE_CHECKING:
    import yaml

FILE_MAX: Final = 1024 * 1024
ALIASES_MAX: Final = 32  # merged aliases multiply: without a limit, a page of YAML fills the memory


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


class ConfigFile(Value, hidden=("sections",)):
    """A configuration file that was read: its sections, as far as they are mappings."""

    path: Path
    sections: Mapping[str, Mapping[object, object]]


class _Place(Value):
    path: Path
    variable: str = ""  # the environment variable that names the file, if one does
    shared: bool = False  # whether other programs have files of this name


def find(
    path: str | Path | None, environ: Mapping[str, str], *, search: bool
) -> tuple[ConfigFile | None, tuple[str, ...]]:
    """The file that counts, and a line for each file that was looked at."""
    if path is not None:
        place = _Place(absolute(os.path.expanduser(path)))  # noqa: PTH111  pathlib raises without a home
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


def is_searched(path: Path, environ: Mapping[str, str]) -> bool:
    """Whether the file at *path*, links resolved, would be found if no other one were there."""
    return any(os.path.realpath(place.path) == str(path) for place in _places(environ))


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
            yield _Place(absolute(re.sub(r"^~(?=[/\\]|$)", lambda _: home, name)), variable)
    yield _Place(Path(home) / ".union" / "config.yaml")
    yield _Place(Path(home) / ".flyte" / "config.yaml")


def absolute(name: str | Path) -> Path:
    try:
        return Path(os.path.abspath(name))  # noqa: PTH100  Path.absolute() keeps the dots
    except (OSError, ValueError):
        return Path(name)


# The file. Flyte's tools read other sections of it; they are not ours to judge.

_SECTIONS: Final = frozenset("admin console image local logger storage task union".split())
_ADMIN: Final = rb"(?m)^admin\s*:"


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
        if place.shared and not re.search(_ADMIN, data):
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
        loader = yaml.SafeLoader(content)
        root = loader.get_single_node()
        problem, at = _check(root)
        document = None if problem or root is None else loader.construct_document(root)
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
            f"{path}{where}: {problem}; correct it, or remove it and start again from "
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
