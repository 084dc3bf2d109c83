"""URLs, hosts and origins, held against the libraries that will go there."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx
import yarl
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from flyteauth._endpoint import parse_endpoint
from flyteauth._io.store.redis_url import parse_url as parse_redis_url
from flyteauth._sansio.errors import ConfigError, escape
from flyteauth._sansio.http import ascii_url, host_of, origin
from flyteauth._sansio.origins import Origins, data_plane_domain, origin_of, parse_origin
from flyteauth._sansio.urls import canonical_host, is_loopback, is_secure, split_url
from tests.fuzz.properties import proper

HERE = Origins(
    frozenset({("https", "flyte.example", 443), ("http", "localhost", 8080)}), "dp.example"
)
_PORT = {"http": 80, "https": 443}


def url(data: bytes) -> None:
    """Where credentials may go is where each library goes."""
    text = data.decode("utf-8", "replace")
    written = ascii_url(text)
    if split_url(written) is not None:
        assert written.isascii()
        assert escape(written) == written
        assert origin(written)[1]
        assert host_of(written)
    if is_secure(text):
        scheme, host, _ = origin(text)
        assert scheme == "https" or is_loopback(host)
    if origin_of(text) is None:
        assert not HERE.allow(text)
        return
    for scheme, host, port in _origins_by_libraries(text):
        if HERE.allow(text):
            assert HERE.allow_origin(scheme, host, port), (text, scheme, host, port)
        if is_secure(text):
            assert scheme == "https" or is_loopback(host), (text, scheme, host)


def _origins_by_libraries(text: str) -> list[tuple[str, str, int]]:
    """What httpx, aiohttp and requests connect to, as far as they take *text*."""
    found: list[tuple[str, str, int]] = []
    try:
        ours = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        pass
    else:
        found.append((ours.scheme, ours.raw_host.decode(), ours.port or _PORT[ours.scheme]))
    try:
        theirs = yarl.URL(text)
    except ValueError:
        pass
    else:
        found.append((theirs.scheme, theirs.raw_host or "", theirs.port or 0))
    try:
        third = parse_url(text)
    except LocationParseError:
        pass
    else:
        scheme = third.scheme or ""
        found.append((scheme, (third.host or "").strip("[]"), third.port or _PORT[scheme]))
    return found


def host(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    name = canonical_host(text)
    if name:
        assert name.isascii()
        assert canonical_host(f"[{name}]" if ":" in name else name) == name
    domain = data_plane_domain(text)
    assert domain is None or canonical_host(domain) == domain


def named_origin(data: bytes) -> None:
    """What a user writes in ``origins=``."""
    text = data.decode("utf-8", "replace")
    try:
        scheme, name, port = parse_origin(text)
    except ConfigError as error:
        proper(error)
        return
    written = f"[{name}]" if ":" in name else name
    assert origin_of(f"{scheme}://{written}:{port}/") == (scheme, name, port)
    assert Origins(frozenset({(scheme, name, port)})).allow(f"{scheme}://{written}:{port}/a")


def endpoint(data: bytes) -> None:
    """The endpoint that a person writes."""
    text = data.decode("utf-8", "replace")
    for insecure in (False, True):
        try:
            found = parse_endpoint(
                text, insecure=insecure, allow_insecure_credentials=insecure, source="the endpoint"
            )
        except ConfigError as error:
            proper(error)
            continue
        again = parse_endpoint(
            found.url, insecure=insecure, allow_insecure_credentials=insecure, source="the endpoint"
        )
        assert again == found
        if len(found.url) < 65536:  # more is none to httpx
            assert httpx.URL(found.url).raw_host.decode() == found.host
        assert urlsplit(found.url).hostname == found.host
        assert insecure or is_secure(found.url)


def redis_url(data: bytes) -> None:
    """Where a shared store is; a password may stand anywhere in it."""
    text = data.decode("utf-8", "replace")
    try:
        address = parse_redis_url(text)
    except ConfigError as error:
        proper(error, data)
        return
    assert (address.path is None) == (0 < address.port < 65536)
    assert escape(address.where) == address.where


TARGETS = (url, host, named_origin, endpoint, redis_url)
