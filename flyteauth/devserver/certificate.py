"""TLS for this machine alone: a certificate authority of the server's own, made at start."""

from __future__ import annotations

from typing import Final

from attrs import field, frozen

NAMES: Final = ("localhost", "127.0.0.1", "::1")


@frozen
class Authority:
    """A certificate authority, in PEM form."""

    certificate: bytes
    private_key: bytes = field(repr=False)


def new_authority() -> Authority:
    import trustme

    made = trustme.CA(organization_name="flyteauth devserver")
    return Authority(made.cert_pem.bytes(), made.private_key_pem.bytes())


def certificate(authority: Authority) -> tuple[bytes, bytes]:
    """A new certificate for this machine, and its private key.

    The authority itself comes last in the chain: without it, clients that are told to verify
    nothing still refuse, because they look for the end of the chain.
    """
    import trustme

    leaf = trustme.CA.from_pem(authority.certificate, authority.private_key).issue_cert(*NAMES)
    chain = [pem.bytes() for pem in leaf.cert_chain_pems]
    return b"".join([*chain, authority.certificate]), leaf.private_key_pem.bytes()
