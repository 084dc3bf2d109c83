"""The calls on the wire: every encoding that a client of Flyte's may use, over TLS and without."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import ssl
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from flyteidl2.auth import auth_service_pb2, identity_pb2
from flyteidl2.common import identifier_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2
from flyteidl2.project import project_service_pb2
from flyteidl2.task import task_definition_pb2, task_service_pb2
from flyteidl2.workflow import run_service_pb2
from google.protobuf.message import Message

from flyteauth.devserver.apps_proto import _messages
from flyteauth.devserver.rpc import MESSAGE_MAX
from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings

from .harness import LIST_PROJECTS, LIST_TASKS, USER_INFO

METADATA = "/flyteidl2.auth.AuthMetadataService/GetOAuth2Metadata"
CLIENT = "/flyteidl2.auth.AuthMetadataService/GetPublicClientConfig"
APPS = "/cloudidl.identity.AppsService"
PROTO = "application/proto"
APP = _messages()


class Wire:
    """A client that knows of bytes and headers only."""

    def __init__(self, running: Running, *, tls: bool) -> None:
        self.running = running
        port = running.endpoint.rpartition(":")[2]
        self.base = f"https://localhost:{port}" if tls else running.base_url
        trust = ssl.create_default_context(cafile=running.ca_file)
        self.client = httpx.Client(verify=trust, trust_env=False)
        self.token: str | None = None

    def log_in(self) -> None:
        plane = self.running.plane
        form = {"client_id": "flytectl"}
        device = self.client.post(
            f"{self.running.base_url}/oauth2/device_authorization", data=form
        ).json()
        plane.approve(device["user_code"])
        grant = "urn:ietf:params:oauth:grant-type:device_code"
        form |= {"grant_type": grant, "device_code": device["device_code"]}
        reply = self.client.post(f"{self.running.base_url}/oauth2/token", data=form)
        self.token = reply.json()["access_token"]

    def post(self, path: str, body: bytes, content_type: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token is not None:
            named.setdefault("authorization", f"Bearer {self.token}")
        return self.client.post(
            f"{self.base}{path}", content=body, headers={**named, "content-type": content_type}
        )

    def proto(self, path: str, message: Message, **headers: str) -> httpx.Response:
        return self.post(path, message.SerializeToString(), PROTO, **headers)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving(Settings(approve="auto"), tls=True) as running:
        yield running


@pytest.fixture(params=[True, False], ids=["TLS", "plain"])
def wire(running: Running, request: pytest.FixtureRequest) -> Iterator[Wire]:
    wire = Wire(running, tls=request.param)
    with wire.client:
        wire.log_in()
        yield wire


def test_protobuf_and_json_say_the_same(wire: Wire) -> None:
    request = project_service_pb2.ListProjectsRequest(limit=2, filters="eq(state, 0)")
    reply = wire.proto(LIST_PROJECTS, request)
    assert (reply.status_code, reply.headers["content-type"]) == (200, PROTO)
    listed = project_service_pb2.ListProjectsResponse.FromString(reply.content).projects
    body = json.dumps({"limit": 2, "filters": "eq(state, 0)"}).encode()
    said = wire.post(LIST_PROJECTS, body, "application/json").json()["projects"]
    assert [project.id for project in listed.projects] == [p["id"] for p in said["projects"]]
    assert listed.token == said["token"] == "2"


@pytest.mark.parametrize("content", [True, False], ids=["message", "empty message"])
def test_a_compressed_request_is_read(wire: Wire, content: bool) -> None:
    request = project_service_pb2.ListProjectsRequest(limit=1 if content else 0)
    body = gzip.compress(request.SerializeToString())
    reply = wire.post(LIST_PROJECTS, body, PROTO, content_encoding="gzip")
    listed = project_service_pb2.ListProjectsResponse.FromString(reply.content).projects
    assert len(listed.projects) == (1 if content else 4)
    assert reply.headers["content-encoding"] == "gzip"  # as httpx asks for by itself


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (METADATA, auth_service_pb2.GetOAuth2MetadataResponse),
        (CLIENT, auth_service_pb2.GetPublicClientConfigResponse),
    ],
)
def test_the_metadata_may_be_fetched_without_a_token_and_by_get(
    wire: Wire, path: str, kind: Any
) -> None:
    wire.token = None
    posted = kind.FromString(wire.proto(path, kind()).content)
    query = f"?connect=v1&encoding=proto&base64=1&message={base64.b64encode(b'').decode()}"
    got = wire.client.get(f"{wire.base}{path}{query}")
    assert kind.FromString(got.content) == posted
    said = wire.client.get(f"{wire.base}{path}?connect=v1&encoding=json&message=%7B%7D").json()
    assert said == wire.post(path, b"{}", "application/json").json()
    if kind is auth_service_pb2.GetOAuth2MetadataResponse:
        assert posted.token_endpoint == f"{wire.running.base_url}/oauth2/token"
        assert posted.token_endpoint == said["tokenEndpoint"]
    else:
        assert (posted.client_id, posted.authorization_metadata_key) == (
            "flytectl",
            "authorization",
        )


@pytest.mark.parametrize("content_type", [PROTO, "application/json", "application/connect+proto"])
@pytest.mark.parametrize("path", [LIST_PROJECTS, "/flyteidl2.workflow.RunService/WatchRuns"])
def test_a_refusal_is_the_same_for_every_client(wire: Wire, content_type: str, path: str) -> None:
    for token, error in (
        (None, 'Bearer realm="flyteauth"'),
        ("wrong", 'Bearer realm="flyteauth", error="invalid_token"'),
    ):
        wire.token = token
        reply = wire.post(path, b"", content_type)
        assert reply.status_code == 401
        assert reply.headers["content-type"] == "application/json"
        assert reply.json()["code"] == "unauthenticated"
        assert reply.headers["www-authenticate"] == error


def test_both_header_names_are_read(wire: Wire) -> None:
    token, wire.token = wire.token, None
    request = identity_pb2.UserInfoRequest()
    for name in ("authorization", "flyte-authorization"):
        reply = wire.proto(USER_INFO, request, **{name: f"Bearer {token}"})
        assert identity_pb2.UserInfoResponse.FromString(reply.content).subject == "alice"


@pytest.mark.parametrize(
    "path",
    [
        "/flyteidl2.workflow.RunService/GetActionDetails",
        "/flyteidl2.workflow.RunService/AbortRun",
        "/flyteidl2.app.AppService/Create",
    ],
)
def test_what_is_not_served_is_unimplemented(wire: Wire, path: str) -> None:
    reply = wire.post(path, b"", PROTO)
    assert (reply.status_code, reply.json()["code"]) == (501, "unimplemented")


@pytest.mark.parametrize(
    "path",
    [
        "/flyteidl2.workflow.RunService/WatchActionDetails",
        "/flyteidl2.dataproxy.DataProxyService/TailLogs",
    ],
)
def test_a_stream_ends_at_once_with_unimplemented(wire: Wire, path: str) -> None:
    envelope = b"\x00\x00\x00\x00\x00"
    reply = wire.post(path, envelope, "application/connect+proto")
    assert reply.status_code == 200
    assert reply.content[0] == 2  # the end of the stream, and nothing before it
    assert json.loads(reply.content[5:])["error"]["code"] == "unimplemented"


def test_a_service_that_nobody_knows_is_not_found(wire: Wire) -> None:
    assert wire.post("/flyteidl2.nothing.Service/Method", b"", PROTO).status_code == 404
    assert wire.post(f"{APPS}/Nothing", b"", PROTO).status_code == 404


@pytest.mark.parametrize(
    ("body", "content_type", "headers", "status"),
    [
        (b"\xff\xff\xff", PROTO, {}, 400),
        (b"not json", "application/json", {}, 400),
        (b"\xff", "application/json", {}, 400),
        (b'{"limit": "many"}', "application/json", {}, 400),
        (b"not gzip", PROTO, {"content_encoding": "gzip"}, 400),
        (gzip.compress(b"", mtime=0)[:-6], PROTO, {"content_encoding": "gzip"}, 400),
        (b"", PROTO, {"content_encoding": "br"}, 501),
        (b"", "text/html", {}, 415),
        (b"", "application/grpc", {}, 415),
        (b"", "application/grpc-web+proto", {}, 415),
        (b"x" * (1024 * 1024 + 1), PROTO, {}, 413),
    ],
)
def test_what_cannot_be_read_is_the_client_s_fault(
    wire: Wire, body: bytes, content_type: str, headers: dict[str, str], status: int
) -> None:
    reply = wire.post(LIST_PROJECTS, body, content_type, **headers)
    assert reply.status_code == status, reply.text
    assert wire.proto(LIST_PROJECTS, project_service_pb2.ListProjectsRequest()).status_code == 200


def test_a_message_that_would_grow_without_end_is_refused(wire: Wire) -> None:
    bomb = zlib.compress(b"\x00" * (MESSAGE_MAX + 1), wbits=31)
    assert len(bomb) < 10_000
    reply = wire.post(LIST_PROJECTS, bomb, PROTO, content_encoding="gzip")
    assert (reply.status_code, reply.json()["code"]) == (429, "resource_exhausted")


def test_a_task_comes_back_as_it_was_sent(wire: Wire) -> None:
    identifier = task_definition_pb2.TaskIdentifier(
        project="churn", domain="staging", name="mine.run", version=wire.token
    )
    spec = task_definition_pb2.TaskSpec(short_name="run")
    spec.task_template.type = "python"
    spec.task_template.custom.update({"a": [1, {"b": None}], "c": "ü"})
    spec.task_template.container.args.extend(["--x", "\x00"])
    request = task_service_pb2.DeployTaskRequest(task_id=identifier, spec=spec)
    assert wire.proto("/flyteidl2.task.TaskService/DeployTask", request).status_code == 200
    wanted = task_service_pb2.GetTaskDetailsRequest(task_id=identifier)
    reply = wire.proto("/flyteidl2.task.TaskService/GetTaskDetails", wanted)
    details = task_service_pb2.GetTaskDetailsResponse.FromString(reply.content).details
    assert details.spec == spec
    where = identifier_pb2.ProjectIdentifier(name="churn", domain="staging")
    listed = wire.proto(LIST_TASKS, task_service_pb2.ListTasksRequest(project_id=where))
    names = [
        t.task_id.name for t in task_service_pb2.ListTasksResponse.FromString(listed.content).tasks
    ]
    assert "mine.run" in names

    run = run_service_pb2.CreateRunRequest(project_id=where, task_spec=spec)
    reply = wire.proto("/flyteidl2.workflow.RunService/CreateRun", run)
    created = run_service_pb2.CreateRunResponse.FromString(reply.content).run
    assert created.action.status.phase == 1
    assert created.action.id.run.project == "churn"


def test_an_upload_is_announced_in_protobuf_and_put_on_plain_http(wire: Wire) -> None:
    content = b"a bundle"
    digest = hashlib.md5(content).digest()
    request = dataproxy_service_pb2.CreateUploadLocationRequest(
        project="churn", domain="staging", filename="x.tar.gz", content_md5=digest
    )
    request.expires_in.FromSeconds(60)
    reply = wire.proto("/flyteidl2.dataproxy.DataProxyService/CreateUploadLocation", request)
    place = dataproxy_service_pb2.CreateUploadLocationResponse.FromString(reply.content)
    assert place.signed_url.startswith(f"{wire.running.base_url}/uploads/")
    assert wire.client.put(place.signed_url, content=content).status_code == 200
    assert content in [
        wire.running.plane.uploads.content(name) for name in wire.running.plane.uploads.names()
    ]


def test_an_api_key_lives_in_protobuf(wire: Wire) -> None:
    made = APP["CreateAppRequest"](
        client_id=f"key-{wire.base.rpartition(':')[2]}",
        client_name="My key",
        grant_types=[3, 0],
        response_types=[0],
        redirect_uris=["http://localhost:8080/callback"],
        token_endpoint_auth_method=2,
        consent_method=2,
    )
    created = APP["CreateAppResponse"].FromString(wire.proto(f"{APPS}/Create", made).content).app
    assert (created.client_id, list(created.grant_types)) == (made.client_id, [0, 3])
    assert created.client_id_issued_at.seconds > 1.7e9
    assert created.client_secret
    update = APP["UpdateAppRequest"](
        client_id=made.client_id,
        client_name="Renamed",
        grant_types=[3],
        token_endpoint_auth_method=2,
    )
    assert wire.proto(f"{APPS}/Update", update).status_code == 200
    one = APP["GetAppRequest"](client_id=made.client_id)
    got = APP["GetAppResponse"].FromString(wire.proto(f"{APPS}/Get", one).content).app
    assert (got.client_name, list(got.grant_types), got.client_secret) == ("Renamed", [3], "")
    request = APP["ListAppsRequest"]()
    request.request.limit = 1
    listed = APP["ListAppsResponse"].FromString(wire.proto(f"{APPS}/List", request).content)
    assert (len(listed.apps), listed.token) == (1, "demo-ci")
    again = wire.proto(f"{APPS}/Create", made)
    assert (again.status_code, again.json()["code"]) == (409, "already_exists")
    gone = APP["DeleteAppRequest"](client_id=made.client_id)
    assert wire.proto(f"{APPS}/Delete", gone).status_code == 200
    reply = wire.proto(f"{APPS}/Get", one)
    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")


def test_each_call_is_in_the_journal_once(wire: Wire) -> None:
    journal = wire.running.plane.journal
    before = len(journal)
    wire.proto(LIST_PROJECTS, project_service_pb2.ListProjectsRequest())
    wire.token = "wrong"
    wire.proto(LIST_PROJECTS, project_service_pb2.ListProjectsRequest())
    entries = [(e.path, e.status, e.credential) for e in journal[before:]]
    assert entries == [
        (LIST_PROJECTS, 200, "authorization"),
        (LIST_PROJECTS, 401, "authorization"),
    ]


@pytest.mark.parametrize(
    ("fault", "path", "status"),
    [
        ("html-discovery", METADATA, 200),
        ("login-redirect", METADATA, 302),
        ("login-redirect", LIST_PROJECTS, 302),
        ("discovery-503", CLIENT, 503),
        ("no-auth", METADATA, 501),
        ("no-auth", LIST_PROJECTS, 200),
        ("flyte1-only", METADATA, 404),
        ("always-401", LIST_PROJECTS, 401),
        ("apps-unimplemented", f"{APPS}/List", 501),
    ],
)
def test_faults_stand_before_every_encoding(fault: str, path: str, status: int) -> None:
    with serving(Settings(approve="auto", faults={fault})) as running:
        wire = Wire.__new__(Wire)
        wire.running, wire.base, wire.token = running, running.base_url, None
        with httpx.Client(trust_env=False) as wire.client:
            if fault == "apps-unimplemented":
                wire.log_in()
            assert wire.post(path, b"", PROTO).status_code == status
            assert wire.post(path, b"{}", "application/json").status_code == status
