"""Whether a home can take a call, and if not, why not: each "no" has a name. Pure.

What rests or is crowded is no reason here: that orders homes and refuses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from keyproxy.call import ROUTER, Call, Said
from keyproxy.dataclass import dataclass, field
from keyproxy.price import Price, PriceSource
from keyproxy.routing.edits import Edits, Unfit, edits_for
from keyproxy.routing.homes import Place
from keyproxy.routing.preferences import NONE, Preferences, is_above
from keyproxy.strict_json.body import whole_number
from keyproxy.upstream.takes import Takes

REASONS: Mapping[str, str] = {
    "dialect": "no provider that is used here has this endpoint for it",
    "named": "no provider that is used here has this endpoint for it",
    "id": "no provider that is used here has this model",
    "choice": "the field provider leaves none of those that are used here",
    "sealed": "the provider that sealed the reasoning in it is none of them",
    "tool": "a tool in it runs at none of them",
    "beta": "none of them lists a beta that it names",
    "input": "none of them reads an input of this kind",
    "context": "it is longer than the context of each of them",
    "length": "each of them writes less than {} asks for",
    "price": "each of them is dearer than is allowed",
    "unpriced": "what they take is not known here yet",
    "field": "none of them takes the field {}",
}
"""By why a home does not take a call, the nearer to taking it the further down."""
BYTES_PER_TOKEN = 3
"""A guess that is rather too many tokens, for what may be refused there; what is set aside for a
call takes each byte for one."""
IMAGE_TOKENS = 1000
_BETA = "anthropic-beta"
# Who defines the tools that run upstream, in each dialect, but for OpenRouter's own.
_VENDORS = {"chat": "openai", "responses": "openai", "messages": "anthropic"}


class No(NamedTuple):
    """Why a home does not take a call: a word of ``REASONS``, and the end of a sentence; ``param``:
    the field that is to blame."""

    why: str
    text: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as homes are looked at for it.

    ``issuer``: the provider that sealed the reasoning in it, None where that is not known.
    ``max_price``: the operator's, USD per million tokens, by ``input`` and ``output``.
    ``barred``: a model that a tool in it names, and that OpenRouter may not be asked for.
    """

    call: Call
    said: Said
    preferences: Preferences = NONE
    issuer: str | None = None
    max_price: Mapping[str, float] = field(default_factory=dict)
    barred: str | None = None

    @property
    def length(self) -> tuple[int, str]:
        """Tokens that its answer may have, and the field that says so; 0 where there is no bound.
        Where two are said, the shorter one is sent."""
        told = (
            (n, whole_number(self.said.fields.get(n))) for n in self.call.endpoint.dialect.lengths
        )
        return min(
            ((most, n) for n, most in told if most is not None and most > 0), default=(0, "")
        )

    @property
    def input_tokens(self) -> int:
        """About how many tokens its input has."""
        ask = self.call.ask
        if ask is None:
            return len(self.call.body) // BYTES_PER_TOKEN
        return ask.text_tokens // BYTES_PER_TOKEN + ask.images * IMAGE_TOKENS


class Facts(NamedTuple):
    """What is known of a model at a home; None where nobody tells. ``source``: who says the
    price. ``lacks``: what it refuses that others take there. ``output_tokens``: the most that it
    writes. ``is_unlisted``: it has no price because no list of prices was had yet."""

    price: Price | None = None
    context_tokens: int | None = None
    inputs: frozenset[str] | None = None
    source: PriceSource | None = None
    lacks: frozenset[str] = frozenset()
    output_tokens: int | None = None
    is_unlisted: bool = False


