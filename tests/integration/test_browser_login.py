"""
Logging in by a browser, over real sockets: the control plane, the loopback listener, and a browser
that is a thread. Every login ends, in time, in a token or in its typed error; and its port is free.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from attrs import evolve, frozen

from flyteauth._io.bind import bind
from flyteauth._io.clock import SystemClock
from flyteauth._io.loopback import listen
from flyteauth._io.store.memory import MemoryStore
from flyteauth._io.transport import HttpxTransport
from flyteauth._sansio.flow import RequestFailed, ResponseReceived
from flyteauth._sansio.http import Headers, Request
from flyteauth._sansio.record import Record
from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings
from flyteauth.devserver.visitor import visit
from flyteauth.errors import (
    ConfigError,
    Error,
    Expired,
    FlowError,
    InvalidResponse,
    OAuth2Error,
    Unreachable,
)
from flyteauth.events import AuthEvent, BrowserNeeded, LoggedIn
from flyteauth.session import Session

from .plane import HastyClock

pytestmark = pytest.mark.anyio

T = TypeVar("T")

LIMIT = 20.0  # no login takes longer, however it ends
PATIENCE = 2.0
CODE = "authorization_code"
TOKEN = "/oauth2/token"
FREE = "http://127.0.0.1/callback"

HAS_IPV6 = True
try:
    socket.create_server(("::1", 0), family=socket.AF_INET6).close()
except OSError:
    HAS_IPV6 = False


# The browser.


@frozen
class Answer:
    status: int
    headers: Headers
    text: str

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


def fetch(url: str, *, address: str | None = None, method: str = "GET") -> Answer:
    """One request, with no redirect followed; to *address*, whatever the host of *url*."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(address or parts.hostname or "", parts.port, LIMIT)
    try:
        connection.request(method, f"{parts.path}?{parts.query}", headers={"host": parts.netloc})
        with connection.getresponse() as response:
            body = response.read().decode()
            return Answer(response.status, tuple(response.getheaders()), body)
    finally:
        connection.close()


def authorize(url: str) -> str:
    """Where a control plane that lets everybody in redirects the browser."""
    answer = fetch(url)
    assert answer.status == 302, answer.text
    return answer.header("location")


def log_in(url: str) -> Answer:
    """The page that a browser ends at, which is let in without a question."""
    return fetch(authorize(url))


def altered(url: str, **changes: str) -> str:
    parts = urlsplit(url)
    return parts._replace(query=urlencode({**dict(parse_qsl(parts.query)), **changes})).geturl()


def bare(url: str) -> str:
    """*url* without its query."""
    return urlsplit(url)._replace(query="").geturl()


def stay_away(url: str) -> None:
    """The tab is closed before anything is decided."""


class Browser(Generic[T]):
    """A presenter: it opens what it is shown, in a browser that does what *script* says."""

    def __init__(self, script: Callable[[str], T]) -> None:
        self._script = script
        self._thread: threading.Thread | None = None
        self._pages: list[T] = []
        self._errors: list[BaseException] = []
        self.seen: list[AuthEvent] = []
        self.urls: list[str] = []

    async def show(self, event: AuthEvent) -> None:
        self.seen.append(event)
        if isinstance(event, BrowserNeeded):
            self.urls.append(event.url)
            self._thread = threading.Thread(target=self._run, args=(event.url,), daemon=True)
            self._thread.start()

    def _run(self, url: str) -> None:
        try:
            self._pages.append(self._script(url))
        except BaseException as error:  # noqa: BLE001
            self._errors.append(error)

    def has_page(self, within: float = 0.1) -> bool:
        """Whether the browser shows anything."""
        assert self._thread is not None
        self._thread.join(within)
        return not self._thread.is_alive()

    async def page(self) -> T:
        """What the browser ends with."""
        assert self._thread is not None
        await anyio.to_thread.run_sync(self._thread.join, LIMIT)
        for error in self._errors:
            raise error
        return self._pages[0]

    @property
    def redirect_uri(self) -> str:
        return parse_qs(urlsplit(self.urls[0]).query)["redirect_uri"][0]


# The session, and what stands still until a test says so.


