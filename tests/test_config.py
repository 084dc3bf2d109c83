"""Configuration: who wins, where a value came from, and one line for everything that is wrong."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import traceback
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import (
    HealthCheck,
    example,
    given,
    settings as hypothesis_settings,
    strategies as st,
)

import flyteauth.config
from flyteauth._config_file import FILE_MAX
from flyteauth._sansio.api_key import ApiKey
from flyteauth._sansio.client import ENDPOINTS, QUIRKS, Authentication
from flyteauth.config import (
    AUTH_TYPES,
    SETTINGS,
    Secret,
    Settings,
    parse_cli_auth_type,
    resolve,
)
from flyteauth.errors import ConfigError

CANARY = "c4nary"
KEY = ApiKey("key.example", "key-id", f"key-{CANARY}", "key-org").encode()
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and a home of its own that is empty, too."""
    for name in ("home", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def settle(
    file: Path | None = None, environ: Mapping[str, str] | None = None, **arguments: Any
) -> Settings:
    return resolve(arguments, environ=environ or {}, path=file, search=False)


def admin(here: Path, **keys: object) -> Path:
    """A file with these keys under admin. JSON is YAML."""
    return write(here / "c.yaml", json.dumps({"admin": keys}))


def refused(
    *names: object,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    search: bool = False,
    **arguments: Any,
) -> ConfigError:
    """The error, which is one line, names all of *names*, and holds no secret."""
    with pytest.raises(ConfigError) as caught:
        resolve(arguments, environ=environ or {}, path=file, search=search)
    message = str(caught.value)
    for name in names:
        assert str(name) in message
    assert "\n" not in message
    assert "; " in message, "says what to do"
    assert caught.value.reason
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    context = caught.value.__context__
    while context is not None:
        assert CANARY not in repr(vars(context)) + repr(context.args)
        context = context.__context__
    return caught.value


# Who wins. Each row: what is given, and what comes of it (value, source).

ENV = {"FLYTE_ADMIN_ENDPOINT": "env.example", "FLYTE_ADMIN_CLIENTID": "env-id"}
FILE = {"endpoint": "file.example", "clientId": "file-id"}


@pytest.mark.parametrize(
    ("arguments", "environ", "keys", "endpoint", "source"),
    [
        ({}, {}, {}, None, "default"),
        ({}, {}, FILE, "file.example", "{file}: admin.endpoint"),
        ({}, ENV, {}, "env.example", "environment variable FLYTE_ADMIN_ENDPOINT"),
        ({}, ENV, FILE, "env.example", "environment variable FLYTE_ADMIN_ENDPOINT"),
        ({}, {"FLYTE_ADMIN_ENDPOINT": ""}, FILE, "file.example", "{file}: admin.endpoint"),
        (
            {},
            {**ENV, "FLYTE_API_KEY": KEY},
            FILE,
            "key.example",
            "API key from environment variable FLYTE_API_KEY",
        ),
        (
            {},
            {"UNION_API_KEY": KEY},
            FILE,
            "key.example",
            "API key from environment variable UNION_API_KEY",
        ),
        (
            {},
            {"UNION_API_KEY": "broken", "FLYTE_API_KEY": KEY},
            {},
            "key.example",
            "API key from environment variable FLYTE_API_KEY",
        ),
        (
            {"api_key": KEY},
            {**ENV, "FLYTE_API_KEY": "broken"},
            FILE,
            "key.example",
            "API key from argument api_key",
        ),
        ({"endpoint": "arg.example"}, {}, {}, "arg.example", "argument endpoint"),
        ({"endpoint": "arg.example"}, ENV, FILE, "arg.example", "argument endpoint"),
        (
            {"endpoint": "https://key.example:8443", "api_key": KEY},
            ENV,
            FILE,
            "key.example:8443",
            "argument endpoint",
        ),
        (
            {"endpoint": "KEY.example"},
            {"FLYTE_API_KEY": KEY},
            FILE,
            "key.example",
            "argument endpoint",
        ),
        ({"endpoint": None}, {}, FILE, "file.example", "{file}: admin.endpoint"),
    ],
)
def test_the_endpoint_comes_from_the_strongest_source(
    here: Path,
    arguments: dict[str, object],
    environ: dict[str, str],
    keys: dict[str, object],
    endpoint: str | None,
    source: str,
) -> None:
    file = admin(here, **keys)
    settings = settle(file, environ, **arguments)
    assert (settings.endpoint and settings.endpoint.key) == endpoint
    assert settings.sources["endpoint"] == source.format(file=file)


SECRETS = {"clientId": "file-id", "clientSecretEnvVar": "S"}


@pytest.mark.parametrize(
    ("arguments", "environ", "keys", "auth_type", "client_id", "secret", "source"),
    [
        ({}, {}, {}, "Pkce", None, None, "default"),
        ({}, {}, {"authType": "DeviceFlow"}, "DeviceFlow", None, None, "{file}: admin.authType"),
        (
            {},
            {"FLYTE_AUTH_TYPE": "Pkce", "FLYTE_ADMIN_AUTHTYPE": "ClientSecret"},
            {"authType": "DeviceFlow"},
            *("Pkce", None, None, "environment variable FLYTE_AUTH_TYPE"),
        ),
        (
            {},
            {"FLYTE_ADMIN_AUTHTYPE": "Passthrough"},
            {"authType": "DeviceFlow"},
            *("Passthrough", None, None, "environment variable FLYTE_ADMIN_AUTHTYPE"),
        ),
        # A secret makes it ClientSecret …
        (
            {},
            {"S": "s"},
            {**SECRETS, "authType": "Pkce"},
            *("ClientSecret", "file-id", "s", "{file}: admin.clientSecretEnvVar"),
        ),
        # … which an authType that is said goes before, if it says the same …
        (
            {},
            {"S": "s"},
            {**SECRETS, "authType": "ClientSecret"},
            *("ClientSecret", "file-id", "s", "{file}: admin.authType"),
        ),
        (
            {},
            {"S": "s", "FLYTE_AUTH_TYPE": "ClientSecret"},
            SECRETS,
            *("ClientSecret", "file-id", "s", "environment variable FLYTE_AUTH_TYPE"),
        ),
        (
            {},
            {"FLYTE_API_KEY": KEY},
            {"authType": "ClientSecret"},
            "ClientSecret",
            "key-id",
            f"key-{CANARY}",
            "API key from environment variable FLYTE_API_KEY",
        ),
        # … but a variable that is not set is no secret …
        ({}, {}, SECRETS, "Pkce", "file-id", None, "default"),
        ({}, {"S": ""}, SECRETS, "Pkce", "file-id", None, "default"),
        # … and an argument has the last word.
        (
            {"auth_type": "Pkce"},
            {"S": "s"},
            SECRETS,
            *("Pkce", "file-id", "s", "argument auth_type"),
        ),
        (
            {"auth_type": "DeviceFlow"},
            {"FLYTE_API_KEY": KEY},
            {},
            *("DeviceFlow", None, None, "argument auth_type"),
        ),
        (
            {"client_id": "a", "client_secret": "s"},
            {"FLYTE_API_KEY": KEY, "FLYTE_AUTH_TYPE": "Pkce"},
            {},
            *("ClientSecret", "a", "s", "argument client_secret"),
        ),
        (
            {"client_id": "a"},
            {"FLYTE_API_KEY": KEY},
            {},
            *("Pkce", "a", None, "default"),
        ),
        (
            {},
            {"FLYTE_API_KEY": KEY, "FLYTE_ADMIN_CLIENTID": "env-id", "S": "s"},
            SECRETS,
            "ClientSecret",
            "key-id",
            f"key-{CANARY}",
            "API key from environment variable FLYTE_API_KEY",
        ),
        (
            {"api_key": KEY, "client_id": "a"},
            {},
            {},
            *("ClientSecret", "a", f"key-{CANARY}", "API key from argument api_key"),
        ),
        # The configuration may keep the bare secret in the API key's variable.
        (
            {},
            {"FLYTE_API_KEY": "bare"},
            {"clientId": "file-id", "clientSecretEnvVar": "FLYTE_API_KEY"},
            *("ClientSecret", "file-id", "bare", "{file}: admin.clientSecretEnvVar"),
        ),
        (
            {},
            {"UNION_API_KEY": "bare"},
            {"clientId": "file-id", "clientSecretEnvVar": "UNION_API_KEY"},
            *("ClientSecret", "file-id", "bare", "{file}: admin.clientSecretEnvVar"),
        ),
        (
            {},
            {
                "FLYTE_API_KEY": "bare",
                "FLYTE_ADMIN_CLIENTID": "env-id",
                "FLYTE_ADMIN_CLIENTSECRETENVVAR": "FLYTE_API_KEY",
            },
            {},
            "ClientSecret",
            "env-id",
            "bare",
            "environment variable FLYTE_ADMIN_CLIENTSECRETENVVAR",
        ),
        # headless is DeviceFlow: stronger than a file, an environment or a stored identity.
        (
            {"headless": True},
            {"FLYTE_API_KEY": KEY, "FLYTE_AUTH_TYPE": "Pkce"},
            {"authType": "Pkce"},
            *("DeviceFlow", None, None, "argument headless"),
        ),
        (
            {"headless": True, "auth_type": "DeviceFlow"},
            {},
            {},
            *("DeviceFlow", None, None, "argument headless"),
        ),
        (
            {"headless": True},
            {"S": "s"},
            SECRETS,
            "DeviceFlow",
            "file-id",
            "s",
            "argument headless",
        ),
        (
            {"headless": False},
            {"FLYTE_API_KEY": KEY},
            {},
            "ClientSecret",
            "key-id",
            f"key-{CANARY}",
            "API key from environment variable FLYTE_API_KEY",
        ),
        # An API key that was asked for needs no browser anyway.
        (
            {"headless": True, "api_key": KEY},
            {},
            {},
            *("ClientSecret", "key-id", f"key-{CANARY}", "API key from argument api_key"),
        ),
    ],
)
def test_who_logs_in(
    here: Path,
    arguments: dict[str, object],
    environ: dict[str, str],
    keys: dict[str, object],
    auth_type: str,
    client_id: str | None,
    secret: str | None,
    source: str,
) -> None:
    file = admin(here, **keys)
    settings = settle(file, environ, **arguments)
    assert settings.auth_type == auth_type
    assert settings.client_id == client_id
    assert (settings.client_secret and settings.client_secret.read()) == secret
    assert settings.sources["auth_type"] == source.format(file=file)
    assert settings.auth_type_given == (source != "default")


def test_an_api_key_replaces_the_identity_and_nothing_else(here: Path) -> None:
    file = write(
        here / "c.yaml",
        "admin: {endpoint: file.example, clientId: x, scopes: [a], audience: aud, quirks: "
        "[assume_bearer]}\ntask: {org: file-org, project: p, domain: d}",
    )
    settings = settle(file, {"FLYTE_API_KEY": KEY})
    assert (settings.org, settings.project, settings.domain) == ("key-org", "p", "d")
    assert (settings.scopes, settings.audience) == (("a",), "aud")
    without = ApiKey("key.example", "id", "s").encode()
    assert settle(file, {"FLYTE_API_KEY": without}).org == "file-org"


def test_the_secret_of_an_api_key_goes_nowhere_that_a_file_says(here: Path) -> None:
    """A file may lie in the directory of somebody else's project."""
    elsewhere = {"token_endpoint": "https://elsewhere.example/token"}
    file = admin(here, issuer="https://elsewhere.example", endpoints=elsewhere)
    alone = settle(file, {"FLYTE_ADMIN_ENDPOINT": "e.example"})
    assert (alone.issuer, alone.endpoints) == ("https://elsewhere.example", elsewhere)
    for arguments, environ in (({"api_key": KEY}, {}), ({}, {"FLYTE_API_KEY": KEY})):
        settings = settle(file, environ, **arguments)
        assert (settings.issuer, settings.endpoints) == (None, {})
        assert settings.overridden["endpoints"] == (f"{file}: admin.endpoints",)
    said = settle(file, {}, api_key=KEY, endpoints=elsewhere)
    assert said.endpoints == elsewhere


@pytest.mark.parametrize(
    ("at", "endpoint", "agree"),
    [
        ("key.example", "dns:///key.example:8443", True),
        ("key.example:8443", "http://Key.example", True),
        ("key.example:8443", "key.example:8443/path", True),
        ("localhost:8080", "http://127.0.0.1:8080", True),
        ("[::1]", "localhost:8080", True),
        ("key.example", "other.example", False),
        ("key.example", "key.example.org", False),
        ("key.example:8443", "key.example:9443", False),
        ("localhost:8080", "http://127.0.0.1:8081", False),
        ("localhost", "key.example", False),
    ],
)
def test_the_secret_of_an_api_key_goes_to_no_other_control_plane(
    here: Path, at: str, endpoint: str, agree: bool
) -> None:
    key = ApiKey(at, "id", CANARY).encode()
    cases: list[tuple[dict[str, Any], dict[str, str], str, str]] = [
        ({"api_key": key}, {}, "argument api_key", "use an API key of"),
        ({}, {"FLYTE_API_KEY": key}, "environment variable FLYTE_API_KEY", "or unset it"),
    ]
    for arguments, environ, source, advice in cases:
        if agree:
            settings = settle(None, environ, endpoint=endpoint, **arguments)
            assert settings.sources["endpoint"] == "argument endpoint"
            assert settings.key_warning is None
            continue
        hosts = (name_of(each) for each in (at, endpoint))
        error = refused(
            *("argument endpoint: ", *hosts, f"API key from {source}", advice),
            environ=environ,
            endpoint=endpoint,
            **arguments,
        )
        assert "leave out the endpoint" in str(error)


def name_of(text: str) -> str:
    endpoint = settle(endpoint=text).endpoint
    assert endpoint
    return endpoint.key


def test_an_endpoint_beside_a_key_that_is_not_used_is_nobody_s_business() -> None:
    other = {"endpoint": "other.example"}
    assert settle(None, {}, api_key=KEY, client_secret="s", **other).endpoint
    assert settle(None, {"FLYTE_API_KEY": KEY}, auth_type="Pkce", **other).endpoint


def test_the_words_of_our_own_command_name_no_other_control_plane_either() -> None:
    words = ["token", "--endpoint", "other.example", "--auth-type", "client-secret"]
    environ = {
        "FLYTE_AUTH_TYPE": "ExternalCommand",
        "FLYTE_AUTH_COMMAND": json.dumps(["flyteauth", *words]),
        "FLYTE_API_KEY": KEY,
    }
    refused(*("FLYTE_AUTH_COMMAND", "other.example", "key.example"), environ=environ)


@pytest.mark.parametrize(
    ("environ", "keys", "named"),
    [
        ({}, {"endpoint": "other.example"}, "other.example ({file}: admin.endpoint)"),
        (ENV, {}, "env.example (environment variable FLYTE_ADMIN_ENDPOINT)"),
        (ENV, {"endpoint": "key.example"}, "env.example (environment variable"),
        ({"FLYTE_ADMIN_ENDPOINT": "key.example"}, {"endpoint": "other.example"}, ""),
        ({}, {"endpoint": "https://key.example:8443"}, ""),
        ({}, {"endpoint": "htp://"}, ""),
        ({}, {}, ""),
    ],
)
def test_a_key_that_goes_before_another_control_plane_warns_of_it(
    here: Path, environ: dict[str, str], keys: dict[str, object], named: str
) -> None:
    file = admin(here, **keys)
    settings = settle(file, {**environ, "FLYTE_API_KEY": KEY})
    assert settings.endpoint
    assert settings.endpoint.key == "key.example"
    assert named.format(file=file) in (settings.key_warning or "")
    assert bool(named) == (settings.key_warning is not None)


def test_what_lost_is_remembered(here: Path) -> None:
    file = admin(here, **SECRETS, endpoint="f", authType="Pkce")
    settings = settle(file, {**ENV, "S": "s", "FLYTE_API_KEY": KEY}, endpoint="key.example")
    assert settings.overridden == {
        "endpoint": (
            "API key from environment variable FLYTE_API_KEY",
            "environment variable FLYTE_ADMIN_ENDPOINT",
            f"{file}: admin.endpoint",
        ),
        "client_id": ("environment variable FLYTE_ADMIN_CLIENTID", f"{file}: admin.clientId"),
        "client_secret": (f"{file}: admin.clientSecretEnvVar",),
        "auth_type": (f"{file}: admin.authType",),
    }


def test_a_value_that_lost_is_not_judged(here: Path) -> None:
    file = admin(here, endpoint="htp://", insecure="perhaps", clientSecretEnvVar="not a name")
    settings = settle(file, endpoint="h", insecure=False, client_id="a", client_secret="s")
    assert settings.endpoint
    assert settings.endpoint.url == "https://h"


def test_nothing_comes_from_the_environment_unless_it_is_given(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here / "other.yaml", "admin: {endpoint: x}")
    for name, value in {**ENV, "FLYTE_API_KEY": KEY, "UCTL_CONFIG": "other.yaml"}.items():
        monkeypatch.setenv(name, value)
    settings = resolve({}, environ=None, search=True)
    assert set(settings.sources.values()) == {"default"}
    assert settings.config_file is None
    # What the file itself names is the file's word.
    monkeypatch.setenv("S", "s")
    settings = resolve({}, environ=None, path=admin(here, **SECRETS), search=False)
    assert settings.client_secret
    assert settings.client_secret.read() == "s"


# Each setting, from a file, the environment and an argument.

CASES: list[tuple[str, object, str, object]] = [
    ("issuer", "https://as.example/t", "https://as.example/t", "https://as.example/t"),
    ("issuer", "http://localhost:8080", "http://localhost:8080", "http://localhost:8080"),
    ("auth_type", "Passthrough", "Passthrough", "Passthrough"),
    ("client_id", "id", " id\n", "id"),
    ("client_auth", "basic", "client_secret_basic", "client_secret_basic"),
    ("client_auth", "basic_raw", "client_secret_basic_raw", "client_secret_basic_raw"),
    ("client_auth", "client_secret_post", "post", "client_secret_post"),
    ("client_auth", "none", "none", "none"),
    ("scopes", ["openid", "a:b"], "openid a:b", ("openid", "a:b")),
    ("scopes", "openid, a:b", "openid,a:b", ("openid", "a:b")),
    ("scopes", '["a,b"]', '["a,b"]', ("a,b",)),
    ("audience", "https://flyte", "https://flyte", "https://flyte"),
    ("redirect_uri", "http://localhost:53593/callback", "http://localhost:53593/callback", ...),
    ("redirect_uri", "http://[::1]/c?x=1", "http://[::1]/c?x=1", ...),
    (
        "endpoints",
        {"token_endpoint": "https://as.example/t"},
        '{"token_endpoint": "https://as.example/t"}',
        ...,
    ),
    (
        "extra_parameters",
        {"prompt": "login"},
        '{"prompt": "login"}',
        {"authorization": {"prompt": "login"}},
    ),
    (
        "extra_parameters",
        {"token": {"resource": "x"}, "device_authorization": {"a": "b"}},
        '{"token": {"resource": "x"}, "device_authorization": {"a": "b"}}',
        ...,
    ),
    ("callback_bind", "0.0.0.0:53593", "0.0.0.0:53593", ("0.0.0.0", 53593)),
    ("callback_bind", "[::]:1", " [::]:1 ", ("::", 1)),
    ("callback_bind", "::1", "::1", ("::1", None)),
    ("browser_command", ["open", "a b"], '["open", "a b"]', ("open", "a b")),
    (
        "browser_command",
        "firefox --new '{url}'",
        "firefox --new {url}",
        ("firefox", "--new", "{url}"),
    ),
    ("quirks", ["assume_bearer"], "assume_bearer", frozenset({"assume_bearer"})),
    ("quirks", list(QUIRKS), ",".join(QUIRKS), frozenset(QUIRKS)),
    ("insecure", True, "TRUE", True),
    ("insecure", False, "false", False),
    ("insecure_skip_verify", "yes", "1", True),
    ("allow_insecure_credentials", 1, "on", True),
    ("verify_issuer", True, "Yes", True),
    ("disable_keyring", 0, "no", False),
    ("http_proxy_url", "http://u:p@proxy:3128", "http://u:p@proxy:3128", ...),
    ("token_store", "memory", "memory", "memory"),
    ("token_store", "file", "file", "file"),
    ("token_store", "keyring", "keyring", "keyring"),
    ("token_store", "rediss://u:p@cache:6380/1", "rediss://u:p@cache:6380/1", ...),
    ("token_store", "redis+unix:///run/redis.sock", "redis+unix:///run/redis.sock", ...),
    ("command_timeout", 5, "5", 5.0),
    ("auth_type", "NoAuth", "NoAuth", "NoAuth"),
    ("account", "work", "work", "work"),
    ("command", ["uctl", "get token"], '["uctl", "get token"]', ("uctl", "get token")),
    ("command", "uctl 'get token'", "uctl 'get token'", ("uctl", "get token")),
    ("proxy_command", ["iap"], "iap", ("iap",)),
    ("shared_logins", ["flyte", "flytekit"], "flyte, flytekit", ("flyte", "flytekit")),
    ("shared_logins", ["flytectl", "flytectl"], '["flytectl"]', ("flytectl",)),
    ("login_timeout", 60, "60", 60.0),
    ("login_timeout", 0.5, " .5 ", 0.5),
    ("org", "acme", "acme", "acme"),
    ("project", "flytesnacks", "flytesnacks", "flytesnacks"),
    ("domain", "development", "development", "development"),
]


@pytest.mark.parametrize(("name", "value", "text", "expected"), CASES)
def test_a_setting_is_the_same_from_everywhere(
    here: Path, name: str, value: object, text: str, expected: object
) -> None:
    expected = value if expected is ... else expected
    setting = next(s for s in SETTINGS if s.name == name)
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in setting.key)
    for key in (setting.key, snake.replace("_u_r_l", "_url")):
        file = write(here / "c.yaml", json.dumps({setting.section: {key: value}}))
        settings = settle(file)
        assert getattr(settings, name) == expected
        assert settings.sources[name] == f"{file}: {setting.section}.{setting.key}"
        assert settings.config_file == file
    for variable in setting.variables:
        settings = settle(None, {variable: text})
        assert getattr(settings, name) == expected
        assert settings.sources[name] == f"environment variable {variable}"
    for argument in (value, text):
        settings = resolve({name: argument}, environ=None, search=False)
        assert getattr(settings, name) == expected
        assert settings.sources[name] == f"argument {name}"


