"""How the endpoint is reached: for libraries that open connections of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from attrs import field, frozen

from ._source import in_time
from .errors import ConfigError

if TYPE_CHECKING:
    from .config import Settings
    from .session import Session

_PORTS: Final = {"http": 80, "https": 443}
CA_FILE_MAX: Final = 4 * 1024 * 1024


@frozen
class Connection:
    """``url`` has no slash at its end and ``authority`` always a port. ``ca`` is what ca_file
    holds, ``roots`` all that is trusted, as far as the system tells; both in PEM form.
    """

    url: str
    authority: str
    ca: bytes | None = field(repr=False)
    roots: bytes | None = field(repr=False)
    proxy: str | None = field(repr=False)

    @property
    def plain(self) -> bool:
        """Whether there is no TLS."""
        return self.url.startswith("http://")


async def connection(session: Session, address: str | None, also: Iterable[str]) -> Connection:
    """How *address* is reached, by default the endpoint. Files are read on a worker thread.

    Raises ConfigError, also if the session's credentials must not go there: they may go where
    Session.origins says.
    """
    settings = await session.settings()
    if address is None:
        if settings.endpoint is None:
            raise ConfigError(
                "this session has an issuer but no Flyte endpoint; pass address= and origins=",
                reason="endpoint",
            )
        address = settings.endpoint.url
    elif not (await session.origins(also)).allow(address):
        raise ConfigError(
            "the address is neither the endpoint's nor in origins=, so credentials must not go "
            "there; write it like https://flyte.example.com:8443, and name its server in origins=",
            reason="origins",
        )
    return await in_time(_connection, settings, address.rstrip("/"))


def _connection(settings: Settings, url: str) -> Connection:
    from ._io.proxy import proxy_for

    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    name = f"[{host}]" if ":" in host else host
    proxy = proxy_for(settings.http_proxy_url, parts.scheme, host, port)
    if ":" in host:  # clients that take a URL apart may lose its port otherwise
        url = f"{parts.scheme}://{name}:{port}{parts.path}"
    ca, roots = (None, None) if parts.scheme == "http" else _trusted(settings)
    return Connection(url, f"{name}:{port}", ca, roots, proxy)


def _trusted(settings: Settings) -> tuple[bytes | None, bytes | None]:
    import ssl

    from ._config_file import contents
    from ._io.tls import tls_context

    if settings.ca_file is None and settings.insecure_skip_verify:
        raise ConfigError(
            "insecureSkipVerify: this library cannot leave certificates unchecked; name the "
            "server's certificate authority in caCertFilePath",
            reason="insecure_skip_verify",
        )
    context = tls_context(settings.ca_file, verify=True)  # which says what is wrong with the file
    ca = None if settings.ca_file is None else contents(settings.ca_file, CA_FILE_MAX)[0]
    try:
        known = context.get_ca_certs(binary_form=True)
    except NotImplementedError:  # where the system does not tell
        return ca, ca
    return ca, "".join(map(ssl.DER_cert_to_PEM_cert, known)).encode() or None
