"""
Opening the user's browser, without a shell and off the event loop (RFC 8252 §4, §8.12).

::

    async with opening(url) as browser:          # starts at once, on a daemon thread
        uri = await loopback.receive(state)      # the browser may need its answer before it ends

``await browser.opened()`` says, within ten seconds, whether a browser seems to have opened: its
launcher ended well, or is still running after two seconds. Leaving the body normally leaves the
launcher alone; leaving it by an exception, cancellation included, ends a launcher that still runs,
and its children. ``open_browser(url)`` is all of that in one call, for whoever need not wait for
anything else meanwhile.

No launcher's word is proof, so a caller prints the URL whatever the answer. Launchers get no
terminal: neither is their noise seen, nor can a text browser take the terminal over.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from .._sansio.errors import InvalidResponse
from .._sansio.http import is_secure
from .threads import DaemonCall

DEADLINE: Final = 10.0
SETTLE: Final = 2.0
TERM_GRACE: Final = 1.0

_URL: Final = re.compile(r"https?://[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")  # RFC 3986 §2
_TEXT_BROWSERS: Final = frozenset(
    "w3m lynx links links2 elinks www-browser browsh carbonyl".split()
)
_NOT_FOR_CHILDREN: Final = frozenset({"FLYTE_API_KEY", "UNION_API_KEY"})
_WSL: Final = (("wslview",), ("rundll32.exe", "url.dll,FileProtocolHandler"))
_DESKTOP: Final = (
    ("xdg-open",),
    ("gio", "open"),
    *(
        (name,)
        for name in "x-www-browser firefox google-chrome chromium chromium-browser "
        "microsoft-edge brave-browser".split()
    ),
)


class Browser:
    """A browser that is being opened."""

    def __init__(
        self,
        url: str,
        command: Sequence[str] | None,
        settle: float,
        deadline: float,
        hidden: frozenset[str],
    ) -> None:
        self._url = url
        self._command = command
        self._hidden = hidden | _NOT_FOR_CHILDREN
        self._settle = settle
        self._deadline = deadline
        self._left = False
        self._closed = False
        self._launcher: subprocess.Popen[bytes] | None = None
        self._call = DaemonCall(self._open, "browser")

    async def opened(self) -> bool:
        """Whether a browser seems to have opened."""
        try:
            return await self._call.result(self._deadline)
        except TimeoutError:  # a launcher may be at work; os.startfile may hang
            return self._launcher is not None

    def leave(self) -> None:
        """Try no other launcher, and leave one that runs alone."""
        self._left = True

    def close(self) -> None:
        """End a launcher that still runs. Never blocks; harmless when repeated."""
        # Starting a program may hang, so no lock: either we see the launcher, or _launch sees us.
        self._left = self._closed = True
        if self._launcher is not None:
            _end(self._launcher)

    def _open(self) -> bool:
        chosen = self._command or os.environ.get("BROWSER")
        if sys.platform == "win32" and not chosen:
            return _start_file(self._url)
        wsl = not chosen and is_wsl(os.environ)
        candidates = launchers(self._url, os.environ, sys.platform, command=self._command, wsl=wsl)
        return any(self._launch(argv) for argv in candidates)

    def _launch(self, argv: list[str]) -> bool:
        if self._left:
            return False
        try:
            launcher = subprocess.Popen(  # noqa: S603  # no shell, and the URL is checked
                argv,
                env={k: v for k, v in os.environ.items() if k not in self._hidden},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in our terminal is not for the browser
            )
        except (OSError, ValueError):  # not installed, not executable, or a null byte
            return False
        self._launcher = launcher
        if self._closed:
            _end(launcher)
        try:
            return launcher.wait(self._settle) == 0
        except subprocess.TimeoutExpired:  # most likely the browser itself
            _in_background(launcher.wait)  # reaps it
            return True


@asynccontextmanager
async def opening(
    url: str,
    *,
    command: Sequence[str] | None = None,
    settle: float = SETTLE,
    deadline: float = DEADLINE,
    plain_host: str | None = None,
    hidden: frozenset[str] = frozenset(),
) -> AsyncIterator[Browser]:
    """Open *url* while the body runs; InvalidResponse if it is not one to open (AZR-15).

    ``command`` is what to open it with, and nothing else; see ``launchers``. ``hidden`` are
    environment variables that hold secrets: no launcher gets them.
    """
    check(url, plain_host)
    browser = Browser(url, command, settle, deadline, hidden)
    try:
        yield browser
    except BaseException:
        browser.close()
        raise
    browser.leave()


async def open_browser(url: str, command: Sequence[str] | None = None) -> bool:
    """Open *url*, and say whether that seems to have worked; see ``opening``."""
    async with opening(url, command=command) as browser:
        return await browser.opened()


def check(url: str, plain_host: str | None = None) -> None:
    """Refuse what is neither https nor http to this machine, or could be more than a URL."""
    if not is_secure(url, plain_host) or not _URL.fullmatch(url):
        raise InvalidResponse(
            "the authorization URL is not a https URL and will not be opened; check the endpoint, "
            "or report this to whoever runs the authorization server",
            reason="authorization_endpoint",
        )


def launchers(
    url: str,
    environ: Mapping[str, str],
    platform: str,
    *,
    command: Sequence[str] | None = None,
    wsl: bool = False,
) -> Iterator[list[str]]:
    """The commands that may open *url*, best first. Text browsers are not among them.

    A *command* that the user has configured is the only one: another might open the wrong profile.
    """
    if command:
        commands = [_completed(command, "{url}", url)]
    elif chosen := environ.get("BROWSER"):
        commands = list(_chosen(chosen, url))
    elif platform == "darwin":
        commands = [["open", url]]
    else:
        desktop = _DESKTOP if environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY") else ()
        commands = [[*words, url] for words in (*(_WSL if wsl else ()), *desktop)]
    for argv in commands:
        if Path(argv[0]).name not in _TEXT_BROWSERS:
            yield argv


def _completed(argv: Sequence[str], mark: str, url: str) -> list[str]:
    """*argv* with *url* in place of *mark*, or else at its end."""
    given = any(mark in part for part in argv)
    return [part.replace(mark, url) for part in argv] if given else [*argv, url]


def _chosen(browser: str, url: str) -> Iterator[list[str]]:
    """The commands in $BROWSER; ``%s`` is where the URL belongs, else it comes last."""
    for command in browser.split(os.pathsep):
        try:
            argv = shlex.split(command, posix=os.name == "posix")
        except ValueError:  # a quotation mark is open
            continue
        if argv and argv[-1] == "&":  # the shell's way to say what we do anyway
            argv.pop()
        if argv:
            yield _completed(argv, "%s", url)


def is_wsl(environ: Mapping[str, str]) -> bool:
    """Whether this is Linux inside Windows, whose browser can be opened. Reads a file."""
    if "WSL_DISTRO_NAME" in environ:
        return True
    with suppress(OSError):
        return "microsoft" in Path("/proc/version").read_text(encoding="utf-8").lower()
    return False


def _start_file(url: str) -> bool:
    if sys.platform != "win32":
        return False
    try:
        os.startfile(url)  # noqa: S606  # no shell, and the URL is checked
    except OSError:
        return False
    return True


def _in_background(function: Callable[[], object]) -> None:
    threading.Thread(target=function, name="flyteauth launcher", daemon=True).start()


def _end(launcher: subprocess.Popen[bytes]) -> None:
    if launcher.poll() is None:
        _signal(launcher, signal.SIGTERM)
        _in_background(partial(_bury, launcher))


def _signal(launcher: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the launcher and what it has started."""
    with suppress(OSError):
        if sys.platform == "win32":
            launcher.terminate()
        else:
            os.killpg(launcher.pid, number)


def _bury(launcher: subprocess.Popen[bytes]) -> None:
    try:
        launcher.wait(TERM_GRACE)
    except subprocess.TimeoutExpired:
        if sys.platform == "win32":
            launcher.kill()
        else:
            _signal(launcher, signal.SIGKILL)
        launcher.wait()
