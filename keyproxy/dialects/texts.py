"""Texts without a conversation: completions, embeddings, reranking. OpenRouter, November 2026."""

from __future__ import annotations

from keyproxy.dialects.dialect import Dialect, table

COMPLETIONS = Dialect(
    name="completions",
    path="/completions",
    fields=table(
        free=(
            "temperature top_p top_k top_a min_p frequency_penalty presence_penalty"
            " repetition_penalty logit_bias logprobs top_logprobs seed stop stream_options"
            " max_tokens suffix echo"
        ),
        prompts="prompt",
        one="n best_of",
    ),
    priced_by="answer",
    texts="prompt",
    lengths=("max_tokens",),
    has_choices=True,
)
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
