"""How the fake upstream writes what is not a stream: chunked, without a length, as observed."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from keyproxy.demo.failures import Failure, encode

EDGE_HEADERS = {
    "cf-ray": "9exampleexample-FRA",
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "X-Generation-Id,X-Provider-Name,request-id,cf-ray",
    "Permissions-Policy": 'payment=(self "https://checkout.stripe.com" "https://js.stripe.com")',
    "Referrer-Policy": "no-referrer, strict-origin-when-cross-origin",
    "X-Content-Type-Options": "nosniff",
    "Set-Cookie": (
        "__cf_bm=EXAMPLE-not-a-real-cookie; HttpOnly; Secure; Path=/; Domain=openrouter.ai"
    ),
    "Server": "cloudflare",
}


async def add_edge_headers(request: web.Request, response: web.StreamResponse) -> None:
    """What the edge in front of OpenRouter adds to every answer, for a proxy to clean away."""
    response.headers.update(EDGE_HEADERS)


def reply(value: object, *, headers: Mapping[str, str] | None = None) -> web.Response:
    return _chunked(
        web.Response(body=encode(value), content_type="application/json", headers=headers)
    )


def reply_failure(
    failure: Failure, *, generation_id: str | None = None, as_messages: bool = False
) -> web.Response:
    """``failure`` as OpenRouter answers it; ``as_messages`` in the words of ``/messages``."""
    named = {} if generation_id is None else {"X-Generation-Id": generation_id}
    return _chunked(
        web.Response(
            body=failure.body(as_messages=as_messages, generation_id=generation_id),
            status=failure.status,
            content_type="application/json" if failure.page is None else "text/html",
            headers={**failure.headers(), **named},
        )
    )


def _chunked(response: web.Response) -> web.Response:
    response.enable_chunked_encoding()
    return response
