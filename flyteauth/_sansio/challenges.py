"""
What a server wants, in its own words: the challenges of WWW-Authenticate and Proxy-Authenticate
(RFC 9110 §11.6.1), and what RFC 6750 §3 puts into one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from attrs import field, frozen

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105  # RFC 9110 §5.6.2
_SCHEME: Final = re.compile(rf"({_TOKEN})(?:[ \t]+|(?=[ \t]*(?:,|$)))")
_TOKEN68: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*(?=[ \t]*(?:,|$))")
_PARAMETER: Final = re.compile(
    rf'({_TOKEN})[ \t]*=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)")(?=[ \t]*(?:,|$))', re.DOTALL
)
_QUOTED_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)
_BETWEEN: Final = re.compile(r"[ \t,]*")
_COMMA: Final = re.compile(r"[ \t]*(?:,[ \t,]*|$)")


@frozen
class Challenge:
    """One scheme, in lower case, with its parameters by their names in lower case, or with the one
    value that some schemes have in their place (``token68``).
    """

    scheme: str
    parameters: Mapping[str, str] = field(factory=dict)
    token68: str | None = None


def parse_challenges(fields: Iterable[str]) -> tuple[Challenge, ...]:
    """The challenges in all *fields* of one name. What cannot be read ends its field; a name that
    comes twice in one challenge counts the first time.
    """
    return tuple(challenge for value in fields for challenge in _parse(value))


def _parse(text: str) -> list[Challenge]:
    found: list[Challenge] = []
    position = _after(_BETWEEN, text, 0)
    while (scheme := _SCHEME.match(text, position)) is not None:
        position = scheme.end()
        parameters: dict[str, str] = {}
        token68 = _TOKEN68.match(text, position)
        # ``a=`` could be both; a parameter without a value is none.
        if token68 is not None:
            found.append(Challenge(scheme[1].lower(), {}, token68[0]))
            position = _after(_COMMA, text, token68.end())
            continue
        while (parameter := _PARAMETER.match(text, position)) is not None:
            name, bare, quoted = parameter.groups()
            value = _QUOTED_PAIR.sub(r"\1", quoted) if bare is None else bare
            parameters.setdefault(name.lower(), value)
            position = _after(_COMMA, text, parameter.end())
        found.append(Challenge(scheme[1].lower(), parameters))
        position = _after(_BETWEEN, text, position)
    return found


def _after(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    assert match is not None  # both patterns match everywhere, or what went before looked ahead
    return match.end()


def bearer_error(fields: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """The error of the first Bearer challenge that has one, and the scopes that it asks for
    (RFC 6750 §3); empty where there is none.
    """
    for challenge in parse_challenges(fields):
        if challenge.scheme == "bearer" and (error := challenge.parameters.get("error")):
            return error, tuple(challenge.parameters.get("scope", "").split())
    return "", ()
