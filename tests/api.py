"""The public API as somebody would use it. Never executed: the type checker reads it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, assert_type

import grpc
import grpc.aio
import httpx
import httpx2
from flyteidl2.project.project_service_connect import (
    ProjectServiceClient,
    ProjectServiceClientSync,
)

import flyteauth
import flyteauth as flyte
import flyteauth.remote as remote
from flyteauth import errors, events
from flyteauth.events import (
    AuthEvent,
    BrowserNeeded,
    CodeNeeded,
    Exported,
    Forgotten,
    Imported,
    LoggedIn,
    LoggedOut,
    Refreshed,
    Warned,
)
from flyteauth.integrations import connect, grpc as over_grpc
from flyteauth.integrations.flyte import (
    auth_metadata,
    client_config,
    external_command,
    installed,
    passthrough,
)
from flyteauth.integrations.flytekit import Authenticator, authenticator
from flyteauth.integrations.httpx import Auth, Auth2, install


async def embedded() -> None:
    async with flyteauth.Session(endpoint="dns:///flyte.example.com") as session:
        assert_type(session, flyteauth.Session)
        assert_type(await session.headers(), Mapping[str, str])
        token = await session.token()
        assert_type(token, flyteauth.Token | None)
        if token is not None:
            assert_type(token.access_token, str)
            assert_type(token.expires_at, float | None)
            session.reject(token.access_token)
        assert_type(await session.login(), flyteauth.Token | None)
        assert_type(await session.login(switch=True, open_browser=False), flyteauth.Token | None)
        assert_type((await session.begin_login()).user_code, str)
        assert_type(await session.resume_login(must_keep=True), flyteauth.Token)
        identity = await session.whoami()
        assert_type(identity, flyteauth.Identity | None)
        if identity is not None:
            assert_type(identity.email, str)
        assert_type(await session.import_login("flyte", must_keep=True), flyteauth.Token)
        await session.export_login("flyte", "flytekit", "flytectl")
        outcome = await session.logout(everywhere=True)
        assert_type(outcome, LoggedOut)
        assert_type(outcome.remote_revoked, bool | None)
        reply = await session.call("/flyteidl2.project.ProjectService/ListProjects", {"limit": 1})
        reply.get("projects")


async def configured() -> None:
    async with flyteauth.Session.from_config("config.yaml", account="work") as session:
        assert_type((await session.settings()).login_timeout, float)


class Mine(flyteauth.Session):
    """A session of somebody else's."""


async def inherited() -> None:
    async with Mine.from_config() as session:
        assert_type(session, Mine)


def any_server() -> flyteauth.Session:
    return flyteauth.Session(
        issuer="https://login.example.com",
        client_id="my-service",
        client_secret="s3cret",
        client_auth="post",
        scopes=["read"],
        audience="https://api.example.com",
        redirect_uri="http://127.0.0.1/callback",
        endpoints={"token_endpoint": "https://login.example.com/token"},
        extra_parameters={"authorization": {"prompt": "login"}},
        auth_type="ClientSecret",
        token_store="memory",
        shared_logins=["flyte"],
        on_event=seen,
        on_token_change=stored,
        interactive=lambda: False,
    )


def stored(token: flyteauth.Token | None) -> None:
    assert_type(token, flyteauth.Token | None)


async def kept(token: flyteauth.Token | None) -> None:
    """The hook may be async."""


def other_types() -> None:
    session = flyteauth.Session(
        endpoint="localhost",
        auth_type="ExternalCommand",
        command=["sso", "token"],
        proxy_command=["iap"],
        command_timeout=10,
        on_token_change=kept,
    )
    assert_type(session.cached_headers(), Mapping[str, str] | None)
    session.reject_proxy()
    assert_type(flyteauth.init_passthrough("localhost"), flyteauth.SyncSession)
    with flyteauth.auth_metadata(("authorization", "Bearer x")), remote.auth_metadata(("a", "b")):
        list(remote.Project.listall())


async def requests(session: flyteauth.Session) -> None:
    async with httpx.AsyncClient(auth=Auth(session, origins=["https://files.example.com"])) as one:
        await one.get("https://files.example.com/")
    with httpx2.Client(auth=Auth2(flyteauth.SyncSession(of=session))) as two:
        two.get("https://flyte.example.com/")
    assert_type(install(httpx.Client(), session), httpx.Client)


async def in_the_sdk(session: flyteauth.Session) -> None:
    settings = await session.settings()
    assert_type(passthrough(settings), dict[str, Any])
    assert_type(client_config(settings), Any)
    async with auth_metadata(session), installed(session):
        pass
    async with external_command(session) as arguments:
        assert_type(arguments, dict[str, Any])
    with installed(flyteauth.SyncSession(of=session)), auth_metadata(session):
        pass


def in_flytekit(config: Any, store: Any) -> None:
    ours = authenticator(config, store)
    assert_type(ours, Authenticator)
    assert_type(ours.fetch_grpc_call_auth_metadata(), tuple[str, str] | None)
    ours.refresh_credentials()


async def over_connect(session: flyteauth.Session) -> None:
    async with connect.client(ProjectServiceClient, session) as projects:
        assert_type(projects, ProjectServiceClient)
    async with connect.clients(session, origins=["https://also.example.com"]) as make:
        assert_type(make(partial(ProjectServiceClient, timeout_ms=1000)), ProjectServiceClient)
    with connect.client_sync(ProjectServiceClientSync, flyteauth.SyncSession(of=session)) as sync:
        assert_type(sync, ProjectServiceClientSync)
    with connect.clients_sync(session, address="https://also.example.com") as make_sync:
        assert_type(make_sync(ProjectServiceClientSync), ProjectServiceClientSync)
    ProjectServiceClient("https://flyte.example.com", interceptors=connect.interceptors(session))
    sync_interceptors = connect.interceptors_sync(session, follows_redirects=False)
    ProjectServiceClientSync("https://flyte.example.com", interceptors=sync_interceptors)