def test_every_setting_is_in_that_table() -> None:
    elsewhere = {"endpoint", "ca_file", "client_secret_location", "client_secret_env_var"}
    assert {s.name for s in SETTINGS} == {case[0] for case in CASES} | elsewhere


def test_every_setting_is_a_field_and_is_documented() -> None:
    names = set(Settings.__match_args__)
    apart = {"config_file", "config_named", "sources", "overridden", "considered"}
    apart |= {"auth_type_given", "key_warning", "unknown_keys"}
    settings = settle()
    assert set(settings.sources) == names - apart
    assert flyteauth.config.__doc__
    for setting in SETTINGS:
        assert f"{setting.section}.{setting.key}" in flyteauth.config.__doc__
        assert setting.also in flyteauth.config.__doc__
    for word in (*AUTH_TYPES, *ENDPOINTS, *QUIRKS, "FLYTE_API_KEY", "UNION_API_KEY"):
        assert word in flyteauth.config.__doc__


def test_variables_are_named_after_keys() -> None:
    variables = {variable for setting in SETTINGS for variable in setting.variables}
    expected = (
        "FLYTE_ADMIN_ENDPOINT FLYTE_ADMIN_INSECURE FLYTE_ADMIN_INSECURESKIPVERIFY "
        "FLYTE_ADMIN_DISABLEKEYRING FLYTE_ADMIN_CACERTFILEPATH FLYTE_AUTH_TYPE "
        "FLYTE_ADMIN_AUTHTYPE FLYTE_AUTH_COMMAND FLYTE_ADMIN_COMMAND FLYTE_AUTH_PROXY_COMMAND "
        "FLYTE_ADMIN_PROXYCOMMAND FLYTE_ADMIN_CLIENTID FLYTE_ADMIN_CLIENTSECRETLOCATION "
        "FLYTE_ADMIN_CLIENTSECRETENVVAR FLYTE_ADMIN_SCOPES FLYTE_ADMIN_HTTPPROXYURL "
        "FLYTE_TASK_ORG FLYTE_TASK_PROJECT FLYTE_TASK_DOMAIN FLYTE_ADMIN_TOKENSTORE"
    )
    assert set(expected.split()) <= variables


