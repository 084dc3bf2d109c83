"""What the control plane is asked beside logging in: lists, and API keys that really work."""

from __future__ import annotations

import json
import warnings
from base64 import b64decode
from collections.abc import Awaitable
from typing import Any

import pytest

from flyteauth import remote
from flyteauth._sansio.flow import RequestFailed, ResponseReceived
from flyteauth._sansio.http import Request, Response
from flyteauth.errors import (
    ConfigError,
    FlowError,
    InvalidResponse,
    MissingMetadata,
    OAuth2Error,
)
from flyteauth.session import Session

from .plane import ENDPOINT, Plane

pytestmark = pytest.mark.anyio

APPS = "/cloudidl.identity.AppsService"


@pytest.fixture
def plane() -> Plane:
    return Plane()


async def logged_in(plane: Plane, **arguments: Any) -> Session:
    session = plane.session(**arguments)
    await session.login()
    return session


async def reason(call: Awaitable[object]) -> str:
    with pytest.raises(FlowError) as raised:
        await call
    return raised.value.reason


class Answering(Plane):
    """A control plane that gives its own answer to some paths."""

    def __init__(self, **answers: Response) -> None:
        super().__init__()
        self.answers = answers

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        answered = await super().send(request)
        response = self.answers.get(request.url.rpartition("/")[2])
        if response is None or isinstance(answered, RequestFailed):
            return answered
        return ResponseReceived(response, answered.sent_at, answered.at)


def says(status: int, message: object) -> Response:
    content_type = ("content-type", "application/json")
    return Response(status, (content_type,), json.dumps(message).encode())


# What a table shows.


async def test_a_task_knows_its_environment_and_when_it_was_deployed(plane: Plane) -> None:
    session = await logged_in(plane, project="churn", domain="staging")
    tasks = [task async for task in remote.Task.listall(session=session)]
    assert [(task.environment, task.short_name) for task in tasks] == [
        ("features", "build"),
        ("model", "train"),
        ("model", "evaluate"),
        ("model", "publish"),
    ]
    assert all(task.version and task.deployed_at.endswith("Z") for task in tasks)


async def test_an_app_knows_its_status_and_address(plane: Plane) -> None:
    session = await logged_in(plane, project="churn", domain="staging")
    (app,) = [app async for app in remote.App.listall(session=session)]
    assert (app.name, app.status) == ("churn-dashboard", "active")
    assert app.url == "https://churn-dashboard.staging.apps.example.com"


@pytest.mark.parametrize(
    ("status", "shown", "url"),
    [
        (None, "", ""),
        ({}, "", ""),
        ({"conditions": []}, "", ""),
        ({"conditions": [{"deploymentStatus": 7}]}, "7", ""),
        (
            {
                "conditions": [
                    {"deploymentStatus": "DEPLOYMENT_STATUS_PENDING"},
                    {"deploymentStatus": "DEPLOYMENT_STATUS_FAILED"},
                ],
                "ingress": {"publicUrl": "https://a.example"},
            },
            "failed",
            "https://a.example",
        ),
    ],
)
async def test_an_app_of_which_less_is_known(status: object, shown: str, url: str) -> None:
    app = {"metadata": {"id": {"name": "a"}}, **({} if status is None else {"status": status})}
    plane = Answering(List=says(200, {"apps": [app]}))
    session = await logged_in(plane, project="p", domain="d")
    (found,) = [app async for app in remote.App.listall(session=session)]
    assert (found.name, found.status, found.url) == ("a", shown, url)


# API keys.


async def test_a_key_is_created_used_listed_and_deleted(plane: Plane) -> None:
    session = await logged_in(plane)
    created = await remote.ApiKey.create("My CI key!", session=session)
    assert (created.client_id, created.name) == ("my-ci-key-", "My CI key!")
    assert created.created_at == int(plane.clock.time())
    listed = [key async for key in remote.ApiKey.listall(session=session)]
    assert [key.client_id for key in listed] == ["demo-ci", "my-ci-key-"]
    assert listed[1] == remote.ApiKey("my-ci-key-", "My CI key!", created.created_at)
    assert await remote.ApiKey.get("My CI key!", session=session) == listed[1]
    assert await remote.ApiKey.get("my-ci-key-", session=session) == listed[1]

    service = plane.session("ClientSecret", api_key=created.encoded())
    who = await service.whoami()
    assert who is not None
    assert who.subject == "my-ci-key-"

    assert await remote.ApiKey.delete("My CI key!", session=session) == listed[1]
    assert [key.client_id async for key in remote.ApiKey.listall(session=session)] == ["demo-ci"]
    with pytest.raises(OAuth2Error, match="invalid_client"):
        await service.whoami()
    assert (await session.whoami()) is not None


def test_the_same_without_an_event_loop(plane: Plane) -> None:
    from flyteauth import SyncSession

    with SyncSession(of=plane.session()) as blocking:
        blocking.login()
        created = remote.ApiKey.create("nightly", session=blocking.session).result()
        assert list(remote.ApiKey.listall(session=blocking.session)) == [
            remote.ApiKey("demo-ci", "demo-ci"),
            remote.ApiKey("nightly", "nightly", created.created_at),
        ]
        assert remote.ApiKey.get("nightly", session=blocking.session).result().name == "nightly"
        remote.ApiKey.delete("nightly", session=blocking.session).result()
        assert len(list(remote.ApiKey.listall(session=blocking.session))) == 1


