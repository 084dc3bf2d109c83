"""Where a session's credentials may go: the endpoint, what is named, and the data plane."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from flyteauth._io.store.memory import MemoryStore
from flyteauth._sansio.flow import RequestFailed
from flyteauth._sansio.http import Response
from flyteauth.errors import ConfigError, InvalidResponse, Unreachable
from flyteauth.integrations import _http
from flyteauth.integrations.httpx import install
from flyteauth.session import Origins, Session
from tests.io.captive import captive
from tests.io.server import answering, reply, serve

from .plane import ENDPOINT, Plane
from .test_httpx import Client, Library, Resource, library, logged_in, resource

pytestmark = pytest.mark.anyio

__all__ = ["library", "resource"]  # the fixtures

DOMAIN = "dp.example.com"
PROJECTS = "/flyteidl2.project.ProjectService/ListProjects"
USER_INFO = "/flyteidl2.auth.IdentityService/UserInfo"
CLIENT = "/flyteidl2.auth.AuthMetadataService/GetPublicClientConfig"
OURS = frozenset({("http", "localhost", 8080)})


async def test_the_control_plane_is_asked_once_for_its_data_plane() -> None:
    plane = Plane(dataplane_domain="DP.example.com")
    async with plane.session() as session:
        assert await session.origins(data_plane=False) == Origins(OURS)
        assert plane.asked.total() == 0
        for _ in range(2):
            assert await session.origins() == Origins(OURS, DOMAIN)
    assert plane.asked[CLIENT] == 1


async def test_without_a_data_plane_it_is_the_endpoint_and_what_is_named() -> None:
    async with Plane().session() as session:
        assert await session.origins() == Origins(OURS)
        named = await session.origins(["https://files.example.com"])
        assert named.exact == OURS | {("https", "files.example.com", 443)}
        with pytest.raises(ConfigError) as wrong:
            await session.origins(["http://files.example.com"])
    assert wrong.value.reason == "insecure"


@pytest.mark.parametrize(
    ("endpoint", "origin"),
    [
        ("dns:///Flyte.example.com", ("https", "flyte.example.com", 443)),
        ("https://flyte.example.com:8443/path", ("https", "flyte.example.com", 8443)),
        ("[2001:DB8:0::7]:8443", ("https", "2001:db8::7", 8443)),
        ("b\u00fccher.example", ("https", "xn--bcher-kva.example", 443)),
    ],
)
async def test_each_spelling_of_the_endpoint_is_one_origin(
    endpoint: str, origin: tuple[str, str, int]
) -> None:
    async with Session(endpoint=endpoint, transport=Plane()) as session:
        assert await session.origins(data_plane=False) == Origins(frozenset({origin}))


async def test_a_session_without_authentication_asks_nobody() -> None:
    plane = Plane(dataplane_domain=DOMAIN)
    async with plane.session("NoAuth") as session:
        assert await session.origins() == Origins(OURS)
    async with Session(issuer=ENDPOINT, client_id="me", transport=plane) as session:
        assert await session.origins() == Origins()
    assert plane.asked.total() == 0


@pytest.mark.parametrize(
    "hostile",
    ["", "com", "co.uk", "*.example.com", "https://dp.example.com", "dp.example.com:443", "10.1"],
)
async def test_a_domain_that_could_be_anybodys_is_none_and_the_login_goes_on(hostile: str) -> None:
    plane = Plane(dataplane_domain=hostile)
    async with logged_in(plane) as session:
        assert await session.headers()
        assert await session.origins() == Origins(OURS)


async def test_while_the_control_plane_cannot_say_the_reason_is_raised() -> None:
    plane = Plane(faults={"html-discovery"})
    async with plane.session() as session:
        with pytest.raises(InvalidResponse):
            await session.origins()

        async def down(name: str) -> RequestFailed:
            return plane.down()

        plane.before = down
        with pytest.raises(Unreachable):
            await session.origins()


def notes(directory: Path) -> list[Path]:
    """The files that say which domain it is."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return [path for path in files if DOMAIN in path.read_text("utf-8")]


async def test_another_program_reads_the_domain_from_the_note_and_checks_it(tmp_path: Path) -> None:
    plane = Plane(dataplane_domain=DOMAIN)

    def program() -> Session:
        return plane.session("ClientSecret", store=MemoryStore(), directory=tmp_path)

    async with program() as session:
        assert (await session.origins()).domain == DOMAIN
    (note,) = notes(tmp_path)
    async with program() as session:
        assert (await session.origins()).domain == DOMAIN
    assert plane.asked[CLIENT] == 1
    note.write_text(note.read_text("utf-8").replace(json.dumps(DOMAIN), '"com"'), "utf-8")
    async with program() as session:
        assert (await session.origins()).domain is None
    assert plane.asked[CLIENT] == 1


# Our own calls.


