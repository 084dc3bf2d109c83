"""Whom to trust: the operating system's certificates, and those that the user names."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .._sansio.errors import ConfigError, quote
from .explain import explain_system

if TYPE_CHECKING:
    import ssl

# Where systems keep their certificates, for a Python whose OpenSSL looks elsewhere.
BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",  # older RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # BSD
)


def tls_context(ca_file: Path | None, *, verify: bool) -> ssl.SSLContext:
    """The context for every connection. Takes tens of milliseconds: for a worker thread."""
    import ssl

    context: ssl.SSLContext
    if not verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif sys.platform in {"darwin", "win32"}:
        import truststore

        context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        named = os.environ.get("SSL_CERT_FILE", "")
        if Path(named).is_file():
            _trust(context, Path(named), "SSL_CERT_FILE")
    else:
        # Elsewhere the trust store is a file. truststore would read it again for each connection,
        # on the event loop (30 ms), so it is read here, once.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_default_verify_paths()  # also SSL_CERT_FILE and SSL_CERT_DIR
        if not context.cert_store_stats()["x509_ca"] and "SSL_CERT_DIR" not in os.environ:
            for bundle in filter(os.path.isfile, BUNDLES):
                with suppress(OSError):
                    context.load_verify_locations(bundle)
                    break
        context.sslobject_class = _issuer_telling(ssl.SSLObject)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None and verify:
        # An intermediate, or the server's own certificate, is enough to trust.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        _trust(context, ca_file, "caCertFilePath")
    return context


def _trust(context: ssl.SSLContext, path: Path, key: str) -> None:
    import ssl

    try:
        context.load_verify_locations(path)
    except OSError as error:
        broken = isinstance(error, ssl.SSLError)
        why = "holds no PEM certificate" if broken else explain_system(error)
        raise ConfigError(
            f"{key}: {path}: {why}; name a readable file of PEM certificates", reason="ca_file"
        ) from None


def _issuer_telling(base: type[ssl.SSLObject]) -> type[ssl.SSLObject]:
    """An SSLObject that notes who issued a certificate which is not trusted."""
    import ssl

    class TellingSSLObject(base):  # type: ignore[valid-type,misc]
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except ssl.SSLCertVerificationError as error:
                # Public from Python 3.13 on, but without the name in it: a help, not a must.
                with suppress(AttributeError, IndexError, KeyError, TypeError, ValueError):
                    last = self._sslobj.get_unverified_chain()[-1]
                    names = [value for part in last.get_info()["issuer"] for _, value in part]
                    error.add_note(f" (issuer {quote(', '.join(names), 120)})")
                raise

    return TellingSSLObject
