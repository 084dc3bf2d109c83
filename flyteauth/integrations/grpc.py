"""
A session's credentials on the calls of grpcio's channels, synchronous and of grpc.aio::

    from flyteauth.integrations.grpc import aio_channel, channel

    with channel(session) as made:
        AdminServiceStub(made).ListProjects(...)
    async with await aio_channel(session) as made:
        await AdminServiceStub(made).ListProjects(...)

They open a channel to the session's endpoint as its configuration says: TLS or none, certificates,
proxy. The header is the one that the server wants.

A call that is refused as UNAUTHENTICATED is answered by one renewal and one more try, as long as
that cannot do anything twice: no reply has been delivered, and, where requests are a stream, none
was asked for. Otherwise the refusal is the caller's, and the next call has the new token. If there
are no new credentials the refusal stays; if getting them fails, that error of ``flyteauth.errors``
is raised from it. The call's timeout is for both tries and what is waited for between them. A
header of the same name that the caller has set is ConfigError.

For a channel that was made otherwise there are ``interceptors`` and ``aio_interceptors``. Say which
``target`` it is for: they refuse (ConfigError) to send credentials elsewhere than to host and port
of the endpoint, and of the ``origins`` that are given; whether the channel uses TLS they cannot
see. ``call_credentials`` are for channels that know nothing else: grpcio asks for them on secure
channels only, and never says that they were refused, so a token that the server revoked stays in
use until it expires.

grpc.aio is for asyncio. On trio, use a synchronous channel in a worker thread; it may share its
session with the program.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from .._connection import Connection, connection
from ..errors import ConfigError, Error
from ..session import Session, in_portal
from ._credentials import Credentials, host_and_port
from ._http import Synchronous, session_of

try:
    import grpc
    import grpc.aio
except ImportError as error:
    raise ImportError(
        "flyteauth.integrations.grpc needs grpcio; run: pip install 'flyteauth[grpc]'"
    ) from error

from . import _grpc_aio as _aio
from ._grpc_attempts import pairs
from ._grpc_sync import Interceptor

__all__ = ["aio_channel", "aio_interceptors", "call_credentials", "channel", "interceptors"]

Options = Sequence[tuple[str, Any]]


def channel(
    session: Session | Synchronous,
    *,
    address: str | None = None,
    origins: Iterable[str] = (),
    interceptors: Iterable[Any] = (),
    options: Options = (),
) -> grpc.Channel:
    """A channel to the endpoint of *session*, or to *address*, which must be its data plane or in
    *origins*. Its *interceptors* see a call before it gets credentials. Raises ConfigError.
    """
    given, ours = tuple(origins), session_of(session)
    way = in_portal(connection, ours, address, given)
    arguments = [*options, *_proxy(way)]
    made = (
        grpc.insecure_channel(way.authority, arguments)
        if way.plain
        else grpc.secure_channel(way.authority, _tls(way), arguments)
    )
    mine = Interceptor(Credentials(ours, given), way.authority)
    return grpc.intercept_channel(made, *interceptors, mine)


async def aio_channel(
    session: Session | Synchronous,
    *,
    address: str | None = None,
    origins: Iterable[str] = (),
    interceptors: Iterable[grpc.aio.ClientInterceptor] = (),
    options: Options = (),
) -> grpc.aio.Channel:
    """The same for grpc.aio."""
    given, ours = tuple(origins), session_of(session)
    way = await connection(ours, address, given)
    all_of_them = [*interceptors, *_aio_interceptors(Credentials(ours, given), way.authority)]
    arguments = [*options, *_proxy(way)]
    if way.plain:
        return grpc.aio.insecure_channel(way.authority, arguments, interceptors=all_of_them)
    return grpc.aio.secure_channel(way.authority, _tls(way), arguments, interceptors=all_of_them)


def interceptors(
    session: Session | Synchronous, *, target: str, origins: Iterable[str] = ()
) -> tuple[Interceptor, ...]:
    """The credentials of *session*, for ``grpc.intercept_channel`` of a channel to *target*."""
    return (Interceptor(Credentials(session, origins), _authority(target)),)


def aio_interceptors(
    session: Session | Synchronous, *, target: str, origins: Iterable[str] = ()
) -> tuple[grpc.aio.ClientInterceptor, ...]:
    """The same for ``interceptors=`` of a channel of grpc.aio."""
    return _aio_interceptors(Credentials(session, origins), _authority(target))


def call_credentials(
    session: Session | Synchronous, *, origins: Iterable[str] = ()
) -> grpc.CallCredentials:
    """The credentials of *session*, for ``grpc.composite_channel_credentials`` or for a call."""
    return grpc.metadata_call_credentials(_Plugin(Credentials(session, origins)), "flyteauth")


class _Plugin(grpc.AuthMetadataPlugin):
    """grpcio calls this for each call, on a thread that may wait."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def __call__(
        self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback
    ) -> None:
        parts = urlsplit(context.service_url)
        authority = parts.netloc if parts.port else f"{parts.netloc}:443"
        try:
            headers = self._credentials.headers_sync(authority, None)
        except Error as error:
            callback((), error)  # its text is all that the caller sees
        else:
            callback(pairs(headers.items()), None)


def _aio_interceptors(
    credentials: Credentials, authority: str
) -> tuple[grpc.aio.ClientInterceptor, ...]:
    kinds = (_aio.UnaryUnary, _aio.UnaryStream, _aio.StreamUnary, _aio.StreamStream)
    return tuple(kind(credentials, authority) for kind in kinds)


def _tls(way: Connection) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(way.roots)


def _proxy(way: Connection) -> Options:
    if way.proxy is None:  # also where the environment names one
        return (("grpc.enable_http_proxy", 0),)
    return (("grpc.http_proxy", way.proxy),)


def _authority(target: str) -> str:
    """Host and port that grpcio resolves *target* to."""
    text = target.removeprefix("dns:").removeprefix("///")
    authority = text if host_and_port(text)[1] else f"{text}:443"
    if not host_and_port(authority)[0]:
        raise ConfigError(
            "the target is not a host and a port; write it like dns:///flyte.example.com:443",
            reason="target",
        )
    return authority
