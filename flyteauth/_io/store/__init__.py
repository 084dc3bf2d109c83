"""Where logins are kept: one interface, several places."""

from __future__ import annotations

from typing import Protocol

from ..._sansio.record import Record


class Store(Protocol):
    """One record per key. Every failure is a StoreError; none of them deletes anything."""

    @property
    def name(self) -> str:
        """The name that ``token_store=`` knows this store by."""
        ...

    @property
    def place(self) -> str:
        """Where records are, in words for a person."""
        ...

    async def probe(self) -> None:
        """Raise StoreError if a record could not be saved."""
        ...

    async def load(self, key: str) -> Record | None:
        """The record, or None if there is none."""
        ...

    async def save(self, key: str, record: Record) -> None:
        """Replace the record, whole or not at all."""
        ...

    async def delete(self, key: str) -> None:
        """Remove the record if there is one."""
        ...
