"""
The messages of ``cloudidl.identity.AppsService``, from their field numbers.

They are in no package that could be depended on. Their descriptors are in a pool of their own: in
the default one they would collide with those of Union's plugin, which brings its copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from connectrpc.method import IdempotencyLevel, MethodInfo
from connectrpc.server import Endpoint
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

PACKAGE: Final = "cloudidl.identity"
SERVICE: Final = f"{PACKAGE}.AppsService"

_FIELD: Final = descriptor_pb2.FieldDescriptorProto
_TIMESTAMP: Final = "google.protobuf.Timestamp"
_ENUMS: Final = {
    "ResponseTypes": ("CODE", "TOKEN", "ID_TOKEN"),
    "ApplicationType": ("WEB", "NATIVE"),
    "GrantTypes": (
        "AUTHORIZATION_CODE",
        "IMPLICIT",
        "PASSWORD",
        "CLIENT_CREDENTIALS",
        "REFRESH_TOKEN",
        "DEVICE_CODE",
    ),
    "TokenEndpointAuthMethod": ("NONE", "CLIENT_SECRET_POST", "CLIENT_SECRET_BASIC"),
    "ConsentMethod": (
        "CONSENT_METHOD_NONE",
        "CONSENT_METHOD_TRUSTED",
        "CONSENT_METHOD_REQUIRED",
    ),
}

# A field: its number, name and type; "*" stands before what is repeated.
_Fields = tuple[tuple[int, str, str], ...]

_ABOUT: Final[_Fields] = (
    (1, "organization", "string"),
    (2, "client_id", "string"),
    (4, "redirect_uris", "*string"),
    (5, "response_types", "*ResponseTypes"),
    (6, "grant_types", "*GrantTypes"),
    (7, "application_type", "ApplicationType"),
    (8, "contacts", "*string"),
    (9, "client_name", "string"),
    (10, "logo_uri", "string"),
    (11, "client_uri", "string"),
    (12, "policy_uri", "string"),
    (13, "tos_uri", "string"),
    (14, "jwks_uri", "string"),
    (15, "token_endpoint_auth_method", "TokenEndpointAuthMethod"),
)
_ONE: Final[_Fields] = _ABOUT[:2]
_REPLY: Final[_Fields] = ((1, "app", "App"),)
_MESSAGES: Final[Mapping[str, _Fields]] = {
    "App": (
        *_ABOUT,
        (3, "client_id_issued_at", _TIMESTAMP),
        (16, "client_secret", "string"),
        (17, "client_secret_expires_at", _TIMESTAMP),
    ),
    # cloudidl.common.ListRequest, as far as anybody here looks at it.
    "ListRequest": ((1, "limit", "uint32"), (2, "token", "string")),
    "CreateAppRequest": (
        *_ABOUT,
        (16, "consent_method", "ConsentMethod"),
        (17, "skip_default_policy_assignments", "bool"),
    ),
    "CreateAppResponse": _REPLY,
    "GetAppRequest": _ONE,
    "GetAppResponse": _REPLY,
    "UpdateAppRequest": _ABOUT,
    "UpdateAppResponse": _REPLY,
    "DeleteAppRequest": _ONE,
    "DeleteAppResponse": (),
    "ListAppsRequest": (_ABOUT[0], (2, "request", "ListRequest")),
    "ListAppsResponse": ((1, "apps", "*App"), (2, "token", "string")),
}
_METHODS: Final = {
    "Create": "CreateApp",
    "Get": "GetApp",
    "Update": "UpdateApp",
    "Delete": "DeleteApp",
    "List": "ListApps",
}
_SCALARS: Final = {
    "string": _FIELD.TYPE_STRING,
    "bool": _FIELD.TYPE_BOOL,
    "uint32": _FIELD.TYPE_UINT32,
}


def endpoints(answer: Callable[..., Any]) -> Mapping[str, Any]:
    """The methods of the service, all answered by *answer*."""
    messages = _messages()
    return {
        f"/{SERVICE}/{method}": Endpoint.unary(
            method=MethodInfo(
                name=method,
                service_name=SERVICE,
                input=messages[f"{name}Request"],
                output=messages[f"{name}Response"],
                idempotency_level=IdempotencyLevel.UNKNOWN,
            ),
            function=answer,
        )
        for method, name in _METHODS.items()
    }


def _messages() -> Mapping[str, type[Any]]:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(_file().SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in _MESSAGES
    }


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="flyteauth/apps.proto",
        package=PACKAGE,
        syntax="proto3",
        dependency=[timestamp_pb2.DESCRIPTOR.name],
    )
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field_name, kind in fields:
            field = message.field.add(name=field_name, number=number)
            repeated, single = kind.startswith("*"), kind.removeprefix("*")
            field.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            if single in _SCALARS:
                field.type = _SCALARS[single]
            else:
                field.type = _FIELD.TYPE_ENUM if single in _ENUMS else _FIELD.TYPE_MESSAGE
                field.type_name = f".{single}" if single == _TIMESTAMP else f".{PACKAGE}.{single}"
    return file
