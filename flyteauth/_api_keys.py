"""API keys, which are services of Union's control plane: OAuth clients with a secret."""

from __future__ import annotations

import re
from datetime import datetime

from attrs import field, frozen

from ._procedures import (
    API_KEYS,
    PAGE,
    Call,
    Json,
    Listing,
    chosen,
    malformed,
    message,
    messages,
    text,
)
from ._sansio.errors import quote
from .errors import ConfigError, FlowError, MissingMetadata
from .session import Session


@frozen
class CreatedApiKey:
    """A new API key, with its secret, which the control plane never shows again.

    ``endpoint`` and ``org`` are where it was created; ``created_at``: POSIX seconds, if known.
    """

    client_id: str
    name: str
    client_secret: str = field(repr=False)
    created_at: float | None = None
    endpoint: str = ""
    org: str | None = None

    def encoded(self, endpoint: str | None = None, org: str | None = None) -> str:
        """The API key as text, to be kept as a secret: for ``init(api_key=)`` or $FLYTE_API_KEY.

        Raises ConfigError if the parts do not fit into one text.
        """
        from ._sansio.api_key import ApiKey as Parts

        parts = Parts(
            endpoint or self.endpoint, self.client_id, self.client_secret, org or self.org
        )
        return parts.encode()

    @property
    def warning(self) -> str | None:
        """One line on who cannot use this key, or None."""
        from base64 import b64decode

        # flyte splits at each colon, and so takes a port or a scheme for the next part.
        if b64decode(self.encoded()).count(b":") == 3:
            return None
        return (
            "the endpoint has a port or is plain http, so this key is not usable by "
            "flyte.init(api_key=), which takes host:client_id:client_secret:org in base64; use it "
            "with flyteauth, or reach the endpoint by its host name alone (https, port 443)"
        )


@frozen
class ApiKey:
    """An API key of the control plane: a service, without its secret.

    ``created_at``: POSIX seconds, if known.
    """

    client_id: str
    name: str
    created_at: float | None = None

    @classmethod
    def listall(cls, *, session: Session | None = None) -> Listing[ApiKey]:
        """All API keys."""

        async def fetch(token: str) -> tuple[list[ApiKey], str]:
            wanted = {"request": {"limit": PAGE, "token": token}}
            reply = await _api_keys(chosen(session), "List", wanted)
            return [cls._parse(app) for app in messages(reply, "apps")], text(reply, "token")

        return Listing(fetch)

    @classmethod
    def get(cls, name: str, *, session: Session | None = None) -> Call[ApiKey]:
        """The API key of that name, or client id. FlowError "not_found" if there is none."""
        return Call(cls._get(name, chosen(session)))

    @classmethod
    def create(cls, name: str, *, session: Session | None = None) -> Call[CreatedApiKey]:
        """A new API key. FlowError "already_exists" if the name is taken."""
        return Call(cls._create(name, chosen(session)))

    @classmethod
    def delete(cls, name: str, *, session: Session | None = None) -> Call[ApiKey]:
        """Delete an API key, by name or client id: its secret and its tokens end. Returns what it
        was; FlowError "not_found" if there is none.
        """
        return Call(cls._delete(name, chosen(session)))

    @classmethod
    async def _get(cls, name: str, session: Session) -> ApiKey:
        try:  # as it is, for whoever has copied a client id
            reply = await _api_keys(session, "Get", {"clientId": name}, name)
        except FlowError as error:
            if error.reason != "not_found" or _client_id(name) == name:
                raise
            reply = await _api_keys(session, "Get", {"clientId": _client_id(name)}, name)
        return cls._parse(message(reply, "app"))

    @classmethod
    async def _create(cls, name: str, session: Session) -> CreatedApiKey:
        client_id = _client_id(name)
        if not client_id.strip("-"):
            raise ConfigError(
                "the name of an API key needs letters or digits; choose one like my-ci-key",
                reason="name",
            )
        settings = await session.settings()
        if settings.endpoint is None:
            raise ConfigError("an API key is for an endpoint; pass endpoint=", reason="endpoint")
        wanted = {
            "clientId": client_id,
            "clientName": name,
            # An app that only has CLIENT_CREDENTIALS would do, but this is what others create.
            "redirectUris": ["http://localhost:8080/authorization-code/callback"],
            "responseTypes": ["CODE"],
            "grantTypes": ["CLIENT_CREDENTIALS", "AUTHORIZATION_CODE"],
            "tokenEndpointAuthMethod": "CLIENT_SECRET_BASIC",
            "consentMethod": "CONSENT_METHOD_REQUIRED",
        }
        app = message(await _api_keys(session, "Create", wanted, name), "app")
        key, secret = cls._parse(app), text(app, "clientSecret")
        if not secret:
            raise malformed("clientSecret")
        return CreatedApiKey(
            key.client_id, key.name, secret, key.created_at, settings.endpoint.url, settings.org
        )

    @classmethod
    async def _delete(cls, name: str, session: Session) -> ApiKey:
        key = await cls._get(name, session)
        await _api_keys(session, "Delete", {"clientId": key.client_id}, name)
        return key

    @classmethod
    def _parse(cls, app: Json) -> ApiKey:
        client_id = text(app, "clientId")
        if not client_id:
            raise malformed("clientId")
        created_at = _posix(app.get("clientIdIssuedAt"))
        return cls(client_id, text(app, "clientName") or client_id, created_at)


def _posix(timestamp: object) -> float | None:
    """POSIX seconds of a google.protobuf.Timestamp, which JSON writes in RFC 3339; None for what
    is none. It is only shown.
    """
    try:
        at = datetime.fromisoformat(str(timestamp))
    except ValueError:
        return None
    return at.timestamp() if at.tzinfo is not None and at.year > 1 else None


def _client_id(name: str) -> str:
    """The client id of an API key with that *name*, as Union's own command makes it."""
    return re.sub("[^0-9a-zA-Z]+", "-", name.lower())


async def _api_keys(session: Session, method: str, wanted: Json, name: str = "") -> Json:
    """The reply of that *method*; an error says what to do about the key of that *name*."""
    try:
        return await session.call(f"{API_KEYS}/{method}", wanted)
    except FlowError as error:
        match error.reason:
            case "not_found":
                raise FlowError(
                    f"there is no API key named {quote(name, 100)}; "
                    "list them with flyteauth get api-key",
                    reason=error.reason,
                ) from None
            case "already_exists":
                raise FlowError(
                    f"there is an API key named {quote(name, 100)} already; choose another name, "
                    "or delete it with flyteauth delete api-key",
                    reason=error.reason,
                ) from None
            case "unimplemented":
                raise MissingMetadata(
                    "this control plane has no API keys (they are Union's); use a client secret",
                    reason=error.reason,
                ) from None
        raise
