"""What is to be known of a service that answers calls. One value for each, a file for each value.

Nothing else here knows whether it is asked by ``Bearer`` or ``x-api-key``, what its errors tell of
the account, or how it is asked about a key, a call, its models.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from keyproxy.call import Call, Told, ToldCost
from keyproxy.dataclass import dataclass, field
from keyproxy.errors import Refusal
from keyproxy.price import Price
from keyproxy.upstream import faults
from keyproxy.upstream.faults import Fault
from keyproxy.upstream.takes import Takes


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What is said of a key. Money in USD; ``limit`` is None for a key without one. Its texts are
    the provider's, which might repeat the key."""

    status: int
    label: str | None = field(default=None, repr=False)
    limit: Decimal | None = None
    limit_remaining: Decimal | None = None
    expires_at: str | None = field(default=None, repr=False)
    is_management: bool = False
    is_verdict: bool = True
    """False: the answer says nothing of the key, since anybody gets it."""


class Row(NamedTuple):
    """A model in a list: ``page`` is its whole JSON, ``kept`` what ``Listing.kept`` names."""

    model: str
    page: bytes
    kept: dict[str, Any]


class Model(NamedTuple):
    """A model in a provider's own list, by the id that it has there, with what is told of it."""

    id: str
    context_tokens: int | None = None
    price: Price | None = None


def rows_in(body: Any, name: str = "data") -> list[dict[str, Any]]:
    """The models in OpenAI's list, as they stand there. Raises TypeError for what is no list."""
    rows = body.get(name) if isinstance(body, dict) else None
    if not isinstance(rows, list):
        raise TypeError(f"{name} is no list")
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]


def models_in(
    body: Any,
    context: str = "",
    more: Callable[[Model, Mapping[str, Any]], Model] = lambda model, row: model,
    name: str = "data",
) -> tuple[Model, ...]:
    """The same, read; ``context``: which of a row's names has the length; ``more`` reads the rest
    of a row; ``name``: under which the rows stand."""
    return tuple(
        more(Model(row["id"], length if type(length := row.get(context)) is int else None), row)
        for row in rows_in(body, name)
    )


def without_author(author: str | None = None) -> Callable[[str], str | None]:
    """A rule for native ids: the last part of ids of that ``author``, or of all; variants have
    none."""

    def native(model: str) -> str | None:
        first, _, rest = model.partition("/")
        is_plain = rest and ":" not in rest and author in (None, first)
        return rest if is_plain else None

    return native


class Fetched(NamedTuple):
    """A resource of the upstream, read once: a JSON object, or an error as it may be shown.

    ``head``: what of its head goes down to a client. ``rows``: of a list of models; ``raw`` is then
    what stands behind them in its envelope. ``is_public``: it was shown without the key.
    ``age_seconds``: how long ago it was fetched.
    """

    status: int
    raw: bytes
    head: Mapping[str, str] = MappingProxyType({})
    rows: tuple[Row, ...] = ()
    is_public: bool = True
    age_seconds: float = 0.0


Fetch = Callable[[str], Awaitable[Fetched]]
"""Gives what is below the upstream's base address; raises our refusals."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Where a provider lists its models, and what the rows say.

    ``is_usual``: a row is listed where nothing is said of what models write. ``kept``: what of a
    row stays. ``is_public``: it is shown without a key. ``read_models``: the models in its JSON, by
    their ids there; raises TypeError. ``priced``: another list that tells more of the same models,
    whose path begins at the origin.
    """

    path: str
    is_public: bool = False
    read_models: Callable[[Any], tuple[Model, ...]] = models_in
    priced: Listing | None = None
    is_usual: Callable[[Mapping[str, Any]], bool] = lambda row: True
    kept: tuple[str, ...] = ("id",)

    def holds(self, path: str) -> bool:
        """Whether a list of models is at ``path``: the whole one, or what a filter leaves."""
        return path.partition("?")[0] == self.path.partition("?")[0]

    def read(self, body: dict[str, Any]) -> tuple[tuple[Row, ...], bytes]:
        """The rows in the JSON of a list, and what stands behind them in its envelope.

        Raises TypeError for what is no list, and RecursionError.
        """
        rows = tuple(
            Row(
                row["id"],
                json.dumps(row, separators=(",", ":")).encode(),
                {name: row[name] for name in self.kept if name in row},
            )
            for row in rows_in(body)
        )
        own = ("data", "total_count", "links")
        rest = {name: value for name, value in body.items() if name not in own}
        return rows, b"," + json.dumps(rest).encode()[1:-1] if rest else b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """``name`` is what settings, logs and the ledger say, ``title`` what people read; paths begin
    after the base address."""

    name: str
    title: str
    base: str
    """Where it answers, without the slash at the end; settings may say another."""
    messages_base: str | None = None
    """Where it answers calls in the dialect messages, if that is not below ``base``."""
    keys_page: str
    key_header: str = "Authorization"
    key_form: str = "Bearer {}"
    """How the key stands in ``key_header``."""
    head: tuple[tuple[str, str], ...] = ()
    """What the head of a request says where the client's does not."""
    takes: Mapping[str, Takes]
    """By the name of each dialect that it speaks."""
    passed: tuple[str, ...] = ("Retry-After", "request-id")
    """Names of what passes from an answer's head, but for its type; pages may read it, too."""
    private_names: frozenset[str] = frozenset({"organization_id"})
    """What of the account stands in errors and lists."""
    key_path: str = "/models"
    """What is asked for to learn about a key, at no cost."""
    read_key: Callable[[int, Any], KeyReport] = lambda status, body: KeyReport(status)
    """From status and JSON, None where it was none."""
    listing: Listing = Listing("/models")
    """Its models, and what they cost."""
    author: str | None = None
    """Whose models it makes: the first part of their ids."""
    slug: str
    """What OpenRouter calls it as a host: in ``provider{}``, and in its lists of hosts."""
    native: Callable[[str], str | None] = lambda model: model
    """By rule, what a model may be called here; only its list of models tells whether it is, and
    in which case it is written."""
    classify: Callable[[int, Any], Fault] = faults.classify
    """Whose fault an error is, from its status and JSON, None where it was none."""
    on_hangup: Literal["cut", "drain"] = "cut"
    """``drain``: it goes on and bills when its client leaves, so that the rest is worth reading."""
    told_cost: ToldCost | None = None
    """None: it never says what a call has cost."""
    conversation_header: str | None = None
    """Where it is told which calls belong together, to find its prompt cache again."""
    attribution: Callable[[str | None, str | None, str | None], Mapping[str, str]] = (
        lambda referer, title, categories: {}
    )
    refuses_key: frozenset[int] = frozenset({401})
    """Statuses of a call whose key may be at fault."""
    cannot_pay: frozenset[int] = frozenset({402})
    call_header: str | None = None
    """Where an answer's head has the id by which its call can be asked about."""
    call_path: Callable[[str], str] | None = None
    """What is asked for to learn what a call has cost, by its id; None: nobody can tell."""
    read_call: Callable[[bytes], Told | None] = lambda raw: None

    def __str__(self) -> str:
        return self.name

    def taking(self, call: Call) -> Takes:
        """What it takes of ``call``. Raises ``endpoint_not_allowed``."""
        takes = self.takes.get(call.endpoint.dialect.name)
        if takes is None:
            raise Refusal("endpoint_not_allowed", f"{self.title} has no {call.path}.")
        return takes
