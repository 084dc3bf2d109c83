"""
The grants that are one request and one response: client credentials (RFC 6749 §4.4), refresh
(§6), and revocation (RFC 7009).
"""

from __future__ import annotations

from typing import Final, Literal

from .client import Client, join_scopes
from .errors import ConfigError, InvalidResponse
from .flow import Backoff, Exchange, ResponseReceived
from .id_token import OUT_OF_TIME, check_refreshed, unverified
from .tokens import Token, parse_token, raise_failure

# Callers wait for a renewal: a server that wants to be left alone for longer is an error that
# says so.
BACKOFF: Final = Backoff(retry_after_max=10.0)


def client_credentials(client: Client, scopes: tuple[str, ...] = ()) -> Exchange[Token]:
    """RFC 6749 §4.4.2. A refresh token in the response is dropped (§4.4.3)."""
    request = client.token_request(
        "client_credentials", scope=join_scopes(scopes), audience=client.audience
    )

    def parse(received: ResponseReceived) -> Token:
        return parse_token(received, client, scopes).without_refresh_token()

    return Exchange(request, parse)


def refresh(
    client: Client, token: Token, scopes: tuple[str, ...] = (), *, verified: bool = True
) -> Exchange[Token]:
    """RFC 6749 §6. *scopes* may only narrow what *token* was granted; none asks for the same.

    What the response does not send again still holds: the refresh token, the scopes, the ID token,
    which also stays where the new one is out of its time. *verified* says whether TLS certificates
    are checked. Where they are not, a login with an ID token is not refreshed: the new one could
    not be accepted, and the refresh token would be spent for nothing.
    """
    before = token.id_token if "openid" in token.scopes else None
    if before is not None and not verified:  # OpenID Connect Core §3.1.3.7 item 6
        raise unverified()
    if wider := sorted(set(scopes) - set(token.scopes)):
        raise ConfigError(
            f"scopes {', '.join(wider)} were not granted at login; log in again to ask for them",
            reason="scopes",
        )
    request = client.token_request(
        "refresh_token", refresh_token=token.refresh_token, scope=join_scopes(scopes)
    )

    def parse(received: ResponseReceived) -> Token:
        fresh = parse_token(received, client, scopes or token.scopes)
        if before is None:
            fresh = fresh.replace(id_token=None)  # nobody asked for it, nobody checks it
        elif fresh.id_token is not None:
            try:
                check_refreshed(fresh, before, client, at=received.at)
            except InvalidResponse as error:
                # The refresh token may just have been rotated: a clock that is wrong must not
                # cost the login, only what it cannot date.
                if error.reason not in OUT_OF_TIME:
                    raise
                fresh = fresh.replace(id_token=None)
        return fresh.succeeding(token)

    return Exchange(request, parse)


Revocable = Literal["refresh_token", "access_token"]


def revoke(client: Client, kind: Revocable, secret: str) -> Exchange[None]:
    """RFC 7009 §2.1. Any 200 is success (§2.2); 503 means that the token is still alive."""
    url = client.server.endpoint("revocation_endpoint")
    request = client.authenticated(url, {"token": secret, "token_type_hint": kind})

    def parse(received: ResponseReceived) -> None:
        if received.response.status != 200:
            raise_failure(received)

    return Exchange(request, parse)
