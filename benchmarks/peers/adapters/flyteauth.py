"""flyteauth, over httpx and over Connect."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import httpx
from flyteidl2.workflow.run_service_connect import RunServiceClient

from flyteauth import Session
from flyteauth._identity import identity
from flyteauth._io.store.file import FileStore
from flyteauth._sansio.record import Record
from flyteauth._sansio.token import Token
from flyteauth.integrations import connect
from flyteauth.integrations.httpx import Auth

from ..clients import Async, Closing, instant, limits
from ..connect import Calls, Instant, bare_connect as bare_connect  # noqa: PLC0414
from ..program import Order, run

ASYNC = True
OWN = ("flyteauth",)
IMPORTS = ("flyteauth.session", "flyteauth.integrations.httpx", "flyteauth.integrations.connect")


class _Quiet:
    """A presenter: nobody looks."""

    async def show(self, event: Any) -> None:
        pass


def _session(order: Order, **arguments: Any) -> Any:
    defaults = {"endpoint": order["endpoint"], "presenter": _Quiet()}
    return Session(**{**defaults, **arguments})


def _person(order: Order) -> Any:
    return _session(order, auth_type="Pkce", token_store="file")


def _service(order: Order) -> Any:
    return _session(order, client_id=order["service_id"], client_secret=order["service_secret"])


def bare(order: Order) -> Any:
    return Async(httpx.AsyncClient(**limits(httpx)))


async def keep(order: Order) -> None:
    token = Token(
        order["access_token"],
        order["obtained_at"],
        order["expires_at"],
        order["refresh_token"],
        None,
        tuple(order["scope"].split()),
    )
    record = Record(token, order["token_endpoint"], order["client_id"], login="0" * 16)
    async with _person(order) as session:
        settings = await session.settings()
    FileStore().save_sync(identity(settings), record)


async def _opened(session: Any) -> Any:
    await session.__aenter__()
    client = httpx.AsyncClient(auth=Auth(session), **limits(httpx))
    return Closing(Async(client), session)


async def kept(order: Order) -> Any:
    return await _opened(_person(order))


async def login(order: Order) -> Any:
    await keep(order)
    return await kept(order)


def _unless_discovered(order: Order) -> None:
    """What programs of this machine have found out about the server is kept in this folder."""
    if order.get("forget"):
        shutil.rmtree(os.environ["FLYTEAUTH_HOME"], ignore_errors=True)


async def cold(order: Order) -> Any:
    _unless_discovered(order)
    return await _opened(_service(order))


async def cold_told(order: Order) -> Any:
    session = Session(
        issuer=order["endpoint"],
        endpoints={"token_endpoint": order["token_endpoint"]},
        client_id=order["service_id"],
        client_secret=order["service_secret"],
        presenter=_Quiet(),
    )
    await session.__aenter__()
    client = httpx.AsyncClient(auth=Auth(session, origins=[order["endpoint"]]), **limits(httpx))
    return Closing(Async(client), session)


class _Own:
    """The session's own calls, on the session's own connections."""

    def __init__(self, session: Any) -> None:
        self._session = session

    async def get(self, url: str) -> int:
        await self._session.whoami()
        return 200

    async def close(self) -> None:
        await self._session.aclose()


async def cold_own(order: Order) -> Any:
    _unless_discovered(order)
    session = _service(order)
    await session.__aenter__()
    return _Own(session)


async def mocked(order: Order) -> Any:
    await keep(order)
    session = _person(order)
    await session.headers()
    without = httpx.AsyncClient(transport=instant(httpx))
    ours = httpx.AsyncClient(transport=instant(httpx), auth=Auth(session))
    return Async(without), Closing(Async(ours), session)


async def device(order: Order) -> str:
    async with _session(order, auth_type="DeviceFlow", token_store="memory") as session:
        await session.login()
    return "a token"


# Over Connect.


async def login_connect(order: Order) -> Any:
    await keep(order)
    return await _connected(_person(order))


async def cold_connect(order: Order) -> Any:
    _unless_discovered(order)
    return await _connected(_service(order))


async def _connected(session: Any) -> Any:
    await session.__aenter__()
    context = connect.client(RunServiceClient, session)
    runs = await context.__aenter__()
    return _Connected(runs, context, session)


class _Connected(Calls):
    def __init__(self, runs: Any, context: Any, session: Any) -> None:
        super().__init__(runs)
        self._context, self._session = context, session

    async def close(self) -> None:
        await self._context.__aexit__(None, None, None)
        await self._session.aclose()


async def mocked_connect(order: Order) -> Any:
    await keep(order)
    session = _person(order)
    await session.headers()
    runs = RunServiceClient(
        order["endpoint"], interceptors=[*connect.interceptors(session), Instant()]
    )
    without = RunServiceClient(order["endpoint"], interceptors=[Instant()])
    return Calls(without, streams=False), Closing(Calls(runs, streams=False), session)


if __name__ == "__main__":
    run(sys.modules[__name__])
