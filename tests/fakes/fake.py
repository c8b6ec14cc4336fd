"""One fake provider: what it answers, what it saw, and what it billed.

A call goes as its ``Plan`` says: by the model's name (``fails/rate``), or by a plan that a test
puts in. Nothing is random and nothing waits but for an event or a hang-up.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NoReturn

from aiohttp import web

from tests.fakes import chat, lists, messages, replies, responses, strict
from tests.fakes.books import BREAKS, FAILS, Bill, Plan, Seen, by_name
from tests.fakes.replies import Reply
from tests.fakes.vendor import Json, Model, Trouble, Vendor
from tests.fakes.vendors import VENDORS

BODIES = {
    "chat": chat.chat_body,
    "messages": messages.messages_body,
    "responses": responses.responses_body,
    "embeddings": responses.embeddings_body,
}
STREAMS = {
    "chat": chat.chat_stream,
    "messages": messages.messages_stream,
    "responses": responses.responses_stream,
}


@dataclass
class Fake:
    """One provider. ``stored``: ids of answers that it keeps, prompt and all."""

    vendor: Vendor
    plan: Callable[[Seen, Json], Plan] = by_name
    origin: str = ""
    seen: list[Seen] = field(default_factory=list)
    bills: list[Bill] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _known: dict[str, int] = field(default_factory=dict)

    @property
    def base(self) -> str:
        return self.origin + self.vendor.bases[0]

    @property
    def key(self) -> str:
        return self.vendor.key

    @property
    def calls(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == "POST"]

    @property
    def billed(self) -> Decimal:
        return sum((bill.cost or Decimal(0) for bill in self.bills), Decimal(0))

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Back once ``is_so``: it is asked when something came in, and when an answer ended."""
        async with self.changed:
            await self.changed.wait_for(is_so)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.content.read()
        head = (self.vendor.name, request.method, request.raw_path)
        seen = Seen(*head, request.headers.copy(), body)
        self.seen.append(seen)
        await self._tell_changed()
        try:
            return await self._reply(request, seen)
        finally:
            await self._tell_changed()

    async def _tell_changed(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def _reply(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        path = request.path
        if request.method == "GET":
            return self._read(request, seen)
        dialect = next((name for name, at in self.vendor.paths.items() if at == path), None)
        if dialect is None:
            return self._error(Trouble(404, "not_found", "Not Found", "config"), "")
        if not self._is_known(seen, path):
            return self._error(self.vendor.troubles["key"], dialect)
        return await self._answer(request, seen, dialect)

    def _read(self, request: web.Request, seen: Seen) -> web.Response:
        catalogue = self.vendor.lists.get(request.path)
        is_known = self._is_known(seen, request.path)
        if catalogue is not None and (catalogue.is_public or is_known):
            return web.json_response(catalogue.rows(self.vendor), headers=self.vendor.hints)
        if self.vendor.name == "openrouter":
            path = request.path.removeprefix("/api/v1/")
            if path.startswith("models/"):
                model = path.removeprefix("models/").removesuffix("/endpoints")
                return web.json_response(lists.hosts(VENDORS.values(), model))
            if is_known and path == "key":
                return web.json_response({"data": {"label": "sk-or-v1-012...def"}})
            if is_known and path == "generation":
                return self._tell(request.query["id"])
        if not is_known:
            return self._error(self.vendor.troubles["key"], "")
        return self._error(Trouble(404, "not_found", "Not Found", "config"), "")

    def _tell(self, id: str) -> web.Response:
        bill = next((bill for bill in self.bills if bill.id == id and bill.cost is not None), None)
        if bill is None or bill.cost is None:
            return self._error(Trouble(404, "not_found", "No such generation", "caller"), "")
        told = {"id": id, "total_cost": float(bill.cost), "model": bill.model.id}
        return web.json_response({"data": told})

    def _is_known(self, seen: Seen, path: str) -> bool:
        if seen.headers.get("Authorization") is not None:
            is_bearer = seen.headers["Authorization"] == f"Bearer {self.vendor.key}"
            return is_bearer and len(seen.keys) == 1
        takes = path in self.vendor.x_api_key_at
        return takes and seen.headers.get("x-api-key") == self.vendor.key

    def _error(self, trouble: Trouble, dialect: str) -> web.Response:
        body = self.vendor.body_of(trouble, dialect)
        headers = {**self.vendor.hints, **trouble.headers}
        return web.json_response(body, status=trouble.status, headers=headers)

    def _model(self, name: Any, dialect: str) -> Model | None:
        text = str(name)
        if text.startswith(FAILS):
            return self.vendor.models[0]._replace(id=text, wants=None)
        if self.vendor.name == "gemini":
            text = text.removeprefix("models/")
        model = self.vendor.model(text)
        if model is None or (dialect == "embeddings") != (model.dialects is not None):
            return None
        return model

    async def _answer(self, request: web.Request, seen: Seen, dialect: str) -> web.StreamResponse:
        body = json.loads(seen.body)
        if (model := self._model(body.get("model"), dialect)) is None:
            return self._error(self.vendor.troubles["no_model"], dialect)
        if (trouble := self._refused(seen, body, model, dialect)) is not None:
            return self._error(trouble, dialect)
        plan = self.plan(seen, body)
        bill = Bill(seen, model, self._id(dialect, len(self.bills) + 1), plan)
        self.bills.append(bill)
        if (trouble := self.vendor.troubles.get(plan.ends)) is not None:
            bill.close(None)
            return self._error(trouble, dialect)
        if plan.ends != "whole" and plan.ends not in BREAKS:
            raise LookupError(plan.ends)
        if dialect == "responses" and self._is_kept(body):
            self.stored.append(bill.id)
        reply = Reply.to(body, self.vendor, model, bill.id, plan.tokens, self._cached(body))
        if dialect == "embeddings":
            reply = replies.embedded(reply)
        return await self._say(request, bill, reply, dialect, body)

    def _is_kept(self, body: Json) -> bool:
        return self.vendor.name in ("openai", "xai") and body.get("store") is not False

    def _id(self, dialect: str, number: int) -> str:
        if self.vendor.name == "openrouter":
            return f"gen-1790981416-Call{number:08}"
        beginning = {"messages": "msg", "responses": "resp"}.get(dialect, "chatcmpl")
        return f"{beginning}_{self.vendor.name}_{number}"

    def _refused(self, seen: Seen, body: Json, model: Model, dialect: str) -> Trouble | None:
        rules = self.vendor.strict[dialect]
        version = seen.headers.get("anthropic-version")
        if dialect == "messages" and self.vendor.name == "anthropic" and version is None:
            text = "anthropic-version: header is required"
            return Trouble(400, "invalid_request_error", text, "caller")
        betas = seen.headers.get("anthropic-beta", "")
        found = strict.complaint(body, rules, model, version, betas)
        if found is None:
            found = strict.unsealed(body, self.vendor.name, self.stored)
        return None if found is None else self.vendor.complain(found)

    def _cached(self, body: Json) -> int:
        """Tokens of the conversation's beginning that it has read before, from 1,024 on."""
        said = body.get("messages") or body.get("input")
        if not isinstance(said, list):
            return 0
        cached, mark = 0, ""
        for message in said:
            mark += json.dumps(message)
            if mark in self._known:
                cached = self._known[mark]
            else:
                self._known[mark] = len(mark) // 4
        return cached - cached % 128 if cached >= 1024 else 0

    async def _say(
        self, request: web.Request, bill: Bill, reply: Reply, dialect: str, body: Json
    ) -> web.StreamResponse:
        plan, is_stream = bill.plan, bool(body.get("stream"))
        head = {**self.vendor.hints, "Content-Type": "application/json"}
        if self.vendor.name == "openrouter":
            head["X-Generation-Id"] = bill.id
        if is_stream:
            head["Content-Type"] = "text/event-stream"
        response = web.StreamResponse(headers=head)
        try:
            if plan.ends in ("hang", "reset"):
                bill.close(reply.used if plan.bills else None)
                await (_forever() if plan.ends == "hang" else _reset(request))
            if plan.ends == "error_first":
                bill.close(reply.used._replace(completion=0, reasoning=0) if plan.bills else None)
                return await self._error_first(request, response, dialect, is_stream)
            if not is_stream:
                return await self._say_whole(request, response, bill, reply, dialect)
            await response.prepare(request)
            return await self._say_stream(request, response, bill, reply, dialect, body)
        except (asyncio.CancelledError, ConnectionError):
            if bill.cost is None:  # hung up on
                bill.close(reply.used if self.vendor.bills_on else bill.used)
            raise

    async def _say_whole(
        self, request: web.Request, response: web.StreamResponse, bill: Bill, reply: Reply, at: str
    ) -> web.StreamResponse:
        """A call that does not stream is always paid for."""
        bill.close(reply.used)
        raw = json.dumps(BODIES[at](reply), ensure_ascii=False).encode()
        ends = bill.plan.ends
        if ends in ("silent", "slow", "cut"):
            await response.prepare(request)
            await response.write(raw[: len(raw) // 2] if ends == "cut" else b" ")
            if ends == "cut":
                await _reset(request)
            await (_forever() if ends == "silent" else self.released.wait())
        else:
            await asyncio.sleep(bill.plan.pause_seconds)
            response.content_length = len(raw)
            await response.prepare(request)
        bill.said += raw
        await response.write(raw)
        return response

    async def _say_stream(
        self,
        request: web.Request,
        response: web.StreamResponse,
        bill: Bill,
        reply: Reply,
        dialect: str,
        body: Json,
    ) -> web.StreamResponse:
        plan = bill.plan
        bill.used = reply.used._replace(completion=0, reasoning=0)
        has_waited = False
        for made, piece in STREAMS[dialect](reply, body):
            if made and not has_waited and plan.ends in ("silent", "slow"):
                has_waited = True
                await (_forever() if plan.ends == "silent" else self.released.wait())
            if made > plan.after and plan.ends in ("cut", "error_inside"):
                bill.close(reply.used if plan.bills else bill.used)
                if plan.ends == "cut":
                    await _reset(request)
                await response.write(self._event_of_error(dialect))
                return response
            if plan.pause_seconds:
                await asyncio.sleep(plan.pause_seconds)
            bill.used = reply.used if made == reply.used.completion else reply.so_far(made)
            bill.said += piece
            await response.write(piece)
        bill.close(reply.used)
        return response

    def _event_of_error(self, dialect: str) -> bytes:
        trouble = next(t for t in self.vendor.troubles.values() if t.status >= 500)
        said = self.vendor.body_of(trouble, dialect)
        if dialect == "responses":
            said = {"type": "error", "code": trouble.code, "message": trouble.message}
        return replies.data(said, "error" if dialect in ("messages", "responses") else None)

    async def _error_first(
        self, request: web.Request, response: web.StreamResponse, dialect: str, is_stream: bool
    ) -> web.StreamResponse:
        await response.prepare(request)
        if is_stream:
            await response.write(self._event_of_error(dialect))
        else:
            trouble = next(t for t in self.vendor.troubles.values() if t.status >= 500)
            await response.write(json.dumps(self.vendor.body_of(trouble, dialect)).encode())
        return response


async def _forever() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError


async def _reset(request: web.Request) -> NoReturn:
    """Break the connection; the handler is cancelled for it."""
    assert request.transport is not None
    request.transport.abort()
    await _forever()
