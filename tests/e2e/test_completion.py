"""``flyteauth completion``: what a shell offers after a tab."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .conftest import FLYTEAUTH, Ended, Home

BIN = str(Path(FLYTEAUTH).parent)
SHELLS = ("bash", "zsh", "fish")

IN_BASH = """\
eval "$(flyteauth completion bash)"
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9
_python_argcomplete flyteauth
printf '%s\\n' "${COMPREPLY[@]}"
complete -p flyteauth >/dev/null || echo "not registered"
"""
LINES = [
    ("flyteauth wh", {"whoami"}),
    ("flyteauth create ", {"config", "login", "api-key"}),
    ("flyteauth get ap", {"app", "apps", "api-key", "api-keys"}),
    ("flyteauth get task --out", {"--output"}),
    ("flyteauth get task --output ", {"table", "json"}),
    ("flyteauth --endp", {"--endpoint"}),
    ("flyteauth --endpoint x whoami --j", {"--json"}),
    ("flyteauth completion f", {"fish"}),
    ("flyteauth get nothing-like-it", set()),
]


def asked(home: Home, line: str, shell: str, **environ: str) -> Ended:
    """What we answer a shell that has *line* before its cursor: on descriptor 8."""
    more = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SHELL": shell}
    more |= {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
    more |= {"_ARGCOMPLETE_SUPPRESS_SPACE": "1", **environ}
    if shell == "fish":
        more["_ARGCOMPLETE_DFS"] = "\t"
    return home.program(["sh", "-c", f"exec {FLYTEAUTH} 8>&1 9>&2 1>/dev/null"], more)


def offered(ended: Ended) -> set[str]:
    words = {line.partition("\t")[0].partition(":")[0].strip() for line in ended.out.splitlines()}
    return words - {""}


@pytest.mark.parametrize(("line", "words"), LINES)
@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_is_told_what_may_follow(
    home: Home, line: str, words: set[str], shell: str
) -> None:
    assert offered(asked(home, line, shell)) == words


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(("line", "words"), LINES)
def test_bash_completes(home: Home, line: str, words: set[str]) -> None:
    path = {"PATH": f"{BIN}:/usr/bin:/bin"}
    ended = home.program(["bash", "-c", IN_BASH, "bash", line], path)
    assert (ended.status, ended.err) == (0, ""), ended
    assert offered(ended) == words


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_all_that_is_printed(home: Home, shell: str) -> None:
    ended = home.run("completion", shell)
    assert (ended.status, ended.err) == (0, "")
    assert "flyteauth" in ended.out
    if shutil.which(shell):
        home.write("script", ended.out)
        assert home.program([shell, "-n", "script"], {}).status == 0
    assert f"flyteauth completion {shell}" in home.run("completion", "--help").out


def test_an_unknown_shell_is_a_usage_error(home: Home) -> None:
    ended = home.run("completion", "fsh")
    assert ended.status == 2
    assert "did you mean fish?" in ended.err


def test_completing_imports_no_more_than_the_command_line(home: Home) -> None:
    """Nor is anything read, asked or written: there is no configuration, and no complaint."""
    ended = asked(home, "flyteauth get ", "bash", PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip() for line in ended.err.splitlines()}
    assert "argcomplete" in imported
    assert not imported & {"httpx", "anyio", "asyncio", "keyring", "yaml", "ssl", "uvicorn"}
    assert list(home.path.iterdir()) == []


def test_nobody_who_completes_nothing_pays_for_it(home: Home) -> None:
    ended = home.run("--help", PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip() for line in ended.err.splitlines()}
    assert "argparse" in imported
    assert not imported & {"argcomplete", "attr", "httpx", "anyio", "yaml"}
