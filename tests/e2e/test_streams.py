"""Commands whose streams are closed, full, or read by somebody who has gone: the right exit
status, at most one line, no traceback.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyteauth.devserver.serve import Running

from .conftest import DEADLINE, FLYTEAUTH, Ended, Home, login

# Every command that prints something of its own.
PRINTING = [
    "--help",
    "--version",
    "login --json --headless",
    "status",
    "status --explain",
    "status --json",
    "whoami",
    "whoami --json",
    "accounts",
    "accounts --json",
    "token",
    "token --json",
    "doctor",
    "doctor --json",
    "get project",
    "get task --json",
    "get app",
    "get api-key",
    "create api-key --name streams",
    "completion bash",
    "devserver --fault list",
]
SOME = [
    "login --json --headless",
    "status --json",
    "token",
    "get project",
    "create api-key --name x",
]


def piped(home: Home, command: str, write_to: int) -> Ended:
    process = subprocess.run(
        [FLYTEAUTH, *command.split()],
        cwd=home.path,
        env=home.environ(),
        stdin=subprocess.DEVNULL,
        stdout=write_to,
        stderr=subprocess.PIPE,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    return Ended(process.returncode, "", process.stderr)


def says_little(ended: Ended, command: str) -> None:
    assert "Traceback" not in ended.err, ended
    assert "Exception ignored" not in ended.err
    most = 2 if command.startswith("create") else 1
    assert ended.err.count("\n") <= most, ended


@pytest.mark.parametrize("command", SOME)
def test_a_reader_that_has_gone_ends_a_command_silently(logged_in: Home, command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = piped(logged_in, command, writing)
    finally:
        os.close(writing)
    assert ended.status == 1
    if command.startswith("create api-key"):  # what nobody saw must not stay at the server unsaid
        assert "delete it: flyteauth delete api-key" in ended.err
    else:
        assert ended.err == ""


@pytest.mark.parametrize("command", PRINTING)
def test_head_takes_a_line_and_that_is_fine(logged_in: Home, command: str) -> None:
    script = f'{FLYTEAUTH} {command} 2>err | head -1; echo "${{PIPESTATUS[0]}}" >status'
    ended = logged_in.program(["bash", "-c", script], {})
    err = (logged_in.path / "err").read_text("utf-8")
    says_little(Ended(0, "", err), command)
    assert ended.out.count("\n") == 1
    # Whether there was more to write, and somebody to read it, is a matter of luck.
    assert (logged_in.path / "status").read_text("utf-8") in {"0\n", "1\n"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("command", ["token", "get project", "--help"])
def test_a_disk_that_is_full_is_one_line(logged_in: Home, command: str) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123  # a device
        ended = piped(logged_in, command, full.fileno())
    ended.failed_with(1, "cannot write to standard output", "no space left")


@pytest.mark.parametrize("command", [*SOME, "doctor", "accounts", "logout --all --json"])
def test_without_standard_input_and_error_a_command_does_what_it_does(
    logged_in: Home, calm: Running, command: str
) -> None:
    if command.startswith("logout"):
        shutil.rmtree(logged_in.path / ".local")
        login(logged_in, calm.base_url)
    script = f"exec {FLYTEAUTH} {command.replace('name x', 'name deaf')} <&- 2>&-"
    ended = logged_in.program(["sh", "-c", script], {})
    assert (ended.status, ended.err) == (0, ""), ended
    assert ended.out
    if "--json" in command.split():
        for document in _documents(ended.out):
            assert document is not None


def _documents(text: str) -> Iterator[object]:
    decoder = json.JSONDecoder()
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:]


@pytest.mark.parametrize("command", ["token", "get project", "status", "doctor"])
def test_without_standard_output_there_is_one_line(logged_in: Home, command: str) -> None:
    script = f"exec {FLYTEAUTH} {command} >&-"
    ended = logged_in.program(["sh", "-c", script], {})
    ended.failed_with(1, "cannot write to standard output")


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("frobnicate", 2),
        ("get", 2),
        ("delete api-key", 2),
        ("token --endpoint http://localhost:1", 1),
        ("--config none.yaml status", 1),
        ("--config bad.yaml whoami", 1),
        ("login --account other --resume", 3),
        ("token --account other", 4),
    ],
)
def test_what_goes_wrong_goes_wrong_in_the_same_way_without_any_stream(
    logged_in: Home, command: str, status: int
) -> None:
    logged_in.write("bad.yaml", "admin: [\n")
    script = f"exec {FLYTEAUTH} {command} <&- >&- 2>&-"
    ended = logged_in.program(["sh", "-c", script], {})
    assert (ended.status, ended.out, ended.err) == (status, "", "")
    heard = logged_in.run(*command.split())
    assert (heard.status, heard.out) == (status, "")
    assert heard.err.count("\n") == (2 if status == 2 else 1)
    assert "Traceback" not in heard.err
