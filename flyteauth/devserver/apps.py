"""
API keys as Union's control plane manages them: ``cloudidl.identity.AppsService`` in JSON.

An app is an OAuth client: one that was created can at once ask for tokens with its secret, and
with its deletion all of them end. What is known of it is its Registration, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attrs import asdict, evolve

from .authorization import AuthorizationServer
from .clients import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    DEVICE_CODE,
    PUBLIC,
    REFRESH_TOKEN,
    Registration,
)
from .connect import (
    PAGE,
    PAGE_MAX,
    ConnectError,
    Message,
    Reply,
    invalid,
    items,
    member,
    number,
    part,
    text,
    timestamp,
)
from .issued import AccessToken
from .seed import Seed
from .settings import Settings
from .shelves import Shelves

SERVICE: Final = "/cloudidl.identity.AppsService"
APPS_MAX: Final = 1000

# The enums of the proto, in the order of their numbers, and what OAuth calls the same.
_GRANT_TYPES: Final = {
    "AUTHORIZATION_CODE": AUTHORIZATION_CODE,
    "IMPLICIT": "implicit",
    "PASSWORD": "password",
    "CLIENT_CREDENTIALS": CLIENT_CREDENTIALS,
    "REFRESH_TOKEN": REFRESH_TOKEN,
    "DEVICE_CODE": DEVICE_CODE,
}
_RESPONSE_TYPES: Final = {"CODE": "code"}
_AUTH_METHODS: Final = {
    "NONE": PUBLIC,
    "CLIENT_SECRET_POST": "client_secret_post",
    "CLIENT_SECRET_BASIC": "client_secret_basic",
}
_SERVED: Final = frozenset({AUTHORIZATION_CODE, CLIENT_CREDENTIALS, REFRESH_TOKEN, DEVICE_CODE})

# Without a colon, for which an API key has no room.
_CLIENT_ID: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,62}")
_NAME_MAX: Final = 100
_URIS_MAX: Final = 10
_KIND: Final = "client"
_URI: Final = re.compile(r"https?://[\x21-\x22\x24-\x7e]{1,500}")  # §3.1.2: no fragment

Call = Callable[[Message, AccessToken | None, float], Reply]


class Apps:
    """The five calls. People may use them; a service that could would outlive its own key."""

    def __init__(
        self, settings: Settings, seed: Seed, server: AuthorizationServer, shelves: Shelves
    ) -> None:
        self._settings = settings
        self._seed = seed
        self._server = server
        self._shelves = shelves
        for document in shelves.documents(_KIND):
            server.clients.add(_restored(document))
        rules: Mapping[str, Callable[[Message, float], Reply]] = {
            "Create": self._create,
            "Get": self._get,
            "Update": self._update,
            "List": self._list,
            "Delete": self._delete,
        }
        self.calls: Final[Mapping[str, Call]] = {
            f"{SERVICE}/{name}": self._guarded(rule) for name, rule in rules.items()
        }

    def _guarded(self, rule: Callable[[Message, float], Reply]) -> Call:
        def call(message: Message, access: AccessToken | None, at: float) -> Reply:
            if access is None or self._settings.fault("apps-unimplemented"):
                raise ConnectError("unimplemented", "cloudidl.identity.AppsService is not served")
            if access.family is None:
                raise ConnectError("permission_denied", "a service may not manage API keys")
            return rule(message, at)

        return call

    def _create(self, message: Message, at: float) -> Reply:
        app = _registration(message)
        if self._server.clients.get(app.client_id) is not None:
            raise ConnectError("already_exists", f"the client id {app.client_id} is taken")
        if len(self._server.clients.apps()) >= APPS_MAX:
            raise ConnectError("resource_exhausted", f"there are {APPS_MAX} apps already")
        secret = None
        if app.token_endpoint_auth_method != PUBLIC:
            secret = self._seed.next("client_secret")
        app = evolve(app, client_secret=secret, client_id_issued_at=int(at))
        self._keep(app)
        shown = _message(app)
        # Here and never again.
        return {"app": shown if secret is None else {**shown, "clientSecret": secret}}

    def _get(self, message: Message, at: float) -> Reply:
        return {"app": _message(self._found(message))}

    def _update(self, message: Message, at: float) -> Reply:
        """All but the secret, which stays."""
        app = self._changeable(message)
        new = _registration(message)
        if (new.token_endpoint_auth_method == PUBLIC) != (app.client_secret is None):
            raise ConnectError("failed_precondition", "an app cannot gain or lose its secret")
        new = evolve(
            new, client_secret=app.client_secret, client_id_issued_at=app.client_id_issued_at
        )
        self._keep(new)
        return {"app": _message(new)}

    def _list(self, message: Message, at: float) -> Reply:
        """In the order of client ids; a page's token is the last one that it shows."""
        request = part(message, "request")
        limit = min(number(request, "limit") or PAGE, PAGE_MAX)
        after = text(request, "token")
        apps = [app for app in self._server.clients.apps() if app.client_id > after]
        reply: Reply = {}
        if apps:
            reply["apps"] = [_message(app) for app in apps[:limit]]
        if len(apps) > limit:
            reply["token"] = apps[limit - 1].client_id
        return reply

    def _delete(self, message: Message, at: float) -> Reply:
        app = self._changeable(message)
        self._server.unregister(app.client_id)
        self._shelves.drop(_KIND, app.client_id)
        return {}

    def _keep(self, app: Registration) -> None:
        self._server.clients.add(app)
        self._shelves.put_document(_KIND, app.client_id, asdict(app))

    def _changeable(self, message: Message) -> Registration:
        app = self._found(message)
        if self._server.clients.is_built_in(app.client_id):
            raise ConnectError(
                "failed_precondition", f"{app.client_id} is built in and stays as it is"
            )
        return app

    def _found(self, message: Message) -> Registration:
        client_id = text(message, "clientId", "client_id")
        for app in self._server.clients.apps():
            if app.client_id == client_id:
                return app
        raise ConnectError("not_found", "there is no app with this client id")


