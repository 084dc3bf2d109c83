"""No secret is ever seen where it does not belong: whole logins, and each way in which they fail.

The secrets are the real ones: whatever passes the control plane's door in either direction is
noted there, and then looked for in everything that could be printed, logged, raised or spawned.
"""

from __future__ import annotations

import functools
import gc
import json
import logging
import os
import subprocess
import time
import traceback
import types
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

import anyio
import pytest

from flyteauth import SyncSession
from flyteauth._io.store import keyring as keyring_module
from flyteauth._io.store.ring import Ring
from flyteauth._io.terminal import Terminal
from flyteauth._sansio.api_key import decode_api_key
from flyteauth._sansio.http import Request, Response
from flyteauth.devserver.model import ControlPlane
from flyteauth.devserver.serve import serving
from flyteauth.devserver.settings import FAULTS, Settings
from flyteauth.errors import ConfigError, Error, StoreError
from flyteauth.events import AuthEvent, BrowserNeeded, CodeNeeded
from flyteauth.session import Session

from .e2e.conftest import BROWSER
from .integration.plane import Plane
from .io.rings import OthersRing

pytestmark = pytest.mark.anyio

PROJECTS = "/flyteidl2.project.ProjectService/ListProjects"
IN_A_BROWSER = ("/oauth2/authorize", "/activate")
SECRET_FIELDS = ("code", "code_verifier", "device_code", "refresh_token", "client_secret", "token")
SECRET_MEMBERS = ("access_token", "refresh_token", "id_token", "device_code")

