"""Keyrings for tests: what the package keyring calls backends, each with one bad habit."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keyring.errors import KeyringLocked, PasswordDeleteError

CANARY = "canary-4711-secret"


class Killed(BaseException):
    """The process is gone: nothing that comes after this happens."""


class MemoryRing:
    """Items in memory. Every call, and what it was for, is in ``calls``.

    ``dies_at``: the process is killed before that step, counted from 0.
    """

    def __init__(self) -> None:
        self.items: dict[str, str] = {}
        self.calls: list[tuple[str, str]] = []
        self.steps = 0
        self.dies_at: int | None = None

    def step(self) -> None:
        if self.dies_at is not None and self.steps >= self.dies_at:
            raise Killed
        self.steps += 1

    def get_password(self, service: str, name: str) -> str | None:
        assert service == "flyteauth"
        self.calls.append(("get", name))
        self.step()
        return self.items.get(name)

    def set_password(self, service: str, name: str, text: str) -> None:
        assert service == "flyteauth"
        self.calls.append(("set", name))
        self.step()
        self.items[name] = text

    def delete_password(self, service: str, name: str) -> None:
        assert service == "flyteauth"
        self.calls.append(("delete", name))
        self.step()
        if self.items.pop(name, None) is None:
            raise PasswordDeleteError("no such password")

    def counted(self, verb: str) -> int:
        return sum(one == verb for one, _ in self.calls)


class ReplacingRing(MemoryRing):
    """Replaces an item by deleting it and adding another, as macOS does."""

    def set_password(self, service: str, name: str, text: str) -> None:
        self.calls.append(("set", name))
        self.step()
        self.items.pop(name, None)
        self.step()
        self.items[name] = text


class WindowsError1783(Exception):
    """As pywintypes.error."""

    winerror = 1783
    funcname = "CredWrite"

    def __init__(self) -> None:
        super().__init__(1783, "CredWrite", "The stub received bad data.")


class ShortRing(ReplacingRing):
    """Takes no more than 2,560 bytes of UTF-16 in an item."""

    def set_password(self, service: str, name: str, text: str) -> None:
        if len(text.encode("utf-16-le")) > 2560:
            self.calls.append(("refuse", name))
            self.step()
            raise WindowsError1783
        super().set_password(service, name, text)


class CuttingRing(MemoryRing):
    """Says nothing, and keeps the first 2,000 characters."""

    limit = 2000

    def set_password(self, service: str, name: str, text: str) -> None:
        super().set_password(service, name, text[: self.limit])


class StrippingRing(MemoryRing):
    """Gives back the first line without the spaces around it, as ``pass`` does."""

    def get_password(self, service: str, name: str) -> str | None:
        text = super().get_password(service, name)
        return text and text.splitlines()[0].strip()


class LockedRing(MemoryRing):
    """Nobody unlocks it while ``locked``."""

    locked = True

    def step(self) -> None:
        super().step()
        if self.locked:
            raise KeyringLocked("Failed to unlock the collection!")


class HangingRing(MemoryRing):
    """Never answers until ``go`` is set. ``entered`` counts the threads that are stuck in it."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.came = threading.Event()
        self.entered = 0

    def step(self) -> None:
        super().step()
        if not self.go.is_set():
            self.entered += 1
            self.came.set()
            self.go.wait(60)


class OddRing(MemoryRing):
    """Raises what ``error`` makes, on ``verbs``, of the secret that it was given."""

    def __init__(self, error: Callable[[str], BaseException], *verbs: str) -> None:
        super().__init__()
        self.error = error
        self.verbs = verbs or ("get", "set", "delete")

    def get_password(self, service: str, name: str) -> str | None:
        if "get" in self.verbs:
            raise self.error("")
        return super().get_password(service, name)

    def set_password(self, service: str, name: str, text: str) -> None:
        if "set" in self.verbs:
            raise self.error(text)
        super().set_password(service, name, text)

    def delete_password(self, service: str, name: str) -> None:
        if "delete" in self.verbs:
            raise self.error("")
        super().delete_password(service, name)


class OthersRing:
    """A keyring with the items of many services. Every call is in ``calls``.

    ``locked``: nobody unlocks it. ``refuses``: a name under which nothing can be changed.
    """

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], str] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.locked = False
        self.refuses: str | None = None

    def _call(self, verb: str, service: str, name: str) -> None:
        self.calls.append((verb, service, name))
        if self.locked:
            raise KeyringLocked("Failed to unlock the collection!")
        if self.refuses == name and verb != "get":
            raise KeyringLocked(f"no {verb} here of {self.items.get((service, name))}")

    def get_password(self, service: str, name: str) -> str | None:
        self._call("get", service, name)
        return self.items.get((service, name))

    def set_password(self, service: str, name: str, text: str) -> None:
        self._call("set", service, name)
        self.items[service, name] = text

    def delete_password(self, service: str, name: str) -> None:
        self._call("delete", service, name)
        if self.items.pop((service, name), None) is None:
            raise PasswordDeleteError("no such password")

    def counted(self, verb: str) -> int:
        return sum(one == verb for one, _, _ in self.calls)


def memory(directory: Path) -> MemoryRing:
    return MemoryRing()


def short(directory: Path) -> ShortRing:
    return ShortRing()


def locked(directory: Path) -> LockedRing:
    return LockedRing()


def plain_text(directory: Path) -> Any:
    """A real keyring, which needs no desktop."""
    from keyrings.alt.file import PlaintextKeyring  # type: ignore[import-untyped]

    ring = PlaintextKeyring()
    ring.file_path = str(directory / "keyring_pass.cfg")
    return ring


@functools.cache
def shared_for(directory: Path, make: Callable[[Path], Any]) -> Any:
    """One keyring for all stores that are made for *directory*."""
    return make(directory)
