"""A fake upstream that keeps its own books: each call that reached it, and what it truly cost.

It answers in three styles, streamed or not, and fails as upstreams do: resets, errors of each
kind, usage that is missing, partial or in odd places. Which way a call goes follows from the
number in its text alone, so that every run is the same. Shapes: ``tests/wire``; providers that
bill on after a hang-up: openrouter.ai/docs, "Streaming", August 2026.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NoReturn

from aiohttp import web

from tests.loopback import listening

PROMPT_PRICE = Decimal("0.00000015")
COMPLETION_PRICE = Decimal("0.0000125")
MODELS = ("openai/gpt-4o-mini", "anthropic/claude-sonnet-4")
MOST_TOKENS = 40
"""What calls ask for at most; each could cost some 0.0005 USD for it."""
_CATALOGUE = {
    "data": [
        {
            "id": model,
            "context_length": 10_000,
            "pricing": {"prompt": f"{PROMPT_PRICE:f}", "completion": f"{COMPLETION_PRICE:f}"},
            "top_provider": {"max_completion_tokens": 5000},
        }
        for model in MODELS
    ]
}
_NUMBER = re.compile(rb"call number (\d+)")
_SHARES = {  # how calls go, out of a hundred
    "whole": 44,
    "whole_without_cost": 5,
    "whole_without_usage": 5,
    "cut": 12,
    "cut_after_usage": 7,
    "cut_before_head": 4,
    "error_inside": 7,
    "error_status": 12,
    "not_fit_to_pass": 4,
}


@dataclass(frozen=True, slots=True)
class Script:
    """How one call goes. ``id_in``: where its generation id is told."""

    ends: str
    tokens: int
    fails_after: int
    pause_seconds: float
    bills_on: bool
    is_running_usage: bool
    id_in: str
    unknown_for: int
    status: int
    discount: Decimal

    @classmethod
    def of(cls, number: int) -> Script:
        dice = random.Random(f"script {number}")
        tokens = dice.randint(3, 12)
        return cls(
            ends=dice.choices(list(_SHARES), list(_SHARES.values()))[0],
            tokens=tokens,
            fails_after=dice.randint(0, tokens - 1),
            pause_seconds=dice.choice([0, 0.001, 0.005, 0.01, 0.03]),
            bills_on=dice.random() < 0.5,
            is_running_usage=dice.random() < 0.3,
            id_in=dice.choices(["head", "body", "nowhere"], [8, 1, 1])[0],
            unknown_for=dice.choice([0, 0, 0, 1]),
            status=dice.choice([400, 402, 403, 404, 408, 429, 500, 502, 503, 529]),
            discount=Decimal(dice.randint(500, 1000)) / 1000,
        )


@dataclass(slots=True)
class Bill:
    """One call in the books. ``cost`` None: it still runs."""

    number: int
    script: Script
    generation_id: str
    cost: Decimal | None = None
    asked: int = 0

    def costing(self, tokens: int) -> Decimal:
        price = 10 * PROMPT_PRICE + tokens * COMPLETION_PRICE
        return price * self.script.discount if tokens else Decimal(0)

    def close(self, tokens: int) -> None:
        self.cost = self.costing(tokens)


@dataclass
class Books:
    """The upstream. ``bills`` by number; ``twice``: numbers that reached it again.

    A script that ends "held" sends its head and no more. ``is_silent``: it does not tell what
    any call has cost.
    """

    script_of: Callable[[int], Script]
    base_url: str = ""
    bills: dict[int, Bill] = field(default_factory=dict)
    twice: list[int] = field(default_factory=list)
    is_silent: bool = False
    reached: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def spent(self) -> Decimal:
        return sum((bill.cost or Decimal(0) for bill in self.bills.values()), Decimal(0))

    async def wait_for(self, calls: int) -> None:
        async with self.reached:
            await self.reached.wait_for(lambda: len(self.bills) >= calls)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if request.path == "/api/v1/models":
            return web.json_response(_CATALOGUE)
        if request.path == "/api/v1/generation":
            return self._tell(request.query["id"])
        if (found := _NUMBER.search(body)) is None:
            return web.json_response({"error": {"code": 404, "message": "Not Found"}}, status=404)
        number = int(found[1])
        bill = Bill(number, self.script_of(number), f"gen-1790981416-Call{number:08}")
        async with self.reached:
            if number in self.bills:
                self.twice.append(number)
            self.bills[number] = bill
            self.reached.notify_all()
        asked = json.loads(body)
        try:
            return await self._answer(request, bill, asked)
        except (asyncio.CancelledError, ConnectionError):
            if bill.cost is None:  # before a token was sent; unstreamed calls are always billed
                bill.close(bill.script.tokens if bill.script.bills_on else 0)
            raise

    def _tell(self, id: str) -> web.Response:
        bill = next((b for b in self.bills.values() if b.generation_id == id), None)
        if (
            bill is None
            or bill.cost is None
            or self.is_silent
            or bill.asked < bill.script.unknown_for
        ):
            if bill is not None and bill.cost is not None:
                bill.asked += 1
            return web.json_response({"error": {"code": 404, "message": "No"}}, status=404)
        return web.json_response({"data": {"id": id, "total_cost": float(bill.cost)}})

    async def _answer(
        self, request: web.Request, bill: Bill, asked: dict[str, Any]
    ) -> web.StreamResponse:
        script = bill.script
        await asyncio.sleep(script.pause_seconds * 3)
        head = {"X-Generation-Id": bill.generation_id} if script.id_in == "head" else {}
        if script.ends == "error_status":
            bill.close(0)
            error = {"code": script.status, "message": "Provider returned error"}
            return web.json_response({"error": error}, status=script.status, headers=head)
        if script.ends == "cut_before_head":
            bill.close(script.tokens if script.bills_on else 0)
            await _reset(request)
        if script.ends == "not_fit_to_pass":
            bill.close(script.tokens)
            return web.Response(text="<p>", content_type="text/html", headers=head)
        if script.ends == "held":
            await self._hold(request, head)
        style = request.path.rpartition("/")[2]
        pieces = list(_events(style, bill)) if asked.get("stream") else [_body(style, bill)]
        kind = "text/event-stream" if asked.get("stream") else "application/json"
        response = web.StreamResponse(headers={**head, "Content-Type": kind})
        if not asked.get("stream"):
            bill.close(0 if script.ends == "error_inside" else script.tokens)
            return await self._write_body(request, response, bill, pieces[0][1])
        return await self._write_stream(request, response, bill, pieces)

    async def _hold(self, request: web.Request, head: dict[str, str]) -> NoReturn:
        response = web.StreamResponse(headers={**head, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": OPENROUTER PROCESSING\n\n")
        await asyncio.Event().wait()
        raise AssertionError

    async def _write_body(
        self, request: web.Request, response: web.StreamResponse, bill: Bill, body: bytes
    ) -> web.StreamResponse:
        await response.prepare(request)
        if bill.script.ends.startswith("cut"):
            await response.write(body[: len(body) // 2])
            await _reset(request)
        await response.write(body)
        return response

    async def _write_stream(
        self,
        request: web.Request,
        response: web.StreamResponse,
        bill: Bill,
        pieces: list[tuple[int, bytes]],
    ) -> web.StreamResponse:
        script, made = bill.script, 0
        fails_at = {
            "cut": script.fails_after + 1,
            "cut_after_usage": len(pieces) - 1,
        }.get(script.ends, len(pieces) + 1)
        try:
            await response.prepare(request)
            for number, (tokens, piece) in enumerate(pieces):
                if number == fails_at:
                    await _reset(request)
                made = tokens
                await asyncio.sleep(script.pause_seconds)
                await response.write(piece)
        except (asyncio.CancelledError, ConnectionError):
            bills_on = script.bills_on and script.ends != "error_inside"
            bill.close(script.tokens if bills_on else made)
            raise
        bill.close(made)
        return response


async def _reset(request: web.Request) -> NoReturn:
    """Break the connection; the handler is cancelled for it."""
    assert request.transport is not None
    request.transport.abort()
    await asyncio.Event().wait()
    raise AssertionError


def _usage(style: str, bill: Bill, tokens: int) -> dict[str, Any] | None:
    if bill.script.ends == "whole_without_usage":
        return None
    names = ("prompt_tokens", "completion_tokens")
    if style != "completions":
        names = ("input_tokens", "output_tokens")
    said: dict[str, Any] = {names[0]: 10, names[1]: tokens}
    if bill.script.ends != "whole_without_cost":
        said |= {"cost": float(bill.costing(tokens)), "is_byok": False}
    return said


def _body(style: str, bill: Bill) -> tuple[int, bytes]:
    body: dict[str, Any]
    if bill.script.ends == "error_inside":
        body = {"error": {"code": 502, "message": "Provider returned error"}}
    else:
        usage = _usage(style, bill, bill.script.tokens)
        body = {"model": MODELS[0], "output": "x" * 400, "usage": usage}
        if usage is None:
            del body["usage"]
    if bill.script.id_in != "nowhere":
        body = {"id": bill.generation_id, **body}
    return bill.script.tokens, json.dumps(body).encode()


def _events(style: str, bill: Bill) -> Iterator[tuple[int, bytes]]:
    """How many tokens were made by then, and an event."""
    script = bill.script
    shape = {"completions": _chat, "responses": _responses, "messages": _messages}[style]
    yield 0, b": OPENROUTER PROCESSING\n\n"
    for tokens, event in shape(bill):
        yield tokens, b"data: %b\n\n" % json.dumps(event).encode()
        if script.ends == "error_inside" and tokens > script.fails_after:
            yield tokens, b'data: {"error":{"code":502,"message":"Provider disconnected"}}\n\n'
            return
    if style != "messages":
        yield script.tokens, b"data: [DONE]\n\n"


def _named(bill: Bill, event: dict[str, Any]) -> dict[str, Any]:
    return event if bill.script.id_in == "nowhere" else {"id": bill.generation_id, **event}


def _chat(bill: Bill) -> Iterator[tuple[int, dict[str, Any]]]:
    script = bill.script
    for tokens in range(1, script.tokens + 1):
        event: dict[str, Any] = {"choices": [{"delta": {"content": "x"}, "finish_reason": None}]}
        if script.is_running_usage:
            event["usage"] = _usage("completions", bill, tokens)
        yield tokens, _named(bill, event)
    usage = _usage("completions", bill, script.tokens)
    stop = {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": None}
    if script.bills_on:  # here, and in a chunk of its own
        yield script.tokens, _named(bill, {**stop, "usage": usage})
    else:
        yield script.tokens, _named(bill, stop)
        yield script.tokens, _named(bill, {"choices": [], "usage": usage})


def _responses(bill: Bill) -> Iterator[tuple[int, dict[str, Any]]]:
    tokens = bill.script.tokens
    begun = _named(bill, {"status": "in_progress", "usage": None})
    yield 0, {"type": "response.created", "response": begun}
    for number in range(1, tokens + 1):
        yield number, {"type": "response.output_text.delta", "delta": 'x "usage":{"cost":0}'}
    ended = _named(bill, {"status": "completed", "usage": _usage("responses", bill, tokens)})
    yield tokens, {"type": "response.completed", "response": ended}


def _messages(bill: Bill) -> Iterator[tuple[int, dict[str, Any]]]:
    tokens = bill.script.tokens
    begun = {"input_tokens": 10, "output_tokens": 1}
    if bill.script.is_running_usage:
        begun = _usage("messages", bill, 0) or begun
    if bill.script.ends == "whole_without_usage":
        begun = {}
    yield 0, {"type": "message_start", "message": _named(bill, {"usage": begun})}
    for number in range(1, tokens + 1):
        yield number, {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x"}}
    usage = _usage("messages", bill, tokens) or {}
    yield tokens, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
    yield tokens, {"type": "message_stop"}


def call(number: int) -> tuple[str, dict[str, Any]]:
    """The path and the body of a call of this number, in one of the styles."""
    dice = random.Random(f"call {number}")
    text, is_streaming = f"This is call number {number}. Greet.", dice.random() < 0.7
    model = dice.choice(MODELS)
    said = [{"role": "user", "content": text}]
    body: dict[str, Any] = {"model": model, "stream": is_streaming}
    style = dice.choice(["chat/completions", "responses", "messages"])
    if style == "responses":
        body |= {"input": text, "max_output_tokens": MOST_TOKENS}
    else:
        body |= {"messages": said, "max_tokens": MOST_TOKENS}
    return f"/api/v1/{style}", body


DEAR = Script(
    ends="whole",
    tokens=2395,
    fails_after=0,
    pause_seconds=0.01,
    bills_on=False,
    is_running_usage=False,
    id_in="head",
    unknown_for=0,
    status=200,
    discount=Decimal(1),
)
"""A call of 0.03 USD (0.02994), which is also about what it could cost."""


def dear_call(number: int) -> tuple[str, dict[str, Any]]:
    said = [{"role": "user", "content": f"This is call number {number}."}]
    body = {"model": MODELS[0], "messages": said, "max_tokens": DEAR.tokens}
    return "/api/v1/chat/completions", body


@asynccontextmanager
async def keeping(script_of: Callable[[int], Script] = Script.of) -> AsyncIterator[Books]:
    """Books on loopback."""
    books = Books(script_of)
    async with listening(books.handle, backlog=1000) as port:
        books.base_url = f"http://127.0.0.1:{port}/api/v1"
        yield books
