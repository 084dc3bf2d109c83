"""flyteidl2.dataproxy.DataProxyService, and the URLs that it signs."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from typing import Any

import pytest

from flyteauth._sansio.http import Response

from .harness import BASE, Peer, body, reply

SERVICE = "/flyteidl2.dataproxy.DataProxyService"
CONTENT = b"a bundle of code"


def md5(content: bytes) -> str:
    return b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


class Uploader:
    def __init__(self) -> None:
        self.peer = Peer()
        self.token = str(self.peer.login()["access_token"])

    def locate(self, **changed: Any) -> Response:
        message = {
            "project": "churn",
            "domain": "staging",
            "filename": "fast.tar.gz",
            "contentMd5": md5(CONTENT),
            "expiresIn": "900s",
            **changed,
        }
        return self.peer.call(f"{SERVICE}/CreateUploadLocation", self.token, message)

    def put(self, url: str, content: bytes = CONTENT, **headers: str) -> int:
        return self.peer.send("PUT", url, tuple(headers.items()), content).status


@pytest.fixture
def uploader() -> Uploader:
    return Uploader()


def test_what_is_put_there_is_kept_without_a_token(uploader: Uploader) -> None:
    place = reply(uploader.locate())
    assert place["signedUrl"].startswith(f"{BASE}/uploads/churn/staging/")
    assert place["expiresAt"] == "1970-01-01T00:31:40Z"
    assert uploader.put(place["signedUrl"]) == 200
    (name,) = uploader.peer.plane.uploads.names()
    assert place["nativeUrl"] == f"s3://flyteauth-devserver/{name}"
    assert name.endswith("/fast.tar.gz")
    assert uploader.peer.plane.uploads.content(name) == CONTENT
    assert uploader.peer.plane.uploads.content("churn/staging/other") is None


def test_the_same_may_be_put_again(uploader: Uploader) -> None:
    url = reply(uploader.locate(filenameRoot="mine"))["signedUrl"]
    assert [uploader.put(url), uploader.put(url)] == [200, 200]
    assert uploader.peer.plane.uploads.names() == ("churn/staging/mine/fast.tar.gz",)


def test_nothing_but_what_was_announced_is_taken(uploader: Uploader) -> None:
    url = reply(uploader.locate())["signedUrl"]
    assert uploader.put(url, b"something else") == 400
    assert uploader.put(url, CONTENT, **{"content-md5": md5(b"something else")}) == 400
    assert uploader.put(url, CONTENT, **{"content-md5": md5(CONTENT)}) == 200


def test_a_url_ends(uploader: Uploader) -> None:
    url = reply(uploader.locate(expiresIn="10s"))["signedUrl"]
    uploader.peer.at += 9.5
    assert uploader.put(url) == 200
    uploader.peer.at += 0.5
    response = uploader.peer.send("PUT", url, (), CONTENT)
    assert response.status == 403
    assert b"Request has expired" in response.body  # by which flyte tells it from a refusal


def test_a_url_that_was_not_issued_here_is_refused(uploader: Uploader) -> None:
    url = reply(uploader.locate())["signedUrl"]
    for other in (
        url.replace("churn", "flytesnacks"),
        url.replace("expires=", "expires=1"),
        url.replace("signature=", "signature=x"),
        url.partition("?")[0],
        f"{url}&more=1",
        f"{BASE}/uploads/x?expires=soon&md5=x&signature=y",
    ):
        assert uploader.put(other) == 403, other
    assert Uploader().put(url.replace("signature=", "signature=0")) == 403


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_nothing_can_be_fetched_or_removed(uploader: Uploader, method: str) -> None:
    url = reply(uploader.locate())["signedUrl"]
    assert uploader.put(url) == 200
    assert uploader.peer.send(method, url).status == 405


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"project": "nothing"}, "not_found"),
        ({"domain": "nothing"}, "not_found"),
        ({"contentMd5": ""}, "invalid_argument"),
        ({"contentMd5": "short"}, "invalid_argument"),
        ({"contentMd5": "%" * 24}, "invalid_argument"),
        ({"filename": "../../etc/passwd"}, "invalid_argument"),
        ({"filename": ".."}, "invalid_argument"),
        ({"filenameRoot": "a b"}, "invalid_argument"),
        ({"filename": "a\r\nb"}, "invalid_argument"),
        ({"expiresIn": "0s"}, "invalid_argument"),
        ({"expiresIn": "3601s"}, "invalid_argument"),
        ({"expiresIn": "soon"}, "invalid_argument"),
        ({"expiresIn": 900}, "invalid_argument"),
    ],
)
def test_what_cannot_be_located_is_said(
    uploader: Uploader, changed: dict[str, Any], code: str
) -> None:
    assert body(uploader.locate(**changed))["code"] == code


def test_inputs_are_kept_under_their_hash(uploader: Uploader) -> None:
    message = {
        "projectId": {"name": "churn", "domain": "staging"},
        "inputs": {"literals": [{"name": "x"}]},
    }
    call = f"{SERVICE}/UploadInputs"
    kept = reply(uploader.peer.call(call, uploader.token, message))["offloadedInputData"]
    again = reply(uploader.peer.call(call, uploader.token, message))["offloadedInputData"]
    assert kept == again
    assert kept["inputsHash"]
    assert len(uploader.peer.plane.uploads.names()) == 1
    message["inputs"] = {}
    other = reply(uploader.peer.call(call, uploader.token, message))["offloadedInputData"]
    assert other["inputsHash"] != kept["inputsHash"]
    message["projectId"] = {"name": "nothing", "domain": "staging"}
    assert body(uploader.peer.call(call, uploader.token, message))["code"] == "not_found"


def test_locations_and_inputs_need_a_token() -> None:
    for method in ("CreateUploadLocation", "UploadInputs"):
        assert Peer().call(f"{SERVICE}/{method}").status == 401
