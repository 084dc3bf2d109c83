"""Whether the control plane can be reached, through what, and what it says."""

from __future__ import annotations

import socket
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from .._io.explain import explain_system
from .._io.proxy import proxy_for, proxy_name
from .._io.threads import run_in_daemon
from .._sansio.client import AuthorizationServer
from .._sansio.discovery import OAUTH2_METADATA, WELL_KNOWN_OAUTH
from .._sansio.errors import duration, quote
from .._sansio.flow import RequestFailed, ResponseReceived
from ..config import Settings
from ..errors import ConfigError
from . import sources
from .finding import Finding, of_error
from .patient import Patient
from .talk import title

LOOKUP_DEADLINE: Final = 8.0  # seconds, for names and connections together
CONNECT_DEADLINE: Final = 2.5  # seconds for one address
ADDRESSES_MAX: Final = 3
SKEW_MAX: Final = 60.0  # seconds

_DEFAULT_PORT: Final = {"http": 80, "https": 443}


async def proxy_of(patient: Patient) -> str | None:
    """The proxy that the control plane is reached through. Raises ConfigError."""
    assert patient.settings is not None
    url, (scheme, host, port) = patient.settings.http_proxy_url, patient.server
    explicit = None if port == _DEFAULT_PORT.get(scheme) else port
    return await run_in_daemon(proxy_for, url, scheme, host, explicit, deadline=LOOKUP_DEADLINE)


async def connection(patient: Patient) -> Finding:
    """Names and connections, of the control plane or of the proxy before it."""
    name = "connection"
    _, host, port = patient.server
    try:
        proxy = await proxy_of(patient)
    except ConfigError:
        return Finding(name, "skip", "the proxy is not usable, see below")
    through = ""
    if proxy is not None:
        parts = urlsplit(proxy)
        through = "the proxy "
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        return await run_in_daemon(_connect, name, through, host, port, deadline=LOOKUP_DEADLINE)
    except TimeoutError:
        fix = "check the network and its name server, or the VPN"
        return Finding(name, "fail", f"{through}{host} is not looked up in time", fix)


def _connect(name: str, through: str, host: str, port: int) -> Finding:
    shown = f"{through}{host}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = explain_system(error) if isinstance(error, OSError) else "not a name"
        fix = "check how the endpoint is spelled, the name server, or the VPN"
        return Finding(name, "fail", f"the name {shown} is not known here ({why})", fix)
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))[:ADDRESSES_MAX]
    why = ""
    for address in addresses:
        try:
            socket.create_connection((address, port), CONNECT_DEADLINE).close()
        except TimeoutError:
            why = why or f"no connection within {CONNECT_DEADLINE:g} s"
        except OSError as error:
            why = why or explain_system(error)
        else:
            return Finding(name, "ok", f"{shown} ({address}) answers at port {port}")
    return Finding(
        name,
        "fail",
        f"{shown} ({', '.join(addresses)}) does not answer at port {port}: {why}",
        "check the port, the VPN and the firewall, or set httpProxyURL if a proxy leads there",
    )


async def proxy(patient: Patient) -> Finding:
    name, settings = "proxy", patient.settings
    assert settings is not None
    _, host, _ = patient.server
    try:
        used = await proxy_of(patient)
    except ConfigError as error:
        return of_error(name, error)
    second = " with a credential of its own (proxyCommand)" if settings.proxy_command else ""
    if used is None:
        return Finding(name, "ok", f"none: {host} is reached directly{second}")
    source = "the environment"
    if settings.http_proxy_url is not None:
        source = sources.spoken(settings.sources["http_proxy_url"])
    text = f"{host} is reached through {proxy_name(used)}, from {source}{second}"
    await patient.talk.over.wait()
    for said in patient.talk.said:
        if isinstance(said.outcome, RequestFailed) and "through the proxy" in said.outcome.text:
            fix = "check the proxy, or list the host in NO_PROXY if it needs none"
            return Finding(name, "fail", f"{text}: {quote(said.outcome.text)}", fix)
    return Finding(name, "ok", text)


