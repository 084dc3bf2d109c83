"""``flyteauth devserver``: the embedded control plane, for offline work."""

from __future__ import annotations

from ..devserver.serve import add_arguments, main

__all__ = ["add_arguments", "main"]
