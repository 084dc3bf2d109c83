"""The control plane on real sockets: in this process, and as a command of its own."""

from __future__ import annotations

import argparse
import errno
import json
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from flyteauth.devserver import serve
from flyteauth.devserver.model import FAULTS, Settings
from flyteauth.devserver.serve import ServeError, serving

from .harness import USER_INFO

COMMAND = (
    "import argparse, sys\n"
    "from flyteauth.devserver import serve\n"
    "parser = argparse.ArgumentParser()\n"
    "serve.add_arguments(parser)\n"
    "sys.exit(serve.main(parser.parse_args()))\n"
)
DEADLINE = 20.0


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def refused(port: int, address: str = "127.0.0.1") -> bool:
    try:
        socket.create_connection((address, port), timeout=DEADLINE).close()
    except ConnectionRefusedError:
        return True
    return False


def server_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "devserver" in thread.name]


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args(arguments)


@contextmanager
def command(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The devserver as a process, and the line that it printed when it was ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            yield process, json.loads(line)
        finally:
            process.terminate()  # so that it removes what it has written
            process.wait(DEADLINE)


def ended(process: subprocess.Popen[str], number: int) -> tuple[int, str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE)
    return process.returncode, out, err


class TestServing:
    @pytest.mark.anyio
    async def test_it_answers_inside_and_is_gone_outside(self) -> None:
        async with serving(Settings(approve="auto")) as running:
            assert running.base_url == running.plane.settings.base_url
            assert running.base_url == running.plane.settings.issuer
            async with httpx.AsyncClient(base_url=running.base_url, trust_env=False) as client:
                form = {"grant_type": "client_credentials"}
                reply = await client.post(
                    "/oauth2/token", data=form, auth=running.plane.service_client
                )
                token = reply.json()["access_token"]
                headers = {"authorization": f"Bearer {token}"}
                call = await client.post(USER_INFO, json={}, headers=headers)
                assert call.json()["subject"] == "demo-ci"
        assert running.plane.count(grant_type="client_credentials", status=200) == 1
        assert refused(port_of(running.base_url))
        assert server_threads() == []

    @pytest.mark.anyio
    async def test_several_run_side_by_side(self) -> None:
        async with serving() as first, serving() as second:
            assert first.base_url != second.base_url
            assert first.api_key != second.api_key
        assert server_threads() == []

    @pytest.mark.anyio
    async def test_the_port_can_be_bound_again_at_once(self) -> None:
        async with serving() as running:
            port = port_of(running.base_url)
            async with httpx.AsyncClient(trust_env=False) as client:
                assert (await client.get(f"{running.base_url}/oauth2/jwks")).status_code == 200
        async with serving(port=port) as again:
            assert port_of(again.base_url) == port

    @pytest.mark.anyio
    async def test_whoever_is_cancelled_leaves_nothing_behind(self) -> None:
        with anyio.CancelScope() as scope:
            async with serving() as running:
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert refused(port_of(running.base_url))
        assert server_threads() == []

    @pytest.mark.anyio
    async def test_a_start_that_is_cancelled_leaves_nothing_behind(self) -> None:
        context = serving()
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with context:
                raise AssertionError
        await anyio.to_thread.run_sync(context.__exit__)
        assert not context.alive
        assert server_threads() == []

    @pytest.mark.anyio
    async def test_an_error_inside_comes_out(self) -> None:
        with pytest.raises(LookupError, match="mine"):
            async with serving():
                raise LookupError("mine")
        assert server_threads() == []

    def test_it_is_a_sync_context_too(self) -> None:
        with serving(Settings(approve="auto"), seed=b"a seed of 16 byte") as running:
            reply = httpx.get(f"{running.base_url}/oauth2/jwks", trust_env=False)
            assert reply.status_code == 200
        assert server_threads() == []
        with serving(seed=b"a seed of 16 byte") as again:
            assert again.plane.service_client == running.plane.service_client

    def test_open_connections_do_not_hold_it_up(self) -> None:
        with serving() as running:
            port = port_of(running.base_url)
            idle = socket.create_connection(("127.0.0.1", port))
            half = socket.create_connection(("127.0.0.1", port))
            half.sendall(
                b"POST /oauth2/token HTTP/1.1\r\nHost: localhost\r\ncontent-length: 9\r\n\r\n"
            )
            kept = socket.create_connection(("127.0.0.1", port))
            kept.sendall(b"GET /oauth2/jwks HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert kept.recv(12) == b"HTTP/1.1 200"
        for connection in (idle, half, kept):
            connection.close()
        assert server_threads() == []

    @needs_ipv6
    def test_both_families_answer_at_the_same_port(self) -> None:
        with serving() as running:
            port = port_of(running.base_url)
            for host in ("127.0.0.1", "[::1]", "localhost"):
                reply = httpx.get(f"http://{host}:{port}/oauth2/jwks", trust_env=False)
                assert reply.status_code == 200

    def test_another_issuer_is_kept(self) -> None:
        with serving(Settings(issuer="https://as.example")) as running:
            assert running.plane.settings.issuer == "https://as.example"

    def test_without_uvicorn_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(serve, "find_spec", lambda name: None)
        with pytest.raises(ServeError, match=r"pip install 'flyteauth\[devserver\]'"), serving():
            pass

    def test_a_server_that_cannot_start_says_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import uvicorn

        async def startup(self: object, sockets: object = None) -> None:
            raise OSError("no way")

        monkeypatch.setattr(uvicorn.Server, "startup", startup)
        with pytest.raises(ServeError, match="no way"), serving():
            pass
        assert server_threads() == []


class TestBind:
    def test_a_port_that_is_taken_is_one_line(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            port = stranger.getsockname()[1]
            with pytest.raises(ServeError, match=f"port {port}.*choose another --port") as caught:
                serve.bind(port)
        assert "\n" not in str(caught.value)

    @needs_ipv6
    def test_a_port_whose_other_family_is_taken_is_taken(self) -> None:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as stranger:
            port = stranger.getsockname()[1]
            with pytest.raises(ServeError, match=f"port {port}"):
                serve.bind(port)
            assert refused(port)

    @needs_ipv6
    def test_a_free_port_is_free_in_both_families(self, monkeypatch: pytest.MonkeyPatch) -> None:
        listener, tries = serve._listener, []

        def unlucky(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
            if family == socket.AF_INET6:
                tries.append(port)
                if len(tries) == 1:
                    raise OSError(errno.EADDRINUSE, "taken")
            return listener(family, address, port)

        monkeypatch.setattr(serve, "_listener", unlucky)
        sockets = serve.bind()
        assert {listener.getsockname()[1] for listener in sockets} == {tries[-1]}
        assert len(tries) == 2
        for listening in sockets:
            listening.close()

    def test_without_ipv6_one_family_is_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        listener = serve._listener

        def old(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "no IPv6")
            return listener(family, address, port)

        monkeypatch.setattr(serve, "_listener", old)
        (only,) = serve.bind()
        assert only.getsockname()[0] == "127.0.0.1"
        only.close()


class TestCommand:
    def test_one_line_says_where_everything_is(self) -> None:
        with command("--approve", "auto") as (process, ready):
            assert list(ready) == [
                "endpoint",
                "issuer",
                "ca_file",
                "config_file",
                "api_key",
                "pid",
            ]
            assert ready["endpoint"] == f"dns:///localhost:{port_of(ready['endpoint'])}"
            assert ready["issuer"] == f"http://localhost:{port_of(ready['issuer'])}"
            assert ready["pid"] == process.pid
            config_file = Path(ready["config_file"])
            assert stat.S_IMODE(config_file.stat().st_mode) == 0o600
            assert stat.S_IMODE(config_file.parent.stat().st_mode) == 0o700
            assert config_file.read_text() == (
                "# Written anew at each start.\n"
                f"admin:\n  endpoint: {ready['endpoint']}\n  authType: DeviceFlow\n"
                f'  caCertFilePath: "{ready["ca_file"]}"\nimage:\n  builder: local\n'
                "task:\n  project: flytesnacks\n  domain: development\n"
            )
            trust = ssl.create_default_context(cafile=ready["ca_file"])
            for name in ("localhost", "127.0.0.1"):
                url = f"https://{name}:{port_of(ready['endpoint'])}/oauth2/jwks"
                assert httpx.get(url, trust_env=False, verify=trust).status_code == 200
            reply = httpx.get(f"{ready['issuer']}/oauth2/jwks", trust_env=False)
            assert reply.status_code == 200
            status, out, err = ended(process, signal.SIGTERM)
        assert (status, out, err) == (0, "", "")
        assert not config_file.parent.exists()

    def test_the_api_key_works(self) -> None:
        from base64 import b64decode

        with command() as (_, ready):
            key = b64decode(ready["api_key"]).decode()
            endpoint, client_id, secret, org = key.rsplit(":", 3)
            assert (endpoint, client_id, org) == (ready["issuer"], "demo-ci", "None")
            reply = httpx.post(
                f"{endpoint}/oauth2/token",
                data={"grant_type": "client_credentials"},
                auth=(client_id, secret),
                trust_env=False,
            )
            assert reply.json()["token_type"] == "Bearer"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_stops_cleanly_with_a_connection_kept_open(self, number: int) -> None:
        with command() as (process, ready), httpx.Client(trust_env=False) as client:
            assert client.get(f"{ready['issuer']}/oauth2/jwks").status_code == 200
            assert ended(process, number) == (0, "", "")

    def test_it_logs_each_request(self, tmp_path: Path) -> None:
        log = tmp_path / "requests.jsonl"
        log.write_text('{"from": "before"}\n')
        with command("--log", str(log)) as (process, ready):
            httpx.get(
                f"{ready['issuer']}/me?x=1",
                headers={"authorization": "Bearer x"},
                trust_env=False,
            )
            before, line = log.read_text().splitlines()
            assert json.loads(before) == {"from": "before"}
            entry = json.loads(line)
            assert entry.pop("at") > 1.7e9
            assert entry == {
                "method": "GET",
                "path": "/me",
                "grant_type": None,
                "status": 401,
                "credential": "authorization",
            }
            assert ended(process, signal.SIGTERM)[0] == 0

    def test_junk_gets_no_line_on_stderr(self) -> None:
        with command() as (process, ready):
            with socket.create_connection(("127.0.0.1", port_of(ready["issuer"]))) as junk:
                junk.sendall(b"\x16\x03\x01\x00\xa5 not http\r\n\r\n")
                assert b"400" in junk.recv(100)
            assert ended(process, signal.SIGTERM) == (0, "", "")

    def test_a_port_that_is_taken_is_one_line_and_status_1(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            port = stranger.getsockname()[1]
            assert serve.main(parse("--port", str(port))) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert f"port {port}" in err

    def test_without_uvicorn_it_is_one_line_and_status_1(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(serve, "find_spec", lambda name: None)
        assert serve.main(parse()) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert "pip install 'flyteauth[devserver]'" in err

    def test_a_log_that_cannot_be_written_is_one_line_and_status_1(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        assert serve.main(parse("--log", str(tmp_path / "missing" / "log"))) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "missing" in err

    def test_fault_list_prints_the_names(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert serve.main(parse("--fault", "list")) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == list(FAULTS)
        assert all(line.endswith(text) for line, text in zip(lines, FAULTS.values(), strict=True))

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--fault", "nope"),
            ("--fault", "deny", "--fault", "nope\x1b[2J"),
            ("--access-ttl", "0"),
            ("--access-ttl", "nan"),
            ("--refresh-ttl", "-1"),
            ("--grace", "-1"),
            ("--device-interval", "0"),
        ],
    )
    def test_a_wrong_value_is_one_line_and_status_2(
        self, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert serve.main(parse(*arguments)) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "\x1b" not in err
        if "--fault" in arguments:
            assert all(name in err for name in FAULTS)

    @pytest.mark.parametrize("port", ["x", "-1", "65536", "\u0663", "1.0"])
    def test_a_wrong_port_is_a_usage_error(
        self, port: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as caught:
            parse("--port", port)
        assert caught.value.code == 2
        assert "is not a port" in capsys.readouterr().err

    def test_the_options_become_settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[serve.Options] = []

        def run(options: serve.Options) -> int:
            seen.append(options)
            return 0

        monkeypatch.setattr(serve, "run", run)
        assert serve.main(parse()) == 0
        arguments = (
            "--port 1234 --approve auto --access-ttl 5 --refresh-ttl 60 --no-rotate "
            "--no-reuse-detection --grace 2.5 --device-interval 3 --fault deny "
            "--fault no-device --log x"
        )
        assert serve.main(parse(*arguments.split())) == 0
        assert seen == [
            serve.Options(),
            serve.Options(
                Settings(
                    approve="auto",
                    access_ttl=5,
                    refresh_ttl=60,
                    rotate=False,
                    reuse_detection=False,
                    grace=2.5,
                    device_interval=3,
                    faults=frozenset({"deny", "no-device"}),
                ),
                port=1234,
                log=Path("x"),
            ),
        ]
        assert Settings().access_ttl == 1800
        assert (Settings().rotate, Settings().reuse_detection) == (True, True)
        assert (Settings().grace, Settings().device_interval) == (0, 1)

    def test_uvicorn_is_imported_only_when_a_server_starts(self) -> None:
        script = "import sys, flyteauth.devserver.serve; sys.exit('uvicorn' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

    def test_another_thread_may_run_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(serve.serving, "alive", False)
        statuses: list[int] = []
        monkeypatch.setattr(serve, "_TICK", 0.0)
        runner = threading.Thread(target=lambda: statuses.append(serve.run(serve.Options())))
        runner.start()
        runner.join(DEADLINE)
        assert statuses == [1]  # the server ended by itself
