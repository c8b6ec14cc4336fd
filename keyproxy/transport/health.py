"""Whether the process lives, and whether calls should be sent to it: for load balancers.

Fixed bodies for any Host, without CORS fields and log lines, on each of our listeners.
"""

from __future__ import annotations

from keyproxy.transport.messages import Response

HEALTH_PATHS = ("/healthz", "/readyz")


def health(path: str, *, is_ready: bool) -> Response:
    """The answer to one of ``HEALTH_PATHS``."""
    is_well = path == "/healthz" or is_ready
    fields = {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Vary": "Origin",
        "Content-Type": "text/plain; charset=utf-8",
    }
    return Response(200 if is_well else 503, fields, b"ok\n" if is_well else b"not ready\n")
