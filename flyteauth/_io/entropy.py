"""Randomness, from the operating system alone."""

from __future__ import annotations

import os


def random_bits() -> int:
    """64 bits for the jitter of a back-off."""
    return int.from_bytes(os.urandom(8), "big")