def qualify(asked: Asked, place: Place, facts: Facts) -> Edits | No:
    """What changes of the call at a home that can take it, or why it cannot."""
    takes = place.provider.takes.get(asked.call.endpoint.dialect.name)
    title, dialect = place.provider.title, asked.call.endpoint.dialect
    if takes is None:
        return No("dialect", f"{title} has no {dialect.path}")
    if takes.is_named_only and not place.is_named:
        text = f"{title} takes {dialect.path} by a layer that is used only where `at` names it"
        return No("named", text)
    if (obstacle := asked.preferences.obstacle(place.provider)) is not None:
        return No("choice", obstacle, "provider")
    no = _of_reasoning(asked, place, takes)
    if place.provider.name == ROUTER and asked.barred is not None:
        no = no or No("tool", f"{title} may not be asked for {asked.barred}", "tools")
    if place.provider.name != ROUTER:
        no = no or _of_parts(asked, place, takes, facts.inputs) or _of_head(asked, place, takes)
    if no := no or _of_sizes(asked, place, takes, facts):
        return no
    try:
        takes = takes.lacking(_lacks(asked.said, facts))
        return edits_for(asked.said, dialect, takes, place.home.native_id)
    except Unfit as unfit:
        who = f"{place.home.native_id} at {title}" if facts.lacks else title
        return No("field", f"{who} does not take {unfit.param}", unfit.param)


def _lacks(said: Said, facts: Facts) -> frozenset[str]:
    """What the model lacks for a call: some can be told how to sample once they need not think."""
    told = said.fields.get("reasoning")
    effort = told.get("effort") if isinstance(told, dict) else said.fields.get("reasoning_effort")
    return facts.lacks - ({"sampling while thinking"} if effort == "none" else frozenset())


def _of_parts(asked: Asked, place: Place, takes: Takes, inputs: frozenset[str] | None) -> No | None:
    said, title, dialect = asked.said, place.provider.title, asked.call.endpoint.dialect
    for tool in sorted(said.server_tools):
        vendor = ROUTER if tool.startswith("openrouter:") else _VENDORS.get(dialect.name)
        if vendor != place.provider.name:
            return No("tool", f"the tool {tool} does not run at {title}", "tools")
    if unknown := sorted(said.inputs - takes.inputs):
        return No("input", f"{title} reads no input of the kind {unknown[0]}")
    if inputs is not None and (unknown := sorted(said.inputs - inputs)):
        return No("input", f"this model at {title} reads no input of the kind {unknown[0]}")
    return None


def _of_reasoning(asked: Asked, place: Place, takes: Takes) -> No | None:
    said, title = asked.said, place.provider.title
    if said.names_reasoning and takes.stores:
        text = (
            f"nothing is stored at {title}, and the call names reasoning by its id alone: ask for"
            ' include: ["reasoning.encrypted_content"]'
        )
        return No("sealed", text, "include")
    if not said.is_sealed:
        return None
    # Where nobody knows who sealed it: who made the model, or OpenRouter, which asks them.
    is_issuer = place.provider.name == (asked.issuer or ROUTER)
    if is_issuer or (asked.issuer is None and is_author(place)):
        return None
    return No("sealed", f"{title} cannot read the reasoning that another provider sealed")


def is_author(place: Place) -> bool:
    """Whether the provider of a home made the model."""
    return place.model.partition("/")[0].lstrip("~") == place.provider.author


def _of_head(asked: Asked, place: Place, takes: Takes) -> No | None:
    if takes.betas is None:
        return None
    for name, value in asked.call.headers:
        for beta in (each.strip() for each in value.split(",")) if name == _BETA else ():
            if beta and beta not in takes.betas:
                return No("beta", f"{place.provider.title} does not list the beta {beta}", _BETA)
    return None


def _of_sizes(asked: Asked, place: Place, takes: Takes, facts: Facts) -> No | None:
    title, tokens, (length, field) = place.provider.title, asked.input_tokens, asked.length
    price, context = facts.price, facts.context_tokens
    if context is not None and tokens + length > context:
        text = f"about {tokens} tokens and an answer are more than the {context} of {title}"
        return No("context", text)
    writes = facts.output_tokens
    if takes.bounds_length and writes is not None and length > writes:
        text = f"{place.home.native_id} at {title} writes {writes} tokens at most"
        return No("length", text, field)
    wanted = asked.preferences.max_price
    if place.provider.name == ROUTER:  # it reads the call's own
        wanted = {}
    for most in (asked.max_price, wanted):
        if most and price is None:
            why = "unpriced" if facts.is_unlisted else "price"
            return No(why, f"what {title} takes is not known here, and a highest price is set")
        if price is not None and (dear := is_above(price, most, tokens)) is not None:
            text = f"the price of {dear} at {title} is above the highest that is allowed"
            return No("price", text)
    return None
