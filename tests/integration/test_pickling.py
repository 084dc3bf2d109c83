"""A session as a pickle: the configuration travels, and nothing that is secret."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import pickletools
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flyteauth import SyncSession
from flyteauth.config import Secret
from flyteauth.devserver.serve import Running
from flyteauth.errors import ConfigError
from flyteauth.session import Session

from .plane import ENDPOINT, Person, Plane

pytestmark = pytest.mark.anyio

LIMIT = 60.0
PROJECTS = "/flyteidl2.project.ProjectService/ListProjects"
CANARY = "canary0123456789"
API_KEY = b64encode(f"{ENDPOINT}:ci:{CANARY}:None".encode()).decode()
CANARIES = (CANARY, API_KEY, b64encode(CANARY.encode()).decode())

protocols = pytest.mark.parametrize("protocol", [2, 3, 4, 5])


def opened(session: object) -> bytes:
    """Nothing of the pickle is packed or compressed, so that a canary can be seen."""
    return b"".join(pickle.dumps(session, protocol) for protocol in (0, 2, 3, 4, 5))


def by_python(session: object) -> bytes:
    """As cloudpickle does it: by the pickler that is written in Python."""
    buffer = io.BytesIO()
    pickle._Pickler(buffer, 5).dump(session)
    return buffer.getvalue()


def assert_no_secret(data: bytes, *more: str) -> None:
    for secret in (*CANARIES, *more):
        assert secret.encode() not in data
        assert repr(secret)[1:-1].encode() not in data


# What does not travel.

SECRETS: dict[str, dict[str, Any]] = {
    "api_key": {"api_key": API_KEY},
    "client_secret": {"endpoint": ENDPOINT, "client_id": "ci", "client_secret": CANARY},
    "client_credentials_secret": {
        "endpoint": ENDPOINT,
        "client_id": "ci",
        "client_credentials_secret": CANARY,
    },
    "Secret": {
        "endpoint": ENDPOINT,
        "client_id": "ci",
        "client_secret": Secret("value", "a test", CANARY),
    },
    "Secret of an environment": {
        "endpoint": ENDPOINT,
        "client_id": "ci",
        "client_secret": Secret("environment", "a test", "THE_SECRET", {"THE_SECRET": CANARY}),
    },
    "http_proxy_url": {"endpoint": ENDPOINT, "http_proxy_url": f"http://me:{CANARY}@127.0.0.1:9"},
    "token_store": {"endpoint": ENDPOINT, "token_store": f"redis://me:{CANARY}@127.0.0.1:9/0"},
}


@pytest.mark.req("SEC-01")
@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("make", [Session, Session.from_config, SyncSession])
def test_no_secret_argument_is_in_the_pickle(name: str, make: Callable[..., Any]) -> None:
    session = make(**SECRETS[name])
    for data in (opened(session), by_python(session), opened(pickle.loads(opened(session)))):
        assert_no_secret(data)


@pytest.mark.req("SEC-01")
async def test_no_token_is_in_the_pickle_nor_anything_that_is_no_configuration() -> None:
    plane = Plane()
    lock = threading.Lock()  # cannot be pickled
    person = Person(plane.plane)
    async with plane.session(
        presenter=person,
        on_event=lambda event: lock.locked(),
        on_token_change=lambda token: None,
        interactive=lock.locked,
        scopes=("openid", "offline", "all"),
        project="flytesnacks",
    ) as session:
        token = await session.login()
        assert token is not None
        await session.headers()
        data = opened(session)
        revived = pickle.loads(pickle.dumps(session))
    secrets = (token.access_token, token.refresh_token, token.id_token)
    assert_no_secret(data, *filter(None, secrets))
    assert b"flytesnacks" in data
    assert (await revived.settings()).project == "flytesnacks"
    assert (await revived.settings()).scopes == ("openid", "offline", "all")
    assert revived.cached_headers() is None
    await revived.aclose()


@pytest.mark.req("SEC-01")
def test_no_environment_is_in_the_pickle(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in ("FLYTE_API_KEY", "THE_SECRET", "FLYTE_ADMIN_TOKENSTORE", "HARMLESS"):
        monkeypatch.setenv(name, CANARY)
    path = home / "config.yaml"
    path.write_text("admin:\n  clientSecretEnvVar: THE_SECRET\n")
    for session in (Session.from_config(path), SyncSession(of=Session.from_config(path))):
        data = opened(session)
        assert_no_secret(data)
        assert b"THE_SECRET" not in data
        assert str(path).encode() in data or path.name.encode() in data


def test_a_pickle_names_only_what_every_version_has() -> None:
    """What is pickled today is to be read by another version tomorrow."""
    names = {
        str(argument)
        for operation, argument, _ in pickletools.genops(pickle.dumps(Session(endpoint="x"), 2))
        if operation.name == "GLOBAL"
    }
    assert names == {
        "flyteauth.session _revive",
        "flyteauth.session Session",
        "flyteauth._source _revive",
    }


def test_a_copy_is_a_session_of_its_own() -> None:
    session = Session(endpoint=ENDPOINT, auth_type="NoAuth")
    for other in (copy.copy(session), copy.deepcopy(session)):
        assert other is not session
        assert other._life is not session._life
        assert other._life.source.arguments == session._life.source.arguments


def test_a_subclass_stays_one() -> None:
    revived = pickle.loads(pickle.dumps(Own(endpoint=ENDPOINT)))
    assert type(revived) is Own


class Own(Session):
    pass


# What works again.


@protocols
async def test_a_configuration_file_is_read_again_where_it_is_revived(
    protocol: int, running: Running, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_id, secret = running.plane.service_client
    path = home / "config.yaml"
    path.write_text("admin:\n  endpoint: http://localhost:9\n")
    data = pickle.dumps(Session.from_config(path), protocol)
    path.write_text(
        f"admin:\n  endpoint: {running.base_url}\n  authType: ClientSecret\n"
        f"  clientId: {client_id}\n  clientSecretEnvVar: THE_SECRET\n"
    )
    monkeypatch.setenv("THE_SECRET", secret)
    async with pickle.loads(data) as session:
        assert (await session.call(PROJECTS, {}))["projects"]
    assert secret.encode() not in data


@protocols
@pytest.mark.parametrize("variable", ["FLYTE_API_KEY", "UNION_API_KEY"])
@pytest.mark.parametrize("name", ["api_key", "client_secret", "client_credentials_secret"])
async def test_an_api_key_where_it_is_revived_takes_the_place_of_the_secret(
    protocol: int, variable: str, name: str, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_id, secret = running.plane.service_client
    more = {"endpoint": running.base_url, "client_id": client_id}
    given: dict[str, Any] = (
        {"api_key": running.api_key} if name == "api_key" else {name: secret, **more}
    )
    data = pickle.dumps(Session(**given), protocol)
    monkeypatch.setenv(variable, running.api_key)
    async with pickle.loads(pickle.dumps(pickle.loads(data))) as session:
        assert (await session.call(PROJECTS, {}))["projects"]
    assert secret.encode() not in data
    assert running.api_key.encode() not in data


@pytest.mark.parametrize(
    ("name", "variable"),
    [("http_proxy_url", "FLYTE_ADMIN_HTTPPROXYURL"), ("token_store", "FLYTE_ADMIN_TOKENSTORE")],
)
async def test_so_do_the_variables_of_other_settings(
    name: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = SECRETS[name]
    revived = pickle.loads(pickle.dumps(Session(**given)))
    with pytest.raises(ConfigError, match=variable):
        await revived.settings()
    monkeypatch.setenv(variable, given[name])
    assert getattr(await revived.settings(), name) == given[name]
    await revived.aclose()


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("make", [Session, Session.from_config])
async def test_what_is_missing_is_said_in_one_line(name: str, make: Callable[..., Any]) -> None:
    revived = pickle.loads(pickle.dumps(make(**SECRETS[name])))
    for ask in (revived.headers, revived.settings, revived.login):
        with pytest.raises(ConfigError, match="did not travel") as raised:
            await ask()
        said = str(raised.value)
        assert raised.value.reason == "left_out"
        assert "\n" not in said
        assert "set FLYTE_" in said
        assert CANARY not in said


async def test_where_a_secret_is_kept_travels(
    running: Running, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_id, secret = running.plane.service_client
    (home / "secret").write_text(secret)
    monkeypatch.setenv("THE_SECRET", secret)
    for place in (
        Secret("file", "a test", str(home / "secret")),
        Secret("environment", "a test", "THE_SECRET"),
    ):
        session = Session(endpoint=running.base_url, client_id=client_id, client_secret=place)
        data = opened(session)
        assert secret.encode() not in data
        async with pickle.loads(data) as revived:
            assert await revived.headers()


async def test_a_person_finds_the_login_of_this_machine_again(running: Running) -> None:
    arguments: dict[str, Any] = {"auth_type": "DeviceFlow", "token_store": "file"}
    async with Session(endpoint=running.base_url, **arguments) as session:
        token = await session.login()
        data = pickle.dumps(session)
    async with pickle.loads(data) as revived:
        assert await revived.token() == token


def test_a_blocking_session_blocks_again(running: Running) -> None:
    with SyncSession(endpoint=running.base_url, auth_type="NoAuth") as session:
        data = pickle.dumps(session)
    with pickle.loads(data) as revived:
        assert isinstance(revived, SyncSession)
        assert revived.headers() == {}


# In a process of its own.

WORKER = """
import anyio, json, multiprocessing, os, sys
from flyteauth import SyncSession
from flyteauth.session import Session

PROJECTS = "/flyteidl2.project.ProjectService/ListProjects"

def work(session):
    if isinstance(session, SyncSession):
        return bool(session.call(PROJECTS, {})["projects"])
    async def main():
        async with session:
            return bool((await session.call(PROJECTS, {}))["projects"])
    return anyio.run(main)

def tell(session, pipe):
    pipe.send(work(session))

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    api_key = os.environ["FLYTE_API_KEY"]
    answers = []
    for session in (Session(api_key=api_key), SyncSession(api_key=api_key), Session.from_config()):
        answers.append(work(session))
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=tell, args=(session, theirs))
        process.start()
        theirs.close()
        answers.append(ours.recv())
        process.join()
        answers.append(process.exitcode)
    print(json.dumps(answers))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_session_goes_to_a_worker_process(method: str, running: Running, home: Path) -> None:
    if method == "forkserver" and sys.platform == "win32":
        return
    path = home / "program.py"
    path.write_text(WORKER)
    ended = subprocess.run(
        [sys.executable, str(path), method],
        env={**_environ(), "FLYTE_API_KEY": running.api_key},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert ended.stderr == ""
    assert json.loads(ended.stdout) == [True, True, 0] * 3


def _environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
