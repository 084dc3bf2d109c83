"""
Every secret of a control plane, derived from one seed.

The model itself knows no randomness: the same seed and the same requests give the same tokens,
codes and cookies, in a test as in a replay.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from .signing import base64url

# RFC 8628 §6.1: no vowels, so no words; no character that is easily taken for another.
USER_CODE_ALPHABET: Final = "BCDFGHJKLMNPQRSTVWXZ"
_HALF: Final = 4


class Seed:
    """A counter under HMAC-SHA256: 256 bits for each secret, none derivable from the others."""

    def __init__(self, seed: bytes, start: int = 0) -> None:
        """Each *start* with one seed has secrets of its own, except the fixed ones."""
        if len(seed) < 16:
            raise ValueError("a seed has at least 16 bytes")
        self._key = hashlib.sha256(seed).digest()
        self._start = start
        self._count = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def next(self, kind: str) -> str:
        """The next secret, 43 characters of base64url."""
        return base64url(self._next(kind))

    def next_user_code(self) -> str:
        """The next user code, shown as XXXX-XXXX: 34 bits (RFC 8628 §5.1)."""
        number = int.from_bytes(self._next("user_code"))
        letters = []
        for _ in range(2 * _HALF):
            number, index = divmod(number, len(USER_CODE_ALPHABET))
            letters.append(USER_CODE_ALPHABET[index])
        return f"{''.join(letters[:_HALF])}-{''.join(letters[_HALF:])}"

    def fixed(self, name: str) -> str:
        """A secret that depends on the seed and *name* alone."""
        return self.mac("fixed", name)

    def mac(self, *parts: str) -> str:
        """What nobody without the seed can compute over *parts*."""
        # The length before each part keeps ("ab", "c") and ("a", "bc") apart.
        framed = "".join(f"{len(part)}:{part}" for part in parts)
        return base64url(self._hmac(b"mac\0" + framed.encode()))

    def _next(self, kind: str) -> bytes:
        self._count += 1
        return self._hmac(f"next\0{kind}\0{self._start}\0{self._count}".encode())

    def _hmac(self, message: bytes) -> bytes:
        return hmac.digest(self._key, message, "sha256")


def same(left: str, right: str) -> bool:
    """Whether two secrets are equal, in constant time, whatever is in them."""
    return hmac.compare_digest(
        left.encode(errors="surrogatepass"), right.encode(errors="surrogatepass")
    )
