"""
Canaille, with one person and one client of theirs. Run by the Python of its own
environment, with a list of redirect URIs; prints its issuer when it can be asked.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from importlib import import_module
from typing import Any


def main(redirect_uris: list[str]) -> None:
    server = import_module("werkzeug.serving").make_server("127.0.0.1", 0, None)
    issuer = f"http://127.0.0.1:{server.port}"
    server.app = app = application(issuer)
    with app.app_context():
        fill(import_module("canaille.backends").Backend.instance, redirect_uris)
    print(json.dumps({"issuer": issuer}), flush=True)
    server.serve_forever()


def application(issuer: str) -> Any:
    oidc = {
        "ACTIVE_JWKS": [import_module("joserfc.jwk").RSAKey.generate_key().as_dict(private=True)]
    }
    settings = {
        "SECRET_KEY": "of a test",
        "SERVER_NAME": issuer.removeprefix("http://"),
        "PREFERRED_URL_SCHEME": "http",
        "CANAILLE": {"DATABASE": "sql", "JAVASCRIPT": False},
        "CANAILLE_SQL": {"DATABASE_URI": "sqlite:///canaille.sqlite"},
        "CANAILLE_OIDC": oidc,
    }
    return import_module("canaille").create_app(config=settings, init_backend=True)


def fill(backend: Any, redirect_uris: list[str]) -> None:
    models = import_module("canaille.app").models
    name = {"formatted_name": "Alice", "family_name": "Alice", "user_name": "alice"}
    at = dt.datetime.now(dt.UTC)
    client = {
        "client_id": "person",
        "client_name": "person",
        "client_id_issued_at": at,
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "redirect_uris": redirect_uris,
        "scope": ["openid", "profile"],
    }
    service = {
        "client_id": "service",
        "client_name": "service",
        "client_id_issued_at": at,
        "client_secret": os.environ["CLIENT_SECRET"],
        "token_endpoint_auth_method": "client_secret_basic",
        "grant_types": ["client_credentials"],
        "scope": ["profile"],
    }
    backend.save(models.User(**name, emails=["alice@example.com"], password="an-alice"))
    for settings in (client, service):
        made = models.Client(**settings)
        backend.save(made)
        made.audience = [made]  # as its own pages do
        backend.save(made)


if __name__ == "__main__":
    main(sys.argv[1:])
