"""The credentials on requests of httpx and httpx2: where they go, and what a refusal leads to."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio
import anyio.to_thread
import httpx
import httpx2
import pytest
from attrs import frozen

from flyteauth._io.portal import call
from flyteauth._sansio.flow import RequestFailed
from flyteauth.errors import ConfigError, InteractionRequired, ReauthRequired, Unreachable
from flyteauth.integrations import httpx as integration
from flyteauth.integrations.httpx import Auth, Auth2, install
from flyteauth.session import Session
from tests.concurrency import all_at_once
from tests.io.server import Server, answering, reply, serve

from .plane import ENDPOINT, Plane
from .test_cancellation import Counted, Places, cancelling

pytestmark = pytest.mark.anyio

LIMIT = 10.0
TASKS = f"{ENDPOINT}/tasks"
CUSTOM = "flyte-authorization"
PROXY = "proxy-authorization"
BODY = "tests.body"
CREDENTIALS = ("authorization", CUSTOM, PROXY)


@frozen
class Library:
    """One of the two libraries, with its synchronous or with its asynchronous client."""

    module: Any
    auth: Any
    is_async: bool

    @asynccontextmanager
    async def client(
        self, answer: Callable[[Any], Any] | None = None, **arguments: Any
    ) -> AsyncIterator[Client]:
        """A client, and in place of a network a function of requests, if there is one."""
        if answer is not None:
            arguments["transport"] = self.mock(answer)
        async with AsyncExitStack() as stack:
            made: Any
            if self.is_async:
                made = self.module.AsyncClient(trust_env=False, **arguments)
                await stack.enter_async_context(made)
            else:
                made = self.module.Client(trust_env=False, **arguments)
                stack.enter_context(made)
            yield Client(self, made)

    def mock(self, answer: Callable[[Any], Any]) -> Any:
        """In place of a network: unlike MockTransport, it takes a body only as it comes."""

        class Sync(self.module.BaseTransport):  # type: ignore[misc, name-defined]
            def handle_request(self, request: Any) -> Any:
                request.extensions[BODY] = b"".join(request.stream)
                return answer(request)

        class Async(self.module.AsyncBaseTransport):  # type: ignore[misc, name-defined]
            async def handle_async_request(self, request: Any) -> Any:
                request.extensions[BODY] = b"".join([chunk async for chunk in request.stream])
                await anyio.lowlevel.checkpoint()
                return answer(request)

        return Async() if self.is_async else Sync()


@frozen
class Client:
    """A client whose requests are awaited, and made in a worker thread where it is synchronous."""

    library: Library
    client: Any

    async def request(self, method: str, url: str = TASKS, **arguments: Any) -> Any:
        return await self._do(partial(self.client.request, method, url, **arguments))

    async def get(self, url: str = TASKS, **arguments: Any) -> Any:
        return await self.request("GET", url, **arguments)

    async def post(self, url: str = TASKS, **arguments: Any) -> Any:
        return await self.request("POST", url, **arguments)

    async def send(self, request: Any, **arguments: Any) -> Any:
        return await self._do(partial(self.client.send, request, **arguments))

    async def _do(self, function: Callable[[], Any]) -> Any:
        with anyio.fail_after(LIMIT):
            if self.library.is_async:
                return await function()
            return await anyio.to_thread.run_sync(function)


@pytest.fixture(
    params=[
        pytest.param(Library(module, auth, is_async), id=f"{module.__name__}-{kind}")
        for module, auth in ((httpx, Auth), (httpx2, Auth2))
        for is_async, kind in ((True, "async"), (False, "sync"))
    ]
)
def library(request: pytest.FixtureRequest) -> Library:
    library: Library = request.param
    return library


class Resource:
    """A server that notes what it is sent, and refuses the tokens that it is told to.

    ``status`` is for all others, ``before`` may answer in its place.
    """

    def __init__(self, library: Library) -> None:
        self._response = library.module.Response
        self.seen: list[dict[str, list[str]]] = []
        self.urls: list[str] = []
        self.methods: list[str] = []
        self.bodies: list[bytes] = []
        self.refused: set[str] = set()
        self.status = 200
        self.header = "authorization"
        self.before: Callable[[Any], Any] = lambda request: None
        self.content: Callable[[], Any] = lambda: b"refused"

    def __call__(self, request: Any) -> Any:
        self.urls.append(str(request.url))
        self.methods.append(request.method)
        self.seen.append({name: request.headers.get_list(name) for name in CREDENTIALS})
        self.bodies.append(request.extensions.pop(BODY, b""))
        if (answer := self.before(request)) is not None:
            return answer
        if request.headers.get(self.header) in self.refused or None in self.refused:
            return self._response(401, content=self.content())
        return self._response(self.status)

    def refuse(self, headers: Mapping[str, str]) -> None:
        self.refused.add(headers[self.header])

    def redirect(self, url: str, status: int = 307) -> None:
        """Redirect what is asked for at the endpoint's own paths /tasks and /moved."""

        def before(request: Any) -> Any:
            location = {"/tasks": url}.get(request.url.path)
            return location and self._response(status, headers={"location": location})

        self.before = before

    @property
    def credentials(self) -> list[list[str]]:
        """The credential headers of each request."""
        return [[name for name, values in seen.items() for _ in values] for seen in self.seen]


def renewals(plane: Plane) -> int:
    return plane.asked["refresh_token"]


