"""HTTP's bytes as the core's values, and back: for servers that are the pure model."""

from __future__ import annotations

from flyteauth._sansio.http import Request, Response


def parse_request(raw: bytes, base_url: str) -> Request:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = tuple((name, value.strip()) for name, _, value in (x.partition(":") for x in lines))
    return Request(method, base_url + target, headers, body)


def write_response(response: Response) -> bytes:
    headers = (*response.headers, ("content-length", str(len(response.body))))
    lines = [f"HTTP/1.1 {response.status} Status", *(f"{k}: {v}" for k, v in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1") + response.body
