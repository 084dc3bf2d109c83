"""The credentials on requests of requests: where they go, and what a refusal leads to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO
from typing import Any

import pytest
import requests
import urllib3.util
from hypothesis import given, settings, strategies as st
from requests.adapters import BaseAdapter

from flyteauth import SyncSession, auth_metadata
from flyteauth._io.portal import call
from flyteauth._sansio.flow import RequestFailed
from flyteauth.errors import ConfigError, InteractionRequired, ReauthRequired, Unreachable
from flyteauth.integrations.requests import Auth
from flyteauth.session import Session

from .plane import Plane
from .sites import STATUSES, Log, Sites, elsewhere, log, sites
from .test_httpx import CUSTOM, PROXY, Proxied, proxied

__all__ = ["log", "sites"]  # the fixtures

KINDS = {"Auth": ["authorization"], "custom": [CUSTOM], "proxied": ["authorization", PROXY]}
LIMIT = 10.0


@contextmanager
def logged_in(plane: Plane, **arguments: Any) -> Iterator[SyncSession]:
    with SyncSession(of=plane.session(**arguments)) as session:
        session.login()
        yield session


@contextmanager
def client_at(
    base: str, sites: Sites, kind: str = "Auth", **arguments: Any
) -> Iterator[tuple[requests.Session, SyncSession, Plane]]:
    faults = {"flyte1-only", "custom-header-key"} if kind == "custom" else set()
    plane = Plane(base_url=base, faults=faults)
    make = proxied if kind == "proxied" else Plane.session
    with SyncSession(of=make(plane, endpoint=base)) as session, requests.Session() as client:
        session.login()
        client.auth = Auth(session, **arguments)
        client.trust_env, client.verify = False, sites.ca_file
        yield client, session, plane


@pytest.fixture
def base(sites: Sites) -> str:
    return sites.url("plain")


@pytest.mark.req("BRR-04")
@pytest.mark.parametrize("kind", KINDS)
@elsewhere
def test_no_status_takes_a_credential_to_another_origin(
    sites: Sites, log: Log, endpoint: str, target: str, kind: str
) -> None:
    base = sites.url(endpoint)
    log.moved["/tasks"] = f"{sites.url(target)}/there"
    with client_at(base, sites, kind) as (client, _, _):
        for log.status in STATUSES:
            answer = client.post(f"{base}/tasks", data=b"body", timeout=LIMIT)
            assert answer.status_code == 200
            unfollowed = client.get(f"{base}/tasks", allow_redirects=False, timeout=LIMIT)
            assert unfollowed.next is not None
            client.send(unfollowed.next, timeout=LIMIT)
    assert log.seen == [("/tasks", KINDS[kind]), ("/there", [])] * 2 * len(STATUSES)


@pytest.mark.req("BRR-04")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("endpoint", ["plain", "tls"])
def test_at_the_same_origin_every_status_keeps_it(
    sites: Sites, log: Log, endpoint: str, kind: str
) -> None:
    base = sites.url(endpoint)
    log.moved.update({"/tasks": "/relative", "/relative": f"{base}/absolute"})
    with client_at(base, sites, kind) as (client, _, _):
        for log.status in STATUSES:
            client.post(f"{base}/tasks", data=b"body", timeout=LIMIT).raise_for_status()
    kept = [name for name in KINDS[kind] if name != PROXY]  # that is requests' own doing
    expected = [("/tasks", KINDS[kind]), ("/relative", kept), ("/absolute", kept)]
    assert log.seen == expected * len(STATUSES)


@pytest.mark.req("BRR-04")
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_again_it_is_not_what_it_was(
    sites: Sites, log: Log, base: str, kind: str
) -> None:
    log.moved.update({"/tasks": f"{sites.url('other')}/there", "/there": f"{base}/back"})
    with client_at(base, sites, kind) as (client, _, _):
        client.get(f"{base}/tasks", timeout=LIMIT)
        client.get(f"{sites.url('other')}/there", timeout=LIMIT)
    assert log.seen == [("/tasks", KINDS[kind]), *[("/there", []), ("/back", [])] * 2]


class Recorded(BaseAdapter):
    """In place of a network: redirects once to ``location``, and notes what it is sent."""

    def __init__(self, location: str | None = None) -> None:
        super().__init__()
        self.location = location
        self.sent: list[requests.PreparedRequest] = []

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        self.sent.append(request.copy())
        response = requests.Response()
        response.status_code, response.url, response.request = 200, request.url or "", request
        if self.location is not None:
            response.status_code, response.headers["location"] = 302, self.location
            self.location = None
        response.raw = BytesIO()
        response._content = b""
        return response

    def close(self) -> None:
        pass


LOCATIONS = [
    "//localhost:8080/x",
    "http://LOCALHOST:8080/x",
    "?query",
    "",
    "#fragment",
    "http:there",
    "http:/there",
    "http:///there",
    "///evil.example/x",
    "////evil.example/x",
    "//evil.example/x",
    "/\\evil.example/x",
    "\\\\evil.example\\x",
    "http:\\\\evil.example/x",
    "http://localhost:8080@evil.example/x",
    "http://localhost:8080\\@evil.example/x",
    "http://localhost:8080\\.evil.example/x",
    "http://evil.example\\@localhost:8080/x",
    "http://evil.example#@localhost:8080/x",
    "http://evil.example?@localhost:8080/x",
    "http://localhost:8080#.evil.example/x",
    "http://localhost:80800/x",
    "http://localhost:08080/x",
    "http://localhost.:8080/x",
    "http://localhost%2eevil.example:8080/x",
    "http://\u217docalhost:8080/x",
    "http://localhost:8080\t.evil.example/x",
    " http://evil.example/x",
    "HTTP://evil.example/x",
    "https:evil.example/x",
    "http://[::1]:8080/x",
    "http://[localhost]:8080/x",
    "http://localhost\uff0fevil.example:8080/x",
]


@pytest.fixture(scope="module")
def custom() -> Iterator[SyncSession]:
    """A session at http://localhost:8080, with a header that requests does not know."""
    with logged_in(Plane(faults={"custom-header-key"})) as session:
        yield session


