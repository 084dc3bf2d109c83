"""flyteidl2.dataproxy.DataProxyService: where code bundles and inputs go, by signed URLs."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs, quote, unquote, urlencode

from .._sansio.http import Request, Response
from .calls import Call
from .connect import ConnectError, Message, Reply, invalid, member, part, text, timestamp
from .issued import AccessToken
from .messages import Target, text_response
from .projects import Projects
from .seed import Seed, same
from .settings import Settings
from .shelves import Shelves

SERVICE: Final = "/flyteidl2.dataproxy.DataProxyService"
PATH: Final = "/uploads/"
UPLOAD_MAX: Final = 64 * 1024 * 1024

_KIND: Final = "upload"
_BUCKET: Final = "s3://flyteauth-devserver/"
_EXPIRES_IN: Final = 900.0  # seconds
_EXPIRES_IN_MAX: Final = 3600.0
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,200}(?:/[A-Za-z0-9._-]{1,200}){0,20}")


class Uploads:
    """What was uploaded, by the path in its URL."""

    def __init__(
        self, settings: Settings, shelves: Shelves, projects: Projects, seed: Seed
    ) -> None:
        self._settings = settings
        self._shelves = shelves
        self._projects = projects
        self._seed = seed
        self.calls: Final[Mapping[str, Call]] = {
            f"{SERVICE}/CreateUploadLocation": self._locate,
            f"{SERVICE}/UploadInputs": self._inputs,
        }

    def names(self) -> tuple[str, ...]:
        return self._shelves.keys(_KIND)

    def content(self, name: str) -> bytes | None:
        return self._shelves.get(_KIND, name)

    def _locate(self, message: Message, access: AccessToken | None, at: float) -> Reply:
        project, domain = text(message, "project"), text(message, "domain")
        self._projects.require(project, domain)
        digest = text(message, "contentMd5", "content_md5")
        if not digest or len(_decoded(digest)) != hashlib.md5(usedforsecurity=False).digest_size:
            raise invalid("contentMd5", "is no MD5")
        root = text(message, "filenameRoot", "filename_root") or _decoded(digest).hex()
        name = f"{project}/{domain}/{root}/{text(message, 'filename') or 'data'}"
        if not _NAME.fullmatch(name) or ".." in name.split("/"):
            raise invalid("filename", "is not a path of plain names")
        until = at + _seconds(member(message, "expiresIn", "expires_in"))
        query = {"expires": str(int(until)), "md5": digest}
        query["signature"] = self._signature(name, query)
        where = f"{self._settings.base_url}{PATH}{quote(name)}?{urlencode(query)}"
        return {"signedUrl": where, "nativeUrl": _BUCKET + name, "expiresAt": timestamp(until)}

    def put(self, request: Request, target: Target, at: float) -> Response:
        """A PUT to a signed URL. The signature is what authorises it, and no token."""
        name = unquote(target.path.removeprefix(PATH))
        query = {key: values[0] for key, values in parse_qs(target.query).items()}
        signature = query.pop("signature", "")
        if query.keys() != {"expires", "md5"} or not same(self._signature(name, query), signature):
            return text_response(403, "SignatureDoesNotMatch: this URL was not issued here.")
        if at >= int(query["expires"]):
            return text_response(403, "AccessDenied: Request has expired.")
        digest = hashlib.md5(request.body, usedforsecurity=False).digest()
        sent = request.header("content-md5")
        if b64encode(digest).decode() != query["md5"] or sent not in {None, query["md5"]}:
            return text_response(400, "BadDigest: the content is not what was announced.")
        self._shelves.put(_KIND, name, request.body)
        return Response(200)

    def _signature(self, name: str, query: Mapping[str, str]) -> str:
        return self._seed.mac("upload", name, query["expires"], query["md5"])

    def _inputs(self, message: Message, access: AccessToken | None, at: float) -> Reply:
        where = part(message, "runId", "run_id") or part(message, "projectId", "project_id")
        project = text(where, "project") or text(where, "name")
        domain = text(where, "domain")
        self._projects.require(project, domain)
        content = json.dumps(part(message, "inputs"), sort_keys=True).encode()
        digest = hashlib.sha256(content).hexdigest()
        name = f"{project}/{domain}/inputs/{digest}.json"
        self._shelves.put(_KIND, name, content)
        return {"offloadedInputData": {"uri": _BUCKET + name, "inputsHash": digest}}


def _decoded(digest: str) -> bytes:
    try:
        return b64decode(digest, validate=True)
    except ValueError:
        return b""


def _seconds(duration: object) -> float:
    """A google.protobuf.Duration, which JSON writes as ``900s``."""
    if duration is None:
        return _EXPIRES_IN
    match = re.fullmatch(r"([0-9]{1,9})(?:\.[0-9]{1,9})?s", str(duration))
    if match is None or not 0 < int(match[1]) <= _EXPIRES_IN_MAX:
        raise ConnectError(
            "invalid_argument", f"expiresIn must be 1 to {_EXPIRES_IN_MAX:.0f} seconds"
        )
    return float(match[1])
