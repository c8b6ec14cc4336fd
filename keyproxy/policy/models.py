"""Which models may be called: globs over full ids, variants and routers; which one answered. Pure.

Variants and routers: openrouter.ai/docs, "Model variants" and "Routers", November 2026. Rows of
its ``/models``: ``canonical_slug`` is a second name of a model, ``alias_target.slug`` the model
that a ``~author/x-latest`` stands for now, the price ``"-1"`` that of a router.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

from keyproxy.dataclass import dataclass, field
from keyproxy.dialects import names
from keyproxy.errors import Refusal
from keyproxy.policy.opened import NONE, Features
from keyproxy.policy.spelling import shortened
from keyproxy.record import Record
from keyproxy.settings.grammar.plain import expression
from keyproxy.settings.lines import is_safe

# No empty and no dot segment: an upstream might resolve them.
_ID = re.compile(
    r"(?!.*(?:^|/)\.{0,2}(?:/|:|$))~?[A-Za-z0-9._/~-]{1,200}(?::[A-Za-z0-9._-]{1,40}){0,4}"
)
_MOST_NAMES = 256  # that are kept as judged; then they are judged anew
_LONGEST_ID = 365  # it takes long to find that 20 MB are none

COSTLY_VARIANTS: Mapping[str, str] = MappingProxyType({"online": "web", "nitro": "priority"})
"""Suffixes that add a price of their own, with the word that opens them."""
PLAIN_VARIANTS = frozenset({"free", "floor", "exacto", "thinking", "extended"})
"""Suffixes that only route, or are models with a price in the catalogue."""
_ROUTERS = names("auto auto-beta auto-code bodybuilder free fusion fusion-flash pareto-code")
_MODEL_OF_ANSWER = re.compile(rb'"model"\s*:\s*"([^"\\]{1,200})"')
_LONGEST_FIELD_BYTES = 512
_ENOUGH_BYTES = 16 * 1024  # the first event or the first fields name it, in all three styles
# Anthropic's models sell their speed as a sibling at several times the price.
_FAST = re.compile(r"(?:~?anthropic/|claude-).*-fast(?![a-z])")


@dataclass(frozen=True, slots=True)
class Known:
    """What an upstream's catalogue tells about names, in lower case and without variants.

    ``ids``: a second name -> the ids it stands for. ``listed``: every name that a model has, as it
    is spelled.
    """

    ids: Mapping[str, frozenset[str]] = field(default_factory=dict)
    routers: frozenset[str] = frozenset()
    listed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, rows: Iterable[Any]) -> Self:
        """What the rows of ``data`` in a ``/models`` answer tell; odd ones are passed over."""
        ids: dict[str, set[str]] = {}
        routers, listed = set(), set()
        for row in rows:
            model = _name(row, "id")
            if model is None:
                continue
            second = row.get("canonical_slug")
            listed |= {row["id"], second} if isinstance(second, str) else {row["id"]}
            target = _name(row.get("alias_target"), "slug")
            for name, stands_for in ((_name(row, "canonical_slug"), model), (model, target)):
                if name is not None and stands_for is not None and name != stands_for:
                    ids.setdefault(name, set()).add(stands_for)
            pricing = row.get("pricing")
            if isinstance(pricing, dict) and "-1" in (
                pricing.get("prompt"),
                pricing.get("completion"),
            ):
                routers.add(model)
        known = {name: frozenset(found) for name, found in ids.items()}
        return cls(known, frozenset(routers), frozenset(listed))

    def names(self, name: str) -> frozenset[str]:
        """``name``, and the ids it stands for, directly or through one of them."""
        found = frozenset({name})
        for _ in range(2 if name in self.ids else 0):  # an alias may stand for a canonical name
            found = found.union(*(self.ids.get(one, ()) for one in found))
        return found


NOTHING_KNOWN = Known()


def base(model: str) -> str:
    """An id as it stands in here: ``A/B:free`` is ``a/b``."""
    return model.lower().partition(":")[0]


def _name(row: Any, field_name: str) -> str | None:
    value = row.get(field_name) if isinstance(row, dict) else None
    return base(value) if isinstance(value, str) and value else None


class Models:
    """The operator's list. ``*`` crosses ``/``; ``!pattern`` excludes. Case counts for what is
    allowed, not for what is excluded: an upstream may know one model by both spellings."""

    def __init__(
        self,
        patterns: Iterable[str],
        features: Features = NONE,
        known: Callable[[], Known] = lambda: NOTHING_KNOWN,
    ) -> None:
        """``known``: what a catalogue tells now. It closes what spelling alone leaves open: other
        names of excluded models, and routers that look like models. It opens nothing, so all holds
        without it too."""
        patterns = self._list = tuple(patterns)
        shown = [pattern for pattern in patterns if not pattern.startswith("!")]
        excluded = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
        self._features = features
        self._patterns = frozenset(shown)
        self._allowed = _any_of(shown)
        # Those that say themselves whose models they mean, beyond "everything".
        self._telling = _any_of(pattern for pattern in shown if not pattern.startswith("*"))
        self._excluded = _any_of(excluded, re.I)
        self._excluded_names = frozenset(pattern.lower() for pattern in excluded)
        self._known = known
        self._judged: tuple[Known, set[str]] = (NOTHING_KNOWN, set())
        self._summary = ", ".join(shown[:8]) + (", …" if len(shown) > 8 else "")

    def allows(self, model: str) -> bool:
        """Suffixes such as ``:free`` are part of the id; nothing is stripped or lower-cased."""
        return self._obstacle(model) is None

    def check(self, model: str, param: str = "model") -> None:
        """Raises ``model_not_allowed``."""
        obstacle = self._obstacle(model)
        if obstacle is not None:
            reason, hint = obstacle
            raise Refusal(
                "model_not_allowed",
                f"The model {shortened(model)} may not be used here{reason}",
                param=param,
                hint=hint,
            )

    def has_pattern(self, pattern: str) -> bool:
        """Whether the operator's list holds this very pattern and excludes nothing."""
        return pattern in self._patterns and not self._excluded_names

    def unlisted(self, model: str) -> str | None:
        """That the upstream lists no such model, and which one may be meant.

        None where it lists it, and where its list is not known.
        """
        listed, name = self._known().listed, base(model)
        if not listed or any(base(one) == name for one in listed):
            return None
        own = sorted(one for one in listed if one.lower().endswith(f"/{name}"))
        meant = f"; {shortened(own[0])} perhaps?" if own else ""
        return f"the upstream lists no model {shortened(model)}{meant}"

    def _obstacle(self, model: str) -> tuple[str, str | None] | None:
        """What stands in the way, as the end of a sentence, and the line to paste.

        Names that were found to be open are so until the catalogue tells something else.
        """
        known = self._known()
        judged_by, names = self._judged  # at once: large bodies are judged in a thread
        if known is not judged_by:
            names = set()
            self._judged = known, names
        if model in names:
            return None
        obstacle = self._judge(model, known)
        if obstacle is None:
            if len(names) >= _MOST_NAMES:
                names.clear()
            names.add(model)
        return obstacle

    def _judge(self, model: str, known: Known) -> tuple[str, str | None] | None:
        is_id = len(model) <= _LONGEST_ID and _ID.fullmatch(model)
        if not is_id or not self._allowed.fullmatch(model):
            return f". Allowed: {self._summary}.", self._line(model) if is_id else None
        if self._excluded_names and self._is_excluded(model):
            return f". Allowed: {self._summary}, with exceptions.", self._line(model)
        name, mark, variants = model.lower().partition(":")
        for variant in variants.split(":") if mark else ():
            word = COSTLY_VARIANTS.get(variant)
            if word is not None and word not in self._features.words:
                return (
                    f": the variant :{variant} has a price of its own. Allowed: the same model"
                    " without it.",
                    self._features.line(word),
                )
            if word is None and variant not in PLAIN_VARIANTS and model not in self._patterns:
                shown = shortened(variant, 20)
                return f": its variant :{shown} is not known here.", self._line(model)
        is_open = "priority" in self._features.words or model in self._patterns
        if _FAST.match(name) and not is_open:
            return (
                ": it is the fast form of a model, at a price of its own. Allowed: the same model"
                " without -fast.",
                self._features.line("priority"),
            )
        if not is_router(name) and not (known.routers and known.routers & known.names(name)):
            return None
        reason = ": it is a router, which chooses other models. Allowed: the models themselves."
        if "routers" not in self._features.words:
            return reason, self._features.line("routers")
        return None if model in self._patterns else (reason, self._line(model))

    def _is_excluded(self, model: str) -> bool:
        """Whether the model is excluded under this id, or could be under another.

        ``~author/x-latest`` and ids without an author may stand for any model, so that they need
        a pattern of their own beside an exclusion.
        """
        is_vague = model.startswith("~") or "/" not in model
        return self._is_named_excluded(model) or (is_vague and not self._telling.fullmatch(model))

    def _is_named_excluded(self, model: str) -> bool:
        """Whether an exclusion names the model, under this id or another: it stays."""
        plain = model.removeprefix("~")
        name, mark, variants = plain.partition(":")
        if any(map(self._excluded.fullmatch, {model, plain, name})):
            return True
        known = self._known()
        if not known.ids:
            return False
        ids = known.names(base(model))
        if any(map(self._excluded.fullmatch, [*ids, *(f"{one}{mark}{variants}" for one in ids)])):
            return True
        # Excluded under a second name, letter by letter; a glob may mean just those names.
        told = self._excluded_names & known.ids.keys()
        return any(ids & known.names(second) for second in told)

    def _line(self, model: str) -> str | None:
        """The list with the model added, to paste; None where that would not allow it."""
        if self._is_named_excluded(model) or not is_safe(model):
            return None
        return f"KEYPROXY_ALLOWED_MODELS={','.join((*self._list, model))}"


