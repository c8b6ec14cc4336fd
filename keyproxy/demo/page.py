"""The chat page, as the bytes a server hands out.

The pages live in ``examples/web``, where people look for something to copy; a wheel carries
them in ``keyproxy/demo/web``. A server looks a request's path up in ``files()`` and joins no
path of its own, so nothing else on the disk can be asked for.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from keyproxy.dataclass import dataclass, replace

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOLDERS = (
    Path(__file__).parent / "web",
    Path(__file__).parents[2] / "examples" / "web",
)

_NO_DASHBOARD = b'<meta name="dashboard" content="">'

HEADERS: Mapping[str, str] = MappingProxyType(
    {
        # connect-src is open so that ?api= may name a proxy on another port.
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src *; "
            "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "Cache-Control": "no-cache",
        "Referrer-Policy": "same-origin",
    }
)


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page; ``content_type`` is the whole header, charset included."""

    body: bytes
    content_type: str


def linked(page: PageFile, dashboard: str) -> PageFile:
    """The chat page with the dashboard's address, to which it links where it is opened on
    loopback."""
    told = f'<meta name="dashboard" content="{html.escape(dashboard)}">'.encode()
    return replace(page, body=page.body.replace(_NO_DASHBOARD, told))


def files() -> Mapping[str, PageFile]:
    """Every file of the chat page by its URL path; ``/`` is ``index.html``.

    Reads the disk once; the caller keeps the mapping. Raises: FileNotFoundError.
    """
    folder = next((folder for folder in _FOLDERS if (folder / "index.html").is_file()), None)
    if folder is None:
        raise FileNotFoundError("the chat page is missing from this installation")
    found = dict(read(folder))
    found["/"] = found.pop("/index.html")
    return MappingProxyType(found)


def read(folder: Path) -> Mapping[str, PageFile]:
    """Every file of a page in ``folder``, by its URL path at the root."""
    return {
        f"/{path.relative_to(folder).as_posix()}": PageFile(path.read_bytes(), _TYPES[path.suffix])
        for path in sorted(folder.rglob("*"))
        if path.suffix in _TYPES
    }