def test_arguments_may_be_python_values(here: Path) -> None:
    pem = write(here / "ca.pem", PEM)
    settings = settle(
        ca_cert_file_path=pem,
        scopes=(),
        quirks={"assume_bearer"},
        command=("a", "b"),
        client_id="id",
        client_credentials_secret="s",
        login_timeout=1,
    )
    assert settings.ca_file == pem
    assert settings.scopes == ()
    assert settings.command == ("a", "b")
    assert settings.client_secret == Secret("value", "argument client_credentials_secret", "s")
    assert settle(ca_file=str(pem)).ca_file == pem
    secret = Secret("value", "somewhere", "s")
    assert settle(client_id="id", client_secret=secret).client_secret is secret


def test_null_and_empty_in_a_file_are_not_there(here: Path) -> None:
    file = admin(
        here, endpoint="", clientId=None, scopes=[], command=[], authType=None, endpoints={}
    )
    assert set(settle(file).sources.values()) == {"default"}
    assert set(settle(write(here / "d.yaml", "admin:\ntask:\n")).sources.values()) == {"default"}
    assert set(settle(write(here / "d.yaml", "")).sources.values()) == {"default"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"endpont": "x"},
        {"client_secret_location": "/x"},
        {"client_secret": "a", "client_credentials_secret": "b"},
    ],
)
def test_an_argument_that_does_not_exist_is_a_type_error(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        settle(**arguments)


def test_the_users_own_documents(here: Path) -> None:
    secret = write(here / "secret.txt", f"{CANARY}\n")
    service = (
        "admin:\n  endpoint: dns:///acme.hosted.example\n  insecure: false\n"
        "  authType: ClientSecret\n  clientId: me\n  {}\nlogger:\n  show-source: true\n  level: 0\n"
    )
    for line, environ in (
        (f"clientSecretLocation: {secret}", {}),
        ("clientSecretEnvVar: UNION_API_KEY", {"UNION_API_KEY": CANARY}),
        ("clientSecretEnvVar: FLYTE_API_KEY", {"FLYTE_API_KEY": CANARY}),
    ):
        settings = settle(write(here / "c.yaml", service.format(line)), environ)
        assert settings.endpoint
        assert settings.endpoint.url == "https://acme.hosted.example"
        assert (settings.auth_type, settings.client_id) == ("ClientSecret", "me")
        assert settings.client_secret
        assert settings.client_secret.read() == CANARY
    device = "admin:\n  authType: DeviceFlow\n  endpoint: dns:///your-endpoint.hosted.example\n"
    assert settle(write(here / "c.yaml", device)).auth_type == "DeviceFlow"
    assert settle(endpoint="dns:///your-union-endpoint", headless=True).auth_type == "DeviceFlow"
    union = write(here.parent / "home" / ".union" / "config.yaml", device)
    assert resolve({}, environ={}, search=True).config_file == union
    mine = write(here.parent / "home" / ".my" / "my.yaml", device)
    for variable in ("UCTL_CONFIG", "UNION_CONFIG", "FLYTECTL_CONFIG"):
        environ = {variable: "~/.my/my.yaml", "HOME": str(here.parent / "home")}
        assert resolve({}, environ=environ, search=True).config_file == mine
    assert resolve({}, environ={}, path="~/.my/my.yaml", search=False).config_file == mine


# The search.


def test_the_first_file_wins_and_the_search_is_told(here: Path) -> None:
    root, home = here, here.parent / "home"
    deep = root / "a" / "b"
    write(root / ".git", "gitdir: elsewhere")  # a worktree has a file here
    deep.mkdir(parents=True)
    os.chdir(deep)
    text = "admin: {endpoint: x}"
    environ = {"UCTL_CONFIG": "u.yaml", "UNION_CONFIG": "n.yaml", "FLYTECTL_CONFIG": "f.yaml"}
    order = [
        (home / ".flyte" / "config.yaml", ()),
        (home / ".union" / "config.yaml", ()),
        (deep / "f.yaml", ("FLYTECTL_CONFIG",)),
        (deep / "n.yaml", ("FLYTECTL_CONFIG", "UNION_CONFIG")),
        (deep / "u.yaml", ("FLYTECTL_CONFIG", "UNION_CONFIG", "UCTL_CONFIG")),
        (root / ".flyte" / "config.yaml", tuple(environ)),
        (deep / ".flyte" / "config.yaml", tuple(environ)),
        (deep / "config.yaml", tuple(environ)),
    ]
    for file, names in order:
        write(file, text)
        settings = resolve({}, environ={n: environ[n] for n in names}, search=True)
        assert settings.config_file == file
        assert settings.considered[-1].startswith(str(file))
        assert settings.considered[-1].endswith(": used")
    settings = resolve({}, environ={}, search=True)
    assert settings.considered == (f"{deep / 'config.yaml'}: used",)


def test_without_any_file_the_search_says_where_it_looked(here: Path) -> None:
    home = here.parent / "home"
    settings = resolve({}, environ=ENV, search=True)
    assert settings.considered == (
        f"{here / 'config.yaml'}: not there",
        f"{here / '.flyte' / 'config.yaml'}: not there",
        f"{home / '.union' / 'config.yaml'}: not there",
        f"{home / '.flyte' / 'config.yaml'}: not there",
    )
    assert settings.config_file is None
    assert settings.client_id == "env-id"  # the environment needs no file


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 1",
        "[1, 2]",
        "just text",
        "name: {{ template }}\n  - broken",
        "---\nkind: A\n---\nkind: B\n",
        "admin: someone",
        b"\xff\xfe\x00",
        b"x" * (FILE_MAX + 1),
    ],
)
def test_a_strangers_config_yaml_is_passed_over(here: Path, text: str | bytes) -> None:
    write(here / "config.yaml", text)
    mine = write(here / ".flyte" / "config.yaml", "admin: {endpoint: x}")
    settings = resolve({}, environ={}, search=True)
    assert settings.config_file == mine
    assert settings.considered[0] == (
        f"{here / 'config.yaml'}: passed over, nothing in it is Flyte's"
    )


