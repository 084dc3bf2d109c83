"""The sockets that a redirect URI is listened at (RFC 8252 §7.3, §8.3)."""

from __future__ import annotations

import errno
import re
import socket
import sys
from typing import Final

from .._sansio.errors import ConfigError, quote
from .._sansio.http import is_secure

_REDIRECT_URI: Final = re.compile(
    r"(http://)(127\.0\.0\.1|\[::1\]|localhost)(?::([0-9]*))?([/?].*)?", re.IGNORECASE
)
_IPV4: Final = (socket.AF_INET, "127.0.0.1")
_IPV6: Final = (socket.AF_INET6, "::1")
# localhost by address: a resolver may know one family only, and the browser the other.
_ADDRESSES: Final = {"127.0.0.1": (_IPV4,), "[::1]": (_IPV6,), "localhost": (_IPV4, _IPV6)}
_NO_FAMILY: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})
_PORT_TRIES: Final = 32


def bind(redirect_uri: str) -> tuple[list[socket.socket], str]:
    """Listening sockets for *redirect_uri*, and that URI with the port they have."""
    match = _REDIRECT_URI.fullmatch(redirect_uri)
    if match is None or not is_secure(redirect_uri):
        raise ConfigError(
            f"redirect_uri {quote(redirect_uri)!r} cannot be listened at; use one like "
            "http://localhost:53593/callback or http://127.0.0.1/callback",
            reason="redirect_uri",
        )
    scheme, host, digits, rest = match.groups(default="")
    wanted = int(digits or 0)
    tries = 1 if wanted else _PORT_TRIES
    while True:
        tries -= 1
        try:
            listeners = _bind_all(_ADDRESSES[host.lower()], wanted)
        except OSError as error:
            if tries and error.errno == errno.EADDRINUSE:  # free in one family only
                continue
            raise _cannot_bind(error, wanted, host) from None
        port = listeners[0].getsockname()[1]
        return listeners, f"{scheme}{host}:{digits if wanted else port}{rest}"


def _bind_all(
    addresses: tuple[tuple[socket.AddressFamily, str], ...], port: int
) -> list[socket.socket]:
    """All of *addresses* on one port, or none; a family that the host lacks is left out."""
    listeners: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, host in addresses:
            try:
                listeners.append(_bind_one(family, host, port))
            except OSError as error:
                if error.errno not in _NO_FAMILY:
                    raise
                missing = error
            else:
                port = listeners[-1].getsockname()[1]
        if missing is not None and not listeners:
            raise missing
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _bind_one(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":  # there SO_REUSEADDR would let others take the port over
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:  # the port is free again although old connections linger; a second bind still fails
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setblocking(False)
        listener.bind((host, port))
        listener.listen(128)  # not before this is the port surely ours
    except OSError:
        listener.close()
        raise
    return listener


def _cannot_bind(error: OSError, port: int, host: str) -> ConfigError:
    elsewhere = "or log in with authType DeviceFlow"
    if error.errno in _NO_FAMILY:
        return ConfigError(
            f"this machine has no loopback address {host}; use the other of 127.0.0.1 and [::1] "
            f"in redirect_uri, {elsewhere}",
            reason="no_loopback",
        )
    if error.errno == errno.EACCES and sys.platform != "win32":
        return ConfigError(
            f"port {port} of redirect_uri may not be used without privileges; use one above 1023, "
            f"{elsewhere}",
            reason="port_denied",
        )
    return ConfigError(
        f"port {port} of redirect_uri is in use by another program; close that program, "
        f"{elsewhere}",
        reason="port_in_use",
    )
