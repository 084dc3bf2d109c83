"""The real flytekit client over gRPC, with our tokens: by our command, and by a session of ours."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings

from ..services import require
from .conftest import BROWSER, Ended, Home, lines
from .flyte_tool import DEADLINE, grants

SERVER = Path(__file__).with_name("flyte1_server.py")

# What each program begins with: the client that flytekit makes of its configuration.
PREAMBLE = """\
import json, os, time, urllib.parse, urllib.request
from concurrent.futures import ThreadPoolExecutor

from flytekit.clients.friendly import SynchronousFlyteClient
from flytekit.configuration import Config, PlatformConfig


def client(**more):
    return SynchronousFlyteClient(Config.auto(os.environ["CONFIG"]).platform if not more
                                  else PlatformConfig(**more))


def projects(of):
    found, _ = of.list_projects_paginated(limit=10)
    return [project.id for project in found]


def together(of, count=20):
    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(projects, of) for _ in range(count)]]


def take_back(token):
    form = {"token": token, "token_type_hint": "access_token", "client_id": "flytectl"}
    data = urllib.parse.urlencode(form).encode()
    urllib.request.urlopen(f"{os.environ['ISSUER']}/oauth2/revoke", data, timeout=10).close()


def say(value):
    print(json.dumps(value))

"""


@frozen
class Flyte1:
    """A Flyte 1 control plane: one port as behind an ingress, and one with gRPC alone."""

    running: Running
    port: int
    grpc_port: int
    log: Path

    @property
    def calls(self) -> Counter[tuple[str, str | None]]:
        """The statuses of the calls for projects, and the metadata keys that brought a token."""
        return Counter((line["status"], line["credential"]) for line in lines(self.log))


@pytest.fixture
def flyte1(home: Home) -> Iterator[Callable[..., Flyte1]]:
    with ExitStack() as stack:

        def start(*faults: str, **settings: Any) -> Flyte1:
            settings = {"approve": "auto", "faults": frozenset(faults), **settings}
            running = stack.enter_context(serving(Settings(**settings)))
            log = home.write("calls.log", "")
            argv = [str(require("flytekit")), str(SERVER), running.base_url, str(log)]
            process = stack.enter_context(home.executed(argv, PYTHONWARNINGS="default"))
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            return Flyte1(running, log=log, **json.loads(line))

        yield start


Start = Callable[..., Flyte1]


def ended(home: Home, flyte1: Flyte1, program: str, config: str) -> Ended:
    home.write("program.py", PREAMBLE + program)
    environ = {
        "ISSUER": flyte1.running.base_url,
        "GRPC": f"localhost:{flyte1.grpc_port}",
        "CONFIG": str(home.path / config),
        "PYTHONWARNINGS": "default",
        "BROWSER": "false",
    }
    return home.program([str(require("flytekit")), "program.py"], environ, DEADLINE)


def said(home: Home, flyte1: Flyte1, program: str, config: str = ".flyte/config.yaml") -> Any:
    """What the program says, as JSON on its last line."""
    result = ended(home, flyte1, program, config)
    assert result.status == 0, result
    return json.loads(result.out.splitlines()[-1])


def ours(home: Home, *words: str) -> Ended:
    """Our command in flytekit's environment."""
    result = home.program(
        [str(require("flytekit").with_name("flyteauth")), *words], {"BROWSER": BROWSER}
    )
    assert result.status == 0, result
    return result


def by_command(home: Home, flyte1: Flyte1) -> None:
    endpoint = f"http://localhost:{flyte1.port}"
    ours(home, "create", "config", "--endpoint", endpoint, "--for", "flytekit")


def by_name(home: Home, flyte1: Flyte1) -> None:
    admin = f"endpoint: dns:///localhost:{flyte1.port}, insecure: true, authType: flyteauth"
    home.write(".flyte/config.yaml", f"admin: {{{admin}}}\n")


WAYS: Sequence[Callable[[Home, Flyte1], None]] = (by_command, by_name)
ways = pytest.mark.parametrize("configure", WAYS, ids=lambda way: way.__name__)


@ways
@pytest.mark.parametrize("faults", [(), ("custom-header-key",)], ids=["plain", "custom key"])
def test_projects_are_listed_with_our_login_under_the_server_s_key(
    home: Home,
    flyte1: Start,
    configure: Callable[[Home, Flyte1], None],
    faults: Sequence[str],
) -> None:
    plane = flyte1(*faults)
    configure(home, plane)
    ours(home, "login")
    assert said(home, plane, "say(projects(client()))") == ["flytesnacks"]
    key = "flyte-authorization" if faults else "authorization"
    refused = Counter({("UNAUTHENTICATED", None): 1} if configure is by_command else {})
    assert plane.calls == refused + Counter({("OK", key): 1})
    assert grants(plane.running) == {"authorization_code": 1}


@ways
def test_calls_go_on_for_longer_than_a_token_lives(
    home: Home, flyte1: Start, configure: Callable[[Home, Flyte1], None]
) -> None:
    plane = flyte1(access_ttl=2.0)
    configure(home, plane)
    ours(home, "login")
    program = """
ours, until, count = client(), time.monotonic() + 5.0, 0
while time.monotonic() < until or count < 5:
    assert projects(ours)
    count += 1
say(count)
"""
    assert said(home, plane, program) == plane.calls["OK", "authorization"]
    made = grants(plane.running)
    assert made["authorization_code"] == 1
    assert made["refresh_token"] >= 2


@pytest.mark.req("REF-02")
@ways
def test_twenty_calls_that_are_refused_at_once_are_one_refresh(
    home: Home, flyte1: Start, configure: Callable[[Home, Flyte1], None]
) -> None:
    plane = flyte1()
    configure(home, plane)
    ours(home, "login")
    program = """
import subprocess, sys
ours = client()
projects(ours)
command = [os.path.join(os.path.dirname(sys.executable), "flyteauth"), "token"]
take_back(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
say([len(each) for each in together(ours)])
"""
    assert said(home, plane, program) == [1] * 20
    assert grants(plane.running) == {"authorization_code": 1, "refresh_token": 1}
    assert plane.calls["OK", "authorization"] == 21


def test_a_server_that_speaks_nothing_but_grpc_is_asked_over_grpc_how_to_log_in(
    home: Home, flyte1: Start
) -> None:
    plane = flyte1("custom-header-key")
    client_id, secret = plane.running.plane.service_client
    program = f"""
ours = client(endpoint=os.environ["GRPC"], insecure=True, auth_mode="flyteauth",
              client_id={client_id!r}, client_credentials_secret={secret!r})
say([len(each) for each in together(ours)])
"""
    assert said(home, plane, program) == [1] * 20
    assert plane.calls == {("OK", "flyte-authorization"): 20}
    assert grants(plane.running) == {"client_credentials": 1}


@ways
def test_without_a_login_flytekit_says_what_to_do_and_opens_no_browser(
    home: Home, flyte1: Start, configure: Callable[[Home, Flyte1], None]
) -> None:
    plane = flyte1()
    configure(home, plane)
    failed = ended(home, plane, "projects(client())", ".flyte/config.yaml")
    assert failed.status != 0
    assert "flyteauth login" in failed.err
    assert plane.running.plane.count(path="/oauth2/authorize") == 0
    assert plane.calls["OK", "authorization"] == 0