@pytest.mark.parametrize("section", "admin task image local logger console".split())
def test_a_config_yaml_with_a_section_of_flytes_is_used(here: Path, section: str) -> None:
    file = write(here / "config.yaml", f"{section}: {{a: b}}")
    assert resolve({}, environ={}, search=True).config_file == file


def test_a_broken_config_yaml_of_ours_is_not_passed_over(here: Path) -> None:
    file = write(here / "config.yaml", f"admin:\n  endpoint: x\n clientId: {CANARY}\n")
    refused(file, "line 3", search=True)


def test_a_variable_that_names_no_file_is_an_error(here: Path) -> None:
    for variable in ("UCTL_CONFIG", "UNION_CONFIG", "FLYTECTL_CONFIG"):
        refused(variable, here / "gone.yaml", environ={variable: "gone.yaml"}, search=True)
    refused("UCTL_CONFIG", environ={"UCTL_CONFIG": "a\0b"}, search=True)


def test_a_directory_that_was_removed_is_no_reason_to_fail(here: Path) -> None:
    gone = here / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    mine = write(here.parent / "home" / ".flyte" / "config.yaml", "admin: {endpoint: x}")
    assert resolve({}, environ={}, search=True).config_file == mine
    refused("argument ca_file", ca_file="relative.pem")


