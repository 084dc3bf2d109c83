"""Opening a browser: without a shell, off the loop, and with nothing left behind."""

import gc
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from flyteauth._io import browser as module
from flyteauth._io.browser import check, is_wsl, launchers, open_browser, opening
from flyteauth._sansio.errors import InvalidResponse

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="the launchers here are POSIX scripts"),
]

Program = Callable[[str, str], Path]
URL = "https://as.example/authorize?scope=a%20b&state=x;y&q='$(touch%20pwned)'"
BOUND = 20.0


@pytest.fixture
def desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    """A machine whose only programs are those that a test writes."""
    for name in ("BROWSER", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(module, "is_wsl", lambda environ: False)

    def program(name: str, script: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\nPATH=/bin:/usr/bin\ncd {tmp_path}\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    yield program
    for thread in ours():
        thread.join(BOUND)
        assert not thread.is_alive()
    gc.collect()  # an unreaped child is a ResourceWarning, and that an error


def ours() -> list[threading.Thread]:
    """Threads that a launcher may have left behind; the portal stays for the whole process."""
    names = (thread for thread in threading.enumerate() if thread.name.startswith("flyteauth"))
    return [thread for thread in names if thread.name != "flyteauth portal"]


class Line:
    """A pipe that a launcher holds open: it tells when the launcher is up, and when it is gone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    async def _next(self) -> bytes:
        with anyio.fail_after(BOUND):
            while True:
                await anyio.wait_readable(self._reader)
                try:
                    return os.read(self._reader, 100)
                except BlockingIOError:
                    continue

    async def up(self) -> int:
        """The process id that the launcher has written."""
        while not (text := await self._next()).endswith(b"\n"):
            await anyio.lowlevel.checkpoint()  # nobody has opened it yet
        return int(text)

    async def gone(self) -> None:
        """Wait until no process holds the line."""
        with anyio.fail_after(BOUND):
            while self.alive():
                await anyio.wait_readable(self._reader)

    def alive(self) -> bool:
        try:
            while os.read(self._reader, 100):
                pass
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        os.close(self._reader)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path / "line")
    yield line
    line.close()


# It stays up, with a child of its own, both holding the line.
STAYS = "exec 3>line; echo $$ >&3; sleep 1000 & wait"


@pytest.mark.req("AZR-15")
async def test_the_url_reaches_the_launcher_whole_and_unshelled(
    desktop: Program, tmp_path: Path
) -> None:
    desktop("xdg-open", 'printf "%s\\n" "$#" "$1" > said')
    assert await open_browser(URL)
    assert (tmp_path / "said").read_text().splitlines() == ["1", URL]
    assert not (tmp_path / "pwned").exists()


@pytest.mark.req("AZR-15")
@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://remote.example/authorize",
        "--help",
        "-https://as.example",
        "https://user@as.example/",
        "https://as.example/#x",
        "https://as.example/ x",
        "https://as.example/\n",
        "https://as.example/\0",
        'https://as.example/"&calc',
        "https://[",
        "https://äs.example/",
        "",
    ],
)
async def test_what_is_no_secure_url_is_not_opened(
    desktop: Program, tmp_path: Path, url: str
) -> None:
    desktop("xdg-open", "touch opened")
    with pytest.raises(InvalidResponse):
        await open_browser(url)
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    "url", ["http://localhost:1/a?b=c", "http://[::1]:1/a", "http://127.0.0.1/"]
)
def test_plain_http_may_stay_on_this_machine(url: str) -> None:
    check(url)


@pytest.mark.req("SEC-04")
async def test_launchers_get_no_secret_from_our_environment(
    desktop: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FLYTE_API_KEY", "UNION_API_KEY", "MY_SECRET", "HARMLESS"):
        monkeypatch.setenv(name, f"canary {name}")
    desktop("xdg-open", "env > environment")
    async with opening(URL, hidden=frozenset({"MY_SECRET"})) as browser:
        assert await browser.opened()
    environment = (tmp_path / "environment").read_text()
    assert re.findall("canary (.*)", environment) == ["HARMLESS"]


@pytest.mark.req("AZR-16")
async def test_without_any_launcher_nothing_has_opened(desktop: Program) -> None:
    assert not await open_browser(URL)


@pytest.mark.req("AZR-16")
async def test_the_next_launcher_is_tried_when_one_fails(desktop: Program, tmp_path: Path) -> None:
    desktop("xdg-open", "exit 3")
    desktop("gio", 'echo "$@" > said')
    assert await open_browser(URL)
    assert (tmp_path / "said").read_text() == f"open {URL}\n"


@pytest.mark.req("AZR-16")
async def test_noise_stays_away_from_our_terminal(
    desktop: Program, capfd: pytest.CaptureFixture[str]
) -> None:
    desktop("xdg-open", "echo noise; echo noise >&2; read line")
    assert not await open_browser(URL)  # read finds no terminal, so it fails
    assert capfd.readouterr() == ("", "")


@pytest.mark.req("AZR-16")
async def test_a_launcher_that_stays_has_opened_and_is_left_alone(
    desktop: Program, line: Line
) -> None:
    desktop("xdg-open", STAYS)
    async with opening(URL, settle=0.05) as browser:
        process = await line.up()
        assert await browser.opened()
    assert line.alive()
    assert os.getsid(process) == process  # a session of its own
    os.killpg(process, signal.SIGKILL)
    await line.gone()


@pytest.mark.req("CBK-16")
@pytest.mark.parametrize("early", [False, True])
async def test_who_is_cancelled_takes_the_launcher_and_its_children_along(
    desktop: Program, line: Line, early: bool
) -> None:
    desktop("xdg-open", STAYS)
    with anyio.CancelScope() as scope:
        async with opening(URL, settle=BOUND if early else 0) as browser:
            await line.up()
            if not early:
                assert await browser.opened()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    await line.gone()


@pytest.mark.req("CBK-16")
async def test_a_cancelled_open_browser_ends_its_launcher(desktop: Program, line: Line) -> None:
    desktop("xdg-open", STAYS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_browser, URL)
        await line.up()
        tasks.cancel_scope.cancel()
    await line.gone()


async def test_a_launcher_that_ignores_the_signal_is_killed(
    desktop: Program, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TERM_GRACE", 0.01)
    desktop("xdg-open", "trap '' TERM; " + STAYS + "; wait")
    async with opening(URL, settle=BOUND) as browser:
        await line.up()
        browser.close()
        browser.close()
    await line.gone()


@pytest.mark.req("AZR-16")
async def test_a_launcher_that_hangs_is_not_waited_for(desktop: Program, line: Line) -> None:
    desktop("xdg-open", STAYS)
    async with opening(URL, settle=BOUND, deadline=0.3) as browser:
        process = await line.up()
        assert await browser.opened()
    os.killpg(process, signal.SIGKILL)
    await line.gone()


async def test_starting_that_hangs_is_not_waited_for(
    desktop: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def hang(*args: Any, **kwargs: Any) -> None:
        released.wait(BOUND)
        raise OSError

    monkeypatch.setattr(subprocess, "Popen", hang)
    desktop("xdg-open", "")
    async with opening(URL, deadline=0.01) as browser:
        assert not await browser.opened()
    released.set()


@pytest.mark.req("CBK-16")
async def test_a_launcher_that_starts_after_the_end_is_ended(
    desktop: Program, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, real = threading.Event(), subprocess.Popen

    def slow(*args: Any, **kwargs: Any) -> Any:
        released.wait(BOUND)
        return real(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", slow)
    desktop("xdg-open", STAYS)
    with anyio.CancelScope() as scope:
        async with opening(URL, settle=BOUND) as browser:
            scope.cancel()
            await browser.opened()
    assert scope.cancelled_caught
    released.set()
    while threads := ours():
        await anyio.to_thread.run_sync(threads[0].join, BOUND)
    assert not await browser.opened()
    await line.gone()


async def test_after_the_body_no_other_launcher_is_tried(
    desktop: Program, tmp_path: Path, line: Line
) -> None:
    desktop("xdg-open", "exec 3>line; echo $$ >&3; exec sleep 1000")
    desktop("gio", "touch opened")
    async with opening(URL, settle=BOUND) as browser:
        process = await line.up()
    os.kill(process, signal.SIGKILL)
    assert not await browser.opened()
    assert not (tmp_path / "opened").exists()


@pytest.mark.req("AZR-16")
async def test_the_loop_goes_on_and_the_browser_may_need_its_answer_before_it_ends(
    desktop: Program, line: Line
) -> None:
    desktop("curl", "exec 3>line; echo $$ >&3; read reply < reply; exit 0")
    os.mkfifo(line.path.parent / "reply")
    os.environ["BROWSER"] = "curl -sL -o /dev/null %s"
    try:
        async with opening(URL, settle=BOUND) as browser:
            await line.up()
            await anyio.to_thread.run_sync((line.path.parent / "reply").write_text, "done\n")
            assert await browser.opened()
    finally:
        del os.environ["BROWSER"]


@pytest.mark.req("AZR-15", "AZR-16")
@pytest.mark.parametrize(
    ("environ", "platform", "first"),
    [
        ({"BROWSER": "a"}, "linux", ["a", URL]),
        ({"BROWSER": "a -x %s 'b c'"}, "linux", ["a", "-x", URL, "b c"]),
        ({"BROWSER": "a --url=%s"}, "linux", ["a", f"--url={URL}"]),
        ({"BROWSER": "a '%s"}, "linux", None),
        ({"BROWSER": f"{os.pathsep} {os.pathsep}a &"}, "linux", ["a", URL]),
        ({"BROWSER": f"w3m{os.pathsep}/usr/bin/lynx %s{os.pathsep}a"}, "darwin", ["a", URL]),
        ({"BROWSER": "&"}, "linux", None),
        ({"BROWSER": ""}, "darwin", ["open", URL]),
        ({}, "darwin", ["open", URL]),
        ({"DISPLAY": ":0"}, "linux", ["xdg-open", URL]),
        ({"WAYLAND_DISPLAY": "w"}, "freebsd14", ["xdg-open", URL]),
        ({"DISPLAY": "", "SSH_CONNECTION": "x"}, "linux", None),
    ],
)
def test_which_launcher_comes_first(
    environ: dict[str, str], platform: str, first: list[str] | None
) -> None:
    assert next(launchers(URL, environ, platform), None) == first


def test_windows_opens_the_browser_of_its_subsystem_for_linux() -> None:
    argvs = launchers(URL, {"DISPLAY": ":0"}, "linux", wsl=True)
    assert [argv[0] for argv in argvs][:3] == ["wslview", "rundll32.exe", "xdg-open"]


@pytest.mark.parametrize(
    ("command", "argvs"),
    [
        (("firefox", "-P", "work profile"), [["firefox", "-P", "work profile", URL]]),
        (("chrome", "--app={url}", "-x"), [["chrome", f"--app={URL}", "-x"]]),
        (("echo", "%s"), [["echo", "%s", URL]]),
        (("/usr/bin/w3m",), []),
    ],
)
def test_a_command_that_is_configured_is_the_only_one(
    command: tuple[str, ...], argvs: list[list[str]]
) -> None:
    environ = {"BROWSER": "another", "DISPLAY": ":0"}
    assert list(launchers(URL, environ, "linux", command=command, wsl=True)) == argvs


@pytest.mark.req("AZR-15")
async def test_a_command_that_is_configured_gets_the_url_whole_and_unshelled(
    desktop: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER", str(desktop("another", "touch another-opened")))
    mine = desktop("mine", 'printf "%s\\n" "$@" > said')
    assert await open_browser(URL, [str(mine), "a b; touch pwned", "--to={url}"])
    assert (tmp_path / "said").read_text().splitlines() == ["a b; touch pwned", f"--to={URL}"]
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "another-opened").exists()


def test_windows_subsystem_for_linux_is_noticed_by_its_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert is_wsl({"WSL_DISTRO_NAME": "Debian"})
    monkeypatch.setattr(Path, "read_text", lambda *args, **kwargs: "Linux version 6.1")
    assert not is_wsl({})
    monkeypatch.setattr(Path, "read_text", lambda *args, **kwargs: "Linux Microsoft-standard-WSL2")
    assert is_wsl({})


def test_a_system_without_proc_is_not_wsl(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: Any, **kwargs: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert not is_wsl({})
