"""
Device authorization grant, RFC 8628::

    Authorizing ─► Prompting ─► Waiting ◄─► Polling ─► Done
"""

from __future__ import annotations

import math
import re
from typing import Final, assert_never

from attrs import evolve, field, frozen

from .client import Client, join_scopes
from .errors import (
    TEXT_MAX,
    Expired,
    InvalidResponse,
    OAuth2Error,
    UnexpectedEvent,
    Unreachable,
)
from .flow import (
    Done,
    Effect,
    Event,
    Flow,
    RequestFailed,
    ResponseReceived,
    SendRequest,
    ShowUserCode,
    TimeReached,
    UserCodeShown,
    WaitUntil,
    failure,
)
from .http import Object, Request, ascii_url, is_secure, known, origin, required, seconds
from .id_token import check
from .tokens import Token, parse_success, parse_token

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:device_code"
LIFETIME_MAX: Final = 1800.0
BACKOFF_MAX: Final = 60.0
USER_CODE_MAX: Final = 64


@frozen
class DeviceCode:
    """Device authorization response, §3.2."""

    device_code: str = field(repr=False)
    user_code: str
    verification_uri: str
    verification_uri_complete: str | None
    expires_at: float
    interval: float


def parse_device_code(received: ResponseReceived, plain_host: str | None = None) -> DeviceCode:
    """§3.2; raises OAuth2Error, InvalidResponse or Unreachable."""
    body = parse_success(received)
    lifetime = seconds(known(body, "expires_in"))
    if lifetime is None:
        raise _unusable("expires_in")
    verification_uri = _uri(required(body, "verification_uri"), plain_host)
    return DeviceCode(
        device_code=required(body, "device_code"),
        user_code=_user_code(required(body, "user_code")),
        verification_uri=verification_uri,
        verification_uri_complete=_complete(body, verification_uri, plain_host),
        expires_at=received.sent_at + min(lifetime, LIFETIME_MAX),
        interval=_interval(known(body, "interval")),
    )


_NUMBER: Final = re.compile(r"\s*[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?\s*", re.ASCII)


def _interval(value: object) -> float:
    """How long to wait between polls: in whole seconds, and never shorter than the server says;
    5 where it does not say (§3.2), or says what is no positive number.
    """
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return 5.0
    if value > LIFETIME_MAX:
        raise _unusable("interval")
    return float(math.ceil(value))


# What nobody sees, beside what is not printable: fillers, variation selectors, blanks (Unicode's
# Default_Ignorable_Code_Point, and an empty pattern of Braille).
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)


def _user_code(code: str) -> str:
    """A code that is safe to print, can be seen, and is short enough to type (§6.1)."""
    visible = code.isprintable() and code.strip() and not _INVISIBLE.search(code)
    if len(code) > USER_CODE_MAX or not visible:
        raise _unusable("user_code")
    return code


def _uri(uri: str, plain_host: str | None) -> str:
    """A verification URI that is safe to show and to open (§5.4), and can be shown whole: half of
    an address leads elsewhere.
    """
    uri = ascii_url(uri)
    if len(uri) > TEXT_MAX or not is_secure(uri, plain_host):
        raise _unusable("verification_uri")
    return uri


def _complete(body: Object, verification_uri: str, plain_host: str | None) -> str | None:
    """verification_uri_complete, never invented, and dropped if it leads elsewhere (§3.3.1)."""
    complete = known(body, "verification_uri_complete")
    if not isinstance(complete, str) or len(complete) > TEXT_MAX:
        return None
    if not is_secure(complete, plain_host):
        return None
    return complete if origin(complete) == origin(verification_uri) else None


def _unusable(name: str) -> InvalidResponse:
    return InvalidResponse(
        f"the device authorization response has no usable {name}; "
        "report this to whoever runs the server",
        reason=name,
    )


# States, in the order a flow visits them.


@frozen
class Authorizing:
    """Asking for a device code."""


@frozen
class Prompting:
    """Showing the user code."""

    code: DeviceCode


@frozen
class Waiting:
    """Leaving the user, and the token endpoint, alone until ``poll_at``."""

    code: DeviceCode
    poll_at: float
    failures: int = 0


@frozen
class Polling:
    """Asking whether the user is done; ``failures`` polls in a row had no answer."""

    code: DeviceCode
    failures: int = 0


State = Authorizing | Prompting | Waiting | Polling
STATES: Final = (Authorizing, Prompting, Waiting, Polling)


