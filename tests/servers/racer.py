"""
A process that waits until it is told to, and then finds its token expired::

    python -m tests.servers.racer SECONDS BACKEND URL ARGUMENTS

It prints what URL answers to its headers, and a digest of them. Its clock is so many SECONDS ahead.
"""

from __future__ import annotations

import hashlib
import json
import sys

import anyio
import anyio.to_thread
import httpx

from flyteauth.session import Session

from .clocks import PassingClock


async def main(passed: str, url: str, arguments: str) -> None:
    async with Session(clock=PassingClock(float(passed)), **json.loads(arguments)) as session:
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        headers = await session.headers()
        async with httpx.AsyncClient(trust_env=False) as client:
            response = await client.get(url, headers=headers)
    digest = hashlib.sha256(headers["authorization"].encode()).hexdigest()
    print(json.dumps({"status": response.status_code, "token": digest}))


if __name__ == "__main__":
    _, seconds, library, address, settings = sys.argv
    anyio.run(main, seconds, address, settings, backend=library)
