"""Every provider that is known by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from keyproxy.upstream.groq import GROQ
from keyproxy.upstream.openrouter import OPENROUTER
from keyproxy.upstream.provider import Provider

PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {provider.name: provider for provider in (OPENROUTER, GROQ)}
)
