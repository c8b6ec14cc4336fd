"""One inference call at the fake upstream: read it, let its model answer at its own pace."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from keyproxy.dataclass import dataclass
from keyproxy.demo import failures, texts
from keyproxy.demo.calls import Calls
from keyproxy.demo.failures import Failure, encode
from keyproxy.demo.messages import Messages
from keyproxy.demo.models import MODELS, Ending, Model
from keyproxy.demo.replies import reply, reply_failure
from keyproxy.demo.shapes import Answer, Shape
from keyproxy.strict_json.body import whole_number

TOKENS_BEFORE_BREAK = 12
BYTES_BEFORE_CUT = 100


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, in any of the three shapes; ``max_tokens`` under any of its names."""

    model: Model
    message: str
    prompt_tokens: int
    max_tokens: int | None
    is_streaming: bool


class Failing(Exception):
    """This call gets a failure instead of an answer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


async def infer(
    request: web.Request, kind: type[Shape], calls: Calls, pace: float
) -> web.StreamResponse:
    """Answer one call that has shown the key; ``pace`` stretches every pause."""
    generation_id = f"gen-{int(time.time())}-{secrets.token_hex(10)}"
    try:
        question = read_question(await request.read())
        if question.model.failure is not None:
            raise Failing(question.model.failure)
    except Failing as failing:
        return reply_failure(
            failing.failure, generation_id=generation_id, as_messages=kind is Messages
        )
    if question.model.is_silent:
        await asyncio.Event().wait()
    answer = Answer(
        id=generation_id,
        created=int(time.time()),
        model=question.model.id,
        prompt_tokens=question.prompt_tokens,
        max_tokens=question.max_tokens,
    )
    with calls.booked(answer, is_streaming=question.is_streaming):
        tokens = _generate(question, answer, pace)
        send = _stream if question.is_streaming else _send_whole
        return await send(request, kind(answer), tokens, question.model.ending)


def read_question(body: bytes) -> Question:
    """Understand a call's body. Raises: Failing."""
    try:
        asked = json.loads(body)
    except ValueError:
        raise Failing(failures.INVALID_BODY) from None
    if not isinstance(asked, dict):
        raise Failing(failures.INVALID_BODY)
    if not (asked.get("messages") or asked.get("input")):
        raise Failing(failures.NO_INPUT)
    return Question(
        model=_choose_model(asked),
        message=texts.last_message(asked),
        prompt_tokens=texts.count_prompt(asked),
        max_tokens=_max_tokens(asked),
        is_streaming=asked.get("stream") is True,
    )


def _choose_model(asked: dict[str, Any]) -> Model:
    """``model``, else the first of the fallback list ``models``."""
    fallbacks = asked.get("models")
    model_id = asked.get("model") or (fallbacks[0] if isinstance(fallbacks, list) else None)
    if not isinstance(model_id, str) or model_id not in MODELS:
        raise Failing(failures.unknown_model(str(model_id)))
    return MODELS[model_id]


def _max_tokens(asked: dict[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        value = asked.get(name)
        length = whole_number(value)
        if length is not None and length > 0:
            return length
        if value is not None and length != -1:  # which some clients send for no limit
            raise Failing(Failure(400, f"{name} must be a positive integer"))
    return None


async def _generate(question: Question, answer: Answer, pace: float) -> AsyncIterator[str]:
    """Make the answer, one token after the other."""
    model = question.model
    tokens = texts.tokens(model.says(question.message))
    if question.max_tokens is not None and question.max_tokens < len(tokens):
        tokens = tokens[: question.max_tokens]
        answer.is_truncated = True
    if model.ending is not Ending.WHOLE:
        tokens = tokens[:TOKENS_BEFORE_BREAK]
    await asyncio.sleep(model.seconds_before_first_token * pace)
    for token in tokens:
        answer.text += token
        answer.completion_tokens += 1
        yield token
        await asyncio.sleep(model.seconds_per_token * pace)


async def _stream(
    request: web.Request, shape: Shape, tokens: AsyncIterator[str], ending: Ending
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache",
            "X-Generation-Id": shape.answer.id,
        }
    )
    await response.prepare(request)
    for event in shape.opening():
        await response.write(event)
    async for token in tokens:
        await response.write(shape.piece(token))
    if ending is Ending.CUT:
        return _hang_up(request, response)
    for event in shape.failing() if ending is Ending.ERROR else shape.closing():
        await response.write(event)
    await response.write_eof()
    return response


async def _send_whole(
    request: web.Request, shape: Shape, tokens: AsyncIterator[str], ending: Ending
) -> web.StreamResponse:
    async for _ in tokens:
        pass
    body = shape.whole_failed() if ending is Ending.ERROR else shape.whole()
    headers = {"X-Generation-Id": shape.answer.id}
    if ending is not Ending.CUT:
        return reply(body, headers=headers)
    response = web.StreamResponse(headers={**headers, "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(encode(body)[:BYTES_BEFORE_CUT])
    return _hang_up(request, response)


def _hang_up(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Close the connection under a chunked body that has not ended."""
    if request.transport is not None:
        request.transport.close()
    return response
