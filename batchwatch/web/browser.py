"""What browsers must be kept from: being used by other sites, or by what got into our pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from aiohttp import web

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

# Scripts and styles are files of our own, and nothing of ours stands in anybody's frame. What
# proxies answer for is left to them: Strict-Transport-Security, and certificates.
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "accelerometer=(), browsing-topics=(), camera=(), display-capture=(), "
    "geolocation=(), gyroscope=(), magnetometer=(), microphone=(), midi=(), payment=(), "
    "publickey-credentials-get=(), screen-wake-lock=(), serial=(), usb=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # for browsers that know no frame-ancestors
}

_PORTS: Final = {"http": 80, "https": 443}


def is_browser(request: web.Request) -> bool:
    """Whether ``request`` has what only browsers send, and each of them with a POST."""
    return any(name in request.headers for name in ("Sec-Fetch-Site", "Origin", "Cookie"))


def is_foreign(request: web.Request, host: str) -> bool:
    """Whether a page of another site had a browser send ``request`` to ``host``.

    Browsers say so by Sec-Fetch-Site, but only to https:// and to loopback.
    To others they say where a POST comes from. Programs say neither.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in {"same-origin", "none"}
    origin = request.headers.get("Origin")
    if origin is None:
        return False
    there = _place(origin)
    return there is None or there != _place(f"{urlsplit(origin).scheme}://{host}")


def _place(url: str) -> tuple[str, int | None] | None:
    """Host and port; None if it has none, as the origin of a page that has a file or a frame."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname else None
