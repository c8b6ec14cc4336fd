"""One call's way: the homes that can take it, in the order in which they are tried. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from keyproxy.call import ROUTER, Call, Client, Said
from keyproxy.dataclass import dataclass, field, replace
from keyproxy.dialects import EMBEDDINGS
from keyproxy.errors import Refusal
from keyproxy.routing.choose import Candidate, Choice, expected_cost, expected_wait, ordered
from keyproxy.routing.edits import Edits
from keyproxy.routing.homes import At, Home, Homes, Place, parted
from keyproxy.routing.memory import Memory
from keyproxy.routing.preferences import is_above, lowest, preferences
from keyproxy.routing.qualify import REASONS, Asked, Facts, No, is_author, qualify
from keyproxy.routing.sticky import conversation
from keyproxy.upstream.provider import Provider

Fallback = Literal["none", "provider", "model"]
LIST_SECONDS = 2.0
"""Until a provider's list of models is worth waiting for again."""


class Way(NamedTuple):
    """How homes are chosen for a model or a route. ``max_price``: USD per million tokens;
    ``fallback`` None: as for all; ``at``: the homes that a route names, by model, and ``order`` all
    of them as it names them."""

    choose: Choice = "order"
    max_price: Mapping[str, float] = {}
    fallback: Fallback | None = None
    at: Mapping[str, At] = {}
    order: Sequence[tuple[str, str]] = ()


USUAL = Way()


class Option(NamedTuple):
    """A home that can take the call, and what changes of it there; ``fallback``: how far the call
    may go on from it."""

    place: Place
    edits: Edits
    facts: Facts
    fallback: Fallback


class _Look(NamedTuple):
    """The homes of one model: those that can take the call, and those that cannot."""

    way: Way
    fit: list[Option]
    unfit: list[tuple[Place, No]]
    waits_for: tuple[str, ...]


class _Found(NamedTuple):
    """The homes of a call: ``groups`` of those that can take it, each in the order to try."""

    asked: Asked
    thread: bytes
    looks: list[_Look]
    groups: list[list[Option]]


class Row(NamedTuple):
    """A home, whether or not it can take the call, for the operator: ``why_not`` None where it can.
    ``cost``: expected USD; ``first_output_seconds``: expected, too."""

    model: str
    provider: str
    native_id: str | None
    why_not: No | None
    cost: float | None = None
    first_output_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """``options`` in the order to try. ``conversation`` is the hash by which it is known here.
    ``is_whole``: a list of models goes up as it is, so that any of them may answer; else each try
    names one."""

    asked: Asked
    options: tuple[Option, ...]
    conversation: bytes
    is_whole: bool = False


