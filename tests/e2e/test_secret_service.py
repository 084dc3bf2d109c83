"""Logins in a real Secret Service: open, locked, dismissed, unanswered and killed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory  # whose name is short enough for sockets
from typing import Any

import pytest

from flyteauth.devserver.serve import Running

from .conftest import BROWSER, DEADLINE, Ended, Home, Serve
from .secret_service import Desktop, desktop as desktop_in, somebody

# The library between us and the Secret Service leaves its connection open when it is refused.
QUIET = {"PYTHONWARNINGS": "error,ignore::ResourceWarning"}
PROMPT = 5.0  # seconds that a program waits for a keyring that nobody has asked to see
PATIENCE = 30.0  # seconds that a login waits for it


@pytest.fixture
def desktop() -> Iterator[Desktop]:
    with TemporaryDirectory() as folder, desktop_in(Path(folder)) as desktop:
        yield desktop


@pytest.fixture
def running(serve: Serve) -> Running:
    """One that refuses each token once it is asked about it, so that it is renewed."""
    return serve("always-401")


def flyteauth(
    home: Home,
    desktop: Desktop,
    running: Running,
    *words: str,
    deadline: float = DEADLINE,
    **more: str,
) -> Ended:
    environ: dict[str, Any] = {"BROWSER": BROWSER, **QUIET, **desktop.environ, **more}
    return home.run(*words, "--endpoint", running.base_url, deadline=deadline, **environ)


def kept_in_files(home: Home) -> bool:
    """Whether a login itself is in a file, and not the mark that says where it is."""
    return any(b"refresh_token" in content for content in home.stored().values())


def test_a_login_lives_in_the_keyring(home: Home, desktop: Desktop, running: Running) -> None:
    desktop.unlocked()
    ended = flyteauth(home, desktop, running, "login")
    assert ended.status == 0, ended
    assert "in the keyring (" in ended.err
    assert not kept_in_files(home)
    first = flyteauth(home, desktop, running, "token")
    assert first.status == 0, first
    renewed = flyteauth(home, desktop, running, "token", "--verify")
    assert (renewed.status, running.plane.count(grant_type="refresh_token")) == (0, 1)
    again = flyteauth(home, desktop, running, "token")
    assert again.out == renewed.out != first.out
    ended = flyteauth(home, desktop, running, "logout")
    assert ended.status == 0, ended
    gone = flyteauth(home, desktop, running, "token")
    assert gone.status in {3, 4}
    assert gone.out == ""
    assert home.stored() == {}


@pytest.mark.req("SEC-10")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_login_of_any_size_comes_back_whole(home: Home, desktop: Desktop, backend: str) -> None:
    desktop.unlocked()
    ended = home.program([sys.executable, "-c", _BIG, backend], desktop.environ)
    assert (ended.status, ended.out) == (0, "whole\nNone\n"), ended


_BIG = """
import sys, anyio
from flyteauth._io.store.keyring import KeyringStore
from flyteauth._sansio.record import Record
from flyteauth._sansio.tokens import Token

