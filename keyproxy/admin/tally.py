"""What calls add up to: a line of a table for each metric, which reads a call's record.

Adds to dicts when a call has ended, or its cost has become final, and nothing else: the text
that Prometheus reads is written when it asks. A label is one of our words, an app, or a model of
the price list, never a client or what a caller wrote. Sources: OpenTelemetry's semantic
conventions for generative AI, "Metrics" (names, units, buckets; 2026), Prometheus' naming guide.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from keyproxy.admin.failures import BROKEN
from keyproxy.call import BASE, ROUTER, Cost, End, Told, Usage
from keyproxy.errors import CODES
from keyproxy.ledger.entry import Unsettled, to_pico
from keyproxy.ledger.memory import MOST_UNSETTLED
from keyproxy.money.pricebook import PriceBook
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
Amounts = Sequence[tuple[Labels, float]]


class Spent(NamedTuple):
    """What one call has used, once that is final. ``model`` is fit for a label."""

    app: str
    provider: str
    model: str
    operation: str
    pico_usd: int
    source: str
    input_tokens: int | None
    output_tokens: int | None


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. ``of`` a record, or of what was spent: by its labels, how much is added.

    With ``buckets`` each amount is a value whose distribution is kept. ``per``: how many of what is
    added make one of what is shown.
    """

    name: str
    help: str
    labels: Labels
    of: Callable[[Any], Amounts]
    buckets: tuple[float, ...] = ()
    per: int = 1


def _calls(record: Record) -> Amounts:
    if not record.booked:
        return ()
    status = "none" if record.http_status is None else str(record.http_status)
    return (((record.app or "", record.endpoint or "", record.provider or ROUTER, status), 1),)


def _refusals(record: Record) -> Amounts:
    return () if record.code is None else (((record.code,), 1),)


def _attempts(record: Record) -> Amounts:
    if not record.attempts:
        return ()  # there was no key to try it with
    made = (*record.unsent, *record.booked)
    return [((attempt.provider, _class_of(attempt)), 1) for attempt in made]


def _class_of(attempt: Attempt) -> str:
    """How it went, in the words by which the next home is chosen."""
    status, ended = attempt.http_status, attempt.ended
    if attempt.fault is not None:
        return attempt.fault
    if status is None:
        return Fault.CALLER if ended in _LEFT else Fault.UNCERTAIN
    if status < 400:
        return Fault.UNCERTAIN if ended in BROKEN else "ok"
    if status in (408, 429, 503, 529):
        return Fault.LOAD
    if status in (401, 402):
        return Fault.ACCOUNT
    return Fault.CALLER if status < 500 else Fault.UNCERTAIN


def _first_token(record: Record) -> Amounts:
    seconds = record.first_byte_seconds if record.is_streaming else None
    return () if seconds is None or not record.booked else ((_of_call(record), seconds),)


def _duration(record: Record) -> Amounts:
    if not record.booked:
        return ()
    return ((_of_call(record), record.clock() - record.started_at),)


def _added_delay(record: Record) -> Amounts:
    return () if record.queue_seconds is None else (((), record.queue_seconds),)


def _other_model(record: Record) -> Amounts:
    return (((), 1),) if record.is_other_model else ()


def _cost(spent: Spent) -> Amounts:
    return (((spent.app, spent.provider, spent.model, spent.source), spent.pico_usd),)


def _tokens(spent: Spent) -> Amounts:
    counts = (("input", spent.input_tokens), ("output", spent.output_tokens))
    return [
        ((spent.operation, spent.provider, type), count)
        for type, count in counts
        if count is not None
    ]


def _of_call(record: Record) -> Labels:
    return _operation(record.endpoint), record.provider or ROUTER


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
OF_RECORDS = (
    Family("keyproxy_calls_total", "Calls that reached a provider, as the ledger has them.",
           ("app", "endpoint", "provider", "http_status"), _calls),
    Family("keyproxy_refusals_total", "Requests that were answered with an error of keyproxy's.",
           ("code",), _refusals),
    Family("keyproxy_attempts_total", "Tries of calls at providers, by how they went.",
           ("provider", "class"), _attempts),
    Family("keyproxy_other_model_served_total",
           "Answers by a model that is neither allowed nor a form of one that was asked for.",
           (), _other_model),
    Family("gen_ai_server_time_to_first_token_seconds",
           "From a streamed call's arrival to the first bytes of its answer.",
           _OPERATION, _first_token, buckets=_FIRST_TOKEN),
    Family("gen_ai_client_operation_duration_seconds",
           "From a call's arrival to the end of its answer.",
           _OPERATION, _duration, buckets=_SECONDS),
    Family("keyproxy_added_delay_seconds",
           "From a call's arrival until it could go out, less the wait for its body.",
           (), _added_delay, buckets=_DELAYS),
)
"""What is counted when a call has ended."""
OF_SPENT = (
    Family("keyproxy_cost_usd_total", "Cost of calls in USD, counted once it is final.",
           ("app", "provider", "model", "cost_source"), _cost, per=PICO),
    Family("gen_ai_client_token_usage", "Tokens of calls, counted once their cost is final.",
           (*_OPERATION, "gen_ai_token_type"), _tokens, buckets=_TOKENS),
)
"""What is counted once, when the cost of a call is final."""
# fmt: on
FAMILIES = (*OF_RECORDS, *OF_SPENT)


