"""The real flyte command line against the embedded control plane, logged in by us and by itself."""

from __future__ import annotations

import io
import re
import tarfile
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from flyteauth.devserver.serve import Running

from .conftest import Devserver, Home
from .flyte_tool import PROJECTS, Tool, plane

APP = """\
import flyte

env = flyte.TaskEnvironment(name="hello")


@env.task
def main(name: str = "world") -> str:
    return f"hello {name}"
"""
APPS = "/cloudidl.identity.AppsService"


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with plane() as running:
        yield running


@pytest.fixture
def tool(home: Home, running: Running) -> Tool:
    """Everything that it has seen before is forgotten."""
    running.plane.journal.clear()
    home.write("app.py", APP)
    return Tool(home, running)


def by_exec(tool: Tool) -> Callable[..., str]:
    tool.configure(authType="Pkce", tokenStore="file")
    tool.good("login", program="flyteauth")
    return lambda *words: tool.good("exec", "--", "flyte", *words, program="flyteauth")


def by_command(tool: Tool) -> Callable[..., str]:
    endpoint = tool.running.endpoint
    ca_file = str(tool.running.ca_file)
    created = ("create", "config", "--endpoint", endpoint, "--ca-cert", ca_file, "--for", "flyte")
    where = ("--project", "flytesnacks", "--domain", "development", "--auth-type", "headless")
    tool.good(*created, *where, program="flyteauth")
    tool.good("login", program="flyteauth")
    return tool.good


def by_pkce(tool: Tool) -> Callable[..., str]:
    tool.configure()
    return tool.good


def by_device_flow(tool: Tool) -> Callable[..., str]:
    tool.configure(authType="DeviceFlow")
    return tool.good


# How somebody is logged in, and the token requests that all of these commands together take.
WAYS = {
    "exec": (by_exec, {"authorization_code": 1}),
    "external command": (by_command, {"device_code": 1}),
    "its own PKCE": (by_pkce, {"authorization_code": 1}),
    "its own device flow": (by_device_flow, {"device_code": 2}),  # its first poll comes too early
}


@pytest.mark.parametrize("way", WAYS)
def test_every_command_of_the_documents(tool: Tool, way: str) -> None:
    log_in, grants = WAYS[way]
    flyte = log_in(tool)
    assert "document-search" in flyte("get", "project")
    assert "hello-fastapi" in flyte("get", "app")
    assert '"subject": "alice"' in flyte("whoami")

    name = f"ci-{way.rsplit(maxsplit=1)[-1].lower()}"
    created = flyte("create", "api-key", "--name", name)
    assert re.search(r'FLYTE_API_KEY="[A-Za-z0-9+/]+=*"', created)
    assert name in flyte("get", "api-key")
    assert f"'clientId': '{name}'" in flyte("get", "api-key", name)
    assert "Successfully deleted" in flyte("delete", "api-key", name, "--yes")
    assert name not in flyte("get", "api-key")

    # The environment's name is what it is called in the file.
    deployed = flyte("deploy", "app.py", "env")
    assert "Deployed task hello.main" in deployed
    launched = flyte("run", "app.py", "main")
    port = tool.running.endpoint.rpartition(":")[2]
    url = rf"https://localhost:{port}/v2/domain/development/project/flytesnacks/runs/(\w+)"
    found = re.search(url, launched)
    assert found, launched
    assert found[1] in flyte("get", "run")
    assert "hello.main" in flyte("get", "task")

    bundles = [name for name in tool.running.plane.uploads.names() if name.endswith(".tar.gz")]
    content = tool.running.plane.uploads.content(bundles[-1])
    assert content is not None
    with tarfile.open(fileobj=io.BytesIO(content)) as bundle:
        member = bundle.extractfile("app.py")
        assert member is not None
        assert member.read().decode() == APP

    assert tool.grants() == grants
    credentials = {entry.credential for entry in tool.running.plane.journal}
    assert credentials == {None, "authorization"}