async def discovery(patient: Patient) -> Finding:
    """Which protocol answered, whether a login is wanted, and which ways there are."""
    name, talk, settings = "login server", patient.talk, patient.settings
    assert settings is not None
    await talk.over.wait()
    if talk.error is not None or talk.target is None:
        return _unanswered(name, patient)
    server = talk.target.server
    if server is None:
        return Finding(name, "ok", f"none: {_where(settings)} wants no login{_protocol(patient)}")
    ways = _ways(server)
    if settings.auth_type == "DeviceFlow" and server.device_authorization_endpoint is None:
        text = f"{_where(settings)} has no device authorization, which authType DeviceFlow needs"
        return Finding(name, "fail", text, "choose another authType, like Pkce")
    text = f"{quote(server.issuer or _where(settings))} logs in by {ways}{_protocol(patient)}"
    return Finding(name, "ok", text)


def _unanswered(name: str, patient: Patient) -> Finding:
    assert patient.settings is not None
    talk, where = patient.talk, _where(patient.settings)
    if (page := talk.page) is not None:
        called = f", title {title(page)!r}" if title(page) else ""
        return Finding(
            name,
            "fail",
            f"something between you and {where} answered with a web page "
            f"(status {page.status}{called}), or the endpoint is a web console",
            "check the endpoint; if a gateway in front wants a login, set proxyCommand",
        )
    if talk.error is not None:
        return of_error(name, talk.error)
    for said in reversed(talk.said):
        if isinstance(said.outcome, RequestFailed):
            why = quote(said.outcome.text)
            return Finding(name, "fail", f"{where} does not answer: {why}", "try again later")
    return Finding(name, "fail", f"{where} does not answer in time", "try again later")


def _where(settings: Settings) -> str:
    return settings.endpoint.key if settings.endpoint is not None else str(settings.issuer)


def _ways(server: AuthorizationServer) -> str:
    ways = []
    if server.authorization_endpoint is not None:
        ways.append("browser (PKCE)")
    if server.device_authorization_endpoint is not None:
        ways.append("device code")
    return " or ".join([*ways, "client secret"])


def _protocol(patient: Patient) -> str:
    """Who answered: Flyte 2 speaks Connect, Flyte 1 has an HTTP gateway (flyte-wire §1). What is
    no endpoint of Flyte's is neither.
    """
    if patient.settings is None or patient.settings.endpoint is None:
        return ""
    for said in patient.talk.said:
        response, path = said.response, urlsplit(said.request.url).path
        if response is not None and response.status == 200:
            if path.endswith(OAUTH2_METADATA):
                return "; it speaks Connect (Flyte 2)"
            if WELL_KNOWN_OAUTH in path:
                return "; it speaks HTTP (Flyte 1)"
    return ""


async def clock(patient: Patient) -> Finding:
    """The Date header (RFC 9110 §6.6.1) beside our clock."""
    name = "clock"
    await patient.talk.over.wait()
    for said in patient.talk.said:
        if isinstance(said.outcome, ResponseReceived):
            skew = _skew(said.outcome)
            if skew is not None:
                return _judged(name, said.outcome.host, skew)
    return Finding(name, "skip", "no answer says what time it is there")


def _skew(received: ResponseReceived) -> float | None:
    """How many seconds we are ahead; no more than the answer's way could explain is 0."""
    try:
        there = parsedate_to_datetime(received.response.header("date") or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    if received.sent_at - 1 <= there <= received.at:  # the header has whole seconds
        return 0.0
    return received.at - there if there > received.at else received.sent_at - there


def _judged(name: str, host: str, skew: float) -> Finding:
    if abs(skew) < 2:
        return Finding(name, "ok", f"agrees with that of {quote(host, 80)}")
    way = "ahead of" if skew > 0 else "behind"
    if abs(skew) <= SKEW_MAX:
        return Finding(name, "ok", f"{abs(skew):.0f} s {way} that of {quote(host, 80)}")
    return Finding(
        name,
        "warn",
        f"this machine's clock is {duration(abs(skew))} {way} that of {quote(host, 80)}, so tokens "
        "seem to end at the wrong time",
        "set the clock: sudo timedatectl set-ntp true",
    )