@frozen
class DeviceAuthorization(Flow[State, Token]):
    """A flow that ends with a Token.

    *verified* says whether TLS certificates are checked: an ID token's signature may only be
    skipped if they are.
    """

    client: Client
    scopes: tuple[str, ...] = ()
    verified: bool = True

    def start(self) -> State:
        return Authorizing()

    def effect(self, state: State) -> Effect:
        match state:
            case Authorizing():
                return SendRequest(self._device_authorization_request())
            case Prompting(code):
                return ShowUserCode(
                    code.user_code,
                    code.verification_uri,
                    code.verification_uri_complete,
                    code.expires_at,
                )
            case Waiting(code, poll_at):
                return WaitUntil(min(poll_at, code.expires_at))
            case Polling(code):
                return SendRequest(self._token_request(code))
            case _:
                assert_never(state)

    def advance(self, state: State, event: Event) -> State | Done[Token]:
        match state, event:
            # §3.2: "In response, the authorization server generates a unique device
            # verification code and an end-user code"
            case Authorizing(), ResponseReceived():
                return Prompting(parse_device_code(event, self.client.plain_host))
            case Authorizing(), RequestFailed():
                raise failure(self._device_authorization_request(), event)

            # §3.3: "the client displays or otherwise communicates the user_code and
            # the verification_uri to the end user"
            case Prompting(code), UserCodeShown(at):
                return _wait(code, code.interval, at)

            # §3.5: "the client MUST wait ... seconds between polling requests"
            case Waiting(code, poll_at, failures), TimeReached(at):
                if at >= code.expires_at:
                    raise _expired()
                return state if at < poll_at else Polling(code, failures)

            case Polling(code, failures), ResponseReceived(at=at):
                try:
                    token = parse_token(event, self.client, self.scopes)
                except OAuth2Error as error:
                    match error.error:
                        # "the authorization request is still pending"
                        case "authorization_pending":
                            return _wait(code, code.interval, at)
                        # "the interval MUST be increased by 5 seconds for this and all
                        # subsequent requests"
                        case "slow_down":
                            code = evolve(code, interval=code.interval + 5)
                            return _wait(code, code.interval, at)
                        case "expired_token":
                            raise _expired() from None
                    raise
                except Unreachable as error:
                    return _back_off(code, failures, at, error.retry_after or 0.0)
                except InvalidResponse as error:
                    if error.reason not in {"not_json", "redirect", "status"}:
                        raise
                    return _back_off(code, failures, at)  # no OAuth error, no verdict
                if "openid" not in self.scopes:
                    token = token.replace(id_token=None)  # nobody asked for it, nobody checks it
                if token.id_token is not None:
                    check(token, self.client, nonce=None, at=at, verified=self.verified)
                return Done(token)

            # "On encountering a connection timeout, clients MUST unilaterally reduce their
            # polling frequency"
            case Polling(code, failures), RequestFailed(at=at):
                refusal = failure(self._token_request(code), event)
                if not isinstance(refusal, Unreachable) or refusal.reason == "tls":
                    raise refusal
                return _back_off(code, failures, at)

        raise UnexpectedEvent(state, event)

    def resume(self, state: State, at: float) -> State:
        """Go on from a saved state: a polling one waits first, for its poll may just have been
        sent. Raises Expired if the time is over.
        """
        match state:
            case Authorizing():
                return state
            case Prompting(code) | Waiting(code) | Polling(code):
                if at >= code.expires_at:
                    raise _expired()
                if isinstance(state, Polling):
                    return Waiting(code, at + code.interval, state.failures)
                return state
            case _:
                assert_never(state)

    def _device_authorization_request(self) -> Request:
        """§3.1."""
        url = self.client.server.endpoint("device_authorization_endpoint")
        self.client.server.endpoint("token_endpoint")  # not only after the user has logged in
        form = {
            "client_id": self.client.client_id,
            "scope": join_scopes(self.scopes),
            "audience": self.client.audience,
        }
        return self.client.authenticated(url, form, extra="device_authorization")

    def _token_request(self, code: DeviceCode) -> Request:
        """§3.4."""
        return self.client.token_request(GRANT_TYPE, device_code=code.device_code)


def _wait(code: DeviceCode, pause: float, at: float) -> Waiting:
    return Waiting(code, at + pause)


def _back_off(code: DeviceCode, failures: int, at: float, asked: float = 0.0) -> Waiting:
    """§3.5: "The use of an exponential backoff algorithm ... is RECOMMENDED"."""
    most = max(BACKOFF_MAX, code.interval)
    pause = min(code.interval * 2.0 ** min(failures + 1, 16), most)
    return Waiting(code, at + max(pause, asked), failures + 1)


def _expired() -> Expired:
    return Expired("the code was not approved in time; log in again to get a new one")