pieces = st.sampled_from(
    [
        *(
            "http:",
            "https:",
            "//",
            "/",
            "\\",
            "localhost",
            "evil.example",
            ":8080",
            ":80",
            ":",
            "@",
        ),
        *("?", "#", ".", "..", "%2f", "%5c", "%40", "[", "]", "[::1]", " ", "\t", "x", ";", "\xa0"),
    ]
)


@pytest.mark.req("BRR-04")
@given(location=st.lists(pieces, max_size=7).map("".join))
@settings(max_examples=400)
def test_however_a_redirect_is_written_it_is_judged_by_where_it_leads(
    custom: SyncSession, location: str
) -> None:
    redirected(custom, location)


@pytest.mark.req("BRR-04")
@pytest.mark.parametrize("location", LOCATIONS)
def test_what_readers_of_urls_disagree_about_takes_nothing_along(
    custom: SyncSession, location: str
) -> None:
    redirected(custom, location)


def redirected(session: SyncSession, location: str) -> None:
    """See where requests sends what, when the endpoint answers with this *location*."""
    adapter = Recorded(location.encode().decode("latin-1"))  # as requests gets it
    with requests.Session() as client:
        client.trust_env = False
        client.mount("http://", adapter)
        client.mount("https://", adapter)
        client.auth = Auth(session)
        with suppress(requests.RequestException, ValueError):  # it is not followed at all
            client.get("http://localhost:8080/tasks", timeout=LIMIT)
    first, *others = adapter.sent
    assert CUSTOM in first.headers
    for request in others:
        try:
            where = urllib3.util.parse_url(request.url or "")
        except urllib3.exceptions.LocationParseError:
            continue  # and the adapter sends it nowhere
        if (where.scheme, where.host, where.port) != ("http", "localhost", 8080):
            assert CUSTOM not in request.headers


@pytest.mark.parametrize(
    "location", ["/x", "x/y", "?a=b", "http://localhost:8080/x?y#z", "/a:b//c"]
)
def test_a_redirect_that_is_plainly_within_the_server_keeps_it(
    custom: SyncSession, location: str
) -> None:
    adapter = Recorded(location)
    with requests.Session() as client:
        client.mount("http://", adapter)
        client.get("http://localhost:8080/tasks", auth=Auth(custom), timeout=LIMIT)
    assert [CUSTOM in request.headers for request in adapter.sent] == [True, True]


@pytest.mark.req("BRR-03")
def test_the_data_plane_and_what_is_named_get_it_and_nobody_else() -> None:
    plane, adapter = Plane(dataplane_domain="dp.example.com"), Recorded()
    with logged_in(plane) as session, requests.Session() as client:
        client.mount("http://", adapter)
        client.mount("https://", adapter)
        auth = Auth(session, origins=["https://files.example.com"])
        for url in (
            "http://localhost:8080/x",
            "https://dp.example.com/x",
            "https://CLUSTER.dp.example.com:443/x",
            "https://files.example.com/x",
            "http://dp.example.com/x",
            "https://dp.example.com:8443/x",
            "https://evil-dp.example.com/x",
            "https://dp.example.com.evil.example/x",
            "https://bucket.example.com/signed",
        ):
            client.get(url, auth=auth, timeout=LIMIT)
    given = ["authorization" in request.headers for request in adapter.sent]
    assert given == [True] * 4 + [False] * 5


