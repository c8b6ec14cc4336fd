"""Every provider that is known by name, in the order of the alphabet but for OpenRouter."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from keyproxy.upstream.anthropic import ANTHROPIC
from keyproxy.upstream.cerebras import CEREBRAS
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
