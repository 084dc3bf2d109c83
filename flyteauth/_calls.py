"""Calls to the control plane, and who it takes us for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import frozen

from ._io.proxy_credential import is_refusal
from ._own_command import to_run
from ._sansio.connect import read_reply, unary_request
from ._sansio.errors import cut
from ._sansio.flow import RequestFailed, ResponseReceived, failure
from ._sansio.http import Object, Request, member
from ._sansio.record import Record
from ._setup import Setup
from .errors import ConfigError
from .session import Identity

USER_INFO: Final = "/flyteidl2.auth.IdentityService/UserInfo"

NEW: Final = 60.0  # seconds for which a login is one

# Where nobody logs in.
_ADVICE: Final[Mapping[str, str]] = {
    "ClientSecret": "check that the client is for this endpoint, and its scopes and audience",
    "ExternalCommand": "check what the command of admin.command prints, and for which endpoint",
    "Passthrough": "pass another token",
}


@frozen
class Reply:
    """What came back, still to be read."""

    request: Request
    received: ResponseReceived
    advice: str = "log in again"
    """What to do about credentials that were not taken."""

    @property
    def refused(self) -> bool:
        """Whether the credentials were not taken: a 401, whatever it says (RFC 9110 §15.5.2);
        except that of a proxy, which means its own.
        """
        response = self.received.response
        return response.status == 401 and not is_refusal(response)

    def read(self) -> Object:
        """The message. Raises FlowError with the Connect code as ``reason``."""
        return read_reply(self.request, self.received, refused=self.advice)

    def identity(self) -> Identity | None:
        """The message as flyteidl2.auth.UserInfoResponse."""
        message = self.read()
        subject = member(message, "subject")
        if subject is None:
            return None
        names = ("name", "preferredUsername", "email")
        name, preferred_username, email = (member(message, key) or "" for key in names)
        return Identity(*map(cut, (subject, name, preferred_username, email)))


async def send(
    setup: Setup,
    headers: Mapping[str, str],
    procedure: str,
    message: object,
    record: Record | None = None,
) -> Reply:
    """One unary call over Connect, in JSON. Raises FlowError if nothing comes back.

    *record*: the login that this began with, whose token may have been renewed since.
    """
    endpoint = setup.settings.endpoint
    if endpoint is None:
        raise ConfigError(
            "this session has an issuer but no Flyte endpoint; pass endpoint=", reason="endpoint"
        )
    request = unary_request(endpoint.url, procedure, message, tuple(headers.items()))
    answer = await setup.transport.send(request)
    if isinstance(answer, RequestFailed):
        raise failure(request, answer)
    advice = _ADVICE.get(setup.settings.auth_type) or _advice(setup, record)
    return Reply(request, answer, advice)


def _advice(setup: Setup, record: Record | None) -> str:
    """Another login is of no use where a new one is not taken."""
    if record is None or setup.clock.time() - record.token.obtained_at >= NEW:
        return "log in again"
    doctor = to_run(setup.settings, "doctor")
    if record.generation:  # how old the login is, nothing says
        return f"log in again, or if you just have, run: {doctor}"
    return (
        f"it does not take this login, though that is new; run: {doctor}, or ask whoever runs the "
        "control plane"
    )
