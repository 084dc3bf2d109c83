"""What went wrong with a request, in a few words, without its URL or what httpx says of it."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from .._sansio.errors import quote
from .._sansio.flow import FailureReason
from .frames import chain

if TYPE_CHECKING:
    import ssl

# What went wrong, in a few words. Neither the URL nor what httpx says of it stands in them.


def explain(
    error: Exception, connect_timeout: float, *, sent: bool, answered: bool
) -> tuple[FailureReason, str]:
    """The reason and the words for what httpx raised: *sent* once the request was on its way,
    *answered* once an answer had begun.
    """
    import ssl

    import httpx

    causes = list(chain(error))
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    system = next((cause for cause in causes if isinstance(cause, OSError) and cause.errno), None)
    match error:
        case httpx.ConnectError() if tls is not None and not isinstance(
            tls, ssl.SSLEOFError | ssl.SSLZeroReturnError
        ):
            if tls.reason == "WRONG_VERSION_NUMBER":
                return "tls", "no TLS is spoken there (for a plain server on this machine, http://)"
            return "tls", explain_tls(tls)
        case httpx.ConnectTimeout():
            return "timeout", f"no connection within {connect_timeout:g} s"
        case httpx.ProxyError():
            status = str(error)[:3]
            return "connect", f"it answered with {status if status.isdecimal() else 'an error'}"
        case httpx.LocalProtocolError() | httpx.InvalidURL():
            return "protocol", "the request cannot be written as HTTP"
        case httpx.RemoteProtocolError() if not _says_closed(error):
            return "protocol", "the answer is not HTTP"
    if tls is None and system is not None:
        return "protocol" if sent else "connect", explain_system(system)
    if sent:
        return (
            "protocol",
            f"connection closed {'within' if answered else 'before'} the answer",
        )
    if isinstance(error, httpx.TransportError | OSError):
        return "connect", "connection closed before the request"
    return "protocol", "the request cannot be written as HTTP"


def explain_tls(error: ssl.SSLError) -> str:
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        said = error.verify_message.rstrip(".")
    else:
        said = "the TLS handshake failed: " + (error.reason or "no reason given")
        said = said.replace("_", " ").lower().replace("tls", "TLS")
    issuer = next(iter(getattr(error, "__notes__", ())), "")
    return f"{quote(said, 160)}{issuer}"


def explain_system(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return (error.strerror or "the host name is not known").lower()
    return os.strerror(error.errno or 0).lower()


def _says_closed(error: Exception) -> bool:
    """There is no class of error for a connection that ends too early."""
    return "closed" in str(error) or "disconnected" in str(error)
