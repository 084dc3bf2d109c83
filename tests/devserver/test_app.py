"""The ASGI application: limits, headers and the request log."""

from __future__ import annotations

import io
import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from flyteauth._sansio.http import Request, Response
from flyteauth.devserver.app import BODY_MAX, Application
from flyteauth.devserver.model import ControlPlane, Settings

from .harness import BASE, DEVICE_CODE, SEED, USER_INFO

pytestmark = pytest.mark.anyio

FORM = (b"content-type", b"application/x-www-form-urlencoded")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Exchange:
    """One request to an application, and what it answered."""

    def __init__(self, plane: ControlPlane | None = None) -> None:
        self.log = io.StringIO()
        self.plane = plane or ControlPlane(Settings(base_url=BASE), SEED)
        self.application = Application(self.plane, log=self.log, clock=lambda: 1234.5)
        self.sent: list[MutableMapping[str, Any]] = []

    async def __call__(
        self,
        method: str = "GET",
        path: str = "/",
        *,
        query: bytes = b"",
        headers: tuple[tuple[bytes, bytes], ...] = (),
        host: bytes = b"localhost:8080",
        body: tuple[bytes, ...] = (b"",),
        disconnects: bool = False,
    ) -> int:
        messages = [
            {"type": "http.request", "body": part, "more_body": index < len(body) - 1}
            for index, part in enumerate(body)
        ]
        if disconnects:
            messages = [{**messages[0], "more_body": True}, {"type": "http.disconnect"}]

        async def receive() -> MutableMapping[str, Any]:
            return messages.pop(0)

        async def send(message: MutableMapping[str, Any]) -> None:
            self.sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "headers": [(b"host", host), *headers],
        }
        self.sent.clear()
        await self.application(scope, receive, send)
        return int(self.sent[0]["status"]) if self.sent else 0

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.sent[0]["headers"] if key == name), None)

    @property
    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


async def test_a_request_reaches_the_model_and_its_answer_the_client() -> None:
    exchange = Exchange()
    assert await exchange(path="/oauth2/jwks") == 200
    assert exchange.header(b"content-type") == b"application/json"
    assert exchange.header(b"content-length") == str(len(exchange.body)).encode()
    assert json.loads(exchange.body)["keys"]


async def test_the_query_is_part_of_it() -> None:
    exchange = Exchange()
    assert await exchange(path="/activate", query=b"user_code=XXXX-XXXX") == 400
    assert b"XXXX-XXXX" in exchange.body


async def test_a_body_may_come_in_parts() -> None:
    exchange = Exchange()
    parts = (b"client_id=fly", b"tectl&scope=", b"all")
    status = await exchange("POST", "/oauth2/device_authorization", headers=(FORM,), body=parts)
    assert status == 200


async def test_head_has_the_length_and_no_body() -> None:
    exchange = Exchange()
    assert await exchange("HEAD", "/oauth2/jwks") == 200
    assert exchange.body == b""
    assert int(exchange.header(b"content-length") or b"") > 100


async def test_a_body_of_a_mebibyte_is_read() -> None:
    exchange = Exchange()
    body = (b"x" * (BODY_MAX - 1), b"x")
    assert await exchange("POST", "/oauth2/token", headers=(FORM,), body=body) == 400


async def test_a_larger_body_is_refused_before_it_is_read() -> None:
    exchange = Exchange()
    body = (b"x" * BODY_MAX, b"x", b"never read")
    assert await exchange("POST", "/oauth2/token", headers=(FORM,), body=body) == 413
    assert exchange.header(b"connection") == b"close"
    assert exchange.logged[0]["status"] == 413
    assert exchange.plane.journal == []


async def test_a_client_that_goes_away_gets_nothing_and_is_not_logged() -> None:
    exchange = Exchange()
    assert await exchange("POST", "/oauth2/token", disconnects=True) == 0
    assert exchange.sent == []
    assert exchange.logged == []


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"localhost:8080", 200),
        (b"127.0.0.1:1", 200),
        (b"[::1]:1", 200),
        (b"evil.example", 421),
        (b"evil.example/x?", 400),
        (b"local host", 400),
        (b"", 400),
        (b"\xff", 400),
    ],
)
async def test_the_host_header_decides_whether_it_is_meant_for_us(host: bytes, status: int) -> None:
    assert await Exchange()(path="/oauth2/jwks", host=host) == status


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://localhost:8080/oauth2/jwks", 200),
        ("http://evil.example/oauth2/jwks", 421),
        ("*", 400),
        ("//evil.example/oauth2/jwks", 404),
    ],
)
async def test_other_forms_of_a_target_are_understood(target: str, status: int) -> None:
    assert await Exchange()(path=target) == status


async def test_each_request_is_one_line_of_json() -> None:
    exchange = Exchange()
    bearer = (b"Flyte-Authorization", b"Bearer s3cret")
    form = b"grant_type=" + DEVICE_CODE.encode() + b"&client_id=flytectl&device_code=s3cret"
    await exchange(path="/activate", query=b"user_code=s3cret")
    await exchange("POST", "/oauth2/token", headers=(FORM,), body=(form,))
    await exchange("POST", USER_INFO, headers=(bearer,), body=(b"{}",))
    common = {"at": 1234.5, "grant_type": None, "credential": None}
    assert exchange.logged == [
        {**common, "method": "GET", "path": "/activate", "status": 400},
        {
            **common,
            "method": "POST",
            "path": "/oauth2/token",
            "grant_type": DEVICE_CODE,
            "status": 400,
        },
        {
            **common,
            "method": "POST",
            "path": USER_INFO,
            "status": 401,
            "credential": "flyte-authorization",
        },
    ]
    assert list(exchange.logged[0]) == [
        "at",
        "method",
        "path",
        "grant_type",
        "status",
        "credential",
    ]
    assert "s3cret" not in exchange.log.getvalue()


async def test_the_log_is_flushed_at_each_line() -> None:
    class Log(io.StringIO):
        flushed = ""

        def flush(self) -> None:
            self.flushed = self.getvalue()

    log = Log()
    exchange = Exchange()
    exchange.application = Application(exchange.plane, log=log)
    await exchange()
    assert log.flushed == log.getvalue() != ""


async def test_a_bug_in_the_model_is_a_500_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ControlPlane):
        def handle(self, request: Request, at: float) -> Response:
            raise LookupError("broken")

    exchange = Exchange(Broken(Settings(base_url=BASE), SEED))
    assert await exchange() == 500
    assert b"broken" not in exchange.body
    assert "please report this bug" in caplog.text
    assert exchange.logged[0]["status"] == 500


async def test_the_lifespan_protocol_is_answered() -> None:
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = []

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])

    await Exchange().application({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_another_protocol_is_an_error() -> None:
    async def never() -> MutableMapping[str, Any]:
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        raise AssertionError

    with pytest.raises(ValueError, match="websocket"):
        await Exchange().application({"type": "websocket"}, never, send)
