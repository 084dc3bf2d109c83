"""The reference of all settings, from the docstring of ``flyteauth.config`` and its table."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Final

from flyteauth import config

# In the docstring: keys, and perhaps a variable of another name. Indented below: what they mean.
_ENTRY: Final = re.compile(r"\w+\.\w+(, \w+(\.\w+)?)*")


def described() -> Mapping[str, str]:
    """What the docstring says of each key, in Markdown."""
    lines = inspect.cleandoc(config.__doc__ or "").splitlines()
    found: dict[str, str] = {}
    keys: list[str] = []
    for line in lines:
        if _ENTRY.fullmatch(line):
            keys = [word for word in line.split(", ") if "." in word]
            found |= dict.fromkeys(keys, "")
        elif line.startswith("    "):
            for key in keys:
                found[key] = f"{found[key]} {line.strip()}".strip()
        else:
            keys = []
    return {key: text.replace("``", "`") for key, text in found.items()}


def prose() -> str:
    """What the docstring says beside the keys and its first line, in Markdown."""
    lines = inspect.cleandoc(config.__doc__ or "").splitlines()[1:]
    kept = [line for line in lines if not _ENTRY.fullmatch(line) and not line.startswith("    ")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).replace("``", "`").strip()


def reference() -> str:
    """The table: key, environment variables, argument and meaning."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    meanings = described()
    yield "| key | environment | argument | |"
    yield "|---|---|---|---|"
    for setting in config.SETTINGS:
        key = f"{setting.section}.{setting.key}"
        names = (setting.name,) if setting.arguments is None else setting.arguments
        variables = "<br>".join(f"`{name}`" for name in setting.variables)
        arguments = "<br>".join(f"`{name}`" for name in names)
        meaning = meanings[key].replace("|", "\\|")
        yield f"| `{key}` | {variables} | {arguments} | {meaning} |"
