"""
Programs that are measured from their start: ``python -m benchmarks.fresh NAME ORDER``.

Each runs in a process of its own, with an empty home, and says in one line of JSON how it went.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .server import ROOT

DEADLINE: Final = 300.0


def body(order: dict[str, Any]) -> dict[str, Any]:
    """Refresh twice: from a server that is well, so that everything is in memory that has to be,
    and then from one that answers with what ``order`` names.
    """
    import anyio

    from flyteauth.errors import Error

    from .logins import TTL, Kept, LaterClock, person

    async def main() -> dict[str, Any]:
        clock = LaterClock()
        session = person(_server(order), clock=clock)
        async with session:
            await session.login()
            clock.later += TTL + 1
            await session.headers()
            kept = await Kept.of(session)
        kept.expire(token_endpoint=order["token_endpoint"])
        async with person(_server(order)) as session:
            await session.settings()
            before, begun = _start_watching_memory(), time.perf_counter()
            said = ""
            try:
                await session.headers()
            except Error as error:
                said = f"{type(error).__name__}: {error}"
            return {
                "seconds": time.perf_counter() - begun,
                "said": said,
                "grown": (_memory("VmHWM") - before) / 1e6,
            }

    return dict(anyio.run(main, backend=order["backend"]))


def _start_watching_memory() -> int:
    """Memory in use; the peak is that from now on."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # see proc(5)
    return _memory("VmRSS")


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def keyring(order: dict[str, Any]) -> dict[str, Any]:
    """Log in with the default store, whose keyring never answers."""
    import anyio

    from flyteauth.events import LoggedIn, Warned

    from .logins import Watcher, person

    watcher = Watcher()
    seconds = {}

    async def main() -> None:
        begun = time.perf_counter()
        async with person(_server(order), token_store=None, presenter=watcher) as session:
            await session.login(must_keep=True)
            seconds["login"] = time.perf_counter() - begun
            await session.headers()
            seconds["headers"] = time.perf_counter() - begun

    anyio.run(main, backend=order["backend"])
    return {
        **seconds,
        "places": [event.place for event in watcher.seen if isinstance(event, LoggedIn)],
        "warnings": [event.message for event in watcher.seen if isinstance(event, Warned)],
        "ended": time.time(),
    }


def heartbeat(order: dict[str, Any]) -> dict[str, Any]:
    """Everything that takes time, while a task counts the event loop's heart beats."""
    import anyio
    import anyio.lowlevel

    gaps: dict[str, list[float]] = {}
    phase = "idle"

    async def beat() -> None:
        last = time.perf_counter()
        while True:
            await anyio.sleep(order["beat"])
            now = time.perf_counter()
            gaps.setdefault(phase, []).append(now - last)
            last = now

    async def main() -> None:
        nonlocal phase
        async with anyio.create_task_group() as group:
            group.start_soon(beat)
            await anyio.sleep(order["idle"])
            phase = "import"
            import flyteauth

            session_type = flyteauth.Session
            await anyio.lowlevel.checkpoint()
            from .logins import TTL, LaterClock, Watcher

            # What is ours is imported now, and not counted.
            await anyio.sleep(2 * order["beat"])
            clock = LaterClock()
            common: dict[str, Any] = {"presenter": Watcher(), "clock": clock}
            phase = "first use and login"
            async with session_type(
                endpoint=order["base_url"], auth_type="DeviceFlow", **common
            ) as session:
                await session.login()
                await session.headers()
                await anyio.sleep(2 * order["beat"])
                phase = "refresh"
                clock.later += TTL + 1
                await session.headers()
                await anyio.sleep(2 * order["beat"])
            phase = "external command"
            async with session_type(
                endpoint=order["base_url"],
                auth_type="ExternalCommand",
                command=[sys.executable, "-c", "import time; time.sleep(0.3); print('a-token')"],
                **common,
            ) as session:
                await session.headers()
                await anyio.sleep(2 * order["beat"])
            group.cancel_scope.cancel()

    anyio.run(main, backend=order["backend"])
    return {"gaps": {name: max(values) for name, values in gaps.items()}}


def _server(order: dict[str, Any]) -> Any:
    from .server import Server

    return Server(order["server"])


PROGRAMS: Final = {"body": body, "keyring": keyring, "heartbeat": heartbeat}


def run(
    name: str, home: Path, order: Mapping[str, Any], **environ: str
) -> tuple[dict[str, Any], float, float]:
    """What the program says; how many seconds it ran; and how many of them after its last word."""
    begun = time.time()
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.fresh", name, json.dumps(order)],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "FLYTEAUTH_HOME": str(home / "flyteauth"),
            **environ,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=DEADLINE,
        check=True,
    )
    ended = time.time()
    said = json.loads(process.stdout)
    return said, ended - begun, ended - said.get("ended", ended)


if __name__ == "__main__":
    print(json.dumps(PROGRAMS[sys.argv[1]](json.loads(sys.argv[2]))), flush=True)
