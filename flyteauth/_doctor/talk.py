"""One conversation with the control plane, which several checks read."""

from __future__ import annotations

import re
from typing import Final

import anyio
from attrs import define, field, frozen

from .._io.drive import Driver
from .._io.transport import Transport
from .._sansio.errors import quote
from .._sansio.flow import RequestFailed, ResponseReceived
from .._sansio.http import Request, Response, is_html
from .._setup import Setup
from .._target import Target, discover
from ..errors import Error

DEADLINE: Final = 8.0  # seconds; then what was said so far has to do
_TITLE: Final = re.compile(rb"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)


@frozen
class Said:
    """A request, and what came of it."""

    request: Request = field(repr=False)
    outcome: ResponseReceived | RequestFailed = field(repr=False)

    @property
    def response(self) -> Response | None:
        return self.outcome.response if isinstance(self.outcome, ResponseReceived) else None


@define
class Talk:
    """Discovery, as a login would do it, with everything that was said."""

    said: list[Said] = field(factory=list)
    target: Target | None = None
    error: Error | None = None
    over: anyio.Event = field(factory=anyio.Event)

    async def hold(self, setup: Setup) -> None:
        """Ask, and let everybody read who waits for it."""
        driver = Driver(_Recorder(setup.transport, self.said), setup.clock)
        try:
            with anyio.move_on_after(DEADLINE):
                self.target = await discover(driver, setup.settings)
        except Error as error:
            self.error = error
        finally:
            self.over.set()

    @property
    def page(self) -> Response | None:
        """The first web page that came where a program's answer should have come."""
        pages = (said.response for said in self.said)
        return next((page for page in pages if page is not None and is_html(page)), None)


class _Recorder:
    """A transport that notes what passes through it."""

    def __init__(self, transport: Transport, said: list[Said]) -> None:
        self._transport = transport
        self._said = said

    async def send(self, request: Request) -> ResponseReceived | RequestFailed:
        outcome = await self._transport.send(request)
        self._said.append(Said(request, outcome))
        return outcome

    async def aclose(self) -> None:
        await self._transport.aclose()


def title(page: Response) -> str:
    """The title of a web page, escaped; empty if it has none."""
    found = _TITLE.search(page.body[:65536])
    text = " ".join(found[1].decode("utf-8", "replace").split()) if found else ""
    return quote(text, 60)
