"""
API keys as Union's control plane manages them: ``cloudidl.identity.AppsService`` in JSON.

An app is an OAuth client: one that was created can at once ask for tokens with its secret, and
with its deletion all of them end. What is known of it is its Registration, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attrs import evolve

from .authorization import AuthorizationServer
from .calls import PAGE, PAGE_MAX, ConnectError, Message, number, part
from .clients import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    DEVICE_CODE,
    PUBLIC,
    REFRESH_TOKEN,
    Registration,
)
from .issued import AccessToken
from .seed import Seed
from .settings import Settings

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
_URI: Final = re.compile(r"https?://[\x21-\x22\x24-\x7e]{1,500}")  # §3.1.2: no fragment

Call = Callable[[Message, AccessToken | None, float], dict[str, Any]]


class Apps:
    """The four calls. People may use them; a service that could would outlive its own key."""

    def __init__(self, settings: Settings, seed: Seed, server: AuthorizationServer) -> None:
        self._settings = settings
        self._seed = seed
        self._server = server
        rules: Mapping[str, Callable[[Message, float], dict[str, Any]]] = {
            "Create": self._create,
            "Get": self._get,
            "List": self._list,
            "Delete": self._delete,
        }
        self.calls: Final[Mapping[str, Call]] = {
            f"{SERVICE}/{name}": self._guarded(rule) for name, rule in rules.items()
        }

    def _guarded(self, rule: Callable[[Message, float], dict[str, Any]]) -> Call:
        def call(message: Message, access: AccessToken | None, at: float) -> dict[str, Any]:
            if access is None or self._settings.fault("apps-unimplemented"):
                raise ConnectError("unimplemented", "cloudidl.identity.AppsService is not served")
            if access.family is None:
                raise ConnectError("permission_denied", "a service may not manage API keys")
            return rule(message, at)

        return call

    def _create(self, message: Message, at: float) -> dict[str, Any]:
        app = _registration(message)
        if self._server.clients.get(app.client_id) is not None:
            raise ConnectError("already_exists", f"the client id {app.client_id} is taken")
        if len(self._server.clients.apps()) >= APPS_MAX:
            raise ConnectError("resource_exhausted", f"there are {APPS_MAX} apps already")
        secret = None
        if app.token_endpoint_auth_method != PUBLIC:
            secret = self._seed.next("client_secret")
        app = evolve(app, client_secret=secret, client_id_issued_at=int(at))
        self._server.clients.add(app)
        shown = _message(app)
        # Here and never again.
        return {"app": shown if secret is None else {**shown, "clientSecret": secret}}

    def _get(self, message: Message, at: float) -> dict[str, Any]:
        return {"app": _message(self._found(message))}

    def _list(self, message: Message, at: float) -> dict[str, Any]:
        """In the order of client ids; a page's token is the last one that it shows."""
        request = part(message, "request")
        limit = min(number(request, "limit") or PAGE, PAGE_MAX)
        after = _text(request, "token")
        apps = [app for app in self._server.clients.apps() if app.client_id > after]
        reply: dict[str, Any] = {}
        if apps:
            reply["apps"] = [_message(app) for app in apps[:limit]]
        if len(apps) > limit:
            reply["token"] = apps[limit - 1].client_id
        return reply

    def _delete(self, message: Message, at: float) -> dict[str, Any]:
        app = self._found(message)
        if self._server.clients.is_built_in(app.client_id):
            raise ConnectError(
                "failed_precondition", f"{app.client_id} is built in and cannot be deleted"
            )
        self._server.unregister(app.client_id)
        return {}

    def _found(self, message: Message) -> Registration:
        client_id = _text(message, "clientId", "client_id")
        for app in self._server.clients.apps():
            if app.client_id == client_id:
                return app
        raise ConnectError("not_found", "there is no app with this client id")


def _registration(message: Message) -> Registration:
    """The app that CreateAppRequest describes, without a secret; raises ConnectError."""
    client_id = _text(message, "clientId", "client_id")
    if not _CLIENT_ID.fullmatch(client_id):
        raise _invalid("clientId", "needs 1 to 63 letters, digits, dots, dashes or underscores")
    name = _text(message, "clientName", "client_name") or client_id
    if len(name) > _NAME_MAX or not name.isprintable():
        raise _invalid("clientName", f"needs at most {_NAME_MAX} visible characters")
    grants = _enums(message, _GRANT_TYPES, "grantTypes", "grant_types")
    method = _enum(
        _member(message, "tokenEndpointAuthMethod", "token_endpoint_auth_method") or 0,
        _AUTH_METHODS,
        "tokenEndpointAuthMethod",
    )
    if not grants or not set(grants) <= _SERVED:
        raise _invalid("grantTypes", "names no grant, or one that is not offered")
    if CLIENT_CREDENTIALS in grants and method == PUBLIC:  # RFC 6749 §4.4
        raise _invalid("tokenEndpointAuthMethod", "cannot be NONE with CLIENT_CREDENTIALS")
    uris = _items(message, "redirectUris", "redirect_uris")
    if len(uris) > _URIS_MAX or not all(isinstance(u, str) and _URI.fullmatch(u) for u in uris):
        raise _invalid("redirectUris", f"needs at most {_URIS_MAX} http or https URLs")
    return Registration(
        client_id=client_id,
        client_name=name,
        grant_types=grants,
        redirect_uris=tuple(uris),
        response_types=_enums(message, _RESPONSE_TYPES, "responseTypes", "response_types"),
        token_endpoint_auth_method=method,
    )


def _message(app: Registration) -> dict[str, Any]:
    """cloudidl.identity.App: never with the secret. What is empty is left out, as JSON does it."""
    methods = {value: name for name, value in _AUTH_METHODS.items()}
    message = {
        "clientId": app.client_id,
        "clientIdIssuedAt": app.client_id_issued_at,
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
    found = (_enum(item, enum, names[0]) for item in _items(message, *names))
    return tuple(dict.fromkeys(found))


def _enum(item: object, enum: Mapping[str, str], name: str) -> str:
    """An enum's value, which JSON writes as a name or as a number."""
    if isinstance(item, str) and item in enum:
        return enum[item]
    if isinstance(item, int) and not isinstance(item, bool) and 0 <= item < len(enum):
        return list(enum.values())[item]
    raise _invalid(name, f"must be among {', '.join(enum)}")


def _items(message: Message, *names: str) -> list[Any]:
    items = _member(message, *names)
    if items is None:
        return []
    if not isinstance(items, list):
        raise _invalid(names[0], "is not a list")
    return items


def _text(message: Message, *names: str) -> str:
    text = _member(message, *names)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise _invalid(names[0], "is not a text")
    return text


def _member(message: Message, *names: str) -> object:
    """A field, in whichever spelling it came; null is absent."""
    return next((message[name] for name in names if message.get(name) is not None), None)


def _invalid(name: str, problem: str) -> ConnectError:
    return ConnectError("invalid_argument", f"{name} {problem}")
