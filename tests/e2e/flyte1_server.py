"""
A small Flyte 1 control plane over gRPC, run in flytekit's environment: ``flyte1_server.py URL LOG``.

It takes the tokens that the control plane at URL, a devserver, takes. One port speaks gRPC alone;
the other one as an ingress does: what is not gRPC goes on to URL. It prints both as JSON, and
appends a line of JSON to LOG for each call.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc

HTTP2 = b"PRI "


class Plane:
    """What the services below have in common: who may call, and what is noted of it."""

    def __init__(self, url: str, log: Path) -> None:
        self._url = url
        self._log = log
        self._lock = threading.Lock()

    def document(self, path: str) -> dict[str, Any]:
        request = urllib.request.Request(self._url + path, headers={"Accept": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as response:
            found: dict[str, Any] = json.load(response)
        return found

    def check(self, method: str, context: Any) -> None:
        """Abort a call whose token is not taken."""
        key = self.document("/config/v1/flyte_client")["authorization_metadata_key"]
        sent = dict(context.invocation_metadata()).get(key)
        headers = {} if sent is None else {key: sent}
        request = urllib.request.Request(f"{self._url}/me", headers=headers)
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except urllib.error.HTTPError as error:
            error.close()
            self._note(method, key if sent else None, "UNAUTHENTICATED")
            context.abort(
                grpc.StatusCode.UNAUTHENTICATED, "token parse error [JWT_VERIFICATION_FAILED]"
            )
        self._note(method, key if sent else None, "OK")

    def _note(self, method: str, credential: str | None, status: str) -> None:
        line = json.dumps({"method": method, "credential": credential, "status": status})
        with self._lock, self._log.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def serve(plane: Plane) -> tuple[Any, int]:
    """The gRPC server and its port."""
    from flyteidl.admin import project_pb2  # type: ignore[import-not-found]
    from flyteidl.service import (  # type: ignore[import-not-found]
        admin_pb2_grpc,
        auth_pb2,
        auth_pb2_grpc,
    )

    class Auth(auth_pb2_grpc.AuthMetadataServiceServicer):  # type: ignore[misc]
        def GetOAuth2Metadata(self, request: Any, context: Any) -> Any:
            found = plane.document("/.well-known/oauth-authorization-server")
            known = {field.name for field in auth_pb2.OAuth2MetadataResponse.DESCRIPTOR.fields}
            return auth_pb2.OAuth2MetadataResponse(**{k: v for k, v in found.items() if k in known})

        def GetPublicClientConfig(self, request: Any, context: Any) -> Any:
            found = plane.document("/config/v1/flyte_client")
            known = {f.name for f in auth_pb2.PublicClientAuthConfigResponse.DESCRIPTOR.fields}
            fields = {name: value for name, value in found.items() if name in known}
            return auth_pb2.PublicClientAuthConfigResponse(**fields)

    class Admin(admin_pb2_grpc.AdminServiceServicer):  # type: ignore[misc]
        def ListProjects(self, request: Any, context: Any) -> Any:
            plane.check("ListProjects", context)
            return project_pb2.Projects(projects=[project_pb2.Project(id="flytesnacks")])

    server = grpc.server(ThreadPoolExecutor(32))
    auth_pb2_grpc.add_AuthMetadataServiceServicer_to_server(Auth(), server)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(Admin(), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    return server, port


async def ingress(grpc_port: int, url: str) -> tuple[asyncio.Server, int]:
    """A server that looks at the first bytes of a connection to see where it belongs."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(len(HTTP2))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            return
        port = grpc_port if first == HTTP2 else urlsplit(url).port
        inner_reader, inner_writer = await asyncio.open_connection("localhost", port)
        inner_writer.write(first)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    server = await asyncio.start_server(connected, "localhost", 0)
    return server, server.sockets[0].getsockname()[1]


async def main(url: str, log: Path) -> None:
    _, grpc_port = serve(Plane(url, log))
    server, port = await ingress(grpc_port, url)
    print(json.dumps({"port": port, "grpc_port": grpc_port}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
