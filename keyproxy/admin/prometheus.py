"""The figures as Prometheus reads them. Its library is loaded when somebody asks for them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from keyproxy.admin.gauges import GAUGES, Amounts, Gauge, Seen
from keyproxy.admin.tally import FAMILIES, Family, Labels, Tally
from keyproxy.admin.watched import Watched

if TYPE_CHECKING:
    from prometheus_client import Metric

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