Adding = tuple[Callable[[Any], Amounts], tuple[float, ...], dict[Labels, Any]]
"""What a family adds, its buckets, and to what."""


def _add(families: list[Adding], fact: Record | Spent) -> None:
    for of, buckets, sums in families:
        for labels, amount in of(fact):
            if not buckets:
                sums[labels] = sums.get(labels, 0) + amount
                continue
            if (kept := sums.get(labels)) is None:
                kept = sums[labels] = [0] * (len(buckets) + 2)
            kept[bisect_left(buckets, amount)] += 1
            kept[-1] += amount


def _tokens_in(told: Usage | None, before: Usage | None = None) -> tuple[int | None, int | None]:
    """In and out, as they were told last: what is not told again stays, as in the ledger."""
    inputs = outputs = None
    for usage in (before, told):
        if usage is not None:
            inputs = inputs if usage.input_tokens is None else usage.input_tokens
            outputs = outputs if usage.output_tokens is None else usage.output_tokens
    return inputs, outputs


class Tally:
    """The sums of one process. Everything belongs to the loop.

    ``prices`` gives the book whose models may be labels; None: none.
    """

    def __init__(self, prices: Callable[[], PriceBook | None] = lambda: None) -> None:
        self._prices = prices
        self.sums: dict[str, dict[Labels, Any]] = {family.name: {} for family in FAMILIES}
        # Prometheus sees an increase only of what was there before.
        self.sums["keyproxy_refusals_total"] |= {(code,): 0 for code in CODES}
        self.sums["keyproxy_other_model_served_total"][()] = 0
        self._of_records = self._adding(OF_RECORDS)
        self._of_spent = self._adding(OF_SPENT)
        self._models: set[str] = set()
        self._unsettled: dict[tuple[str, int], tuple[int, Usage | None]] = {}
        self._storage_down = 0

    def ended(self, record: Record) -> None:
        """A call is over."""
        _add(self._of_records, record)
        for n, attempt in enumerate(record.booked, 1):
            usd, _, source = attempt.standing
            pico = 0 if usd is None else to_pico(usd)
            usage = record.usage if n == len(record.booked) else None
            if attempt.is_final:
                self._spent(record, attempt.provider, pico, source, usage)
                continue
            self._unsettled[record.request_id, n] = pico, usage
            if len(self._unsettled) > MOST_UNSETTLED:
                del self._unsettled[next(iter(self._unsettled))]

    def _spent(
        self, record: Record, provider: str, pico: int, source: str, usage: Usage | None
    ) -> None:
        spent = Spent(
            record.app or "",
            provider,
            self._model(record.model),
            _operation(record.endpoint),
            pico,
            source,
            *_tokens_in(usage),
        )
        _add(self._of_spent, spent)

    def settled(self, row: Unsettled, cost: Cost | None, told: Told | None) -> None:
        """The cost of a call has become final after its end."""
        _, before = self._unsettled.pop((row.id, row.n), (0, None))
        usd, source = (row.cost, row.cost_source) if cost is None else (cost.usd, cost.source)
        usage, served = (None, None) if told is None else told
        spent = Spent(
            row.app,
            row.provider,
            self._model(served or row.served or row.models[0] if row.models else None),
            _operation(row.endpoint),
            0 if usd is None else to_pico(usd),
            source,
            *_tokens_in(usage, before),
        )
        _add(self._of_spent, spent)

    def refused(self, code: str) -> None:
        """An answer to what was no request."""
        refusals = self.sums["keyproxy_refusals_total"]
        refusals[code,] = refusals.get((code,), 0) + 1

    def storage_changed(self, is_down: bool) -> None:
        """The shared storage stopped to answer, or answers again."""
        self._storage_down += is_down

    @property
    def unsettled_usd(self) -> float:
        """What calls stand in the books with whose cost is not final."""
        return sum(pico for pico, _ in self._unsettled.values()) / PICO

    def counts(self) -> Mapping[str, int]:
        """What is worth a line when the process ends, by its name."""
        others = self.sums["keyproxy_other_model_served_total"].get((), 0)
        counts = {"other_model_served": others, "storage_down": self._storage_down}
        return {name: count for name, count in counts.items() if count}

    def _adding(self, families: Iterable[Family]) -> list[Adding]:
        return [(each.of, each.buckets, self.sums[each.name]) for each in families]

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
