"""
The program around an adapter, in the environment of its library: a line of JSON in, a line out.

It needs the standard library only. An adapter is a module that calls ``run`` with itself. Of the
following functions it has those that its library can do; clients have ``get(url)``, which returns
a status, and ``close()``, both coroutines where ASYNC is true. Their argument is the order itself,
a mapping with what bench and server know: endpoints, client, tokens.

    bare(order)      a client without credentials, to compare with
    login(order)     one with the tokens in the order, which it can renew
    kept(order)      one with the login that ``keep(order)`` has put where the library keeps it
    cold(order)      one that has a client's id and secret, and no token yet
    mocked(order)    both a bare one and one with a good token, on a network that answers at once
    device(order)    log in by a code; awaitable where ASYNC is true

An adapter may have more of each over another protocol, by the name of that: ``login_connect``.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import inspect
import json
import logging
import os
import statistics
import sys
import time
import webbrowser
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

Order = Mapping[str, Any]
THREADS: Final = 100

# Errors of these come through from below; those of the rest of the world are nobody's.
HTTP: Final = (
    *("aiohttp", "connectrpc", "grpc", "h11", "httpcore", "httpcore2", "httpx", "httpx2"),
    *("pyqwest", "requests", "urllib3"),
)


class LoginAsked(Exception):
    """The library wants a person in front of a browser."""


FAILURES: Final = (Exception,)  # whatever a library raises, or lets through


def _browser(*_: Any, **__: Any) -> bool:
    raise LoginAsked


def kind_of(error: BaseException, own: tuple[str, ...]) -> str:
    """Whose *error* is: the library's own, of HTTP below it, a bare exception; or a login."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, LoginAsked):
            return "login"
        chain = chain.__cause__ or chain.__context__
    if isinstance(error, BaseExceptionGroup):
        return kind_of(error.exceptions[0], own)
    package = type(error).__module__.split(".", maxsplit=1)[0]
    if package in own:
        return "typed"
    return "http" if package in HTTP else "bare"


def outcome(error: BaseException, own: tuple[str, ...]) -> dict[str, str]:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return {"kind": kind_of(error, own), "error": type(error).__name__, "text": str(error)[:200]}


