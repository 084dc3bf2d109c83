"""Servers on loopback that redirect to each other, and note which credentials they were sent."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import trustme
from attrs import field, frozen

from tests.io.server import Connection, Server, reply, serve

STATUSES = ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent")


elsewhere = pytest.mark.parametrize(
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


class Log:
    """Which of our credentials each request carried, in the order of the requests; what is asked
    for at ``moved`` redirects, everything else is there. A value in ``refused`` gets 401, or 407
    where it is for a proxy, and so does everything at ``refuses_all``.
    """

    def __init__(self) -> None:
        self.moved: dict[str, str] = {}
        self.seen: list[tuple[str, list[str]]] = []
        self.values: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.refused: set[str] = set()
        self.refusal = b"refused"
        self.refuses_all = ""
        self.status = STATUSES[0]
        self._lock = threading.Lock()

    def script(self, connection: Connection) -> None:
        while request := connection.read_request():
            head, _, body = request.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            pairs = [(name.lower(), value) for name, _, value in (x.partition(": ") for x in lines)]
            ours = {name: value for name, value in pairs if value.startswith("Bearer ")}
            path = first.split(" ")[1]
            with self._lock:
                self.seen.append((path, sorted(ours)))
                self.values.append(ours)
                self.bodies.append(body)
            bad = next((name for name, value in ours.items() if value in self.refused), None)
            if path == self.refuses_all:
                connection.send(reply(self.refusal, status="401 No"))
            elif bad is not None:
                status = "407 Proxy" if bad == "proxy-authorization" else "401 No"
                connection.send(reply(self.refusal, status=status))
            elif (where := self.moved.get(path)) is not None:
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
    ca_file: str

    def url(self, name: str) -> str:
        return {
            "plain": f"http://localhost:{self.plain.port}",
            "address": f"http://127.0.0.1:{self.plain.port}",
            "other": f"http://localhost:{self.other.port}",
            "tls": f"https://localhost:{self.tls.port}",
            "tls address": f"https://127.0.0.1:{self.tls.port}",
        }[name]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    log, authority = Log(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    ca_file = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    with ExitStack() as stack:
        plain, other = (stack.enter_context(serve(log.script)) for _ in range(2))
        tls = stack.enter_context(serve(log.script, context))
        yield Sites(log, plain, other, tls, trust, str(ca_file))


@pytest.fixture
def log(sites: Sites) -> Log:
    log = sites.log
    for noted in (log.moved, log.seen, log.values, log.bodies, log.refused):
        noted.clear()
    log.status, log.refuses_all = STATUSES[0], ""
    return log
