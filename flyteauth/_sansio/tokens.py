"""
Token responses, RFC 6749 §5: tolerant where the world is loose, strict on ``access_token``.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn
from urllib.parse import urlsplit

from .client import Client
from .errors import FlowError, InvalidResponse, OAuth2Error, Unreachable, duration, quote
from .flow import ResponseReceived
from .http import Object, ascii_url, is_secure, known, member, parse_object, retry_after, seconds
from .token import Token as Token  # noqa: PLC0414

_B64TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750 §2.1
_VSCHAR: Final = re.compile(r"[\x20-\x7e]+")  # RFC 6749 App. A.12, A.17
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_ERROR: Final = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 §5.2
_MEMBERS: Final = frozenset(  # §5.1, §5.2
    "access_token token_type expires_in refresh_token scope id_token "
    "error error_description error_uri".split()
)


def parse_token(received: ResponseReceived, client: Client, scopes: tuple[str, ...] = ()) -> Token:
    """The token in a response of the token endpoint (§5.1).

    *scopes* are those asked for: what is granted when the response does not say (§3.3).
    Raises OAuth2Error, InvalidResponse or Unreachable.
    """
    body = parse_success(received)
    access_token = member(body, "access_token")
    alphabet = _VISIBLE if "any_token_alphabet" in client.quirks else _B64TOKEN
    if access_token is None or not alphabet.fullmatch(access_token):
        raise _malformed("access_token")
    token_type = member(body, "token_type")
    if token_type is None and "assume_bearer" in client.quirks:
        token_type = "bearer"  # noqa: S105
    if token_type is None or token_type.lower() != "bearer":  # §5.1, §7.1
        raise _malformed("token_type")
    lifetime = seconds(known(body, "expires_in"))
    granted = member(body, "scope")
    return Token(
        access_token=access_token,
        obtained_at=received.sent_at,
        expires_at=None if lifetime is None else received.sent_at + lifetime,
        refresh_token=_secret(body, "refresh_token"),
        id_token=_secret(body, "id_token"),
        scopes=tuple(sorted(set(granted.split()))) if granted else tuple(sorted(set(scopes))),
    )


def parse_success(received: ResponseReceived) -> Object:
    """The JSON object of a 200 that carries no error (§5.1, §5.2)."""
    response = received.response
    if response.status != 200:
        raise_failure(received)
    body = parse_object(response, received.host)
    _each_once(body)
    if body.get("error") is not None:
        raise_error(body, received)
    return body


def raise_failure(received: ResponseReceived) -> NoReturn:
    """What a response other than 200 means. Only a JSON error is a verdict on the grant (§5.2)."""
    response = received.response
    if 300 <= response.status < 400:
        where = _host(response.header("location") or "")
        raise InvalidResponse(
            f"{quote(received.host)} redirects to {where or 'somewhere else'} "
            f"(status {response.status}), probably a login page in between; check the endpoint and "
            "the proxy",
            reason="redirect",
        )
    try:
        body = parse_object(response)
    except InvalidResponse:
        body = Object()
    if response.transient and body.get("error") not in ("authorization_pending", "slow_down"):
        raise transient(received)
    if body.get("error") is not None:
        raise_error(body, received)
    raise InvalidResponse(
        f"{quote(received.host)} answered with status {response.status} and no OAuth error; "
        "check the endpoint, or what stands in between",
        reason="status",
    )


def raise_error(body: Object, received: ResponseReceived) -> NoReturn:
    """The error of §5.2 in *body*, or Unreachable where it only means: later (RFC 9110 §15.6)."""
    _each_once(body)
    error = body.get("error")
    if not isinstance(error, str):
        raise _malformed("error")
    if error in {"temporarily_unavailable", "server_error"}:
        raise transient(received)
    raise oauth2_error(
        error, _loose_text(body, "error_description"), _loose_text(body, "error_uri")
    )


def oauth2_error(error: str, description: str, uri: str) -> FlowError:
    """What an error code means; its page is named only if it is an https URL (§4.1.2.1, §5.2)."""
    if not _ERROR.fullmatch(error):
        return _malformed("error")
    return OAuth2Error(error, description, uri if is_secure(uri) else "")


def transient(received: ResponseReceived) -> Unreachable:
    """What a status that only means "later" is to a caller (RFC 9110 §15.6, RFC 6585 §4)."""
    wait = retry_after(received.response, received.at)
    again = "try again" if wait is None else f"try again in {duration(wait)}"
    if received.response.status == 511:  # RFC 6585 §6
        again = "the network wants a login of its own: open any page in a browser, and " + again
    return Unreachable(
        f"{quote(received.host)} is not available (status {received.response.status}); {again}",
        reason="status",
        retry_after=wait,
    )


def _each_once(body: Object) -> None:
    """No member that we know may be there twice, whatever else the body says (§3.2)."""
    for name in sorted(body.repeated & _MEMBERS):
        known(body, name)


def _loose_text(body: Object, name: str) -> str:
    value = body.get(name)
    return value if isinstance(value, str) else ""


def _secret(body: Object, name: str) -> str | None:
    """A text that goes back on the wire: visible ASCII (App. A.17); empty and null are absent."""
    value = member(body, name)
    if value is not None and not _VSCHAR.fullmatch(value):
        raise _malformed(name)
    return value


def _host(location: str) -> str:
    try:
        return quote(urlsplit(ascii_url(location)).hostname or "", 80)
    except ValueError:
        return ""


def _malformed(name: str) -> InvalidResponse:
    return InvalidResponse(
        f"the token response has no usable {name}; report this to whoever runs the server",
        reason=name,
    )
