"""Whether the process lives, and whether calls should be sent to it: for load balancers.

Fixed bodies for any Host, without CORS fields and log lines, on each of our listeners.
"""

from __future__ import annotations

from aiohttp import web

HEALTH_PATHS = ("/healthz", "/readyz")


def health(path: str, *, is_ready: bool) -> web.Response:
    """The answer to one of ``HEALTH_PATHS``."""
    is_well = path == "/healthz" or is_ready
    return web.Response(
        text="ok\n" if is_well else "not ready\n",
        status=200 if is_well else 503,
        headers={
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Vary": "Origin",
        },
    )
