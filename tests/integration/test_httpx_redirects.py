"""
Redirects over real sockets: whatever the status and wherever it leads, a credential stays at the
server that it is for. Each library is tried as it is, with its own idea of what to take along.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from flyteauth.integrations.httpx import install
from flyteauth.session import Session

from .plane import Plane
from .sites import STATUSES, Log, Sites, elsewhere, log, sites
from .test_httpx import CUSTOM, PROXY, Client, Library, library, proxied

pytestmark = pytest.mark.anyio

__all__ = ["library", "log", "sites"]  # the fixtures

KINDS = {
    "Auth": ["authorization"],
    "install": ["authorization"],
    "custom": [CUSTOM],
    "proxied": ["authorization", PROXY],
}


@asynccontextmanager
async def client_at(base: str, kind: str, library: Library, sites: Sites) -> AsyncIterator[Client]:
    faults = {"flyte1-only", "custom-header-key"} if kind == "custom" else set()
    make = proxied if kind == "proxied" else Plane.session
    session: Session = make(Plane(base_url=base, faults=faults), endpoint=base)
    async with session, library.client(follow_redirects=True, verify=sites.trust) as client:
        await session.login()
        if kind == "Auth":
            client.client.auth = library.auth(session)
        else:
            install(client.client, session)
        yield client


@pytest.mark.req("BRR-04")
@pytest.mark.parametrize("kind", KINDS)
@elsewhere
async def test_no_status_takes_a_credential_to_another_origin(
    library: Library, sites: Sites, log: Log, endpoint: str, target: str, kind: str
) -> None:
    base = sites.url(endpoint)
    log.moved["/tasks"] = f"{sites.url(target)}/there"
    async with client_at(base, kind, library, sites) as client:
        for log.status in STATUSES:
            answer = await client.post(f"{base}/tasks", content=b"body")
            assert answer.status_code == 200
    assert log.seen == [("/tasks", KINDS[kind]), ("/there", [])] * len(STATUSES)


@pytest.mark.req("BRR-04")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("endpoint", ["plain", "tls"])
async def test_at_the_same_origin_every_status_keeps_it(
    library: Library, sites: Sites, log: Log, endpoint: str, kind: str
) -> None:
    base = sites.url(endpoint)
    log.moved.update({"/tasks": "/relative", "/relative": f"{base}/absolute"})
    async with client_at(base, kind, library, sites) as client:
        for log.status in STATUSES:
            assert (await client.post(f"{base}/tasks", content=b"body")).status_code == 200
    expected = [(path, KINDS[kind]) for path in ("/tasks", "/relative", "/absolute")]
    assert log.seen == expected * len(STATUSES)


@pytest.mark.req("BRR-04")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("endpoint", "target"), [("plain", "other"), ("tls", "plain")])
async def test_there_and_back_again_it_is_not_what_it_was(
    library: Library, sites: Sites, log: Log, endpoint: str, target: str, kind: str
) -> None:
    """Whoever was in between chose where it leads."""
    base, between = sites.url(endpoint), sites.url(target)
    log.moved.update({"/tasks": f"{between}/between", "/between": f"{base}/back"})
    async with client_at(base, kind, library, sites) as client:
        for log.status in STATUSES:
            assert (await client.post(f"{base}/tasks", content=b"body")).status_code == 200
    expected = [("/tasks", KINDS[kind]), ("/between", []), ("/back", [])]
    assert log.seen == expected * len(STATUSES)


@pytest.mark.req("BRR-04")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_redirect_to_userinfo_is_to_whom_it_really_leads(
    library: Library, sites: Sites, log: Log, kind: str
) -> None:
    base = sites.url("plain")
    other = sites.url("other").replace("//", f"//localhost:{sites.plain.port}@")
    log.moved["/tasks"] = f"{other}/there"
    async with client_at(base, kind, library, sites) as client:
        await client.get(f"{base}/tasks")
    assert log.seen == [("/tasks", KINDS[kind]), ("/there", [])]
