"""How a call goes at a fake, what it saw of it, and what it billed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from tests.fakes.vendor import Json, Model, Used

NOTHING = Used(0, 0, 0, 0)
FAILS = "fails/"
"""What the id of a model that goes wrong begins with; the rest is ``Plan.ends``."""
BREAKS = ("hang", "reset", "silent", "slow", "cut", "error_first", "error_inside")


@dataclass(frozen=True)
class Plan:
    """How one call goes.

    ``ends``: ``whole``, the name of one of the vendor's troubles, or one of ``BREAKS``: no head
    ever; the connection reset after the call was read; a head and no output; output only once
    ``Fake.released`` is set; reset ``after`` so many tokens; status 200 with an error in place of
    the answer, or behind so many tokens. ``bills``: whether what broke is billed all the same.
    """

    ends: str = "whole"
    tokens: int = 6
    after: int = 2
    pause_seconds: float = 0
    bills: bool = True


@dataclass(frozen=True)
class Seen:
    """What reached a fake. ``keys``: what was shown as one, in either header; ``number``: in which
    order, whichever fake it reached."""

    vendor: str
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    number: int = field(default_factory=itertools.count().__next__)

    @property
    def keys(self) -> list[str]:
        shown = (self.headers.get("Authorization"), self.headers.get("x-api-key"))
        return [text.removeprefix("Bearer ") for text in shown if text]

    @property
    def json(self) -> Json:
        read: Json = json.loads(self.body)
        return read


@dataclass(slots=True)
class Bill:
    """A call in the books. ``cost`` None: it still runs. ``said``: the bytes that were sent."""

    seen: Seen
    model: Model
    id: str
    plan: Plan
    cost: Decimal | None = None
    used: Used = NOTHING
    said: bytearray = field(default_factory=bytearray)

    def close(self, used: Used | None) -> None:
        if used is not None:
            self.used, self.cost = used, used.cost(self.model)
        else:
            self.cost = Decimal(0)


def by_name(seen: Seen, body: Json) -> Plan:
    """As the model is called."""
    name = str(body.get("model"))
    return Plan(name.removeprefix(FAILS)) if name.startswith(FAILS) else Plan()
