"""What became of one call: the one record that its log line, and whoever counts, reads.

Prompts and completions are never logged at any level; neither is a query string.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import structlog

from keyproxy.call import End, Usage
from keyproxy.errors import Side

_MAX_NAME = 80
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C
_call_log = structlog.get_logger("keyproxy.call")


def new_request_id() -> str:
    return f"req_{os.urandom(12).hex()}"


@dataclass(slots=True)
class Record:
    """What becomes one log line when the call has ended."""

    method: str
    path: str
    request_id: str = field(default_factory=new_request_id)
    trace_id: str | None = None
    app: str | None = None
    client: str | None = None
    origin: str | None = None
    endpoint: str | None = None
    models: tuple[str, ...] = ()
    served: str | None = None
    is_other_model: bool | None = None
    http_status: int | None = None
    code: str | None = None
    param: str | None = None
    side: str | None = None
    is_streaming: bool | None = None
    hint: str | None = None
    cause: str | None = None
    usage: Usage | None = None
    cost: Decimal | None = None
    cost_source: str | None = None
    bytes_down: int = 0
    is_quiet: bool = False
    ended: End = End.COMPLETE
    is_cutting: Callable[[], bool] = lambda: False
    answer_error: str | None = None
    error: BaseException | None = None
    first_byte_at: float | None = None
    clock: Callable[[], float] = time.monotonic
    started_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.started_at = self.clock()

    def first_byte(self) -> None:
        if self.first_byte_at is None:
            self.first_byte_at = self.clock()

    def end_by(self, error: BaseException, *, has_begun: bool = False) -> None:
        """Say by what was raised how the call ended; what was said before stays.

        ``has_begun``: bytes of an answer had been written by then.
        """
        if self.ended is not End.COMPLETE:
            return
        if isinstance(error, (asyncio.CancelledError, ConnectionError)):
            self.ended = End.STOPPED if self.is_cutting() else End.CLIENT_LEFT
        else:
            self.ended = End.FAILED if has_begun else End.REFUSED

    def write(self) -> None:
        """Refusals are ``info``, our own failures ``error``; health calls leave no line."""
        if self.is_quiet:
            return
        endpoint = self.endpoint or f"{self.method[:16]} {self.path[:200]}"
        fields = {
            "request_id": self.request_id,
            "trace_id": self.trace_id,
            "app": self.app,
            "client": self.client,
            "origin": self.origin,
            "endpoint": endpoint,
            "model": ",".join(self.models) or None,
            "served": self.served,
            "is_other_model": self.is_other_model,
            "stream": self.is_streaming,
            "http_status": self.http_status,
            "code": self.code,
            "param": self.param and self.param[:_MAX_NAME],
            "side": self.side,
            "hint": self.hint,
            "cause": self.cause,
            "first_byte_ms": self._milliseconds(self.first_byte_at),
            "total_ms": self._milliseconds(self.clock()),
            "bytes": self.bytes_down,
            "input_tokens": self.usage and self.usage.input_tokens,
            "output_tokens": self.usage and self.usage.output_tokens,
            "cost": None if self.cost is None else f"{self.cost:f}",
            "cost_source": self.cost_source,
            "ended": self.ended,
            "error": self.answer_error,
        }
        known: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
        write = _call_log.info if self.side in (None, Side.CLIENT) else _call_log.error
        if self.is_other_model:
            write = _call_log.warning
        if self.error is not None:
            known["exc_info"] = self.error
        write(f"{endpoint} {self.http_status or self.ended}", **known)

    def _milliseconds(self, at: float | None) -> float | None:
        return None if at is None else round((at - self.started_at) * 1000, 1)


def trace_id(traceparent: str | None) -> str | None:
    """The trace id of a W3C ``traceparent``, so that lines of several services meet."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return match[1] if match else None
