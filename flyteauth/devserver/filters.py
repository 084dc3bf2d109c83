"""The filters and the order of flyteidl2.common.ListRequest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from .connect import ConnectError, Message, items, part, text

T = TypeVar("T")

Fields = Mapping[str, str]
"""What of an entity can be filtered by, all as text."""

_FUNCTIONS: Final[Mapping[str, Callable[[str | None, Sequence[str]], bool]]] = {
    "EQUAL": lambda value, wanted: value is not None and value in wanted[:1],
    "NOT_EQUAL": lambda value, wanted: value not in wanted[:1],
    "CONTAINS": lambda value, wanted: value is not None and wanted[0] in value,
    "CONTAINS_CASE_INSENSITIVE": lambda value, wanted: (
        value is not None and wanted[0].lower() in value.lower()
    ),
    "ENDS_WITH": lambda value, wanted: value is not None and value.endswith(wanted[0]),
    "NOT_ENDS_WITH": lambda value, wanted: value is None or not value.endswith(wanted[0]),
    "VALUE_IN": lambda value, wanted: value is not None and value in wanted,
    "VALUE_NOT_IN": lambda value, wanted: value not in wanted,
    "GREATER_THAN": lambda value, wanted: value is not None and value > wanted[0],
    "GREATER_THAN_OR_EQUAL": lambda value, wanted: value is not None and value >= wanted[0],
    "LESS_THAN": lambda value, wanted: value is not None and value < wanted[0],
    "LESS_THAN_OR_EQUAL": lambda value, wanted: value is not None and value <= wanted[0],
    "EXISTS": lambda value, wanted: value is not None,
    "NOT_EXISTS": lambda value, wanted: value is None,
}
_WITHOUT_VALUE: Final = frozenset({"EXISTS", "NOT_EXISTS"})
_LABELS: Final = "labels."


def chosen(
    entities: Iterable[T], request: Message, fields: Callable[[T], Fields], known: Iterable[str]
) -> list[T]:
    """The *entities* that *request* asks for, in the order that it asks for. *known* are the names
    that *fields* may have, beside labels.
    """
    names = frozenset(known)
    tests = [_test(wanted, names) for wanted in items(request, "filters")]
    found = [each for each in entities if all(test(fields(each)) for test in tests)]
    return in_order(found, request, lambda each, name: fields(each).get(name, ""))


def in_order(entities: list[T], request: Message, field: Callable[[T, str], str]) -> list[T]:
    """*entities* by the field that *request* names, if it names one."""
    sort = part(request, "sortBy", "sort_by")
    key = text(sort, "key")
    if not key:
        return entities
    # 0 is the default, and left out: descending.
    descending = (text(sort, "direction") or "DESCENDING") == "DESCENDING"
    return sorted(entities, key=lambda each: field(each, key), reverse=descending)


def _test(wanted: object, names: frozenset[str]) -> Callable[[Fields], bool]:
    if not isinstance(wanted, dict):
        raise ConnectError("invalid_argument", "filters holds what is not a filter")
    name = text(wanted, "function") or "EQUAL"
    field = text(wanted, "field")
    values = [value for value in items(wanted, "values") if isinstance(value, str)]
    function = _FUNCTIONS.get(name)
    if function is None or (not values and name not in _WITHOUT_VALUE):
        raise ConnectError("invalid_argument", f"the filter for {field[:40]!r} is not valid")
    if field not in names and not field.startswith(_LABELS):
        raise ConnectError(
            "invalid_argument", f"there is no filter for {field[:40]!r}; use {', '.join(names)}"
        )
    return lambda fields: function(fields.get(field), values)


def parse_expression(expression: str) -> dict[str, str]:
    """The filters of ListProjects, ``eq(state, 0)+eq(name, churn)``, as field and value."""
    wanted: dict[str, str] = {}
    for one in filter(None, expression.split("+")):
        match = re.fullmatch(r"\s*eq\(\s*(\w{1,40})\s*,\s*([^()]{0,200}?)\s*\)\s*", one)
        if match is None:
            raise ConnectError("invalid_argument", "filters must be like eq(state, 0)")
        wanted[match[1]] = match[2]
    return wanted
