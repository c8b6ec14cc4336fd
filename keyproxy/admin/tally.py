"""What calls add up to: a table of the metrics, and what a call adds to each.

Adds to dicts when a call has ended, or its cost has become final, and nothing else: the text
that Prometheus reads is written when it asks. A label is one of our words, an app, or a model of
the price list, never a client or what a caller wrote. Sources: OpenTelemetry's semantic
conventions for generative AI, "Metrics" (names, units, buckets; 2026), Prometheus' naming guide.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from keyproxy.admin.totals import BROKEN
from keyproxy.call import BASE, ROUTER, End, Usage
from keyproxy.dataclass import dataclass
from keyproxy.errors import CODES
from keyproxy.ledger.entry import Unsettled, to_pico
from keyproxy.ledger.memory import MOST_UNSETTLED
from keyproxy.money.pricebook import PriceBook
from keyproxy.price import ZERO
from keyproxy.record import Attempt, Record
from keyproxy.upstream.faults import Fault

PICO = 10**12
MOST_MODELS = 100
"""Of the price list, that have a name of their own in labels; further ones are ``other``."""
_OTHER = "other"
_LEFT = frozenset({End.CLIENT_LEFT, End.STOPPED})
_OPERATIONS = {
    "chat/completions": "chat",
    "responses": "chat",
    "messages": "chat",
    "completions": "text_completion",
}
"""OpenTelemetry's words for what an endpoint does; the others have their own."""

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. With ``buckets`` it is a distribution of values. ``per``: how many of what is
    added make one of what is shown.
    """

    name: str
    help: str
    labels: Labels
    buckets: tuple[float, ...] = ()
    per: int = 1


def _class_of(attempt: Attempt) -> str:
    """How it went, in the words by which the next home is chosen."""
    if attempt.fault is not None:
        return attempt.fault
    if attempt.http_status is None:
        return Fault.CALLER if attempt.ended in _LEFT else Fault.UNCERTAIN
    return Fault.UNCERTAIN if attempt.ended in BROKEN else "ok"


@lru_cache
def _operation(endpoint: str | None) -> str:
    path = (endpoint or "").partition(f" {BASE}/")[2]
    return _OPERATIONS.get(path, path)


_OPERATION = ("gen_ai_operation_name", "gen_ai_provider_name")
_SECONDS = tuple(0.01 * 2**power for power in range(14))
_FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08),
    *(0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
_DELAYS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_TOKENS = tuple(float(4**power) for power in range(14))
# fmt: off
FAMILIES = (
    Family("keyproxy_calls_total", "Calls that reached a provider, as the ledger has them.",
           ("app", "endpoint", "provider", "http_status")),
    Family("keyproxy_refusals_total", "Requests that were answered with an error of keyproxy's.",
           ("code",)),
    Family("keyproxy_attempts_total", "Tries of calls at providers, by how they went.",
           ("provider", "class")),
    Family("keyproxy_other_model_served_total",
           "Answers by a model that is neither allowed nor a form of one that was asked for.",
           ()),
    Family("gen_ai_server_time_to_first_token_seconds",
           "From a streamed call's arrival to the first bytes of its answer.",
           _OPERATION, buckets=_FIRST_TOKEN),
    Family("gen_ai_client_operation_duration_seconds",
           "From a call's arrival to the end of its answer.",
           _OPERATION, buckets=_SECONDS),
    Family("keyproxy_added_delay_seconds",
           "From a call's arrival until it could go out, less the wait for its body.",
           (), buckets=_DELAYS),
    Family("keyproxy_cost_usd_total", "Cost of calls in USD, counted once it is final.",
           ("app", "provider", "model", "cost_source"), per=PICO),
    Family("gen_ai_client_token_usage", "Tokens of calls, counted once their cost is final.",
           (*_OPERATION, "gen_ai_token_type"), buckets=_TOKENS),
)
# fmt: on


class Values(dict[Labels, list[float]]):
    """By labels how many values are in each bucket, and their sum at the end."""

    def __init__(self, buckets: tuple[float, ...]) -> None:
        super().__init__()
        self._buckets = buckets

    def __missing__(self, labels: Labels) -> list[float]:
        kept = self[labels] = [0.0] * (len(self._buckets) + 2)
        return kept

    def add(self, labels: Labels, value: float) -> None:
        kept = self[labels]
        kept[bisect_left(self._buckets, value)] += 1
        kept[-1] += value


class Tally:
    """The sums of one process. Everything belongs to the loop.

    ``prices`` gives the book whose models may be labels; None: none.
    """

    def __init__(self, prices: Callable[[], PriceBook | None] = lambda: None) -> None:
        self._prices = prices
        self.sums: dict[str, Any] = {
            each.name: Values(each.buckets) if each.buckets else defaultdict(int)
            for each in FAMILIES
        }
        # Prometheus sees an increase only of what was there before.
        self.sums["keyproxy_refusals_total"] |= {(code,): 0 for code in CODES}
        self.sums["keyproxy_other_model_served_total"][()] = 0
        self._models: set[str] = set()
        self._unsettled: dict[tuple[str, int], tuple[int, Usage | None]] = {}

    def ended(self, record: Record) -> None:
        """A call is over."""
        sums, booked, provider = self.sums, record.booked, record.provider or ROUTER
        if record.code is not None:
            sums["keyproxy_refusals_total"][record.code,] += 1
        if record.is_other_model:
            sums["keyproxy_other_model_served_total"][()] += 1
        if record.queue_seconds is not None:
            sums["keyproxy_added_delay_seconds"].add((), record.queue_seconds)
        if record.attempts:  # none: there was no key to try it with
            for attempt in (*record.unsent, *booked):
                sums["keyproxy_attempts_total"][attempt.provider, _class_of(attempt)] += 1
        if not booked:
            return
        app, operation = record.app or "", _operation(record.endpoint)
        status = "none" if record.http_status is None else str(record.http_status)
        sums["keyproxy_calls_total"][app, record.endpoint or "", provider, status] += 1
        seconds = record.clock() - record.started_at
        sums["gen_ai_client_operation_duration_seconds"].add((operation, provider), seconds)
        if record.is_streaming and (first := record.first_byte_seconds) is not None:
            sums["gen_ai_server_time_to_first_token_seconds"].add((operation, provider), first)
        for n, attempt in enumerate(booked, 1):
            pico = to_pico(attempt.cost or ZERO)
            usage = record.usage if n == len(booked) else None
            if attempt.is_final:
                self._spent(app, attempt.provider, record.model, attempt.cost_source, pico)
                self._used(operation, attempt.provider, usage)
                continue
            self._unsettled[record.request_id, n] = pico, usage
            if len(self._unsettled) > MOST_UNSETTLED:
                del self._unsettled[next(iter(self._unsettled))]

    def _spent(self, app: str, provider: str, model: str | None, source: str, pico: int) -> None:
        """What it has cost is final."""
        spent = self.sums["keyproxy_cost_usd_total"]
        spent[app, provider, self._model(model), source] += pico

    def _used(
        self, operation: str, provider: str, told: Usage | None, before: Usage | None = None
    ) -> None:
        """As it was told last: what is not told again stays, as in the ledger."""
        inputs = outputs = None
        for usage in (before, told):
            if usage is not None:
                inputs = inputs if usage.input_tokens is None else usage.input_tokens
                outputs = outputs if usage.output_tokens is None else usage.output_tokens
        tokens = self.sums["gen_ai_client_token_usage"]
        if inputs is not None:
            tokens.add((operation, provider, "input"), inputs)
        if outputs is not None:
            tokens.add((operation, provider, "output"), outputs)

    def settled(self, row: Unsettled) -> None:
        """The cost of a call has become final after its end."""
        _, before = self._unsettled.pop((row.id, row.n), (0, None))
        provider, pico = row.attempt.provider, to_pico(row.attempt.cost or ZERO)
        model = row.served or row.models[0] if row.models else None
        self._spent(row.app, provider, model, row.attempt.cost_source, pico)
        self._used(_operation(row.endpoint), provider, row.usage, before)

    def refused(self, code: str) -> None:
        """An answer to what was no request."""
        self.sums["keyproxy_refusals_total"][code,] += 1

    @property
    def unsettled_usd(self) -> float:
        """What calls stand in the books with whose cost is not final."""
        return sum(pico for pico, _ in self._unsettled.values()) / PICO

    def _model(self, name: str | None) -> str:
        """The label of a model; an id of the price list, or ``other``."""
        book = self._prices()
        if name is None or book is None:
            return _OTHER
        listed = book.listed
        id = listed.id_of(name)
        if id in self._models:
            return id
        if id not in listed.prices or len(self._models) >= MOST_MODELS:
            return _OTHER
        self._models.add(id)
        return id
