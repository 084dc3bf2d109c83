"""Which way of logging in is chosen where, and why."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from flyteauth import _surroundings as module
from flyteauth._surroundings import Surroundings, choose, look_around
from flyteauth.config import resolve
from flyteauth.devserver.model import ControlPlane
from flyteauth.devserver.settings import Settings as PlaneSettings

SSH = {"SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22"}
X11 = {"DISPLAY": ":0"}


def chosen(
    environ: dict[str, str] | None = None,
    *,
    has_device: bool = True,
    platform: str = "linux",
    wsl: bool = False,
    container: bool = False,
    **arguments: Any,
) -> tuple[str, str]:
    settings = resolve({"endpoint": "localhost", **arguments}, environ=None, search=False)
    around = Surroundings(environ or {}, platform, wsl, container)
    return choose(settings, around, has_device=has_device)


@pytest.mark.parametrize(
    ("environ", "where", "why"),
    [
        (X11, {}, "this session has a display"),
        ({"WAYLAND_DISPLAY": "wayland-0"}, {}, "this session has a display"),
        ({**SSH, **X11}, {}, "this session has a display"),
        (X11, {"container": True}, "this session has a display"),
        ({}, {"platform": "darwin"}, "this is a Mac"),
        ({"JPY_PARENT_PID": "1"}, {"platform": "darwin"}, "this is a Mac"),
        ({}, {"platform": "win32"}, "this is Windows"),
        ({}, {"wsl": True}, "this is Windows, by WSL"),
        ({"BROWSER": "firefox"}, {}, "the environment variable BROWSER names one"),
        ({"BROWSER": "code-open", **SSH}, {}, "the environment variable BROWSER names one"),
        ({"BROWSER": "w3m:firefox"}, {}, "the environment variable BROWSER names one"),
    ],
)
def test_where_a_browser_can_be_opened_it_is(
    environ: dict[str, str], where: dict[str, Any], why: str
) -> None:
    for has_device in (True, False):
        assert chosen(environ, has_device=has_device, **where) == ("browser", why)


@pytest.mark.parametrize(
    ("environ", "where", "why"),
    [
        ({}, {}, "this machine has no display"),
        ({"DISPLAY": ""}, {}, "this machine has no display"),
        ({"BROWSER": "w3m"}, {}, "this machine has no display"),
        ({"BROWSER": "'"}, {}, "this machine has no display"),
        (SSH, {}, "this is an SSH session without a display"),
        ({"SSH_TTY": "/dev/pts/0"}, {}, "this is an SSH session without a display"),
        (SSH, {"platform": "darwin"}, "this is an SSH session without a display"),
        (SSH, {"wsl": True}, "this is an SSH session without a display"),
        (SSH, {"container": True}, "this is an SSH session without a display"),
        ({}, {"container": True}, "this is a container without a display"),
        ({}, {"container": True, "wsl": True}, "this is a container without a display"),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
            {},
            "this is a pod of Kubernetes without a display",
        ),
        ({"COLAB_RELEASE_TAG": "x"}, {}, "this is a notebook on Colab without a display"),
        (
            {"SAGEMAKER_APP_TYPE": "JupyterLab"},
            {"container": True},
            "this is a notebook on SageMaker without a display",
        ),
        (
            {"JUPYTERHUB_USER": "alice", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
            {},
            "this is a notebook on JupyterHub without a display",
        ),
        ({"JPY_PARENT_PID": "1"}, {}, "this is a notebook on a machine without a display"),
        (
            {"CODESPACES": "true", "BROWSER": "/vscode/browser.sh"},
            {"container": True},
            "this is a codespace without a display",
        ),
    ],
)
def test_elsewhere_it_is_a_code_if_the_server_has_that(
    environ: dict[str, str], where: dict[str, Any], why: str
) -> None:
    assert chosen(environ, **where) == ("device", why)
    method, reason = chosen(environ, has_device=False, **where)
    assert method == "browser"
    assert reason == f"the server has no device authorization, although {why}"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"auth_type": "Pkce"}, ("browser", "authType is Pkce (argument auth_type)")),
        ({"auth_type": "pkce"}, ("browser", "authType is Pkce (argument auth_type)")),
        ({"auth_type": "DeviceFlow"}, ("device", "authType is DeviceFlow (argument auth_type)")),
        ({"headless": True}, ("device", "authType is DeviceFlow (argument headless)")),
        (
            {"auth_type": "ExternalCommand", "command": ["x"]},
            ("command", "authType is ExternalCommand (argument auth_type)"),
        ),
        (
            {"client_id": "x", "client_secret": "s3cret"},
            ("secret", "there is a client secret (argument client_secret)"),
        ),
        (
            {"auth_type": "ClientSecret", "client_id": "x", "client_secret": "s3cret"},
            ("secret", "there is a client secret (argument client_secret)"),
        ),
        ({"browser_command": ["x"]}, ("browser", "a command opens one (argument browser_command)")),
    ],
)
def test_what_is_configured_is_taken_wherever_it_is(
    arguments: dict[str, Any], expected: tuple[str, str]
) -> None:
    for environ in ({}, SSH, X11):
        for has_device in (True, False):
            assert chosen(environ, has_device=has_device, **arguments) == expected


def test_what_a_file_or_the_environment_says_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("admin:\n  endpoint: localhost\n  authType: Pkce\n")
    settings = resolve({}, environ={}, path=file, search=False)
    why = f"authType is Pkce ({file}: admin.authType)"
    assert choose(settings, Surroundings(), has_device=True) == ("browser", why)
    settings = resolve({}, environ={"FLYTE_AUTH_TYPE": "DeviceFlow"}, path=file, search=False)
    why = "authType is DeviceFlow (environment variable FLYTE_AUTH_TYPE)"
    assert choose(settings, Surroundings(), has_device=True) == ("device", why)


def test_an_api_key_is_called_one() -> None:
    key = ControlPlane(PlaneSettings(), b"an unchanging seed").api_key
    settings = resolve({}, environ={"FLYTE_API_KEY": key}, search=False)
    why = "there is an API key (environment variable FLYTE_API_KEY)"
    assert choose(settings, Surroundings(), has_device=True) == ("secret", why)


@pytest.mark.parametrize(
    ("environ", "platform", "arguments", "can"),
    [
        ({}, "linux", {}, False),
        ({}, "linux", {"browser_command": ["x"]}, True),
        ({}, "linux", {"browser_command": ["lynx"]}, False),
        (X11, "linux", {}, True),
        ({"BROWSER": "x"}, "linux", {}, True),
        ({}, "darwin", {}, True),
        ({}, "win32", {}, True),
    ],
)
def test_whether_a_browser_could_be_opened(
    environ: dict[str, str], platform: str, arguments: dict[str, Any], can: bool
) -> None:
    settings = resolve({"endpoint": "localhost", **arguments}, environ=None, search=False)
    assert Surroundings(environ, platform).can_open(settings) is can


def test_a_task_is_known_by_its_environment() -> None:
    assert Surroundings({"FLYTE_INTERNAL_EXECUTION_PROJECT": "p"}).in_task
    assert Surroundings({"_UNION_EAGER_API_KEY": "k"}).in_task
    assert not Surroundings({"FLYTE_INTERNAL_EXECUTION_ID": "", "HOME": "/"}).in_task


def test_no_variable_is_shown() -> None:
    assert "canary" not in repr(Surroundings({"_UNION_EAGER_API_KEY": "canary"}))


def test_what_is_looked_at_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":7")
    around = look_around()
    assert around.environ == dict(os.environ)
    assert around.has_display


@pytest.mark.parametrize(
    ("files", "groups", "expected"),
    [
        ({"/.dockerenv"}, None, True),
        ({"/run/.containerenv"}, "0::/\n", True),
        (set(), "12:cpu:/kubepods/besteffort/pod1/2\n", True),
        (set(), "1:name=systemd:/docker/abc\n", True),
        (set(), "0::/init.scope\n", False),
        (set(), None, False),
    ],
)
def test_a_container_is_known_by_its_files_and_groups(
    monkeypatch: pytest.MonkeyPatch, files: set[str], groups: str | None, expected: bool
) -> None:
    def read_text(path: Path, **_: Any) -> str:
        if groups is None:
            raise PermissionError(path)
        return groups

    monkeypatch.setattr(Path, "exists", lambda path: str(path) in files)
    monkeypatch.setattr(Path, "read_text", read_text)
    assert module._in_container() is expected
