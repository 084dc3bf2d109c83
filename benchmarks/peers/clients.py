"""What HTTP clients of all makes look like to the program around them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any, Final

AT_ONCE: Final = 8  # connections; httpcore's queue is quadratic in what waits for one
TIMEOUT: Final = 60.0


class Async:
    """A client like httpx's asynchronous one."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def get(self, url: str) -> int:
        status: int = (await self._client.get(url)).status_code
        return status

    async def close(self) -> None:
        await self._client.aclose()


class Sync:
    """A client like requests' session."""

    def __init__(self, client: Any, **options: Any) -> None:
        self._client = client
        self._options = options

    def get(self, url: str) -> int:
        response = self._client.get(url, **self._options)
        status: int = response.status_code
        return status

    def close(self) -> None:
        self._client.close()


class Closing:
    """*client*, and what else has to be closed after it."""

    def __init__(self, client: Any, *others: Any) -> None:
        self.get = client.get
        self._parts = (client, *others)

    async def close(self) -> None:
        for part in self._parts:
            closed = part.close() if hasattr(part, "close") else part.aclose()
            if inspect.isawaitable(closed):
                await closed


def client_config(order: Mapping[str, Any]) -> dict[str, Any]:
    """What both generations of flyte call a ClientConfig."""
    return {
        "token_endpoint": order["token_endpoint"],
        "authorization_endpoint": order["authorization_endpoint"],
        "device_authorization_endpoint": order["device_endpoint"],
        "redirect_uri": "http://localhost:53593/callback",
        "client_id": order["client_id"],
        "scopes": order["scope"].split(),
    }


def limits(httpx: Any) -> dict[str, Any]:
    """The same of httpx and of httpx2, for all."""
    pool = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    turns = _turns()

    class Gated(httpx.AsyncHTTPTransport):  # type: ignore[misc]
        """Requests wait here, after all that a client does before it sends them."""

        async def handle_async_request(self, request: Any) -> Any:
            async with turns:
                return await super().handle_async_request(request)

    return {"transport": Gated(limits=pool), "timeout": TIMEOUT}


def _turns() -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        import trio

        return trio.Semaphore(AT_ONCE)
    return asyncio.Semaphore(AT_ONCE)


def instant(httpx: Any) -> Any:
    """A transport of httpx's that answers at once."""

    async def answer(_: Any) -> Any:
        return httpx.Response(200)

    return httpx.MockTransport(answer)


def mounted(session: Any) -> Any:
    """A session of requests on which everything is answered at once."""
    import requests

    class Instant(requests.adapters.BaseAdapter):
        def send(self, request: Any, *_: Any, **__: Any) -> Any:
            response = requests.Response()
            response.status_code, response._content = 200, b""  # noqa: SLF001
            response.request, response.url = request, request.url
            return response

        def close(self) -> None:
            """Nothing is open."""

    for scheme in ("http://", "https://"):
        session.mount(scheme, Instant())
    return session


def pooled(session: Any) -> Any:
    """A session of requests with a connection for each thread."""
    import requests

    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=128))
    return session
