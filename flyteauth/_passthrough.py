"""authType Passthrough: the caller brings the credentials, and we only hand them on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Final

from .errors import ConfigError

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2
_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")

_metadata: ContextVar[Mapping[str, str] | None] = ContextVar("flyteauth_metadata", default=None)


@contextmanager
def auth_metadata(*pairs: tuple[str, str]) -> Iterator[None]:
    """Within, sessions of authType Passthrough send these headers::

        with flyteauth.auth_metadata(("authorization", f"Bearer {token}")):
            projects = list(flyteauth.remote.Project.listall())

    It holds for this task or thread, and for what is started within. Raises ConfigError for what
    no header can carry.
    """
    for pair in pairs:
        if not _is_header(pair):
            raise ConfigError(
                "auth_metadata takes pairs of a header's name and its value, in visible ASCII "
                'characters; write ("authorization", "Bearer …")',
                reason="auth_metadata",
            )
    headers = MappingProxyType({name.lower(): value for name, value in pairs})
    token = _metadata.set(headers)
    try:
        yield
    finally:
        _metadata.reset(token)


def _is_header(pair: object) -> bool:
    match pair:
        case (str(name), str(value)):
            return bool(_NAME.fullmatch(name) and _VALUE.fullmatch(value))
    return False


def current_metadata() -> Mapping[str, str]:
    """The headers of the innermost ``auth_metadata``. Raises ConfigError outside of any."""
    headers = _metadata.get()
    if headers is None:
        raise ConfigError(
            "authType Passthrough has no credentials of its own; make the call within "
            '"with flyteauth.auth_metadata((name, value)):"',
            reason="auth_metadata",
        )
    return headers