# Bad files.


@pytest.mark.req("SEC-02")
@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f"admin:\n  clientId: {CANARY}\n endpoint: x", ["line 3, column 2", "not YAML"]),
        (f"admin: {{endpoint: '{CANARY}", ["line 1", "not YAML"]),
        (f"admin:\n\tendpoint: {CANARY}", ["line 2, column 1", "not YAML"]),
        (f"admin: *{CANARY}", ["line 1, column 8", "not YAML"]),
        (f"admin: !{CANARY} x", ["line 1, column 8", "not YAML"]),
        (f"admin: {CANARY}\x00", ["line 1, column 14", "character"]),
        (b"admin:\n  a: \xff" + CANARY.encode(), ["line 2, column 6", "UTF-8"]),
        (b"\xef\xbb\xbfadmin: \xc3\xbc\xff", ["line 1, column 9", "UTF-8"]),
        ("admin: 2020-99-99", ["YAML"]),
        ("admin: !!int x", ["YAML"]),
        ("admin: !!bool x", ["YAML"]),
        ("admin: !!timestamp x", ["YAML"]),
        ("[" * 5000, ["YAML"]),
        (f"admin: {{}}\nadmin: {{x: {CANARY}}}", ["line 2, column 1", "twice"]),
        (f"admin: {{a: {CANARY}, a: b}}", ["line 1", "twice"]),
        (f"- {CANARY}", ["mapping of sections"]),
        (CANARY, ["mapping of sections"]),
        (f"a: {CANARY}\n---\nb: c", ["line 2", "not YAML"]),
        (f"admin: {CANARY}", ["admin is not a mapping"]),
        ("admin: [a]", ["admin is not a mapping"]),
        ("task: 3", ["task is not a mapping"]),
        (f"admin: {{clientId: a, client_id: {CANARY}}}", ["admin.clientId", "twice"]),
        ("a: &a {x: y}\nb: [" + "*a, " * 33 + "]", ["aliases"]),
        (b"#" * (FILE_MAX + 1), [f"larger than {FILE_MAX} bytes"]),
    ],
)
def test_a_bad_file_is_one_line(here: Path, text: str | bytes, names: list[str]) -> None:
    file = write(here / "c.yaml", text)
    refused(file, *names, file=file)


def test_aliases_and_merges_are_fine_where_they_end(here: Path) -> None:
    file = write(
        here / "c.yaml",
        "x: &x {endpoint: h, clientId: a}\nadmin: {<<: *x, <<: *x, clientId: b}\n",
    )
    assert settle(file).client_id == "b"


def test_merged_aliases_cannot_fill_the_memory(here: Path) -> None:
    many = ", ".join(["*a"] * 1000)
    bomb = f"a: &a {{x: y}}\nb: &a {{<<: [{many}]}}\nc: &a {{<<: [{many}]}}\nd: {{<<: [{many}]}}"
    refused("aliases", file=write(here / "c.yaml", bomb))


def test_a_file_that_cannot_be_read_is_one_line(here: Path) -> None:
    refused(here / "gone.yaml", "no such file", file=here / "gone.yaml")
    refused(here, file=here)
    refused("a\\x00b", file=Path("a\0b"))
    (here / "config.yaml").symlink_to("/proc/self/mem")
    if (here / "config.yaml").is_file():
        refused(here / "config.yaml", search=True)


# Bad values: each says where it is and what to write.

