"""All targets by name. A target takes any bytes, and raises nothing but AssertionError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from . import addresses, kept, people, servers

Target = Callable[[bytes], None]

TARGETS: Final[dict[str, Target]] = {
    target.__name__: target
    for module in (servers, people, addresses, kept)
    for target in module.TARGETS
}
