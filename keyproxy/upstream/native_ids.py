"""What models are called by those who serve them, where no rule tells: a table of 29 November 2026.

By provider, OpenRouter's id of a model and the native one. Only the same weights stand here: a
name with ``-turbo`` or ``-fp8`` behind it may be a model of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

NATIVE_IDS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "groq": {
            "meta-llama/llama-3.1-8b-instruct": "llama-3.1-8b-instant",
            "meta-llama/llama-3.3-70b-instruct": "llama-3.3-70b-versatile",
            "meta-llama/llama-4-maverick": "meta-llama/llama-4-maverick-17b-128e-instruct",
            "meta-llama/llama-4-scout": "meta-llama/llama-4-scout-17b-16e-instruct",
        },
    }
)