BAD: list[tuple[str, object, str]] = [
    ("endpoint", f"https//{CANARY}", "dns:///flyte.example.com"),
    ("endpoint", 3, "in quotes"),
    ("issuer", "as.example", "https://login.example.com/tenant"),
    ("authType", "pkce", "write Pkce"),
    ("authType", "PKCE", "write Pkce"),
    ("authType", "headless", "write DeviceFlow"),
    ("authType", "deviceflow", "write DeviceFlow"),
    ("authType", "client_secret", "write ClientSecret"),
    ("authType", "custom", "write ExternalCommand"),
    ("authType", f"x{CANARY}", "ClientSecret, ExternalCommand, Passthrough or NoAuth"),
    ("authType", ["Pkce"], "in quotes"),
    ("clientId", 12, "in quotes"),
    ("clientId", f"a\n{CANARY}", "plain text"),
    ("clientId", "  ", "leave it out"),
    ("clientSecretLocation", 12, "in quotes"),
    ("clientSecretEnvVar", f"{CANARY}=", "write the name"),
    ("clientSecretEnvVar", [CANARY], "in quotes"),
    ("clientAuth", f"digest{CANARY}", "basic"),
    ("scopes", {"a": CANARY}, "write it as a list"),
    ("scopes", ["a", 3], "write it as a list"),
    ("scopes", f"[{CANARY}", "write it as a list"),
    ("scopes", " , ", "leave it out"),
    ("audience", True, "in quotes"),
    ("endpoints", [CANARY], "names and values"),
    ("endpoints", {"tokenEndpoint": f"https://{CANARY}"}, "token_endpoint"),
    ("endpoints", {"token_endpoint": 3}, "https://login.example.com/token"),
    ("endpoints", CANARY, "names and values"),
    ("extraParameters", {"tokens": {"a": CANARY}}, "authorization, device_authorization or token"),
    ("extraParameters", {"a": "b", "token": {"a": CANARY}}, "device_authorization"),
    ("extraParameters", {"token": {"a": 3}}, "in quotes"),
    ("extraParameters", CANARY, "names and values"),
    ("quirks", ["assume_basic"], "assume_bearer or any_token_alphabet"),
    ("sharedLogins", ["flyte", "kubectl"], "write flyte, flytekit or flytectl"),
    ("insecure", "maybe", "write true or false"),
    ("insecure", 2, "write true or false"),
    ("insecure", [True], "write true or false"),
    ("insecureSkipVerify", "", ""),
    ("caCertFilePath", "/gone/ca.pem", "PEM"),
    ("httpProxyURL", f"proxy:{CANARY}", "http://proxy:3128"),
    ("httpProxyURL", f"ftp://u:{CANARY}@proxy", "http://proxy:3128"),
    ("httpProxyURL", f"http://u:{CANARY}@proxy:x", "http://proxy:3128"),
    ("httpProxyURL", f"http://u:{CANARY} @proxy", "http://proxy:3128"),
    ("tokenStore", "keychain", "write keyring, file, memory or redis://host:6379/0"),
    ("tokenStore", f"https://u:{CANARY}@host", "write keyring, file, memory or redis://"),
    ("tokenStore", f"redis://u:{CANARY}@host:port", "write keyring, file, memory or redis://"),
    ("command", f"uctl '{CANARY}", "as a list"),
    ("command", ["uctl", 3], "as a list"),
    ("command", " ", "as a list"),
    ("command", [f"{CANARY}\0"], "as a list"),
    ("proxyCommand", {"a": CANARY}, "as a list"),
    ("loginTimeout", 0, "write it like 300"),
    ("loginTimeout", -1, "write it like 300"),
    ("loginTimeout", "5m", "write it like 300"),
    ("loginTimeout", "nan", "write it like 300"),
    ("loginTimeout", "inf", "write it like 300"),
    ("loginTimeout", 10**400, "write it like 300"),
    ("loginTimeout", True, "write it like 300"),
    ("loginTimeout", [3], "write it like 300"),
]


@pytest.mark.req("SEC-02")
@pytest.mark.parametrize(("key", "value", "advice"), [row for row in BAD if row[2]])
def test_a_bad_value_names_file_key_and_what_to_write(
    here: Path, key: str, value: object, advice: str
) -> None:
    file = admin(here, **{key: value})
    refused(f"{file}: admin.{key}", advice, file=file)
    if isinstance(value, str):
        variable = next(s for s in SETTINGS if s.key == key).variables[0]
        refused(f"environment variable {variable}", advice, environ={variable: value})


@pytest.mark.parametrize("key", ["org", "project", "domain"])
def test_a_bad_value_in_another_section(here: Path, key: str) -> None:
    file = write(here / "c.yaml", f"task: {{{key}: 127}}")
    refused(f"{file}: task.{key}", "in quotes", file=file)


@pytest.mark.req("META-01")
@pytest.mark.parametrize(
    "url",
    [
        "http://as.example",
        "https://as.example?x=1",
        "https://as.example?",
        "https://as.example#f",
        "https://as.example#",
        "https://user@as.example",
        "https://",
        "https:///t",
        "//as.example",
        "ftp://as.example",
        "https://as.example:x",
        "https://as example",
        "https://\u00e4s.example",
    ],
)
def test_an_issuer_is_an_https_url_without_company(url: str) -> None:
    refused("argument issuer", issuer=url)


@pytest.mark.req("META-15")
@pytest.mark.parametrize(
    "url",
    [
        "http://0.0.0.0:53593/cb",
        "http://evil.example/cb",
        "http://127.0.0.2/cb",
        "https://localhost:53593/cb",
        "http://u@localhost:53593/cb",
        "http://localhost:53593/cb#f",
        "localhost:53593",
        "http://localhost.evil.example/cb",
    ],
)
def test_a_redirect_uri_is_of_this_machine(url: str) -> None:
    error = refused("argument redirect_uri", redirect_uri=url)
    assert error.reason == "redirect_uri"


@pytest.mark.req("META-02")
@pytest.mark.parametrize("name", ENDPOINTS)
@pytest.mark.parametrize(
    "url", ["http://as.example/t", "https://as.example/t#f", "https://u@as.example/t", "x"]
)
def test_no_endpoint_may_be_insecure(name: str, url: str) -> None:
    refused("argument endpoints", name, endpoints={name: url})
    assert settle(endpoints={name: "http://127.0.0.1:8080/t"}).endpoints[name]


@pytest.mark.req("AZR-17")
@pytest.mark.parametrize(
    "scopes", [["a b"], ['x"y'], ["a\\b"], [""], ["\u00e4"], '["a b"]', "'a'\u00e4"]
)
def test_scopes_are_sent_as_they_are_or_not_at_all(here: Path, scopes: object) -> None:
    refused("argument scopes", "list", scopes=scopes)
    file = admin(here, scopes=scopes)
    refused(f"{file}: admin.scopes", "list", file=file)


@pytest.mark.req("AZR-03")
@pytest.mark.parametrize(
    "name", ["state", "client_secret", "redirect_uri", "code_challenge", "scope"]
)
def test_extra_parameters_cannot_take_over_the_protocol(name: str) -> None:
    for value in ({name: "x"}, {"token": {name: "x"}}):
        refused("argument extra_parameters", f"remove {name}", extra_parameters=value)


# Endpoint and TLS.


@pytest.mark.req("BRR-02")
def test_insecure_names_who_said_so(here: Path) -> None:
    file = admin(here, insecure=True)
    error = refused(
        "argument endpoint",
        f"{file}: admin.insecure",
        "allowInsecureCredentials",
        file=file,
        endpoint="h.example",
    )
    assert error.reason == "insecure"
    settings = settle(file, endpoint="h.example", allow_insecure_credentials=True)
    assert settings.endpoint
    assert settings.endpoint.url == "http://h.example"
    assert settings.endpoint.warning
    settings = settle(file, {"FLYTE_ADMIN_INSECURE": "false"}, endpoint="h.example")
    assert settings.endpoint
    assert settings.endpoint.url == "https://h.example"
    settings = settle(file, endpoint="localhost:8089")
    assert settings.endpoint
    assert settings.endpoint.url == "http://localhost:8089"


def test_a_ca_file_must_hold_certificates(here: Path) -> None:
    pem = write(here / "ca.pem", f"# ours\n{PEM}")
    assert settle(admin(here, caCertFilePath="ca.pem")).ca_file == pem
    assert settle(None, {"FLYTE_ADMIN_CACERTFILEPATH": str(pem)}).ca_file == pem
    write(here.parent / "home" / "ca.pem", PEM)
    assert settle(ca_file="~/ca.pem").ca_file == here.parent / "home" / "ca.pem"
    empty = write(here / "empty.pem", "")
    for file, problem in (
        (empty, "holds no certificate"),
        (here, "cannot be read"),
        (here / "gone.pem", "no such file"),
    ):
        path = admin(here, caCertFilePath=str(file))
        refused(f"{path}: admin.caCertFilePath", file, problem, file=path)
        refused("argument ca_cert_file_path", file, ca_cert_file_path=str(file))


