"""An answer of ours that its client may have already (RFC 9110, 13.1.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from aiohttp import web


def answer(
    request: web.Request, status: int, body: bytes, fields: Mapping[str, str]
) -> web.Response:
    """The JSON in ``body`` under a tag of its own; 304 for a client that names the tag."""
    tag = hashlib.blake2b(body, digest_size=16).hexdigest()
    fields = {**fields, "Cache-Control": "private, no-cache", "ETag": f'"{tag}"'}
    known = {etag.value for etag in request.if_none_match or ()}
    if status == 200 and known & {tag, "*"}:
        return web.Response(status=304, headers=fields)
    return web.Response(status=status, body=body, content_type="application/json", headers=fields)
