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
_ANYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104  # what a user may ask for


def bind(
    redirect_uri: str, callback_bind: tuple[str, int | None] | None = None
) -> tuple[list[socket.socket], str]:
    """Listening sockets for *redirect_uri*, and that URI with the port they have.

    *callback_bind* is an address, and maybe a port, to listen at instead: it may be beyond this
    machine's own, and somebody else has to forward the redirect there. Raises ConfigError, with
    one of OBSTACLES as its reason if only this listener cannot be had.
    """
    match = _REDIRECT_URI.fullmatch(redirect_uri)
    if match is None or not is_secure(redirect_uri):
        raise ConfigError(
            f"redirect_uri {quote(redirect_uri)!r} cannot be listened at; use one like "
            "http://localhost:53593/callback or http://127.0.0.1/callback",
            reason="redirect_uri",
        )
    scheme, host, digits, rest = match.groups(default="")
    wanted = int(digits or 0)
    if callback_bind is not None:
        address, port = callback_bind
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listeners = _bind(((family, address),), port or wanted, address, "callbackBind")
        digits = digits if wanted else str(port or listeners[0].getsockname()[1])
        return listeners, f"{scheme}{host}:{digits}{rest}"
    try:
        listeners = _bind(_ADDRESSES[host.lower()], wanted, host)
    except ConfigError as error:
        if wanted or host != "127.0.0.1" or error.reason != "no_loopback":
            raise
        # RFC 8252 §7.3: the port is ours to choose, and so is the family.
        host = "[::1]"
        listeners = _bind((_IPV6,), 0, host)
    port = listeners[0].getsockname()[1]
    return listeners, f"{scheme}{host}:{digits if wanted else port}{rest}"


def _bind(
    addresses: tuple[tuple[socket.AddressFamily, str], ...],
    port: int,
    host: str,
    setting: str = "redirect_uri",
) -> list[socket.socket]:
    """All of *addresses* on one port; 0: any that is free in all of them."""
    tries = 1 if port else _PORT_TRIES
    while True:
        tries -= 1
        try:
            return _bind_all(addresses, port)
        except OSError as error:
            if tries and error.errno == errno.EADDRINUSE:  # free in one family only
                continue
            raise _cannot_bind(error, port, host, setting) from None


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
            alone = host not in _ANYWHERE  # whoever asks for everything means both families
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(alone))
        listener.setblocking(False)
        listener.bind((host, port))
        listener.listen(128)  # not before this is the port surely ours
    except OSError:
        listener.close()
        raise
    return listener


OBSTACLES: Final = frozenset({"port_in_use", "port_denied", "no_loopback"})


def _cannot_bind(error: OSError, port: int, host: str, setting: str) -> ConfigError:
    if error.errno in _NO_FAMILY:
        if setting == "callbackBind":
            return ConfigError(
                f"this machine has no address {host}, which callbackBind names; use one that it "
                f"has, such as 0.0.0.0, {_ELSEWHERE}",
                reason="no_loopback",
            )
        return ConfigError(
            f"this machine has no loopback address {host}; use the other of 127.0.0.1 and [::1] "
            f"in redirect_uri, {_ELSEWHERE}",
            reason="no_loopback",
        )
    if error.errno == errno.EACCES and sys.platform != "win32":
        return ConfigError(
            f"port {port} of {setting} may not be used without privileges; use one above 1023, "
            f"{_ELSEWHERE}",
            reason="port_denied",
        )
    return port_in_use(port, setting=setting)


def port_in_use(
    port: int, holder: str = "another program", *, setting: str = "redirect_uri"
) -> ConfigError:
    """What a port that *holder* has means to a login."""
    return ConfigError(
        f"port {port} of {setting} is in use by {holder}; close that program, {_ELSEWHERE}",
        reason="port_in_use",
    )


_ELSEWHERE: Final = "or log in with authType DeviceFlow"