def test_no_server_is_an_error_when_one_is_needed(here: Path) -> None:
    for settings, where in (
        (settle(), "a config.yaml"),
        (settle(file := admin(here, clientId="x")), str(file)),
    ):
        with pytest.raises(ConfigError) as caught:
            settings.require_server()
        assert "FLYTE_ADMIN_ENDPOINT" in str(caught.value)
        assert where in str(caught.value)
        assert "\n" not in str(caught.value)
    settle(endpoint="h").require_server()
    settle(issuer="https://as.example").require_server()


# Secrets.


@pytest.mark.req("CCG-08")
@pytest.mark.parametrize(
    ("held", "secret"),
    [
        (b"s3", "s3"),
        (b"s3\n", "s3"),
        (b"s3\r\n", "s3"),
        (b" s 3+/%& \n", " s 3+/%& "),
        ("\ufeffgrün\n".encode(), "grün"),
    ],
)
def test_a_secret_is_read_anew_without_one_line_break(here: Path, held: bytes, secret: str) -> None:
    file = write(here / "secret", held)
    config = admin(here, clientId="a", clientSecretLocation="secret")
    place = settle(config).client_secret
    assert place
    assert place.read() == secret
    assert place.source == f"{config}: admin.clientSecretLocation"
    write(file, "rotated")
    assert place.read() == "rotated"
    environ = {"S": held.decode("utf-8-sig")}
    place = settle(admin(here, clientId="a", clientSecretEnvVar="S"), environ).client_secret
    assert place
    assert place.read() == secret
    environ["S"] = "rotated\n"
    assert place.read() == "rotated"


def test_the_environment_variable_beats_the_file_if_it_is_set(here: Path) -> None:
    write(here / "secret", "file")
    config = admin(here, clientId="a", clientSecretLocation="secret", clientSecretEnvVar="S")
    for environ, secret in (({"S": "env"}, "env"), ({}, "file"), ({"S": ""}, "file")):
        place = settle(config, environ).client_secret
        assert place
        assert place.read() == secret
    # The environment's own word on the place beats the file's.
    write(here / "other", "other")
    environ = {"FLYTE_ADMIN_CLIENTSECRETLOCATION": str(here / "other"), "S": "env"}
    place = settle(config, environ).client_secret
    assert place
    assert place.read() == "other"


@pytest.mark.req("SEC-02")
@pytest.mark.parametrize(
    ("held", "problem"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (CANARY.encode() + b"\n\n", "line break"),
        (CANARY.encode() + b"\r", "line break"),
        (b"\n" + CANARY.encode(), "line break"),
        (b"a\nb" + CANARY.encode(), "line break"),
        (CANARY.encode() + b"\0", "control character"),
        (CANARY.encode() + b"\xff", "UTF-8"),
        (CANARY.encode() * 20000, "larger"),
    ],
)
def test_a_bad_secret_is_named_by_its_place_only(here: Path, held: bytes, problem: str) -> None:
    file = write(here / "secret", held)
    config = admin(here, clientId="a", clientSecretLocation=str(file))
    refused(f"{config}: admin.clientSecretLocation", file, problem, file=config)
    text = held.decode("utf-8", "surrogateescape")
    if text and "larger" not in problem:
        config = admin(here, clientId="a", clientSecretEnvVar="S")
        refused(f"{config}: admin.clientSecretEnvVar", problem, file=config, environ={"S": text})
        refused("argument client_secret", problem, client_id="a", client_secret=text)


def test_a_secret_file_that_is_gone_is_an_error(here: Path) -> None:
    config = admin(here, clientId="a", clientSecretLocation=str(here / "gone"))
    refused(f"{config}: admin.clientSecretLocation", here / "gone", "no such file", file=config)
    # Whoever logs in as a person does not need it.
    assert settle(config, auth_type="Pkce").auth_type == "Pkce"
    (here / "gone").mkdir()
    refused(here / "gone", file=config)


def test_a_secret_that_goes_away_later_is_an_error(here: Path) -> None:
    environ = {"S": "s"}
    place = settle(admin(here, clientId="a", clientSecretEnvVar="S"), environ).client_secret
    assert place
    environ.clear()
    with pytest.raises(ConfigError, match=r"admin\.clientSecretEnvVar: .* S is not set; "):
        place.read()


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({}, ["client secret", "admin.clientSecretLocation", "admin.clientSecretEnvVar"]),
        ({"clientId": "a"}, ["client secret", "admin.clientSecretLocation"]),
        (
            {"clientId": "a", "clientSecretEnvVar": "S"},
            ["admin.clientSecretEnvVar", "S is not set"],
        ),
    ],
)
def test_client_secret_needs_its_parts(here: Path, keys: dict[str, str], names: list[str]) -> None:
    config = admin(here, authType="ClientSecret", **keys)
    refused(config, *names, file=config)


def test_a_secret_needs_a_client_id(here: Path) -> None:
    write(here / "secret", CANARY)
    config = admin(here, clientSecretLocation="secret")
    refused(config, "admin.clientId", file=config)
    refused("argument client_secret", "admin.clientId", client_secret=CANARY)
    refused("argument auth_type", "needs a client", auth_type="ClientSecret")


def test_external_command_needs_a_command(here: Path) -> None:
    config = admin(here, authType="ExternalCommand")
    refused(config, "admin.command", file=config)
    assert settle(config, command=["uctl"]).command == ("uctl",)


