"""What the control plane proves itself with, and whether that is its own certificate."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from .._io.explain import explain_system, explain_tls
from .._io.threads import run_in_daemon
from .._io.tls import tls_context
from .._sansio.errors import quote
from ..errors import ConfigError
from . import sources
from .finding import Finding, of_error
from .network import proxy_of
from .patient import Patient

DEADLINE: Final = 8.0  # seconds
HANDSHAKE_DEADLINE: Final = 4.0  # seconds for each of two
DAYS_MIN: Final = 14

# Who issues certificates in place of others: products that look into TLS.
_INSPECTORS: Final = tuple(
    "zscaler|netskope|fortinet|fortigate|palo alto|blue coat|bluecoat|symantec web|forcepoint|"
    "websense|sophos|check point|barracuda|mcafee|skyhigh|trellix|cisco umbrella|menlo security|"
    "iboss|cato networks|watchguard|sonicwall|kaspersky|bitdefender|avast|eset ssl|mitmproxy|"
    "charles proxy|fiddler|portswigger|squid".split("|")
)


@frozen
class Seen:
    """A handshake: whether it was trusted, and whose certificate it was."""

    problem: str = ""
    code: int = 0
    issuer: str = ""
    root: str = ""
    expires_at: float | None = None
    reachable: bool = True


async def certificate(patient: Patient) -> Finding:
    name, settings = "TLS", patient.settings
    assert settings is not None
    assert patient.setup is not None
    scheme, host, port = patient.server
    if scheme == "http":
        return Finding(name, "skip", "none: plain HTTP within this machine")
    try:
        proxied = await proxy_of(patient) is not None
        context = await run_in_daemon(_context, settings.ca_file, deadline=DEADLINE)
    except ConfigError as error:
        return of_error(name, error)
    if proxied:
        return await _through_proxy(name, patient)
    seen = await run_in_daemon(_look, context, host, port, deadline=DEADLINE)
    if not seen.reachable:
        return Finding(name, "skip", f"no handshake with {host}: {seen.problem}")
    if seen.problem and patient.setup.verified:
        return _untrusted(name, host, seen)
    if not patient.setup.verified:
        return Finding(
            name,
            "warn",
            f"certificates are not checked (insecureSkipVerify, "
            f"{sources.spoken(settings.sources['insecure_skip_verify'])}); it is of "
            f"{quote(seen.issuer or 'an unknown authority', 80)}",
            "set caCertFilePath (--ca-cert) instead, or whoever is in between can take the login",
        )
    return _trusted(name, host, seen, settings.ca_file)


async def _through_proxy(name: str, patient: Patient) -> Finding:
    """What the requests have met; a handshake of our own would need the proxy's tunnel."""
    await patient.talk.over.wait()
    error = patient.talk.error
    if error is not None and error.reason == "tls":
        return of_error(name, error)
    if any(said.response is not None for said in patient.talk.said):
        return Finding(name, "ok", "the certificate is trusted, through the proxy")
    return Finding(name, "skip", "nothing came through the proxy")


def _trusted(name: str, host: str, seen: Seen, ca_file: Path | None) -> Finding:
    by = "" if ca_file is None else f", trusted as {ca_file} says (caCertFilePath)"
    inspected = _inspector(seen)
    if inspected:
        by += f"; that looks like inspection by a company proxy ({inspected}), which is trusted"
    issuer = quote(seen.issuer or "an unknown authority", 80)
    left = None if seen.expires_at is None else (seen.expires_at - time.time()) / 86400
    text = f"{host} has a certificate of {issuer}{by}"
    if left is None:
        return Finding(name, "ok", text)
    if left < DAYS_MIN:
        fix = f"have whoever runs {host} renew it"
        return Finding(name, "warn", f"{text}; it ends in {left:.0f} days", fix)
    return Finding(name, "ok", f"{text}; {left:.0f} days left")


def _untrusted(name: str, host: str, seen: Seen) -> Finding:
    issuer = quote(seen.issuer or "an unknown authority", 80)
    text = f"the certificate of {host} is not trusted: {seen.problem} (issuer {issuer})"
    match seen.code:
        case 10:  # X509_V_ERR_CERT_HAS_EXPIRED
            fix = f"check this machine's clock, or have whoever runs {host} renew it"
        case 62 | 64:  # X509_V_ERR_HOSTNAME_MISMATCH, …_IP_ADDRESS_MISMATCH
            fix = "check how the endpoint is spelled"
        case _:
            inspected = _inspector(seen)
            kind = f"a company proxy ({inspected}) looks into TLS here" if inspected else ""
            kind = kind or "it is of a private authority, or a company proxy looks into TLS here"
            text = f"{text}; {kind}"
            fix = (
                f"set caCertFilePath to a PEM file of {quote(seen.root or seen.issuer, 80)}; "
                "to try it: flyteauth doctor --ca-cert FILE"
            )
    return Finding(name, "fail", text, fix)


def _inspector(seen: Seen) -> str:
    said = f"{seen.issuer} {seen.root}".lower()
    return next((known for known in _INSPECTORS if known in said), "")


# Handshakes, which block.


def _context(ca_file: Path | None) -> ssl.SSLContext:
    return tls_context(ca_file, verify=True)


def _look(context: ssl.SSLContext, host: str, port: int) -> Seen:
    """Shake hands as a login would; if that fails, once more to see with whom."""
    try:
        return _shake(context, host, port)
    except ssl.SSLCertVerificationError as error:
        problem, code = explain_tls(error), error.verify_code
    except ssl.SSLError as error:
        return Seen(explain_tls(error), reachable=False)
    except TimeoutError:
        return Seen(f"no answer within {HANDSHAKE_DEADLINE:g} s", reachable=False)
    except OSError as error:
        return Seen(explain_system(error), reachable=False)
    with suppress(OSError):
        anybody = tls_context(None, verify=False)
        seen = _shake(anybody, host, port)
        return Seen(problem, code, seen.issuer, seen.root, seen.expires_at)
    return Seen(problem, code)


def _shake(context: ssl.SSLContext, host: str, port: int) -> Seen:
    with (
        socket.create_connection((host, port), HANDSHAKE_DEADLINE) as raw,
        context.wrap_socket(raw, server_hostname=host) as tls,
    ):
        chain = list(_chain(tls))
    first: Any = chain[0] if chain else {}
    last: Any = chain[-1] if chain else {}
    expires_at = None
    with suppress(KeyError, ValueError, TypeError):
        expires_at = float(ssl.cert_time_to_seconds(first["notAfter"]))
    return Seen("", 0, _name(first), _name(last), expires_at)


def _chain(tls: ssl.SSLSocket) -> Iterator[Any]:
    """The certificates that were shown, as dicts. Where Python has no way to say, the first."""
    with suppress(AttributeError, TypeError, ssl.SSLError):
        for each in tls._sslobj.get_unverified_chain():  # type: ignore[attr-defined]  # noqa: SLF001
            yield each.get_info()
        return
    if found := tls.getpeercert():
        yield found


def _name(info: Any) -> str:
    """The issuer's name, in one line."""
    with suppress(KeyError, TypeError, ValueError):
        return ", ".join(value for part in info["issuer"] for _, value in part)
    return ""
