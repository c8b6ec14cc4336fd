"""What became of one call: the one record that its log line, the ledger and the metrics read.

Prompts and completions are never logged at any level; neither is a query string.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Any

from keyproxy.call import ROUTER, Cost, CostSource, End, Head, Usage
from keyproxy.dataclass import dataclass, field
from keyproxy.errors import Side
from keyproxy.logs import Facts, Said, write_call
from keyproxy.price import ZERO

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C
_MAX_NAME = 80


class ClientLeft(asyncio.CancelledError):
    """The client left before there was an answer for it. ``head`` of the answer that came all the
    same; None: nothing had been sent yet."""

    def __init__(self, head: Head | None) -> None:
        super().__init__("the client left")
        self.head = head


class Attempt:
    """One try of a call at one home. ``key`` is the label of the key that is tried first, or that
    was answered to. ``is_told``: its provider says later what an answer has cost, asked by
    ``answer_id``. ``rates``: JSON, USD for one of each. ``ended`` None: it is under way.
    ``is_final``: it has ended, and its cost is exact, or nobody can be asked about it.

    From its ``begin`` on: ``begun_at`` is unix time; ``reserved`` is set aside for it; None: nobody
    knows what it may cost. It stands as its ``cost`` and what is ``counted`` of it where no other
    is known.
    """

    fault: str | None = None
    http_status: int | None = None
    answer_id: str | None = None
    connect_seconds: float | None = None
    first_output_seconds: float | None = None
    duration_seconds: float | None = None
    cost_source: CostSource = "estimated"
    rates: str | None = None
    ended: str | None = None
    is_final: bool = False

    def __init__(
        self,
        native_model: str,
        key: str,
        *,
        provider: str = ROUTER,
        is_told: bool = True,
        price_source: str | None = None,
    ) -> None:
        self.provider, self.native_model, self.key = provider, native_model, key
        self.is_told, self.price_source = is_told, price_source

    def begin(self, at: float, reserved: Decimal | None) -> None:
        """So much was set aside; next it goes out."""
        self.begun_at = at
        self.reserved = self.cost = reserved
        self.counted = ZERO if reserved is None else reserved

    def note(self, answer_id: str | None, key: str | None) -> None:
        """What the head of its answer told."""
        self.answer_id, self.key = answer_id, key or self.key

    def end(self, cost: Cost | None, http_status: int | None, ended: str, seconds: float) -> None:
        """It is over, so many seconds after its begin."""
        self.http_status, self.ended = http_status, str(ended)
        self.duration_seconds = max(0.0, seconds)
        if cost is not None:
            self.cost, self.counted, self.cost_source = cost.usd, cost.counted, cost.source
        self.is_final = self.cost_source == "exact" or self.generation_id is None

    @property
    def generation_id(self) -> str | None:
        """By what its provider can be asked about it."""
        return self.answer_id if self.is_told else None


_unused_ends: list[str] = []


def new_request_id() -> str:
    """Nobody can guess one: 56 bits are drawn, for many at a time, which is cheaper; in one thread.

    It begins with the second and its 256th part, as UUIDv7 does with the millisecond (RFC 9562), so
    that a batch of rows stands together in the index of the ledger, and changes few of its pages.
    """
    if not _unused_ends:
        drawn = os.urandom(7 * 256).hex()
        _unused_ends.extend(drawn[at : at + 14] for at in range(0, len(drawn), 14))
    return f"req_{int(time.time() * 256):010x}{_unused_ends.pop()}"


@dataclass(slots=True)
class Record:
    """What becomes one log line when the call has ended.

    Each fact is written by who knows it first. ``answer`` is what the upstream's head said,
    ``http_status`` what the client gets, once an answer begins. ``watchers`` see each chunk of the
    answer. ``is_cutting``: whether our own stop cuts calls. ``reserved``: USD that it may cost at
    most. ``booked``: its attempts as they stand in the books, none where it reached no provider;
    ``unsent``: those of it that did not, until one does.

    Whose wait it was: ``queue_seconds`` ours, until the first attempt; ``connect_seconds`` for
    connections; ``longest_gap_seconds`` for the upstream, between two pieces of its answer;
    ``client_seconds`` for the client's body, and until it took the answer.
    """

    method: str
    path: str
    request_id: str = field(default_factory=new_request_id)
    trace_id: str | None = None
    app: str | None = None
    client: str | None = None
    origin: str | None = None  # whose page may read the answer
    endpoint: str | None = None
    models: tuple[str, ...] = ()
    provider: str | None = None
    native_model: str | None = None
    generation_id: str | None = None
    served: str | None = None
    is_other_model: bool | None = None
    http_status: int | None = None
    code: str | None = None
    param: str | None = None
    side: str | None = None
    is_streaming: bool | None = None
    hint: str | None = None
    cause: str | None = None
    answer: Head | None = None
    usage: Usage | None = None
    cost: Cost | None = None
    reserved: Decimal | None = None
    booked: Sequence[Attempt] = ()
    unsent: Sequence[Attempt] = ()
    attempts: int = 0
    is_connected: bool = False
    bytes_up: int = 0
    bytes_down: int = 0
    queue_seconds: float | None = None
    connect_seconds: float | None = None
    longest_gap_seconds: float | None = None
    client_seconds: float = 0.0
    watchers: list[Callable[[bytes], None]] = field(default_factory=list)
    is_quiet: bool = False
    ended: End = End.COMPLETE
    is_cutting: Callable[[], bool] = lambda: False
    answer_error: str | None = None
    error: BaseException | None = None
    first_byte_at: float | None = None
    clock: Callable[[], float] = time.monotonic
    started_at: float = field(init=False)
    asked_at: float = field(init=False, default=0.0)  # of the last attempt

    def __post_init__(self) -> None:
        self.started_at = self.clock()

    @property
    def model(self) -> str | None:
        """The one that figures stand under: OpenRouter says which it chose, others call the one
        that was asked for by a name of their own."""
        is_chosen = self.provider in (None, ROUTER) or len(self.models) != 1 or self.is_other_model
        asked = self.models[0] if self.models else None
        return self.served or asked if is_chosen else asked

    @property
    def upstream_status(self) -> int | None:
        """None without an answer of the upstream's."""
        return None if self.answer is None else self.answer.status

    @property
    def first_byte_seconds(self) -> float | None:
        """From the call's head to the first byte of its answer's body."""
        return None if self.first_byte_at is None else self.first_byte_at - self.started_at

    def ask(self, provider: str) -> None:
        """An attempt begins, with the search for a connection."""
        self.provider, self.attempts, self.is_connected = provider, self.attempts + 1, False
        self.asked_at = self.clock()
        if self.queue_seconds is None:
            self.queue_seconds = self.asked_at - self.started_at - self.client_seconds

    def connected(self) -> None:
        """The attempt has its connection: from now on bytes go up."""
        self.is_connected = True
        waited = self.clock() - self.asked_at
        self.connect_seconds = (self.connect_seconds or 0.0) + waited

    def waited(self, seconds: float, *, is_for_client: bool) -> None:
        """Nothing passed for so long."""
        if is_for_client:
            self.client_seconds += seconds
        elif self.longest_gap_seconds is not None:
            self.longest_gap_seconds = max(self.longest_gap_seconds, seconds)

    def watch(self, chunk: bytes, gap_seconds: float = 0.0) -> None:
        """Bytes of the answer pass, for which the upstream was waited for so long."""
        if self.longest_gap_seconds is None:
            self.first_byte_at, self.longest_gap_seconds = self.clock(), 0.0
        elif gap_seconds > self.longest_gap_seconds:
            self.longest_gap_seconds = gap_seconds
        self.bytes_down += len(chunk)
        for watcher in self.watchers:
            watcher(chunk)

    def end_by(self, error: BaseException) -> None:
        """Say by what was raised how the call ended; what was said before stays."""
        if self.ended is not End.COMPLETE:
            return
        if isinstance(error, (asyncio.CancelledError, ConnectionError)):
            self.ended = End.STOPPED if self.is_cutting() else End.CLIENT_LEFT
        else:
            self.ended = End.REFUSED if self.http_status is None else End.FAILED

    @property
    def level(self) -> str:
        """Of its line: refusals are ``info``, our own and the upstream's failures ``error``."""
        if self.is_other_model:
            return "warning"
        return "info" if self.side is None or self.side == Side.CLIENT else "error"

    def write(self) -> None:
        """Leave its line in the log; health calls leave none."""
        if not self.is_quiet:
            is_alike = self.code is None and self.endpoint is not None
            write_call(self.level, self._facts, self._line, is_alike=is_alike)

    def _facts(self) -> Facts:
        """Those of ``_SHARED`` and of ``_OWN``, in their order."""
        usage, cost, first_byte_at = self.usage, self.cost, self.first_byte_at
        queue, connect, gap = self.queue_seconds, self.connect_seconds, self.longest_gap_seconds
        started_at, client = self.started_at, self.client_seconds
        own = (
            self.request_id,
            self.trace_id,
            self.client,
            self.generation_id,
            self.bytes_down,
            self.bytes_up or None,
            None if usage is None else usage.input_tokens,
            None if usage is None else usage.output_tokens,
            None if cost is None else f"{cost.usd:f}",
            None if cost is None else cost.source,
            None if queue is None else queue * 1000,
            None if connect is None else connect * 1000,
            None if first_byte_at is None else (first_byte_at - started_at) * 1000,
            None if gap is None else gap * 1000,
            client * 1000 or None,
            (self.clock() - started_at) * 1000,
        )
        return _shared(self), own

    def _line(self, own: Sequence[Any]) -> Said:
        """All facts by their names, those of ``own`` behind the others."""
        endpoint = self.endpoint or f"{self.method[:16]} {self.path[:200]}"
        line = dict(zip(_SHARED, _shared(self), strict=True))
        line |= {
            "endpoint": endpoint,
            "model": ",".join(self.models) or None,
            "param": self.param and self.param[:_MAX_NAME],
            "attempts": self.attempts or None,
            "exc_info": self.error,
            "event": f"{endpoint} {self.http_status or self.ended}",
        }
        for name, fact in zip(_OWN, own, strict=True):
            line[name] = round(fact, 1) if isinstance(fact, float) else fact
        return {name: fact for name, fact in line.items() if fact is not None}


_SHARED = {
    "app": "app",
    "origin": "origin",
    "endpoint": "endpoint",
    "model": "models",
    "provider": "provider",
    "native_model": "native_model",
    "served": "served",
    "is_other_model": "is_other_model",
    "stream": "is_streaming",
    "http_status": "http_status",
    "code": "code",
    "param": "param",
    "side": "side",
    "hint": "hint",
    "cause": "cause",
    "attempts": "attempts",
    "ended": "ended",
    "error": "answer_error",
}
"""What many calls say alike, so that it is written once for them: fields by names in a line."""
_OWN = (
    *("request_id", "trace_id", "client", "generation_id", "bytes", "bytes_up"),
    *("input_tokens", "output_tokens", "cost", "cost_source"),
    *("queue_ms", "connect_ms", "first_byte_ms", "longest_gap_ms", "client_ms", "total_ms"),
)
"""What no two calls say alike."""
_shared = attrgetter(*_SHARED.values())


def trace_id(traceparent: str | None) -> str | None:
    """The trace id of a W3C ``traceparent``, so that lines of several services meet."""
    match = traceparent and _TRACEPARENT.fullmatch(traceparent)
    return match[1] if match else None
