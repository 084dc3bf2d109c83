"""What users' guides tell people to write: it runs."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyteauth.config import Settings as Configured, resolve
from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings

from .conftest import BROWSER, Ended, Home, Serve

DOCUMENTED = "dns:///your-endpoint.hosted.unionai.cloud"

LOGIN = """\
import flyteauth as flyte
import flyteauth.remote as remote

# Initialize with PKCE authentication (default)
flyte.init(endpoint="dns:///your-endpoint.hosted.unionai.cloud")

print([t for t in remote.Task.listall(project="flytesnacks", domain="development")])
"""
CONFIGURED = """\
import flyteauth as flyte

flyte.init_from_config("/path/to/config.yaml")
"""
FOUND = """\
import flyteauth as flyte

flyte.init_from_config()
"""
HEADLESS = """\
import flyteauth as flyte

# Initialize with device flow authentication
flyte.init(endpoint="dns:///your-endpoint.hosted.unionai.cloud", headless=True)
"""
API_KEY = """\
import flyteauth as flyte
import os

# Read API key from environment
api_key = os.getenv("FLYTE_API_KEY")
if not api_key:
    raise ValueError("FLYTE_API_KEY environment variable not set")

# Initialize - no endpoint needed
flyte.init(api_key=api_key)
"""
LIST = """
import flyteauth.remote as remote
print([project.id for project in remote.Project.listall()])
"""

FILES = {
    "Pkce": """\
admin:
  endpoint: https://your-endpoint.hosted.unionai.cloud
  insecure: false
  authType: Pkce
logger:
  show-source: true
  level: 0
""",
    "DeviceFlow": """\
admin:
  endpoint: dns:///your-endpoint.hosted.unionai.cloud
  insecure: false
  authType: DeviceFlow
logger:
  show-source: true
  level: 0
""",
    "secret in a file": """\
admin:
  endpoint: dns:///your-endpoint.hosted.unionai.cloud
  insecure: false
  authType: ClientSecret
  clientId: demo-ci
  clientSecretLocation: /path/to/secret.txt
logger:
  show-source: true
  level: 0
""",
    "secret in the environment": """\
admin:
  endpoint: dns:///your-endpoint.hosted.unionai.cloud
  insecure: false
  authType: ClientSecret
  clientId: demo-ci
  clientSecretEnvVar: FLYTE_API_KEY
logger:
  show-source: true
  level: 0
""",
}


@pytest.fixture(scope="module")
def plane() -> Iterator[Running]:
    with serving(Settings(approve="auto")) as running:
        yield running


def at(running: Running, text: str) -> str:
    """*text* with the endpoint of *running* in place of the documents' own."""
    host = DOCUMENTED.removeprefix("dns:///")
    text = re.sub(rf"(dns:///|https://){re.escape(host)}", running.base_url, text)
    return text.replace("dns:///flyte.example.com", running.base_url)


def run(home: Home, running: Running, snippet: str, **environ: str) -> Ended:
    """*snippet* as a script that somebody starts at a terminal."""
    argv = (sys.executable, "-c", at(running, snippet))
    return home.at_terminal(argv, {"BROWSER": BROWSER, **environ})


# The programs.


def test_init_logs_in_by_pkce_and_tasks_are_listed(home: Home, plane: Running) -> None:
    ended = run(home, plane, LOGIN)
    assert ended.status == 0, ended
    assert "Task(name=" in ended.out
    assert "/oauth2/authorize?" in ended.err
    again = run(home, plane, LOGIN)
    assert (again.status, again.out, again.err) == (0, ended.out, "")


@pytest.mark.req("DEV-10")
def test_init_headless_shows_a_code_even_where_there_is_no_terminal(
    home: Home, plane: Running
) -> None:
    ended = home.program([sys.executable, "-c", at(plane, HEADLESS + LIST)], {})
    assert ended.status == 0, ended
    assert "flytesnacks" in ended.out
    assert f"{plane.base_url}/activate" in ended.err


def test_init_by_an_api_key_needs_nothing_else(home: Home, plane: Running) -> None:
    ended = home.program(
        [sys.executable, "-c", API_KEY + LIST], {"FLYTE_API_KEY": plane.api_key, "BROWSER": "false"}
    )
    assert (ended.status, ended.err) == (0, ""), ended
    assert "flytesnacks" in ended.out
    assert home.stored() == {}
    ended = home.program([sys.executable, "-c", API_KEY], {})
    assert "FLYTE_API_KEY environment variable not set" in ended.err


