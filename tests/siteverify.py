"""A small real server that answers as the captcha vendors' siteverify is documented to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from keyproxy.key_forms import Secret
from tests.loopback import listening

SECRET = Secret("0xMADE-UP-CAPTCHA-SECRET-OF-A-TEST")


@dataclass
class Siteverify:
    """The vendor: knows one secret, takes each response once, records what it was asked.

    ``answer`` replaces its verdicts: a JSON value, a finished response, or None to hang,
    with ``begins`` in the middle of an answer.
    """

    url: str = ""
    hostname: Any = "app.example"
    spent: str = "timeout-or-duplicate"
    answer: Any = "by the documents"
    begins: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    seen: set[str] = field(default_factory=set)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append(form)
        self.headers.append(request.headers.copy())
        self.arrived.set()
        if self.answer is None:
            response = web.StreamResponse()
            if self.begins:
                await response.prepare(request)
                await response.write(b'{"success":true')
            await self.released.wait()
            return response
        if isinstance(self.answer, web.StreamResponse):
            return self.answer
        if self.answer != "by the documents":
            return web.json_response(self.answer)
        return web.json_response(self.verdict(form))

    def verdict(self, form: dict[str, str]) -> dict[str, Any]:
        code = None
        if form.get("secret") != SECRET.reveal():
            code = "invalid-input-secret"
        elif not form.get("response", "").startswith("made-up"):
            code = "invalid-input-response"
        elif form["response"] in self.seen:
            code = self.spent
        if code is not None:
            return {"success": False, "error-codes": [code]}
        self.seen.add(form["response"])
        verdict = {"success": True, "challenge_ts": "2026-11-25T03:45:00.000Z", "error-codes": []}
        return verdict | ({} if self.hostname is None else {"hostname": self.hostname})


@asynccontextmanager
async def serving() -> AsyncIterator[Siteverify]:
    """A vendor on loopback."""
    fake = Siteverify()
    app = web.Application()
    app.router.add_post("/siteverify", fake.handle)
    app.router.add_route("*", "/elsewhere", fake.handle)
    async with listening(app) as port:
        fake.url = f"http://127.0.0.1:{port}/siteverify"
        yield fake
        fake.released.set()