def test_a_request_to_elsewhere_waits_for_no_login(sites: Sites, log: Log, base: str) -> None:
    with SyncSession(of=Plane(base_url=base).session(endpoint=base)) as session:
        auth = Auth(session)
        own = {"authorization": "Bearer its-own"}
        requests.get(f"{sites.url('other')}/x", auth=auth, headers=own, timeout=LIMIT)
        with pytest.raises(InteractionRequired):
            requests.get(f"{base}/x", auth=auth, timeout=LIMIT)
    assert log.values == [own]


@pytest.mark.req("BRR-01")
def test_a_header_of_the_callers_own_is_an_error_before_anything_is_sent(
    sites: Sites, log: Log, base: str
) -> None:
    own = {"AUTHORIZATION": "Bearer b3du"}
    with client_at(base, sites) as (client, _, _):
        with pytest.raises(ConfigError, match="'authorization' of its own") as wrong:
            client.get(f"{base}/x", headers=own, timeout=LIMIT)
        assert "b3du" not in str(wrong.value)
        assert log.seen == []
        client.get(f"{base}/x", headers=own, auth=lambda request: request, timeout=LIMIT)
    assert log.values == [{"authorization": "Bearer b3du"}]


class Pipe:
    """A body that comes once."""

    len = 4

    def __init__(self) -> None:
        self._rest = b"once"

    def __iter__(self) -> Iterator[bytes]:
        yield self.read()

    def read(self, size: int = -1) -> bytes:
        data, self._rest = self._rest, b""
        return data


@pytest.mark.req("BRR-07")
@pytest.mark.parametrize(
    ("body", "replayed"),
    [
        ({}, True),
        ({"json": {"a": 1}}, True),
        ({"data": "text"}, True),
        ({"data": BytesIO(b"open")}, True),
        ({"files": {"file": b"bytes"}}, True),
        ({"data": Pipe()}, False),
    ],
)
def test_a_401_costs_one_renewal_and_one_more_try_where_the_body_can_be_sent_again(
    sites: Sites, log: Log, base: str, body: dict[str, Any], replayed: bool
) -> None:
    with client_at(base, sites) as (client, session, plane):
        old = session.headers()["authorization"]
        log.refused.add(old)
        answer = client.post(f"{base}/tasks", timeout=LIMIT, **body)
        assert answer.status_code == (200 if replayed else 401)
        client.get(f"{base}/tasks", timeout=LIMIT).raise_for_status()
        new = session.headers()["authorization"]
    assert new != old
    sent = [old, new, new] if replayed else [old, new]
    assert [values["authorization"] for values in log.values] == sent
    if replayed:
        assert log.bodies[0] == log.bodies[1]
        assert [past.status_code for past in answer.history] == [401]
    assert plane.asked["refresh_token"] == 1


@pytest.mark.req("BRR-07")
def test_a_server_that_refuses_everything_is_asked_at_most_twice(
    sites: Sites, log: Log, base: str
) -> None:
    with client_at(base, sites) as (client, _, plane):
        log.refuses_all = "/tasks"
        for number in range(1, 6):
            answer = client.get(f"{base}/tasks", timeout=LIMIT)
            assert (answer.status_code, answer.content) == (401, b"refused")
            assert len(log.seen) == number + 1  # for it does not help
    assert plane.asked["refresh_token"] == 1


@pytest.mark.req("BRR-04", "BRR-07")
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_renewed_does_not_follow_a_redirect_either(
    sites: Sites, log: Log, base: str, kind: str
) -> None:
    log.moved["/tasks"] = f"{sites.url('other')}/there"
    with client_at(base, sites, kind) as (client, session, _):
        log.refused.update(session.headers().values())
        if kind == "proxied":
            log.refused.discard(session.headers()[PROXY])
        assert client.post(f"{base}/tasks", data=b"body", timeout=LIMIT).status_code == 200
    assert log.seen == [("/tasks", KINDS[kind])] * 2 + [("/there", [])]