@pytest.mark.req("BRR-04")
@pytest.mark.parametrize("custom", [False, True])
async def test_our_own_calls_follow_no_redirect_wherever_it_leads(custom: bool) -> None:
    faults = {"custom-header-key"} if custom else set()
    own = b"flyte-authorization: Bearer" if custom else b"\r\nauthorization: Bearer"
    with captive(faults=faults) as server, serve(answering(reply())) as other:
        async with Session(api_key=server.plane.api_key, store=MemoryStore()) as session:
            assert (await session.call(PROJECTS, {}))["projects"]
            before = len(server.requests)
            for status in (301, 302, 303, 307, 308):
                for target in (other.url, f"{server.base_url}/same", "/same", "//evil.example/"):
                    moved = Response(status, (("location", target),))
                    server.pages[PROJECTS] = server.pages[USER_INFO] = moved
                    for call in (session.call(PROJECTS, {}), session.whoami()):
                        with pytest.raises(InvalidResponse, match="redirects to") as refused:
                            await call
                        assert refused.value.reason == "redirect"
                    assert await session.verify()
        made = server.requests[before:]
    assert len(made) == 5 * 4 * 3
    assert all(own in request for request in made)
    assert not any(b"/same" in request for request in made)
    assert other.accepted == 0


# httpx.


async def _visit(client: Client, *urls: str) -> None:
    for url in urls:
        await client.get(url)


@pytest.mark.req("BRR-03")
@pytest.mark.parametrize("custom", [False, True])
async def test_the_data_plane_gets_the_credential_and_nobody_who_looks_like_it(
    library: Library, resource: Resource, custom: bool
) -> None:
    faults = {"custom-header-key"} if custom else set()
    plane = Plane(dataplane_domain=DOMAIN, faults=faults)
    resource.header = "flyte-authorization" if custom else "authorization"
    async with logged_in(plane) as session, library.client(resource) as client:
        install(client.client, session)
        await _visit(
            client,
            f"https://{DOMAIN}/x",
            f"https://cluster.{DOMAIN}:443/x",
            f"{ENDPOINT}/tasks",
            f"https://CLUSTER.{DOMAIN}/y",
        )
        given = [[resource.header]] * 4
        assert resource.credentials == given
        await _visit(
            client,
            f"http://{DOMAIN}/x",
            f"https://{DOMAIN}:8443/x",
            f"https://evil-{DOMAIN}/x",
            f"https://{DOMAIN}.evil.example/x",
            f"https://cluster.{DOMAIN}./x",
            "https://example.com/x",
        )
        assert resource.credentials == [*given, *[[]] * 6]
        resource.redirect(f"https://cluster.{DOMAIN}/x")
        await client.get(f"{ENDPOINT}/tasks", follow_redirects=True)
    assert resource.credentials[-2:] == [[resource.header], []]
    assert plane.asked[CLIENT] == 1


async def test_a_refusal_by_the_data_plane_is_about_the_token(
    library: Library, resource: Resource
) -> None:
    plane = Plane(dataplane_domain=DOMAIN)
    async with (
        logged_in(plane) as session,
        library.client(resource, auth=library.auth(session)) as client,
    ):
        resource.refuse(await session.headers())
        assert (await client.get(f"https://{DOMAIN}/x")).status_code == 200
    assert resource.credentials == [["authorization"]] * 2
    assert plane.asked["refresh_token"] == 1


async def test_a_file_elsewhere_needs_no_control_plane_and_asks_it_once_a_minute(
    library: Library, resource: Resource
) -> None:
    plane = Plane(dataplane_domain=DOMAIN)
    failed: list[str] = []

    async def down(name: str) -> RequestFailed:
        failed.append(name)
        return plane.down()

    plane.before = down
    async with (
        plane.session() as session,
        library.client(resource, auth=library.auth(session)) as client,
    ):
        await _visit(client, "http://bucket.example.com/plain", "https://bucket.example.com:8443/x")
        assert failed == []  # no data plane is there
        await client.get("https://bucket.example.com/signed")
        asked = len(failed)
        await _visit(client, *["https://bucket.example.com/signed", f"https://{DOMAIN}/x"] * 3)
        assert len(failed) == asked > 0
    assert resource.credentials == [[]] * 9


async def test_who_could_not_say_is_asked_again_later(
    library: Library, resource: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http, "DATA_PLANE_AGE", 0.0)
    plane = Plane(dataplane_domain=DOMAIN)

    async def down(name: str) -> RequestFailed:
        return plane.down()

    plane.before = down
    async with (
        plane.session() as session,
        library.client(resource, auth=library.auth(session)) as client,
    ):
        await client.get(f"https://{DOMAIN}/x")
        plane.before = None
        await session.login()
        await client.get(f"https://{DOMAIN}/x")
    assert resource.credentials == [[], ["authorization"]]


@pytest.mark.parametrize("calls", [1, 10])
async def test_first_requests_to_the_data_plane_wait_for_one_answer(
    library: Library, resource: Resource, calls: int
) -> None:
    plane, store = Plane(dataplane_domain=DOMAIN), MemoryStore()
    async with logged_in(plane, store=store):
        plane.asked.clear()
    async with (
        plane.session(store=store) as session,
        library.client(resource, auth=library.auth(session)) as client,
        anyio.create_task_group() as group,
    ):
        for _ in range(calls):
            group.start_soon(client.get, f"https://cluster.{DOMAIN}/x")
    assert resource.credentials == [["authorization"]] * calls
    assert plane.asked[CLIENT] == 1