def test_a_process_is_refused_once_and_only_because_it_asks_without_a_token(tool: Tool) -> None:
    """Flyte runs the command after a 401, and keeps no token where we tell it not to."""
    flyte = by_command(tool)
    tool.running.plane.journal.clear()
    for _ in range(2):
        flyte("get", "project")
    assert tool.calls() == {(401, None): 2, (200, "authorization"): 2}
    assert tool.grants() == {}


def test_exec_of_a_control_plane_without_logins_asks_nobody(home: Home) -> None:
    with plane("no-auth") as running:
        tool = Tool(home, running)
        tool.configure()
        assert "flytesnacks" in tool.good(
            "exec", "--", "flyte", "get", "project", program="flyteauth"
        )
        assert tool.calls() == {(200, None): 1}
        assert tool.grants() == {}


def test_an_api_key_without_a_port_works_beside_the_endpoint(tool: Tool) -> None:
    """What has a port in it is cut in the wrong places by flyte."""
    client_id, secret = tool.running.plane.service_client
    host = tool.running.endpoint.removeprefix("dns:///")
    key = b64encode(f"localhost:{client_id}:{secret}:None".encode()).decode()
    listed = tool.good(
        *("--endpoint", host, "get", "project"),
        FLYTE_API_KEY=key,
        SSL_CERT_FILE=str(tool.running.ca_file),
    )
    assert "flytesnacks" in listed
    assert tool.grants() == {"client_credentials": 1}


def test_login_and_logout_are_commands_of_flyte(tool: Tool) -> None:
    tool.configure(authType="DeviceFlow", tokenStore="file")
    assert "login" in tool.good("--help")
    shown = tool("login")
    assert shown.status == 0, shown
    assert "Logged in" in shown.err
    assert tool.good("auth", "status")
    assert tool.home.stored() != {}
    assert tool.good("logout")
    assert tool.home.stored() == {}
    assert tool("auth", "status").status == 4
    assert tool.grants() == {"device_code": 1}


def test_a_wrong_authority_is_named(tool: Tool) -> None:
    """Bad input: flyte says it in its own words, and asks nobody to log in."""
    with plane() as other:
        tool.configure(caCertFilePath=str(other.ca_file), authType="DeviceFlow")
        ended = tool("get", "project")
        assert ended.status != 0
        refused = tool.flyteauth("login")
        assert refused.status == 1
        assert refused.err.count("\n") == 1
        assert "caCertFilePath" in refused.err
    assert tool.running.plane.journal == []


def test_a_demo_survives_a_restart(
    home: Home, devserver: Callable[..., Devserver], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Deployed, logged in, stopped and started again: nobody notices."""
    folder = str(tmp_path_factory.mktemp("data") / "demo")
    home.write("app.py", APP)
    server = devserver("--approve", "auto", "--data", folder)
    before = {**server.ready, "pid": None}
    tool = Tool(home, _nobody(server))
    environ = {"UCTL_CONFIG": str(server.ready["config_file"])}
    tool.good("deploy", "app.py", "env", **environ)
    tool.good("login", program="flyteauth", **environ, FLYTE_ADMIN_TOKENSTORE="file")
    server.stop()
    again = devserver("--approve", "auto", "--data", folder)
    assert {**again.ready, "pid": None} == before
    assert "hello.main" in tool.good("get", "task", **environ)
    shown = tool.flyteauth("whoami", **environ, FLYTE_ADMIN_TOKENSTORE="file")
    assert (shown.status, "alice" in shown.out) == (0, True), shown


def _nobody(server: Devserver) -> Running:
    """What Tool wants to know of a server in another process."""
    return Running(server.endpoint, None, str(server.ready["endpoint"]))  # type: ignore[arg-type]


def test_the_log_says_which_header_each_call_had(tool: Tool) -> None:
    flyte = by_device_flow(tool)
    flyte("get", "project")
    seen = Counter(
        (entry.path, entry.status, entry.credential) for entry in tool.running.plane.journal
    )
    assert seen[PROJECTS, 401, None] == 1
    assert seen[PROJECTS, 200, "authorization"] == 1
    assert seen["/flyteidl2.auth.AuthMetadataService/GetOAuth2Metadata", 200, None] == 1
