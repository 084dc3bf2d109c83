"""Drives any flow, on asyncio or trio: performs one effect at a time and says how it went."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeVar, assert_never

import anyio
from attrs import frozen

from .._sansio.flow import (
    Done,
    Effect,
    Event,
    Flow,
    OpenBrowser,
    RedirectReceived,
    RequestFailed,
    SendRequest,
    ShowUserCode,
    TimeReached,
    UserCodeShown,
    WaitUntil,
)
from .clock import Clock
from .transport import Transport

S = TypeVar("S")
T = TypeVar("T")


async def _nobody_shows(effect: ShowUserCode) -> None:
    raise NotImplementedError(effect)


async def _nobody_browses(effect: OpenBrowser) -> str:
    raise NotImplementedError(effect)


@frozen
class Driver:
    """``show_user_code`` and ``open_browser`` are what needs a person; other flows do without.

    ``limit`` is what a request may take, in seconds, where that is less than the transport allows.
    """

    transport: Transport
    clock: Clock
    show_user_code: Callable[[ShowUserCode], Awaitable[None]] = _nobody_shows
    open_browser: Callable[[OpenBrowser], Awaitable[str]] = _nobody_browses
    limit: float = math.inf

    async def run(
        self, flow: Flow[S, T], state: S | Done[T], save: Callable[[S], object] | None = None
    ) -> T:
        """The value that *flow* ends with. ``save`` sees each state before its effect."""
        while not isinstance(state, Done):
            if save is not None:
                save(state)
            state = await self.step(flow, state)
        return state.value

    async def step(self, flow: Flow[S, T], state: S) -> S | Done[T]:
        return flow.advance(state, await self.perform(flow.effect(state)))

    async def perform(self, effect: Effect) -> Event:
        match effect:
            case SendRequest(request):
                with anyio.move_on_after(self.limit):
                    return await self.transport.send(request)
                text = f"no answer within {self.limit:g} s"
                return RequestFailed("timeout", text, sent=True, at=self.clock.time())
            case WaitUntil(deadline):
                await self.clock.sleep_until(deadline)
                return TimeReached(self.clock.time())
            case ShowUserCode():
                await self.show_user_code(effect)
                return UserCodeShown(self.clock.time())
            case OpenBrowser():
                return RedirectReceived(await self.open_browser(effect), self.clock.time())
            case _:
                assert_never(effect)
