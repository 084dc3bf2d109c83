"""
What Flyte's other clients keep in the keyring, beside us.

They use whatever keyring there is, so it is looked for as if somebody had named it; but none that
would ask for a password on stdin. Each call has a deadline, as for our own logins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from attrs import field, frozen

from ..._sansio.errors import StoreError
from ..._sansio.keyring_layouts import Place
from ..._sansio.token import Token
from .keyring import DEADLINE, PATIENCE, KeyringStore
from .ring import INSTEAD, Ring

T = TypeVar("T")

__all__ = ["DEADLINE", "PATIENCE", "Found", "Others"]

_INSTEAD: Final = f", {INSTEAD}"  # of no use here: the others have nothing else


@frozen
class Found:
    """What lies at a place: a login, or else an error that says why it is none."""

    place: Place
    token: Token | None = field(default=None, repr=False)
    error: StoreError | None = None


class Others:
    """The items of the other clients. Every failure is a StoreError."""

    def __init__(self, keyring: KeyringStore | None = None) -> None:
        self._keyring = keyring or KeyringStore(named=True)

    @property
    def name(self) -> str:
        return self._keyring.place

    async def find(
        self, places: Sequence[Place], at: float, *, deadline: float = PATIENCE
    ) -> list[Found]:
        """What there is at *places*, read at time *at*, in their order."""
        return await self._ask(lambda ring: _find(ring, places, at), deadline)

    def find_sync(self, places: Sequence[Place], at: float) -> list[Found]:
        """The same for programs without an event loop."""
        try:
            return self._keyring.ask_sync(lambda ring: _find(ring, places, at), DEADLINE)
        except StoreError as error:
            failure = _about_others(error)
        raise failure

    async def write(self, place: Place, token: Token, *, deadline: float = PATIENCE) -> None:
        """Put *token* there as the tool itself would."""
        secret = "\n".join(filter(None, place.written(token).values()))

        def write(ring: Ring) -> None:
            self._keyring.alone(lambda: _write(ring, place, token))

        await self._ask(write, deadline, secret)

    async def remove(self, places: Sequence[Place]) -> tuple[list[Place], StoreError | None]:
        """Remove all that lies there: the places where something was and is gone, and what kept
        anything else from going.
        """
        gone: dict[Place, None] = {}

        def remove(ring: Ring) -> None:
            self._keyring.alone(lambda: _remove(ring, places, gone))

        try:
            await self._ask(remove, PATIENCE)
        except StoreError as error:
            return list(gone), error
        return list(gone), None

    async def _ask(self, act: Callable[[Ring], T], deadline: float, secret: str = "") -> T:
        try:
            return await self._keyring.ask(act, deadline, secret)
        except StoreError as error:
            failure = _about_others(error)
        raise failure


def _about_others(error: StoreError) -> StoreError:
    return StoreError(str(error).removesuffix(_INSTEAD), reason=error.reason)


def _find(ring: Ring, places: Sequence[Place], at: float) -> list[Found]:
    found, known = [], {}
    for place in places:
        items = ring.under(place.service)
        for name in place.names:
            if (place.service, name) not in known:
                known[place.service, name] = items.get(name)
        values = {name: known[place.service, name] for name in place.names}
        try:
            token = place.parse(values, at)
        except StoreError as error:
            found.append(Found(place, error=error))
        else:
            if token is not None:
                found.append(Found(place, token))
    return found


def _write(ring: Ring, place: Place, token: Token) -> None:
    items = ring.under(place.service)
    for name, text in place.written(token).items():
        before = items.get(name)
        if text is None and before is not None:
            items.remove(name)
        elif text is not None and before != text:  # on macOS each write may ask a person
            items.set(name, text)


def _remove(ring: Ring, places: Sequence[Place], gone: dict[Place, None]) -> None:
    failure: Exception | None = None
    for place in places:
        items = ring.under(place.service)
        for name in place.names:
            try:
                if items.get(name) is not None:
                    items.remove(name)
                    gone[place] = None
            except Exception as error:  # noqa: BLE001  # keyrings raise anything
                failure = failure or error
    if failure is not None:
        raise failure
