"""
A desktop as far as secrets go: a session bus of its own with gnome-keyring on it, and somebody who
is asked to unlock that.
"""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import which
from typing import Any, Final, Literal

import jeepney  # type: ignore[import-untyped]
from attrs import define, field
from jeepney.io.blocking import DBusConnection, open_dbus_connection  # type: ignore[import-untyped]

from ..services import require

DEADLINE: Final = 30.0
SERVICE: Final = "org.freedesktop.secrets"

# Nothing on this bus is started because somebody asks for it.
_BUS: Final = """
<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


@define
class Desktop:
    """``unlocked`` starts gnome-keyring with a keyring that is open, ``locked`` with one that is
    not; ``kill`` ends it as a crash does.
    """

    folder: Path
    address: str
    _service: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def environ(self) -> dict[str, str]:
        """For a program on this desktop."""
        return {"DBUS_SESSION_BUS_ADDRESS": self.address}

    def unlocked(self) -> None:
        self._start(b"a password", "--unlock")

    def locked(self) -> None:
        self._start(b"")

    def kill(self) -> None:
        service, self._service = self._service, None
        if service is not None:
            service.kill()
            with service:
                service.wait(DEADLINE)
            self._await(there=False)

    def _start(self, password: bytes, *options: str) -> None:
        self.kill()
        program = str(require("gnome-keyring"))
        folders = {
            name: str(_made(self.folder / name.lower()))
            for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR")
        }
        self._service = subprocess.Popen(
            [program, "--foreground", "--components=secrets", *options],
            env={"PATH": os.environ["PATH"], **self.environ, **folders},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert self._service.stdin is not None
        self._service.stdin.write(password)
        self._service.stdin.close()
        self._await(there=True)

    def _await(self, *, there: bool) -> None:
        deadline = time.monotonic() + DEADLINE
        with connected(self.address) as connection:
            asking = jeepney.message_bus.NameHasOwner(SERVICE)
            while bool(_asked(connection, asking)[0]) is not there:
                assert time.monotonic() < deadline, f"{SERVICE} does not come or go"
                time.sleep(0.01)


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def desktop(folder: Path) -> Iterator[Desktop]:
    """A desktop whose files are in *folder*, until the end of the block."""
    require("gnome-keyring")
    program = which("dbus-daemon")
    assert program is not None
    config, socket = folder / "bus.conf", folder / "bus"
    config.write_text(_BUS.format(socket=socket), "utf-8")
    argv = [program, f"--config-file={config}", "--nofork", "--print-address"]
    with ExitStack() as stack:
        bus = stack.enter_context(
            subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        )
        stack.callback(bus.terminate)
        assert bus.stdout is not None
        ready, _, _ = select.select([bus.stdout], [], [], DEADLINE)
        assert ready, "the bus does not start"
        made = Desktop(folder, bus.stdout.readline().decode().strip())
        stack.callback(made.kill)
        yield made


@contextmanager
def connected(address: str) -> Iterator[DBusConnection]:
    connection = open_dbus_connection(bus=address)
    try:
        yield connection
    finally:
        connection.close()


def _asked(connection: DBusConnection, message: Any) -> Any:
    reply = connection.send_and_get_reply(message, timeout=DEADLINE)
    return jeepney.wrappers.unwrap_msg(reply)


# Who is asked to unlock the keyring: it is gcr's prompter that asks, on a real desktop.

_PROMPTER: Final = "org.gnome.keyring.SystemPrompter"
_CALLBACK: Final = "org.gnome.keyring.internal.Prompter.Callback"


@define
class Somebody:
    """``asked``: the prompt is there."""

    asked: threading.Event = field(factory=threading.Event)


@contextmanager
def somebody(desktop: Desktop, who: Literal["dismisses", "is away"]) -> Iterator[Somebody]:
    """Somebody who presses Cancel when they are asked for the password, or who is not there."""
    person = Somebody()
    with connected(desktop.address) as connection:
        _asked(connection, jeepney.message_bus.RequestName(_PROMPTER))

        def call(caller: Any, path: str, method: str, *words: str) -> None:
            where = jeepney.DBusAddress(path, bus_name=caller, interface=_CALLBACK)
            body: tuple[object, ...] = (words[0], {}, words[1]) if words else ()
            signature = "sa{sv}s" if words else None
            connection.send(jeepney.new_method_call(where, method, signature, body))

        def attend() -> None:
            while True:
                try:
                    message = connection.receive()
                except (ConnectionError, OSError, ValueError):  # closed
                    return
                if message.header.message_type is not jeepney.MessageType.method_call:
                    continue
                fields = message.header.fields
                caller = fields[jeepney.HeaderFields.sender]
                connection.send(jeepney.new_method_return(message))
                match fields[jeepney.HeaderFields.member]:
                    case "BeginPrompting":
                        call(caller, message.body[0], "PromptReady", "", "")
                    case "PerformPrompt":
                        person.asked.set()
                        if who == "dismisses":
                            call(caller, message.body[0], "PromptReady", "no", "")
                    case "StopPrompting":
                        call(caller, message.body[0], "PromptDone")

        thread = threading.Thread(target=attend, daemon=True)
        thread.start()
        yield person
        connection.sock.shutdown(2)  # which ends what the thread waits for
        thread.join(DEADLINE)