@pytest.fixture
def resource(library: Library) -> Resource:
    return Resource(library)


@asynccontextmanager
async def logged_in(plane: Plane, **arguments: Any) -> AsyncIterator[Session]:
    async with plane.session(**arguments) as session:
        await session.login()
        yield session


# Where the credentials go.


@pytest.mark.req("BRR-01", "BRR-03")
async def test_the_endpoint_gets_the_credential_once_and_in_its_header(
    library: Library, resource: Resource
) -> None:
    async with (
        logged_in(Plane()) as session,
        library.client(resource, auth=library.auth(session)) as client,
    ):
        assert (await client.get()).status_code == 200
        assert (await client.post(json={"a": 1})).status_code == 200
        headers = await session.headers()
    expected = {"authorization": [headers["authorization"]], CUSTOM: [], PROXY: []}
    assert resource.seen == [expected, expected]
    assert resource.urls == [TASKS, TASKS]
    assert resource.bodies == [b"", b'{"a":1}']


@pytest.mark.req("BRR-03")
@pytest.mark.parametrize(
    "url",
    [
        "https://bucket.example.com/signed?signature=1",
        "http://localhost:8081/",
        "https://localhost:8080/",
        "http://127.0.0.1:8080/",
        "http://localhost.:8080/",
        "http://localhost:8080@bucket.example.com/",
        "http://localhost/",
    ],
)
async def test_any_other_origin_gets_nothing_and_waits_for_no_login(
    library: Library, resource: Resource, url: str
) -> None:
    async with Plane().session() as session:  # and nobody is logged in
        for auth in (library.auth(session), None):
            async with library.client(resource, auth=auth) as client:
                if auth is None:
                    install(client.client, session)
                answer = await client.get(url, headers={"authorization": "its own"})
                assert answer.status_code == 200
    assert [seen["authorization"] for seen in resource.seen] == [["its own"], ["its own"]]
    assert resource.credentials == [["authorization"], ["authorization"]]


@pytest.mark.req("BRR-03")
async def test_other_origins_get_it_if_they_are_named(library: Library, resource: Resource) -> None:
    origins = ["https://files.example.com", "http://127.0.0.1:9000/", "https://müller.example:8443"]
    async with (
        logged_in(Plane()) as session,
        library.client(resource, auth=library.auth(session, origins=origins)) as client,
    ):
        for url in (
            TASKS,
            "https://files.example.com:443/a?b",
            "http://127.0.0.1:9000/a",
            "https://MÜLLER.example:8443/",
            "https://files.example.com:8443/a",
        ):
            await client.get(url)
    assert resource.credentials == [["authorization"]] * 4 + [[]]


@pytest.mark.req("BRR-02", "BRR-03")
@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        ("http://files.example.com", "insecure"),
        ("files.example.com", "origins"),
        ("https://", "origins"),
        ("https://files.example.com/path", "origins"),
        ("https://files.example.com?query", "origins"),
        ("https://files.example.com#fragment", "origins"),
        ("https://person:secret@files.example.com", "origins"),
        ("ftp://files.example.com", "origins"),
        ("*", "origins"),
        (None, "origins"),
    ],
)
async def test_an_origin_is_an_origin_and_safe(
    library: Library, resource: Resource, origin: Any, reason: str
) -> None:
    async with (
        logged_in(Plane()) as session,
        library.client(resource, auth=library.auth(session, origins=[origin])) as client,
    ):
        with pytest.raises(ConfigError) as wrong:
            await client.get()
    assert wrong.value.reason == reason
    assert "secret" not in str(wrong.value)
    assert resource.seen == []


@pytest.mark.req("BRR-02")
async def test_the_one_plain_host_that_the_settings_allow_may_be_named(
    library: Library, resource: Resource
) -> None:
    base = "http://flyte.example.com:8080"
    plane = Plane(base_url=base)
    allowed = {"endpoint": base, "insecure": True, "allow_insecure_credentials": True}
    origins = ["http://flyte.example.com:9000"]
    async with (
        logged_in(plane, **allowed) as session,
        library.client(resource, auth=library.auth(session, origins=origins)) as client,
    ):
        await client.get(base)
        await client.get("http://flyte.example.com:9000/")
    assert resource.credentials == [["authorization"]] * 2


@pytest.mark.req("BRR-03")
async def test_without_an_endpoint_somebody_has_to_say_where_credentials_may_go(
    library: Library, resource: Resource
) -> None:
    async with Session(issuer=ENDPOINT, client_id="me", transport=Plane()) as session:
        async with library.client(resource, auth=library.auth(session)) as client:
            with pytest.raises(ConfigError, match="origins="):
                await client.get()
        named = library.auth(session, origins=[ENDPOINT])
        async with library.client(resource, auth=named) as client:
            with pytest.raises(InteractionRequired):
                await client.get()
            await client.get("https://elsewhere.example.com")
    assert resource.credentials == [[]]


@pytest.mark.req("BRR-01")
@pytest.mark.parametrize("where", ["request", "client"])
@pytest.mark.parametrize("installed", [False, True])
async def test_a_header_of_the_callers_own_is_an_error_before_anything_is_sent(
    library: Library, resource: Resource, where: str, installed: bool
) -> None:
    own = {"AUTHORIZATION": "Basic b3du"}
    async with (
        logged_in(Plane()) as session,
        library.client(resource, headers=own if where == "client" else {}) as client,
    ):
        if installed:
            install(client.client, session)
        else:
            client.client.auth = library.auth(session)
        with pytest.raises(ConfigError, match="'authorization' of its own") as wrong:
            await client.get(headers=own if where == "request" else {})
        assert "b3du" not in str(wrong.value)
        assert resource.seen == []
        await client.get(headers=own, auth=None)
    assert resource.seen[0]["authorization"] == ["Basic b3du"]


