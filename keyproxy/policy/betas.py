"""Which names of ``anthropic-beta`` go up: those that cost or reach further need a word. Pure.

Most names only let a field or tool be used, which has its own rule; they pass, unknown ones too.
Here stand those that do something by themselves. Source: Anthropic's published lists of beta
headers and its Python SDK, state November 2026.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from keyproxy.policy.features import Features

HEADER = "anthropic-beta"
COSTLY: Mapping[str, str] = MappingProxyType(
    {"context-1m": "long-context", "fast-mode": "priority"}
)
"""How a name begins, before its date, and the word that lets it pass."""


def passed(headers: Iterable[tuple[str, str]], features: Features) -> tuple[tuple[str, str], ...]:
    """``headers`` without the beta names that are not open.

    They are left out, not refused: SDKs and tools send them unasked, and the call works without.
    """
    kept = []
    for name, value in headers:
        if name == HEADER:
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
    words = (word for start, word in COSTLY.items() if beta.startswith(start))
    return all(word in features.words for word in words)
