"""
Redirects over real sockets: whatever the status and wherever it leads, a credential stays at the
server that it is for. Each library is tried as it is, with its own idea of what to take along.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager

import pytest
import trustme
from attrs import field, frozen

from flyteauth.integrations.httpx import install
from flyteauth.session import Session
from tests.io.server import Connection, Server, reply, serve

from .plane import Plane
from .test_httpx import CUSTOM, PROXY, Client, Library, library, proxied

pytestmark = pytest.mark.anyio

__all__ = ["library"]  # the fixture

STATUSES = ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent")


class Log:
    """Which of our credentials each request carried, in the order of the requests; what is asked
    for at ``moved`` redirects, everything else is there.
    """

    def __init__(self) -> None:
        self.moved: dict[str, str] = {}
        self.seen: list[tuple[str, list[str]]] = []
        self.status = STATUSES[0]
        self._lock = threading.Lock()

    def script(self, connection: Connection) -> None:
        while request := connection.read_request():
            head = request.partition(b"\r\n\r\n")[0].decode("latin-1")
            first, *lines = head.split("\r\n")
            ours = [
                name.lower()
                for name, _, value in (x.partition(": ") for x in lines)
                if value.startswith("Bearer ")
            ]
            path = first.split(" ")[1]
            with self._lock:
                self.seen.append((path, sorted(ours)))
            if (where := self.moved.get(path)) is not None:
                connection.send(reply(status=self.status, headers=(f"location: {where}",)))
            else:
                connection.send(reply())


@frozen
class Sites:
    """Three servers: one speaks plain HTTP and is also called 127.0.0.1, one is another port, one
    has TLS.
    """

    log: Log
    plain: Server
    other: Server
    tls: Server
    trust: ssl.SSLContext = field(repr=False)

    def url(self, name: str) -> str:
        return {
            "plain": f"http://localhost:{self.plain.port}",
            "address": f"http://127.0.0.1:{self.plain.port}",
            "other": f"http://localhost:{self.other.port}",
            "tls": f"https://localhost:{self.tls.port}",
            "tls address": f"https://127.0.0.1:{self.tls.port}",
        }[name]


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    log, authority = Log(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    with ExitStack() as stack:
        plain, other = (stack.enter_context(serve(log.script)) for _ in range(2))
        tls = stack.enter_context(serve(log.script, context))
        yield Sites(log, plain, other, tls, trust)


@pytest.fixture
def log(sites: Sites) -> Log:
    sites.log.moved.clear()
    sites.log.seen.clear()
    return sites.log


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
@pytest.mark.parametrize(
    ("endpoint", "target"),
    [
        ("plain", "other"),
        ("plain", "address"),
        ("plain", "tls"),
        ("tls", "plain"),
        ("tls", "tls address"),
    ],
    ids=["port", "host", "http to https", "https to http", "host with TLS"],
)
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