async def test_an_anonymous_control_plane_gets_no_header(
    library: Library, resource: Resource
) -> None:
    async with (
        Plane(faults={"no-auth"}).session() as session,
        library.client(resource, auth=library.auth(session)) as client,
    ):
        await client.get()
        await client.get(headers={"authorization": "its own"})
    assert [seen["authorization"] for seen in resource.seen] == [[], ["its own"]]


async def test_a_control_plane_that_is_anonymous_no_more_is_believed(
    library: Library, resource: Resource
) -> None:
    plane = Plane(faults={"no-auth"})
    async with (
        plane.session("ClientSecret") as session,
        library.client(resource, auth=library.auth(session)) as client,
    ):
        assert (await client.get()).status_code == 200
        plane.plane = Plane().plane
        resource.before = lambda request: (
            None if "authorization" in request.headers else library.module.Response(401)
        )
        assert (await client.get()).status_code == 200
    assert resource.credentials == [[], [], ["authorization"]]


# Redirects.

ELSEWHERE = [
    ("http://localhost:8080", "http://localhost:8081/"),
    ("http://localhost:8080", "http://127.0.0.1:8080/"),
    ("http://localhost:8080", "https://localhost:8080/"),
    ("http://localhost:8080", "//evil.example.com/"),
    ("https://flyte.example.com", "http://flyte.example.com/"),
    ("https://flyte.example.com", "https://flyte.example.com:8443/"),
    ("https://flyte.example.com", "https://evil.example.com/"),
    ("https://flyte.example.com", "https://flyte.example.com@evil.example.com/"),
    ("http://localhost", "https://localhost/"),
    ("https://flyte.example.com", "https://files.example.com/"),  # which is allowed as such
]


