"""Keyrings with bad habits, for PYTHON_KEYRING_BACKEND: benchmarks.keyrings.Hanging and Slow."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

from keyring.backend import KeyringBackend

DELAY = 0.5


class Hanging(KeyringBackend):
    """Never answers."""

    priority = 1.0

    def get_password(self, service: str, username: str) -> str | None:
        self._wait()
        return None

    def set_password(self, service: str, username: str, password: str) -> None:
        self._wait()

    def delete_password(self, service: str, username: str) -> None:
        self._wait()

    def _wait(self) -> None:
        threading.Event().wait()


class Slow(KeyringBackend):
    """Keeps items in a file of the home, and takes half a second for each call."""

    priority = 1.0

    def get_password(self, service: str, username: str) -> str | None:
        return self._items().get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._keep({**self._items(), f"{service}/{username}": password})

    def delete_password(self, service: str, username: str) -> None:
        items = self._items()
        del items[f"{service}/{username}"]
        self._keep(items)

    def _items(self) -> dict[str, str]:
        time.sleep(DELAY)
        try:
            items: dict[str, str] = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return items

    def _keep(self, items: dict[str, str]) -> None:
        self._path.write_text(json.dumps(items), encoding="utf-8")

    @property
    def _path(self) -> Path:
        return Path(os.environ["HOME"]) / "keyring.json"
