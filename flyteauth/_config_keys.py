"""
Keys under ``admin`` that nobody reads: a misspelled one is silently not there.

None of the lines shows a value, and of a key only what looks like one: a secret is often one wrong
line away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from ._config_file import ConfigFile, same_key
from ._sansio.value import Value

# What flyte, flytekit, flytectl or union read, and we do not.
_OTHERS: Final = frozenset(
    map(
        same_key,
        "authorizationHeader authorizationServerUrl command defaultOrg defaultServiceConfig "
        "deviceFlowConfig maxBackoffDelay maxMessageSizeBytes maxRetries perRetryTimeout "
        "pkceConfig tokenRefreshWindow tokenUrl useAudienceFromAdmin useAuth".split(),
    )
)
_KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
_CLOSE: Final = 0.75

_KEPT_ELSEWHERE: Final = (
    "a client secret in the file is not read; set clientSecretLocation or clientSecretEnvVar "
    "instead"
)
# Secrets that people write into the file, and what takes their place.
_INLINE: Final = {
    **dict.fromkeys(
        ("clientsecret", "clientcredentialssecret"),
        ("clientSecretLocation", _KEPT_ELSEWHERE),
    ),
    "apikey": ("", "an API key in the file is not read; set FLYTE_API_KEY instead"),
}


class Unknown(Value):
    """A key that is not read: where, the key that is perhaps meant ("" if none), and what to do."""

    source: str
    meant: str
    advice: str

    def __str__(self) -> str:
        return f"{self.source}: {self.advice}"


def unknown(file: ConfigFile, known: Iterable[str]) -> Iterator[Unknown]:
    """The keys under ``admin`` in *file* that are not *known*, here or to Flyte's other tools."""
    ours = {same_key(key): key for key in known}
    for key in file.sections["admin"]:
        plain = same_key(key)
        if plain in ours or plain in _OTHERS or str(key).lower().startswith("x-"):
            continue
        name = key if isinstance(key, str) and _KEY.fullmatch(key) else "(a key)"
        meant, advice = _INLINE.get(plain) or _near(plain, ours)
        yield Unknown(f"{file.path}: admin.{name}", meant, advice)


def _near(plain: str, ours: dict[str, str]) -> tuple[str, str]:
    from difflib import get_close_matches

    for found in get_close_matches(plain, ours, n=1, cutoff=_CLOSE):
        return ours[found], f"this key is not known; did you mean {ours[found]}?"
    return "", "this key is not known; correct or remove it"