@pytest.mark.req("BRR-07")
def test_a_401_from_elsewhere_is_not_about_the_token(sites: Sites, log: Log, base: str) -> None:
    log.moved["/tasks"] = f"{sites.url('other')}/there"
    with client_at(base, sites) as (client, session, plane):
        before = session.headers()
        log.refuses_all = "/there"
        assert client.get(f"{base}/tasks", timeout=LIMIT).status_code == 401
        assert session.headers() == before
    assert [path for path, _ in log.seen] == ["/tasks", "/there"]
    assert plane.asked["refresh_token"] == 0


@pytest.mark.req("BRR-12")
def test_a_407_renews_the_proxy_credential_and_no_token(sites: Sites, log: Log, base: str) -> None:
    with client_at(base, sites, "proxied") as (client, session, plane):
        assert isinstance(session.session, Proxied)
        log.refused.add("Bearer proxy-1")
        assert client.get(f"{base}/tasks", timeout=LIMIT).status_code == 200
    assert [values[PROXY] for values in log.values] == ["Bearer proxy-1", "Bearer proxy-2"]
    assert plane.asked["refresh_token"] == 0


@pytest.mark.req("BRR-11")
@pytest.mark.parametrize("replayable", [False, True])
def test_a_renewal_that_fails_for_now_is_raised_and_is_no_logout(
    sites: Sites, log: Log, base: str, replayable: bool
) -> None:
    with client_at(base, sites) as (client, session, plane):
        log.refused.add(session.headers()["authorization"])

        async def down(name: str) -> RequestFailed | None:
            return plane.down() if name == "refresh_token" else None

        plane.before = down
        if replayable:
            with pytest.raises(Unreachable):
                client.post(f"{base}/tasks", data=b"x", timeout=LIMIT)
        else:  # the 401 says more than that nothing can be renewed now
            assert client.post(f"{base}/tasks", data=Pipe(), timeout=LIMIT).status_code == 401
        plane.before = None
        assert client.get(f"{base}/tasks", timeout=LIMIT).status_code == 200


@pytest.mark.req("BRR-11")
def test_a_login_that_is_over_is_said_to_be(sites: Sites, log: Log, base: str) -> None:
    with client_at(base, sites) as (client, session, plane):
        log.refused.add(session.headers()["authorization"])
        plane.plane = Plane(base_url=base, refresh_ttl=1.0).plane  # which knows nothing of it
        for _ in range(2):
            with pytest.raises(ReauthRequired):
                client.get(f"{base}/tasks", timeout=LIMIT)
    assert len(log.seen) == 1


@pytest.mark.req("BRR-07", "NET-03")
def test_a_long_401_is_not_read(sites: Sites, log: Log, base: str) -> None:
    with client_at(base, sites) as (client, session, _):
        log.refused.add(session.headers()["authorization"])
        log.refusal = b" " * 10_000_000
        try:
            answer = client.get(f"{base}/tasks", timeout=LIMIT, stream=True)
        finally:
            log.refusal = b"refused"
        assert answer.status_code == 200


@pytest.mark.req("BRR-04")
def test_what_a_caller_brings_along_goes_no_further_either(
    sites: Sites, log: Log, base: str
) -> None:
    log.moved["/tasks"] = f"{sites.url('other')}/there"
    session = Session(endpoint=base, auth_type="Passthrough")
    with auth_metadata(("x-token", "Bearer mine")):
        requests.get(f"{base}/tasks", auth=Auth(session), timeout=LIMIT)
    call(session.aclose)
    assert log.values == [{"x-token": "Bearer mine"}, {}]


def test_threads_share_one_renewal(sites: Sites, log: Log, base: str) -> None:
    with client_at(base, sites) as (client, session, plane):
        log.refused.add(session.headers()["authorization"])
        get = partial(requests.get, f"{base}/tasks", auth=client.auth, timeout=LIMIT)
        with ThreadPoolExecutor(10) as threads:
            answers = [threads.submit(get) for _ in range(10)]
        assert [answer.result().status_code for answer in answers] == [200] * 10
    assert plane.asked["refresh_token"] == 1


@pytest.mark.req("BRR-03")
def test_without_an_endpoint_somebody_has_to_say_where_credentials_may_go(
    sites: Sites, log: Log, base: str
) -> None:
    session = Session(issuer="http://localhost:8080", client_id="me", transport=Plane())
    with pytest.raises(ConfigError, match="origins="):
        requests.get(f"{base}/x", auth=Auth(session), timeout=LIMIT)
    call(session.aclose)
    assert log.seen == []


def test_without_the_library_the_import_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['requests'] = None\n"
        "try: import flyteauth.integrations.requests\n"
        "except ImportError as error: assert 'pip install requests' in str(error)\n"
        "else: raise SystemExit(1)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