async def test_a_deletion_that_nobody_waits_for_is_a_warning(plane: Plane) -> None:
    session = await logged_in(plane)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        remote.ApiKey.delete("demo-ci", session=session)
    assert any("never awaited" in str(warning.message) for warning in caught)


async def test_a_key_with_a_client_id_of_another_spelling_is_found_as_it_is(plane: Plane) -> None:
    session = await logged_in(plane)
    odd = {
        "clientId": "Made_Elsewhere",
        "grantTypes": ["CLIENT_CREDENTIALS"],
        "tokenEndpointAuthMethod": "CLIENT_SECRET_BASIC",
    }
    await session.call(f"{APPS}/Create", odd)
    await remote.ApiKey.create("made-elsewhere", session=session)
    await remote.ApiKey.delete("Made_Elsewhere", session=session)
    names = [key.client_id async for key in remote.ApiKey.listall(session=session)]
    assert names == ["demo-ci", "made-elsewhere"]


async def test_the_secret_is_in_the_key_and_in_no_repr(plane: Plane) -> None:
    session = await logged_in(plane)
    created = await remote.ApiKey.create("k", session=session)
    assert created.client_secret not in repr(created)
    assert created.client_secret not in repr(await remote.ApiKey.get("k", session=session))
    assert b64decode(created.encoded()).decode() == (
        f"{ENDPOINT}:k:{created.client_secret}:None"  # plain http means something else
    )
    elsewhere = b64decode(created.encoded("https://flyte.example.com", "acme")).decode()
    assert elsewhere == f"flyte.example.com:k:{created.client_secret}:acme"


@pytest.mark.parametrize(
    ("endpoint", "fits"),
    [
        ("https://flyte.example.com", True),
        ("dns:///flyte.example.com", True),
        ("https://flyte.example.com:8443", False),
        ("https://[2001:db8::1]", False),
        ("http://localhost", False),
    ],
)
def test_a_key_that_flyte_cannot_read_says_so(endpoint: str, fits: bool) -> None:
    key = remote.CreatedApiKey("id", "id", "a-long-enough-secret", endpoint=endpoint)
    assert (key.warning is None) == fits
    if key.warning is not None:
        assert "flyte.init(api_key=)" in key.warning
        assert "\n" not in key.warning


async def test_a_name_that_is_taken_or_unknown_says_what_to_do(plane: Plane) -> None:
    session = await logged_in(plane)
    await remote.ApiKey.create("k", session=session)
    with pytest.raises(FlowError, match="named K already; choose another name") as raised:
        await remote.ApiKey.create("K", session=session)
    assert raised.value.reason == "already_exists"
    for call in (remote.ApiKey.get, remote.ApiKey.delete):
        with pytest.raises(FlowError, match=r"no API key named no\\n\\x1b; list them") as raised:
            await call("no\n\x1b", session=session)
        assert raised.value.reason == "not_found"


@pytest.mark.parametrize("name", ["", "!!!", " ", "ключ"])
async def test_a_name_without_letters_that_count_is_refused_here(plane: Plane, name: str) -> None:
    session = await logged_in(plane)
    with pytest.raises(ConfigError, match="choose one like"):
        await remote.ApiKey.create(name, session=session)
    assert await reason(remote.ApiKey.get(name, session=session)) == "not_found"


async def test_what_is_refused_keeps_its_reason(plane: Plane) -> None:
    session = await logged_in(plane)
    assert await reason(remote.ApiKey.delete("demo-ci", session=session)) == "failed_precondition"
    service = plane.session("ClientSecret")
    assert await reason(remote.ApiKey.create("k", session=service)) == "permission_denied"
    assert await reason(remote.ApiKey.get("My Key", session=service)) == "permission_denied"
    assert plane.asked[f"{APPS}/Get"] == 2  # once each: no other name would be more welcome


@pytest.mark.parametrize(
    "answer",
    [says(501, {"code": "unimplemented"}), Response(404, (), b"404 page not found")],
    ids=["says so", "knows nothing of it"],
)
async def test_a_control_plane_without_api_keys_says_what_to_use(answer: Response) -> None:
    session = await logged_in(Answering(List=answer, Create=answer))
    with pytest.raises(MissingMetadata, match="has no API keys .*; use a client secret"):
        [key async for key in remote.ApiKey.listall(session=session)]
    with pytest.raises(MissingMetadata, match="use a client secret"):
        await remote.ApiKey.create("k", session=session)


@pytest.mark.parametrize(
    ("issued_at", "created_at"),
    [("2023-11-14T22:13:20Z", 1.7e9), ("2023-11-14T22:13:20.5Z", 1.7e9 + 0.5), (None, None)]
    + [("2023-11-14T22:13:20", None), ("0001-01-01T00:00:00Z", None), ("soon", None)]
    + [(1700000000, None), ("9" * 400, None), ([], None), (1.5, None), (True, None)],
)
async def test_the_time_of_creation_may_be_anything(
    issued_at: object, created_at: float | None
) -> None:
    app = {"clientId": "k", "clientIdIssuedAt": issued_at}
    session = await logged_in(Answering(Get=says(200, {"app": app})))
    key = await remote.ApiKey.get("k", session=session)
    assert key == remote.ApiKey("k", "k", created_at)


@pytest.mark.parametrize("app", [{}, {"clientId": ""}, {"clientId": 5}, {"clientId": "k"}])
async def test_an_answer_without_what_a_key_is_made_of_is_the_servers_fault(
    app: dict[str, object],
) -> None:
    session = await logged_in(Answering(Create=says(200, {"app": app})))
    with pytest.raises(InvalidResponse):
        await remote.ApiKey.create("k", session=session)
