"""Where logins are kept: one interface, several places."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Protocol, TypeVar

from ..._sansio.record import Record

T = TypeVar("T")


class Store(Protocol):
    """One record per key. Every failure is a StoreError; none of them deletes anything.

    Each call has a deadline, and none blocks the event loop.
    """

    @property
    def name(self) -> str:
        """The name that ``token_store=`` knows this store by."""
        ...

    @property
    def place(self) -> str:
        """Where records are, in words for a person."""
        ...

    @property
    def slot(self) -> Hashable:
        """What two stores have in common if they hold the same records."""
        ...

    async def probe(self) -> None:
        """Raise StoreError if a record could not be saved."""
        ...

    async def load(self, key: str) -> Record | None:
        """The record, or None if there is none."""
        ...

    async def save(self, key: str, record: Record) -> None:
        """Replace whatever is there by *record*, whole or not at all."""
        ...

    async def swap(self, key: str, old: Record | None, new: Record) -> bool:
        """Replace *old* by *new*, if *old* is still what is there (``is_same``), in one step that
        no other process or host can come between. False, and nothing is changed, if it is not.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove the record if there is one."""
        ...

    async def exclusively(
        self, key: str, function: Callable[[], Awaitable[T]], *, deadline: float
    ) -> T:
        """What *function* returns or raises, while nobody else who shares this store, in whatever
        process or host, is in here for *key*. ``load``, ``swap`` and so on work within, and for
        others meanwhile: this lock is for what takes longer, such as a refresh.

        Whoever is killed in here blocks nobody: not at all where the operating system releases
        the lock, and not beyond its lease where a server keeps it. StoreError with ``reason``
        "busy" after *deadline* seconds without a turn, any other if nothing can be locked here;
        *function* was not called then.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections of this event loop, if there are any."""
        ...