class Gate:
    def __init__(self) -> None:
        self.reached, self.opened = anyio.Event(), anyio.Event()

    async def pass_through(self) -> None:
        self.reached.set()
        await self.opened.wait()


class Wire(HttpxTransport):
    """The real transport. Counts what is sent; token requests go through the gate."""

    def __init__(self, gate: Gate | None = None, clock: SystemClock | None = None) -> None:
        super().__init__(clock=clock)
        self._gate = gate
        self.sent: Counter[str] = Counter()
        self.bodies: list[str] = []

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        path = urlsplit(request.url).path
        self.sent[path] += 1
        if path == TOKEN:
            self.bodies.append(request.body.decode())
            if self._gate is not None:
                await self._gate.pass_through()
        return await super().send(request)


class GatedStore(MemoryStore):
    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    async def save(self, key: str, record: Record) -> None:
        await self._gate.pass_through()
        await super().save(key, record)


@pytest.fixture(autouse=True)
def _no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that is started as the browser does nothing."""
    monkeypatch.setenv("BROWSER", "true")


def session_of(running: Running, browser: Browser[Any], **arguments: Any) -> Session:
    given = {"redirect_uri": FREE, "store": MemoryStore(), "login_timeout": 15.0, **arguments}
    return Session(endpoint=running.base_url, auth_type="Pkce", presenter=browser, **given)


def addresses(redirect_uri: str) -> list[tuple[str, int]]:
    parts = urlsplit(redirect_uri)
    assert parts.port is not None
    hosts = ["127.0.0.1", "::1"] if parts.hostname == "localhost" else [parts.hostname or ""]
    return [(host, parts.port) for host in hosts if HAS_IPV6 or ":" not in host]


def assert_free(redirect_uri: str) -> None:
    """Nobody listens there, and the next login can."""
    for address in addresses(redirect_uri):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, LIMIT)
    listeners, _ = bind(redirect_uri)
    for listener in listeners:
        listener.close()


async def login(running: Running, browser: Browser[Any], **arguments: Any) -> str:
    """Log in by *browser*; afterwards its port is free, however that went."""
    try:
        with anyio.fail_after(LIMIT):
            async with session_of(running, browser, **arguments) as session:
                token = await session.login()
                assert token is not None
                assert await session.headers() == {"authorization": f"Bearer {token.access_token}"}
                return token.access_token
    finally:
        if browser.urls:
            assert_free(browser.redirect_uri)


async def refused(
    running: Running, browser: Browser[Any], kind: type[Error], **arguments: Any
) -> Any:
    with pytest.raises(kind) as error:
        await login(running, browser, **arguments)
    assert not any(isinstance(event, LoggedIn) for event in browser.seen)
    return error.value


def count_redeemed(running: Running) -> int:
    return running.plane.count(grant_type=CODE)


# It goes well.


@pytest.mark.req("AZR-09", "AZR-12", "AZR-14", "HTM-02")
async def test_a_person_logs_in_on_a_page_and_the_browser_says_as_whom() -> None:
    browser = Browser(visit)
    async with serving(Settings(approve="page")) as running:
        access_token = await login(running, browser)
        assert running.plane.access(access_token, SystemClock().time()) is not None
        where = urlsplit(running.base_url).netloc
        assert f"Signed in as alice to {where}" in await browser.page()
        assert count_redeemed(running) == 1
    logged_in = [event for event in browser.seen if isinstance(event, LoggedIn)]
    assert [event.subject for event in logged_in] == ["alice"]


@pytest.mark.req("HTM-02")
@pytest.mark.parametrize("where", ["token endpoint", "store"])
async def test_the_browser_gets_its_page_only_when_the_token_is_stored(where: str) -> None:
    browser = Browser(log_in)
    gate = Gate()
    store = GatedStore(gate) if where == "store" else MemoryStore()
    wire = Wire(gate if where == "token endpoint" else None)
    async with serving(Settings(approve="auto")) as running, anyio.create_task_group() as group:
        group.start_soon(partial(login, running, browser, store=store, transport=wire))
        with anyio.fail_after(LIMIT):
            await gate.reached.wait()
        await anyio.wait_all_tasks_blocked()
        assert not browser.has_page()
        gate.opened.set()
        page = await browser.page()
    assert page.status == 200
    assert "Signed in as alice" in page.text


@pytest.mark.req("CBK-14")
async def test_two_servers_have_two_redirect_uris_and_neither_takes_the_others_answer() -> None:
    both = threading.Barrier(2, timeout=LIMIT)
    places: dict[str, str] = {}

    def mix_up(url: str) -> Answer:
        location = authorize(url)
        places[bare(url)] = bare(location)
        both.wait()
        (other,) = (place for name, place in places.items() if name != bare(url))
        stray = fetch(f"{other}?{urlsplit(location).query}")
        assert stray.status == 400
        both.wait()
        return fetch(location)

    browsers = [Browser(mix_up), Browser(mix_up)]
    tokens: dict[int, str] = {}
    async with (
        serving(Settings(approve="auto")) as first,
        serving(Settings(approve="auto")) as second,
    ):

        async def log_in_at(index: int, running: Running) -> None:
            tokens[index] = await login(running, browsers[index])

        async with anyio.create_task_group() as group:
            group.start_soon(log_in_at, 0, first)
            group.start_soon(log_in_at, 1, second)
        at = SystemClock().time()
        for index, running in enumerate((first, second)):
            assert (await browsers[index].page()).status == 200
            assert running.plane.access(tokens[index], at) is not None
            assert count_redeemed(running) == 1
    assert len(set(places.values())) == 2


@pytest.mark.req("AZR-10", "AZR-11")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_registered_localhost_port_is_served_over_both_families(address: str) -> None:
    if ":" in address and not HAS_IPV6:
        pytest.skip("this machine has no IPv6")

    def come_back(url: str) -> Answer:
        return fetch(authorize(url), address=address)

    browser = Browser(come_back)
    listeners, uri = bind("http://localhost/callback")
    for listener in listeners:
        listener.close()
    async with serving(Settings(approve="auto")) as running:
        await login(running, browser, redirect_uri=uri)
    assert browser.redirect_uri == uri
    assert (await browser.page()).status == 200


@pytest.mark.req("AZR-02", "AZR-03")
async def test_what_the_user_adds_to_the_authorization_request_is_kept() -> None:
    browser = Browser(log_in)
    async with serving(Settings(approve="auto")) as running:
        base = running.base_url
        await login(
            running,
            browser,
            issuer=base,
            endpoints={
                "authorization_endpoint": f"{base}/oauth2/authorize?tenant=a%20b",
                "token_endpoint": base + TOKEN,
            },
            extra_parameters={"authorization": {"login_hint": "al+ice", "domain": "x&y"}},
        )
    parameters = parse_qsl(urlsplit(browser.urls[0]).query)
    assert browser.urls[0].count("?") == 1
    assert (
        dict(parameters).items()
        >= {
            "tenant": "a b",
            "login_hint": "al+ice",
            "domain": "x&y",
            "code_challenge_method": "S256",
        }.items()
    )
    assert len(dict(parameters)) == len(parameters)
    assert (await browser.page()).status == 200


@pytest.mark.req("COD-02", "COD-03", "AZR-06", "AZR-07", "AZR-09")
async def test_two_logins_share_no_secret_and_send_what_the_rfc_says() -> None:
    async with serving(Settings(approve="auto")) as running:
        forms, queries = [], []
        for _ in range(2):
            browser, wire = Browser(log_in), Wire()
            await login(running, browser, transport=wire)
            forms.append(dict(parse_qsl(wire.bodies[0])))
            queries.append(dict(parse_qsl(urlsplit(browser.urls[0]).query)))
    for form, query in zip(forms, queries, strict=True):
        assert form.keys() == {"grant_type", "code", "redirect_uri", "code_verifier", "client_id"}
        assert form["redirect_uri"] == query["redirect_uri"]
    for name in ("state", "code_challenge"):
        assert queries[0][name] != queries[1][name]
    assert forms[0]["code_verifier"] != forms[1]["code_verifier"]


@pytest.mark.req("AZR-09", "COD-02")
async def test_the_token_request_repeats_the_redirect_uri_of_localhost_byte_for_byte() -> None:
    listeners, uri = bind("http://localhost/callback")
    for listener in listeners:
        listener.close()
    browser, wire = Browser(log_in), Wire()
    async with serving(Settings(approve="auto")) as running:
        await login(running, browser, redirect_uri=uri, transport=wire)
    assert uri.startswith("http://localhost:")
    raw = f"redirect_uri={uri.replace(':', '%3A').replace('/', '%2F')}"
    assert raw in urlsplit(browser.urls[0]).query.split("&")
    assert raw in wire.bodies[0].split("&")


def octets(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@pytest.mark.req("RND-01", "RND-02", "RND-03")
async def test_state_verifier_and_nonce_of_two_logins_are_six_draws_of_32_octets_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[bytes] = []
    system = os.urandom

    def recorded(size: int) -> bytes:
        drawn.append(system(size))
        return drawn[-1]

    monkeypatch.setattr(os, "urandom", recorded)
    secrets = []
    async with serving(Settings(approve="auto")) as running:
        for _ in range(2):
            browser, wire = Browser(log_in), Wire()
            await login(running, browser, transport=wire, scopes=["openid", "all"])
            query = dict(parse_qsl(urlsplit(browser.urls[0]).query))
            verifier = dict(parse_qsl(wire.bodies[0]))["code_verifier"]
            digest = hashlib.sha256(verifier.encode()).digest()
            assert octets(query["code_challenge"]) == digest
            secrets += [query["state"], verifier, query["nonce"]]
    assert [len(octets(secret)) for secret in secrets] == [32] * 6
    assert len(set(secrets)) == 6
    for login_secrets in (secrets[:3], secrets[3:]):
        whole = b"".join(map(octets, login_secrets))
        assert whole in drawn, "the secrets of a login are not what the system drew"


@pytest.mark.req("AZR-08", "IDT-05")
@pytest.mark.parametrize("right", [True, False])
async def test_an_id_token_belongs_to_the_login_that_asked_for_it(right: bool) -> None:
    browser = Browser(log_in)
    faults = () if right else ("wrong-nonce",)
    scopes = ["openid", "all", "offline"]
    async with serving(Settings(approve="auto", faults=frozenset(faults))) as running:
        if right:
            await login(running, browser, scopes=scopes)
        else:
            error = await refused(running, browser, InvalidResponse, scopes=scopes)
            assert error.reason == "id_token.nonce"
        assert count_redeemed(running) == 1
    assert "nonce" in parse_qs(urlsplit(browser.urls[0]).query)
    assert (await browser.page()).status == (200 if right else 400)


async def test_twenty_who_log_in_at_once_open_one_browser() -> None:
    browser = Browser(log_in)
    tokens: list[Any] = []
    async with (
        serving(Settings(approve="auto")) as running,
        session_of(running, browser) as session,
    ):

        async def one() -> None:
            tokens.append(await session.login())

        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(one)
        assert count_redeemed(running) == 1
    assert len(browser.urls) == 1
    assert len(tokens) == 20
    assert len(set(tokens)) == 1
    assert_free(browser.redirect_uri)


# Strangers come first.


@pytest.mark.req("CBK-09")
async def test_an_answer_to_another_login_changes_nothing() -> None:
    def script(url: str) -> tuple[Answer, Answer, Answer]:
        there = authorize(url)
        wrong = fetch(altered(there, state="another"))
        denied = fetch(altered(bare(there), error="access_denied", state="another"))
        return wrong, denied, fetch(there)

    browser = Browser(script)
    async with serving(Settings(approve="auto")) as running:
        await login(running, browser)
        assert count_redeemed(running) == 1
    wrong, denied, right = await browser.page()
    assert (wrong.status, denied.status, right.status) == (400, 400, 200)
    assert "Signed in" not in wrong.text
    assert "Signed in as alice" in right.text


@pytest.mark.req("CBK-02", "CBK-03", "CBK-05", "CBK-09", "CBK-17")
async def test_a_favicon_and_fifty_strangers_come_first() -> None:
    def script(url: str) -> tuple[list[int], Answer]:
        there = authorize(url)
        parts = urlsplit(there)
        base = f"{parts.scheme}://{parts.netloc}"
        assert parts.port is not None
        idle = [socket.create_connection(("127.0.0.1", parts.port)) for _ in range(5)]
        try:
            statuses = [fetch(f"{base}/favicon.ico").status]
            for index in range(10):
                statuses += [
                    fetch(f"{base}/callback?code=stolen{index}&state=guess").status,
                    fetch(f"{base}/callback/?{parts.query}").status,
                    fetch(f"{base}/CALLBACK?{parts.query}").status,
                    fetch(there, method="PUT").status,
                    fetch(f"{base}/callback").status,
                ]
            return statuses, fetch(there)
        finally:
            for connection in idle:
                connection.close()

    browser = Browser(script)
    async with serving(Settings(approve="auto")) as running:
        await login(running, browser)
        assert count_redeemed(running) == 1
    statuses, page = await browser.page()
    assert statuses == [404, *[400, 404, 404, 405, 400] * 10]
    assert page.status == 200


@pytest.mark.req("CBK-15")
async def test_a_reload_and_another_code_cause_no_second_token_request() -> None:
    gate = Gate()

    def script(url: str) -> tuple[Answer, Answer]:
        there = authorize(url)
        pages: list[Answer] = []
        first = threading.Thread(target=lambda: pages.append(fetch(there)), daemon=True)
        first.start()
        at_token_endpoint.wait(LIMIT)
        other = fetch(altered(there, code="another"))
        reload = threading.Thread(target=lambda: pages.append(fetch(there)), daemon=True)
        reload.start()
        answered_another.set()
        first.join(LIMIT)
        reload.join(LIMIT)
        assert [page.status for page in pages] == [200, 200]
        return other, pages[0]

    at_token_endpoint, answered_another = threading.Event(), threading.Event()
    browser, wire = Browser(script), Wire(gate)
    async with serving(Settings(approve="auto")) as running, anyio.create_task_group() as group:
        group.start_soon(partial(login, running, browser, transport=wire))
        with anyio.fail_after(LIMIT):
            await gate.reached.wait()
            at_token_endpoint.set()
            await anyio.to_thread.run_sync(answered_another.wait, LIMIT)
        gate.opened.set()
        other, page = await browser.page()
        assert count_redeemed(running) == 1
    assert wire.sent[TOKEN] == 1
    assert other.status == 200
    assert "Already received" in other.text
    assert "Signed in as alice" in page.text


# It goes wrong.


@pytest.mark.req("CBK-10")
async def test_a_person_says_no_on_the_page() -> None:
    browser = Browser(partial(visit, answer="deny"))
    async with serving(Settings(approve="page")) as running:
        error = await refused(running, browser, OAuth2Error)
        assert count_redeemed(running) == 0
    assert error.error == "access_denied"
    assert "access_denied" in await browser.page()


@pytest.mark.req("CBK-10", "HTM-01", "HTM-02", "HTM-03", "HTM-04")
async def test_the_page_of_a_login_that_was_denied_says_why_and_repeats_nothing() -> None:
    def script(url: str) -> tuple[str, Answer]:
        there = altered(authorize(url), error_description="<script>alert(1)</script> canary")
        return there, fetch(there)

    browser = Browser(script)
    async with serving(Settings(approve="auto", faults=frozenset({"deny"}))) as running:
        error = await refused(running, browser, OAuth2Error)
    assert error.error == "access_denied"
    there, page = await browser.page()
    assert page.status == 400
    assert "access_denied" in page.text
    assert "log in again" in page.text
    query = dict(parse_qsl(urlsplit(there).query))
    assert query.pop("error") == "access_denied"
    assert not [name for name, value in query.items() if value in page.text]
    assert "canary" not in page.text
    assert "http://" not in page.text
    assert page.header("cache-control") == "no-store"
    assert page.header("referrer-policy") == "no-referrer"
    assert "default-src 'none'" in page.header("content-security-policy")


@pytest.mark.req("CBK-16")
async def test_a_closed_tab_ends_in_time() -> None:
    browser = Browser(stay_away)
    async with serving(Settings(approve="page")) as running:
        error = await refused(running, browser, Expired, login_timeout=0.3)
    assert error.reason == "login_timeout"
    assert "ignored" not in str(error)


@pytest.mark.req("CBK-09", "CBK-16")
async def test_a_login_that_only_got_wrong_answers_says_so() -> None:
    browser = Browser(log_in)
    async with serving(Settings(approve="auto", faults=frozenset({"wrong-state"}))) as running:
        error = await refused(running, browser, Expired, login_timeout=1.0)
        assert count_redeemed(running) == 0
    assert error.reason == "login_timeout"
    assert "an answer to another login was ignored" in str(error)
    assert (await browser.page()).status == 400


@pytest.mark.req("CBK-09", "ERR-01")
async def test_what_an_answer_without_state_claims_is_a_hint_when_nobody_comes() -> None:
    def script(url: str) -> Answer:
        here = parse_qs(urlsplit(url).query)["redirect_uri"][0]
        return fetch(f"{here}?error=consent%1b%5b31m_required&error_description=canary")

    browser = Browser(script)
    async with serving(Settings(approve="page")) as running:
        error = await refused(running, browser, Expired, login_timeout=1.0)
    assert error.reason == "login_timeout"
    assert r"it said consent\x1b[31m_required" in str(error)
    assert "canary" not in str(error)
    page = await browser.page()
    assert page.status == 400
    assert "consent" not in page.text


@pytest.mark.req("CBK-16")
async def test_a_person_who_came_in_time_is_not_told_that_nobody_came() -> None:
    """The wait is for a person; redeeming the code has a deadline of its own."""
    gate = Gate()
    browser = Browser(log_in)
    async with serving(Settings(approve="auto")) as running, anyio.create_task_group() as group:
        group.start_soon(partial(login, running, browser, transport=Wire(gate), login_timeout=1.0))
        with anyio.fail_after(LIMIT):
            await gate.reached.wait()
            await anyio.sleep(1.1)
        assert not browser.has_page()
        gate.opened.set()
        assert (await browser.page()).status == 200


@pytest.mark.req("CBK-12")
async def test_an_answer_from_another_issuer_is_not_acted_on() -> None:
    browser = Browser(log_in)
    async with serving(Settings(approve="auto", faults=frozenset({"wrong-iss"}))) as running:
        error = await refused(running, browser, InvalidResponse)
        assert count_redeemed(running) == 0
    assert error.reason == "iss"
    page = await browser.page()
    assert page.status == 400
    assert "attacker" not in page.text + str(error)


@pytest.mark.req("CBK-13")
async def test_an_answer_without_the_promised_issuer_is_not_acted_on() -> None:
    browser = Browser(log_in)
    faults = frozenset({"missing-iss", "flyte1-only"})  # only there the promise can be made
    async with serving(Settings(approve="auto", faults=faults)) as running:
        error = await refused(running, browser, InvalidResponse)
        assert count_redeemed(running) == 0
    assert error.reason == "iss_missing"
    assert (await browser.page()).status == 400


@pytest.mark.req("COD-05")
async def test_a_code_that_has_expired_costs_one_request_and_no_second_login() -> None:
    browser = Browser(log_in)
    async with serving(Settings(approve="auto", faults=frozenset({"code-expired"}))) as running:
        error = await refused(running, browser, OAuth2Error)
        assert count_redeemed(running) == 1
    assert error.error == "invalid_grant"
    assert len(browser.urls) == 1
    page = await browser.page()
    assert page.status == 400
    assert "invalid_grant" in page.text


@pytest.mark.req("AZR-11", "AZR-12")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_stranger_on_the_port_is_named_before_any_browser_opens(
    address: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ":" in address and not HAS_IPV6:
        pytest.skip("this machine has no IPv6")
    opened = home / "opened"
    monkeypatch.setenv("BROWSER", f"touch {opened}")
    browser = Browser(stay_away)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # With device codes the login would go on.
    async with serving(Settings(approve="auto", faults={"no-device"})) as running:
        with socket.create_server((address, 0), family=family) as stranger:
            port = stranger.getsockname()[1]
            uri = f"http://localhost:{port}/callback"
            error = await refused(running, browser, ConfigError, redirect_uri=uri)
        assert error.reason == "port_in_use"
        assert f"port {port} of redirect_uri is in use by" in str(error)
        assert f"(process {os.getpid()})" in str(error)
        assert "DeviceFlow" in str(error)
    assert browser.urls == []
    assert not opened.exists()
    assert_free(uri)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a listener cannot be shut down")
@pytest.mark.req("AZR-14")
async def test_the_port_is_free_although_a_child_process_still_has_it() -> None:
    """As a launcher has between fork and exec, and then the next login would find it in use."""
    async with listen(FREE) as loopback:
        kept = [listener.dup() for listener in loopback._listeners]
        address = loopback.addresses[0]
    try:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, LIMIT).close()
        for listener in bind(loopback.redirect_uri)[0]:
            listener.close()
    finally:
        for listener in kept:
            listener.close()


@pytest.mark.req("COD-04")
async def test_a_server_that_goes_down_in_the_middle_is_asked_again_and_then_given_up() -> None:
    server = serving(Settings(approve="auto"))

    def script(url: str) -> Answer:
        there = authorize(url)
        server.__exit__()
        return fetch(there)

    browser, clock = Browser(script), HastyClock()
    wire = Wire(clock=clock)
    async with server as running:
        error = await refused(running, browser, Unreachable, transport=wire, clock=clock)
        assert count_redeemed(running) == 0
    assert error.reason == "connect"
    assert not error.sent
    assert wire.sent[TOKEN] == 3
    assert clock.waits == 2
    page = await browser.page()
    assert page.status == 400
    assert "token" not in page.text


class Moving(Wire):
    """From when ``moved`` is set, whatever is answered names another token endpoint."""

    def __init__(self, *, moved: bool = False) -> None:
        super().__init__()
        self.moved = moved

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        answer = await super().send(request)
        if not self.moved or isinstance(answer, RequestFailed):
            return answer
        body = answer.response.body.replace(TOKEN.encode(), b"/elsewhere")
        return evolve(answer, response=evolve(answer.response, body=body))


@pytest.mark.req("META-10")
async def test_a_code_goes_where_its_login_began_whatever_the_metadata_say_meanwhile(
    home: Path,
) -> None:
    wire, another = Moving(), Moving(moved=True)

    def script(url: str) -> Answer:
        wire.moved = True
        return log_in(url)

    async with serving(Settings(approve="auto")) as running:
        await login(running, Browser(script), transport=wire)
        assert count_redeemed(running) == 1
        assert wire.sent[TOKEN] == 1
        with pytest.raises(FlowError):  # who begins to log in now does go there
            await login(running, Browser(log_in), transport=another, directory=home / "another")
    assert (wire.sent["/elsewhere"], another.sent["/elsewhere"]) == (0, 1)


@pytest.mark.req("AZR-05")
async def test_an_error_of_the_authorization_endpoint_is_not_answered_by_a_weaker_request() -> None:
    def script(url: str) -> Answer:
        return fetch(authorize(altered(url, code_challenge_method="plain")))

    browser = Browser(script)
    async with serving(Settings(approve="auto")) as running:
        error = await refused(running, browser, OAuth2Error)
    assert error.error == "invalid_request"
    assert len(browser.urls) == 1
    assert (await browser.page()).status == 400


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script is the browser")
@pytest.mark.req("AZR-16")
async def test_a_browser_that_cannot_start_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER", os.fspath(Path("/nonexistent/browser")))
    browser = Browser(log_in)
    async with serving(Settings(approve="auto")) as running:
        await login(running, browser)
    assert (await browser.page()).status == 200
    assert len(browser.urls) == 1


@pytest.mark.req("AZR-15")
@pytest.mark.parametrize("endpoint", ["http://remote.example/authorize", "https://x.example/a b"])
async def test_only_a_safe_address_is_opened(
    endpoint: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = home / "opened"
    monkeypatch.setenv("BROWSER", f"touch {opened}")
    browser = Browser(stay_away)
    async with serving(Settings(approve="auto")) as running:
        endpoints = {"authorization_endpoint": endpoint, "token_endpoint": running.base_url + TOKEN}
        with pytest.raises((ConfigError, FlowError)):
            await login(running, browser, endpoints=endpoints)
    assert browser.urls == []
    assert not opened.exists()