Mangle = Callable[[bytes], bytes]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Witness:
    """Stands at the control plane's door. ``secrets`` is what passed it, ``asked`` each URL."""

    def __init__(self, plane: ControlPlane, mangle: Mangle | None = None) -> None:
        self._handle = plane.handle
        self._mangle = mangle
        self.secrets: dict[str, str] = {}
        self.asked: list[str] = []
        self.note("API key", plane.api_key)
        self.note("client secret", plane.service_client[1])

    def note(self, name: str, value: str) -> None:
        assert len(value) >= 8, name
        self.secrets[value] = name

    def handle(self, request: Request, at: float) -> Response:
        self._note_request(request)
        response = self._handle(request, at)
        self._note_response(response)
        path = urlsplit(request.url).path
        if self._mangle is not None and path == "/oauth2/token":
            body = self._mangle(response.body)
            return Response(response.status, response.headers, body)
        return response

    def _note_request(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.path not in IN_A_BROWSER:
            self.asked.append(request.url)
        query = parse_qs(url.query)
        form = parse_qs(request.body.decode("utf-8", "replace"))
        for name in ("state", "nonce"):
            for value in query.get(name, ()):
                self.note(name, value)
        for name in SECRET_FIELDS:
            for value in form.get(name, ()):
                self.note(name, value)
        for name, value in request.headers:
            if name.lower() == "authorization" and value.startswith("Basic "):
                self.note("Authorization", value.removeprefix("Basic "))
                secret = b64decode(value.removeprefix("Basic ")).decode().partition(":")[2]
                self.note("client secret", unquote_plus(secret))

    def _note_response(self, response: Response) -> None:
        location = parse_qs(urlsplit(response.header("location") or "").query)
        for value in location.get("code", ()):
            self.note("code", value)
        try:
            body = json.loads(response.body)
        except ValueError:
            return
        for name in SECRET_MEMBERS:
            if isinstance(value := body.get(name), str):
                self.note(name, value)

    def found_in(self, text: str, but: tuple[str, ...] = ()) -> list[str]:
        """The names of the secrets in *text*, except those that may be there."""
        names = (name for secret, name in self.secrets.items() if secret in text)
        return sorted({name for name in names if name not in but})

    def assert_absent(self, where: str, text: str, but: tuple[str, ...] = ()) -> None:
        assert self.found_in(text, but) == [], f"{where}: {text[:2000]}"


class Everything(logging.Handler):
    """Every record of every logger, formatted."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record) + repr(record.args))


@pytest.fixture
def logs() -> Iterator[Everything]:
    handler = Everything()
    known = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    known += [logging.getLogger(name) for name in ("httpx", "httpcore.http11", "flyteauth")]
    levels = [(logger, logger.level) for logger in known]
    for logger in known:
        logger.setLevel(logging.DEBUG)
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)
    for logger, level in levels:
        logger.setLevel(level)


class Spawned(subprocess.Popen[bytes]):
    """Notes the arguments and the environment of every child."""

    seen: list[tuple[list[str], dict[str, str]]] = []

    def __init__(self, args: Any, **more: Any) -> None:
        self.seen.append((list(args), dict(more.get("env") or os.environ)))
        super().__init__(args, **more)


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    monkeypatch.setattr(Spawned, "seen", [])
    monkeypatch.setattr(subprocess, "Popen", Spawned)
    monkeypatch.setenv("BROWSER", BROWSER)
    return Spawned.seen


def reachable(*roots: object) -> Iterator[object]:
    """Every object of ours, and every partial, that can be reached from *roots*."""
    plain = (dict, list, tuple, set, frozenset, types.MappingProxyType, types.CellType)
    called = (functools.partial, types.MethodType)
    seen: set[int] = set()
    waiting = list(roots)
    kept = []  # an id is only good while its object lives
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, type | types.ModuleType):
            continue
        seen.add(id(one))
        kept.append(one)
        if isinstance(one, types.FunctionType):
            waiting += [*(one.__closure__ or ()), *(one.__defaults__ or ())]
            continue
        ours = type(one).__module__.startswith("flyteauth") or isinstance(one, BaseException)
        if ours or isinstance(one, called):
            yield one
        if ours or isinstance(one, plain + called):
            if hasattr(one, "__dict__"):
                waiting += vars(one).values()
            waiting += gc.get_referents(one)


def printed(one: object) -> str:
    """Everything that a careless ``print`` could make of an object."""
    return f"{one!r} {one!s} {one} {one!a}"


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception with all that led to it, suppressed or not."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


def told(error: BaseException) -> str:
    """All the text that an exception carries along; its frames' locals are not among it."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=False)
    parts = ["".join(shown.format())]
    for one in chain(error):
        notes = getattr(one, "__notes__", [])
        parts += [repr(one), str(one), repr(one.args), repr(vars(one)), *notes]
        parts += [repr(value) for value in vars(one).values()]
        parts += [repr(getattr(one, name, "")) for name in ("doc", "object", "request")]
    return "\n".join(parts)


def reported(error: BaseException) -> str:
    """The same as those report it who capture the variables of each function."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


class Hasty:
    """A clock that does not wait: back-off takes no time."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def time(self) -> float:
        return time.time() + self._ahead

    monotonic = time

    async def sleep_until(self, deadline: float) -> None:
        await anyio.lowlevel.checkpoint()
        self._ahead += max(0.0, deadline - self.time())


class Life:
    """One session from its login to its logout, whatever fails on the way."""

    def __init__(self, session: Session, witness: Witness, events: list[AuthEvent]) -> None:
        self.session = session
        self.witness = witness
        self.events = events
        self.errors: list[Error] = []

    async def live(self) -> None:
        async with self.session:
            await self._try(self.session.login)
            await self._try(lambda: self.session.call(PROJECTS, {}))
            if (token := await self._try(self.session.token)) is not None:
                self.session.reject(token.access_token)
                await self._try(self.session.headers)
            await self._try(self.session.whoami)
            await self._look_around()
            await self._try(self.session.logout)
            await self._try(self.session.headers)
            await self._look_around()

    async def _try(self, step: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await step()
        except Error as error:
            self.errors.append(error)
            return None

    async def _look_around(self) -> None:
        settings = await self.session.settings()
        leaks = {
            f"{type(one).__module__}.{type(one).__qualname__}: {' '.join(names)}"
            for one in reachable(self.session, settings, self.events, self.errors)
            if not isinstance(one, BaseException) and (names := self.witness.found_in(printed(one)))
        }
        assert not leaks
        for error in self.errors:
            self.witness.assert_absent(f"a {type(error).__name__}", told(error))
            self.witness.assert_absent(f"a reported {type(error).__name__}", reported(error))
            assert "\n" not in str(error)
            assert "\x1b" not in str(error)


def check_surroundings(
    witness: Witness,
    logs: Everything,
    spawned: list[tuple[list[str], dict[str, str]]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    for line in logs.lines:
        witness.assert_absent("a log", line)
    for url in witness.asked:
        witness.assert_absent("a URL", url)
    for argv, environ in spawned:
        # The authorization URL is made to be seen: state and nonce are in it (RFC 6749 §4.1.1).
        witness.assert_absent("arguments of a child", repr(argv), but=("state", "nonce"))
        witness.assert_absent("the environment of a child", repr(environ))
    out, err = capfd.readouterr()
    witness.assert_absent("standard output", out)
    witness.assert_absent("standard error", err, but=("state", "nonce"))


# Over HTTP, with everything that logs there: each fault that a person or a service meets.

PERSON: dict[str, Any] = {"redirect_uri": "http://127.0.0.1/callback", "token_store": "memory"}
OVER_HTTP: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "nothing wrong": ((), {}),
    "openid": ((), {"scopes": ["openid", "offline", "all"]}),
    **{
        fault: ((fault,), {})
        for fault in (
            "html-discovery",
            "login-redirect",
            "custom-header-key",
            "deny",
            "wrong-iss",
            "code-expired",
            "refresh-503",
            "refresh-503-once",
            "refresh-no-rotation-field",
            "no-refresh-token",
            "token-no-expires-in",
            "token-string-expires-in",
            "token-html",
            "huge-body",
            "always-401",
            "revoke-503",
        )
    },
    "missing-iss": (("missing-iss", "flyte1-only"), {}),
    "wrong-nonce": (("wrong-nonce",), {"scopes": ["openid", "offline", "all"]}),
    "wrong-state": (("wrong-state",), {"login_timeout": 0.5}),
}


@pytest.mark.req("SEC-01", "SEC-02", "SEC-03", "SEC-04", "COD-01", "ERR-05")
@pytest.mark.parametrize("name", OVER_HTTP)
async def test_a_login_in_the_browser_shows_no_secret(
    name: str,
    logs: Everything,
    spawned: list[tuple[list[str], dict[str, str]]],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faults, arguments = OVER_HTTP[name]
    events: list[AuthEvent] = []
    async with serving(Settings(approve="auto", faults=frozenset(faults))) as running:
        witness = Witness(running.plane)
        monkeypatch.setattr(running.plane, "handle", witness.handle)
        arguments = {**PERSON, "endpoint": running.base_url, **arguments}
        session = Session(on_event=events.append, clock=Hasty(), **arguments)
        life = Life(session, witness, events)
        await life.live()
    if "discovery" not in name and name != "login-redirect":
        assert {"state"} <= set(witness.secrets.values())
        assert any(isinstance(event, BrowserNeeded) for event in events)
        assert any("/oauth2/token" in url for url in witness.asked) or life.errors
        assert spawned
    assert logs.lines
    check_surroundings(witness, logs, spawned, capfd)


# In memory, where waiting costs nothing: polling, and a service's own secret.

IN_MEMORY: dict[str, tuple[str, tuple[str, ...]]] = {
    **{
        f"device, {fault}": ("DeviceFlow", (fault,))
        for fault in FAULTS
        if fault not in OVER_HTTP or fault in {"deny", "token-html"}
    },
    "device, a denial in colour": ("DeviceFlow", ("deny", "escape-codes")),
    **{
        f"service, {fault}": ("ClientSecret", (fault,))
        for fault in ("flyte1-only", "token-html", "huge-body", "always-401", "discovery-503")
    },
}


@pytest.mark.req("SEC-01", "SEC-02", "SEC-03", "DEV-15")
@pytest.mark.parametrize("name", IN_MEMORY)
async def test_a_device_or_a_service_shows_no_secret(
    name: str,
    logs: Everything,
    spawned: list[tuple[list[str], dict[str, str]]],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    auth_type, faults = IN_MEMORY[name]
    events: list[AuthEvent] = []
    plane = Plane(faults=set(faults))
    witness = Witness(plane.plane)
    monkeypatch.setattr(plane.plane, "handle", witness.handle)
    session = plane.session(auth_type, on_event=events.append, presenter=Terminal())
    await Life(session, witness, events).live()
    check_surroundings(witness, logs, spawned, capfd)
    if any(isinstance(event, CodeNeeded) for event in events):
        assert "device_code" in witness.secrets.values()


# What other tools have as well.


class Shared(Life):
    """The same in a keyring that several tools share."""

    async def live(self) -> None:
        session = self.session
        async with session:
            await self._try(session.login)
            if (token := await self._try(session.token)) is not None:
                session.reject(token.access_token)
                await self._try(session.headers)
            await self._try(lambda: session.export_login("flyte", "flytekit", "flytectl"))
            await self._look_around()
            await self._try(session.import_login)
            await self._try(lambda: session.import_login("flytectl"))
            await self._look_around()
            await self._try(lambda: session.logout(everywhere=True))
            await self._try(session.import_login)
            await self._look_around()


@pytest.mark.req("SEC-01", "SEC-02", "SEC-03")
@pytest.mark.parametrize("trouble", ["nothing wrong", "locked", "refused", "garbled"])
async def test_a_login_that_other_tools_share_shows_no_secret(
    trouble: str,
    logs: Everything,
    spawned: list[tuple[list[str], dict[str, str]]],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[AuthEvent] = []
    plane, ring = Plane(), OthersRing()
    witness = Witness(plane.plane)
    monkeypatch.setattr(plane.plane, "handle", witness.handle)
    found: dict[bool, Ring | StoreError] = {True: Ring(ring)}
    monkeypatch.setattr(keyring_module, "_process", keyring_module._Process(found=found))
    ring.locked = trouble == "locked"
    ring.refuses = "tokens" if trouble == "refused" else None
    if trouble == "garbled":
        for number, name in enumerate(("tokens", "access_token", "refresh_token")):
            text = f'{{"access_token": "\x1b[2J of somebody {number}'
            witness.note("of somebody", text)
            ring.items["localhost:8080", name] = text
    session = plane.session(
        on_event=events.append, presenter=Terminal(), shared_logins=["flyte", "flytekit"]
    )
    life = Shared(session, witness, events)
    await life.live()
    check_surroundings(witness, logs, spawned, capfd)
    assert {"access_token", "refresh_token"} <= set(witness.secrets.values())
    assert any(isinstance(error, StoreError) for error in life.errors) == (
        trouble in {"locked", "refused"}
    )


# Answers that are cut, doubled or garbled, with secrets in them.

MANGLED: dict[str, Mangle] = {
    "cut in half": lambda body: body[: len(body) // 2],
    "cut at the end": lambda body: body[:-1],
    "twice": lambda body: body + body,
    "a list": lambda body: b"[" + body + b"]",
    "not UTF-8": lambda body: body[:-2] + b'\xff"}',
    "another token_type": lambda body: body.replace(b"Bearer", b"Mac"),
    "a space in the token": lambda body: body.replace(b'"access_token": "', b'"access_token": " '),
    "a member twice": lambda body: body.replace(b"{", b'{"access_token": "another", ', 1),
    "an error as well": lambda body: body.replace(b"{", b'{"error": "invalid_grant", ', 1),
    "a refresh token that is none": lambda body: body.replace(
        b'"refresh_token": "', b'"refresh_token": {"is": "'
    ).replace(b'"}', b'"}}'),
    "an absurd lifetime": lambda body: body.replace(b'"expires_in": ', b'"expires_in": 1e999'),
}


@pytest.mark.req("SEC-02", "ERR-05", "ERR-07", "REF-14")
@pytest.mark.parametrize("auth_type", ["DeviceFlow", "ClientSecret"])
@pytest.mark.parametrize("name", MANGLED)
async def test_an_answer_that_cannot_be_read_is_not_shown(
    name: str,
    auth_type: str,
    logs: Everything,
    spawned: list[tuple[list[str], dict[str, str]]],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[AuthEvent] = []
    plane = Plane()
    witness = Witness(plane.plane, MANGLED[name])
    monkeypatch.setattr(plane.plane, "handle", witness.handle)
    session = plane.session(auth_type, on_event=events.append, presenter=Terminal())
    await Life(session, witness, events).live()
    check_surroundings(witness, logs, spawned, capfd)


@pytest.mark.req("SEC-02")
def test_an_exception_in_code_that_blocks_shows_no_secret_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plane = Plane()
    witness = Witness(plane.plane, MANGLED["another token_type"])
    monkeypatch.setattr(plane.plane, "handle", witness.handle)
    with SyncSession(of=plane.session("ClientSecret")) as session:
        for step in (session.login, session.token, session.headers, session.renew, session.whoami):
            with pytest.raises(Error) as caught:
                step()
            witness.assert_absent("a report", reported(caught.value))
    assert "access_token" in witness.secrets.values()


# Configuration.


@pytest.mark.req("SEC-02")
def test_a_broken_api_key_is_not_shown() -> None:
    secret = "CANARY-cs-0123456789"
    key = b64encode(f"example.com:me:{secret}:None".encode()).decode()
    for broken in (key[: len(key) // 2], key[:-3], key + "!", f"example.com:me:{secret}:None"):
        with pytest.raises(ConfigError) as caught:
            decode_api_key(broken)
        text = told(caught.value)
        assert secret not in text
        assert broken not in text


@pytest.mark.req("SEC-02")
async def test_a_secret_in_the_wrong_place_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    secret = "CANARY-cs-0123456789"
    service = {"endpoint": "localhost:1", "client_id": "me"}
    path = tmp_path / "config.yaml"
    wrong: list[dict[str, Any]] = [
        {"api_key": secret},
        {**service, "client_secret": f"{secret}\n\n"},
        {**service, "client_secret": 12345678901234567890},
        {"endpoint": f"https://me:{secret}@example.com"},
        {"endpoint": "localhost", "http_proxy_url": f"ftp://me:{secret}@proxy"},
        {"endpoint": "localhost", "redirect_uri": f"https://me:{secret}@localhost/"},
        {"endpoint": "localhost", "extra_parameters": {"token": {"client_secret": secret}}},
    ]
    for arguments in wrong:
        session = Session(**arguments)
        with pytest.raises(Error) as caught:
            await session.settings()
        text = told(caught.value)
        assert secret not in text, arguments.keys()
        assert "12345678901234567890" not in text
    for content in (
        f"admin:\n  endpoint: localhost\n  clientSecret: {secret}\n   broken: [\n",
        f"admin:\n  endpoint: localhost\n  authType: {secret}\n",
        f"admin: {secret}\n",
        f"{secret}\n",
    ):
        path.write_text(content, "utf-8")
        monkeypatch.setenv("FLYTE_API_KEY", "")
        with pytest.raises(Error) as caught:
            await Session.from_config(path).settings()
        assert secret not in told(caught.value), content


@pytest.mark.req("SEC-01")
async def test_a_session_shows_none_of_the_arguments_that_are_secret() -> None:
    secret, key = "CANARY-cs-0123456789", "CANARYapikey0123456789"
    for arguments in (
        {"issuer": "https://example.com", "client_id": "me", "client_secret": secret},
        {"api_key": key},
        {
            "endpoint": "localhost",
            "http_proxy_url": f"http://me:{secret}@proxy.example.com:1",
            "command": ["token", secret],
            "proxy_command": ["token", secret],
            "extra_parameters": {"token": {"assertion": secret}},
        },
    ):
        session = Session(**arguments)
        for one in reachable(session):
            text = printed(one)
            assert secret not in text, type(one)
            assert key not in text, type(one)


def test_this_test_sees_what_it_looks_for() -> None:
    """The net has no hole: a secret in a closure, a cause, a partial or an attribute is found."""
    secret = "CANARY-cs-0123456789"

    class Holder:
        __module__ = "flyteauth.fake"

        def __init__(self) -> None:
            self.inside = functools.partial(print, secret)

    assert any(secret in printed(one) for one in reachable([lambda: Holder, Holder()]))

    def fail() -> None:
        try:
            json.loads(f'{{"access_token": "{secret}')
        except ValueError as error:
            raise ConfigError("no") from error

    with pytest.raises(ConfigError) as caught:
        fail()
    assert secret in told(caught.value)