class Program:
    """What it holds between two orders: its clients."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter
        self._clients: dict[str, Any] = {}
        self._own: tuple[str, ...] = adapter.OWN
        # For what blocks: as many at once as its users would have threads.
        self._pool = ThreadPoolExecutor(THREADS)

    async def perform(self, order: Order) -> dict[str, Any]:
        function = getattr(self, f"_{order['do']}")
        result: dict[str, Any] = await function(order)
        return result

    async def _can(self, order: Order) -> dict[str, Any]:
        return {"can": [name for name, value in vars(self._adapter).items() if callable(value)]}

    async def _open(self, order: Order) -> dict[str, Any]:
        """Make the client ``which``; the one of that name before it is closed."""
        which = order["which"]
        await self._shut(which)
        self._clients[which] = await self._result(getattr(self._adapter, which)(order))
        return {}

    async def _shut(self, which: str) -> None:
        client = self._clients.pop(which, None)
        if client is not None:
            await self._result(client.close())

    async def _keep(self, order: Order) -> dict[str, Any]:
        await self._result(self._adapter.keep(order))
        return {}

    async def _call(self, order: Order) -> dict[str, Any]:
        """One call by the client ``which``; ``cancel_after``: cancelled after so many seconds."""
        client = self._clients[order["which"]]
        call = self._get(client, order["url"])
        begun = time.perf_counter()
        try:
            if "cancel_after" in order:
                async with asyncio.timeout(order["cancel_after"]):
                    status = await call
            else:
                status = await call
        except FAILURES as error:
            return {**outcome(error, self._own), "seconds": time.perf_counter() - begun}
        return {"kind": "answered", "status": status, "seconds": time.perf_counter() - begun}

    async def _cold_call(self, order: Order) -> dict[str, Any]:
        """A new client and its first call, timed together."""
        which = order["which"]
        begun = time.perf_counter()
        client = await self._result(getattr(self._adapter, which)(order))
        status = await self._get(client, order["url"])
        wall = time.perf_counter() - begun
        await self._result(client.close())
        return {"seconds": wall, "status": status}

    async def _burst(self, order: Order) -> dict[str, Any]:
        """So many ``calls``, ``at_once`` of them at any time."""
        client = self._clients[order["which"]]
        turns = asyncio.Semaphore(order["at_once"])
        seen: Counter[str] = Counter()

        async def call() -> None:
            async with turns:
                await self._note(client, order["url"], seen)

        gc.collect()
        gc.disable()
        begun = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(order["calls"])))
        wall = time.perf_counter() - begun
        gc.enable()
        return {"seconds": wall, "seen": dict(seen)}

    async def _note(self, client: Any, url: str, seen: Counter[str]) -> None:
        """What comes of one call."""
        try:
            status = await self._get(client, url)
            seen["ok" if status == 200 else f"status {status}"] += 1
        except FAILURES as error:
            seen[outcome(error, self._own)["error"]] += 1

    async def _together(self, order: Order) -> dict[str, Any]:
        """So many ``calls`` at once by a new client, on ``backend``."""
        seen: Counter[str] = Counter()

        async def main() -> float:
            client = await self._result(getattr(self._adapter, order["which"])(order))
            begun = time.perf_counter()
            async with anyio.create_task_group() as group:
                for _ in range(order["calls"]):
                    group.start_soon(self._note, client, order["url"], seen)
            wall = time.perf_counter() - begun
            await self._result(client.close())
            return wall

        import anyio

        wall = await asyncio.to_thread(anyio.run, main, backend=order["backend"])
        return {"seconds": wall, "seen": dict(seen)}

    async def _load(self, order: Order) -> dict[str, Any]:
        """``rate`` calls a second, whatever becomes of the ones before; latencies from when each
        was due. The collector's pauses are nobody's.
        """
        client = self._clients[order["which"]]
        latencies: list[float] = []
        failed = 0

        async def call(due: float) -> None:
            nonlocal failed
            try:
                failed += await self._get(client, order["url"]) != 200
            except FAILURES:
                failed += 1
            latencies.append(time.perf_counter() - due)

        gc.collect()
        gc.disable()
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(order["seconds"] * order["rate"])):
                due = begun + number / order["rate"]
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(call(due))
        gc.enable()
        ordered = sorted(latencies)
        return {
            "p50": statistics.median(ordered),
            "p99": ordered[int(0.99 * len(ordered))],
            "max": ordered[-1],
            "late": sum(latency > 0.1 for latency in ordered),
            "failed": failed,
        }

    async def _hot(self, order: Order) -> dict[str, Any]:
        """µs of this thread for a call without and with credentials, in pairs."""
        mocked = getattr(self._adapter, order["which"])
        clients = await self._result(mocked(order))
        loops = order["loops"]
        measured: tuple[list[float], list[float]] = ([], [])
        gc.collect()
        gc.disable()
        for index in range(-2, order["pairs"]):
            for which in ((0, 1), (1, 0))[index % 2]:
                get, url = clients[which].get, order["url"]
                begun = time.thread_time()
                if self._adapter.ASYNC:
                    for _ in range(loops):
                        await get(url)
                else:
                    for _ in range(loops):
                        get(url)
                if index >= 0:  # the first ones warm up
                    measured[which].append((time.thread_time() - begun) / loops * 1e6)
        gc.enable()
        for client in clients:
            await self._result(client.close())
        return {"without": measured[0], "with": measured[1]}

    async def _device(self, order: Order) -> dict[str, Any]:
        begun = time.perf_counter()
        try:
            device = self._adapter.device
            if self._adapter.ASYNC:
                said = await device(order)
            else:
                said = await self._in_thread(device, order)
        except FAILURES as error:
            return {**outcome(error, self._own), "seconds": time.perf_counter() - begun}
        return {"kind": "answered", "text": said, "seconds": time.perf_counter() - begun}

    async def _get(self, client: Any, url: str) -> int:
        if self._adapter.ASYNC:
            status: int = await client.get(url)
        else:
            status = await self._in_thread(client.get, url)
        return status

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def _result(self, value: Any) -> Any:
        return await value if inspect.isawaitable(value) else value


async def _serve(adapter: Any, out: Any) -> None:
    program = Program(adapter)
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            said = await program.perform(json.loads(line))
        except FAILURES as error:
            said = {"crash": f"{type(error).__name__}: {error}"[:400]}
        out.write(json.dumps(said) + "\n")
        out.flush()


def run(adapter: Any) -> None:
    """Do what standard input says, until it ends. What the library prints goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    for name in ("open", "open_new", "open_new_tab"):
        setattr(webbrowser, name, _browser)
    for library in adapter.IMPORTS:
        importlib.import_module(library)
    asyncio.run(_serve(adapter, out))
    os._exit(0)  # threads that hang in a request do not keep it
