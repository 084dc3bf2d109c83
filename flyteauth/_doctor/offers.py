"""Logins of other tools that become ours at the first use, because ``sharedLogins`` names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._io.store.others import Others
from .._places import all_places, in_words
from .._sansio.keyring_layouts import Tool
from .._sansio.value import Value
from ..errors import StoreError
from .standing import may_work

if TYPE_CHECKING:
    from ..config import Settings


class Offers(Value):
    """The first tool that offers one, and a sentence about it; no tool where none does."""

    tool: Tool | None
    text: str


def offers(settings: Settings, at: float) -> Offers | None:
    """What is offered where there is no good login of ours, as the keyring says; nobody else
    is asked. None where nobody shares.
    """
    endpoint, tools = settings.endpoint, settings.shared_logins
    if endpoint is None or not tools:
        return None
    names, others = " or ".join(tools), Others()
    try:
        found = others.find_sync(all_places(tools, endpoint), at)
    except StoreError as error:
        return Offers(None, f"whether {names} has a login to take over cannot be told: {error}")
    for each in found:
        if each.token is not None and may_work(each.token, at):
            tool, where = each.place.tool, in_words(others, each.place)
            taken = "the first use takes it over, if it still works"
            return Offers(tool, f"{tool} has a login in {where}: {taken}")
    return Offers(None, f"{names} has no login to take over")