def test_init_from_config_takes_a_path(home: Home, plane: Running) -> None:
    path = home.write("config.yaml", at(plane, FILES["DeviceFlow"]))
    ended = run(home, plane, CONFIGURED.replace("/path/to/config.yaml", str(path)) + LIST)
    assert ended.status == 0, ended
    assert "flytesnacks" in ended.out
    assert "/activate" in ended.err


@pytest.mark.parametrize(
    ("place", "variable"),
    [
        (".union/config.yaml", None),
        (".flyte/config.yaml", None),
        (".my-config-location/my-config.yaml", "UNION_CONFIG"),
    ],
)
def test_init_from_config_finds_the_file_where_the_guides_put_it(
    home: Home, plane: Running, place: str, variable: str | None
) -> None:
    path = home.write(place, at(plane, FILES["secret in the environment"]))
    _, secret = plane.plane.service_client
    environ = {"FLYTE_API_KEY": secret} | ({variable: str(path)} if variable else {})
    ended = home.program([sys.executable, "-c", FOUND + LIST], environ)
    assert (ended.status, ended.err) == (0, ""), ended
    assert "flytesnacks" in ended.out


def test_the_command_takes_the_same_file(home: Home, plane: Running) -> None:
    _, secret = plane.plane.service_client
    kept = home.write("secret.txt", secret + "\n")
    text = at(plane, FILES["secret in a file"]).replace("/path/to/secret.txt", str(kept))
    path = home.write(".my-config-location/my-config.yaml", text)
    ended = home.run("--config", str(path), "token")
    assert (ended.status, ended.err) == (0, "")


@pytest.mark.parametrize("insecure", ["", "  insecure: false\n"])
@pytest.mark.parametrize("name", FILES)
def test_the_documented_files_mean_tls_and_what_they_say(
    name: str, insecure: str, tmp_path: Path
) -> None:
    text = FILES[name].replace("  insecure: false\n", insecure)
    secret = tmp_path / "secret.txt"
    secret.write_text("s3cret\n", "utf-8")
    path = tmp_path / "config.yaml"
    path.write_text(text.replace("/path/to/secret.txt", str(secret)), "utf-8")
    environ = {"FLYTE_API_KEY": "s3cret"} if "clientSecretEnvVar" in text else {}
    found: Configured = resolve({}, environ=environ, path=path, search=False)
    assert found.endpoint is not None
    assert found.endpoint.url == "https://your-endpoint.hosted.unionai.cloud"
    assert found.auth_type == (name if name in {"Pkce", "DeviceFlow"} else "ClientSecret")
    if found.auth_type == "ClientSecret":
        assert found.client_id == "demo-ci"
        assert found.client_secret is not None
        assert found.client_secret.read() == "s3cret"


# Where nobody is there, and where a loop runs already.


@pytest.mark.parametrize("program", [LOGIN, FOUND])
def test_a_program_without_a_person_says_so_at_once_and_opens_nothing(
    home: Home, serve: Serve, program: str
) -> None:
    running, opened = serve(), home.path / "opened"
    home.write(".flyte/config.yaml", at(running, FILES["Pkce"]))
    script = f"import flyteauth\ntry:\n{textwrap.indent(at(running, program), '    ')}"
    script += "except flyteauth.InteractionRequired as error:\n    print(error)\n"
    ended = home.program([sys.executable, "-c", script], {"BROWSER": f"touch {opened}"})
    assert (ended.status, ended.err) == (0, ""), ended
    assert "flyteauth login" in ended.out
    assert "FLYTE_API_KEY" in ended.out
    assert not opened.exists()
    assert running.plane.count(path="/oauth2/device_authorization") == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_same_lines_work_inside_a_running_loop_and_in_async_programs(
    home: Home, plane: Running, backend: str
) -> None:
    program = f"""\
import anyio
import flyteauth as flyte
import flyteauth.remote as remote

async def main():
    flyte.init(api_key={plane.api_key!r})
    print([project.id for project in remote.Project.listall()])
    await flyte.ainit(api_key={plane.api_key!r})
    print([project.id async for project in remote.Project.listall()])
    print([app.name async for app in remote.App.listall(project="flytesnacks", domain="development")])
    await flyte.current_session().aclose()

anyio.run(main, backend={backend!r})
"""
    ended = home.program([sys.executable, "-c", program], {})
    assert (ended.status, ended.err) == (0, ""), ended
    first, second, _ = ended.out.splitlines()
    assert first == second
    assert "flytesnacks" in first
