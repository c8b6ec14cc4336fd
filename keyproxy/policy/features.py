"""Which costly features the operator allowed, and what each word opens. Pure.

Of the names in ``anthropic-beta`` most only let a field or tool be used, which has its own rule;
they pass, unknown ones too. Here stand those that do something by themselves. Source: Anthropic's
published lists of beta headers and its Python SDK, state November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from keyproxy.policy.spelling import not_allowed
from keyproxy.settings.grammar.features import TOOL, is_closed_tool
from keyproxy.settings.lines import is_safe

_WEB_TOOL = re.compile(r"web_(?:search|fetch)(?:_preview)?(?:_\d[\d_]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Features:
    """``KEYPROXY_ALLOWED_FEATURES`` and ``KEYPROXY_EXTRA_FIELDS``."""

    words: frozenset[str] = frozenset()
    extra_fields: frozenset[str] = frozenset()

    @classmethod
    def of(cls, words: Iterable[str], extra_fields: Iterable[str] = ()) -> Self:
        return cls(frozenset(words), frozenset(extra_fields))

    def line(self, word: str) -> str | None:
        """The setting with ``word`` added, to paste; None where a caller's text is not safe to."""
        if not is_safe(word):
            return None
        return f"KEYPROXY_ALLOWED_FEATURES={','.join(sorted(self.words | {word}))}"

    def extra_line(self, name: str) -> str | None:
        """The setting with the field ``name`` added, to paste; None where it is not safe to."""
        if not is_safe(name):
            return None
        return f"KEYPROXY_EXTRA_FIELDS={','.join(sorted(self.extra_fields | {name}))}"

    def require(self, word: str, param: str, found: str, instead: str | None = None) -> None:
        """Raises ``field_not_allowed`` unless ``word`` is on.

        ``found`` continues "The field … "; ``instead`` is what may be sent.
        """
        if word not in self.words:
            raise not_allowed(param, found, instead, hint=self.line(word))

    def opens_tool(self, kind: str) -> bool:
        """Whether a server tool of this type may be used."""
        return not is_closed_tool(kind) and (
            TOOL + kind in self.words or word_for_tool(kind) in self.words
        )

    @property
    def has_server_tools(self) -> bool:
        return any(
            word in ("web", "images", "routers") or word.startswith(TOOL) for word in self.words
        )


NONE = Features()
_BETA_HEADER = "anthropic-beta"
COSTLY_BETAS: Mapping[str, str] = MappingProxyType(
    {"context-1m": "long-context", "fast-mode": "priority"}
)
"""How a name begins, before its date, and the word that lets it pass."""


def word_for_tool(kind: str) -> str:
    """The word that opens server tools of this type."""
    name = kind.removeprefix("openrouter:")
    if _WEB_TOOL.fullmatch(name):
        return "web"
    return "images" if name == "image_generation" else TOOL + kind


def open_betas(
    headers: Iterable[tuple[str, str]], features: Features
) -> tuple[tuple[str, str], ...]:
    """``headers`` without the beta names that are not open.

    They are left out, not refused: SDKs and tools send them unasked, and the call works without.
    """
    kept = []
    for name, value in headers:
        if name == _BETA_HEADER:
            value = _without_closed(value, features)
            if not value:
                continue
        kept.append((name, value))
    return tuple(kept)


def _without_closed(value: str, features: Features) -> str:
    betas = value.split(",")
    kept = [beta for beta in betas if _is_open(beta.strip().lower(), features)]
    return value if len(kept) == len(betas) else ",".join(kept).strip()


def _is_open(beta: str, features: Features) -> bool:
    words = (word for start, word in COSTLY_BETAS.items() if beta.startswith(start))
    return all(word in features.words for word in words)