def _registration(message: Message) -> Registration:
    """The app that CreateAppRequest describes, without a secret; raises ConnectError."""
    client_id = text(message, "clientId", "client_id")
    if not _CLIENT_ID.fullmatch(client_id):
        raise invalid("clientId", "needs 1 to 63 letters, digits, dots, dashes or underscores")
    name = text(message, "clientName", "client_name") or client_id
    if len(name) > _NAME_MAX or not name.isprintable():
        raise invalid("clientName", f"needs at most {_NAME_MAX} visible characters")
    grants = _enums(message, _GRANT_TYPES, "grantTypes", "grant_types")
    method = _enum(
        member(message, "tokenEndpointAuthMethod", "token_endpoint_auth_method") or 0,
        _AUTH_METHODS,
        "tokenEndpointAuthMethod",
    )
    if not grants or not set(grants) <= _SERVED:
        raise invalid("grantTypes", "names no grant, or one that is not offered")
    if CLIENT_CREDENTIALS in grants and method == PUBLIC:  # RFC 6749 §4.4
        raise invalid("tokenEndpointAuthMethod", "cannot be NONE with CLIENT_CREDENTIALS")
    uris = items(message, "redirectUris", "redirect_uris")
    if len(uris) > _URIS_MAX or not all(isinstance(u, str) and _URI.fullmatch(u) for u in uris):
        raise invalid("redirectUris", f"needs at most {_URIS_MAX} http or https URLs")
    return Registration(
        client_id=client_id,
        client_name=name,
        grant_types=grants,
        redirect_uris=tuple(uris),
        response_types=_enums(message, _RESPONSE_TYPES, "responseTypes", "response_types"),
        token_endpoint_auth_method=method,
    )


def _restored(document: dict[str, Any]) -> Registration:
    """What asdict has made a document of; JSON has no tuples."""
    members: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in document.items()
    }
    return Registration(**members)


def _message(app: Registration) -> Reply:
    """cloudidl.identity.App: never with the secret. What is empty is left out, as JSON does it."""
    methods = {value: name for name, value in _AUTH_METHODS.items()}
    message = {
        "clientId": app.client_id,
        "clientIdIssuedAt": app.client_id_issued_at and timestamp(app.client_id_issued_at),
        "redirectUris": list(app.redirect_uris),
        "responseTypes": _names(_RESPONSE_TYPES, app.response_types),
        "grantTypes": _names(_GRANT_TYPES, app.grant_types),
        "clientName": app.client_name,
        "tokenEndpointAuthMethod": methods[app.token_endpoint_auth_method],
    }
    return {name: value for name, value in message.items() if value and value != "NONE"}


def _names(enum: Mapping[str, str], values: Sequence[str]) -> list[str]:
    return [name for name, value in enum.items() if value in values]


def _enums(message: Message, enum: Mapping[str, str], *names: str) -> tuple[str, ...]:
    found = (_enum(item, enum, names[0]) for item in items(message, *names))
    return tuple(dict.fromkeys(found))


def _enum(item: object, enum: Mapping[str, str], name: str) -> str:
    """An enum's value, which JSON writes as a name or as a number."""
    if isinstance(item, str) and item in enum:
        return enum[item]
    if isinstance(item, int) and not isinstance(item, bool) and 0 <= item < len(enum):
        return list(enum.values())[item]
    raise invalid(name, f"must be among {', '.join(enum)}")
