"""Where other tools keep their logins to an endpoint of ours, and how to say so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ._sansio.keyring_layouts import Place, Tool, places, places_of

if TYPE_CHECKING:
    from ._endpoint import Endpoint
    from ._io.store.others import Others


def own_places(tools: Iterable[Tool], endpoint: Endpoint) -> list[Place]:
    """The place that each of *tools* takes itself."""
    return [places(tool, _spelling(endpoint), endpoint.key)[0] for tool in tools]


def all_places(tools: Iterable[Tool], endpoint: Endpoint) -> tuple[Place, ...]:
    return places_of(tools, _spelling(endpoint), endpoint.key)


def in_words(others: Others, place: Place) -> str:
    return f"{others.name}, under {place.address}"


def _spelling(endpoint: Endpoint) -> str:
    return endpoint.spelling or endpoint.url
