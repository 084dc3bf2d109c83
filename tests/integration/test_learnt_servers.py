"""A refusal that names an authorization server (RFC 9728): no server is believed in this."""

from __future__ import annotations

import httpx
import pytest

from flyteauth._sansio.flow import RequestFailed, ResponseReceived
from flyteauth._sansio.http import Request, Response
from flyteauth.errors import InvalidResponse
from flyteauth.events import BrowserNeeded, CodeNeeded
from flyteauth.integrations.httpx import Auth

from .plane import ENDPOINT, Person, Plane

pytestmark = [pytest.mark.anyio, pytest.mark.req("META-18")]

ELSEWHERE = "https://evil.example"
CHALLENGE = (
    f'Bearer resource_metadata="{ELSEWHERE}/.well-known/oauth-protected-resource", '
    f'authorization_uri="{ELSEWHERE}/authorize", error="invalid_token"'
)
PROJECTS = "/flyteidl2.project.ProjectService/ListProjects"


class Refusing(Plane):
    """A control plane that refuses every call, and says to ask somebody else for tokens."""

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        answer = await super().send(request)
        if request.url.endswith(PROJECTS):
            assert isinstance(answer, ResponseReceived)
            refusal = Response(401, (("www-authenticate", CHALLENGE),), b"")
            return ResponseReceived(refusal, answer.sent_at, answer.at)
        return answer


async def test_a_refused_call_asks_only_the_server_that_was_configured() -> None:
    plane = Refusing()
    person = Person(plane.plane)
    async with plane.session(presenter=person) as session:
        await session.login()
        shown = person.saw(CodeNeeded), person.saw(BrowserNeeded)
        with pytest.raises(InvalidResponse):
            await session.call(PROJECTS, {})
        assert (person.saw(CodeNeeded), person.saw(BrowserNeeded)) == shown
    assert plane.asked["refresh_token"] == 1
    assert {request.url.startswith(f"{ENDPOINT}/") for request in plane.requests} == {True}


async def test_a_refused_request_of_httpx_asks_only_the_server_that_was_configured() -> None:
    plane = Plane()
    asked = []

    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(401, headers={"www-authenticate": CHALLENGE})

    async with plane.session() as session:
        await session.login()
        transport = httpx.MockTransport(refuse)
        async with httpx.AsyncClient(transport=transport, auth=Auth(session)) as client:
            answer = await client.get(f"{ENDPOINT}/tasks")
        assert answer.status_code == 401
    assert asked == [f"{ENDPOINT}/tasks"] * 2
    assert plane.asked["refresh_token"] == 1
    assert {request.url.startswith(f"{ENDPOINT}/") for request in plane.requests} == {True}