async def calls_over_grpc(session: flyteauth.Session) -> None:
    target = "dns:///flyte.example.com"
    with over_grpc.channel(flyteauth.SyncSession(of=session), options=[("grpc.x", 1)]) as one:
        assert_type(one, grpc.Channel)
    async with await over_grpc.aio_channel(session) as other:
        assert_type(other, grpc.aio.Channel)
    plain = grpc.insecure_channel(target)
    grpc.intercept_channel(plain, *over_grpc.interceptors(session, target=target))
    of_aio = over_grpc.aio_interceptors(session, target=target)
    grpc.aio.insecure_channel(target, interceptors=of_aio)
    assert_type(over_grpc.call_credentials(session), grpc.CallCredentials)


def seen(event: AuthEvent) -> None:
    match event:
        case BrowserNeeded(url):
            assert_type(url, str)
        case CodeNeeded(user_code, url, url_with_code, expires_at):
            assert_type(
                (user_code, url, url_with_code, expires_at), tuple[str, str, str | None, float]
            )
        case LoggedIn(server, subject, expires_at, place):
            assert_type(
                (server, subject, expires_at, place), tuple[str, str | None, float | None, str]
            )
        case Refreshed(server, expires_at):
            assert_type((server, expires_at), tuple[str, float | None])
        case LoggedOut(server, local_deleted, remote_revoked):
            assert_type((server, local_deleted, remote_revoked), tuple[str, bool, bool | None])
        case Imported(server, tool, place) | Exported(server, tool, place):
            assert_type((server, tool, place), tuple[str, str, str])
        case Forgotten(server, tool, place, remote_revoked):
            assert_type((server, tool, place, remote_revoked), tuple[str, str, str, bool | None])
        case Warned(message):
            assert_type(message, str)


class Page:
    """Shows a login in a way of its own."""

    async def show(self, event: events.AuthEvent) -> None:
        seen(event)


def shown() -> flyteauth.Session:
    return flyteauth.Session(endpoint="localhost", presenter=Page())


def script() -> None:
    session = flyte.init(
        endpoint="dns:///flyte.example.com",
        headless=True,
        org="org",
        project="flytesnacks",
        domain="development",
        auth_type="Pkce",
        client_id="me",
        client_credentials_secret="s3cret",
        scopes=("all",),
        insecure=False,
        insecure_skip_verify=False,
        ca_cert_file_path="ca.pem",
        http_proxy_url="http://proxy.example.com",
        disable_keyring=True,
        lazy=True,
    )
    assert_type(session, flyteauth.SyncSession)
    assert_type(session.headers(), Mapping[str, str])
    assert_type(session.token(), flyteauth.Token | None)
    assert_type(session.renew(), flyteauth.Token | None)
    assert_type(session.verify(), flyteauth.Token | None)
    assert_type(session.session, flyteauth.Session)
    flyte.init(api_key="key")
    flyte.init_from_config()
    flyte.init_from_config("/path/to/config.yaml", project="flytesnacks")
    flyte.init_from_api_key()
    for project in remote.Project.listall():
        assert_type(project, remote.Project)
        assert_type(project.domains, tuple[str, ...])
    assert_type(
        list(remote.Task.listall(project="flytesnacks", domain="development")),
        list[remote.Task],
    )
    assert_type(remote.ApiKey.get("my-ci-key").result(), remote.ApiKey)
    with flyteauth.SyncSession(endpoint="localhost") as another:
        assert_type(another.whoami(), flyteauth.Identity | None)


async def program() -> None:
    assert_type(await flyte.ainit(endpoint="dns:///flyte.example.com"), flyteauth.Session)
    await flyte.ainit_from_config(lazy=True)
    await flyte.ainit_from_api_key("key", insecure_skip_verify=True)
    async for app in remote.App.listall(session=flyte.current_session()):
        assert_type(app.name, str)
    created = await remote.ApiKey.create("my-ci-key")
    assert_type(created, remote.CreatedApiKey)
    assert_type(created.encoded(), str)
    assert_type(await remote.ApiKey.get("my-ci-key"), remote.ApiKey)
    assert_type([key async for key in remote.ApiKey.listall()], list[remote.ApiKey])
    await remote.ApiKey.delete("my-ci-key")


async def failing(session: flyteauth.Session) -> float:
    try:
        await session.headers()
    except errors.Unreachable as error:
        return error.retry_after or 1.0
    except flyteauth.OAuth2Error as error:
        assert_type((error.error, error.description, error.uri), tuple[str, str, str])
    except (flyteauth.ReauthRequired, flyteauth.InteractionRequired) as error:
        assert_type(error.reason, str)
    except flyteauth.FlowError:
        raise
    except (flyteauth.ConfigError, flyteauth.StoreError, flyteauth.Error):
        raise
    return 0.0


async def wrong(session: flyteauth.Session) -> None:
    """Mistakes that the type checker must see."""
    session.reject(1)  # type: ignore[arg-type]
    flyte.init(headless="yes")  # type: ignore[arg-type]
    flyteauth.Session("localhost")  # type: ignore[call-arg, arg-type]
    flyteauth.nonsense  # type: ignore[attr-defined]  # noqa: B018
    token: flyteauth.Token = await session.token()  # type: ignore[assignment]
    token.access_token = "another"  # type: ignore[misc]
