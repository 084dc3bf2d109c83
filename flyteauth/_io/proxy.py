"""Which proxy a request goes through, if any."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from .._sansio.errors import ConfigError, quote
from .._sansio.http import is_loopback


def proxy_for(configured: str | None, scheme: str, host: str, port: int | None) -> str | None:
    """The proxy for *host*, or None to go there directly."""
    from urllib.request import getproxies, getproxies_environment, proxy_bypass

    if _is_near(host):
        return None
    if configured is not None:
        key, url = "httpProxyURL", configured
    else:
        proxies = getproxies()
        key = f"{scheme.upper()}_PROXY" if scheme in proxies else "ALL_PROXY"
        if (found := proxies.get(scheme) or proxies.get("all")) is None:
            return None
        url = found if "://" in found else f"http://{found}"
    environment = configured is None or "no" in getproxies_environment()
    if environment and proxy_bypass(f"{host}:{port}"):
        return None
    _check_proxy(key, url)
    return url


def _is_near(host: str) -> bool:
    """Whether *host* is this machine or on its link: nothing that a proxy could reach."""
    name = host.rstrip(".").lower()
    if is_loopback(name) or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_link_local


def _check_proxy(key: str, url: str) -> None:
    """The value may hold a password, so no message shows it."""
    import httpx

    try:
        scheme = httpx.Proxy(url).url.scheme
        usable = bool(httpx.URL(url).host)
    except (ValueError, httpx.InvalidURL):
        usable = False
    if not usable:
        raise ConfigError(
            f"{key} is not a proxy's URL; give it like http://proxy.example.org:3128",
            reason="proxy",
        )
    if scheme.startswith("socks"):
        try:
            import socksio  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
        except ImportError:
            raise ConfigError(
                f"{key} names a SOCKS proxy; install httpx[socks], or name an HTTP proxy",
                reason="proxy",
            ) from None


def proxy_name(proxy: str) -> str:
    parts = urlsplit(proxy)
    return quote(f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}", 80)
