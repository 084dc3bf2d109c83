"""What the control plane says about itself: Connect's messages, and the documents of Flyte 1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from .clients import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    DEFAULT_SCOPES,
    DEVICE_CODE,
    REFRESH_TOKEN,
    SCOPES,
)
from .settings import Settings

AUTHORIZATION: Final = "authorization"
FLYTE_AUTHORIZATION: Final = "flyte-authorization"
_METHODS: Final = ("client_secret_basic", "client_secret_post", "none")

Document = dict[str, Any]


def metadata(settings: Settings) -> Document:
    """Authorization server metadata (RFC 8414 §2)."""
    base = settings.base_url
    device = f"{base}/oauth2/device_authorization"
    return {
        "issuer": settings.issuer,
        "authorization_endpoint": f"{base}/oauth2/authorize",
        "token_endpoint": f"{base}/oauth2/token",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "scopes_supported": list(SCOPES),
        "token_endpoint_auth_methods_supported": list(_METHODS),
        "jwks_uri": f"{base}/oauth2/jwks",
        "code_challenge_methods_supported": ["S256"],
        "grant_types_supported": [
            AUTHORIZATION_CODE,
            REFRESH_TOKEN,
            CLIENT_CREDENTIALS,
            DEVICE_CODE,
        ],
        "device_authorization_endpoint": "" if settings.fault("no-device") else device,
        "revocation_endpoint": f"{base}/oauth2/revoke",
        "revocation_endpoint_auth_methods_supported": list(_METHODS),
        "authorization_response_iss_parameter_supported": True,
    }


def openid_configuration(settings: Settings) -> Document:
    """OpenID Provider Metadata (OpenID Connect Discovery §3)."""
    return {
        **metadata(settings),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "claims_supported": ["sub", "name", "preferred_username", "email", "auth_time", "nonce"],
        "request_uri_parameter_supported": False,
    }


# flyteidl2.auth.GetOAuth2MetadataResponse has these fields and no others: who asks over Connect
# alone learns of no revocation endpoint and of no RFC 9207.
_FLYTE_FIELDS: Final = (
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "response_types_supported",
    "scopes_supported",
    "token_endpoint_auth_methods_supported",
    "jwks_uri",
    "code_challenge_methods_supported",
    "grant_types_supported",
    "device_authorization_endpoint",
)


def flyte_metadata(settings: Settings) -> Document:
    """flyteidl2.auth.GetOAuth2MetadataResponse, as JSON."""
    document = metadata(settings)
    return camel_case({name: document[name] for name in _FLYTE_FIELDS})


def public_client(settings: Settings) -> Document:
    """flyteidl2.auth.GetPublicClientConfigResponse, with the names of the proto."""
    key = FLYTE_AUTHORIZATION if settings.fault("custom-header-key") else AUTHORIZATION
    client = {
        "client_id": "flytectl",
        "redirect_uri": settings.redirect_uri,
        "scopes": list(DEFAULT_SCOPES),
        "authorization_metadata_key": "" if settings.fault("empty-header-key") else key,
        "service_http_endpoint": settings.base_url,
    }
    if settings.dataplane_domain is not None:
        client["dataplane_domain"] = settings.dataplane_domain
    return client


def camel_case(document: Mapping[str, Any]) -> Document:
    """The same with the spelling of protobuf's JSON."""
    return {
        re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), name): value
        for name, value in document.items()
    }
