"""
The calls on the wire: connectrpc's applications, generated from Flyte's services, around the model.

They know the protocol (protobuf and JSON, compression, GET, streams, errors), and the model knows
what is said. In between, a message is the JSON that protobuf makes of it.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, Final

from connectrpc.code import Code
from connectrpc.errors import ConnectError as RpcError
from connectrpc.request import RequestContext
from connectrpc.server import ConnectASGIApplication
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message as Proto

from .._sansio.http import Headers
from . import apps_proto
from .connect import ConnectError, Message, Reply

MESSAGE_MAX: Final = 4 * 1024 * 1024
UNREADABLE: Final = (DecodeError, json_format.Error, zlib.error, UnicodeDecodeError)
"""What connectrpc lets out where a message is none."""

Answer = Callable[[str, Message, Headers], Awaitable[Reply]]
"""What a procedure returns for a message that came with these headers."""

# Where the applications of Flyte's services are, and what each is called there.
_SERVICES: Final = {
    "flyteidl2.app.AppService": "flyteidl2.app.app_service_connect",
    "flyteidl2.auth.AuthMetadataService": "flyteidl2.auth.auth_service_connect",
    "flyteidl2.auth.IdentityService": "flyteidl2.auth.identity_connect",
    "flyteidl2.cluster.ClusterService": "flyteidl2.cluster.service_connect",
    "flyteidl2.dataproxy.DataProxyService": "flyteidl2.dataproxy.dataproxy_service_connect",
    "flyteidl2.project.ProjectService": "flyteidl2.project.project_service_connect",
    "flyteidl2.task.TaskService": "flyteidl2.task.task_service_connect",
    "flyteidl2.workflow.RunService": "flyteidl2.workflow.run_service_connect",
}


def applications(answer: Answer) -> Mapping[str, ConnectASGIApplication[Any]]:
    """The application of each service, by ``package.Service``."""
    compressions = [BoundedGzip()]
    made: dict[str, ConnectASGIApplication[Any]] = {}
    for service, module in _SERVICES.items():
        names = import_module(module)
        name = service.rpartition(".")[2]
        application = getattr(names, f"{name}ASGIApplication")
        made[service] = application(
            _Service(getattr(names, name), answer),
            read_max_bytes=MESSAGE_MAX,
            compressions=compressions,
        )
    made[apps_proto.SERVICE] = _AppsApplication(
        service=partial(_unary, answer),
        endpoints=apps_proto.endpoints,
        read_max_bytes=MESSAGE_MAX,
        compressions=compressions,
    )
    return made


class _AppsApplication(ConnectASGIApplication[Any]):
    """That of the one service which flyteidl2 does not have."""

    @property
    def path(self) -> str:
        return f"/{apps_proto.SERVICE}"


class _Service:
    """A service as *declared*, whose unary methods are answered; its streams stay what they are
    there: not implemented.
    """

    def __init__(self, declared: type, answer: Answer) -> None:
        self._declared = declared
        self._answer = answer

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._declared, name)
        if inspect.iscoroutinefunction(method):
            return partial(_unary, self._answer)
        return partial(method, self)


async def _unary(answer: Answer, request: Any, context: RequestContext[Any, Any]) -> Any:
    method = context.method()
    if not isinstance(request, Proto):  # a stream of them
        raise RpcError(Code.UNIMPLEMENTED, f"{method.name} is not implemented")
    message = json_format.MessageToDict(request)
    headers = tuple(context.request_headers().allitems())
    try:
        reply = await answer(f"/{method.service_name}/{method.name}", message, headers)
    except ConnectError as error:
        for name, value in error.headers:
            context.response_headers().add(name, value)
        raise RpcError(Code(error.code), error.message) from None
    return json_format.ParseDict(reply, method.output())


class BoundedGzip:
    """gzip that does not grow beyond MESSAGE_MAX."""

    def name(self) -> str:
        return "gzip"

    def compress(self, data: bytes | bytearray | memoryview) -> bytes:
        return zlib.compress(data, wbits=31)

    def decompress(self, data: bytes | bytearray | memoryview) -> bytes:
        stream = zlib.decompressobj(wbits=31)
        content = stream.decompress(data, MESSAGE_MAX + 1)
        if len(content) > MESSAGE_MAX:
            raise RpcError(Code.RESOURCE_EXHAUSTED, f"the message is over {MESSAGE_MAX} bytes")
        if not stream.eof:
            raise zlib.error("the message is not complete")
        return content
