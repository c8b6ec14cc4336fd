"""The proxy one would write first with aiohttp: the baseline of ``compare.py``.

    python benchmarks/naive.py PORT UPSTREAM_BASE KEY

It does a sidecar's work: key and ranking headers, allowed models, a bucket per client, streams.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

MODELS = {"openai/gpt-4o-mini", "openai/gpt-4o", "anthropic/claude-sonnet-4"}
RATE = BURST = 1e6
NOT_UP = {"host", "authorization", "connection", "content-length", "transfer-encoding", "origin"}
NOT_DOWN = {"connection", "content-length", "transfer-encoding", "content-encoding", "keep-alive"}
SESSION = web.AppKey("session", ClientSession)
buckets: dict[str, tuple[float, float]] = {}


def allow(client: str) -> bool:
    now = time.monotonic()
    tokens, last = buckets.get(client, (BURST, now))
    tokens = min(BURST, tokens + (now - last) * RATE)
    if tokens < 1:
        return False
    buckets[client] = (tokens - 1, now)
    return True


def proxy_to(upstream: str, key: str) -> web.Application:
    async def handle(request: web.Request) -> web.StreamResponse:
        if not allow(request.remote or "?"):
            return web.json_response({"error": {"message": "rate limited"}}, status=429)
        body = await request.read()
        if body and json.loads(body).get("model") not in MODELS:
            return web.json_response({"error": {"message": "model not allowed"}}, status=403)
        head = {k: v for k, v in request.headers.items() if k.lower() not in NOT_UP}
        head |= {"Authorization": f"Bearer {key}", "HTTP-Referer": "https://app.example"}
        url = upstream + request.path_qs
        async with request.app[SESSION].request(
            request.method, url, headers=head, data=body
        ) as answer:
            down = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in NOT_DOWN:
                    down.headers.add(name, value)
            await down.prepare(request)
            async for chunk in answer.content.iter_any():
                await down.write(chunk)
            await down.write_eof()
            return down

    async def with_session(app: web.Application) -> AsyncIterator[None]:
        connector = TCPConnector(limit=0)
        async with ClientSession(timeout=ClientTimeout(total=None), connector=connector) as session:
            app[SESSION] = session
            yield

    app = web.Application(client_max_size=10 << 20)
    app.router.add_route("*", "/api/v1/{tail:.*}", handle)
    app.cleanup_ctx.append(with_session)
    return app


if __name__ == "__main__":
    port, base, secret = sys.argv[1:]
    app = proxy_to(base, secret)
    web.run_app(app, host="127.0.0.1", port=int(port), print=None, access_log=None)
