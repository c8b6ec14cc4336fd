"""The dashboard's files, as the bytes that the listener hands out. They hold no data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from keyproxy.demo.page import PageFile, read

FOLDER = Path(__file__).parent / "web"
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
            "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
)


def files() -> Mapping[str, PageFile]:
    """Each by its URL path; ``/`` is ``index.html``."""
    found = dict(read(FOLDER))
    found["/"] = found.pop("/index.html")
    return found
