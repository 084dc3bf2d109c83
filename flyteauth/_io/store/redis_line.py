"""
One connection to a Redis or Valkey server, for as long as somebody talks on it.

To import this brings coredis along, which takes most of a second: for a worker thread.

The parts below coredis's client are used, because its pool leaves streams open if nobody listens
at the other end, and puts an error in place of a cancellation that comes during its handshake.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio
from anyio.abc import ByteStream
from coredis import exceptions
from coredis.connection import BaseConnection, TCPLocation

from .redis_url import Address

T = TypeVar("T")
Ask = Callable[..., Awaitable[object]]

ANSWER_MAX: Final = 5 * 1024 * 1024  # more than the longest login


async def converse(
    address: Address, context: ssl.SSLContext | None, talk: Callable[[Ask], Awaitable[T]]
) -> T:
    """What *talk* returns or raises. It asks with ``await ask("GET", key)``."""
    values: list[T] = []
    failure: Exception | None = None
    async with await _connect(address, context) as stream:
        line = _Line(address, stream)
        async with anyio.create_task_group() as group:
            group.start_soon(line.serve)
            try:
                await line.ready()
                values.append(await talk(line.ask))
            except Exception as error:  # noqa: BLE001  # raised below, outside of the task group
                failure = error
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return values[0]


async def _connect(address: Address, context: ssl.SSLContext | None) -> ByteStream:
    if address.path is not None:
        return await anyio.connect_unix(address.path)
    if context is None:
        return await anyio.connect_tcp(address.host, address.port)
    return await anyio.connect_tcp(
        address.host, address.port, ssl_context=context, tls_standard_compatible=False
    )


class _Line(BaseConnection):
    """A connection over a stream that is open already."""

    def __init__(self, address: Address, stream: ByteStream) -> None:
        super().__init__(
            TCPLocation(address.host, address.port),
            username=address.user or None,
            password=address.password or None,
            db=address.db,
        )
        self._answers = _Answers(stream)
        self._event = anyio.Event()
        self._failure: Exception | None = None

    def describe(self) -> str:
        return "a connection of flyteauth"

    async def _connect(self) -> ByteStream:
        return self._answers

    async def serve(self) -> None:
        """Hold the connection until it ends. Never raises: whoever waits for an answer does."""
        try:
            await self.run(task_status=self)
        except Exception as error:  # noqa: BLE001  # whatever strange bytes make of coredis
            self._failure = error
        finally:
            self._event.set()

    def started(self, value: object = None) -> None:
        """The handshake is done, says ``run``."""
        self._event.set()

    async def ready(self) -> None:
        await self._event.wait()
        if self._failure is not None:
            raise self._failure

    async def ask(self, command: str, *arguments: str | bytes | int) -> object:
        self._answers.left = ANSWER_MAX
        return await self.create_request(command.encode(), *arguments)


class _Answers(ByteStream):
    """*stream*, of which ``left`` bytes may be read for one answer: a server may talk for ever."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.left = ANSWER_MAX

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = await self._stream.receive(max_bytes)
        self.left -= len(data)
        if self.left < 0:
            raise exceptions.InvalidResponse("too much of an answer")
        return data

    async def send(self, item: bytes) -> None:
        await self._stream.send(item)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


def explain_reply(error: BaseException) -> tuple[str, str] | None:
    """The reason and the words for an error that the server answered with, if it is one. What
    the server said is not quoted: an old one repeats the password.
    """
    match error:
        case exceptions.AuthenticationRequiredError():
            return "denied", "wants a password; put user and password into its URL"
        case exceptions.AuthenticationError():
            return "denied", "does not accept the user and password of its URL; correct them"
        case exceptions.AuthorizationError():
            return "denied", (
                "does not allow this user what is needed; allow the keys flyteauth:* and the "
                "commands GET, SET, DEL, EVAL and SELECT"
            )
        case exceptions.ReadOnlyError():
            return "denied", "is a replica that cannot be written to; name the primary"
        case exceptions.WrongTypeError():
            return "corrupt", "holds something else in place of the login; remove it, and log in"
        case exceptions.BusyLoadingError():
            return "unreachable", "is still loading its data; try again in a moment"
        case exceptions.AskError():
            return "unreachable", (
                "is one server of a cluster, and keeps this login elsewhere; name a server that "
                "keeps all keys"
            )
        case exceptions.ClusterDownError() | exceptions.TryAgainError():
            return "unreachable", "is not ready; try again in a moment"
        case exceptions.UnknownCommandError() | exceptions.ProtocolError():
            return "denied", "is older than Redis 6, or lacks HELLO or EVAL; use a newer one"
        case exceptions.ResponseError():
            return _explain_text(str(error).upper())
        case exceptions.InvalidResponse():
            return "unreachable", "does not answer as Redis does; check host and port in its URL"
    return None


def _explain_text(said: str) -> tuple[str, str]:
    """The same for what coredis has no class for."""
    if said.startswith(("OOM", "MISCONF")):
        return "full", "cannot keep any more data; give it memory and disk"
    if said.startswith(("MASTERDOWN", "BUSY", "NOREPLICAS")) or "MAX NUMBER OF CLIENTS" in said:
        return "unreachable", "is not ready; try again in a moment"
    if "DB INDEX" in said or "SELECT IS NOT ALLOWED" in said:
        return "denied", "has no such database; correct the number in its URL"
    return "denied", "refused the command; look into the log of the server"
