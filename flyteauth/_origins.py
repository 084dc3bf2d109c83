"""Where a session's credentials may go; the decision itself is the core's (``_sansio.origins``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import evolve

from ._opening import PATIENCE
from ._sansio.origins import Origins, origin_of

if TYPE_CHECKING:
    from ._lifetime import Lifetime


async def origins(life: Lifetime, also: Iterable[str], *, data_plane: bool) -> Origins:
    """See Session.origins."""
    settings = (await life.set_up()).settings
    endpoint = settings.endpoint
    own = None if endpoint is None else origin_of(endpoint.url)
    if own is None:
        return Origins().including(also)
    known = Origins(frozenset({own})).including(also, settings.plain_host)
    if not data_plane or settings.auth_type == "NoAuth":  # which has nothing to send
        return known
    target = await life.discovered(PATIENCE)
    return evolve(known, domain=target.public.dataplane_domain)
