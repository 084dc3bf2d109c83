"""Who listens at a port: named where it may be known, and nothing else happens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from typing import Any

import psutil
import pytest

from flyteauth._io import port_holder as module
from flyteauth._io.port_holder import find_holder, holder

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "darwin", reason="there it takes more than a moment"),
]

LISTEN = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    sys.stdin.read()
"""


def test_another_program_is_named_with_its_process() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        port = int(program.stdout.readline())
        expected = f"{psutil.Process(program.pid).name()} (process {program.pid})"
        assert find_holder(port) == expected
        program.communicate()
    assert find_holder(port) is None


def test_this_program_is_named_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert find_holder(port) == f"this program (process {os.getpid()})"
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert find_holder(client.getsockname()[1]) is None  # it does not listen there


async def test_the_event_loop_does_not_wait_for_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        expected = f"this program (process {os.getpid()})"
        assert await holder(server.getsockname()[1]) == expected


class Foreign:
    """A listener of another user: it is there, and nobody says whose it is."""

    status = "LISTEN"
    pid = None

    class laddr:  # noqa: N801
        port = 1


@pytest.mark.parametrize("error", [psutil.AccessDenied(), psutil.NoSuchProcess(1), OSError()])
def test_what_may_not_be_known_is_not_an_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(psutil, "net_connections", lambda kind: [Foreign])
    assert find_holder(1) is None

    def fail(*args: object) -> Any:
        raise error

    monkeypatch.setattr(psutil, "net_connections", fail)
    monkeypatch.setattr(psutil, "process_iter", list)
    assert find_holder(1) is None


def test_where_only_ones_own_processes_are_told_those_are_looked_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def denied(kind: str) -> Any:
        raise psutil.AccessDenied

    class Another:
        net_connections = staticmethod(denied)

    monkeypatch.setattr(psutil, "net_connections", denied)
    monkeypatch.setattr(psutil, "process_iter", lambda: [Another, psutil.Process()])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert find_holder(port) == f"this program (process {os.getpid()})"


def test_a_name_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 0)
    monkeypatch.setattr(module, "_listener", lambda port: 1)
    monkeypatch.setattr(psutil.Process, "name", lambda self: "\x1b[2Jx")
    assert find_holder(1) == "\\x1b[2Jx (process 1)"


async def test_a_system_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = threading.Event()
    monkeypatch.setattr(module, "find_holder", lambda port: asked.wait(20) and "late")
    monkeypatch.setattr(module, "DEADLINE", 0.05)
    assert await holder(1) is None
    asked.set()
