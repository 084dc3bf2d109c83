"""What is generated in the documents is there, and is what the code says now."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

import flyteauth
from flyteauth import config
from flyteauth.cli._parser import COMMANDS

from . import commands, configuration
from .blocks import BLOCKS, ROOT, documents, filled

NAMES = [path.relative_to(ROOT).as_posix() for path in documents()]


@pytest.mark.parametrize("name", NAMES)
def test_a_document_is_as_the_code_has_it(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert filled(text) == text, f"{name} is out of date; run: make docs"


def test_every_kind_of_block_is_in_some_document() -> None:
    text = "\n".join((ROOT / name).read_text("utf-8") for name in NAMES)
    begun = re.findall(r"^<!-- generated: (\S+)[^>]* -->$", text, re.MULTILINE)
    ended = re.findall(r"^<!-- end of (\S+) -->$", text, re.MULTILINE)
    assert begun == ended
    assert set(begun) == set(BLOCKS)


def test_what_stood_in_a_block_before_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BLOCKS, "it", lambda *words: f"new {words}")
    text = "before\n<!-- generated: it a b -->\nold\n<!-- end of it -->\nafter\n"
    fresh = filled(text)
    assert fresh == (
        "before\n<!-- generated: it a b -->\n\nnew ('a', 'b')\n\n<!-- end of it -->\nafter\n"
    )
    assert filled(fresh) == fresh


def test_every_setting_is_described_and_nothing_else_is() -> None:
    keys = [f"{setting.section}.{setting.key}" for setting in config.SETTINGS]
    described = configuration.described()
    assert sorted(described) == sorted(keys)
    assert all(described.values())


def test_every_command_has_a_section_and_every_option_a_word_about_it() -> None:
    text = commands.reference()
    sections = re.findall(r"^### (\w+)", text, re.MULTILINE)
    assert set(sections) == set(COMMANDS)
    assert [line for line in text.splitlines() if line.endswith("|  |")] == []


@pytest.mark.parametrize("name", NAMES)
def test_what_a_document_names_of_the_package_is_there(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    for found in set(re.findall(r"`(flyteauth(?:\.\w+)+)[`(]", text)):
        assert pkgutil.resolve_name(found) is not None, found
    for room in re.findall(r"`flyteauth/([\w/]+)`", text):
        assert (Path(flyteauth.__file__).parent / room).exists(), room


# Links between the documents.


def _anchors(path: Path) -> set[str]:
    """How GitHub names the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_document_links_to_is_there(name: str) -> None:
    path = ROOT / name
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", path.read_text("utf-8")):
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            assert anchor in _anchors(there), target
