"""What one gRPC call is made with, as often as it is made; the same for both APIs of grpcio."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import grpc

from ..session import in_portal
from ._credentials import INSTEAD, AsyncRequests, Credentials, Requests
from ._http import check_own

Metadata = tuple[tuple[str, str | bytes], ...]


class Attempts:
    """The tries of one call to *authority*. Its timeout is for all of them together, and for
    whatever is waited for before and between them.
    """

    def __init__(
        self,
        credentials: Credentials,
        authority: str,
        details: grpc.ClientCallDetails,
        request: Any,
    ) -> None:
        self.request = request
        self._credentials = credentials
        self._authority = authority
        self._theirs: Metadata = tuple(details.metadata or ())
        self._until = None if details.timeout is None else time.monotonic() + details.timeout
        self._sent: Mapping[str, str] = {}

    @property
    def left(self) -> float | None:
        """Seconds."""
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    def first(self) -> Metadata:
        """What to send. Raises TimeoutError, and what Session.headers raises."""
        headers = self._credentials.at_once(self._authority)
        if headers is not None:
            return self._with(headers)
        return in_portal(self.afirst)

    async def afirst(self) -> Metadata:
        headers = self._credentials.at_once(self._authority)
        if headers is None:
            headers = await self._credentials.headers(self._authority, self.left)
        return self._with(headers)

    def refused(self) -> bool:
        """Note that a server did not take what was sent; whether all can be sent again."""
        self._credentials.refuse(self._sent)
        if isinstance(self.request, Requests | AsyncRequests):
            again = self.request.again()
            if again is None:
                return False
            self.request = again
        return True

    async def again(self) -> Metadata | None:
        """What to send after a refusal; None if there is nothing else. Raises TimeoutError, and
        what Session.headers raises.
        """
        headers = await self._credentials.in_place_of(self._sent, self.left)
        return None if headers is None else self._with(headers)

    def _with(self, headers: Mapping[str, str]) -> Metadata:
        check_own(headers, {name.lower() for name, _ in self._theirs}, INSTEAD)
        self._sent = headers
        return (*self._theirs, *pairs(headers.items()))


def pairs(items: Iterable[tuple[str, str]]) -> Metadata:
    """Headers as gRPC has them."""
    return tuple((name.lower(), value) for name, value in items)


def is_refusal(code: object) -> bool:
    """BRR-09: no other code is about credentials."""
    return code is grpc.StatusCode.UNAUTHENTICATED
