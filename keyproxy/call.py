"""What the steps of one call hand on to each other. Plain values, no behaviour.

Nobody changes one; but ``Ask`` and ``Usage`` are filled in by who makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal, NamedTuple

from keyproxy.dataclass import dataclass, field
from keyproxy.dialects import Dialect, names

BASE = "/api/v1"
"""What every served path begins with."""
CREDENTIAL_FIELDS = ("Authorization", "X-Api-Key", "X-Goog-Api-Key")
"""Where a head may show who makes the call."""
UNREAD = names(
    "accept-encoding accept-language connection dnt priority referer sec-ch-ua sec-ch-ua-mobile"
    " sec-ch-ua-platform sec-fetch-dest sec-fetch-mode user-agent via x-forwarded-host"
    " x-forwarded-port x-forwarded-proto x-stainless-arch x-stainless-async x-stainless-lang"
    " x-stainless-os x-stainless-package-version x-stainless-retry-count x-stainless-runtime"
    " x-stainless-runtime-version x-stainless-timeout"
)
"""What browsers, SDKs and web servers say that nobody here looks at: their values are not kept."""
ROUTER = "openrouter"
"""The provider that is a home of every model, and reads suffixes and ``provider{}`` itself; the one
that is meant where none is named."""


class End(StrEnum):
    """How a call ended: one word, in the log as in the ledger.

    Ledgers of before December 2026 say ``no_answer`` where no head had come, whatever the reason.
    """

    COMPLETE = "complete"
    REFUSED = "refused"  # it got an error of ours instead of an answer
    CLIENT_LEFT = "client_left"
    STOPPED = "stopped"  # cut by our own stop
    STALLED = "stalled"  # nothing moved for the idle timeout
    UPSTREAM_CUT = "upstream_cut"
    UPSTREAM_ERROR = "upstream_error"  # whole, but it told of an error after its head
    KEY_IN_ANSWER = "key_in_answer"
    FAILED = "failed"  # our own fault, after the answer had begun
    KILLED = "killed"  # the process was gone before it could say


@dataclass(frozen=True)
class Endpoint:
    """One served method and path; ``path`` begins with ``/api/v1``."""

    method: str
    path: str
    dialect: Dialect

    @cached_property
    def name(self) -> str:
        """``METHOD /path``, as settings and logs write it."""
        return f"{self.method} {self.path}"


class Client(NamedTuple):
    """One end user or device of an app.

    ``id`` is what its limits count by, within the app; ``address`` the network address (IPv6 by
    /56) that ``KEYPROXY_ADDRESS_RATE_LIMIT`` counts by. ``is_address``: the id is one, too.
    """

    id: str
    address: str
    app: str = "default"
    is_address: bool = True


@dataclass(slots=True)
class Ask:
    """What a call asks for, as far as it decides the price: sizes and counts, upper bounds.

    ``text_tokens``: at most that many in what the body spells out. ``contexts``: inputs that
    are read apart, each within the model's context. ``rounds``: how often the model may run,
    with tools upstream. ``answers`` is 0 where none is written. ``has_media``: sound, video or
    files, whose tokens nobody knows. ``is_unbounded``: no price of the catalogue bounds it
    (other models, dearer tiers, sound or images as answers, parsed files).

    For messages: ``part`` names what no price may bound, ``length_fields`` where
    ``max_output_tokens`` is said, ``reasoning_tokens`` what it must leave room for.
    """

    text_tokens: int
    max_output_tokens: int | None = None
    answers: int = 1
    contexts: int = 1
    rounds: int = 1
    requests: int = 1
    images: int = 0
    predicted_tokens: int = 0
    searches: int = 0
    results: int = 5
    has_media: bool = False
    has_files: bool = False
    has_long_cache: bool = False
    is_unbounded: bool = False
    part: str = field(default="", compare=False)
    length_fields: tuple[str, ...] = field(default=("max_tokens",), compare=False)
    reasoning_tokens: int = field(default=0, compare=False)


MAX_RESULTS = 25
"""Of one web search; 5 unless the call says otherwise."""
ANYTHING = Ask(0, results=MAX_RESULTS, has_media=True, has_long_cache=True)
"""Stands for a call of which only the usage is left."""
DEARER_TIERS = frozenset({"priority", "fast", "ultrafast", "scale"})
"""Tiers of a provider that only a call which names them gets."""


Write = Callable[[Mapping[str, Any], Collection[str]], bytes]
"""Gives a body's bytes with some top-level fields set and others taken out; the very bytes that
were read where nothing of it changes."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a call says, as the policy left it, for whoever must have it in other words.

    - ``fields``: every top-level field; ``asking``: the names of those that ask for something.
    - ``answering``: the ids of the models that may answer, in their order; ``route``: the name of
      the operator's that they were asked for by.
    - ``inputs``: kinds of parts beside text: image, file, audio, video, or the type of another.
    - ``server_tools``: types of tools that run upstream.
    - ``is_sealed``: it holds reasoning that only its issuer can read; ``names_reasoning``: some of
      it by its id alone.
    - ``write``: the body anew.
    """

    fields: Mapping[str, Any] = field(repr=False)
    asking: frozenset[str]
    answering: tuple[str, ...]
    write: Write = field(repr=False)
    inputs: frozenset[str] = frozenset()
    server_tools: frozenset[str] = frozenset()
    is_sealed: bool = False
    names_reasoning: bool = False
    route: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A request after every check: ``body`` is exactly what goes up.

    ``models`` as they were asked for, aliases included; ``ids`` are those they stand for. ``said``:
    where there are several providers to choose from. ``conversation``: the hash of what it belongs
    to, where a provider may be told.
    """

    endpoint: Endpoint
    path: str
    body: bytes
    query: str = ""
    models: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    is_streaming: bool = False
    ask: Ask | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    said: Said | None = field(default=None, repr=False, compare=False)
    conversation: bytes = field(default=b"", repr=False)

    @property
    def target(self) -> str:
        """What follows the upstream's base address."""
        return self.path.removeprefix(BASE) + (f"?{self.query}" if self.query else "")


