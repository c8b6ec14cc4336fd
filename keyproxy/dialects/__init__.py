"""How calls are written: one value for each kind of call, and no code that acts on them."""

from __future__ import annotations

from keyproxy.dialects.chat import CHAT
from keyproxy.dialects.dialect import Dialect
from keyproxy.dialects.messages import MESSAGES
from keyproxy.dialects.others import (
    COMPLETIONS,
    EMBEDDINGS,
    IMAGES,
    RERANK,
    SPEECH,
    TRANSCRIPTIONS,
)
from keyproxy.dialects.responses import RESPONSES

__all__ = [
    "CATALOGUE",
    "CHAT",
    "COMPLETIONS",
    "DIALECTS",
    "EMBEDDINGS",
    "IMAGES",
    "MESSAGES",
    "RERANK",
    "RESPONSES",
    "SPEECH",
    "TRANSCRIPTIONS",
    "Dialect",
]

DIALECTS = (
    CHAT,
    RESPONSES,
    MESSAGES,
    COMPLETIONS,
    EMBEDDINGS,
    RERANK,
    IMAGES,
    SPEECH,
    TRANSCRIPTIONS,
)
"""Each in which a model can be called."""

CATALOGUE = Dialect(name="catalogue", path="", fields={})
"""Lists of models: asked for without a body."""
