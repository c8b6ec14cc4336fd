"""What is to be known of a service that answers calls. One value for each, a file for each value.

Nothing else here knows whether it is asked by ``Bearer`` or ``x-api-key``, what its errors tell of
the account, or how it is asked about a key, a call, its models.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

from keyproxy.call import BASE, Usage
from keyproxy.errors import Refusal
from keyproxy.price import Price


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What is said of a key. Money in USD; ``limit`` is None for a key without one."""

    status: int
    label: str | None = None
    limit: Decimal | None = None
    limit_remaining: Decimal | None = None
    expires_at: str | None = None
    is_management: bool = False


class Told(NamedTuple):
    """What is said of a call when it is asked about later."""

    usage: Usage
    model: str | None


class Row(NamedTuple):
    """A model in a list: ``page`` is its whole JSON, ``kept`` what ``Listing.kept`` names."""

    model: str
    page: bytes
    kept: dict[str, Any]


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
    """Where a provider lists its models and who serves them, and what the rows say.

    ``is_usual``: a row is listed where nothing is said of what models write. ``kept``: what of a
    row stays beside its price. ``names_of`` rows and all ids: other names, and the ids they stand
    for. A row that is not wholly understood has no price.
    """

    path: str
    is_usual: Callable[[Mapping[str, Any]], bool] = lambda row: True
    kept: tuple[str, ...] = ("id",)
    price_of_row: Callable[[Any], Price | None] = lambda row: None
    names_of: Callable[[Iterable[Mapping[str, Any]], Collection[str]], dict[str, str]] = (
        lambda rows, listed: {}
    )
    providers_path: Callable[[str], str | None] = lambda model: None
    kept_of_provider: tuple[str, ...] = ()
    price_of_providers: Callable[[Iterable[Any], bool], Price | None] = lambda rows, tiers: None

    def holds(self, path: str) -> bool:
        """Whether a list of models is at ``path``: the whole one, or what a filter leaves."""
        return path.partition("?")[0] == self.path.partition("?")[0]

    def read(self, body: dict[str, Any]) -> tuple[tuple[Row, ...], bytes]:
        """The rows in the JSON of a list, and what stands behind them in its envelope.

        Raises TypeError for what is no list, and RecursionError.
        """
        if not isinstance(body.get("data"), list):
            raise TypeError("data is no list")
        rows = tuple(
            Row(
                row["id"],
                json.dumps(row, separators=(",", ":")).encode(),
                {name: row[name] for name in self.kept if name in row},
            )
            for row in body["data"]
            if isinstance(row, dict) and isinstance(row.get("id"), str)
        )
        own = ("data", "total_count", "links")
        rest = {name: value for name, value in body.items() if name not in own}
        return rows, b"," + json.dumps(rest).encode()[1:-1] if rest else b""


@dataclass(frozen=True, slots=True)
class Provider:
    """``name`` and ``key_variable`` are for messages; paths begin after the base address."""

    name: str
    key_variable: str
    keys_page: str
    key_header: str
    key_form: str
    """How the key stands in ``key_header``: ``Bearer {}``."""
    passed: tuple[str, ...]
    """Names of what passes from an answer's head, but for its type; pages may read it, too."""
    private_names: frozenset[str]
    """What of the account stands in errors and lists."""
    key_path: str
    """What is asked for to learn about a key, at no cost."""
    read_key: Callable[[int, Any], KeyReport]
    """From status and JSON, None where it was none."""
    listing: Listing
    """Its models, and what they cost."""
    paths: Mapping[str, str] | None = None
    """Endpoints it has, and where; None: all of ours, where we have them."""
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

    def target(self, target: str) -> str:
        """Where a call to ``target``, as ``Call.target`` has it, goes. Raises
        ``endpoint_not_allowed``."""
        if self.paths is None:
            return target
        path, mark, query = target.partition("?")
        if (own := self.paths.get(path)) is None:
            raise Refusal("endpoint_not_allowed", f"{self.name} has no {BASE}{path}.")
        return own + mark + query
