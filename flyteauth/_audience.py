"""Who is told what happens to a login: the program, and the person in front of it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from ._io.presenter import Presenter, default
from ._sansio.tokens import Token
from .events import AuthEvent, OnEvent

# Called with each new token once it is stored, and with None when the login is over. An async
# function is awaited by whoever waits for the token.
OnTokenChange = Callable[[Token | None], Awaitable[None] | None]

HOOK_DEADLINE: Final = 10.0  # seconds that a token may wait for its hook

_log: Final = logging.getLogger("flyteauth")


class Audience:
    """The hooks of one session. What they raise is theirs, and must not cost a login."""

    def __init__(
        self,
        on_event: OnEvent | None = None,
        on_token_change: OnTokenChange | None = None,
        presenter: Presenter | None = None,
    ) -> None:
        self._on_event = on_event
        self._on_token_change = on_token_change
        self._presenter = presenter

    @property
    def presenter(self) -> Presenter:
        """What shows a login to the person; by default, what suits where they are by now."""
        if self._presenter is None:
            self._presenter = default()
        return self._presenter

    async def notify(self, event: AuthEvent) -> None:
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:  # noqa: BLE001  # see above
                _log.exception("on_event failed; the login goes on")
        await self.presenter.show(event)

    async def token_changed(self, token: Token | None) -> None:
        """*token* is what is in hand from now on; it is in the store already."""
        if self._on_token_change is None:
            return
        try:
            with anyio.fail_after(HOOK_DEADLINE):
                outcome = self._on_token_change(token)
                if inspect.isawaitable(outcome):
                    await outcome
        except Exception:  # noqa: BLE001  # as above
            _log.exception("on_token_change failed; the login goes on")
