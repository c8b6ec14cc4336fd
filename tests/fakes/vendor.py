"""What a fake provider is: one value, read by the server and by tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

MILLION = 1_000_000
CREATED = 1790981416
Json = dict[str, Any]


class Model(NamedTuple):
    """``id`` is the vendor's, ``canonical`` OpenRouter's; prices in USD per million tokens.

    ``thinks``: tokens of hidden reasoning in each answer. ``wants``: the spelling of the output's
    length that it insists on. ``refuses``: fields that others of the vendor take, ``json_schema``
    for a schema to answer by; ``unless_idle``: those that it refuses but where it need not think.
    ``writes``: the most tokens that may be asked for.
    """

    id: str
    canonical: str
    prompt: Decimal
    completion: Decimal
    cached: Decimal
    context: int = 131_072
    reads_images: bool = False
    thinks: int = 0
    wants: str | None = None
    refuses: frozenset[str] = frozenset()
    unless_idle: frozenset[str] = frozenset()
    writes: int | None = None
    dialects: frozenset[str] | None = None
    """Those it is served in; None: all of the vendor's but embeddings."""


class Used(NamedTuple):
    """Tokens of one answer. ``cached`` are among ``prompt``; ``reasoning`` stands beside
    ``completion``, and costs as much."""

    prompt: int
    cached: int
    completion: int
    reasoning: int

    def cost(self, model: Model) -> Decimal:
        return (
            (self.prompt - self.cached) * model.prompt
            + self.cached * model.cached
            + (self.completion + self.reasoning) * model.completion
        ) / MILLION


class Trouble(NamedTuple):
    """An error of a vendor: its words, and the class by which a router should know it.

    ``code`` is the word of its own that tells it from others of the same status; ``kind`` one of
    ``load``, ``account``, ``uncertain``, ``caller``, ``config``.
    """

    status: int
    code: str
    message: str
    kind: str
    headers: Mapping[str, str] = {}
    param: str | None = None
    type: str = "invalid_request_error"
    details: tuple[Json, ...] = ()


class Complaint(NamedTuple):
    """Why a body is refused: ``unknown`` name, ``unsupported`` field, or a bad ``value``."""

    why: str
    path: tuple[str | int, ...]
    hint: str = ""

    @property
    def name(self) -> str:
        return str(self.path[-1])

    @property
    def dotted(self) -> str:
        return ".".join(map(str, self.path))


@dataclass(frozen=True)
class Strictness:
    """What of a body is refused. A set of names is all that is taken there; None: any name."""

    fields: frozenset[str] | None = None
    refused: frozenset[str] = frozenset()
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Fields that take these values only."""
    never_empty: frozenset[str] = frozenset()
    needed: frozenset[str] = frozenset()
    of_message: frozenset[str] | None = None
    of_part: Mapping[str, frozenset[str]] | None = None
    """By the part's type; a type that is not named is refused, too."""
    of_tool_call: frozenset[str] | None = None
    schema_words: frozenset[str] = frozenset()
    """Keywords of JSON schemas that are refused."""
    betas: frozenset[str] | None = None


@dataclass(frozen=True)
class ChatStyle:
    """How ``/chat/completions`` streams. ``usage_at``: ``asked_chunk`` and ``asked_every`` come for
    ``stream_options.include_usage`` only; ``last``, ``last_and_chunk``, ``x_groq`` and ``chunk``
    unasked."""

    usage_at: str
    usage: Callable[[Used, Decimal], Json]
    opening: Json | None = None
    """The delta of a chunk before the first piece."""
    each: Json = field(default_factory=dict)
    """What stands in every delta."""
    ending: Json = field(default_factory=dict)
    comment: bytes = b""
    reasoning: str | None = None
    """Under which name reasoning is shown."""
    message: Json = field(default_factory=dict)
    """What else stands in the message of a whole answer, and is echoed by clients."""
    extra: Json = field(default_factory=dict)
    """What else stands in each chunk, and in a whole answer."""


class Catalogue(NamedTuple):
    rows: Callable[[Vendor], Any]
    is_public: bool = False


@dataclass(frozen=True)
class Vendor:
    name: str
    key: str
    paths: Mapping[str, str]
    """Where each dialect is."""
    bases: tuple[str, ...]
    """The address that settings name; a second one is that of ``/messages``."""
    models: tuple[Model, ...]
    shape: Callable[[Trouble], Any]
    complain: Callable[[Complaint], Trouble]
    troubles: Mapping[str, Trouble]
    strict: Mapping[str, Strictness]
    lists: Mapping[str, Catalogue]
    """Lists of models, by their paths."""
    chat: ChatStyle
    bills_on: bool
    """Whether a stream that is hung up on is billed to its end."""
    x_api_key_at: frozenset[str] = frozenset()
    """Paths that take the key as ``x-api-key``, too; all take it as a bearer's."""
    hints: Mapping[str, str] = field(default_factory=dict)
    """Headers that tell of limits, on every answer."""
    shape_of: Mapping[str, Callable[[Trouble], Any]] = field(default_factory=dict)
    """The shapes of dialects that have their own."""

    def model(self, id: str) -> Model | None:
        return next((model for model in self.models if model.id == id), None)

    def body_of(self, trouble: Trouble, dialect: str) -> Any:
        return self.shape_of.get(dialect, self.shape)(trouble)
