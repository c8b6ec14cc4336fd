"""How calls are written: one value for each kind of call, and no code that acts on them.

Those without a conversation stand here. OpenRouter, November 2026.
"""

from __future__ import annotations

from keyproxy.dialects.chat import CHAT, COMPLETIONS
from keyproxy.dialects.dialect import Dialect, table
from keyproxy.dialects.messages import MESSAGES
from keyproxy.dialects.responses import RESPONSES

__all__ = ["CHAT", "COMPLETIONS", "MESSAGES", "RESPONSES", "Dialect"]

EMBEDDINGS = Dialect(
    name="embeddings",
    path="/embeddings",
    fields=table(free="encoding_format dimensions input_type", conversation="input"),
    priced_by="input",
    texts="input",
)
RERANK = Dialect(
    name="rerank",
    path="/rerank",
    fields=table(free="query documents top_n return_documents"),
    priced_by="pairs",
)
IMAGES = Dialect(
    name="images",
    path="/images",
    fields=table(
        free="prompt size quality background output_format response_format aspect_ratio"
        " resolution seed output_compression safety_identifier style",
        conversation="input_images input_references",
        one="n",
    ),
    answers_with_media=True,
)
SPEECH = Dialect(
    name="speech",
    path="/audio/speech",
    fields=table(
        free="voice instructions response_format speed stream_format",
        conversation="input input_references",
    ),
    answers_with_media=True,
)
TRANSCRIPTIONS = Dialect(
    name="transcriptions",
    path="/audio/transcriptions",
    fields=table(
        free="language prompt response_format temperature timestamp_granularities",
        conversation="input_audio",
    ),
)

_OF_TEXT = (CHAT, RESPONSES, MESSAGES, COMPLETIONS, EMBEDDINGS, RERANK)
DIALECTS = (*_OF_TEXT, IMAGES, SPEECH, TRANSCRIPTIONS)
"""Each in which a model can be called."""

CATALOGUE = Dialect(name="catalogue", path="", fields={})
"""Lists of models: asked for without a body."""
