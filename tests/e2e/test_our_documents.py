"""What our README and our documents tell people to write: it runs, as it stands."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from flyteauth.cli._parser import parser
from flyteauth.config import resolve
from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings
from tests.documents.blocks import ROOT, documents

from ..services import require
from .conftest import BROWSER, Home

FENCE = re.compile(r"^```(\w+)(?: ([\w-]+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)


@frozen
class Block:
    """Code in a document; ``name`` is a word beside its language, if there is one."""

    document: str
    language: str
    name: str
    code: str
    number: int

    @property
    def id(self) -> str:
        return f"{self.document}-{self.name or self.number}"


ALL = [
    Block(path.name, found[1], found[2] or "", found[3], number)
    for path in documents()
    if path.name != "recipes.md"  # each of those has a test of its own
    for number, found in enumerate(FENCE.finditer(path.read_text("utf-8")))
]


def blocks(language: str) -> list[Block]:
    return [block for block in ALL if block.language == language]


PROGRAMS = [block for block in blocks("python") if block.name != "flyte"]
WITH_FLYTE = [block for block in blocks("python") if block.name == "flyte"]


@pytest.fixture(scope="module")
def plane() -> Iterator[Running]:
    with serving(Settings(approve="auto")) as running:
        yield running


def test_the_documents_have_code_to_check() -> None:
    assert {block.language for block in ALL} == {"console", "mermaid", "python", "text", "yaml"}
    assert len([block for block in PROGRAMS if block.document == "README.md"]) >= 3
    assert WITH_FLYTE


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.id)
def test_a_program_runs(home: Home, plane: Running, block: Block) -> None:
    program = block.code.replace("dns:///flyte.example.com", plane.base_url)
    if "async def main" in program:
        program += "\nimport anyio\nanyio.run(main)\n"
    key = {"FLYTE_API_KEY": plane.api_key} if block.name == "api-key" else {}
    ended = home.at_terminal((sys.executable, "-c", program), {"BROWSER": BROWSER, **key})
    assert ended.status == 0, ended


@pytest.mark.parametrize("block", WITH_FLYTE, ids=lambda block: block.id)
def test_a_program_runs_with_the_real_flyte(home: Home, block: Block) -> None:
    with serving(Settings(approve="auto"), tls=True) as running:
        home.write(
            ".flyte/config.yaml",
            f"admin:\n  endpoint: {running.endpoint}\n  caCertFilePath: {running.ca_file}\n"
            "  authType: DeviceFlow\n  tokenStore: file\n",
        )
        argv = (str(require("flyte")), "-W", "default", "-c", block.code)
        ended = home.at_terminal(argv, {"DO_NOT_TRACK": "1"})
        assert ended.status == 0, ended
        assert "flytesnacks" in ended.out
        assert running.plane.count(path="/oauth2/device_authorization") == 1


def commands(block: str) -> Iterator[list[str]]:
    """The words of every ``flyteauth …`` in a console block."""
    for line in block.splitlines():
        if not line.startswith("$ "):
            continue
        whole = re.sub(r'"\$\(jq [^)]*\)"', "VALUE", line.removeprefix("$ "))
        for found in re.finditer(r"(?:^|[ (])flyteauth( [^)>&|]*|(?=\)))", whole):
            yield shlex.split(found[1], comments=True)


def test_the_commands_are_ours() -> None:
    found = [words for block in blocks("console") for words in commands(block.code)]
    assert {words[0] for words in found} >= {"login", "token", "logout", "devserver", "exec"}
    for words in found:
        assert isinstance(parser(words).parse_args(words), argparse.Namespace)


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.id)
def test_a_configuration_means_what_it_says(block: Block, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n", "utf-8")
    path = tmp_path / "config.yaml"
    path.write_text(block.code.replace("/run/secrets/flyte", str(secret)), "utf-8")
    found = resolve({}, environ={}, path=path, search=False)
    assert found.endpoint is not None
    (said,) = re.findall(r"authType: (\w+)", block.code)
    assert found.auth_type == said.replace("flyteauth", "Pkce")


def test_the_devserver_s_table_has_every_option() -> None:
    text = (ROOT / "docs" / "devserver.md").read_text("utf-8")
    table = "\n".join(line for line in text.splitlines() if line.startswith("| `--"))
    said = {name for name in re.findall(r"--[a-z-]+", table) if not name.endswith("-")}
    words = ["devserver"]
    (commands_of,) = (
        action
        for action in parser(words)._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    options = {
        option
        for action in commands_of.choices["devserver"]._actions
        for option in action.option_strings
        if option.startswith("--") and not option.startswith("--no-")
    }
    assert {name for name in said if not name.startswith("--no-")} == options - {"--help"}


def test_the_make_targets_exist() -> None:
    rules = (ROOT / "Makefile").read_text("utf-8")
    text = "\n".join(path.read_text("utf-8") for path in documents())
    targets = set(re.findall(r"(?:`|\$ )make ([a-z-]+)\b", text))
    assert {"demo", "test", "test-all", "conformance", "docs"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", rules, re.MULTILINE), target
