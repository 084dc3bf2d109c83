"""
The generated blocks of the documents.

A block stands between ``<!-- generated: NAME -->`` and ``<!-- end of NAME -->``; what is there is
replaced. NAME is one of BLOCKS, perhaps with a word that it is given: ``diagram discovery``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from . import commands, configuration, diagrams, figures

ROOT: Final = Path(__file__).parents[2]
BLOCKS: Final[Mapping[str, Callable[..., str]]] = {
    "commands": commands.reference,
    "comparison": figures.comparison,
    "configuration": configuration.reference,
    "configuration-prose": configuration.prose,
    "diagram": diagrams.mermaid,
    "everywhere": commands.everywhere,
    "faults": commands.faults,
    "targets": figures.targets,
}
_BLOCK: Final = re.compile(
    r"^<!-- generated: (?P<name>\S+)(?P<words>(?: \S+)*) -->\n.*?^<!-- end of (?P=name) -->$",
    re.MULTILINE | re.DOTALL,
)


def documents() -> list[Path]:
    """The README, and all that is in docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def filled(text: str) -> str:
    """*text* with each of its blocks as the code has it now."""

    def fill(found: re.Match[str]) -> str:
        name, words = found["name"], found["words"]
        body = BLOCKS[name](*words.split())
        return f"<!-- generated: {name}{words} -->\n\n{body}\n\n<!-- end of {name} -->"

    return _BLOCK.sub(fill, text)
