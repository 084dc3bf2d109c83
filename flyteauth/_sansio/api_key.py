"""
API keys: endpoint, client and secret of a service in one text.

A key is the base64 of ``endpoint:client_id:client_secret:org``, where an organisation that is
not said is written ``None``. The form has no check sum, so reading one is strict about its four
parts: a key that was cut must not become another client at another host.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from typing import Final

from .errors import ConfigError
from .urls import is_loopback
from .value import Value


class ApiKey(Value, hidden=("client_secret",)):
    """What an API key says. ``endpoint`` is as in the key: a host, with or without the rest."""

    endpoint: str
    client_id: str
    client_secret: str
    org: str | None = None

    def encode(self) -> str:
        """The key as text: standard alphabet, with padding.

        The endpoint is written without a scheme, which is all that other readers of keys
        understand; only ``http://`` to this machine, which means something else, is kept.
        """
        key = self.replace(endpoint=_bare(self.endpoint), org=self.org or None)
        text = f"{key.endpoint}:{key.client_id}:{key.client_secret}:{key.org}"
        if _parse(text) != key:  # whatever would be read back as something else
            raise ConfigError(
                "an API key cannot hold these parts: no part may be empty, unprintable or, except "
                "the endpoint, contain ':'; set clientId and clientSecretLocation instead",
                reason="api_key",
            )
        return b64encode(text.encode()).decode()


def decode_api_key(text: str) -> ApiKey:
    """Read an API key; raises ConfigError, which never shows any of it.

    Padding may be missing, the alphabet may be the URL-safe one, and white space (a key that was
    wrapped on its way) does not count.
    """
    plain = _b64decode("".join(text.split()))
    key = None if plain is None else _parse(plain)
    if key is None:
        raise ConfigError(_problem(text.strip()), reason="api_key")
    return key


_NAMED: Final = re.compile(r"(?:export\s+|set\s+)?((?:FLYTE|UNION)_API_KEY)\s*[=:]")
_QUOTES: Final = tuple("\"'`“”\u2018\u2019")


def _problem(text: str) -> str:
    """What is wrong with *text*, which is no API key: one is easily copied with what is around."""
    if named := _NAMED.match(text):
        return f"this begins with {named[1]}, its variable; give what comes after that alone"
    if text.startswith(_QUOTES) or text.endswith(_QUOTES):
        return "this API key is in quotes; leave them out"
    return (
        "this is not an API key, or only a part of one; copy the whole key again, "
        "or set clientId and clientSecretLocation instead"
    )


def _b64decode(text: str) -> str | None:
    text = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return b64decode(text + "=" * (-len(text) % 4), validate=True).decode()
    except ValueError:  # binascii.Error and UnicodeDecodeError, both of which hold the content
        return None


_SCHEME: Final = re.compile(r"(?i)\A(?:dns:///|https?://)")
_ENDPOINT: Final = re.compile(
    r"((?i:dns:///|https?://)?(\[[0-9A-Fa-f:.]+\]|[^\s\[\]:/?#@]+)(:[0-9]{1,5})?(/[^\s:?#]*)?):(.+)"
)


def _parse(text: str) -> ApiKey | None:
    if not text.isprintable() or not (match := _ENDPOINT.fullmatch(text)):
        return None
    endpoint, _, port, path, rest = match.groups()
    parts = rest.split(":")
    if len(parts) == 2 and port and not path and parts[1] == "None":
        # A client that is called like a port. Any other fourth part may be half of the secret in
        # host:port:client:secret:org, and is refused.
        endpoint, parts = endpoint.removesuffix(port), [port[1:], *parts]
    if len(parts) != 3 or not parts[0] or not parts[1] or parts[2] in _CUT:
        return None
    return ApiKey(endpoint, parts[0], parts[1], None if parts[2] == "None" else parts[2] or None)


_CUT: Final = frozenset({"N", "No", "Non"})  # a key that lost its last characters


def _bare(endpoint: str) -> str:
    bare = _SCHEME.sub("", endpoint)
    match = _ENDPOINT.fullmatch(f"{endpoint}:-")
    plain = endpoint.lower().startswith("http://") and match and is_loopback(match[2].strip("[]"))
    return f"http://{bare}" if plain else bare