async def main():
    store = KeyringStore(named=True)
    for size in (1, 20_000, 200_000, 20_000):
        token = Token("x." * (size // 2), obtained_at=1.0, expires_at=2.0, refresh_token="y")
        record = Record(token, "https://auth.example.org/token", "flytectl")
        await store.probe()
        await store.save("a", record)
        assert await store.load("a") == record
    print("whole")
    await store.delete("a")
    print(await store.load("a"))

anyio.run(main, backend=sys.argv[1])
"""


class TestLocked:
    @pytest.fixture
    def logged_in(self, home: Home, desktop: Desktop, running: Running) -> Home:
        """Somebody's home, whose login is in a keyring that is locked."""
        desktop.unlocked()
        assert flyteauth(home, desktop, running, "login").status == 0
        desktop.locked()
        return home

    @pytest.mark.parametrize("asked", [False, True])
    def test_a_login_in_it_is_not_lost(
        self, logged_in: Home, desktop: Desktop, running: Running, asked: bool
    ) -> None:
        if asked:
            with somebody(desktop, "dismisses") as person:
                ended = flyteauth(logged_in, desktop, running, "token")
                assert person.asked.is_set()
        else:
            ended = flyteauth(logged_in, desktop, running, "token")
        ended.failed_with(1, "your login cannot be read", "is locked", "unlock it")
        desktop.unlocked()
        ended = flyteauth(logged_in, desktop, running, "token")
        assert ended.status == 0, ended

    def test_a_new_login_goes_to_a_file_and_that_is_said(
        self, logged_in: Home, desktop: Desktop, running: Running
    ) -> None:
        with somebody(desktop, "dismisses") as person:
            ended = flyteauth(logged_in, desktop, running, "login")
            assert person.asked.is_set()
        assert ended.status == 0, ended
        assert "is locked" in ended.err
        assert f"logins are kept in {logged_in.path}" in ended.err
        assert kept_in_files(logged_in)
        ended = flyteauth(logged_in, desktop, running, "token")
        assert ended.status == 0, ended

    def test_who_wants_the_keyring_and_nothing_else_gets_an_error(
        self, home: Home, desktop: Desktop, running: Running
    ) -> None:
        desktop.unlocked()
        desktop.locked()
        ended = flyteauth(home, desktop, running, "login", FLYTE_ADMIN_TOKENSTORE="keyring")
        assert ended.status == 1, ended
        assert "is locked" in ended.err.splitlines()[-1]
        assert "; unlock it" in ended.err.splitlines()[-1]
        assert home.stored() == {}
        assert running.plane.count(grant_type="authorization_code") == 0

    def test_a_prompt_that_nobody_answers_does_not_hang(
        self, logged_in: Home, desktop: Desktop, running: Running
    ) -> None:
        with somebody(desktop, "is away") as person:
            began = time.monotonic()
            ended = flyteauth(logged_in, desktop, running, "token")
            assert person.asked.is_set()
        ended.failed_with(1, "does not answer", "unlock it")
        assert time.monotonic() - began < 4 * PROMPT

    @pytest.mark.servers
    def test_a_login_waits_longer_for_the_person_and_then_goes_to_a_file(
        self, logged_in: Home, desktop: Desktop, running: Running
    ) -> None:
        with somebody(desktop, "is away") as person:
            began = time.monotonic()
            ended = flyteauth(logged_in, desktop, running, "login", deadline=3 * PATIENCE)
            took = time.monotonic() - began
            assert person.asked.is_set()
        assert ended.status == 0, ended
        assert "waiting for the keyring" in ended.err
        assert "does not answer" in ended.err
        assert kept_in_files(logged_in)
        assert PATIENCE <= took < 2 * PATIENCE

    def test_a_keyring_that_is_killed_while_it_asks_is_an_error(
        self, logged_in: Home, desktop: Desktop, running: Running
    ) -> None:
        words = ("token", "--endpoint", running.base_url)
        with (
            somebody(desktop, "is away") as person,
            logged_in.started(*words, **QUIET, **desktop.environ) as process,
        ):
            assert person.asked.wait(20)
            desktop.kill()
            out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (1, "")
        assert err.startswith("flyteauth: your login cannot be read")
        assert err.count("\n") == 1


def test_a_keyring_that_has_gone_is_replaced_by_files(
    home: Home, desktop: Desktop, running: Running
) -> None:
    desktop.unlocked()
    assert flyteauth(home, desktop, running, "login").status == 0
    desktop.kill()
    flyteauth(home, desktop, running, "token").failed_with(1, "your login cannot be read")
    ended = flyteauth(home, desktop, running, "login")
    assert ended.status == 0, ended
    assert f"logins are kept in {home.path}" in ended.err
    ended = flyteauth(home, desktop, running, "token")
    assert ended.status == 0, ended