class Proxied(Session):
    """A session with a second credential, for a proxy in front of the control plane."""

    proxy = 1
    given = MappingProxyType[str, str]({})

    def _add(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        added = {**headers, PROXY: f"Bearer proxy-{self.proxy}"}
        if added != self.given:
            self.given = MappingProxyType(added)
        return self.given

    async def headers(self) -> Mapping[str, str]:
        return self._add(await super().headers())

    def cached_headers(self) -> Mapping[str, str] | None:
        cached = super().cached_headers()
        return None if cached is None else self._add(cached)

    def reject_proxy(self) -> None:
        self.proxy += 1


def proxied(plane: Plane, **arguments: Any) -> Session:
    of = plane.session(**arguments)
    session = Proxied(endpoint=ENDPOINT)
    session.__dict__.update(of.__dict__)
    return session


@pytest.mark.req("BRR-04")
@pytest.mark.parametrize("kind", ["Auth", "install", "custom", "proxied"])
@pytest.mark.parametrize(("endpoint", "target"), ELSEWHERE)
async def test_no_credential_follows_a_redirect_to_another_origin(
    library: Library, resource: Resource, endpoint: str, target: str, kind: str
) -> None:
    faults = {"flyte1-only", "custom-header-key"} if kind == "custom" else set()
    plane = Plane(base_url=endpoint, faults=faults)
    session = (proxied if kind == "proxied" else Plane.session)(plane, endpoint=endpoint)
    resource.redirect(target)
    origins = ["https://files.example.com"]
    async with session, library.client(resource, follow_redirects=True) as client:
        await session.login()
        if kind == "Auth":
            client.client.auth = library.auth(session, origins=origins)
        else:
            install(client.client, session, origins=origins)
        if kind == "Auth" and endpoint == "http://localhost":
            with pytest.raises(ConfigError, match="install"):
                await client.post(f"{endpoint}/tasks", content=b"body")
            assert resource.seen == []
            return
        assert (await client.post(f"{endpoint}/tasks", content=b"body")).status_code == 200
        expected = [name for name in CREDENTIALS if name in await session.headers()]
    assert resource.credentials == [expected, []]
    assert len(expected) == (2 if kind == "proxied" else 1)


@pytest.mark.req("BRR-04")
@pytest.mark.parametrize("installed", [False, True])
async def test_what_a_redirect_took_off_does_not_come_back_with_another(
    library: Library, resource: Resource, installed: bool
) -> None:
    moved = {
        f"{ENDPOINT}/tasks": f"{ENDPOINT}/same",
        f"{ENDPOINT}/same": "https://evil.example.com/there",
        "https://evil.example.com/there": f"{ENDPOINT}/back",
    }

    def before(request: Any) -> Any:
        if (url := moved.get(str(request.url))) is not None:
            return library.module.Response(307, headers={"location": url})
        return library.module.Response(401)

    resource.before = before
    plane = Plane()
    async with (
        logged_in(plane) as session,
        library.client(resource, follow_redirects=True) as client,
    ):
        if installed:
            install(client.client, session)
        else:
            client.client.auth = library.auth(session)
        assert (await client.get()).status_code == 401
    assert resource.credentials == [["authorization"], ["authorization"], [], []]
    assert renewals(plane) == 0  # for it was not the token that was refused


@pytest.mark.req("BRR-04")
@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize("other", ["port", "host"])
async def test_servers_on_loopback_that_are_redirected_to_see_no_credential(
    library: Library, custom: bool, other: str
) -> None:
    faults = {"flyte1-only", "custom-header-key"} if custom else set()
    with serve(answering(reply())) as evil:
        waiting: list[bytes] = []

        def script(connection: Any) -> None:
            while connection.read_request():
                connection.send(waiting.pop(0) if waiting else reply())

        with serve(script) as server:
            base = f"http://localhost:{server.port}"
            target = {"port": evil.url, "host": f"http://127.0.0.1:{server.port}/x"}[other]
            waiting.append(reply(status="307 Temporary Redirect", headers=(f"location: {target}",)))
            plane = Plane(base_url=base, faults=faults)
            async with (
                logged_in(plane, endpoint=base) as session,
                library.client(follow_redirects=True) as client,
            ):
                if custom:
                    install(client.client, session)
                else:
                    client.client.auth = library.auth(session)
                assert (await client.get(f"{base}/tasks")).status_code == 200
                token = await session.token()
            first, second = (*server.requests, *evil.requests)
    assert token is not None
    secret = token.access_token.encode()
    assert secret in first
    assert secret not in second
    assert b"authorization" not in second.lower()


@pytest.mark.req("BRR-04")
@pytest.mark.parametrize("kind", ["custom", "proxied"])
async def test_what_httpx_would_take_along_is_refused_without_install(
    library: Library, resource: Resource, kind: str
) -> None:
    faults = {"flyte1-only", "custom-header-key"} if kind == "custom" else set()
    session = (proxied if kind == "proxied" else Plane.session)(Plane(faults=faults))
    async with session, library.client(resource, auth=library.auth(session)) as client:
        await session.login()
        for _ in range(2):
            with pytest.raises(ConfigError, match=r"install\(client, session\)") as wrong:
                await client.get()
        assert wrong.value.reason == "redirect"
    assert resource.seen == []


@pytest.mark.req("BRR-04")
async def test_an_installed_client_that_lost_its_hook_sends_no_credential_and_says_so(
    library: Library, resource: Resource
) -> None:
    async with logged_in(Plane()) as session, library.client(resource) as client:
        install(client.client, session)
        client.client.event_hooks = {}
        with pytest.raises(ConfigError, match="event hook"):
            await client.get()
        # Nor does another client, which never had it.
        async with library.client(resource, auth=client.client.auth) as other:
            with pytest.raises(ConfigError, match="event hook"):
                await other.get()
    assert resource.credentials == [[], []]


def hooking(library: Library, hook: Callable[[Any], None]) -> dict[str, list[Any]]:
    """The event hooks of a client that calls *hook* with each request."""

    async def ahook(request: Any) -> None:
        hook(request)

    return {"request": [ahook if library.is_async else hook], "response": []}


async def test_install_keeps_the_clients_own_hooks_and_can_be_repeated(
    library: Library, resource: Resource
) -> None:
    hooked: list[str] = []

    def hook(request: Any) -> None:
        hooked.append(request.url.path)

    async with (
        logged_in(Plane()) as session,
        library.client(resource, event_hooks=hooking(library, hook)) as client,
    ):
        assert install(client.client, session) is client.client
        install(client.client, session)
        assert len(client.client.event_hooks["request"]) == 2
        await client.get()
    assert hooked == ["/tasks"]
    assert resource.credentials == [["authorization"]]


@pytest.mark.req("BRR-04")
async def test_where_another_hook_sends_a_request_it_has_no_credentials(
    library: Library, resource: Resource
) -> None:
    def hook(request: Any) -> None:
        request.url = library.module.URL("https://elsewhere.example.com")

    async with (
        logged_in(Plane()) as session,
        library.client(resource, event_hooks=hooking(library, hook)) as client,
    ):
        install(client.client, session)
        await client.get()
    assert resource.credentials == [[]]


async def test_install_wants_a_client_without_other_credentials(library: Library) -> None:
    async with (
        logged_in(Plane()) as session,
        library.client(lambda request: None, auth=("me", "secret")) as client,
    ):
        with pytest.raises(ConfigError, match="auth of its own"):
            install(client.client, session)
        with pytest.raises(ConfigError, match="client of httpx"):
            install(session, session)  # type: ignore[type-var]


@pytest.mark.req("BRR-04")
@pytest.mark.parametrize("installed", [False, True])
async def test_a_redirect_that_is_not_followed_can_be_sent_by_hand(
    library: Library, resource: Resource, installed: bool
) -> None:
    plane = Plane()
    async with logged_in(plane) as session, library.client(resource) as client:
        if installed:
            install(client.client, session)
        else:
            client.client.auth = library.auth(session)
        for target, expected in (("/same", ["authorization"]), ("https://evil.example.com/", [])):
            resource.redirect(target)
            answer = await client.get()
            assert answer.status_code == 307
            assert not {"authorization"} & set(answer.next_request.headers)
            await client.send(answer.next_request)
            assert resource.credentials.pop() == expected


@pytest.mark.parametrize("installed", [False, True])
async def test_the_same_request_can_be_sent_again_with_what_is_good_then(
    library: Library, resource: Resource, installed: bool
) -> None:
    plane = Plane()
    async with logged_in(plane) as session, library.client(resource) as client:
        if installed:
            install(client.client, session)
        else:
            client.client.auth = library.auth(session)
        request = client.client.build_request("GET", TASKS)
        await client.send(request)
        await client.send(request)
        token = await session.token()
        assert token is not None
        assert token.access_token not in repr(request.extensions)
        session.reject(token.access_token)
        await client.send(request)
        request.url = library.module.URL("https://elsewhere.example.com")
        await client.send(request)
    sent = [seen["authorization"] for seen in resource.seen]
    assert sent[0] == sent[1] != sent[2] != sent[3] == []


# When a server refuses.


@pytest.mark.req("BRR-07", "CLK-05")
@pytest.mark.parametrize("installed", [False, True])
async def test_a_401_costs_one_renewal_and_one_more_try(
    library: Library, resource: Resource, installed: bool
) -> None:
    plane = Plane()
    async with logged_in(plane) as session, library.client(resource) as client:
        if installed:
            install(client.client, session)
        else:
            client.client.auth = library.auth(session)
        old = await session.headers()
        resource.refuse(old)
        answer = await client.post(json={"a": 1})
        assert answer.status_code == 200
        assert [past.status_code for past in answer.history] == [401]
        assert (await client.get()).status_code == 200
        new = await session.headers()
    sent = [seen["authorization"] for seen in resource.seen]
    assert sent == [[headers["authorization"]] for headers in (old, new, new)]
    assert resource.bodies == [b'{"a":1}', b'{"a":1}', b""]
    assert renewals(plane) == 1


@pytest.mark.req("BRR-07")
async def test_a_server_that_refuses_everything_is_asked_at_most_twice_for_each_request(
    library: Library, resource: Resource
) -> None:
    plane = Plane()
    async with (
        logged_in(plane) as session,
        library.client(resource, auth=library.auth(session)) as client,
    ):
        resource.refused.add(None)  # type: ignore[arg-type]
        resource.before = lambda request: library.module.Response(401, content=b"never")
        for number in range(1, 6):
            answer = await client.get()
            assert (answer.status_code, answer.content) == (401, b"never")
            assert len(resource.seen) == number + 1  # for it does not help
    assert renewals(plane) == 1


@pytest.mark.req("BRR-09")
@pytest.mark.parametrize("status", [400, 403, 404, 407, 429, 500, 503])
async def test_only_a_401_is_about_the_token(
    library: Library, resource: Resource, status: int
) -> None:
    plane = Plane()
    async with (
        logged_in(plane) as session,
        library.client(resource, auth=library.auth(session)) as client,
    ):
        before = await session.headers()
        resource.before = lambda request: library.module.Response(
            status,
            headers={"www-authenticate": 'Bearer error="insufficient_scope"'},
            content=b"unauthenticated",
        )
        assert (await client.get()).status_code == status
        assert await session.headers() == before
    assert len(resource.seen) == 1
    assert renewals(plane) == 0


@pytest.mark.req("BRR-07")
@pytest.mark.parametrize("installed", [False, True])
async def test_a_401_from_elsewhere_is_not_about_the_token(
    library: Library, resource: Resource, installed: bool
) -> None:
    plane = Plane()
    async with (
        logged_in(plane) as session,
        library.client(resource, follow_redirects=True) as client,
    ):
        if installed:
            install(client.client, session)
        else:
            client.client.auth = library.auth(session)
        resource.refused.add(None)  # type: ignore[arg-type]
        resource.redirect("https://elsewhere.example.com/")
        assert (await client.get()).status_code == 401
        assert (await client.get("https://elsewhere.example.com/")).status_code == 401
    assert len(resource.seen) == 3
    assert renewals(plane) == 0


async def test_nor_does_it_say_that_a_control_plane_is_anonymous_no_more(
    library: Library, resource: Resource
) -> None:
    plane = Plane(faults={"no-auth"})
    async with (
        plane.session() as session,
        library.client(resource, auth=library.auth(session), follow_redirects=True) as client,
    ):
        assert (await client.get()).status_code == 200
        asked = plane.asked.copy()
        resource.refused.add(None)  # type: ignore[arg-type]
        resource.redirect("https://elsewhere.example.com/")
        assert (await client.get()).status_code == 401
    assert plane.asked == asked


@pytest.mark.req("BRR-10")
@pytest.mark.parametrize("installed", [False, True])
@pytest.mark.parametrize("status", [303, 307])
async def test_what_a_redirect_has_led_to_is_repeated_and_nothing_before_it(
    library: Library, resource: Resource, installed: bool, status: int
) -> None:
    plane = Plane()
    async with (
        logged_in(plane) as session,
        library.client(resource, follow_redirects=True) as client,
    ):
        if installed:
            install(client.client, session)
        else:
            client.client.auth = library.auth(session)
        resource.redirect("/result", status)
        resource.refuse(await session.headers())
        assert (await client.post(content=b"once")).status_code == 200
    method = "GET" if status == 303 else "POST"
    assert resource.methods == ["POST", method, method]
    assert resource.bodies == [b"once", *([b"" if status == 303 else b"once"] * 2)]
    assert renewals(plane) == 1


class Unseekable(BytesIO):
    def seekable(self) -> bool:
        return False


@pytest.mark.req("BRR-10")
@pytest.mark.parametrize(
    ("body", "replayed"),
    [
        ({}, True),
        ({"content": b"bytes"}, True),
        ({"content": "text"}, True),
        ({"json": {"a": [1, None]}}, True),
        ({"data": {"a": "b"}}, True),
        ({"files": {"file": b"bytes"}, "data": {"a": "b"}}, True),
        ({"files": {"file": BytesIO(b"open")}}, True),
        ({"files": {"file": ("name", Unseekable(b"pipe"))}}, False),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
async def test_a_body_that_can_be_sent_again_is(
    library: Library, resource: Resource, body: dict[str, Any], replayed: bool
) -> None:
    plane = Plane()
    async with (
        logged_in(plane) as session,
        library.client(resource, auth=library.auth(session)) as client,
    ):
        resource.refuse(await session.headers())
        answer = await client.post(**body)
        assert answer.status_code == (200 if replayed else 401)
        assert (await client.get()).status_code == 200
    assert len(resource.seen) == 2 + replayed
    if replayed:
        assert resource.bodies[0] == resource.bodies[1]
    assert renewals(plane) == 1


@pytest.mark.req("BRR-10")
@pytest.mark.parametrize("fails", [False, True])
async def test_a_stream_is_not_sent_twice_but_the_next_request_has_a_new_token(
    library: Library, resource: Resource, fails: bool
) -> None:
    plane = Plane()
    sent: list[bytes] = []

    def chunks() -> Iterator[bytes]:
        for chunk in (b"a", b"b"):
            sent.append(chunk)
            yield chunk

    async def achunks() -> AsyncIterator[bytes]:
        for chunk in chunks():
            yield chunk

    async with (
        logged_in(plane) as session,
        library.client(resource, auth=library.auth(session)) as client,
    ):
        resource.refuse(await session.headers())
        if fails:
            plane.before = _failing(plane)
        body = achunks() if library.is_async else chunks()
        answer = await client.post(content=body)
        assert (answer.status_code, answer.content) == (401, b"refused")
        assert len(resource.seen) == 1
        plane.before = None
        assert (await client.get()).status_code == 200
    assert sent == [b"a", b"b"]
    assert renewals(plane) >= 1


def _failing(plane: Plane) -> Callable[[str], Any]:
    async def fail(name: str) -> RequestFailed | None:
        return plane.down() if name == "refresh_token" else None

    return fail


@pytest.mark.req("BRR-11")
async def test_a_renewal_that_fails_for_now_is_raised_with_the_401_and_is_no_logout(
    library: Library, resource: Resource
) -> None:
    plane = Plane()
    async with (
        logged_in(plane) as session,
        library.client(resource, auth=library.auth(session)) as client,
    ):
        token = await session.token()
        assert token is not None
        resource.refuse(await session.headers())
        plane.before = _failing(plane)
        with pytest.raises(Unreachable) as raised:
            await client.get()
        cause = raised.value.__cause__
        assert isinstance(cause, library.module.HTTPStatusError)
        assert cause.response.status_code == 401
        assert token.access_token not in f"{cause!r} {dict(cause.request.headers)}"
        plane.before = None
        assert (await client.get()).status_code == 200


@pytest.mark.req("BRR-11")
async def test_a_login_that_is_over_is_said_to_be(library: Library, resource: Resource) -> None:
    plane = Plane()
    async with (
        logged_in(plane) as session,
        library.client(resource, auth=library.auth(session)) as client,
    ):
        resource.refuse(await session.headers())
        plane.plane = Plane(refresh_ttl=1.0).plane  # which knows nothing of it
        with pytest.raises(ReauthRequired) as raised:
            await client.get()
        assert raised.value.__cause__ is not None
        with pytest.raises(ReauthRequired) as raised:
            await client.get()
    assert len(resource.seen) == 1


@pytest.mark.req("BRR-12")
async def test_a_407_renews_the_proxy_credential_and_no_token(
    library: Library, resource: Resource
) -> None:
    plane = Plane()
    session = proxied(plane)
    assert isinstance(session, Proxied)
    async with session, library.client(resource) as client:
        install(client.client, session)
        await session.login()
        token = await session.token()
        resource.before = lambda request: (
            library.module.Response(407) if request.headers[PROXY] == "Bearer proxy-1" else None
        )
        assert (await client.get()).status_code == 200
        assert session.proxy == 2
        assert await session.token() == token

        def overtaken(request: Any) -> Any:
            if request.headers[PROXY] == "Bearer proxy-2":
                session.proxy = 3  # by another request
                return library.module.Response(407)
            return None

        resource.before = overtaken
        assert (await client.get()).status_code == 200
        assert session.proxy == 3
        resource.before = lambda request: library.module.Response(407)
        assert (await client.get()).status_code == 407
        assert session.proxy == 4
    assert renewals(plane) == 0
    assert [seen[PROXY] for seen in resource.seen] == [
        [f"Bearer proxy-{number}"] for number in (1, 2, 2, 3, 3, 4)
    ]


# What the refused request's answer costs.


def _endless(library: Library, ended: list[int]) -> Callable[[], Any]:
    def chunks() -> Iterator[bytes]:
        size = 0
        try:
            while True:
                size += 65_536
                yield b" " * 65_536
        finally:
            ended.append(size)

    async def achunks() -> AsyncIterator[bytes]:
        size = 0
        try:
            while True:
                size += 65_536
                await anyio.lowlevel.checkpoint()
                yield b" " * 65_536
        finally:
            ended.append(size)

    return achunks if library.is_async else chunks


@pytest.mark.req("BRR-07", "NET-03")
async def test_an_endless_401_is_not_read(library: Library, resource: Resource) -> None:
    ended: list[int] = []
    resource.content = _endless(library, ended)
    plane = Plane()
    async with (
        logged_in(plane) as session,
        library.client(resource, auth=library.auth(session)) as client,
    ):
        resource.refuse(await session.headers())
        answer = await client.get()
        assert answer.status_code == 200
        (refused,) = answer.history
        assert refused.is_closed
        assert refused.content == b""
        assert refused.elapsed.total_seconds() >= 0
    assert len(ended) == 1
    assert ended[0] <= 4 * integration.DRAIN_MAX


@asynccontextmanager
async def _at(server: Server, library: Library) -> AsyncIterator[Client]:
    base = f"http://localhost:{server.port}"
    async with (
        logged_in(Plane(base_url=base), endpoint=base) as session,
        library.client(auth=library.auth(session), base_url=base) as client,
    ):
        yield client


async def test_the_connection_of_a_401_is_used_again(library: Library) -> None:
    refusal = reply(b"x" * 10_000, status="401 Unauthorized")
    with serve(answering(refusal, reply())) as server:
        async with _at(server, library) as client:
            assert (await client.get("/tasks")).status_code == 200
        assert server.accepted == 1
        assert len(server.requests) == 2


@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_an_endless_401_costs_only_its_connection(library: Library, coding: str) -> None:
    answered = threading.Event()

    def script(connection: Any) -> None:
        connection.read_request()
        if answered.is_set():
            connection.send(reply())
            return
        answered.set()
        connection.send(f"HTTP/1.1 401 No\r\ncontent-encoding: {coding}\r\n\r\n".encode())
        while not connection.stopping.is_set():
            connection.send(b" " * 65_536)

    with serve(script) as server:
        async with _at(server, library) as client:
            assert (await client.get("/tasks")).status_code == 200
        assert server.accepted == 2


async def test_a_401_that_breaks_off_is_a_401(library: Library) -> None:
    answered = threading.Event()

    def script(connection: Any) -> None:
        connection.read_request()
        if answered.is_set():
            connection.send(reply())
            return
        answered.set()
        connection.send(b"HTTP/1.1 401 No\r\ncontent-length: 100\r\n\r\nonly this")
        connection.sock.close()

    with serve(script) as server:
        async with _at(server, library) as client:
            assert (await client.get("/tasks")).status_code == 200


# Many at once, and from wherever.


@pytest.mark.req("BRR-07", "REF-05")
async def test_fifty_requests_that_meet_a_401_share_one_renewal(
    library: Library, resource: Resource
) -> None:
    plane = Plane()
    async with (
        logged_in(plane) as session,
        library.client(resource, auth=library.auth(session)) as client,
    ):
        resource.refuse(await session.headers())
        outcomes = await all_at_once(50, client.get)
    assert [outcome.status_code for outcome in outcomes] == [200] * 50
    assert renewals(plane) == 1
    assert len(resource.seen) <= 100


@pytest.mark.req("BRR-08")
async def test_twenty_refusals_of_an_older_token_renew_nothing(
    library: Library, resource: Resource
) -> None:
    plane = Plane()
    async with logged_in(plane) as session:
        older = await session.headers()
        token = await session.token()
        assert token is not None
        resource.refuse(older)
        waiting, refusing = 0, anyio.Event()
        barrier = threading.Barrier(20)

        async with library.client(resource, auth=library.auth(session)) as client:
            # All are sent with the older token; before any is answered, there is a newer.
            if library.is_async:

                async def answer(request: Any) -> Any:
                    nonlocal waiting
                    if request.headers["authorization"] == older["authorization"]:
                        waiting += 1
                        if waiting == 20:
                            session.reject(token.access_token)
                            await session.headers()
                            refusing.set()
                        await refusing.wait()
                    return resource(request)

                client.client._transport = library.module.MockTransport(answer)
            else:

                def hold(request: Any) -> Any:
                    if request.headers["authorization"] == older["authorization"]:
                        if barrier.wait(LIMIT) == 0:
                            session.reject(token.access_token)
                            call(session.headers)
                        barrier.wait(LIMIT)

                resource.before = hold
            outcomes = await all_at_once(20, client.get)
    assert [outcome.status_code for outcome in outcomes] == [200] * 20
    assert renewals(plane) == 1  # which was ours
    assert len(resource.seen) == 40


@pytest.mark.parametrize("module", [httpx, httpx2])
async def test_a_synchronous_client_works_inside_a_running_event_loop(module: Any) -> None:
    library = Library(module, Auth if module is httpx else Auth2, is_async=False)
    resource = Resource(library)
    plane = Plane()
    async with plane.session("ClientSecret") as session:
        with module.Client(
            transport=module.MockTransport(resource), auth=library.auth(session), trust_env=False
        ) as client:
            assert client.get(TASKS).status_code == 200
            resource.refuse(call(session.headers))
            assert client.get(TASKS).status_code == 200
    assert plane.asked["client_credentials"] == 2


async def test_a_session_for_synchronous_programs_will_do(
    library: Library, resource: Resource
) -> None:
    from flyteauth import SyncSession

    async with logged_in(Plane()) as session:
        sync = SyncSession(of=session)
        async with library.client(resource, auth=library.auth(sync)) as client:
            await client.get()
    assert resource.credentials == [["authorization"]]


@pytest.mark.parametrize("module", [httpx, httpx2])
@pytest.mark.parametrize("installed", [False, True])
async def test_with_a_token_in_hand_nothing_is_awaited_and_no_thread_asked(
    module: Any, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The auth flow gets to its request, and from its answer to its end, in one go."""

    def never(*_: Any) -> Any:
        raise AssertionError("there is nothing to wait for")

    async with logged_in(Plane()) as session:
        client = module.AsyncClient(trust_env=False)
        if installed:
            install(client, session)
        else:
            client.auth = (Auth if module is httpx else Auth2)(session)
        auth = client.auth
        request = client.build_request("GET", TASKS)
        flow = auth.async_auth_flow(request)
        await anext(flow)
        await flow.aclose()

        monkeypatch.setattr(integration, "in_portal", never)
        monkeypatch.setattr(session, "headers", never)
        flow = auth.async_auth_flow(request)
        step = flow.asend(None)
        with pytest.raises(StopIteration) as sent:
            step.send(None)
        assert sent.value.value is request
        request.extensions["flyteauth.attached"] = True
        step = flow.asend(module.Response(200, request=request))
        with pytest.raises(StopAsyncIteration):
            step.send(None)
        sync = auth.sync_auth_flow(request)
        assert next(sync) is request
        sync.close()
        await client.aclose()


# Cancellation.


@pytest.mark.req("REF-13", "CLK-07")
@pytest.mark.parametrize("module", [httpx, httpx2])
@pytest.mark.parametrize("first", [False, True])
async def test_a_request_can_be_cancelled_wherever_it_waits_and_the_next_one_works(
    module: Any, first: bool, anyio_backend: str
) -> None:
    """*first*: also the waiting of a first use. Otherwise, that of a request that is refused."""
    library = Library(module, Auth if module is httpx else Auth2, is_async=True)
    hows = ["scope", "task"] if anyio_backend == "asyncio" else ["scope"]
    for how in hows:
        at, more = 0, True
        while more:
            plane, places = Plane(), Places()
            resource = Resource(library)
            async with plane.session("ClientSecret") as session:
                auth = library.auth(session)
                async with library.client(resource, auth=auth) as client:
                    if not first:
                        await client.get()
                        resource.refuse(await session.headers())
                    places.at = at
                    await cancelling(how, Counted(client.client.get(TASKS), places), places)
                    more = places.count > at
                    assert (await client.get()).status_code == 200
            assert plane.asked["client_credentials"] <= 2
            at += 1
        assert at >= 4


@pytest.mark.req("REF-13")
@pytest.mark.parametrize("module", [httpx, httpx2])
async def test_an_auth_flow_that_another_task_closes_leaves_nothing_held(module: Any) -> None:
    """After each of its awaits has been cancelled, and at the end of them."""
    library = Library(module, Auth if module is httpx else Auth2, is_async=True)
    at, yielded = 0, 0
    while yielded < 2:
        plane, places = Plane(), Places()
        async with plane.session("ClientSecret") as session:
            flow = library.auth(session).async_auth_flow(module.Request("GET", TASKS))
            yielded = 0

            async def drive(flow: Any = flow) -> None:
                nonlocal yielded
                request = await anext(flow)
                yielded += 1
                await flow.asend(module.Response(401, request=request))
                yielded += 1

            places.at = at
            await cancelling("scope", Counted(drive(), places), places)
            await _closed_by_another_task(flow)
            async with library.client(Resource(library), auth=library.auth(session)) as client:
                assert (await client.get()).status_code == 200
        assert plane.asked["client_credentials"] <= 2
        at += 1
    assert at >= 4


@pytest.mark.parametrize("module", [httpx, httpx2])
@pytest.mark.parametrize("answers", [0, 1])
async def test_an_auth_flow_can_be_closed_where_it_yields(module: Any, answers: int) -> None:
    library = Library(module, Auth if module is httpx else Auth2, is_async=True)
    async with logged_in(Plane()) as session:
        auth = library.auth(session)
        flow = auth.async_auth_flow(module.Request("GET", TASKS))
        request = await anext(flow)
        for _ in range(answers):
            await flow.asend(module.Response(401, request=request))
        await _closed_by_another_task(flow)
        async with library.client(Resource(library), auth=auth) as client:
            assert (await client.get()).status_code == 200


async def _closed_by_another_task(flow: Any) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(flow.aclose)


# Imports.


@pytest.mark.parametrize(
    ("statement", "libraries"),
    [
        ("import flyteauth.integrations.httpx", set()),
        ("from flyteauth.integrations.httpx import install", set()),
        ("from flyteauth.integrations.httpx import Auth", {"httpx"}),
        ("from flyteauth.integrations.httpx import Auth2", {"httpx2"}),
    ],
)
def test_only_the_library_that_is_used_is_imported(statement: str, libraries: set[str]) -> None:
    program = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(integration.__file__).parents[2],
    )
    assert {"httpx", "httpx2"} & set(json.loads(done.stdout)) == libraries


def test_the_names_are_there_and_no_others() -> None:
    assert integration.__all__ == sorted(integration.__all__)
    for name in integration.__all__:
        assert getattr(integration, name).__doc__
    assert issubclass(Auth, httpx.Auth)
    assert issubclass(Auth2, httpx2.Auth)
    assert getattr(integration, "Auth") is Auth  # noqa: B009
    with pytest.raises(AttributeError, match="no attribute 'Auth3'"):
        getattr(integration, "Auth3")  # noqa: B009