@dataclass(frozen=True)
class Router:
    """How calls of one app find their homes.

    ``usual``: where nothing else is said; ``ways``: by the id of a model in small letters,
    ``routes`` by a name for several. ``facts``: what is known of a model at a home.
    """

    app: str
    homes: Homes
    memory: Memory
    usual: Way = USUAL
    ways: Mapping[str, Way] = field(default_factory=dict)
    routes: Mapping[str, Way] = field(default_factory=dict)
    facts: Callable[[Place], Facts] = lambda place: Facts()

    def plan(self, call: Call, client: Client) -> Plan:
        """Raises ``no_provider_qualifies``, and ``overloaded`` while it is not known who has it."""
        asked, thread, looks, groups = self._find(call, client)
        said, wanted = asked.said, asked.preferences
        most = None if wanted.may_fall_back or wanted.order else 1
        options = [option for group in groups for option in group[:most]]
        if not options:
            raise _nobody(said, looks)
        if is_whole := _is_whole(said, looks):
            options = looks[0].fit
        else:
            _name_one(said, options)
        options.sort(key=lambda option: self.memory.rests.seconds(option.place.home) > 0)
        if call.endpoint.dialect is EMBEDDINGS:  # vectors of two homes are not of one space
            options = [option for look in looks for option in look.fit][:1]
        return Plan(asked, tuple(options), thread, is_whole)

    def table(self, call: Call, client: Client) -> Iterator[Row]:
        """What becomes of the call at each provider that is used: first those that can take it, in
        the order in which they are tried."""
        asked, _, looks, groups = self._find(call, client)
        for option in (option for group in groups for option in group):
            yield self._row(asked, option)
        for look, model in zip(looks, asked.said.answering, strict=True):
            for place, no in look.unfit:
                yield Row(model, place.home.provider, place.home.native_id, no)
            seen = {place.home.provider for place, _ in look.unfit}
            seen |= {option.place.home.provider for option in look.fit}
            for provider in self.homes.providers:
                if provider.name not in seen:
                    no = No("id", self._why_none(provider, model, look))
                    yield Row(model, provider.name, None, no)

    def _find(self, call: Call, client: Client) -> _Found:
        said = call.said
        assert said is not None  # noqa: S101 - the policy of routed calls keeps it
        thread = conversation(self.app, client.id, said.fields)
        asked = self._asked(call, said, thread)
        asked = replace(asked, barred=next(self._barred(asked), None))
        looks = [self._look(asked, model) for model in said.answering]
        groups = [(look.fit, look.way.choose) for look in looks]
        if said.route is not None:  # its models are as good as each other
            groups = [(self._listed(looks), looks[0].way.choose)]
        ordered = [self._ordered(asked, *group, thread) for group in groups]
        return _Found(asked, thread, looks, ordered)

    def _barred(self, asked: Asked) -> Iterator[str]:
        """Models that work for the call, as its tools name them, and that OpenRouter may not be
        asked for: it is no home of theirs, or above their highest price."""
        for model in asked.call.ids:
            if model in asked.said.answering:
                continue
            places, most = self.homes.of(model).places, self._way(asked, model).max_price
            place = next((each for each in places if each.home == Home(ROUTER, model)), None)
            price = None if place is None else self.facts(place).price
            is_unknown = place is None or (most and price is None)
            if is_unknown or (price is not None and is_above(price, most, asked.input_tokens)):
                yield model

    def _why_none(self, provider: Provider, model: str, look: _Look) -> str:
        if look.way.at or self.homes.at_of(model) is not None:
            return "`at` does not name it"
        if provider.name in look.waits_for:
            return f"{provider.title} may have it: its list of models is not there"
        return f"{provider.title} is not known to have it"

    def _look(self, asked: Asked, model: str) -> _Look:
        way = self._way(asked, model)
        found = self.homes.of(model, way.at.get(model))
        look = _Look(way, [], [], found.waits_for)
        fallback = way.fallback or self.usual.fallback or "provider"
        if fallback == "provider" and asked.said.route is None:
            fallback = "model"  # the call itself names the others, if there are any
        asked = replace(asked, max_price=way.max_price)
        for place in found.places:
            facts = self.facts(place)
            verdict = qualify(asked, place, facts)
            if isinstance(verdict, No):
                look.unfit.append((place, verdict))
            else:
                look.fit.append(Option(place, verdict, facts, fallback))
        return look

    def _way(self, asked: Asked, model: str) -> Way:
        """How ``model`` finds its home: as its route says, if it is called by one. Yet nothing
        passes its own highest price, nor goes on from it where it is to be the last."""
        name = self.homes.meant(self.ways, model)
        own = None if name is None else self.ways[name]
        way = own or self.usual
        if asked.said.route is not None:
            way = self.routes[asked.said.route]
            if own is not None:
                way = way._replace(max_price=lowest(way.max_price, own.max_price))
            if own is not None and own.fallback == "none":
                way = way._replace(fallback="none")
        choose = asked.preferences.choose
        return way if choose is None else way._replace(choose=choose)

    @staticmethod
    def _listed(looks: Sequence[_Look]) -> list[Option]:
        """The homes of a route's models, in the order in which it names them, if it does."""
        options = [option for look in looks for option in look.fit]
        order = {Home(*home): at for at, home in enumerate(looks[0].way.order)}
        return sorted(options, key=lambda option: order.get(option.place.home, len(order)))

    def _row(self, asked: Asked, option: Option) -> Row:
        model, (provider, native_id) = option.place.model, option.place.home
        cost, tokens = self._cost(asked, option), asked.input_tokens
        pace = self.memory.speeds.expected(option.place.home, tokens, is_streaming=True)
        return Row(model, provider, native_id, None, cost, pace.first_output_seconds)

    def _asked(self, call: Call, said: Said, thread: bytes) -> Asked:
        issuer = self.memory.stays.issuer(thread) if said.is_sealed else None
        used = {provider.name for provider in self.homes.providers}
        who = issuer.provider if issuer is not None and issuer.provider in used else None
        return Asked(call, said, preferences(said), who)

    def _ordered(
        self, asked: Asked, options: Iterable[Option], choose: Choice, thread: bytes
    ) -> list[Option]:
        """Homes that are as good as each other but for what ``choose`` asks."""
        by_home = {option.place.home: option for option in options}
        score = {"cheapest": self._cost, "fastest": self._wait}.get(choose)
        rests = self.memory.rests
        homes = ordered(
            [
                Candidate(home, score and score(asked, option), rests.seconds(home))
                for home, option in by_home.items()
            ],
            choose,
            thread,
            self.memory.stays.warm(thread),
        )
        found = [by_home[home] for home in homes]
        if asked.said.is_sealed and asked.issuer is None:  # most likely who made the model
            found.sort(key=lambda option: not is_author(option.place))
        if asked.preferences.order:
            ranks = asked.preferences.ranks(self.homes.providers)
            found.sort(key=lambda option: ranks[option.place.home.provider])
        return found

    def _cost(self, asked: Asked, option: Option) -> float | None:
        tokens = self._output_tokens(asked, option.place)
        return expected_cost(option.facts.price, asked.input_tokens, tokens)

    def _wait(self, asked: Asked, option: Option) -> float:
        home, is_streaming = option.place.home, asked.call.is_streaming
        pace = self.memory.speeds.expected(home, asked.input_tokens, is_streaming=is_streaming)
        tokens = self._output_tokens(asked, option.place)
        crowd = self.memory.in_flight[home]
        return expected_wait(pace, tokens, crowd, is_streaming=is_streaming)

    def _output_tokens(self, asked: Asked, place: Place) -> float:
        most = None if asked.call.ask is None else asked.call.ask.max_output_tokens
        return self.memory.outputs.expected(self.app, parted(place.model)[0], most)