@dataclass(slots=True)
class Usage:
    """What an answer says it used. None where it does not say, or says what cannot be true.

    Money is USD, to the digit as it was written. ``input_tokens`` includes ``cached_tokens`` and
    ``cache_write_tokens`` in every style; ``output_tokens`` includes ``reasoning_tokens``. With
    ``is_byok``, ``cost`` is only the upstream's fee and ``upstream_cost`` the provider's bill.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: Decimal | None = None
    is_byok: bool = False
    upstream_cost: Decimal | None = None
    web_searches: int | None = None
    tool_calls: int | None = None


class Told(NamedTuple):
    """What is said of a call when it is asked about later."""

    usage: Usage
    model: str | None


class ToldCost(NamedTuple):
    """Where in an answer's usage the provider says what the call has cost, and its unit in USD."""

    name: str = "cost"
    usd: Decimal = Decimal(1)


IN_COST = ToldCost()


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of the upstream's answer says of the call. ``kind`` is its media type.

    ``key`` is the label of the key it answers to. ``is_own``: the upstream wrote the body, not
    we in place of an error page that is none of its own. ``told_cost``: None where it never says
    what a call has cost. ``holds_key``: whether a text that the answer tells may stand in no book.
    """

    status: int
    kind: str
    generation_id: str | None
    key: str
    is_own: bool = True
    told_cost: ToldCost | None = IN_COST
    holds_key: Callable[[str], bool] = lambda text: False


CostSource = Literal["exact", "computed", "estimated"]


@dataclass(frozen=True, slots=True)
class Cost:
    """``usd`` is what the upstream takes; ``counted`` what budgets count, which with keys of the
    operator's own at a provider (BYOK) is the provider's bill on top."""

    usd: Decimal
    counted: Decimal
    source: CostSource
