"""Which costly features the operator allowed, and what each word opens. Pure.

Of the names in ``anthropic-beta`` most only let a field or tool be used, which has its own rule;
they pass, unknown ones too. Here stand those that do something by themselves. Source: Anthropic's
published lists of beta headers and its Python SDK, state November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Self

from keyproxy.dataclass import dataclass
from keyproxy.features import TOOL, is_closed_tool
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
        return _line("KEYPROXY_ALLOWED_FEATURES", self.words | {word}) if is_safe(word) else None

    def extra_line(self, name: str) -> str | None:
        """The same with the field ``name``."""
        return _line("KEYPROXY_EXTRA_FIELDS", self.extra_fields | {name}) if is_safe(name) else None

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


def _line(variable: str, values: frozenset[str]) -> str:
    return f"{variable}={','.join(sorted(values))}"


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
    told = (
        (name, _without_closed(value, features) if name == _BETA_HEADER else value)
        for name, value in headers
    )
    return tuple((name, value) for name, value in told if value or name != _BETA_HEADER)


def _without_closed(value: str, features: Features) -> str:
    betas = value.split(",")
    kept = [beta for beta in betas if _is_open(beta.strip().lower(), features)]
    return value if len(kept) == len(betas) else ",".join(kept).strip()


def _is_open(beta: str, features: Features) -> bool:
    words = (word for start, word in COSTLY_BETAS.items() if beta.startswith(start))
    return all(word in features.words for word in words)
