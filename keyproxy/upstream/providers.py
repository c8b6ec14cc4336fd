"""Every provider that is known by name, in the order of the alphabet but for OpenRouter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from keyproxy.settings.providers import Used
from keyproxy.upstream.anthropic import ANTHROPIC
from keyproxy.upstream.cerebras import CEREBRAS
from keyproxy.upstream.compatible import compatible
from keyproxy.upstream.deepinfra import DEEPINFRA
from keyproxy.upstream.gemini import GEMINI
from keyproxy.upstream.groq import GROQ
from keyproxy.upstream.mistral import MISTRAL
from keyproxy.upstream.openai import OPENAI
from keyproxy.upstream.openrouter import OPENROUTER
from keyproxy.upstream.provider import Provider
from keyproxy.upstream.xai import XAI

_ALL = (OPENROUTER, ANTHROPIC, CEREBRAS, DEEPINFRA, GEMINI, GROQ, MISTRAL, OPENAI, XAI)
PROVIDERS: Mapping[str, Provider] = MappingProxyType({each.name: each for each in _ALL})


def provider_of(used: Used) -> Provider:
    """What is known of a provider that is used; one that is known by its name is that very value,
    unless settings know more of its fields.

    Where it answers stands in ``bases_of``.
    """
    if used.kind is None:
        made = PROVIDERS[used.name]
    else:
        made = compatible(used.kind, used.name, used.base or "", used.dialects or ())
        made = replace(made, messages_base=used.messages_base)
    if not used.fields:
        return made
    opened = frozenset(used.fields)
    return replace(
        made, takes={dialect: takes.opening(opened) for dialect, takes in made.takes.items()}
    )


def bases_of(used: Used, provider: Provider, upstream: str) -> tuple[str, str]:
    """Where a provider answers, and where it answers calls in the dialect messages. ``upstream``:
    OpenRouter's address."""
    own = upstream if provider is OPENROUTER else provider.base
    base = used.base or own
    is_moved = base != provider.base and used.messages_base is None
    return base, base if is_moved else used.messages_base or provider.messages_base or base