@pytest.mark.req("SEC-02")
@pytest.mark.parametrize("name", ["FLYTE_API_KEY", "UNION_API_KEY"])
def test_half_an_api_key_is_one_line_that_names_its_variable(name: str) -> None:
    for broken in (KEY[: len(KEY) // 2], CANARY, f"{CANARY}\n\udcff"):
        error = refused(f"environment variable {name}", "API key", environ={name: broken})
        assert error.reason == "api_key"
        refused("argument api_key", "API key", api_key=broken)


def test_an_api_key_with_a_bad_endpoint_is_named() -> None:
    key = b64encode(b"<host>:id:" + CANARY.encode() + b":None").decode()
    refused("API key from argument api_key", "endpoint", api_key=key)


@pytest.mark.parametrize("name", ["api_key", "client_secret", "headless", "endpoint", "auth_type"])
def test_arguments_of_a_wrong_type(name: str) -> None:
    wrong: list[dict[str, Any]] = [{name: 3.5}, {name: "", "client_id": "a"}]
    for arguments in wrong:
        refused(f"argument {name}", **arguments)


def test_headless_contradicts_another_auth_type() -> None:
    for auth_type in ("ClientSecret", "Pkce", "client-secret"):
        refused("argument headless", "leave one", headless=True, auth_type=auth_type)


@pytest.mark.req("SEC-01")
def test_no_secret_is_in_a_repr(here: Path) -> None:
    settings = settle(
        admin(here, httpProxyURL=f"http://u:{CANARY}@proxy", command=["x", CANARY]),
        {"FLYTE_API_KEY": KEY, "FLYTE_AUTH_PROXY_COMMAND": f"x {CANARY}"},
        extra_parameters={"token": {"x": CANARY}},
    )
    assert CANARY not in repr(settings)
    assert CANARY not in str(settings)
    assert CANARY not in f"{settings.client_secret!r} {settings.client_secret}"
    environ = {"S": CANARY}
    secret = settle(admin(here, clientId="a", clientSecretEnvVar="S"), environ).client_secret
    assert CANARY not in repr(secret)


def test_settings_can_be_sent_to_another_process(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S", "s")
    config = admin(here, clientId="a", clientSecretEnvVar="S", endpoint="h")
    settings = resolve({}, environ=os.environ, path=config, search=False)
    assert pickle.loads(pickle.dumps(settings)) == settings


# Spellings.


@pytest.mark.parametrize(
    ("text", "auth_type"),
    [
        *((name, name) for name in AUTH_TYPES),
        ("pkce", "Pkce"),
        ("PKCE", "Pkce"),
        *((text, "DeviceFlow") for text in "headless device-flow device_flow".split()),
        *(
            (text, "ClientSecret")
            for text in "client-secret client_secret clientsecret app-credential "
            "app_credential".split()
        ),
        *(
            (text, "ExternalCommand")
            for text in "external-command external_command externalcommand command custom".split()
        ),
    ],
)
def test_the_command_line_has_its_own_spellings(text: str, auth_type: str) -> None:
    assert parse_cli_auth_type(text) == auth_type
    extra: dict[str, Any] = {"client_id": "a", "client_secret": "s", "command": "x"}
    assert settle(auth_type=text, **extra).auth_type == auth_type


@pytest.mark.parametrize("text", ["", "browser", "passthrough", "device", "deviceflow"])
def test_what_is_no_auth_type_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="^auth type: ") as caught:
        parse_cli_auth_type(text)
    assert "\n" not in str(caught.value)
    refused("argument auth_type", auth_type=text)


def test_client_authentication_has_short_and_long_names() -> None:
    for name in get_args(Authentication):
        assert settle(client_auth=name).client_auth == name
        assert settle(client_auth=name.removeprefix("client_secret_")).client_auth == name


# Anything at all.

variables = sorted(
    {variable for setting in SETTINGS for variable in setting.variables}
    | {"FLYTE_API_KEY", "UNION_API_KEY"}
)
texts = st.text(max_size=30) | st.sampled_from(
    ["true", "ClientSecret", "{}", "[]", '["a"]', '{"a": "b"}', "https://h", KEY, "S", "300"]
)


@given(st.dictionaries(st.sampled_from(variables), texts, max_size=4))
@example({"FLYTE_ADMIN_SCOPES": "[" * 100000})
@example({"FLYTE_ADMIN_ENDPOINTS": "[" * 100000})
@example({"FLYTE_ADMIN_CACERTFILEPATH": "x" * 10000})
def test_any_environment_gives_settings_or_an_error(environ: dict[str, str]) -> None:
    try:
        settings = settle(None, environ)
    except ConfigError:
        return
    assert CANARY not in repr(settings)


keys = st.sampled_from(
    ["admin", "task", "x", *(s.key for s in SETTINGS), "token", "token_endpoint", "<<", "&a", "*a"]
)
nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
documents = st.fixed_dictionaries(
    {}, optional={"admin": st.dictionaries(keys, nested, max_size=4) | nested, "task": nested}
).map(lambda document: json.dumps(document).encode())
yamlish = st.lists(
    st.sampled_from(
        "admin: endpoint: \n - {} [] ! !!int !!binary !!set !!omap & * a <<: | > ' \" # --- ... "
        "? , 1 0x 1:2 2020-01-01 ~ % @ ` \t \x00 \u2028".split(" ")
    ),
    max_size=12,
).map(lambda words: " ".join(words).encode())


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=60) | yamlish | documents)
def test_any_file_gives_settings_or_an_error(here: Path, data: bytes) -> None:
    file = write(here / "any.yaml", data)
    write(here / "config.yaml", data)
    for path, search in ((file, False), (None, True)):
        try:
            settings = resolve({}, environ={}, path=path, search=search)
        except ConfigError:
            continue
        assert set(settings.sources) >= {"endpoint", "auth_type", "client_secret"}


def test_the_module_is_light() -> None:
    code = (
        "import sys, flyteauth.config as c; c.resolve({}, environ={}, search=False); "
        "print({'yaml', 'httpx', 'anyio', 'keyring'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# Keys that nobody reads.


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("authTpye", "did you mean authType?"),
        ("clientSecretLocatoin", "did you mean clientSecretLocation?"),
        ("endpont", "did you mean endpoint?"),
        ("ca_cert_file_pth", "did you mean caCertFilePath?"),
        ("clientSecret", "set clientSecretLocation or clientSecretEnvVar instead"),
        ("client_secret", "set clientSecretLocation or clientSecretEnvVar instead"),
        ("apiKey", "set FLYTE_API_KEY instead"),
        ("headless", "not known; correct or remove it"),
    ],
)
def test_a_key_that_nobody_reads_is_remembered_without_its_value(
    here: Path, key: str, said: str
) -> None:
    file = admin(here, **{"endpoint": "h.example", key: CANARY})
    (found,) = settle(file).unknown_keys
    assert str(found).startswith(f"{file}: admin.{key}: ")
    assert str(found).endswith(said)
    assert CANARY not in repr(found)


def test_what_does_not_look_like_a_key_is_not_shown(here: Path) -> None:
    file = write(here / "c.yaml", f"admin: {{7: x, '{CANARY} y': z, x-mine: 1}}")
    assert [key.source for key in settle(file).unknown_keys] == [f"{file}: admin.(a key)"] * 2


def test_keys_of_flyte_s_other_tools_are_no_mistakes(here: Path) -> None:
    theirs = (
        "authorizationHeader authorizationServerUrl caCertFilePath command defaultServiceConfig "
        "deviceFlowConfig httpProxyURL maxBackoffDelay maxMessageSizeBytes maxRetries "
        "max_retries perRetryTimeout pkceConfig proxyCommand tokenRefreshWindow tokenUrl "
        "useAudienceFromAdmin useAuth"
    )
    file = write(here / "c.yaml", "admin:\n" + "".join(f"  {key}:\n" for key in theirs.split()))
    assert settle(file).unknown_keys == ()


def test_keys_of_the_file_that_our_own_command_leads_to_are_looked_at_as_well(here: Path) -> None:
    ours = write(here / "ours.yaml", "admin: {endpont: h.example}")
    command = ["flyteauth", "token", "--config", str(ours)]
    file = admin(here, authType="ExternalCommand", command=command, insecur=False)
    sources = [key.source for key in settle(file).unknown_keys]
    assert sources == [f"{file}: admin.insecur", f"{ours}: admin.endpont"]


def test_what_is_missing_and_nearly_there_is_named(here: Path) -> None:
    file = admin(here, endpont=CANARY)
    with pytest.raises(ConfigError) as caught:
        settle(file).require_server()
    message = str(caught.value)
    assert message.startswith(f"no endpoint is configured: {file}: admin.endpont")
    assert message.endswith("; did you mean endpoint?")
    assert CANARY not in message
    service = {"authType": "ClientSecret"}
    near = admin(here, **service, clientId="a", clientSecretLocatoin=CANARY)
    refused("client secret", "admin.clientSecretLocatoin", "mean clientSecretLocation?", file=near)
    inline = admin(here, **service, clientId="a", clientSecret=CANARY)
    refused("a client secret in the file is not read; set clientSecretLocation", file=inline)
    near = admin(here, **service, clientSecretEnvVar="S", clientIdd="a")
    refused("client id", "did you mean clientId?", file=near, environ={"S": "s"})
    near = admin(here, authType="ExternalCommand", comand=CANARY)
    refused("a command", "did you mean command?", file=near)
