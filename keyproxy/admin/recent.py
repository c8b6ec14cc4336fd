"""The last hour in memory: cells of seconds for plots, minutes for who and what, the last calls.

All of it is of a fixed size, whatever callers do: a minute knows so many names of each kind, and
what comes on top counts as ``other``. Money and tokens count when the cost of a call is final.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from keyproxy.admin.tally import PICO
from keyproxy.admin.totals import has_failed
from keyproxy.call import End, Usage
from keyproxy.clients.addresses import parse_address
from keyproxy.clients.addresses import shown as address_shown
from keyproxy.dataclass import dataclass, field
from keyproxy.errors import CODES
from keyproxy.ledger.entry import Unsettled, to_pico
from keyproxy.price import ZERO
from keyproxy.record import Record

CELL_SECONDS = 5
CELLS = 3600 // CELL_SECONDS
MINUTES = 60
MOST_NAMES = 100
"""Of each kind in a minute."""
MOST_SAMPLES = 64
"""First-token times of a cell; later ones are left out of its percentiles."""
LAST_CALLS, LAST_ERRORS = 50, 20
BY = ("model", "app", "client", "provider")
OTHER = "other"
_LONGEST = 120

Sums = dict[str, list[float]]
"""Calls, money and tokens by a name."""
Named = Iterable[tuple[str, str | None]]
"""Names and their kinds; not every kind has one."""


@dataclass(slots=True)
class Cell:
    """What ended in some seconds; ``number`` of those seconds since 1970."""

    number: int = -1
    answered: int = 0
    refused: int = 0
    failed: int = 0
    pico: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    first_tokens: array[float] = field(default_factory=lambda: array("f"))

    def shown(self) -> list[float | None]:
        """As the dashboard reads it, with its time in front."""
        times = sorted(self.first_tokens)
        return [
            self.number * CELL_SECONDS,
            *(self.answered, self.refused, self.failed),
            round(self.pico / PICO, 9),
            *(self.input_tokens, self.output_tokens),
            *(_percentile(times, 0.5), _percentile(times, 0.95)),
        ]


def _percentile(ordered: list[float], part: float) -> float | None:
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 3)


@dataclass(slots=True)
class Minute:
    """By kind and name: calls, pico-USD, tokens."""

    number: int = -1
    sums: defaultdict[str, dict[str, list[int]]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, names: Named, calls: int, pico: int, tokens: int) -> None:
        for by, name in names:
            if name is None:
                continue
            named = self.sums[by]
            if (sums := named.get(name[:_LONGEST])) is None:
                name = name[:_LONGEST] if len(named) < MOST_NAMES else OTHER
                sums = named.setdefault(name, [0, 0, 0])
            sums[0] += calls
            sums[1] += pico
            sums[2] += tokens


@dataclass(slots=True)
class Line:
    """A call as a line of a table: what its log line says, no more. Made of many, shown of few."""

    id: str
    at: float
    app: str | None
    client: str | None
    endpoint: str
    models: tuple[str, ...]
    served: str | None
    provider: str | None
    status: int | None
    code: str | None
    cause: str | None
    hint: str | None
    ended: End
    seconds: float
    first: float | None
    usage: Usage | None
    usd: float | None

    @classmethod
    def of(cls, record: Record, at: float, usd: float | None = None) -> Line:
        """``at``: when it ended, or began where it goes on, in unix seconds."""
        return cls(
            record.request_id,
            at,
            record.app,
            record.client,
            record.endpoint or f"{record.method[:16]} {record.path}",
            record.models,
            record.served and record.model,
            record.provider,
            record.http_status,
            record.code,
            record.cause or record.answer_error,
            record.hint,
            record.ended,
            record.clock() - record.started_at,
            record.first_byte_seconds,
            record.usage,
            usd,
        )

    def shown(self) -> dict[str, Any]:
        """As the dashboard reads it; absent facts are left out."""
        usage = self.usage
        facts = {
            "id": self.id,
            "at": round(self.at, 3),
            "app": self.app,
            "client": self.client,
            "endpoint": self.endpoint[:_LONGEST],
            "model": (self.served or ",".join(self.models))[:_LONGEST] or None,
            "provider": self.provider,
            "status": self.status,
            "code": self.code,
            "cause": self.cause,
            "hint": self.hint,
            "ended": str(self.ended),
            "seconds": round(self.seconds, 3),
            "first": None if self.first is None else round(self.first, 3),
            "tokens": usage and (usage.input_tokens or 0) + (usage.output_tokens or 0),
            "usd": self.usd,
        }
        return {name: fact for name, fact in facts.items() if fact is not None}


class Recent:
    """Belongs to the loop. ``detail``: how much of a client's address may be shown; ``wall`` in
    unix seconds."""

    def __init__(
        self, detail: Callable[[], str] = lambda: "full", wall: Callable[[], float] = time.time
    ) -> None:
        self._detail = detail
        self._wall = wall
        self._cells = [Cell() for _ in range(CELLS)]
        self._minutes = [Minute() for _ in range(MINUTES)]
        self._calls: deque[Line] = deque(maxlen=LAST_CALLS)
        self._errors: deque[Line] = deque(maxlen=LAST_ERRORS)
        self._refusals: dict[str, dict[str, Any]] = {}

    def ended(self, record: Record) -> None:
        """A call is over."""
        booked, code = record.booked, record.code
        if not booked and code is None:
            return  # a page, a list of models, or the client left before anything was asked
        now = self._wall()
        cell, is_failure = self._cell(now), has_failed(record)
        if is_failure:
            cell.failed += 1
        elif code is not None:
            cell.refused += 1
        else:
            cell.answered += 1
        seconds = record.first_byte_seconds if record.is_streaming and booked else None
        if seconds is not None and len(cell.first_tokens) < MOST_SAMPLES:
            cell.first_tokens.append(seconds)
        usd: float | None = None
        for attempt in booked:
            pico, tokens, is_last = 0, 0, attempt is booked[-1]
            if attempt.is_final:
                pico = to_pico(attempt.cost or ZERO)
                tokens = self._spend(cell, pico, record.usage if is_last else None)
                usd = (usd or 0.0) + pico / PICO
            names = record.model, record.app, record.client, attempt.provider
            self._minute(now).add(zip(BY, names, strict=True), int(is_last), pico, tokens)
        line = Line.of(record, now, usd)
        self._calls.append(line)
        if code is not None:
            self._refuse(code, now, record.hint)
        if is_failure:
            self._errors.append(line)

    def settled(self, row: Unsettled) -> None:
        """The cost of a call has become final after its end."""
        now = self._wall()
        pico = to_pico(row.attempt.cost or ZERO)
        tokens = self._spend(self._cell(now), pico, row.usage)
        client = client_shown(row.client, self._detail())
        names = row.served or ",".join(row.models), row.app, client, row.attempt.provider
        self._minute(now).add(zip(BY, names, strict=True), 0, pico, tokens)
        for line in reversed(self._calls):
            if line.id == row.id:
                line.usd = (line.usd or 0.0) + pico / PICO
                break

    def refused(self, code: str) -> None:
        """An answer to what was no request."""
        now = self._wall()
        self._cell(now).refused += 1
        self._refuse(code, now, None)

    def cells(self, count: int = CELLS) -> list[list[float | None]]:
        """Those of the last ``count`` in which something ended, the oldest first."""
        newest = int(self._wall()) // CELL_SECONDS
        numbers = range(newest - count + 1, newest + 1)
        kept = (self._cells[number % CELLS] for number in numbers)
        return [c.shown() for c, n in zip(kept, numbers, strict=True) if c.number == n]

    def tops(self, most: int) -> Mapping[str, list[list[Any]]]:
        """Of the last hour, by kind: name, calls, USD, tokens; those that cost most, the rest as
        one."""
        oldest = int(self._wall()) // 60 - MINUTES
        minutes = [minute for minute in self._minutes if minute.number > oldest]
        found = {}
        for by in BY:
            sums: Sums = {}
            for minute in minutes:
                for name, figures in minute.sums.get(by, {}).items():
                    add(sums, name, figures)
            rows = largest(sums, most)
            found[by] = [
                [name, calls, round(pico / PICO, 9), tokens] for name, calls, pico, tokens in rows
            ]
        return found

    def calls(self) -> list[dict[str, Any]]:
        """The last ones, the newest first."""
        return [line.shown() for line in reversed(self._calls)]

    def errors(self) -> list[dict[str, Any]]:
        """The last calls that failed, the newest first."""
        return [line.shown() for line in reversed(self._errors)]

    def refusals(self) -> list[dict[str, Any]]:
        """By code: how many there were in the last hour, when the last was, what would cure it."""
        oldest = int(self._wall()) // 60 - MINUTES
        counts: Counter[str] = Counter()
        for minute in self._minutes:
            if minute.number > oldest:
                counts.update({code: c[0] for code, c in minute.sums.get("code", {}).items()})
        ranked = counts.most_common()
        return [{"code": code, "count": count, **self._refusals[code]} for code, count in ranked]

    def _refuse(self, code: str, now: float, hint: str | None) -> None:
        self._minute(now).add([("code", code)], 1, 0, 0)
        known = self._refusals.setdefault(code, {"status": CODES[code].status, "hint": None})
        known["at"] = round(now, 3)
        known["hint"] = hint or known["hint"]

    def _spend(self, cell: Cell, pico: int, usage: Usage | None) -> int:
        cell.pico += pico
        if usage is None:
            return 0
        inputs, outputs = usage.input_tokens or 0, usage.output_tokens or 0
        cell.input_tokens += inputs
        cell.output_tokens += outputs
        return inputs + outputs

    def _cell(self, now: float) -> Cell:
        number = int(now) // CELL_SECONDS
        cell = self._cells[number % CELLS]
        if cell.number != number:
            cell = self._cells[number % CELLS] = Cell(number)
        return cell

    def _minute(self, now: float) -> Minute:
        number = int(now) // 60
        minute = self._minutes[number % MINUTES]
        if minute.number != number:
            minute = self._minutes[number % MINUTES] = Minute(number)
        return minute


def client_shown(client: str, detail: str) -> str | None:
    """A client of the ledger as its log lines have it."""
    is_address = parse_address(client.partition("/")[0]) is not None
    return address_shown(client, detail) if is_address else client


def add(sums: Sums, name: str, figures: Iterable[float]) -> None:
    """Count ``figures`` in the sums of ``name``."""
    so_far = sums.setdefault(name, [0, 0, 0])
    for at, amount in enumerate(figures):
        so_far[at] += amount


def largest(sums: Sums, most: int) -> Iterator[list[Any]]:
    """Name and sums of those that cost most, and of the rest as one."""
    rest = [sums.pop(OTHER)] if OTHER in sums else []
    ranked = sorted(sums.items(), key=lambda item: (-item[1][1], -item[1][0], item[0]))
    yield from ([name, *figures] for name, figures in ranked[:most])
    if rest := [figures for _, figures in ranked[most:]] + rest:
        yield [OTHER, *map(sum, zip(*rest, strict=True))]
