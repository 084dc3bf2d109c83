from __future__ import annotations

import io

import pytest

from flyteauth._io.presenter import person_present
from flyteauth._io.terminal import Terminal
from flyteauth._io.wording import describe
from flyteauth.events import (
    AuthEvent,
    BrowserNeeded,
    CodeNeeded,
    Exported,
    Forgotten,
    Imported,
    LoggedIn,
    LoggedOut,
    Refreshed,
    Warned,
)

URL = "https://login.example.com/activate?" + "x" * 300


@pytest.mark.req("AZR-16", "DEV-10")
@pytest.mark.parametrize(
    "event",
    [
        BrowserNeeded(URL),
        CodeNeeded("ABCD", URL, None, 0.0),
        CodeNeeded("ABCD", "https://a", URL, 0.0),
    ],
)
def test_a_url_stands_alone_on_one_line(event: AuthEvent) -> None:
    assert URL in describe(event).splitlines()


@pytest.mark.req("DEV-10")
def test_code_and_address_are_shown_even_where_a_link_holds_the_code() -> None:
    shown = describe(CodeNeeded("ABCD-EFGH", "https://a/activate", "https://a/activate?c=1", 0.0))
    assert "ABCD-EFGH" in shown
    assert "https://a/activate " in shown


@pytest.mark.req("DEV-11")
def test_a_link_with_the_code_is_not_invented() -> None:
    shown = describe(CodeNeeded("ABCD-EFGH", "https://a/activate", None, 0.0))
    assert "https://a/activate?" not in shown


@pytest.mark.req("ERR-01", "ERR-04", "DEV-13")
@pytest.mark.parametrize(
    "event",
    [
        LoggedIn("host", "\x1b]0;pwn\x07\u202e", 1.0, "/store"),
        Warned("\x1b[2J\nforged line"),
        CodeNeeded("\x1b[2J", "https://a", None, 0.0),
        LoggedOut("\x9b31m", local_deleted=True, remote_revoked=None),
        Imported("\x9b31m", "flyte", "the keyring (\x1b[2J)"),
        Exported("\x9b31m", "flyte", "the keyring (\x1b[2J)"),
        Forgotten("\x9b31m", "flyte", "the keyring (\x1b[2J)", None),
    ],
)
def test_nothing_that_steers_a_terminal_gets_through(event: AuthEvent) -> None:
    shown = describe(event)
    assert not set(shown) & set("\x1b\x07\u202e\x9b")
    assert "\nforged" not in shown


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (LoggedIn("host", "alice", None, "/store"), "as alice"),
        (LoggedIn("host", None, None, "/store"), "Logged in to host. "),
        (LoggedIn("host", None, None, "/store"), "and renews itself."),
        (LoggedIn("host", None, None, "/store", proven=False), "takes it is not known yet"),
        (LoggedIn("host", None, None, "/store", proven=False), "kept in /store"),
        (LoggedIn("host", None, None, "m", kept=False), "work: host has given a token. No login"),
        (LoggedIn("host", None, None, "m", proven=False, kept=False), "token for host. Whether"),
        (LoggedOut("host", local_deleted=True, remote_revoked=True), "took its tokens back"),
        (LoggedOut("host", local_deleted=True, remote_revoked=False), "did not take"),
        (LoggedOut("host", local_deleted=True, remote_revoked=None), "was not told"),
        (LoggedOut("host", local_deleted=False, remote_revoked=None), "no login"),
        (Imported("host", "flyte", "a keyring"), "login of flyte to host from a keyring"),
        (Exported("host", "flyte", "a keyring"), "is now in a keyring for flyte"),
        (Forgotten("host", "flyte", "a keyring", True), "from a keyring; the server took"),
        (Forgotten("host", "flyte", "a keyring", False), "did not take"),
        (Forgotten("host", "flyte", "a keyring", None), "was not told"),
    ],
)
def test_each_outcome_is_said_as_it_is(event: AuthEvent, said: str) -> None:
    assert said in describe(event)


@pytest.mark.anyio
async def test_a_terminal_gets_whole_lines_and_nothing_for_a_refresh() -> None:
    stream = io.StringIO()
    terminal = Terminal(stream)
    await terminal.show(Refreshed("host", None))
    await terminal.show(Warned("careful"))
    assert stream.getvalue() == "flyteauth: careful\n"


@pytest.mark.anyio
async def test_a_terminal_that_is_gone_does_not_end_a_login() -> None:
    stream = io.StringIO()
    stream.close()
    await Terminal(stream).show(Warned("careful"))


class Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.req("REF-12")
@pytest.mark.parametrize(
    ("stdin", "stderr", "present"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_person_reads_and_writes(
    stdin: bool, stderr: bool, present: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Stream(stdin))
    monkeypatch.setattr("sys.stderr", Stream(stderr))
    assert person_present() is present


def test_a_closed_or_missing_standard_input_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert not person_present()
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stdin", closed)
    assert not person_present()


def test_a_notebook_is_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shell:
        kernel = object()

    class IPython:
        @staticmethod
        def get_ipython() -> Shell:
            return Shell()

    monkeypatch.setitem(__import__("sys").modules, "IPython", IPython)
    monkeypatch.setattr("sys.stdin", Stream(False))
    assert person_present()
