"""
RS256 with plain integers, for the ID tokens of the embedded authorization server.

The key is a public test key: it is in every copy of this file, signs nothing of worth, and must
never be trusted anywhere else. It is a constant so that the control plane starts at once and
needs no cryptography library.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Final

KEY_ID: Final = "flyteauth-public-test-key"
PUBLIC_EXPONENT: Final = 65537
PUBLIC_TEST_MODULUS: Final = int(
    "b7421f13e1968f2e426ec3bbf3c40f4a81bd3116f2b192d9e2d75b2f701eed5b94a8ecb79fad5f269f708c3e"
    "8329f0d52fe6206d9dd1e1d85c31286e58965f15c5fd87bdc78386ef9b9817acc139273a00d70e617ee02489"
    "72196869b666218e688a6255aded1a70bb6c9a241356a5af27313c6f940ee49cadc9bfb895ec42896b76fe48"
    "6232fec6a20eab1ba4d396ab099ae6515e64bf3aab8e32e3fc02a96525cff51a915eba6b18b7c3728176c1c6"
    "d145c892bcbb6b54aa291ae601e1791c0c37a84c27b0b0b4539cd0eb14527ebfac8e3a843653817a93b229c9"
    "0fc9781937f7ff918f88f2fed1140cc1938266b090b15b0116d9a9e08bf8d025078faa79",
    16,
)
PUBLIC_TEST_PRIVATE_EXPONENT: Final = int(
    "19e8a1bf2c521e6d125c5994ed8a4705282188daaf3636c6524153357a3b0d20b8fc46f750fe7068e3fac401"
    "24871df2ee02318c7dd70a008e4c2ee4a6e69f8bd3019c9ad2a5c04288f370496ec9f747468e210cdca4b0d5"
    "b3c96ecf1f48022f818d2b08e4fd9412e314a0184099abf3feed0197decd5a39e28216f6704fc63a2cdbe9ae"
    "87a8fa93a972edb4225d161deb017e503880bc0e86a61c0dea3e52c0db65eca0b95ff9e00dd56cafd13e1a4a"
    "004f3b80ad7a1d8ed27baaaeab8b2a6f30b0614abdcab29f0dae04c196a812a53f874cba603a16e9804d0596"
    "5b3c74b10e457ad2205136b7d16b9f0c76f53dd42bf6fb7a469be29387ca4a19e78be137",
    16,
)

_SIZE: Final = 256  # octets of the modulus
_SHA256_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")  # RFC 8017 §9.2


def base64url(octets: bytes) -> str:
    """Base64url without padding (RFC 7515 §2)."""
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


def sign(message: bytes) -> bytes:
    """RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 §8.2.1)."""
    encoded = int.from_bytes(encode(message))
    return pow(encoded, PUBLIC_TEST_PRIVATE_EXPONENT, PUBLIC_TEST_MODULUS).to_bytes(_SIZE)


def encode(message: bytes) -> bytes:
    """EMSA-PKCS1-v1_5 (RFC 8017 §9.2): what a verifier finds under the signature."""
    info = _SHA256_INFO + hashlib.sha256(message).digest()
    return b"\x00\x01" + b"\xff" * (_SIZE - len(info) - 3) + b"\x00" + info


def jwt(claims: Mapping[str, Any]) -> str:
    """A signed JWT in compact form (RFC 7519 §7.1, RFC 7515 §3.1)."""
    header = {"alg": "RS256", "kid": KEY_ID, "typ": "JWT"}
    parts = (json.dumps(part, separators=(",", ":")).encode() for part in (header, claims))
    message = ".".join(base64url(part) for part in parts)
    return f"{message}.{base64url(sign(message.encode()))}"


def jwks() -> dict[str, Any]:
    """The key set at jwks_uri (RFC 7517 §5, RFC 7518 §6.3.1)."""
    return {
        "keys": [
            {
                "kty": "RSA",
                "use": "sig",
                "alg": "RS256",
                "kid": KEY_ID,
                "n": base64url(PUBLIC_TEST_MODULUS.to_bytes(_SIZE)),
                "e": base64url(PUBLIC_EXPONENT.to_bytes(3)),
            }
        ]
    }