def _is_whole(said: Said, looks: Sequence[_Look]) -> bool:
    """Whether a list of models goes up as it is: each of them has OpenRouter for its only home,
    and is called there as it was asked for."""
    homes = [[option.place.home for option in look.fit] for look in looks]
    return said.route is None and homes == [[Home(ROUTER, model)] for model in said.answering]


def _name_one(said: Said, options: Iterable[Option]) -> None:
    """Each try names one model."""
    lists = [name for name in ("models", "fallbacks") if name in said.asking]
    for option in options:
        if option.place.home.provider == ROUTER:
            option.edits.dropped += lists


def _nobody(said: Said, looks: Sequence[_Look]) -> Refusal:
    if waits_for := list(dict.fromkeys(name for look in looks for name in look.waits_for)):
        return Refusal(
            "overloaded",
            "Which provider has this model is not known here yet; try again in a moment.",
            retry_after_seconds=LIST_SECONDS,
            hint=f"the list of models of {', '.join(waits_for)} is not there yet",
        )
    noes = [no for look in looks for _, no in look.unfit]
    if any(no.why == "unpriced" for no in noes):
        return Refusal(
            "overloaded",
            "The prices of models are not known here yet, so that none is called; try again soon.",
            retry_after_seconds=LIST_SECONDS,
            hint="no list of models could be fetched, and a highest price is set",
        )
    order = list(REASONS)
    nearest = max(noes, key=lambda no: order.index(no.why), default=No("id", ""))
    is_id = nearest.why == "id"
    return Refusal(
        "no_provider_qualifies",
        f"This call cannot be taken: {REASONS[nearest.why].format(nearest.param)}.",
        param="model" if is_id else nearest.param,
        hint="; ".join(dict.fromkeys(no.text for no in noes))
        or f"no provider has {said.answering[0]}",
    )
