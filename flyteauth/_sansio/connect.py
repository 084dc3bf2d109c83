"""One unary call over the Connect protocol, in JSON: what Flyte 2's control plane speaks."""

from __future__ import annotations

from .challenges import bearer_error
from .discovery import at
from .errors import FlowError, InsufficientScope, InvalidResponse, quote
from .flow import ResponseReceived
from .http import Headers, Object, Request, host_of, member, parse_object, post_json
from .tokens import raise_failure, transient


def unary_request(endpoint: str, procedure: str, message: object, headers: Headers) -> Request:
    """*procedure* is ``/package.Service/Method``."""
    version = ("connect-protocol-version", "1")
    return post_json(at(endpoint, procedure), message, (version, *headers))


def read_reply(
    request: Request, received: ResponseReceived, *, refused: str = "log in again"
) -> Object:
    """The reply message. Raises FlowError with the Connect code as its ``reason``, Unreachable
    for what may work later, and InvalidResponse for what is not Connect at all. *refused* says what
    to do about a token that was not taken.
    """
    response = received.response
    if response.status == 200:
        return parse_object(response, host_of(request.url))
    if 300 <= response.status < 400:
        raise_failure(received)
    try:
        body = parse_object(response)
        code = member(body, "code")
        message = member(body, "message")
    except InvalidResponse:
        code = message = None
    if response.status == 403:
        fields = [value for name, value in response.headers if name.lower() == "www-authenticate"]
        error, scopes = bearer_error(fields)
        if error == "insufficient_scope":  # RFC 6750 §3.1
            raise InsufficientScope(tuple(scopes))
    if response.transient and code not in {"unimplemented", "internal", "unknown", "data_loss"}:
        raise transient(received)
    if code is None and response.status == 404:  # what Connect means by that
        raise InvalidResponse(
            f"{host_of(request.url)} has no such call; check that the endpoint is a Flyte 2 "
            "control plane that offers it",
            reason="unimplemented",
        )
    if code is None:
        raise InvalidResponse(
            f"{host_of(request.url)} answered with status {response.status} and no reason; "
            "check the endpoint, or what stands in between",
            reason="status",
        )
    said = f" ({quote(message)})" if message else ""
    hints = {**_HINTS, "unauthenticated": refused}
    hint = hints.get(code, "report this to whoever runs it")
    code = quote(code, 40)
    raise FlowError(f"the control plane answered {code}{said}; {hint}", reason=code)


_HINTS = {
    "invalid_argument": "check the arguments",
    "not_found": "check the name",
    "already_exists": "choose another name",
    "failed_precondition": "it cannot be done as things are",
    "permission_denied": "ask for the permission, or log in as somebody else",
    "unimplemented": "check that the endpoint is a Flyte 2 control plane",
}