def is_router(name: str) -> bool:
    """Whether a lower-cased id without its variants stands for a choice among models."""
    name = name.removeprefix("~")
    return (
        name.startswith("openrouter/")
        or name in _ROUTERS
        or name.endswith(("-router", "/router", "/auto"))
    )


def _any_of(globs: Iterable[str], flags: int = 0) -> re.Pattern[str]:
    branches = map(expression, globs)
    return re.compile("|".join(f"(?:{branch})" for branch in branches) or r"(?!)", flags)


class Served:
    """Which model an answer says it is from, read off its first bytes as they pass.

    One for each answer, told in ``record``. Text of it cannot pose as the field: its quotes are
    escaped.
    """

    __slots__ = ("_allowed", "_count", "_ids", "_record", "_rest")

    def __init__(self, record: Record, ids: Sequence[str], allowed: Models) -> None:
        """``ids``: the models that may answer."""
        self._record = record
        self._ids = ids
        self._allowed = allowed
        self._rest = b""
        self._count = 0

    def watch(self, chunk: bytes) -> None:
        """Look at bytes that pass; once the model is known, the record shows no more."""
        seen = self._rest + chunk
        self._rest = seen[-_LONGEST_FIELD_BYTES:]
        self._count += len(chunk)
        # Where no event names it, an expression would go through all of them for each.
        match = _MODEL_OF_ANSWER.search(seen) if seen.find(b'"model"') >= 0 else None
        if match is not None:
            model = shortened(match[1].decode(errors="replace"), 200)
            self._record.served = model
            if self._is_other(model):
                self._record.is_other_model = True
        if match or self._count > _ENOUGH_BYTES:
            # A new list: the record is just going through the one that it has.
            others = [each for each in self._record.watchers if each != self.watch]
            self._record.watchers = others

    def _is_other(self, model: str) -> bool:
        """Whether it is neither allowed nor a dated form of one that was asked for."""
        if self._allowed.allows(model):
            return False
        plain = (id.partition(":")[0] for id in self._ids)
        return not any(model == name or model.startswith(f"{name}-") for name in plain)
