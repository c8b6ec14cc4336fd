"""A small server that behaves like OpenRouter, for demos and for other people's tests.

Paths, bodies, streams, errors and headers follow what was captured of openrouter.ai/api/v1 in
October 2026, its cookie and its own CORS fields included. Only a caller with ``DEMO_KEY`` gets
an answer, so a proxy in front has something to protect. Knows nothing of that proxy.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from keyproxy.demo import catalogue, failures
from keyproxy.demo.calls import Calls
from keyproxy.demo.chat import Chat
from keyproxy.demo.inference import infer
from keyproxy.demo.messages import Messages
from keyproxy.demo.replies import add_edge_headers, reply, reply_failure
from keyproxy.demo.responses import Responses
from keyproxy.demo.shapes import Shape

DEMO_KEY = "sk-or-v1-demo-not-a-secret-opens-nothing-but-the-built-in-demo"

MAX_BODY_BYTES = 64 * 1024 * 1024
CLOSING_SECONDS = 0.2


@contextlib.asynccontextmanager
async def running(
    host: str = "127.0.0.1", port: int = 0, *, pace: float = 1.0
) -> AsyncIterator[str]:
    """The fake upstream, serving while the block runs; yields its base URL.

    ``port`` 0 takes a free one. ``pace`` stretches every pause: 0 answers at once.
    """
    runner = web.AppRunner(
        create_app(pace=pace),
        handler_cancellation=True,  # notice a caller that leaves; aiohttp does so only when told
        shutdown_timeout=CLOSING_SECONDS,
        access_log=None,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        bound_port = runner.addresses[0][1]
        yield f"http://{f'[{host}]' if ':' in host else host}:{bound_port}/api/v1"
    finally:
        await runner.cleanup()


def create_app(*, pace: float = 1.0) -> web.Application:
    upstream = _Upstream(pace)
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.on_response_prepare.append(add_edge_headers)
    app.add_routes(catalogue.routes)
    app.add_routes(
        [
            web.post("/api/v1/chat/completions", upstream.chat),
            web.post("/api/v1/responses", upstream.responses),
            web.post("/api/v1/messages", upstream.messages),
            web.get("/api/v1/key", upstream.key),
            web.get("/api/v1/generation", upstream.generation),
            web.get("/demo/calls", upstream.counts),
            web.route("*", "/{rest:.*}", _not_found),
        ]
    )
    return app


class _Upstream:
    """The routes that want the key, and the counts of their calls."""

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._calls = Calls()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._infer(request, Chat)

    async def responses(self, request: web.Request) -> web.StreamResponse:
        return await self._infer(request, Responses)

    async def messages(self, request: web.Request) -> web.StreamResponse:
        return await self._infer(request, Messages)

    async def key(self, request: web.Request) -> web.Response:
        return _refused(request) or reply({"data": _KEY})

    async def generation(self, request: web.Request) -> web.Response:
        """What a call cost, cut ones included."""
        refused = _refused(request)
        if refused is not None:
            return refused
        found = self._calls.generation(request.query.get("id", ""))
        return reply_failure(failures.NOT_FOUND) if found is None else reply({"data": found})

    async def counts(self, request: web.Request) -> web.Response:
        """Calls that are open, finished, aborted; ``?aborted=1`` waits until there is one."""
        counts = self._calls.counts()
        wanted = {name: int(least) for name, least in request.query.items() if name in counts}
        await self._calls.reached(wanted)
        return reply(self._calls.counts())

    async def _infer(self, request: web.Request, kind: type[Shape]) -> web.StreamResponse:
        with self._calls.counted():
            return _refused(request) or await infer(request, kind, self._calls, self._pace)


def _refused(request: web.Request) -> web.Response | None:
    """A 401 for everyone without the key."""
    credential = request.headers.get("Authorization")
    if credential is None:
        return reply_failure(failures.NO_KEY)
    return None if credential == f"Bearer {DEMO_KEY}" else reply_failure(failures.KEY_REJECTED)


async def _not_found(request: web.Request) -> web.Response:
    return reply_failure(failures.NOT_FOUND)


_KEY = {
    "label": f"{DEMO_KEY[:12]}...{DEMO_KEY[-3:]}",
    "limit": 10,
    "limit_remaining": 9.5,
    "limit_reset": "monthly",
    "include_byok_in_limit": False,
    "usage": 0.5,
    "usage_daily": 0.1,
    "usage_weekly": 0.5,
    "usage_monthly": 0.5,
    "byok_usage": 0,
    "byok_usage_daily": 0,
    "byok_usage_weekly": 0,
    "byok_usage_monthly": 0,
    "is_free_tier": False,
    "is_management_key": False,
    "is_provisioning_key": False,
    "creator_user_id": failures.ACCOUNT_ID,
    "organization_id": None,
    "workspace_id": "00000000-0000-4000-8000-000000000000",
    "expires_at": None,
    "allowed_data_regions": None,
    "budgets": [],
    "effective_budget": None,
    "free_model_daily_requests": {"limit": 1000, "remaining": 988, "used": 12},
    "rate_limit": {
        "requests": -1,
        "interval": "10s",
        "note": "This field is deprecated and safe to ignore.",
    },
}
