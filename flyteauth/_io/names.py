"""Names for what is kept under a key, wherever it is kept."""

from __future__ import annotations

import hashlib


def constant_length(key: str) -> str:
    """A name of hexadecimal digits that no file system or server objects to. Not for secrets: a
    digest of one would name it.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
