"""The figures as Prometheus reads them, and a table of those that are true when it asks.

Its library is loaded then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from keyproxy.admin.tally import FAMILIES, Family, Labels, Tally
from keyproxy.admin.watched import Watched
from keyproxy.dataclass import dataclass
from keyproxy.money.budget import Level

if TYPE_CHECKING:
    from prometheus_client import Metric

Amounts = Sequence[tuple[Labels, float]]


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the process; ``levels`` of its budgets."""

    watched: Watched
    tally: Tally
    levels: Sequence[Level]


@dataclass(frozen=True, slots=True)
class Gauge:
    """One metric; ``is_sum``: it only grows."""

    name: str
    help: str
    labels: Labels
    of: Callable[[Seen], Amounts]
    is_sum: bool = False


def _one(number: float | None) -> Amounts:
    return () if number is None else (((), number),)


def _budgets(seen: Seen) -> Amounts:
    return [
        ((level.name, state), float(usd))
        for level in seen.levels
        for state, usd in (
            ("limit", level.budget.usd),
            ("spent", level.spent),
            ("reserved", level.reserved),
        )
    ]


def _open_streams(seen: Seen) -> Amounts:
    streams = [each for each in seen.watched.open_records() if each.is_streaming]
    return _one(sum(each.first_byte_at is not None for each in streams))


def _keys(seen: Seen) -> Amounts:
    return [
        ((name,), not states or not all(state.is_rejected for state in states))
        for name, states in seen.watched.provider_keys().items()
    ]


def _price_age(seen: Seen) -> Amounts:
    book = seen.watched.prices()
    return _one(None if book is None else book.age_seconds)


# fmt: off
GAUGES: Iterable[Gauge] = (
    Gauge("keyproxy_cost_unsettled_usd",
          "What calls stand in the books with whose cost is not final, in USD.",
          (), lambda seen: _one(seen.tally.unsettled_usd)),
    Gauge("keyproxy_reserved_usd", "What open calls may cost at most, in USD.", (),
          lambda seen: _one(float(sum(r.reserved or 0 for r in seen.watched.open_records())))),
    Gauge("keyproxy_budget_usd", "Budgets of apps and of all in USD: limit, spent, reserved.",
          ("budget", "state"), _budgets),
    Gauge("keyproxy_open_streams", "Event streams that are being passed on.", (), _open_streams),
    Gauge("keyproxy_ledger_backlog", "Rows and questions that wait for the ledger.",
          (), lambda seen: _one(seen.watched.ledger.backlog if seen.watched.ledger else 0)),
    Gauge("keyproxy_ledger_lost_calls_total", "Calls that the ledger does not have as they ended.",
          (), lambda seen: _one(seen.watched.ledger.losses if seen.watched.ledger else 0),
          is_sum=True),
    Gauge("keyproxy_key_usable", "Whether a key of the provider is left that is not set aside.",
          ("provider",), _keys),
    Gauge("keyproxy_storage_up", "Whether limits and budgets are counted where they should be.",
          (), lambda seen: _one(not seen.watched.counters.is_down)),
    Gauge("keyproxy_price_age_seconds", "Since the list of prices was fetched.", (), _price_age),
)
# fmt: on


Sums = list[tuple[Family, dict[Labels, Any]]]
Now = list[tuple[Gauge, Amounts]]


async def snapshot(watched: Watched, tally: Tally) -> tuple[Sums, Now]:
    """All figures as they are now; whatever calls add later is not in it."""
    seen = Seen(watched, tally, await watched.levels(time.time()))
    sums: Sums = []
    for family in FAMILIES:
        kept = tally.sums[family.name]
        copied = {labels: [*value] if family.buckets else value for labels, value in kept.items()}
        sums.append((family, copied))
    return sums, [(gauge, gauge.of(seen)) for gauge in GAUGES]


def text(sums: Sums, now: Now, accept: str) -> tuple[bytes, str]:
    """The text in the form that the header ``Accept`` asks for, and its media type.

    Loads the library, so that it belongs to a thread.
    """
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(list(_families(sums, now))))
    ProcessCollector(registry=registry)
    encoder, media_type = choose_encoder(accept)
    return encoder(registry), media_type


class _Collected:
    def __init__(self, metrics: list[Metric]) -> None:
        self.metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def _families(sums: Sums, now: Now) -> Iterator[Metric]:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    for family, kept in sums:
        if family.buckets:
            histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
            borders = [*map(str, family.buckets), "+Inf"]
            for labels, (*counts, total) in kept.items():
                reached = zip(borders, accumulate(counts), strict=True)
                histogram.add_metric(labels, [*reached], total)
            yield histogram
        else:
            counter = CounterMetricFamily(family.name, family.help, labels=family.labels)
            for labels, value in kept.items():
                counter.add_metric(labels, value / family.per)
            yield counter
    for gauge, amounts in now:
        kind = CounterMetricFamily if gauge.is_sum else GaugeMetricFamily
        metric = kind(gauge.name, gauge.help, labels=gauge.labels)
        for labels, value in amounts:
            metric.add_metric(labels, float(value))
        yield metric
